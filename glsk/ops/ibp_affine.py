"""One step of interval bound propagation: a box through an affine layer (paper, §2.2, IBP)."""

from torch import Tensor

from glsk.geometry import Geometry, decode
from glsk.ops import affine, checks, interval
from glsk.ops.registry import Op


def ibp_affine_reference(
    lower: Tensor, upper: Tensor, weight: Tensor, bias: Tensor, geometry: list[int], relu: bool, leak: float
) -> tuple[Tensor, Tensor]:
    """Bounds of W v + b for v in the box: centre W c + b, radius |W| r.

    Args:
        lower, upper: the box, [P, B, in] or [1, B, in] shared by all members.
        weight: [P, Cout, Cin, kh, kw].
        bias: [P, Cout].
        geometry: the layer, encoded.
        relu: whether an activation is applied to both ends of the box first.
        leak: its slope in [0, 1] below zero; 0 is a ReLU.

    Returns:
        lower, upper [P, B, out]; with an activation, NaN where an infinite bound is read.
    """
    (layer,) = decode(geometry)
    if relu:
        lower, upper = interval.activation(lower, upper, leak)
    lower, upper = (t.expand(weight.shape[0], -1, -1) for t in (lower, upper))
    center = affine.forward(interval.center(lower, upper), weight, layer) + affine.per_unit(bias, layer)[:, None]
    radius = affine.forward(interval.radius(lower, upper), weight.abs(), layer)
    return interval.sound(center - radius, center + radius)


def _fake(
    lower: Tensor, upper: Tensor, weight: Tensor, bias: Tensor, geometry: list[int], relu: bool, leak: float
) -> tuple[Tensor, Tensor]:
    shape = (weight.shape[0], lower.shape[1], Geometry(*geometry).out_features)
    return lower.new_empty(shape), lower.new_empty(shape)


ibp_affine = Op(
    "ibp_affine",
    "(Tensor lower, Tensor upper, Tensor weight, Tensor bias, int[] geometry, bool relu, float leak, str backend)"
    " -> (Tensor, Tensor)",
    ibp_affine_reference,
    _fake,
    checks.ibp_affine,
)
