"""An ``nn.Module`` becomes a validated :class:`Chain` of affine layers and ReLUs; all else is refused here, by name."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor, nn

from glsk import geometry
from glsk.errors import UnsupportedLayerError
from glsk.geometry import Geometry
from glsk.layers import Normalize

SUPPORTED = (
    "Conv2d (any stride and zero padding, dilation 1, groups 1), AvgPool2d, Linear, ReLU, LeakyReLU, Flatten, glsk.Normalize as the first "
    "layer, and BatchNorm1d/2d in eval mode right after a Linear/Conv2d, inside nn.Sequential"
)


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
    batch_norm: nn.BatchNorm1d | nn.BatchNorm2d | None = None
    batch_norm_weight: str | None = None
    batch_norm_bias: str | None = None
    divisor: int = 1
    leak: float = 0.0


@dataclass(frozen=True)
class Chain:
    """A ReLU network as the bounds see it.

    Attributes:
        input_shape: the shape of one sample.
        normalize: the leading normalisation, or None.
        layers: the affine layers in order; the last one gives the logits.
        parameter_shapes: name -> shape in ``module.parameters()`` order, which is the order of a flat member.
    """

    input_shape: tuple[int, ...]
    normalize: Normalize | None
    layers: tuple[Affine, ...]
    parameter_shapes: dict[str, tuple[int, ...]]

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
    if not input_shape or any(not isinstance(n, int) or n < 1 for n in input_shape) or len(input_shape) not in (1, 3):
        raise ValueError(f"input_shape must be (features,) or (channels, height, width), got {tuple(input_shape)}")
    builder = _Builder(net, tuple(input_shape))
    for path, module in _leaves(net, ""):
        builder.add(path, module)
    return builder.finish()


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        _refuse_hooks(path, module)
        for name, child in module._modules.items():  # named_children would skip a layer object used twice
            assert child is not None
            yield from _leaves(child, f"{path}.{name}" if path else name)
    else:
        yield path, module


def _refuse_hooks(path: str, module: nn.Module) -> None:
    if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        raise UnsupportedLayerError(
            f"layer {path!r} ({type(module).__name__}): it has forward hooks or a replaced forward, which may change "
            "what it computes; remove them, or bound a copy without them"
        )


class _Builder:
    """Walks the layers in order, carrying the shape that reaches the next one."""

    def __init__(self, net: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.input_shape = self.shape = input_shape
        self.parameters = {name: tuple(p.shape) for name, p in net.named_parameters()}
        self.names = {id(p): name for name, p in net.named_parameters()}
        self.layers: list[Affine] = []
        self.normalize: Normalize | None = None
        self.previous: nn.Module | None = None

    def add(self, path: str, module: nn.Module) -> None:
        handlers = {
            Normalize: self._normalize,
            nn.Conv2d: self._conv,
            nn.Linear: self._linear,
            nn.AvgPool2d: self._average_pool,
            nn.ReLU: self._relu,
            nn.LeakyReLU: self._relu,
            nn.Flatten: self._flatten,
            nn.BatchNorm1d: self._batch_norm,
            nn.BatchNorm2d: self._batch_norm,
        }
        handler = handlers.get(type(module))
        if handler is None:
            raise self._refuse(path, module, "this layer type is not supported")
        handler(path, module)  # type: ignore[operator]
        _refuse_hooks(path, module)
        self.previous = module

    def finish(self) -> Chain:
        if not self.layers:
            raise UnsupportedLayerError(f"the network has no affine layer; supported: {SUPPORTED}")
        if self.layers[-1].geometry.relu:
            raise UnsupportedLayerError(
                f"layer {self.layers[-1].name!r}: the network must end in an affine layer, not in a ReLU; bound the "
                "network without it and apply the ReLU to both bounds"
            )
        return Chain(self.input_shape, self.normalize, tuple(self.layers), self.parameters)

    def _refuse(self, path: str, module: nn.Module, why: str) -> UnsupportedLayerError:
        return UnsupportedLayerError(f"layer {path!r} ({type(module).__name__}): {why}; supported: {SUPPORTED}")

    def _name(self, parameter: Tensor | None) -> str | None:
        return None if parameter is None else self.names[id(parameter)]

    def _normalize(self, path: str, module: Normalize) -> None:
        if self.previous is not None:
            raise self._refuse(path, module, "Normalize must be the first layer")
        channels = self.shape[0] if len(self.shape) == 3 else 1
        if module.mean.numel() not in (1, channels):
            raise ValueError(f"layer {path!r} (Normalize): {module.mean.numel()} channels, the input has {channels}")
        self.normalize = module

    def _conv(self, path: str, module: nn.Conv2d) -> None:
        if module.dilation != (1, 1) or module.groups != 1 or module.padding_mode != "zeros":
            why = f"dilation {module.dilation}, groups {module.groups}, padding_mode {module.padding_mode!r}"
            raise self._refuse(path, module, why)
        if len(self.shape) != 3 or self.shape[0] != module.in_channels:
            raise ValueError(
                f"layer {path!r} (Conv2d): expects [{module.in_channels}, H, W], is given {list(self.shape)}"
            )
        kernel, stride = module.kernel_size, module.stride
        padding = self._padding(path, module)
        size = [(self.shape[i + 1] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1)]
        if min(size) < 1:
            raise ValueError(f"layer {path!r} (Conv2d): kernel {kernel} exceeds the padded input {list(self.shape)}")
        channels, height, width = self.shape
        self.shape = (module.out_channels, size[0], size[1])
        shape = (channels, height, width, *self.shape, *kernel, *stride, *padding, 0)
        self._affine(path, module, Geometry._make(shape))

    def _padding(self, path: str, module: nn.Conv2d) -> tuple[int, int]:
        if module.padding == "valid":
            return (0, 0)
        if module.padding == "same":
            if any(k % 2 == 0 for k in module.kernel_size):
                raise self._refuse(path, module, "padding='same' with an even kernel pads unevenly")
            return (module.kernel_size[0] // 2, module.kernel_size[1] // 2)
        assert not isinstance(module.padding, str)
        return (module.padding[0], module.padding[1])

    def _linear(self, path: str, module: nn.Linear) -> None:
        if len(self.shape) != 1 or self.shape[0] != module.in_features:
            hint = "; put nn.Flatten before it" if len(self.shape) == 3 else ""
            raise ValueError(
                f"layer {path!r} (Linear): expects [{module.in_features}], is given {list(self.shape)}{hint}"
            )
        self.shape = (module.out_features,)
        self._affine(path, module, geometry.linear(module.in_features, module.out_features, relu=False))

    def _affine(self, path: str, module: nn.Conv2d | nn.Linear, shape: Geometry) -> None:
        if any(p is not None and id(p) not in self.names for p in (module.weight, module.bias)):
            raise self._refuse(path, module, "its weight is computed from others (weight_norm, spectral_norm)")
        weight = self._name(module.weight)
        assert weight is not None
        self.layers.append(Affine(path, shape, weight, self._name(module.bias)))

    def _average_pool(self, path: str, module: nn.AvgPool2d) -> None:
        kernel, padding = _pair(module.kernel_size), _pair(module.padding)
        stride = kernel if module.stride is None else _pair(module.stride)
        if module.ceil_mode or (padding != (0, 0) and not module.count_include_pad):
            raise self._refuse(path, module, "only ceil_mode=False, and with padding count_include_pad=True")
        if len(self.shape) != 3:
            raise ValueError(f"layer {path!r} (AvgPool2d): expects [C, H, W], is given {list(self.shape)}")
        channels, height, width = self.shape
        size = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip((height, width), kernel, stride, padding, strict=True)]
        if min(size) < 1:
            raise ValueError(f"layer {path!r} (AvgPool2d): kernel {kernel} exceeds the padded input {list(self.shape)}")
        shape = (*self.shape, channels, *size, *kernel, *stride, *padding, 0)
        self.shape = (channels, size[0], size[1])
        divisor = module.divisor_override or kernel[0] * kernel[1]
        self.layers.append(Affine(path, Geometry._make(shape), None, None, divisor=divisor))

    def _relu(self, path: str, module: nn.ReLU | nn.LeakyReLU) -> None:
        if not self.layers:
            raise self._refuse(path, module, "an activation must follow an affine layer")
        leak = float(getattr(module, "negative_slope", 0.0))
        if not 0 <= leak <= 1:
            raise self._refuse(path, module, f"negative_slope must lie in [0, 1], it is {leak}")
        last = self.layers[-1]
        before = last.leak if last.geometry.relu else 1.0  # one activation after another: slopes multiply
        self.layers[-1] = replace(last, geometry=last.geometry._replace(relu=1), leak=before * leak)

    def _flatten(self, path: str, module: nn.Flatten) -> None:
        if module.start_dim != 1 or module.end_dim not in (-1, len(self.shape)):
            raise self._refuse(path, module, "only Flatten(start_dim=1, end_dim=-1)")
        size = 1
        for n in self.shape:
            size *= n
        self.shape = (size,)

    def _batch_norm(self, path: str, module: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        wanted = nn.Conv2d if isinstance(module, nn.BatchNorm2d) else nn.Linear
        if not isinstance(self.previous, wanted):
            raise self._refuse(path, module, f"it must come right after a {wanted.__name__}")
        if module.training or module.running_mean is None:
            raise self._refuse(path, module, "it must be in eval mode with running statistics (call net.eval())")
        if module.num_features != self.shape[0]:
            raise ValueError(f"layer {path!r}: {module.num_features} features, is given {list(self.shape)}")
        self.layers[-1] = replace(
            self.layers[-1],
            batch_norm=module,
            batch_norm_weight=self._name(module.weight),
            batch_norm_bias=self._name(module.bias),
        )


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """A size as (height, width)."""
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
