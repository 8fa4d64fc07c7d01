"""The backends, one a file, and which of them serves a device and a dtype."""

from functools import cache

import torch

from glsk.backends import cpu, cuda, reference, triton
from glsk.backends.backend import Backend
from glsk.errors import BackendUnavailableError
from glsk.geometry import Geometry
from glsk.workspace import Widest, Workspace

_BACKENDS: dict[str, Backend] = {module.BACKEND.name: module.BACKEND for module in (reference, cpu, triton, cuda)}
_PREFERENCE = ("cuda", "triton", "cpu", "reference")

NAMES = ("auto", *_BACKENDS)


@cache
def why_missing(name: str) -> str | None:
    """None if backend ``name`` can run here, else why not and what to do."""
    if name not in _BACKENDS:
        return "this version of glsk does not have it"
    return _BACKENDS[name].why_missing()


def available() -> dict[str, str | None]:
    """Every backend: None if it can run here, else one line that says why not."""
    return {name: why_missing(name) for name in NAMES if name != "auto"}


def validate(name: str) -> str:
    """Check a backend's name. Raises TypeError or ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"backend: expected a string, got {type(name).__name__}")
    if name.lower() not in NAMES:
        raise ValueError(f"backend: unknown {name!r}; known: {', '.join(NAMES)}")
    return name.lower()


def auto(device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The fastest backend that is here for tensors of this kind."""
    known = (_BACKENDS[name] for name in _PREFERENCE)
    serving = (b.name for b in known if b.serves(device, dtype) and device.type not in b.on_request)
    return next(name for name in serving if why_missing(name) is None)


@cache
def resolve(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that serves ``device`` and ``dtype``, its implementations loaded.

    ``"auto"`` takes the fastest one that is there and falls back to the reference.

    Raises:
        ValueError: unknown name.
        BackendUnavailableError: the named backend is missing, or does not serve this device or dtype.
    """
    name = validate(name)
    if name == "auto":
        name = auto(device, dtype)
    else:
        reason = why_missing(name)
        if reason is not None:
            raise BackendUnavailableError(f"backend {name!r} is not available: {reason}")
        backend = _BACKENDS[name]
        if not backend.serves(device, dtype):
            raise BackendUnavailableError(
                f"backend {name!r} serves {', '.join(backend.devices)} in "
                f"{', '.join(str(d).removeprefix('torch.') for d in backend.dtypes)}; the tensors are "
                f"{str(dtype).removeprefix('torch.')} on {device.type}"
            )
    _BACKENDS[name].load()
    return name


def pass_workspace(
    name: str,
    layers: tuple[Geometry, ...],
    spec_rows: int | None,
    device: torch.device,
    dtype: torch.dtype,
    backward: bool = False,
) -> Workspace | Widest:
    """What a pass over ``layers`` (``spec_rows`` rows of C, or None for the last layer's outputs) allocates.

    With ``backward``, enough for its gradient too.
    """
    return _BACKENDS[name].pass_workspace(layers, spec_rows, device, dtype, backward)


def has_gradient(name: str, op: str) -> bool:
    """Whether a backend has a fused gradient of an op, where others trace the reference."""
    return op in _BACKENDS[name].gradients
