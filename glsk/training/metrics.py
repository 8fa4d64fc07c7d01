"""One line a step in metrics.jsonl, and the same as TensorBoard scalars."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glsk.training.atomic import naming, write_bytes


class Metrics:
    """Appends records to ``<folder>/metrics.jsonl`` and ``<folder>/tensorboard``.

    Args:
        folder: the run's folder.
        step: the step the run goes on from; later records, left by a run that was killed, are removed first.
        evaluated: whether the evaluation after ``step`` belongs to what is kept, if there is one.
        tensorboard: also write TensorBoard scalars.

    Attributes:
        dropped: lines that were no records and have been removed too.

    Raises:
        OSError: naming the file, if the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int = 0, *, evaluated: bool = True, tensorboard: bool = True) -> None:
        self.path, self.scalars = folder / "metrics.jsonl", folder / "tensorboard"
        self.dropped = 0
        self._truncate(step, evaluated)
        with naming(self.path):
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        with naming(self.scalars):
            self._writer = _writer(self.scalars, step) if tensorboard else None

    def _truncate(self, step: int, evaluated: bool) -> None:
        kept = []
        for line in _lines(self.path):
            try:
                record = _record(line)
            except ValueError:
                self.dropped += 1
                continue
            if record["step"] < step or (record["step"] == step and (evaluated or record["stage"] != "evaluation")):
                kept.append(line)
        write_bytes(self.path, b"".join(kept))

    def write(self, record: dict[str, Any]) -> None:
        """``record`` has ``step`` (over all phases) and ``stage``; numbers become scalars ``<stage>/<name>``."""
        with naming(self.path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        if self._writer is not None:
            with naming(self.scalars):
                self._writer.file_writer.add_summary(_summary(record), record["step"])

    def close(self) -> None:
        """Raises OSError naming the file, if what was written last has not reached it."""
        try:
            with naming(self.path):
                self._file.close()
        finally:
            if self._writer is not None:
                with naming(self.scalars):
                    self._writer.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line cut short by a killed run is left out.

    Raises:
        ValueError: naming the file and the line, if a line is no record.
    """
    return list(_records(path))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(path), 1):
        try:
            yield _record(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is damaged ({error})") from error


def _record(line: bytes) -> dict[str, Any]:
    """Raises ValueError if ``line`` is not a JSON object with a step and a stage."""
    try:
        found = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict) or type(found.get("step")) is not int or not isinstance(found.get("stage"), str):
        raise ValueError("not a record with a step and a stage")
    return found


def _lines(path: Path) -> list[bytes]:
    """Lines that were written to their end; none if there is no such file."""
    try:
        return [line + b"\n" for line in path.read_bytes().split(b"\n")[:-1]]
    except FileNotFoundError:
        return []


def _writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)


def _summary(record: dict[str, Any]) -> Any:
    """All numbers of a record as one event: one each would take longer than a short step."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    numbers = {n: v for n, v in record.items() if n not in ("step", "stage") and isinstance(v, int | float)}
    return Summary(value=[Summary.Value(tag=f"{record['stage']}/{n}", simple_value=v) for n, v in numbers.items()])
