"""A DeepPoly / CROWN pass on the back-substitution engine."""

from glsk.kernels.passes import launch_pass
from torch import Tensor

from glsk import ops
from glsk.geometry import decode


@ops.crown_pass.implement("triton")
def crown_pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    C: Tensor | None,
    known_lower: Tensor | None,
    known_upper: Tensor | None,
    geometry: list[int],
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    """As ``glsk.ops.crown_pass``."""
    known = None if known_lower is None or known_upper is None else (known_lower, known_upper)
    sides = 2 if bound_upper else 1
    lower, upper = launch_pass(
        x_L, x_U, weights, biases, lowers, uppers, C, known, decode(geometry), sides, hbox=False
    )  # fmt: skip
    return lower, lower.new_empty(0) if upper is None else upper
