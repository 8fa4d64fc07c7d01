"""Complete verification measured: ``python -m bench.verify NET ... --out FILE`` or ``... --vnncomp FOLDER SET``.

On a machine that others share, ``--clock cpu`` counts this process's CPU seconds instead of wall seconds.
"""

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import glsk
from bench import environment
from glsk.data import load
from glsk.formats import read_onnx, read_vnnlib
from glsk.models import build
from glsk.verify import VerifySettings, margin_property, verify_many
from glsk.verify.bounding import BranchSettings
from glsk.verify.planes import PlaneSettings
from glsk.verify.refine import RefineSettings

WORST = ("sat", "timeout", "unknown", "unsat")
"""A file's properties are one instance: unsafe if one is, safe if all are."""
DECIDED = ("sat", "unsat")
PEER = "alpha_beta_crown"


def golden(path: Path, data: str | None, part: slice, eps: float) -> tuple[glsk.BoundedModule, list[Any], list[int]]:
    """The network of a golden file and MNIST test images."""
    with np.load(path) as file:
        state = {k.removeprefix("param:"): torch.from_numpy(v[0]) for k, v in file.items() if k.startswith("param:")}
    net = build(path.name.partition("_")[0])
    net.load_state_dict(state)
    return _images(net, data, part, eps)


def weights(path: Path, data: str | None, part: slice, eps: float) -> tuple[glsk.BoundedModule, list[Any], list[int]]:
    """A trained network and MNIST test images."""
    from glsk.training.weights import load_weights

    return _images(load_weights(path, None)[0], data, part, eps)


def _images(
    net: torch.nn.Module, data: str | None, part: slice, eps: float
) -> tuple[glsk.BoundedModule, list[Any], list[int]]:
    test = load("mnist", data)
    numbers = list(range(len(test.x_test)))[part]
    properties = [margin_property(test.x_test[i], test.y_test[i], eps) for i in numbers]
    return glsk.BoundedModule(net, test.input_shape), properties, numbers


def instances(folder: Path, name: str, contains: str, part: slice) -> Iterator[tuple[str, str, Any, Any]]:
    """(network, specification, module, properties) of a VNN-COMP set as its repository holds it."""
    root = folder / "benchmarks" / name
    with open(root / "instances.csv") as file:
        rows = [row for row in csv.reader(file) if contains in f"{row[0]},{row[1]}"][part]
    for onnx, specification, *_ in rows:
        files = [
            path if path.exists() else path.with_name(path.name + ".gz") for path in (root / onnx, root / specification)
        ]
        network = read_onnx(files[0])
        properties = [network.arrange(found) for found in read_vnnlib(files[1])]
        yield (
            Path(onnx).name,
            Path(specification).name,
            glsk.BoundedModule(network.network, network.input_shape),
            properties,
        )


def published(folder: Path | None, name: str) -> dict[tuple[str, str], dict[str, tuple[str, float]]]:
    """What each tool of VNN-COMP 2022 said of each instance, and its seconds: folder/<tool>/<set>/results.csv."""
    found: dict[tuple[str, str], dict[str, tuple[str, float]]] = {}
    for path in folder.glob(f"*/{name}/results.csv") if folder else ():
        with open(path) as file:
            for _, onnx, specification, _, status, seconds, *_ in csv.reader(file):
                said = {"holds": "unsat", "violated": "sat"}.get(status, status)
                found.setdefault((Path(onnx).name, Path(specification).name), {})[path.parts[-3]] = (
                    said,
                    float(seconds),
                )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("net", nargs="?", type=Path, help="a golden .npz or trained weights")
    parser.add_argument("--data")
    parser.add_argument("--vnncomp", nargs=2, metavar=("FOLDER", "SET"))
    parser.add_argument("--results", type=Path, help="folder of the published verdicts")
    parser.add_argument("--contains", default="", help="of the instances to take")
    parser.add_argument("--part", default=":", help="which images or instances, as a Python slice")
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--iterations", type=int, help="of the ascent of each subproblem")
    parser.add_argument("--plain", action="store_true", help="a search alone: no planes, no refined bounds")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    part = slice(*(int(n) if n else None for n in given.part.split(":")))
    settings = VerifySettings(clock=time.process_time if given.clock == "cpu" else time.perf_counter)
    if given.iterations:
        settings = replace(settings, branch=BranchSettings(iterations=given.iterations))
    if given.plain:
        settings = replace(settings, planes=PlaneSettings(iterations=0), refine=RefineSettings(leaves=0))
    records = list(_set(given, part, settings) if given.vnncomp else _net(given, part, settings))
    told = "contains", "part", "eps", "timeout", "threads", "clock", "iterations", "plain"
    what = {name: getattr(given, name) for name in told}
    what["set"] = given.vnncomp[1] if given.vnncomp else given.net.name
    found = {"what": what, "environment": environment.describe(), "summary": _summary(records), "verdicts": records}
    text = json.dumps(found, indent=1) + "\n"
    print(json.dumps(found["summary"], indent=1))
    if given.out:
        given.out.write_text(text)


def _net(given: argparse.Namespace, part: slice, settings: VerifySettings) -> Iterator[dict[str, Any]]:
    read = golden if given.net.suffix == ".npz" else weights
    bounded, properties, numbers = read(given.net, given.data, part, given.eps)
    for i, verdict in verify_many(bounded, properties, timeout=given.timeout, settings=settings):
        yield _record({"index": numbers[i]}, [verdict])


def _set(given: argparse.Namespace, part: slice, settings: VerifySettings) -> Iterator[dict[str, Any]]:
    folder, name = given.vnncomp
    said = published(given.results, name)
    for onnx, specification, bounded, properties in instances(Path(folder), name, given.contains, part):
        verdicts = [v for _, v in verify_many(bounded, properties, timeout=given.timeout, settings=settings)]
        tools = said.get((onnx, specification), {})
        who = Counter(status for status, _ in tools.values() if status in DECIDED)
        name_of = {"net": onnx, "specification": specification, "published": dict(who), PEER: tools.get(PEER)}
        yield _record(name_of, verdicts)


def _record(name: dict[str, Any], verdicts: list[glsk.verify.Verdict]) -> dict[str, Any]:
    worst = min(verdicts, key=lambda verdict: WORST.index(verdict.status))
    return {
        **name,
        "status": worst.status,
        "stage": worst.stage,
        "seconds": round(sum(v.seconds for v in verdicts), 4),
        "subproblems": sum(v.subproblems for v in verdicts),
    }


def _summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts; ``several``: instances that two tools or more decided alike, and how many of them are decided here.

    The peer's seconds are of the competition's machine (a GPU) and contain its start.
    """
    statuses = Counter(r["status"] for r in records)
    decided = [r["seconds"] for r in records if r["status"] in DECIDED]
    found: dict[str, Any] = {
        "samples": len(records),
        **statuses,
        "median_seconds": median(decided) if decided else None,
    }
    several = [r for r in records if len(r.get("published", {})) and max(r["published"].values()) >= 2]
    if several:
        done = [r for r in several if r["status"] in DECIDED]
        found["several"], found["several_decided"] = len(several), len(done)
        found["contradicted"] = [r for r in done if r["status"] != max(r["published"], key=r["published"].get)]
    peer = [r[PEER][1] for r in records if r.get(PEER) and r[PEER][0] in DECIDED]
    if peer:
        found[PEER] = {"decided": len(peer), "median_seconds": median(peer)}
    return found


if __name__ == "__main__":
    main()
