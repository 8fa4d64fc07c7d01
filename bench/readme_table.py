"""The speed tables of README.md, from the recorded results.

python -m bench.readme_table            writes them between the markers in README.md
python -m bench.readme_table --check    fails if README.md is not up to date
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.compare import RESULTS

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- speed: written by python -m bench.readme_table -->", "<!-- /speed -->"
PROVIDERS = ("glsk", "vmapped", "auto_LiRPA")
METHODS = {"CROWN": "DeepPoly", "alpha-CROWN": "α-CROWN"}
"""Names that differ from the results'."""

EPOCH_PAIRS = 60_000 * 256
"""(member, sample) pairs of an epoch of MNIST with the paper's population."""


def lines() -> Iterator[str]:
    """One table a device, and one of gradients, recorded results in the order of their names."""
    by_device: dict[str, list[Path]] = {}
    for path in sorted(RESULTS.glob("compare-*.json"), key=lambda path: path.stem):
        by_device.setdefault(_device(json.loads(path.read_text())["machine"]), []).append(path)
    for device, paths in by_device.items():
        yield from _table(device, [path for path in paths if _rows(path, gradient=False)])
        yield from _gradients(device, [path for path in paths if _rows(path, gradient=True)])


def _rows(path: Path, gradient: bool) -> list[dict[str, Any]]:
    return [row for row in json.loads(path.read_text())["rows"] if row.get("gradient", False) == gradient]


def _device(machine: dict[str, Any]) -> str:
    if machine["device"] != "cpu":
        return str(machine["device"])
    return f"{machine['threads']} CPU cores ({machine['cpu']}, {machine['isa'].upper().replace('AVX', 'AVX-')})"


def _table(device: str, paths: Sequence[Path]) -> Iterator[str]:
    if not paths:
        return
    head = f"lower bounds of the margins, float32, {device}"
    yield f"| {head} | glsk | PyTorch, vmapped | auto_LiRPA | glsk is faster by |"
    yield "|---|---|---|---|---|"
    epoch, optimised = None, ""
    for path in paths:
        rows = _rows(path, gradient=False)
        for case in dict.fromkeys(row["case"] for row in rows):
            found = {row["provider"]: row for row in rows if row["case"] == case}
            own = found["glsk"]
            times = [_number(found[p]["median"]) if p in found else "–" for p in PROVIDERS]
            ratios = [f"{_number(found[p]['median'] / own['median'])}×" for p in PROVIDERS[1:] if p in found]
            name = _name(own)
            if "mean_lower" in own:
                name += f", {own['iterations']} iterations"
                optimised = _tightness(name, found)
            yield f"| {name} | {' | '.join(times)} | {' / '.join(ratios)} |"
            if case == "cnn3-crown":
                epoch = own["median"] * EPOCH_PAIRS / 1e6
    yield ""
    sources = _sources(paths)
    yield f"Microseconds per (member, sample), medians of interleaved runs of `python -m bench.compare` ({sources},"
    yield "[how to read them](bench/README.md))."
    if epoch is not None:
        yield (
            f"An epoch of CNN3 on MNIST with 256 members takes {_duration(epoch)} there (extrapolated from its row); "
            "the paper's takes 16 minutes on eight V100s."
        )
    if optimised:
        yield optimised


def _gradients(device: str, paths: Sequence[Path]) -> Iterator[str]:
    if not paths:
        return
    yield ""
    head = f"forward and backward of the robust loss, float32, {device}"
    yield f"| {head} | networks × samples | glsk | auto_LiRPA | glsk is faster by | glsk's over its forward alone |"
    yield "|---|---|---|---|---|---|"
    for path in paths:
        rows = _rows(path, gradient=True)
        for case in dict.fromkeys(row["case"] for row in rows):
            found = {row["provider"]: row for row in rows if row["case"] == case}
            own, peer = found["glsk"], found.get("auto_LiRPA")
            size = f"{own['members']} × {own['samples']}"
            their = "–" if peer is None else _number(peer["median"])
            ratio = "–" if peer is None else f"{_number(peer['median'] / own['median'])}×"
            share = f"{_number(own['forward_share'])}×"
            yield f"| {_name(own)} | {size} | {_number(own['median'])} | {their} | {ratio} | {share} |"
    yield ""
    yield f"As above ({_sources(paths)}). The gradient is by the weights of every network; auto_LiRPA has one network"
    yield "at a time, in batches of the size that suits it best."


def _name(row: dict[str, Any]) -> str:
    return f"{row['net'].upper()}, {METHODS.get(row['method'], row['method'])}"


def _sources(paths: Sequence[Path]) -> str:
    return ", ".join(f"[{path.stem}](bench/results/{path.name})" for path in paths)


def _tightness(name: str, found: dict[str, dict[str, Any]]) -> str:
    """Of the optimised bounds: what each provider's mean is, and where they started."""
    means = ", ".join(f"{provider}'s {row['mean_lower']:.4f}" for provider, row in found.items())
    return f"{name}: mean lower bounds {means}, CROWN's {found['glsk']['mean_lower_crown']:.4f}."


def _number(value: float) -> str:
    """Three significant digits, or whole numbers."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 100 else f"{seconds:.1f} seconds"


def render(text: str) -> str:
    """README's text with its tables up to date. Raises ValueError where the markers are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{README.name}: the markers {BEGIN} and {END} are missing")
    return "\n".join([before + begin, *lines(), end + after])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.readme_table", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    options = parser.parse_args(arguments)
    text = README.read_text()
    if render(text) == text:
        return
    if options.check:
        raise SystemExit(f"{README.name} is not up to date: run python -m bench.readme_table")
    partial = README.with_suffix(".tmp")
    partial.write_text(render(text))
    partial.replace(README)


if __name__ == "__main__":
    main()
