"""Upper bounds of the spectral norm of affine layers, rounding included."""

import math

from torch import Tensor

from glsk.geometry import Geometry

_SQUARINGS = 4


def spectral(weight: Tensor, layer: Geometry) -> float:
    """Above the greatest ||W v||_2 / ||v||_2 of a layer with weight [Cout, Cin, kh, kw], float64.

    A convolution multiplies patches, and every input lies in at most ceil(kh / sh) ceil(kw / sw) of them: its norm is
    at most the square root of that times the norm of the matrix [Cout, Cin kh kw].
    """
    overlap = math.ceil(layer.kernel_height / layer.stride_height) * math.ceil(layer.kernel_width / layer.stride_width)
    return math.sqrt(overlap) * _norm(weight.flatten(1)) * (1 + 2.0**-30)


def _norm(matrix: Tensor) -> float:
    """Above the greatest singular value s, and above that of products W v as they are rounded.

    s^2 is that of W W^T, which is symmetric. That of a symmetric M is the root of that of M^2, and at most M's
    Frobenius norm.
    """
    scale = 2.0 ** math.floor(math.log2(max(float(matrix.abs().max()), 2.0**-900)))
    scaled = matrix / scale
    short = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
    # A sum of n products is off by less than n 2^-52 of their magnitudes; those of a product of matrices have at most
    # the Frobenius norm of the one times that of the other.
    step = (max(matrix.shape) + 16) * 2.0**-52
    product, errors = short, []
    for _ in range(1 + _SQUARINGS):
        errors.append(2 * step * float((product * product).sum()))
        product = product @ product.T
        product = (product + product.T) / 2
    found = float(product.square().sum().sqrt()) * (1 + 2.0**-30)
    for error in reversed(errors):
        found = math.sqrt(found + error) * (1 + 2.0**-30)
    rounded = 2 * step * float(short.square().sum().sqrt())
    return (found + rounded) * scale + 2.0**-800
