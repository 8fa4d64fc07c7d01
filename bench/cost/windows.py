"""Which units of a layer a window of the layer above reads, and how many multiply-adds lie between them."""

from collections.abc import Sequence

from glsk.geometry import Geometry

Window = tuple[range, range]
"""Rows and columns."""


def whole(layer: Geometry) -> Window:
    """All of a layer's outputs."""
    return range(layer.out_height), range(layer.out_width)


def below(layer: Geometry, window: Window) -> Window:
    """The inputs that a window of outputs reads."""

    def axis(out: range, stride: int, pad: int, kernel: int, size: int) -> range:
        return range(max(0, out.start * stride - pad), min(size, (out.stop - 1) * stride - pad + kernel))

    y, x = window
    return (
        axis(y, layer.stride_height, layer.pad_height, layer.kernel_height, layer.in_height),
        axis(x, layer.stride_width, layer.pad_width, layer.kernel_width, layer.in_width),
    )


def taps(layer: Geometry, window: Window, down: Window) -> int:
    """Pairs of an output in ``window`` and an input it reads."""

    def axis(out: range, inside: range, stride: int, pad: int, kernel: int) -> int:
        return sum(o * stride - pad + tap in inside for o in out for tap in range(kernel))

    return axis(window[0], down[0], layer.stride_height, layer.pad_height, layer.kernel_height) * axis(
        window[1], down[1], layer.stride_width, layer.pad_width, layer.kernel_width
    )


def units(window: Window) -> int:
    return len(window[0]) * len(window[1])


def of_row(layers: Sequence[Geometry], from_C: bool, y: int, x: int) -> tuple[int, list[int]]:
    """Multiply-adds of one one-sided row at pixel (y, x), and the units of each layer below that it reaches, downwards.

    Without ``from_C`` the row's first coefficients are weights of the last layer, one multiply-add each (the bias's);
    with it the last layer is linear and has one pixel.
    """
    window: Window = range(y, y + 1), range(x, x + 1)
    macs, reached = 0, []
    for k in range(len(layers) - 1, -1, -1):
        layer, down = layers[k], below(layers[k], window)
        own = k == len(layers) - 1 and not from_C
        macs += taps(layer, window, down) * layer.in_channels * (1 if own else layer.out_channels)
        reached.append(units(down) * layer.in_channels)
        window = down
        if k and layers[k - 1].out_channels != layer.in_channels:  # beneath a linear layer: the whole image
            window = whole(layers[k - 1])
    return macs, reached


def useful(layers: Sequence[Geometry], rows: int | None) -> int:
    """Multiply-adds of a pass: both sides of the last layer's outputs, or the lower bounds of ``rows`` rows of C."""
    if rows is not None:
        return rows * of_row(layers, True, 0, 0)[0]
    last = layers[-1]
    positions = [(y, x) for y in range(last.out_height) for x in range(last.out_width)]
    return 2 * last.out_channels * sum(of_row(layers, False, y, x)[0] for y, x in positions)
