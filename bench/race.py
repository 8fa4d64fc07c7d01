"""Certified accuracy against machine time for DeepPoly, by estimator, from one PGD-trained network.

    python -m bench.race --init runs/table1/pgd/weights.safetensors --seconds 300

Every estimator first tries learning rates on one seed for a part of the time, each three times the last, until one is
worse than the one before; then the best of them runs on every seed. Machine time is CPU time of all threads in training
steps, so what else the machine does hardly shows. Runs are resumed where they stopped; the results go to
bench/results/race-mnist-cnn3.json and a picture beside it.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from bench import environment
from bench.runs import on_cpu_time, run
from glsk.analysis.runs import Run
from glsk.errors import NumericalError
from glsk.training.config import Config
from glsk.training.presets import preset

RESULT = Path(__file__).parent / "results" / "race-mnist-cnn3.json"

# What each estimator is given.
ENTRANTS: dict[str, dict[str, Any]] = {
    "grad": {"batch_size": 512},
    "rgs": {"batch_size": 512, "members": 4},
    "pgpe": {"batch_size": 64, "popsize": 128},
    "pgpe-cv": {"batch_size": 256, "popsize": 32},
}
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
EVALUATIONS = 12


def config(estimator: str, lr: float, seed: int, init: Path, options: argparse.Namespace, steps: int) -> Config:
    """A run of ``steps`` steps, evaluated on the way; the rate falls to zero over its second half."""
    found = preset("mnist-0.1", estimator=estimator)
    phase = found.main.changed(
        {
            **ENTRANTS[estimator],
            "lr": lr,
            "max_steps": steps,
            "epochs": 1_000_000,
            "milestones": (),
            "decay": "linear",
            "anneal_epochs": 0,
            "eval_every": max(1, steps // EVALUATIONS),
        }
    )
    return found.override(
        dataset=options.dataset,
        phases=(phase,),
        init=str(init),
        seed=seed,
        threads=options.threads,
        eval_limit=options.images,
        eval_attack_steps=1,
        eval_attack_restarts=1,
        tensorboard=False,
    )


def points(run: Run) -> dict[str, list[Any]]:
    """The evaluations of a run: CPU seconds of the steps until each, steps, and shares of the test images."""
    steps, seconds, natural = run.series("natural")
    return {"cpu_seconds": seconds, "steps": steps, "natural": natural, "certified": run.series("certified CROWN")[2]}


def pace(estimator: str, init: Path, options: argparse.Namespace) -> float:
    """CPU seconds of a step, from a few."""
    out = options.out / f"{estimator}-pace"
    run(config(estimator, 1e-9, 0, init, options, 6), out)
    return on_cpu_time(out).seconds / 6


def search(estimator: str, steps: int, options: argparse.Namespace) -> dict[float, float]:
    """Learning rates and what they certify, 0 where the loss did not stay finite; the last is worse, or the largest."""
    tried: dict[float, float] = {}
    for lr in RATES[RATES.index(options.least_rate) :]:
        out = options.out / f"{estimator}-search-{lr:g}"
        try:
            run(config(estimator, lr, options.seeds[0], options.init, options, steps), out)
            tried[lr] = points(on_cpu_time(out))["certified"][-1]
        except NumericalError:
            tried[lr] = 0.0
        if tried[lr] < max(tried.values()):
            break
    return tried


def main() -> None:
    """Run what is missing, then write the results."""
    options = _arguments()
    found: dict[str, Any] = {}
    for estimator in options.estimators:
        a_step = pace(estimator, options.init, options)
        short, full = (max(4, int(s / a_step)) for s in (options.seconds * options.search, options.seconds))
        tried = search(estimator, short, options)
        best = max(tried, key=lambda lr: tried[lr])
        curves = []
        for seed in options.seeds:
            out = options.out / f"{estimator}-seed-{seed}"
            run(config(estimator, best, seed, options.init, options, full), out)
            curves.append(points(on_cpu_time(out)))
        found[estimator] = {
            "settings": ENTRANTS[estimator],
            "lr": best,
            "search": {"steps": short, "certified": {f"{lr:g}": share for lr, share in tried.items()}},
            "cpu_s_a_step": a_step,
            "steps": full,
            "curves": {str(seed): c for seed, c in zip(options.seeds, curves, strict=True)},
        }
        print(f"{estimator}: lr {best:g}, {_mean_std([c['certified'][-1] for c in curves])} certified", flush=True)
        write(found, options)


def write(found: dict[str, Any], options: argparse.Namespace) -> None:
    """The JSON file and the picture."""
    what = {
        "what": "certified accuracy (CROWN) against CPU seconds of training, DeepPoly, CNN3, eps 0.1",
        "dataset": options.dataset,
        "test_images": options.images,
        "seconds": options.seconds,
        "search_share": options.search,
        "seeds": list(options.seeds),
    }
    options.result.write_text(
        json.dumps({**what, "environment": environment.describe(), "estimators": found}, indent=1)
    )
    picture(found, options.result.with_suffix(".png"))


def picture(found: dict[str, Any], path: Path) -> None:
    """Means over seeds, with every seed as a thin line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    for index, (estimator, result) in enumerate(found.items()):
        curves = list(result["curves"].values())
        colour = f"C{index}"
        for c in curves:
            axes.plot(c["cpu_seconds"], [100 * v for v in c["certified"]], color=colour, alpha=0.3, linewidth=0.8)
        length = min(len(c["certified"]) for c in curves)
        mean = [100 * sum(c["certified"][i] for c in curves) / len(curves) for i in range(length)]
        spent = [sum(c["cpu_seconds"][i] for c in curves) / len(curves) for i in range(length)]
        axes.plot(spent, mean, color=colour, label=f"{estimator}, lr {result['lr']:g}")
    axes.set_xlabel("CPU seconds of training")
    axes.set_ylabel("certified by CROWN, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _mean_std(values: list[float]) -> str:
    mean = sum(values) / len(values)
    return f"{100 * mean:.2f} ± {100 * math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)):.2f} %"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--init", type=Path, required=True, help="weights that all start from")
    parser.add_argument("--out", type=Path, default=Path("runs/race"), help="folder of the runs")
    parser.add_argument("--result", type=Path, default=RESULT, help="JSON file; the picture goes beside it")
    parser.add_argument("--dataset", default="mnist", help="what to train on")
    parser.add_argument("--seconds", type=float, default=300.0, help="CPU seconds of a run")
    parser.add_argument("--search", type=float, default=0.4, help="share of them for a try of a learning rate")
    parser.add_argument("--least-rate", type=float, choices=RATES, default=RATES[0], help="where the search begins")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=2000, help="test images of an evaluation; 0 for all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--estimators", nargs="+", choices=list(ENTRANTS), default=list(ENTRANTS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
