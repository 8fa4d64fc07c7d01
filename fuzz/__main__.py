"""``python -m fuzz``: every target for its share of the time; the first finding ends it, by status 1."""

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from fuzz import build, native, targets
from fuzz.worker import FINDINGS, ROOT

SHARES = {"bounds_agree": 4, "bounds_sound": 4, "raw_ops": 6}
"""Of the time; the others have 1."""

GRACE = 180
"""Seconds beyond its time after which a target counts as hanging: imports, a last round, shrinking a finding."""


def main() -> int:
    options = _options()
    if options.replay is not None:
        name = options.replay.name.split("-")[0]
        return _run([name, str(options.replay.resolve())], _environment(name, options.sanitizers), None)
    names = options.target or list(targets.NAMES)
    parts = [SHARES.get(name, 1) for name in names]
    print(f"fuzz: seed {options.seed}, {options.seconds:g} s over {', '.join(names)}", flush=True)
    for name, part in zip(names, parts, strict=True):
        seconds = options.seconds * part / sum(parts)
        environment = _environment(name, options.sanitizers)
        before, start = set(_saved(name)), time.time()
        print(f"fuzz: {name} for {seconds:.0f} s", flush=True)
        status = _run([name, str(seconds), str(options.seed)], environment, seconds + GRACE)
        if status != 0:
            how = "hangs" if status is None else f"ends by status {status}"
            print(f"fuzz: {name} {how}", file=sys.stderr)
            for path in _saved(name):
                if path not in before or path.stat().st_mtime >= start:
                    print(f"fuzz: the input is {path.relative_to(ROOT)}; reproduce it by", file=sys.stderr)
                    print(f"    {Path(sys.executable).name} -m fuzz --replay {path.relative_to(ROOT)}", file=sys.stderr)
            return 1
    print("fuzz: no finding")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    seconds = float(os.environ.get("FUZZ_SECONDS") or 600)
    parser.add_argument("--seconds", type=float, default=seconds, help="in all (default: FUZZ_SECONDS, else 600)")
    parser.add_argument("--target", action="append", choices=targets.NAMES, help="only this one; may be given again")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31), help="default: a new one")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="check one saved input, and no more")
    parser.add_argument("--no-sanitizers", dest="sanitizers", action="store_false", help="use the installed extension")
    return parser.parse_args()


def _environment(name: str, sanitizers: bool) -> dict[str, str]:
    """Of a target's process; targets of values run in the sanitized extension, which is built first."""
    if name not in targets.VALUES or not sanitizers:
        return dict(os.environ)
    return {**os.environ, **native.environment(build.build(), *build.runtime())}


def _run(arguments: list[str], environment: dict[str, str], limit: float | None) -> int | None:
    """The exit status, or None if the time ran out."""
    command = [sys.executable, "-m", "fuzz.worker", *arguments]
    try:
        return subprocess.run(command, cwd=ROOT, env=environment, timeout=limit).returncode
    except subprocess.TimeoutExpired:
        return None


def _saved(name: str) -> list[Path]:
    return sorted(FINDINGS.glob(f"{name}-*"))


if __name__ == "__main__":
    sys.exit(main())
