"""Calls that ``torch.compile`` leaves as they are: they check values and walk tiles, and their kernels are fused."""

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, at which a compiled graph breaks, and which ``fullgraph=True`` and ``torch.export`` refuse.

    As ``torch.compiler.disable``, which would take the second of loading the compiler to define the function.

    Raises:
        RuntimeError: where a graph must not break.
    """
    name = function.__name__

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            raise RuntimeError(f"{name} cannot be part of a compiled graph: leave out fullgraph=True")
        dynamo: Any = sys.modules.get("torch._dynamo")
        return function(*args, **kwargs) if dynamo is None else dynamo.disable(function)(*args, **kwargs)

    return call
