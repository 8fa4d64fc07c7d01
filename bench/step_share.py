"""How much of a PGPE step is spent outside the bounds: ``python -m bench.step_share``.

The real training stage (glsk.training) from the trained network of tests/golden; evotorch's sampling and updates, the
loss, the mini-batch and everything between make up the rest.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Sequence

import torch

from bench import workloads
from glsk.training.batches import Batches
from glsk.training.config import Config
from glsk.training.pgpe import Pgpe

IGNORED = 2
"""First steps: evotorch only samples in the first, and builds its state in the second."""


def measure(net: str, method: str, popsize: int, samples: int, steps: int, backend: str = "auto") -> dict[str, float]:
    """Medians over ``steps`` steps: seconds of a step, seconds of it in the bounds, and the share outside them."""
    x, y, _ = workloads.images(net, samples)
    config = Config(
        model=net, method=method, popsize=popsize, batch_size=samples, backend=backend, epochs=steps + IGNORED
    )
    stage = Pgpe(copy.deepcopy(workloads.trained(net)), (1, 28, 28), 10, Batches(x, y, samples, seed=0), config)
    walls, bounds = [], []
    for index in range(steps + IGNORED):
        started = time.perf_counter()
        found = stage.step(index)
        if index >= IGNORED:
            walls.append(time.perf_counter() - started)
            bounds.append(found["bounds_s"])
    stage.close()
    outside = [1 - b / w for b, w in zip(bounds, walls, strict=True)]
    return {
        "step_s": statistics.median(walls),
        "bounds_s": statistics.median(bounds),
        "outside": statistics.median(outside),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.step_share", description=__doc__)
    parser.add_argument("--net", choices=("cnn3", "cnn5"), default="cnn3")
    parser.add_argument("--method", default="CROWN")
    parser.add_argument("--popsize", type=int, default=256)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    found = measure(options.net, options.method, options.popsize, options.samples, options.steps, options.backend)
    print(f"{options.net}, {options.method}, P = {options.popsize}, B = {options.samples}:")
    print(f"  step {found['step_s']:.3f} s, in the bounds {found['bounds_s']:.3f} s, outside {found['outside']:.1%}")


if __name__ == "__main__":
    main()
