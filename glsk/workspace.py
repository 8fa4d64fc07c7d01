"""What a backend's passes allocate beside bounds, and how much of it a call grants them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

HIDDEN_SHARE = 0.25
"""Of the memory limit, at most, for hidden bounds that a gradient reads."""

_granted: ContextVar[int | None] = ContextVar("granted", default=None)


@dataclass(frozen=True)
class Workspace:
    """Bytes.

    Attributes:
        per_member: packed weights.
        per_pair: slopes and lists of rows of one (member, sample).
        program: scratch of one program (thread block).
        programs: programs that run at once, at most.
        programs_per_pair: programs that one (member, sample) can occupy.
        scalable: whether fewer programs are launched where less is granted.
    """

    per_member: int = 0
    per_pair: int = 0
    program: int = 0
    programs: int = 0
    programs_per_pair: int = 0
    scalable: bool = True

    def scratch(self, pairs: int) -> int:
        """Of as many programs as so many pairs can occupy."""
        return self.program * min(self.programs, pairs * self.programs_per_pair)

    def least(self, pairs: int) -> int:
        """Scratch without which so many pairs cannot be computed."""
        return self.program if self.scalable else self.scratch(pairs)


@dataclass(frozen=True)
class Widest:
    """Enough for any of several passes, which run one after the other."""

    passes: "tuple[Workspace | Widest, ...]"

    @property
    def per_member(self) -> int:
        return max((w.per_member for w in self.passes), default=0)

    @property
    def per_pair(self) -> int:
        return max((w.per_pair for w in self.passes), default=0)

    def scratch(self, pairs: int) -> int:
        """As :meth:`Workspace.scratch`."""
        return max((w.scratch(pairs) for w in self.passes), default=0)

    def least(self, pairs: int) -> int:
        """As :meth:`Workspace.least`."""
        return max((w.least(pairs) for w in self.passes), default=0)


def granted() -> int | None:
    """Bytes of scratch that a pass may allocate now; None for as many as it likes."""
    return _granted.get()


@contextmanager
def grant(scratch: int | None) -> Iterator[None]:
    """Let passes within it, and their gradients, allocate at most so many bytes of scratch (one program's at least)."""
    token = _granted.set(scratch)
    try:
        yield
    finally:
        _granted.reset(token)
