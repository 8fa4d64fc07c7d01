"""Scores of units to split (``Roots.babsr``)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glsk.lines.relu import classify, upper_line
from glsk.ops import affine

if TYPE_CHECKING:
    from glsk.bounds.subproblems import Roots


def babsr(roots: "Roots", coefficients: Tensor, index: Tensor | None, splits: Tensor | None) -> Tensor:
    """As ``Roots.babsr``."""
    units = classify(roots.lower, roots.upper)
    slope, intercept = upper_line(roots.lower, roots.upper, units)
    layers = [(layer.geometry, layer.leak) for layer in roots.chain.layers[:-1]]

    def per_unit(values: list[float]) -> Tensor:
        counts = torch.tensor([g.out_features for g, _ in layers], device=slope.device)
        return torch.tensor(values, dtype=slope.dtype, device=slope.device).repeat_interleave(counts)

    rest = per_unit([1 - leak for _, leak in layers])
    bias = torch.cat([affine.per_unit(b, g)[0] for b, (g, _) in zip(roots.weights.biases, layers, strict=False)])
    shut = units.active | units.inactive | (per_unit([g.relu for g, _ in layers]) == 0)

    def of(per_image: Tensor) -> Tensor:
        """[B or 1, 1, U]."""
        per_image = roots.at_columns(per_image)
        return (per_image if index is None or len(per_image) == 1 else per_image[index]).unsqueeze(1)

    through = coefficients * of((rest * bias)[None])
    scores = through.clamp(max=0).addcmul_(of(slope), through, value=-1)
    scores.addcmul_(of(rest * intercept), coefficients.clamp(max=0), value=-1).abs_()
    scores.masked_fill_(of(~shut) == 0, float("-inf"))
    return scores if splits is None else scores.masked_fill_(splits[:, None] != 0, float("-inf"))
