"""One process at a time in a run's folder."""

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from glsk.training.atomic import naming

NAME = ".glsk.lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Hold ``folder`` (made if needed) for the block; yields False on a file system that has no locks.

    It is the kernel's lock on a file in the folder, so it ends with the process, however that ends. A folder that was
    made for this and has stayed empty is removed again.

    Raises:
        ValueError: another process holds it; the message says which.
        OSError: the folder cannot be written.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with naming(path):
        descriptor, holds = _acquire(path)
    try:
        yield holds
    finally:
        path.unlink(missing_ok=True)  # while it is held: whoever waits for this file sees that it is gone
        os.close(descriptor)
        if made:
            with suppress(OSError):
                folder.rmdir()


def _acquire(path: Path) -> tuple[int, bool]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            holds = True
        except BlockingIOError:
            holder = _holder(os.read(descriptor, 4096))
            os.close(descriptor)
            raise ValueError(f"{path.parent}: {holder} is running in this folder; wait for its end") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            holds = False
        if holds and not _is_at(descriptor, path):  # removed by its holder between our open and its unlock
            os.close(descriptor)
            continue
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}) + "\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content.encode(), 0)
        return descriptor, holds


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _holder(content: bytes) -> str:
    try:
        found = json.loads(content)
        return f"process {found['pid']} on {found['host']}, started {found['started']},"
    except (ValueError, KeyError, TypeError):  # it is just writing this
        return "another process"
