"""The shape of one affine layer, as every op and kernel sees it."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Geometry(NamedTuple):
    """A 2-D convolution (dilation 1, groups 1), or a linear layer written as a 1x1 convolution of a 1x1 image.

    ``relu`` says whether a ReLU follows. Units (neurons) are numbered in C, H, W order.
    """

    in_channels: int
    in_height: int
    in_width: int
    out_channels: int
    out_height: int
    out_width: int
    kernel_height: int
    kernel_width: int
    stride_height: int
    stride_width: int
    pad_height: int
    pad_width: int
    relu: int

    @property
    def in_features(self) -> int:
        return self.in_channels * self.in_height * self.in_width

    @property
    def out_features(self) -> int:
        return self.out_channels * self.out_height * self.out_width

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return (self.out_channels, self.in_channels, self.kernel_height, self.kernel_width)

    @property
    def is_linear(self) -> bool:
        """Whether this is a plain matrix: one input pixel, one output pixel, no padding in play."""
        one = self.in_height == self.in_width == self.kernel_height == self.kernel_width == 1
        return one and self.out_height == self.out_width == 1 and self.pad_height == self.pad_width == 0


def linear(in_features: int, out_features: int, relu: bool) -> Geometry:
    """The geometry of ``nn.Linear(in_features, out_features)``."""
    return Geometry(in_features, 1, 1, out_features, 1, 1, 1, 1, 1, 1, 0, 0, int(relu))


def encode(layers: Iterable[Geometry]) -> list[int]:
    """Layers as the flat ``int[]`` that an op's schema carries."""
    return [value for layer in layers for value in layer]


def decode(values: Sequence[int]) -> list[Geometry]:
    """Inverse of :func:`encode`. Raises ValueError when the length is not a whole number of layers."""
    width = len(Geometry._fields)
    if len(values) % width or not values:
        raise ValueError(f"geometry: {len(values)} integers are not a whole number of layers of {width}")
    return [Geometry(*values[i : i + width]) for i in range(0, len(values), width)]
