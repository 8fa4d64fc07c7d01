"""A training run as a picture: ``python -m bench.plot_training RUN PICTURE.png``.

RUN is the folder of a ``glsk train`` with ``eval_every`` set. Above, accuracies on test images while PGPE trains;
below, the robust loss of every step, a mean over the population.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt


def main(arguments: Sequence[str] | None = None) -> None:
    """Read metrics.jsonl, write a PNG."""
    parser = argparse.ArgumentParser(prog="python -m bench.plot_training", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--title", default="")
    options = parser.parse_args(arguments)
    records = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text().splitlines()]
    steps = [r for r in records if r["stage"] == "pgpe"]
    start = steps[0]["step"] - 1
    evaluations = [r for r in records if r["stage"] == "evaluation"]
    figure, (above, below) = plt.subplots(
        2, 1, sharex=True, figsize=(7, 5.2), height_ratios=(2, 1), layout="constrained"
    )
    for name, colour in (("natural", "C7"), ("adversarial", "C1"), ("certified CROWN", "C0")):
        points = [(e["step"] - start, 100 * e[name]) for e in evaluations]
        label = name.replace("CROWN", "by DeepPoly")
        above.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=label)
    above.set_ylabel("test accuracy, %")
    above.legend(loc="lower right")
    above.grid(alpha=0.3)
    above.set_title(options.title, fontsize=10)
    below.plot([r["step"] - start for r in steps], [r["loss"] for r in steps], color="C0", linewidth=0.8)
    below.set_yscale("log")
    below.set_ylabel("robust loss")
    below.set_xlabel("PGPE step")
    below.grid(alpha=0.3)
    partial = options.picture.with_suffix(".tmp.png")
    figure.savefig(partial, dpi=130)
    partial.replace(options.picture)


if __name__ == "__main__":
    main()
