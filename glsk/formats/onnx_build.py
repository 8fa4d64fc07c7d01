"""An ``nn.Sequential`` grows layer by layer from the operators of a chain."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glsk.formats.onnx_graph import Node
from glsk.layers import Normalize

Floats = NDArray[np.float64]
_AFFINE = (nn.Linear, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)


class Builder:
    """The layers so far, and where the values of the graph's current tensor are among their outputs.

    Attributes:
        layers: of the network, float64.
        shape: of one sample of their outputs; None until the first layer decides how the input is laid out.
        order: [n] which values of the file's input the network takes, in its order.
        where: positions of the current tensor's values in a flat sample of the layers' outputs (before the first layer,
            of the file's input). Reshapes and transposes move only these.
        input_shape: of one sample of the network, with ``shape``.
        padding: zeros above, left, below and right of the current image, which a convolution is to take over.
        scale, shift: [n] the current values are ``scale * outputs + shift``, which is still to be folded into a layer.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.layers: list[nn.Module] = []
        self.file_shape = shape
        self.shape: tuple[int, ...] | None = None
        self.input_shape: tuple[int, ...] = ()
        self.order = np.arange(math.prod(shape))
        self.padding = (0, 0, 0, 0)
        self._view(shape)

    def _view(self, shape: tuple[int, ...]) -> None:
        """The current tensor is the layers' outputs, in ``shape``."""
        size = math.prod(shape)
        self.where = np.arange(size).reshape(shape)
        self.scale, self.shift = np.ones(size), np.zeros(size)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is left to be folded."""
        return bool((self.scale == 1.0).all() and (self.shift == 0.0).all())

    @property
    def is_in_order(self) -> bool:
        """Whether the current tensor's values lie as the layers' outputs do."""
        return bool((self.where.reshape(-1) == np.arange(self.where.size)).all())

    def elementwise(self, node: Node, factor: Floats, term: Floats) -> None:
        """The current tensor v becomes factor·v + term; both broadcast to it."""
        try:
            parts = [np.broadcast_to(part, self.where.shape).reshape(-1) for part in (factor, term)]
        except ValueError:
            raise node.refuse(f"its constant does not broadcast to {list(self.where.shape)}") from None
        if not all(np.isfinite(part).all() for part in parts):
            raise node.refuse("its constant holds NaN or infinity, or divides by zero")
        at = np.empty((2, self.where.size))
        at[:, self.where.reshape(-1)] = parts
        if self.layers and type(self.layers[-1]) in _AFFINE and self.is_plain and self._into_last(*at):
            return
        self.scale, self.shift = at[0] * self.scale, at[0] * self.shift + at[1]

    def _into_last(self, factor: Floats, term: Floats) -> bool:
        """Fold into the layer before; False if they differ within a channel of it."""
        assert self.shape is not None
        a, b = (_by_channel(part, self.shape) for part in (factor, term))
        if a is None or b is None:
            return False
        last = self.layers[-1]
        assert isinstance(last.weight, Tensor)
        assert isinstance(last.bias, Tensor)
        with torch.no_grad():
            last.weight.mul_(a.reshape(-1, *(1,) * (last.weight.dim() - 1)))
            last.bias.mul_(a).add_(b)
        return True

    def linear(self, node: Node, weight: Floats, bias: Floats | None) -> None:
        """v -> weight [m, k] v + bias [m], over the last axis, the only one that may be larger than 1."""
        *leading, size = self.where.shape
        if math.prod(leading) != 1 or size != weight.shape[1]:
            raise node.refuse(f"takes {weight.shape[1]} values in one row, is given {list(self.where.shape)}")
        if self.shape is None:
            is_image = len(self.file_shape) == 4 and self.file_shape[0] == 1 and self.is_in_order
            self._lay_out(self.file_shape[1:] if is_image else (size,))
        W = np.empty_like(weight)
        W[:, self.where.reshape(-1)] = weight
        if self.shape is not None and len(self.shape) == 3:
            self.layers.append(nn.Flatten())
        layer = nn.Linear(size, len(W), dtype=torch.float64)
        self._affine(layer, W * self.scale, W @ self.shift, bias)
        self.shape = (len(W),)
        self._view((*leading, len(W)))

    def conv(
        self, node: Node, weight: Floats, bias: Floats | None, stride: tuple[int, int], padding: tuple[int, int]
    ) -> None:
        """A convolution of weight [O, C, h, w] with symmetric zero padding."""
        channels, _, _ = self._image(node, weight.shape[1])
        shift = self.shift.reshape(channels, -1)
        if not (_is_flat(shift) and _is_flat(self.scale.reshape(channels, -1))):
            raise node.refuse("constants before it differ within a channel")
        if shift.any() and any(padding):
            raise node.refuse("a constant is added before its zero padding; only to the network's input, by channel")
        scale, added = self.scale.reshape(channels, -1)[:, 0], weight.sum((2, 3)) @ shift[:, 0]
        kernel = (weight.shape[2], weight.shape[3])
        layer = nn.Conv2d(channels, len(weight), kernel, stride, padding, dtype=torch.float64)
        self._affine(layer, weight * scale[:, None, None], added, bias)
        self._spatial(node, len(weight), kernel, stride, padding)

    def average_pool(
        self, node: Node, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> None:
        """An average over windows, of which padding counts as zeros."""
        channels, _, _ = self._image(node, None)
        if not self.is_plain:
            raise node.refuse("constants before it cannot be folded")
        self.layers.append(nn.AvgPool2d(kernel, stride, padding))
        self._spatial(node, channels, kernel, stride, padding)

    def batch_norm(self, node: Node, scale: Floats, bias: Floats, mean: Floats, var: Floats, eps: float) -> None:
        """A BatchNorm over axis 1, as a layer of its own right after an affine one, else as constants."""
        channels = self.where.shape[1] if self.where.ndim > 1 else 0
        if any(part.shape != (channels,) for part in (scale, bias, mean, var)) or not (var + eps > 0).all():
            raise node.refuse(f"its constants do not fit {list(self.where.shape)}, or a variance is not positive")
        last = type(self.layers[-1]) if self.layers else None
        if last in (nn.Linear, nn.Conv2d) and self.is_plain and self.is_in_order and self.shape == self.where.shape[1:]:
            kind = nn.BatchNorm1d if last is nn.Linear else nn.BatchNorm2d
            layer = kind(channels, eps, dtype=torch.float64)
            parts = {"weight": scale, "bias": bias, "running_mean": mean, "running_var": var}
            layer.load_state_dict({name: torch.tensor(part) for name, part in parts.items()}, strict=False)
            self.layers.append(layer)
            return
        axes = (slice(None), *(None,) * (self.where.ndim - 2))
        factor = scale / np.sqrt(var + eps)
        self.elementwise(node, factor[axes], (bias - mean * factor)[axes])

    def activation(self, node: Node, layer: nn.Module) -> None:
        """A ReLU or LeakyReLU."""
        if not self.is_plain:
            raise node.refuse("constants before it cannot be folded into a layer")
        if not self.layers:
            raise node.refuse("comes before any affine layer")
        self.layers.append(layer)

    def finish(self) -> nn.Sequential:
        """The network in eval mode, whose outputs are flat and in the file's order. Raises ValueError."""
        if self.shape is None:
            raise ValueError("it has no affine layer")
        last = self.layers[-1]
        if not self.is_plain:
            raise ValueError("the constants after its last layer cannot be folded into a layer")
        if not self.is_in_order:
            if not isinstance(last, nn.Linear):
                raise ValueError("its outputs are transposed after the last layer")
            with torch.no_grad():
                for part in last.parameters():
                    part.copy_(part[torch.from_numpy(self.where.reshape(-1))])
        if len(self.shape) == 3:
            self.layers.append(nn.Flatten())
        return nn.Sequential(*self.layers).eval()

    def _lay_out(self, shape: tuple[int, ...]) -> None:
        """The network's input has this shape, and lies as the current tensor does; its constants are a Normalize."""
        self.shape = self.input_shape = shape
        self.order = self.where.reshape(-1)
        constants = self.scale[self.order], self.shift[self.order]
        self._view(self.where.shape)
        channels = shape[0] if len(shape) == 3 else 1
        scale, shift = (part.reshape(channels, -1) for part in constants)
        if not (_is_flat(scale) and _is_flat(shift) and (scale > 0).all()):
            self.scale, self.shift = constants  # into the first layer, if that can take them
            return
        if (scale == 1.0).all() and (shift == 0.0).all():
            return
        layer = Normalize([0.0] * channels, [1.0] * channels).double()
        layer.mean.copy_(torch.from_numpy(-shift[:, 0] / scale[:, 0]))
        layer.std.copy_(torch.from_numpy(1.0 / scale[:, 0]))
        self.layers.append(layer)

    def _affine(self, layer: nn.Linear | nn.Conv2d, weight: Floats, added: Floats, bias: Floats | None) -> None:
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight))
            assert layer.bias is not None
            layer.bias.copy_(torch.from_numpy(added if bias is None else added + bias))
        self.layers.append(layer)

    def _image(self, node: Node, channels: int | None) -> tuple[int, int, int]:
        """The current tensor's (C, H, W), in which the layers' outputs must lie too."""
        shape = self.where.shape
        if len(shape) != 4 or shape[0] != 1 or channels not in (None, shape[1]):
            raise node.refuse(f"takes [1, {channels or 'C'}, H, W], is given {list(shape)}")
        if self.shape is None:
            self._lay_out(shape[1:])
        if self.shape != shape[1:] or not self.is_in_order:
            raise node.refuse("reshapes or transposes before it are supported only at the network's input")
        return shape[1], shape[2], shape[3]

    def _spatial(
        self, node: Node, channels: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
    ) -> None:
        sizes = zip(self.where.shape[2:], kernel, stride, padding, strict=True)
        height, width = ((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
        if min(height, width) < 1:
            raise node.refuse(f"its kernel {kernel} exceeds the padded input {list(self.where.shape)}")
        self.shape = (channels, height, width)
        self._view((1, channels, height, width))


def _is_flat(values: Floats) -> bool:
    """Whether values [channels, positions] are the same at every position."""
    return bool((values == values[:, :1]).all())


def _by_channel(values: Floats, shape: tuple[int, ...]) -> Tensor | None:
    """One value a channel of outputs of ``shape``, or None if they differ within one."""
    table = values.reshape(shape[0], -1)
    return torch.from_numpy(table[:, 0].copy()) if _is_flat(table) else None
