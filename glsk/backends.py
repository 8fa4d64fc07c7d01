"""The backends, which device and dtype each serves, and why one is missing.

A backend is a module that, when imported, adds its implementations to the ops (``Op.implement``).
"""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from glsk.device import why_no_cuda
from glsk.errors import BackendUnavailableError
from glsk.geometry import Geometry
from glsk.workspace import Widest, Workspace

NAMES = ("auto", "reference", "cpu", "triton", "cuda")


@dataclass(frozen=True)
class Backend:
    """A set of op implementations.

    Attributes:
        module: imported for its side effect of adding implementations; None for the reference.
        why_missing: None when the backend can run here, else one line that says why and what to do.
        devices: device types it serves.
        dtypes: dtypes it serves.
    """

    module: str | None
    why_missing: Callable[[], str | None]
    devices: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]


def _cpu_missing() -> str | None:
    try:
        importlib.import_module("glsk._C")
    except ImportError as error:
        return (
            f"the compiled CPU part glsk._C cannot be loaded ({error}); reinstall glsk with a C++17 compiler (g++) "
            "present"
        )
    return None


def _interpreting() -> bool:
    """Whether Triton is told to run kernels, slowly, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _triton_missing() -> str | None:
    try:
        importlib.import_module("triton")
    except ImportError as error:
        return f"Triton cannot be loaded ({error}); install it with `pip install triton` (Linux only)"
    if _interpreting():
        return None
    if (reason := why_no_cuda()) is not None:
        return f"{reason} (TRITON_INTERPRET=1 runs the kernels on the CPU, slowly)"
    major, minor = torch.cuda.get_device_capability()
    if major < 8:
        return (
            f"the kernels need compute capability 8.0 (Ampere) or newer, this GPU has {major}.{minor}; "
            "use backend='reference'"
        )
    return None


def _cuda_missing() -> str | None:
    try:
        extension = importlib.import_module("glsk._CUDA")
    except ImportError as error:
        return f"the CUDA part glsk._CUDA is not built ({error}); install glsk with nvcc present and GLSK_CUDA=1"
    if torch.version.cuda is None:
        return why_no_cuda()
    current = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
    if reason := extension.why_unusable(current):
        hints = {
            "no kernel image": "build glsk with GLSK_CUDA_ARCHS set to this GPU's compute capability",
            "driver version": "update the NVIDIA driver (nvidia-smi shows it), or build glsk with an older nvcc",
        }
        hint = next((text for words, text in hints.items() if words in reason), "check nvidia-smi")
        return f"{reason}; {hint}"
    return why_no_cuda()


_BACKENDS = {
    "reference": Backend(None, lambda: None, ("cpu", "cuda", "mps", "xpu"), (torch.float32, torch.float64)),
    "cpu": Backend("glsk.cpu", _cpu_missing, ("cpu",), (torch.float32, torch.float64)),
    "triton": Backend(
        "glsk.kernels", _triton_missing, ("cuda", "cpu") if _interpreting() else ("cuda",), (torch.float32,)
    ),
    "cuda": Backend("glsk.cuda", _cuda_missing, ("cuda",), (torch.float32, torch.float64)),
}
_PREFERENCE = ("cuda", "triton", "cpu", "reference")


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
    serving = (n for n in _PREFERENCE if n in _BACKENDS and _serves(_BACKENDS[n], device, dtype))
    serving = (n for n in serving if n != "triton" or device.type == "cuda")  # interpreted only when asked for
    return next(n for n in serving if why_missing(n) is None)


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
        if not _serves(backend, device, dtype):
            raise BackendUnavailableError(
                f"backend {name!r} serves {', '.join(backend.devices)} in "
                f"{', '.join(str(d).removeprefix('torch.') for d in backend.dtypes)}; the tensors are "
                f"{str(dtype).removeprefix('torch.')} on {device.type}"
            )
    module = _BACKENDS[name].module
    if module is not None:
        importlib.import_module(module)
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
    module = _BACKENDS[name].module
    hook = getattr(importlib.import_module(module), "pass_workspace", None) if module else None
    found: Workspace | Widest = hook(layers, spec_rows, device, dtype, backward) if hook else Workspace()
    return found


def _serves(backend: Backend, device: torch.device, dtype: torch.dtype) -> bool:
    return device.type in backend.devices and dtype in backend.dtypes
