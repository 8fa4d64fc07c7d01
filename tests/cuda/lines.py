"""A pass with any lines, said plainly and differentiably: what the general CUDA kernels are held to."""

import torch
from torch import Tensor

from glsk.geometry import Geometry, decode
from glsk.ops import affine

RULES = ("adaptive", "parallel", "mask")


def lines_around(lower: Tensor, upper: Tensor, rule: str, leak: float) -> Tensor:
    """[P, B, 1, 4, n]: slope and intercept of a LeakyReLU's lower, then of its upper line."""
    active, inactive = lower >= 0, (lower < 0) & (upper <= 0)
    unstable = ~active & ~inactive
    slope = torch.where(unstable, upper / torch.where(unstable, upper - lower, 1), active.to(lower.dtype))
    intercept = torch.where(unstable, -slope * lower, 0)
    mask = active.to(lower.dtype)
    low = {"adaptive": torch.where(unstable, (upper > -lower).to(lower.dtype), mask), "parallel": slope, "mask": mask}
    if rule == "mask":
        slope, intercept = mask, 0 * intercept
    lines = (leak + (1 - leak) * low[rule], 0 * intercept, leak + (1 - leak) * slope, (1 - leak) * intercept)
    return torch.stack(lines, dim=2)[:, :, None]


def pass_by_lines(
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
    """As the op ``crown_pass``."""
    layers = decode(geometry)
    all_lines = [
        lines[k] if lines[k].numel() else lines_around(lowers[k], uppers[k], rule, leaks[k]) if layer.relu else None
        for k, layer in enumerate(layers[:-1])
    ]
    rows = C[None] if C is not None else torch.eye(layers[-1].out_features, dtype=x_L.dtype)[None, None]
    lower = _lower(rows, x_L, x_U, weights, biases, all_lines, layers)
    upper = -_lower(-rows, x_L, x_U, weights, biases, all_lines, layers) if bound_upper else lower.new_empty(0)
    if known_lower is not None and known_upper is not None:
        stable = (known_lower >= 0) | (known_upper <= 0)
        lower = torch.where(stable, known_lower, lower)
        upper = torch.where(stable, known_upper, upper) if bound_upper else upper
    return lower, upper


def _lower(
    rows: Tensor,
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lines: list[Tensor | None],
    layers: list[Geometry],
) -> Tensor:
    rows = rows.expand(weights[0].shape[0], x_L.shape[1], -1, -1)
    constant = rows.new_zeros(())
    for k in reversed(range(len(layers))):
        if k < len(lines) and (line := lines[k]) is not None:
            low_slope, low, up_slope, up = line.unbind(3)
            negative = rows < 0
            constant = constant + (rows * torch.where(negative, up, low)).sum(3)
            rows = rows * torch.where(negative, up_slope, low_slope)
        constant = constant + (rows * affine.per_unit(biases[k], layers[k])[:, None, None]).sum(3)
        rows = affine.transposed(rows, weights[k], layers[k])
    ends = torch.where(rows < 0, x_U[:, :, None], x_L[:, :, None])
    return constant + (rows * ends).sum(3)
