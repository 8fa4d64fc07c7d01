"""An ``nn.Module`` becomes a validated :class:`Chain` of affine layers and ReLUs; all else is refused here, by name."""

import math
import numbers
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from glsk import geometry
from glsk.arguments import describe, is_lazy, is_number
from glsk.errors import UnsupportedLayerError
from glsk.fingerprint import DROPOUTS, has_global_hooks, is_altered
from glsk.geometry import Geometry
from glsk.input_shape import read_input_shape
from glsk.layers import Normalize

SUPPORTED = (
    "Conv2d (any stride and zero padding, dilation 1, groups 1), AvgPool2d, Linear, ReLU, LeakyReLU, Flatten, "
    "Identity, Dropout in eval mode, glsk.Normalize as the first layer, and BatchNorm1d/2d in eval mode right after a "
    "Linear/Conv2d, inside nn.Sequential"
)


@dataclass(frozen=True)
class BatchNorm:
    """A BatchNorm in eval mode: its module, and the names of its parameters and running statistics."""

    module: nn.BatchNorm1d | nn.BatchNorm2d
    mean: str
    var: str
    weight: str | None
    bias: str | None


@dataclass(frozen=True)
class Affine:
    """One affine layer of a chain: its module path, parameter names, shape, and what was folded into it.

    ``weight`` is None for a layer without parameters, an average pool: every window's weights are then ``1 / divisor``.
    ``leak`` is the slope below zero of the activation that follows, 0 for a ReLU.
    """

    name: str
    geometry: Geometry
    weight: str | None
    bias: str | None
    batch_norm: BatchNorm | None = None
    divisor: int = 1
    leak: float = 0.0


@dataclass(frozen=True, repr=False)
class Chain:
    """A ReLU network as the bounds see it.

    Attributes:
        input_shape: the shape of one sample.
        normalize: the leading normalisation, or None.
        layers: the affine layers in order; the last one gives the logits.
        parameter_shapes: name -> shape in ``module.parameters()`` order, which is the order of a flat member.
        buffer_shapes: name -> shape of every buffer.
        normalize_names: the names of the normalisation's mean and std among the buffers; none without it.
    """

    input_shape: tuple[int, ...]
    normalize: Normalize | None
    layers: tuple[Affine, ...]
    parameter_shapes: dict[str, tuple[int, ...]]
    buffer_shapes: dict[str, tuple[int, ...]]
    normalize_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        from glsk.description import describe_chain  # which is about chains

        return f"Chain({describe_chain(self)}\n)"

    @property
    def geometry(self) -> tuple[Geometry, ...]:
        return tuple(layer.geometry for layer in self.layers)

    @property
    def leaks(self) -> tuple[float, ...]:
        """The slope below zero of the activation after each layer."""
        return tuple(layer.leak for layer in self.layers)

    @property
    def num_outputs(self) -> int:
        return self.layers[-1].geometry.out_features


def build_chain(net: nn.Module, input_shape: tuple[int, ...]) -> Chain:
    """Validate ``net`` for inputs of ``input_shape`` and return its chain.

    Raises:
        UnsupportedLayerError: naming the layer's path, its type and what is supported.
        ValueError: if a layer does not fit the shape that reaches it.
    """
    if has_global_hooks():
        raise UnsupportedLayerError(
            "torch.nn has global forward hooks, which may change what every layer computes; remove them"
        )
    leaves = list(_leaves(net, ""))
    for path, module in leaves:
        if any(is_lazy(p) for p in module.parameters()):
            raise UnsupportedLayerError(
                f"layer {path!r} ({type(module).__name__}): it is not initialised yet; run a batch through the network"
            )
    builder = _Builder(net, read_input_shape(input_shape))
    for path, module in leaves:
        builder.add(path, module)
    return builder.finish()


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if not _is_plain_sequential(module):
        yield path, module
        return
    _refuse_altered(path, module)
    for name, child in module._modules.items():  # named_children would skip a layer object used twice
        inner = f"{path}.{name}" if path else name
        if child is None:
            raise UnsupportedLayerError(f"layer {inner!r}: it is None; put nn.Identity there, or delete it")
        yield from _leaves(child, inner)


