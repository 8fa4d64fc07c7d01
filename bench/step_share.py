"""What a training step spends outside bounds and attacks, and on a GPU how busy it is: ``python -m bench.step_share``.

The real estimator (glsk.estimators) from the trained network of tests/golden; evotorch's sampling and updates, the
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
from glsk.data import Dataset
from glsk.estimators import Estimator
from glsk.training import Config, Phase, phases

IGNORED = 3
"""First steps: evotorch only samples in the first and builds its state in the second; kernels are compiled."""


def make_stage(net: str, config: Config) -> Estimator:
    """The estimator of the run's phase around the trained network, at the start."""
    phase = config.main
    x, y, _ = workloads.images(net, phase.batch_size)
    images = Dataset("golden", x, y, x, y, 10)
    start = copy.deepcopy(workloads.trained(net)).to(config.device)
    return phases.estimator(phase, start, images, config)


def measure(
    net: str,
    method: str,
    popsize: int,
    samples: int,
    steps: int,
    backend: str = "auto",
    device: str = "cpu",
    estimator: str = "pgpe",
) -> dict[str, float]:
    """Medians over ``steps`` steps: seconds of a step, seconds of it in the objective, and the share outside it.

    ``method`` is any objective; ``popsize`` counts only for estimators that have one.

    On a GPU also: ``host_step_s``, the mean by the host's clock; ``waits``, how often in a step the host waits for the
    device; ``busy``, the share of a step in which the device computes or copies.
    """
    phase = Phase(objective=method, estimator=estimator, batch_size=samples)
    if "popsize" in phase.kinds():
        phase = phase.changed({"popsize": popsize})
    config = Config(model=net, phases=(phase,), backend=backend, device=device)
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


def count_waits(stage: Estimator, first: int, steps: int) -> float:
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


def busy_seconds(stage: Estimator, first: int, steps: int) -> float:
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
    parser.add_argument("--estimator", default="pgpe")
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
    found = measure(*given, options.backend, options.device, options.estimator)
    print(f"{options.net}, {options.method}, {options.estimator}, P = {options.popsize}, B = {options.samples}:")
    inside, outside = f"in bounds and attacks {found['bounds_s']:.4f} s", f"outside {found['outside']:.1%}"
    print(f"  step {found['step_s']:.4f} s, {inside}, {outside}")
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
