"""One target in a process of its own: ``python -m fuzz.worker NAME SECONDS SEED``, or ``... NAME FILE``."""

import logging
import os
import sys
from pathlib import Path

from fuzz import native, targets

ROOT = Path(__file__).resolve().parent.parent
FINDINGS = ROOT / "fuzz" / "findings"
CORPUS = ROOT / "build" / "fuzz" / "corpus"


def main(name: str, *rest: str) -> None:
    """Exits by an exception, or a signal, on a finding."""
    native.install()
    logging.getLogger("glsk").setLevel(logging.ERROR)  # notes of files without a digest
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    from fuzz import files, values

    kind = values if name in targets.VALUES else files
    if len(rest) == 1:
        kind.replay(name, Path(rest[0]))
        print(f"{rest[0]}: no finding")
        return
    seconds, seed = float(rest[0]), int(rest[1])
    FINDINGS.mkdir(exist_ok=True)
    if kind is values:
        tried = values.run(name, seconds, seed, FINDINGS)
    else:
        tried = files.run(name, seconds, seed, FINDINGS, CORPUS / name)
    print(f"{name}: {tried} inputs, no finding")


if __name__ == "__main__":
    main(*sys.argv[1:])
