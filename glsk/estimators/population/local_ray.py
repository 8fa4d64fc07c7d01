"""A Ray of this process's own: it hears no signals, and nothing of it outlives the process."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from glsk import stopping

_reapers: list["subprocess.Popen[bytes]"] = []
"""Held until this process ends: a reaper acts when its standard input closes."""


def start(actors: int) -> None:
    """A local Ray without dashboard for so many actors, unless the caller has started one.

    Ray's processes, and its threads in this one, never get Ctrl-C, SIGTERM or SIGHUP, which terminals and schedulers
    send to whole groups: it is this process that decides when they end. Ray lets some of them live on when this process
    is killed; on Linux, a small process of its own then ends those.
    """
    import ray

    if ray.is_initialized():
        return
    before = set(_children())
    with stopping.blocked():
        ray.init(num_cpus=actors, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        if sys.platform == "linux":
            _start_reaper(sorted(set(_children()) - before))
    stopping.listen_again()  # Ray has set a handler for SIGTERM


def _start_reaper(roots: list[int]) -> None:
    reaper = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(__file__).with_name("reaper.py")), json.dumps(roots)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    _reapers.append(reaper)


def _children() -> list[int]:
    """Of this process, where the system lists them."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in listed.read_text().split()] if listed.exists() else []
