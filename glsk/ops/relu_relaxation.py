"""The DeepPoly relaxation of a ReLU: two lines around max(v, 0) on [lower, upper] (paper, §2.2, Fig. 3)."""

from torch import Tensor

from glsk import lines
from glsk.ops import checks
from glsk.ops.registry import Op


def relu_relaxation_reference(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slopes and intercept of ``lower_slope * v <= ReLU(v) <= upper_slope * v + intercept`` for lower <= v <= upper.

    Args:
        lower, upper: pre-activation bounds, any shape, lower <= upper.

    Returns:
        lower_slope (1 where upper > -lower, else 0), upper_slope (u / (u - l)), intercept (-l u / (u - l)), of the same
        shape; a stable ReLU is the identity or zero. NaN where a bound is not finite.
    """
    lower_slope, _, upper_slope, intercept = lines.adaptive(lower, upper).unbind(-2)
    return lower_slope, upper_slope, intercept


relu_relaxation = Op(
    "relu_relaxation",
    "(Tensor lower, Tensor upper, str backend) -> (Tensor, Tensor, Tensor)",
    relu_relaxation_reference,
    lambda lower, upper: (lower.new_empty(lower.shape), lower.new_empty(lower.shape), lower.new_empty(lower.shape)),
    checks.same_shape("relu_relaxation", "lower", "upper"),
)
