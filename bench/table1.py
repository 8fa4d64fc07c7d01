"""The paper's Table 1 for MNIST, eps 0.1, CNN3: a network for each objective and estimator, and the paper's figures.

    python -m bench.table1 --budget 1       (make table1)

Rows are objectives. Columns: GRAD from scratch (App. B.1, 70 epochs), and from one PGD-trained network GRAD, RGS, PGPE
and PGPE with a control variate, for the steps of COLUMNS times ``--budget``; ``--scratch-budget`` shortens the first
column and the PGD-trained network too. Below 1 the table says so. Cells that have ended are read, cells that were
stopped go on, and cells that the result has by the same budgets and are not asked for stay. Results:
bench/results/table1-mnist-cnn3.json.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import environment
from bench.runs import on_cpu_time, run
from glsk import objectives
from glsk.training.config import Config
from glsk.training.phase import Phase
from glsk.training.presets import preset

RESULT = Path(__file__).parent / "results" / "table1-mnist-cnn3.json"
METHODS = ("CROWN", "alpha-CROWN")

# Natural, certified (by MN-BaB, a complete verifier) and adversarial accuracy in the paper's Table 1: GRAD, PGPE.
PAPER: dict[str, tuple[tuple[float, ...] | None, tuple[float, ...] | None]] = {
    "PGD": ((98.43, 87.27, 91.62), None),
    "IBP": ((96.02, 91.23, 91.23), (94.52, 87.02, 87.03)),
    "SABR": ((97.54, 92.99, 93.01), (97.37, 90.82, 90.96)),
    "STAPS": ((97.48, 93.53, 93.53), (96.31, 89.39, 89.41)),
    "HBox": ((94.79, 88.18, 88.18), (96.12, 90.57, 90.58)),
    "CROWN-IBP": ((94.33, 88.76, 88.77), (96.69, 90.23, 90.25)),
    "CROWN": ((95.95, 90.04, 90.08), (97.44, 91.53, 91.79)),
    "MTL-IBP": (None, None),
}
ROWS = tuple(PAPER)

# Column -> estimator, settings, steps at a budget of 1. From the PGD-trained network the rate falls to zero over the
# second half of the steps. Members of PGPE share the attacked points of their centre, where an objective attacks.
COLUMNS: dict[str, tuple[str, dict[str, Any], int]] = {
    # The paper's text says 5e-5, at which IBP ends as a constant (11.35 %); Shi et al. (2021) have 5e-4.
    "scratch": ("grad", {"lr": 5e-4}, 0),
    "grad": ("grad", {"lr": 1e-3}, 2400),
    "rgs": ("rgs", {"lr": 1e-3, "members": 4}, 600),
    "pgpe": ("pgpe", {"lr": 1e-3, "popsize": 128, "batch_size": 64}, 800),
    "pgpe-cv": ("pgpe-cv", {"lr": 1e-3, "popsize": 32, "batch_size": 256}, 500),
}
WARM = "pgd"
WHERE = ("time", "cpu", "threads", "commit")
"""What is said of every cell, since a table takes hours and may be made in parts."""


def warm_start(options: argparse.Namespace) -> Config:
    """The PGD-trained network of all columns but the first."""
    found = preset("mnist-0.1-pgd")
    return shared(found.override(phases=(shortened(found.main, options.scratch_budget),)), options)


def cell(row: str, column: str, options: argparse.Namespace) -> Config:
    """The run of a cell."""
    estimator, own, steps = COLUMNS[column]
    found = preset("mnist-0.1", row, estimator)
    if column == "scratch":
        return shared(found.override(phases=(shortened(found.main.changed(own), options.scratch_budget),)), options)
    steps = max(1, round(steps * options.budget))
    schedule = {"epochs": 1_000_000, "max_steps": steps, "milestones": (), "decay": "linear", "anneal_epochs": 0}
    if estimator.startswith("pgpe") and hasattr(objectives.settings_type(row), "shared_attack"):
        own = {**own, "shared_attack": True}
    phase = found.main.changed({**own, **schedule})
    init = options.out / WARM / "weights.safetensors"
    return shared(found.override(phases=(phase,), init=str(init)), options)


def shared(config: Config, options: argparse.Namespace) -> Config:
    """What all runs have in common."""
    return config.override(
        dataset=options.dataset,
        threads=options.threads,
        eval_methods=METHODS,
        eval_limit=options.images,
        eval_attack_steps=options.attack_steps,
        eval_attack_restarts=options.attack_restarts,
        tensorboard=False,
    )


def shortened(phase: Phase, budget: float) -> Phase:
    """The same schedule in ``budget`` times the epochs."""

    def scaled(epochs: int) -> int:
        return max(1, round(epochs * budget)) if epochs else 0

    return replace(
        phase,
        epochs=scaled(phase.epochs),
        anneal_epochs=scaled(phase.anneal_epochs),
        milestones=tuple(scaled(epoch) for epoch in phase.milestones),
    )


def exists(row: str, column: str) -> bool:
    """Whether the table has this cell: PGD is trained by its own gradient alone."""
    return row != "PGD" or column == "scratch"


def measured(config: Config, out: Path) -> dict[str, Any]:
    """A cell's accuracies in percent, and what it took."""
    results = run(config, out)
    last, found = results[config.main.name], on_cpu_time(out)
    return {
        "natural": 100 * last["natural"],
        "adversarial": 100 * last["adversarial"],
        "certified": {method: 100 * share for method, share in last["certified"].items()},
        "samples": last["samples"],
        "cpu_s": round(found.seconds, 1),
        "steps": max(record["step"] for record in found.records),
        "phase": config.main.to_dict(),
        **{key: value for key, value in environment.describe().items() if key in WHERE},
    }


