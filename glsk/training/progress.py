"""A progress bar on a terminal, plain lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_SECONDS = 10.0


class StageProgress:
    """Shows a phase's loss, samples per second and time left.

    Args:
        console: where to; only a terminal gets a bar.
        name: of the phase.
        steps: its length.
        done: steps already done (a resumed run).
    """

    def __init__(self, console: Console, name: str, steps: int, done: int = 0) -> None:
        self.console, self.name, self.steps, self.done = console, name, steps, done
        self._started, self._first, self._shown = time.perf_counter(), done, 0.0
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[status]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task(name, total=steps, completed=done, status="")

    def __enter__(self) -> "StageProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, loss: float, samples_per_s: float) -> None:
        """One more step is done."""
        self.done += 1
        status = f"loss {loss:.4f}  {samples_per_s:,.0f} samples/s"
        if self._bar is not None:
            self._bar.update(self._task, advance=1, status=status)
            return
        now = time.perf_counter()
        if now - self._shown >= _LINE_SECONDS or self.done == self.steps:
            self._shown = now
            left = (now - self._started) / (self.done - self._first) * (self.steps - self.done)
            line = f"{self.name} {self.done}/{self.steps}  {status}  {left:.0f} s left"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)
