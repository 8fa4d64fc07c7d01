"""How much memory a call's tensors take, counted on CPU tensors that stand for those of a GPU."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from glsk import ops


class Meter(TorchDispatchMode):
    """Bytes of the tensors alive that operators have made, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(
        self, function: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = function(*args, **(kwargs or {}))
        for tensor in (t for t in tree_leaves(result) if isinstance(t, Tensor)):
            storage = tensor.untyped_storage()
            at, size = storage.data_ptr(), storage.nbytes()
            if size and at not in known and at not in self.alive:
                self.alive[at] = size
                weakref.finalize(tensor, self.alive.pop, at, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


@contextmanager
def metered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Meter]:
    """Inside the ops too, where PyTorch switches a mode off."""
    meter = Meter()

    def watched(function: Callable) -> Callable:
        def call(*args: object) -> object:
            with meter:
                return function(*args)

        return call

    with monkeypatch.context() as patch:
        for op in ops.ALL:
            for kind in ("_implementations", "_backwards"):
                made = {name: watched(function) for name, function in getattr(op, kind).items()}
                patch.setattr(op, kind, made)
        with meter:
            yield meter
