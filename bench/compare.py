"""All providers side by side in one run: ``python -m bench.compare``.

Calls are interleaved (one of each provider, then again), so that whatever else the machine does falls on all of them.
Before anything is timed, the providers' bounds, or gradients, are checked against each other.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench import agreement, cases, environment, memory
from bench.cases import CASES, PROVIDERS, SMOKE, Case, Contender

RESULTS = Path(__file__).parent / "results"
VMAPPED_LIMITS = (16 << 20, 64 << 20, 256 << 20, 1 << 30)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, write JSON."""
    options = _parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    missing = {provider: why for provider in PROVIDERS if (why := cases.why_missing(provider)) is not None}
    for why in missing.values():
        print(f"left out: {why}")
    rows: list[dict[str, Any]] = []
    for name in options.cases:
        rows += _compare(CASES[name], options, [p for p in PROVIDERS if p not in missing])
    machine = environment.describe(options.device)
    out = options.out or RESULTS / f"compare-{options.device.replace(':', '')}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    if options.append and out.exists():
        rows = _appended(json.loads(out.read_text()), machine, options.backend, rows)
    result = {"machine": machine, "backend": options.backend, "rows": rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".tmp")
    partial.write_text(json.dumps(result, indent=1) + "\n")
    partial.replace(out)
    print(f"\nwritten: {out}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls a provider (default 7)")
    parser.add_argument("--threads", type=int, default=0, help="PyTorch's threads, for every provider alike")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backend", default="auto", help="of glsk")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave peak memory out")
    parser.add_argument("--batches", type=int, nargs="+", help="numbers of samples that auto_LiRPA is tried with")
    parser.add_argument("--append", action="store_true", help="keep the rows of other cases that --out has from here")
    parser.add_argument("--out", type=Path, help=f"JSON file (default: one named after the time, in {RESULTS.name}/)")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error("--repeats: expected at least 1")
    return options


def _appended(before: dict[str, Any], machine: dict[str, Any], backend: str, rows: list[Any]) -> list[Any]:
    """Rows of other cases, measured on the same machine with the same software, and the new ones in their places.

    Raises:
        SystemExit: if they were measured elsewhere, or of other sources.
    """
    new = machine | {"backend": backend}
    old = before["machine"] | {"backend": before["backend"]}
    if differing := [name for name in new if name not in ("time", "system") and old.get(name) != new[name]]:
        raise SystemExit(f"--append: the recorded rows differ in {', '.join(differing)}")
    cases_now = dict.fromkeys(row["case"] for row in rows)
    kept = [row for row in before["rows"] if row["case"] not in cases_now]
    order = list(CASES)
    return sorted([*kept, *rows], key=lambda row: order.index(row["case"]))


def _compare(case: Case, options: argparse.Namespace, providers: list[str]) -> list[dict[str, Any]]:
    sizes = {p: SMOKE[p] if options.smoke else case.sizes[p] for p in providers if p in case.sizes}
    agreed = agreement.check(case, list(sizes), sizes["glsk"], options.device, options.backend)
    tried: dict[int, float] = {}
    if case.batches and "auto_LiRPA" in sizes:
        tried = _tune_batch(case, options)
        sizes["auto_LiRPA"] = (1, min(tried, key=tried.__getitem__))
    contenders = [cases.prepare(case, p, size, options.device, options.backend) for p, size in sizes.items()]
    limit = next((_tune(c, options.device) for c in contenders if c.provider == "vmapped"), None)
    seconds: dict[str, list[float]] = {c.provider: [] for c in contenders}
    for contender in contenders:
        _time(contender, options.device)  # warm-up
    for _ in range(options.repeats):
        for contender in contenders:
            seconds[contender.provider].append(_time(contender, options.device))
    rows = []
    for contender in contenders:
        row = _row(case, contender, seconds[contender.provider]) | agreed.get(contender.provider, {})
        if contender.provider == "vmapped":
            row["memory_limit"] = limit
        if contender.provider == "auto_LiRPA" and tried:
            row["batches_tried"] = tried
        if options.memory and not options.device.startswith("cuda"):
            row |= memory.measure(case.name, contender.provider, *sizes[contender.provider], options.backend, limit)
        rows.append(row)
    base = next(row["median"] for row in rows if row["provider"] == "glsk")
    for row in rows:
        row["ratio"] = row["median"] / base
        if row["provider"] == "glsk" and case.gradient:
            row["forward_share"] = base / next(r["median"] for r in rows if r["provider"] == "glsk-forward")
    _print(case, rows)
    return rows


def _tune(contender: Contender, device: str) -> int:
    """Give the vmapped bounds the block size that suits this machine best."""
    seconds = {}
    for limit in VMAPPED_LIMITS:
        cases.VMAPPED_LIMIT[0] = limit
        _time(contender, device)
        seconds[limit] = _time(contender, device)
    cases.VMAPPED_LIMIT[0] = min(seconds, key=seconds.__getitem__)
    return cases.VMAPPED_LIMIT[0]


def _tune_batch(case: Case, options: argparse.Namespace) -> dict[int, float]:
    """Number of samples -> auto_LiRPA's microseconds a sample."""
    found = {}
    for samples in options.batches or ((2, 4) if options.smoke else case.batches):
        contender = cases.prepare(case, "auto_LiRPA", (1, samples), options.device, options.backend)
        _time(contender, options.device)
        found[samples] = 1e6 * _time(contender, options.device) / samples
    return found


def _time(contender: Contender, device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    contender.call()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _row(case: Case, contender: Contender, seconds: list[float]) -> dict[str, Any]:
    """Times in microseconds per (member, sample)."""
    pairs = contender.case.pairs
    each = sorted(1e6 * s / pairs for s in seconds)
    q1, _, q3 = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    row = {
        "case": case.name,
        "net": case.net,
        "method": case.method,
        "dtype": "float32",
        "images": contender.case.source,
        "provider": contender.provider,
        "members": contender.case.members,
        "samples": contender.case.samples,
        "pairs": pairs,
        "repeats": len(each),
        "unit": "us per (member, sample)",
        "median": statistics.median(each),
        "min": each[0],
        "q1": q1,
        "q3": q3,
        "seconds": seconds,
    }
    if case.gradient:
        row["gradient"] = True
    if case.method == "alpha-CROWN":
        row["iterations"] = cases.ITERATIONS
    return row


def _print(case: Case, rows: list[dict[str, Any]]) -> None:
    what = "forward and backward of the robust loss" if case.gradient else "lower bounds of the margins"
    print(f"\n{case.name}: {what}, float32, {rows[0]['images']}")
    print(
        f"  {'provider':<14}{'P x B':>10}{'us/(member, sample)':>21}{'min':>11}{'IQR':>24}{'ratio':>9}{'peak MiB':>10}"
    )
    for row in rows:
        size = f"{row['members']}x{row['samples']}"
        spread = f"{row['q1']:.4g}..{row['q3']:.4g}"
        peak = f"{row['added_bytes'] / 2**20:.0f}" if "added_bytes" in row else "-"
        print(
            f"  {row['provider']:<14}{size:>10}{row['median']:>21.4g}{row['min']:>11.4g}{spread:>24}"
            f"{row['ratio']:>9.3g}{peak:>10}"
        )
    for row in rows:
        if "forward_share" in row:
            print(f"  forward and backward take {row['forward_share']:.3g} times as long as the forward alone")
        if "mean_lower" in row:
            mean, start = row["mean_lower"], row["mean_lower_crown"]
            print(f"  {row['provider']:<14}mean lower bound {mean:.4f}, CROWN's {start:.4f}")


if __name__ == "__main__":
    main()
