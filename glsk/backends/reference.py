"""The ``reference`` backend: every op in plain PyTorch, on any device, which all others are held to."""

import torch

from glsk.backends.backend import Backend, no_workspace

BACKEND = Backend(
    name="reference",
    devices=("cpu", "cuda", "mps", "xpu"),
    dtypes=(torch.float32, torch.float64),
    ops=frozenset(),
    gradients=frozenset(),
    why_missing=lambda: None,
    load=lambda: None,
    pass_workspace=no_workspace,
)
