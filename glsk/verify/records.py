"""Verdicts on disk, one JSON line each, so that a run that is killed goes on without losing one."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from glsk.errors import DataError
from glsk.training.atomic import naming, write_text


class VerdictLog:
    """A file whose first line says what the run is and every other one a verdict; a written line is on the disk.

    Args:
        path: the file.
        run: what the run is, of strings, numbers and None.
        resume: go on with the file; a last line cut short by a kill is dropped. Without it the file must not be there.

    Attributes:
        records: the verdicts so far, by index.

    Raises:
        ValueError: the file is there and is not to be gone on with, or is of another run; it says what differs.
        glsk.DataError: a line of it is damaged.
        OSError: it cannot be read or written.
    """

    def __init__(self, path: Path, run: Mapping[str, Any], resume: bool = False) -> None:
        self.path = path
        self.records: dict[int, dict[str, Any]] = {}
        if path.exists() and not resume:
            raise ValueError(f"{path}: exists already; go on with it (--resume) or name another file")
        lines = [json.dumps(dict(run))]
        if path.exists():
            found = read_lines(path)
            if found:
                _same_run(path, found[0], run)
                lines += [json.dumps(record) for record in found[1:]]
                self.records = {record["index"]: record for record in found[1:]}
        write_text(path, "".join(line + "\n" for line in lines))
        with naming(path):
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append a verdict: ``index``, ``status``, ``stage``, ``seconds`` and what else JSON can hold."""
        with naming(self.path):
            self._file.write(json.dumps(dict(record)) + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        self.records[record["index"]] = dict(record)

    def close(self) -> None:
        with naming(self.path):
            self._file.close()

    def __enter__(self) -> "VerdictLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a last line without its end is left out.

    Raises:
        glsk.DataError: another line is no JSON object, or has no index.
        OSError: the file cannot be read.
    """
    with naming(path):
        text = path.read_bytes()
    whole = text.split(b"\n")[:-1]
    found = []
    for number, line in enumerate(whole, 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or (number > 1 and not isinstance(record.get("index"), int)):
            raise DataError(f"{path}, line {number}: not a verdict")
        found.append(record)
    return found


def _same_run(path: Path, found: Mapping[str, Any], run: Mapping[str, Any]) -> None:
    wanted = json.loads(json.dumps(dict(run)))
    for name in (*wanted, *found):
        if wanted.get(name) != found.get(name):
            raise ValueError(f"{path}: is of another run: its {name} is {found.get(name)!r}, not {wanted.get(name)!r}")
