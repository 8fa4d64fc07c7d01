"""What a PGPE step spends outside the bounds, and on a GPU how busy it is: ``python -m bench.step_share``.

The real training stage (glsk.training) from the trained network of tests/golden; evotorch's sampling and updates, the
loss, the mini-batch and everything between make up the rest.
"""

import argparse
import copy
import json
import statistics
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from bench import workloads
from glsk.training.batches import Batches
from glsk.training.config import Config
from glsk.training.pgpe import Pgpe

IGNORED = 3
"""First steps: evotorch only samples in the first and builds its state in the second; kernels are compiled."""


def make_stage(net: str, config: Config) -> Pgpe:
    """PGPE around the trained network, at the start."""
    x, y, _ = workloads.images(net, config.batch_size)
    start = copy.deepcopy(workloads.trained(net)).to(config.device)
    return Pgpe(start, (1, 28, 28), 10, Batches(x, y, config.batch_size, seed=0, device=config.device), config)


def measure(
    net: str, method: str, popsize: int, samples: int, steps: int, backend: str = "auto", device: str = "cpu"
) -> dict[str, float]:
    """Medians over ``steps`` steps: seconds of a step, seconds of it in the bounds, and the share outside them.

    On a GPU also: ``host_step_s``, the mean by the host's clock; ``waits``, how often in a step the host waits for the
    device; ``busy``, the share of a step in which the device computes or copies.
    """
    config = Config(model=net, method=method, popsize=popsize, batch_size=samples, backend=backend, device=device)
    stage = make_stage(net, config)
    for index in range(IGNORED):
        stage.step(index)
    stage.settle()
    found, walls = [], []
    began = time.perf_counter()
    for index in range(IGNORED, IGNORED + steps):
        started = time.perf_counter()
        found.append(stage.step(index))
        walls.append(time.perf_counter() - started)
    stage.settle()
    mean = (time.perf_counter() - began) / steps
    seconds = [reading.get("step_s", wall) for reading, wall in zip(found, walls, strict=True)]
    bounds = [reading["bounds_s"] for reading in found]
    result = {
        "step_s": statistics.median(seconds),
        "bounds_s": statistics.median(bounds),
        "outside": statistics.median(1 - b / s for b, s in zip(bounds, seconds, strict=True)),
    }
    if stage.late:
        result["host_step_s"] = mean
        result["waits"] = count_waits(stage, IGNORED + steps, steps)
        result["busy"] = busy_seconds(stage, IGNORED + 2 * steps, steps) / result["step_s"]
    stage.close()
    return result


def count_waits(stage: Pgpe, first: int, steps: int) -> float:
    """Synchronisations a step, as PyTorch notices them; to wait for the step before is none: the device has work."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for index in range(first, first + steps):
                stage.step(index)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    stage.settle()
    return sum("called a synchronizing" in str(warning.message) for warning in caught) / steps


def busy_seconds(stage: Pgpe, first: int, steps: int) -> float:
    """Seconds a step that kernels and copies take; they are on one stream, so no two at a time."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for index in range(first, first + steps):
            stage.step(index)
        stage.settle()
    on_device = (
        event
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.is_user_annotation
    )
    return sum(event.time_range.elapsed_us() for event in on_device) / 1e6 / steps


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.step_share", description=__doc__)
    parser.add_argument("--net", choices=("cnn3", "cnn5"), default="cnn3")
    parser.add_argument("--method", default="CROWN")
    parser.add_argument("--popsize", type=int, default=256)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the numbers as JSON")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    given = (options.net, options.method, options.popsize, options.samples, options.steps)
    found = measure(*given, options.backend, options.device)
    print(f"{options.net}, {options.method}, P = {options.popsize}, B = {options.samples}:")
    print(f"  step {found['step_s']:.4f} s, in the bounds {found['bounds_s']:.4f} s, outside {found['outside']:.1%}")
    if "waits" in found:
        print(
            f"  by the host's clock {found['host_step_s']:.4f} s, device busy {found['busy']:.1%}, "
            f"host waits {found['waits']:g} times a step"
        )
    if options.out:
        name = torch.cuda.get_device_name(options.device) if "waits" in found else options.device
        settings = {key: value for key, value in vars(options).items() if key != "out"}
        options.out.write_text(json.dumps({"device_name": name, **settings, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
