"""An HBox pass on the back-substitution engine: one-sided, both slopes the active mask, no constants."""

from glsk.kernels.passes import launch_pass
from torch import Tensor

from glsk import ops
from glsk.geometry import decode


@ops.hbox_pass.implement("triton")
def hbox_pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
) -> Tensor:
    """As ``glsk.ops.hbox_pass``."""
    radius, _ = launch_pass(x_L, x_U, weights, None, lowers, uppers, C, None, decode(geometry), 1, hbox=True)
    return radius
