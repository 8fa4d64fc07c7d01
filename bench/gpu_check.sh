#!/usr/bin/env bash
# Everything there is to check on a machine with a GPU: python -m bench.gpu.check, which says more with --help.
#
#     bench/gpu_check.sh [step ...] [--seconds N] [--out FOLDER] [--resume]
#
# PYTHON chooses the interpreter (default python3); OUT the folder for results.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" -m bench.gpu.check ${OUT:+--out "$OUT"} "$@"
