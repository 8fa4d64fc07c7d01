"""Networks of the user's own, named by the Python file and the function that makes their layers: ``net.py:make``."""

import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

_REFERENCE = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


def is_reference(name: str) -> bool:
    """Whether ``name`` has the form ``file.py:function``."""
    return _REFERENCE.fullmatch(name) is not None


def own_layers(reference: str) -> Callable[[tuple[int, ...], int], list[nn.Module]]:
    """What makes the layers of ``file.py:function`` for an input shape (C, H, W) and a number of classes.

    The file is executed, as Python would import it. The function is called with the two and returns an
    ``nn.Sequential`` or its layers.

    Raises:
        ValueError: the file is missing or cannot be executed, has no such function, or what it returns are no layers.
    """
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ValueError(f"model: expected file.py:function, got {reference!r:.100}")
    path, name = Path(found[1]), found[2]
    if not path.is_file():
        raise ValueError(f"model: {path}: no such file")
    spec = importlib.util.spec_from_file_location(f"_glsk_own_{path.stem}", path)
    assert spec is not None  # the name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"model: {path}: cannot be executed ({type(error).__name__}: {error})") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"model: {path}: has no function {name!r}")

    def layers(input_shape: tuple[int, ...], num_classes: int) -> list[nn.Module]:
        made = function(input_shape, num_classes)
        listed = list(made) if isinstance(made, nn.Sequential | Sequence) else [made]
        if not listed or not all(isinstance(layer, nn.Module) for layer in listed):
            raise ValueError(f"model: {reference} returned {type(made).__name__}, expected an nn.Sequential")
        return listed

    return layers
