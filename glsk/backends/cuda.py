"""The ``cuda`` backend: the kernels of csrc/cuda, compiled by nvcc when glsk is installed.

``cuda_forward`` and ``cuda_backward`` launch them, ``cuda_workspace`` counts their scratch, ``cuda_views`` is what they
share; all of these need the compiled ``glsk._CUDA``.
"""

import importlib
from typing import Any

import torch

from glsk.backends.backend import Backend
from glsk.device import why_no_cuda
from glsk.geometry import Geometry
from glsk.workspace import Widest, Workspace

_HINTS = {
    "no kernel image": "build glsk with GLSK_CUDA_ARCHS set to this GPU's compute capability",
    "driver version": "update the NVIDIA driver (nvidia-smi shows it), or build glsk with an older nvcc",
}


def _why_missing() -> str | None:
    try:
        extension = importlib.import_module("glsk._CUDA")
    except ImportError as error:
        return f"the CUDA part glsk._CUDA is not built ({error}); install glsk with nvcc present and GLSK_CUDA=1"
    if torch.version.cuda is None:
        return why_no_cuda()
    current = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
    if reason := extension.why_unusable(current):
        hint = next((text for words, text in _HINTS.items() if words in reason), "check nvidia-smi")
        return f"{reason}; {hint}"
    return why_no_cuda()


def _load() -> None:
    for name in ("forward", "backward"):
        importlib.import_module(f"glsk.backends.cuda_{name}")


def _pass_workspace(
    layers: tuple[Geometry, ...], spec_rows: int | None, device: torch.device, dtype: torch.dtype, backward: bool
) -> Workspace | Widest:
    counting: Any = importlib.import_module("glsk.backends.cuda_workspace")
    found: Workspace | Widest = counting.pass_workspace(layers, spec_rows, device, dtype, backward)
    return found


BACKEND = Backend(
    name="cuda",
    devices=("cuda",),
    dtypes=(torch.float32, torch.float64),
    ops=frozenset({"crown_pass", "hbox_relu", "ibp_affine", "robust_cross_entropy"}),
    gradients=frozenset({"crown_pass", "ibp_affine"}),
    why_missing=_why_missing,
    load=_load,
    pass_workspace=_pass_workspace,
)
