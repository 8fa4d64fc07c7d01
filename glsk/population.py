"""Parameters with a leading population axis: flat [P, D] <-> named [P, ...] <-> one weight and bias a layer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glsk.arguments import FLOATS, dense, listed
from glsk.network import Affine, BatchNorm, Chain

Params = Tensor | Mapping[str, Tensor] | tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
"""Flat members [P, D]; name -> [P, *shape], with or without the buffers; or ``stack_module_state``'s pair of them."""


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
    """Check names and shapes of a named population. Raises ValueError naming the first parameter that is off.

    Buffers may be left out; with any of them, every BatchNorm's running statistics must be there.
    """
    missing = [name for name in chain.parameter_shapes if name not in named]
    extra = [name for name in named if name not in chain.parameter_shapes and name not in chain.buffer_shapes]
    if any(name in chain.buffer_shapes for name in named):
        missing += [name for name in _statistics(chain) if name not in named]
    if missing or extra:
        raise ValueError(f"params: missing {listed(missing)}, unexpected {listed(extra)}")
    size = named[next(iter(chain.parameter_shapes))].shape[:1]
    for name in named:
        shape = chain.parameter_shapes[name] if name in chain.parameter_shapes else chain.buffer_shapes[name]
        if tuple(named[name].shape) != (*size, *shape) or not size or size[0] < 1:
            raise ValueError(
                f"params[{name!r}]: expected [{', '.join(map(str, ('P', *shape)))}] with the same P >= 1 for every "
                f"parameter, got {list(named[name].shape)}"
            )


def _statistics(chain: Chain) -> list[str]:
    """The names of all running statistics that are folded in."""
    return [name for layer in chain.layers if (norm := layer.batch_norm) for name in (norm.mean, norm.var)]


def resolve(chain: Chain, net: nn.Module, params: Params | None) -> dict[str, Tensor]:
    """``params`` in any accepted form as name -> [P, *shape]; None is the module's own weights with P = 1.

    Returns:
        The parameters, and the running statistics of BatchNorms if they were given for every member.

    Raises:
        TypeError: if ``params`` is neither a tensor nor mappings of tensors, or one is not dense.
        ValueError: on wrong names or shapes, when dtypes or devices differ between parameters, or when a member's
            normalisation is not the module's.
    """
    if params is None:
        named = {name: p.unsqueeze(0) for name, p in net.named_parameters()}
    elif isinstance(params, Tensor):
        named = unflatten(chain, dense("params", params, FLOATS, "float32 or float64"))
    else:
        named = _named(params)
        for name, value in named.items():
            dense(f"params[{name!r}]", value, None, "")
        validate(chain, named)
        named = _without_fixed(chain, named)
    first = next(iter(named.values()))
    for name, value in named.items():
        if dense(f"params[{name!r}]", value, None, "").dtype != first.dtype or value.device != first.device:
            raise ValueError(
                f"params[{name!r}]: {value.dtype} on {value.device}, but others are {first.dtype} on {first.device}"
            )
    return named


def _named(params: object) -> dict[str, Tensor]:
    """One dictionary of a mapping, or of the pair (parameters, buffers)."""
    parts = params if isinstance(params, tuple | list) and len(params) == 2 else (params,)
    named: dict[str, Tensor] = {}
    for part in parts:
        if not isinstance(part, Mapping) or not all(isinstance(value, Tensor) for value in part.values()):
            raise TypeError(
                "params: expected a tensor [P, D], a dict name -> tensor, or the pair of dicts of stack_module_state, "
                f"got {type(params).__name__}"
            )
        if twice := [name for name in part if name in named]:
            raise ValueError(f"params: both dicts hold {listed(twice)}")
        named.update(part)
    return named


def _without_fixed(chain: Chain, named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the buffers that no member may have of its own: the normalisation, which must be the module's."""
    for name, own in zip(chain.normalize_names, _normalization(chain), strict=True):
        given = named.get(name)
        if given is not None and (given.device != own.device or not (given == own).all()):
            raise ValueError(
                f"params[{name!r}]: glsk.Normalize is one for all members; give the module's own values, "
                "or leave it out"
            )
    kept = {*chain.parameter_shapes, *_statistics(chain)}
    return {name: value for name, value in named.items() if name in kept}


def _normalization(chain: Chain) -> tuple[Tensor, ...]:
    return () if chain.normalize is None else (chain.normalize.mean, chain.normalize.std)


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
        weight, bias = _fold(layer.batch_norm, weight, bias, named)
    return weight, bias


def _fold(norm: BatchNorm, weight: Tensor, bias: Tensor, named: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A BatchNorm in eval mode is affine. Statistics that no member has of its own are the module's."""
    mean, var = _moments(norm, named)
    scale = (var.to(weight) + norm.module.eps).rsqrt().expand(weight.shape[0], -1)
    if norm.weight is not None:
        scale = scale * named[norm.weight]
    bias = (bias - mean.to(weight)) * scale
    if norm.bias is not None:
        bias = bias + named[norm.bias]
    return weight * scale[:, :, None, None, None], bias


def _moments(norm: BatchNorm, named: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The running mean and variance: the members' own, or the module's."""
    mean, var = named.get(norm.mean, norm.module.running_mean), named.get(norm.var, norm.module.running_var)
    assert mean is not None
    assert var is not None
    return mean, var


def check_values(chain: Chain, named: Mapping[str, Tensor]) -> None:
    """Check that parameters and statistics are finite and that no variance is negative. Raises ValueError."""
    for name, value in named.items():
        if not value.isfinite().all():
            raise ValueError(f"params: {name!r} holds NaN or infinity")
    for layer in chain.layers:
        if (norm := layer.batch_norm) is None:
            continue
        mean, var = _moments(norm, named)
        if not (
            mean.isfinite().all() and var.isfinite().all() and (var >= 0).all() and (var + norm.module.eps > 0).all()
        ):
            raise ValueError(f"{norm.var!r}: running statistics must be finite, and variances not negative")