def main() -> None:
    """Run what is missing, writing the results after every cell."""
    options = _arguments()
    what = described(options)
    cells = present(options.result, what)
    run(warm_start(options), options.out / WARM)
    for column in options.columns:
        for row in options.rows:
            if not exists(row, column):
                continue
            if row == "PGD":
                found = measured(warm_start(options), options.out / WARM)
            else:
                found = measured(cell(row, column, options), options.out / f"{row.lower()}-{column}")
            cells.setdefault(row, {})[column] = found
            options.result.write_text(json.dumps({**what, "cells": cells}, indent=1) + "\n")
    print(markdown(json.loads(options.result.read_text())))


def described(options: argparse.Namespace) -> dict[str, Any]:
    """What all cells have in common, and the paper's figures."""
    return {
        "what": "MNIST, eps 0.1, CNN3; accuracies in percent; certified by incomplete methods, in float64",
        "dataset": options.dataset,
        "budget": options.budget,
        "scratch_budget": options.scratch_budget,
        "images": options.images,
        "attack": {"steps": options.attack_steps, "restarts": options.attack_restarts},
        "paper": {row: dict(zip(("grad", "pgpe"), figures, strict=True)) for row, figures in PAPER.items()},
    }


def present(path: Path, what: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The cells of a result that was made alike."""
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    same = {**result, "cells": None} == {**json.loads(json.dumps(what)), "cells": None}
    return result.get("cells", {}) if same else {}


def markdown(result: dict[str, Any]) -> str:
    """A row an objective: natural / adversarial / certified by CROWN / by alpha-CROWN, and the paper's three."""

    def title(column: str) -> str:
        share = result["scratch_budget" if column == "scratch" else "budget"]
        return column if share == 1 else f"{column}, {share:g} of the steps"

    lines = [["trained on", *map(title, COLUMNS), "paper, GRAD", "paper, PGPE"]]
    lines.append(["---"] * len(lines[0]))
    for row in ROWS:
        cells = result["cells"].get(row, {})
        paper = result["paper"][row]
        lines.append([row, *(_ours(cells.get(column)) for column in COLUMNS), *map(_paper, paper.values())])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _ours(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    return " / ".join(f"{v:.1f}" for v in (cell["natural"], cell["adversarial"], *cell["certified"].values()))


def _paper(figures: list[float] | None) -> str:
    return "–" if figures is None else " / ".join(f"{figures[i]:.1f}" for i in (0, 2, 1))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/table1"), help="folder of the runs")
    parser.add_argument("--result", type=Path, default=RESULT, help="JSON file")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--budget", type=float, default=1.0, help="share of the full steps from the warm start")
    parser.add_argument("--scratch-budget", type=float, default=1.0, help="share of the full epochs from scratch")
    parser.add_argument("--images", type=int, default=0, help="test images; 0 for all")
    parser.add_argument("--attack-steps", type=int, default=40)
    parser.add_argument("--attack-restarts", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
