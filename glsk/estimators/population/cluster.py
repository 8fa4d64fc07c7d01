"""The Ray that actors run in: a cluster that is there, or one of this process's own.

Ray's own threads and processes hear no signals, and nothing of it outlives this process: of a cluster, Ray ends the
actors whose driver is gone; what this process has started itself, a small process of its own ends.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from glsk import stopping
from glsk.errors import GlskError

_reapers: list["subprocess.Popen[bytes]"] = []
"""Held until this process ends: a reaper acts when its standard input closes."""


def start(actors: int, cpus: int, address: str = "") -> bool:
    """Be in a Ray with room for so many actors, each with so many CPUs.

    Args:
        actors: how many there shall be.
        cpus: of each, in a cluster; a Ray of this process's own is told what it needs.
        address: of a cluster, as ``ray.init`` takes it; empty for the one in RAY_ADDRESS, if any. Where the caller has
            started Ray, that one it is.

    Returns:
        Whether it is a cluster that was there before.

    Raises:
        GlskError: no cluster answers there, or it has too few CPUs.
    """
    import ray

    address = address or os.environ.get("RAY_ADDRESS", "")
    if not ray.is_initialized():
        if address in ("", "local"):
            _start_own(actors)
            return False
        _connect(address)
    room = ray.cluster_resources().get("CPU", 0.0)
    if room < actors * cpus:
        raise GlskError(f"actors: {actors} need {actors * cpus} CPUs, the Ray cluster {address} has {room:g}")
    return True


def _start_own(actors: int) -> None:
    """A local Ray without dashboard.

    Ray's processes, and its threads in this one, never get Ctrl-C, SIGTERM or SIGHUP, which terminals and schedulers
    send to whole groups: it is this process that decides when they end. Ray lets some of them live on when this process
    is killed; on Linux, a small process of its own then ends those.
    """
    import ray

    before = set(_children())
    with stopping.blocked():
        ray.init("local", num_cpus=actors, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        if sys.platform == "linux":
            _start_reaper(sorted(set(_children()) - before))
    stopping.listen_again()  # Ray has set a handler for SIGTERM


def _connect(address: str) -> None:
    """Raises GlskError if no cluster answers."""
    import ray

    with stopping.blocked():
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:  # a ConnectionError is an OSError
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise GlskError(f"actors: no Ray cluster at {address!r} ({reason})") from error
    stopping.listen_again()


def ready(actors: list[Any], seconds: float, patience: float) -> list[Any]:
    """Those of evotorch's actors that answer; the others are killed.

    Args:
        actors: just started.
        seconds: how long the first may take.
        patience: how long all others may take after it.
    """
    import ray

    asked = {actor.call.remote("process", [], {}): actor for actor in actors}
    ray.wait(list(asked), num_returns=1, timeout=seconds)
    done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=patience)
    good = [asked[reference] for reference in done if _answers(reference)]
    for actor in actors:
        if actor not in good:
            ray.kill(actor)
    return [actor for actor in actors if actor in good]


def _answers(reference: Any) -> bool:
    """Raises what the actor's own start raised, if it is not that it died."""
    import ray

    try:
        ray.get(reference)
    except deaths():
        return False
    return True


def deaths() -> tuple[type[Exception], ...]:
    """What Ray raises when an actor, or the machine it was on, is gone."""
    from ray import exceptions

    return exceptions.RayActorError, exceptions.NodeDiedError, exceptions.ObjectLostError, exceptions.WorkerCrashedError


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
