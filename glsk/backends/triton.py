"""The ``triton`` backend: the kernels of ``glsk.kernels``, compiled on the machine where they run."""

import importlib
import os
from typing import Any

import torch

from glsk.backends.backend import Backend
from glsk.device import why_no_cuda
from glsk.geometry import Geometry
from glsk.workspace import Widest, Workspace


def _interpreting() -> bool:
    """Whether Triton is told to run kernels, slowly, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _why_missing() -> str | None:
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


def _pass_workspace(
    layers: tuple[Geometry, ...], spec_rows: int | None, device: torch.device, dtype: torch.dtype, backward: bool
) -> Workspace | Widest:
    kernels: Any = importlib.import_module("glsk.kernels")
    # A gradient is the reference's and needs no more of this.
    found: Workspace = kernels.pass_workspace(layers, spec_rows, device, dtype)
    return found


BACKEND = Backend(
    name="triton",
    devices=("cuda", "cpu") if _interpreting() else ("cuda",),
    dtypes=(torch.float32,),
    ops=frozenset({"crown_pass", "hbox_relu", "ibp_affine", "robust_cross_entropy"}),
    gradients=frozenset(),
    why_missing=_why_missing,
    load=lambda: importlib.import_module("glsk.kernels"),
    pass_workspace=_pass_workspace,
    on_request=("cpu",),
)
