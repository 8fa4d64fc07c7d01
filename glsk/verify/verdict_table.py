"""What the verdicts of a data set add up to."""

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from rich.table import Table

from glsk.verify.verdict import STAGES


def summary(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares of the images, in [0, 1]; JSON can hold it.

    Returns:
        ``samples``; ``natural``: classified correctly; ``adversarial``: of which no unsafe input was found, an upper
        bound of the robust accuracy; ``certified``: by stage, proved by it or one before it; ``complete``: proved by
        any; ``undecided``; ``seconds``: in all, ``median_seconds``: of a decided image (None if there is none).
    """
    found = list(records)
    total = max(1, len(found))
    sat = [r for r in found if r["status"] == "sat"]
    proved = [STAGES.index(r["stage"]) for r in found if r["status"] == "unsat"]
    decided = [r["seconds"] for r in found if r["status"] in ("sat", "unsat")]
    return {
        "samples": len(found),
        "natural": 1 - sum(r["stage"] == "natural" for r in sat) / total,
        "adversarial": 1 - len(sat) / total,
        "certified": {s: sum(p <= STAGES.index(s) for p in proved) / total for s in ("IBP", "CROWN", "alpha-CROWN")},
        "complete": len(proved) / total,
        "undecided": (len(found) - len(decided)) / total,
        "seconds": sum(r["seconds"] for r in found),
        "median_seconds": median(decided) if decided else None,
    }


def verdict_table(records: Iterable[Mapping[str, Any]], title: str = "", complete: bool = True) -> Table:
    """:func:`summary`, shares in percent; what is certified up to a stage, those before it have proved or it has."""
    found = summary(records)
    rows = {"natural": found["natural"], "adversarial": found["adversarial"]}
    rows |= {f"certified {'by' if s == 'IBP' else 'up to'} {s}": v for s, v in found["certified"].items()}
    rows |= {"certified, complete": found["complete"]} if complete else {}
    rows |= {"undecided": found["undecided"]}
    table = Table(title=title or None)
    table.add_column(f"{found['samples']} images")
    table.add_column("%", justify="right")
    for name, share in rows.items():
        table.add_row(name, f"{100 * share:.2f}")
    seconds = found["median_seconds"]
    table.add_row("median seconds, decided", "–" if seconds is None else f"{seconds:.3f}")
    return table
