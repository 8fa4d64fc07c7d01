"""Signals that end a run: Ctrl-C, SIGTERM and SIGHUP all stop it where it can go on.

A signal within :func:`deferred` waits until the block ends or asks with :func:`check`; a second one does not wait.
Everywhere else it raises :class:`Stopped` at once.
"""

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end; no error, so it passes whatever lets a KeyboardInterrupt pass.

    Args:
        number: the signal.
        message: where the run stopped and how it goes on.
    """

    def __init__(self, number: int, message: str = "") -> None:
        self.number = number
        super().__init__(message or f"stopped by {self.name} before a run began")

    @property
    def name(self) -> str:
        """Of the signal, such as SIGTERM."""
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """As shells report it."""
        return 128 + self.number


class _State:
    """Of the process, as signal handlers are."""

    listening = False
    deferring = False
    pending: int | None = None


def _handle(number: int, frame: FrameType | None) -> None:
    if _State.deferring and _State.pending is None:
        _State.pending = number
        return
    raise Stopped(number)


@contextmanager
def listening() -> Iterator[None]:
    """Turn signals into :class:`Stopped` within the block; in the main thread, the outermost block counts.

    A signal that the process ignores (as under nohup) stays ignored.
    """
    if _State.listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    _State.listening, _State.deferring, _State.pending = True, False, None
    try:
        listen_again()
        yield
    finally:
        _State.listening = _State.deferring = False
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


def listen_again() -> None:
    """Within :func:`listening`, take the signals back from a library that has set handlers of its own."""
    if _State.listening and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _handle)


@contextmanager
def deferred(defer: bool = True) -> Iterator[None]:
    """Within the block the first signal waits for its end; with False, within such a block, it does not."""
    before, _State.deferring = _State.deferring, defer
    try:
        if not defer:
            check()
        yield
    finally:
        _State.deferring = before
    if not before:
        check()


def asked() -> bool:
    """Whether a signal is waiting."""
    return _State.pending is not None


def check() -> None:
    """Raise the :class:`Stopped` of a waiting signal."""
    if _State.pending is not None:
        raise Stopped(_State.pending)


@contextmanager
def blocked() -> Iterator[None]:
    """Processes and threads started in the block never get these signals, though a terminal sends them to all."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ends_on_signals(command: Callable[..., None]) -> Callable[..., None]:
    """A command that ends by one line on standard error and the conventional exit code when a signal stops it."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            with listening():
                command(*args, **kwargs)
        except Stopped as stop:
            for number in SIGNALS:  # a further one ends what is left of the process without a word
                signal.signal(number, signal.SIG_DFL)
            print(f"glsk: {stop}", file=sys.stderr)
            raise SystemExit(stop.exit_code) from None

    return wrapped
