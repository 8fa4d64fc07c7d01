"""A progress bar of verdicts on a terminal; nothing elsewhere."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def shown(records: Iterable[Mapping[str, Any]], total: int, done: int = 0) -> Iterator[Mapping[str, Any]]:
    """The records, counted on standard error while they come."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from records
        return
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total, completed=done)
        counts: Counter[str] = Counter()
        for record in records:
            counts[record["status"]] += 1
            text = ", ".join(f"{status} {count}" for status, count in counts.most_common())
            bar.update(task, advance=1, description=text)
            yield record
