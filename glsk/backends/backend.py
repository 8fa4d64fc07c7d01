"""What there is to say of a backend: one file of this package says it of each."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from glsk.geometry import Geometry
from glsk.workspace import Widest, Workspace

PassWorkspace = Callable[
    [tuple[Geometry, ...], int | None, torch.device, torch.dtype, bool],
    Workspace | Widest,
]
"""(layers, rows of C or None, device, dtype, whether the gradient too) -> what a pass allocates."""


@dataclass(frozen=True)
class Backend:
    """A set of op implementations.

    Attributes:
        name: as a caller gives it.
        devices: device types it serves.
        dtypes: dtypes it serves.
        ops: names of the ops that it has a kernel for; all others run by the reference on its devices.
        gradients: names of the ops that it has a fused gradient for; of all others autograd goes through the reference.
        why_missing: None when it can run here, else one line that says why and what to do.
        load: adds the implementations to the ops (``Op.implement``).
        pass_workspace: what a pass allocates beside bounds.
        on_request: device types that it serves only when it is asked for by name.
    """

    name: str
    devices: tuple[str, ...]
    dtypes: tuple[torch.dtype, ...]
    ops: frozenset[str]
    gradients: frozenset[str]
    why_missing: Callable[[], str | None]
    load: Callable[[], object]
    pass_workspace: PassWorkspace
    on_request: tuple[str, ...] = ()

    def serves(self, device: torch.device, dtype: torch.dtype) -> bool:
        return device.type in self.devices and dtype in self.dtypes


def no_workspace(
    layers: tuple[Geometry, ...], spec_rows: int | None, device: torch.device, dtype: torch.dtype, backward: bool
) -> Workspace:
    """Of passes that allocate nothing of their own."""
    return Workspace()
