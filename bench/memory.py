"""Peak resident memory of one call, in a process of its own: ``python -m bench.memory``.

The default is the paper's step on MNIST: CNN3, P = 256, B = 512, CROWN.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import cases
from bench.cases import CASES, PROVIDERS

ROOT = Path(__file__).resolve().parents[1]


def peak_bytes() -> int:
    """The largest resident memory of this process so far.

    On Linux by the kernel's VmHWM: ru_maxrss, used elsewhere, would there start at that of the process which started
    this one.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(
    case: str, provider: str, members: int, samples: int, backend: str = "auto", limit: int | None = None
) -> dict[str, int]:
    """Run one call in a fresh process with this one's number of threads.

    Returns:
        peak_bytes: the process's peak. added_bytes: what the call added to the peak of interpreter, libraries, inputs
        and a first tiny call.

    Raises:
        RuntimeError: if the process fails; with the end of what it said.
    """
    command = [sys.executable, "-m", "bench.memory", "--case", case, "--provider", provider, "--json"]
    command += ["--members", str(members), "--samples", str(samples), "--backend", backend]
    command += ["--threads", str(torch.get_num_threads())]
    if limit is not None:
        command += ["--limit", str(limit)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bench.memory failed: {done.stderr.strip()[-500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure in this very process and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--case", choices=list(CASES), default="cnn3-crown")
    parser.add_argument("--provider", choices=PROVIDERS, default="glsk")
    parser.add_argument("--members", type=int, default=256)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--limit", type=int, help="bytes of coefficients, for the provider vmapped")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.limit:
        cases.VMAPPED_LIMIT[0] = options.limit
    case = CASES[options.case]
    cases.prepare(case, options.provider, (1, 1), "cpu", options.backend).call()  # loads code, starts threads
    contender = cases.prepare(case, options.provider, (options.members, options.samples), "cpu", options.backend)
    before = peak_bytes()
    contender.call()
    peak = max(before, peak_bytes())  # the kernel keeps its counters a processor: a later reading can be a little lower
    found = {"peak_bytes": peak, "added_bytes": peak - before}
    if options.json:
        print(json.dumps(found))
        return
    print(f"{case.name}, {options.provider}, P = {options.members}, B = {options.samples}:")
    print(
        f"  peak {found['peak_bytes'] / 2**20:.0f} MiB, of which the call added {found['added_bytes'] / 2**20:.0f} MiB"
    )


if __name__ == "__main__":
    main()
