"""A program: once its standard input ends, kill what is left of the given processes (ids) and their descendants.

It looks for the descendants while it waits: those of a killed process can no longer be told from others. Each is known
by its id and the time it started, so an id that the system has given to another process since is left alone. It uses
the standard library alone and Linux's /proc.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time

_LOOK_S = 2.0
_GRACE_S = 3.0


def processes() -> dict[int, tuple[int, str]]:
    """Process id -> parent's id, start time."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().decode(errors="replace").rpartition(")")[2].split()  # the name may hold anything
                found[int(name)] = int(fields[1]), fields[19]
    return found


def descendants(roots: set[int], known: dict[int, tuple[int, str]]) -> set[int]:
    """``roots`` and all below them, those that still exist."""
    found: set[int] = set()
    layer = {pid for pid in roots if pid in known}
    while layer:
        found |= layer
        layer = {pid for pid, (parent, _) in known.items() if parent in layer} - found
    return found


def main() -> None:
    """Wait, then reap."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    known = processes()
    seen = {pid: known[pid][1] for pid in json.loads(sys.argv[1]) if pid in known}
    while True:
        known = processes()
        seen.update({pid: known[pid][1] for pid in descendants(left(seen, known), known)})
        readable, _, _ = select.select([0], [], [], _LOOK_S)
        if readable and not os.read(0, 64):
            break
    end = time.monotonic() + _GRACE_S
    while time.monotonic() < end and left(seen, processes()):
        time.sleep(0.1)
    for pid in left(seen, processes()):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def left(seen: dict[int, str], known: dict[int, tuple[int, str]]) -> set[int]:
    """Those of ``seen`` (id -> start time) that are still the same processes."""
    return {pid for pid, started in seen.items() if pid in known and known[pid][1] == started}


if __name__ == "__main__":
    main()
