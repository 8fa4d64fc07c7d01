"""Back-substitution passes on the engine; those whose lines differ from row to row run by the reference."""

from glsk.kernels.passes import launch_pass
from torch import Tensor

from glsk import ops
from glsk.geometry import decode
from glsk.ops.crown_pass import pass_lines


@ops.crown_pass.implement("triton")
def crown_pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    C: Tensor | None,
    known_lower: Tensor | None,
    known_upper: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    rule: str,
    bound_upper: bool,
) -> tuple[Tensor, Tensor]:
    """As ``glsk.ops.crown_pass``."""
    known = None if known_lower is None or known_upper is None else (known_lower, known_upper)
    if any(given.numel() and given.shape[2] > 1 for given in lines):
        return ops.crown_pass.reference(
            x_L, x_U, weights, biases, lowers, uppers, lines, C, known_lower, known_upper, geometry, leaks, rule,
            bound_upper,
        )  # fmt: skip
    layers, made = decode(geometry), None
    if any(leaks) or rule == "parallel" or any(given.numel() for given in lines):
        made = pass_lines(layers, lowers, uppers, lines, leaks, rule)
        made = None if all(given is None for given in made) else made
    lower, upper = launch_pass(
        x_L, x_U, weights, biases, lowers, uppers, C, known, layers, 2 if bound_upper else 1, rule == "mask", made
    )  # fmt: skip
    return lower, lower.new_empty(0) if upper is None else upper