def _is_plain_sequential(module: nn.Module) -> bool:
    kind = type(module)
    return isinstance(module, nn.Sequential) and all(
        getattr(kind, name) is getattr(nn.Sequential, name) for name in ("forward", "__call__", "__iter__")
    )


def _refuse_altered(path: str, module: nn.Module) -> None:
    if is_altered(module):
        raise UnsupportedLayerError(
            f"layer {path!r} ({type(module).__name__}): it has forward hooks or a replaced forward, which may change "
            "what it computes; remove them, or bound a copy without them"
        )


class _Builder:
    """Walks the layers in order, carrying the shape that reaches the next one."""

    def __init__(self, net: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.input_shape = self.shape = input_shape
        self.parameters = {name: tuple(p.shape) for name, p in net.named_parameters()}
        self.buffers = {name: tuple(b.shape) for name, b in net.named_buffers()}
        self.names = {id(t): name for name, t in (*net.named_parameters(), *net.named_buffers())}
        self.layers: list[Affine] = []
        self.normalize: Normalize | None = None
        self.previous: nn.Module | None = None

    def add(self, path: str, module: nn.Module) -> None:
        handlers: dict[type[nn.Module], Any] = {
            Normalize: self._normalize,
            nn.Conv2d: self._conv,
            nn.Linear: self._linear,
            nn.AvgPool2d: self._average_pool,
            nn.ReLU: self._relu,
            nn.LeakyReLU: self._relu,
            nn.Flatten: self._flatten,
            nn.BatchNorm1d: self._batch_norm,
            nn.BatchNorm2d: self._batch_norm,
            nn.Identity: None,
            **dict.fromkeys(DROPOUTS),
        }
        if type(module) not in handlers:
            raise self._refuse(path, module, "this layer type is not supported")
        handler = handlers[type(module)]
        if handler is not None:
            handler(path, module)
            self.previous = module
        elif isinstance(module, DROPOUTS) and module.training:
            raise self._refuse(path, module, "it must be in eval mode (call net.eval())")
        _refuse_altered(path, module)

    def finish(self) -> Chain:
        if not self.layers:
            raise UnsupportedLayerError(f"the network has no affine layer; supported: {SUPPORTED}")
        if all(layer.weight is None for layer in self.layers):
            raise UnsupportedLayerError(f"the network has no layer with parameters; supported: {SUPPORTED}")
        if self.layers[-1].geometry.relu:
            raise UnsupportedLayerError(
                f"layer {self.layers[-1].name!r}: the network must end in an affine layer, not in a ReLU; bound the "
                "network without it and apply the ReLU to both bounds"
            )
        first = self.normalize
        names = () if first is None else tuple(self.names[id(b)] for b in (first.mean, first.std))
        return Chain(self.input_shape, first, tuple(self.layers), self.parameters, self.buffers, names)

    def _refuse(self, path: str, module: nn.Module, why: str) -> UnsupportedLayerError:
        return UnsupportedLayerError(f"layer {path!r} ({type(module).__name__}): {why}; supported: {SUPPORTED}")

    def _misfit(self, path: str, module: nn.Module, why: str) -> ValueError:
        return ValueError(f"layer {path!r} ({type(module).__name__}): {why}")

    def _name(self, tensor: Tensor | None) -> str | None:
        return None if tensor is None else self.names[id(tensor)]

    def _normalize(self, path: str, module: Normalize) -> None:
        if self.previous is not None:
            raise self._refuse(path, module, "Normalize must be the first layer")
        channels = self.shape[0] if len(self.shape) == 3 else 1
        for values in (module.mean, module.std):
            if values.dim() != 1 or values.numel() not in (1, channels):
                raise self._misfit(path, module, f"{values.numel()} channels, the input has {channels}")
        self.normalize = module

    def _conv(self, path: str, module: nn.Conv2d) -> None:
        if not isinstance(module.weight, Tensor) or module.weight.dim() != 4:
            raise self._misfit(path, module, f"weight: expected 4 axes, got {describe(module.weight)}")
        if _pair(module.dilation, 1) != (1, 1) or module.groups != 1 or module.padding_mode != "zeros":
            given = (describe(value) for value in (module.dilation, module.groups, module.padding_mode))
            raise self._refuse(path, module, "dilation {}, groups {}, padding_mode {}".format(*given))
        outputs, inputs, *kernel = module.weight.shape  # what the forward reads; in_channels and the like it does not
        if len(self.shape) != 3 or self.shape[0] != inputs:
            raise self._misfit(path, module, f"expects [{inputs}, H, W], is given {list(self.shape)}")
        stride, padding = self._stride(path, module), self._padding(path, module)
        size = [(self.shape[i + 1] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1)]
        if min(size) < 1 or min(outputs, *kernel) < 1:
            raise self._misfit(path, module, f"kernel {tuple(kernel)} exceeds the padded input {list(self.shape)}")
        channels, height, width = self.shape
        self.shape = (outputs, size[0], size[1])
        shape = (channels, height, width, *self.shape, *kernel, *stride, *padding, 0)
        self._affine(path, module, Geometry._make(shape))

    def _stride(self, path: str, module: nn.Conv2d) -> tuple[int, int]:
        stride = _pair(module.stride, 1)
        if stride is None:
            raise self._misfit(path, module, f"stride: expected whole numbers >= 1, got {describe(module.stride)}")
        return stride

    def _padding(self, path: str, module: nn.Conv2d) -> tuple[int, int]:
        if module.padding == "valid":
            return (0, 0)
        if module.padding == "same":
            kernel = module.weight.shape[2:]
            if any(k % 2 == 0 for k in kernel):
                raise self._refuse(path, module, "padding='same' with an even kernel pads unevenly")
            if _pair(module.stride, 1) != (1, 1):
                raise self._misfit(path, module, "padding='same' needs stride 1")
            return (kernel[0] // 2, kernel[1] // 2)
        padding = _pair(module.padding, 0)
        if padding is None:
            raise self._misfit(path, module, f"padding: expected whole numbers >= 0, got {describe(module.padding)}")
        return padding

    def _linear(self, path: str, module: nn.Linear) -> None:
        if not isinstance(module.weight, Tensor) or module.weight.dim() != 2 or module.weight.shape[0] < 1:
            raise self._misfit(path, module, f"weight: expected [outputs, inputs], got {describe(module.weight)}")
        outputs, inputs = module.weight.shape
        if len(self.shape) != 1 or self.shape[0] != inputs:
            hint = "; put nn.Flatten before it" if len(self.shape) == 3 else ""
            raise self._misfit(path, module, f"expects [{inputs}], is given {list(self.shape)}{hint}")
        self.shape = (outputs,)
        self._affine(path, module, geometry.linear(inputs, outputs, relu=False))

    def _affine(self, path: str, module: nn.Conv2d | nn.Linear, shape: Geometry) -> None:
        if any(p is not None and self.names.get(id(p)) not in self.parameters for p in (module.weight, module.bias)):
            raise self._refuse(path, module, "its weight is computed from others (weight_norm, spectral_norm)")
        if module.bias is not None and tuple(module.bias.shape) != (shape.out_channels,):
            raise self._misfit(
                path, module, f"bias: expected [{shape.out_channels}] as its weight has, got {list(module.bias.shape)}"
            )
        weight = self._name(module.weight)
        assert weight is not None
        self.layers.append(Affine(path, shape, weight, self._name(module.bias)))

    def _average_pool(self, path: str, module: nn.AvgPool2d) -> None:
        kernel, padding = _pair(module.kernel_size, 1), _pair(module.padding, 0)
        stride = kernel if module.stride is None else _pair(module.stride, 1)
        if kernel is None or padding is None or stride is None:
            raise self._misfit(path, module, "kernel_size, stride and padding: expected whole numbers")
        override: object = module.divisor_override
        divisor = kernel[0] * kernel[1] if override is None else override
        if isinstance(divisor, bool) or not isinstance(divisor, numbers.Integral) or divisor < 1:
            raise self._misfit(path, module, f"divisor_override: expected a whole number >= 1, got {describe(divisor)}")
        if module.ceil_mode or (padding != (0, 0) and not module.count_include_pad):
            raise self._refuse(path, module, "only ceil_mode=False, and with padding count_include_pad=True")
        if len(self.shape) != 3:
            raise self._misfit(path, module, f"expects [C, H, W], is given {list(self.shape)}")
        channels, height, width = self.shape
        size = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip((height, width), kernel, stride, padding, strict=True)]
        if min(size) < 1 or any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
            raise self._misfit(path, module, f"kernel {kernel} does not fit the padded input {list(self.shape)}")
        shape = (*self.shape, channels, *size, *kernel, *stride, *padding, 0)
        self.shape = (channels, size[0], size[1])
        self.layers.append(Affine(path, Geometry._make(shape), None, None, divisor=int(divisor)))

    def _relu(self, path: str, module: nn.ReLU | nn.LeakyReLU) -> None:
        if not self.layers:
            raise self._refuse(path, module, "a ReLU must follow an affine layer")
        slope = module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0
        if not is_number(slope) or not 0 <= slope <= 1:
            raise self._refuse(path, module, f"negative_slope must lie in [0, 1], it is {describe(slope)}")
        last = self.layers[-1]
        before = last.leak if last.geometry.relu else 1.0  # one activation after another: slopes multiply
        self.layers[-1] = replace(last, geometry=last.geometry._replace(relu=1), leak=before * float(slope))

    def _flatten(self, path: str, module: nn.Flatten) -> None:
        if module.start_dim != 1 or module.end_dim not in (-1, len(self.shape)):
            raise self._refuse(path, module, "only Flatten(start_dim=1, end_dim=-1)")
        self.shape = (math.prod(self.shape),)

    def _batch_norm(self, path: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        wanted = nn.Conv2d if isinstance(module, nn.BatchNorm2d) else nn.Linear
        if not isinstance(self.previous, wanted):
            raise self._refuse(path, module, f"it must come right after a {wanted.__name__}")
        mean, var = self._name(module.running_mean), self._name(module.running_var)
        if module.training or mean is None or var is None:
            raise self._refuse(path, module, "it must be in eval mode with running statistics (call net.eval())")
        if not is_number(module.eps) or not 0 <= module.eps < math.inf:
            raise self._misfit(path, module, f"eps: expected a number >= 0, got {describe(module.eps)}")
        for values in (module.running_mean, module.running_var, module.weight, module.bias):
            if values is not None and tuple(values.shape) != (self.shape[0],):
                size = values.shape[0] if values.dim() == 1 else list(values.shape)
                raise ValueError(f"layer {path!r}: {size} features, is given {list(self.shape)}")
        norm = BatchNorm(module, mean, var, self._name(module.weight), self._name(module.bias))
        self.layers[-1] = replace(self.layers[-1], batch_norm=norm)


def _pair(value: object, least: int) -> tuple[int, int] | None:
    """A size for both axes as PyTorch reads it (one number serves both), or None if it is none."""
    given = (value,) if isinstance(value, numbers.Integral) else value
    if not isinstance(given, tuple | list) or len(given) not in (1, 2):
        return None
    if any(isinstance(n, bool) or not isinstance(n, numbers.Integral) or n < least for n in given):
        return None
    return int(given[0]), int(given[-1])
