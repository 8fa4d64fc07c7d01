"""One line a step in metrics.jsonl, and the same as TensorBoard scalars."""

import json
from pathlib import Path
from typing import Any

from glsk.training.atomic import write_bytes


class Metrics:
    """Appends records to ``<folder>/metrics.jsonl`` and ``<folder>/tensorboard``.

    Args:
        folder: the run's folder.
        step: the step the run goes on from; later records, left by a run that was killed, are removed first.
        tensorboard: also write TensorBoard scalars.

    Raises:
        OSError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int = 0, *, tensorboard: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        self._truncate(step)
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._writer = _writer(folder / "tensorboard", step) if tensorboard else None

    def _truncate(self, step: int) -> None:
        kept = b"".join(line for line in _lines(self.path) if json.loads(line)["step"] <= step)
        write_bytes(self.path, kept)

    def write(self, record: dict[str, Any]) -> None:
        """``record`` has ``step`` (over all phases) and ``stage``; numbers become scalars ``<stage>/<name>``."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in record.items():
                if name not in ("step", "stage") and isinstance(value, int | float):
                    self._writer.add_scalar(f"{record['stage']}/{name}", value, record["step"])

    def close(self) -> None:
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line cut short by a killed run is left out."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[bytes]:
    if not path.is_file():
        return []
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1)
