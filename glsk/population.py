"""Parameters with a leading population axis: flat [P, D] <-> named [P, ...] <-> one weight and bias a layer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glsk.network import Affine, Chain

Params = Tensor | Mapping[str, Tensor]


@dataclass(frozen=True)
class Population:
    """What the bounds need of P members: per affine layer, weight [P, Cout, Cin, kh, kw] and bias [P, Cout]."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @property
    def size(self) -> int:
        return self.weights[0].shape[0]

    def slice(self, start: int, stop: int) -> "Population":
        """Members ``start`` to ``stop`` as views."""
        return Population(tuple(w[start:stop] for w in self.weights), tuple(b[start:stop] for b in self.biases))


def unflatten(chain: Chain, flat: Tensor) -> dict[str, Tensor]:
    """Members [P, D], in ``module.parameters()`` order, as views name -> [P, *shape].

    Raises:
        ValueError: if ``flat`` is not [P, D] with P >= 1 and the network's D.
    """
    sizes = {name: math.prod(shape) for name, shape in chain.parameter_shapes.items()}
    dimension = sum(sizes.values())
    if flat.dim() != 2 or flat.shape[1] != dimension or flat.shape[0] < 1:
        raise ValueError(f"params: expected [P, {dimension}] with P >= 1, got {list(flat.shape)}")
    named, offset = {}, 0
    for name, size in sizes.items():
        named[name] = flat[:, offset : offset + size].unflatten(1, chain.parameter_shapes[name] or (1,))
        offset += size
    return named


def flatten(chain: Chain, named: Mapping[str, Tensor]) -> Tensor:
    """Named parameters name -> [P, *shape] as one new tensor [P, D]. Raises ValueError as :func:`validate` does."""
    validate(chain, named)
    return torch.cat([named[name].flatten(1) for name in chain.parameter_shapes], dim=1)


def validate(chain: Chain, named: Mapping[str, Tensor]) -> None:
    """Check names and shapes of a named population. Raises ValueError naming the first parameter that is off."""
    missing = [name for name in chain.parameter_shapes if name not in named]
    extra = [name for name in named if name not in chain.parameter_shapes]
    if missing or extra:
        raise ValueError(f"params: missing {missing}, unexpected {extra}")
    size = named[next(iter(chain.parameter_shapes))].shape[:1]
    for name, shape in chain.parameter_shapes.items():
        if tuple(named[name].shape) != (*size, *shape) or not size or size[0] < 1:
            raise ValueError(
                f"params[{name!r}]: expected [P, {', '.join(map(str, shape))}] with the same P >= 1 for every "
                f"parameter, got {list(named[name].shape)}"
            )


def resolve(chain: Chain, net: nn.Module, params: Params | None) -> dict[str, Tensor]:
    """``params`` in any accepted form as name -> [P, *shape]; None is the module's own weights with P = 1.

    Raises:
        TypeError: if ``params`` is neither a tensor nor a mapping of tensors.
        ValueError: on wrong names or shapes, or when dtypes or devices differ between parameters.
    """
    if params is None:
        named = {name: p.unsqueeze(0) for name, p in net.named_parameters()}
    elif isinstance(params, Tensor):
        named = unflatten(chain, params)
    elif isinstance(params, Mapping) and all(isinstance(value, Tensor) for value in params.values()):
        named = dict(params)
        validate(chain, named)
    else:
        raise TypeError(f"params: expected a tensor [P, D] or a dict name -> tensor, got {type(params).__name__}")
    first = next(iter(named.values()))
    for name, value in named.items():
        if value.dtype != first.dtype or value.device != first.device:
            raise ValueError(
                f"params[{name!r}]: {value.dtype} on {value.device}, but others are {first.dtype} on {first.device}"
            )
    return named


def assemble(chain: Chain, named: Mapping[str, Tensor]) -> Population:
    """Weights and biases a layer, BatchNorm folded in."""
    some = next(iter(named.values()))
    layers = [_layer(layer, named) if layer.weight else _average(layer, some) for layer in chain.layers]
    return Population(tuple(w for w, _ in layers), tuple(b for _, b in layers))


def _average(layer: Affine, like: Tensor) -> tuple[Tensor, Tensor]:
    """An average pool as a convolution, the same for all members."""
    shape, members = layer.geometry, like.shape[0]
    eye = torch.eye(shape.out_channels, dtype=like.dtype, device=like.device) / layer.divisor
    weight = eye[None, :, :, None, None].repeat(1, 1, 1, shape.kernel_height, shape.kernel_width)
    bias = like.new_zeros(1, shape.out_channels)
    return weight.expand(members, -1, -1, -1, -1), bias.expand(members, -1)


def _layer(layer: Affine, named: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    assert layer.weight is not None
    weight = named[layer.weight]
    members = weight.shape[0]
    weight = weight.reshape(members, *layer.geometry.weight_shape)
    if layer.bias is None:
        bias = weight.new_zeros(1, layer.geometry.out_channels).expand(members, -1)
    else:
        bias = named[layer.bias]
    if layer.batch_norm is not None:
        weight, bias = _fold(layer, weight, bias, named)
    return weight, bias


def _fold(layer: Affine, weight: Tensor, bias: Tensor, named: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    norm = layer.batch_norm
    assert norm is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if norm.training:
        raise ValueError(f"layer {layer.name!r}: the BatchNorm after it is in training mode; call net.eval()")
    mean = norm.running_mean.to(weight)
    scale = (norm.running_var.to(weight) + norm.eps).rsqrt().expand(weight.shape[0], -1)
    if layer.batch_norm_weight is not None:
        scale = scale * named[layer.batch_norm_weight]
    bias = (bias - mean) * scale
    if layer.batch_norm_bias is not None:
        bias = bias + named[layer.batch_norm_bias]
    return weight * scale[:, :, None, None, None], bias
