"""What an op demands of its arguments, checked where it is entered: a kernel trusts shapes and addresses.

Every ``torch.ops.glsk.*`` and its fake implementation run the check of its name. A wrong shape, geometry or option is a
ValueError, a wrong dtype or layout a TypeError; both name the op and the argument. Sizes are compared, values are not
looked at: nothing here waits for a device.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from glsk.geometry import Geometry, decode
from glsk.lines import RULES

DTYPES = (torch.float32, torch.float64)

Size = int | None
"""A dimension: a size, or None for any."""


class Tensors:
    """Checks the tensors of one call; all must have the dtype and device of the first."""

    def __init__(self, op: str, name: str, first: Tensor) -> None:
        self.op, self.first_name = op, name
        self._tensor(name, first)
        self.dtype, self.device = first.dtype, first.device
        if self.dtype not in DTYPES:
            raise TypeError(f"{op}: {name}: expected float32 or float64, got {self.dtype}")

    def one(self, name: str, tensor: Tensor, *shape: Size, shared: Sequence[int] = ()) -> None:
        """``shape``: the size of each dimension; those whose number is in ``shared`` may also be 1."""
        self._tensor(name, tensor)
        found = tensor.shape
        fits = len(found) == len(shape) and all(
            s is None or f == s or (f == 1 and d in shared) for d, (f, s) in enumerate(zip(found, shape, strict=True))
        )
        if not fits:
            wanted = ", ".join(
                "any" if s is None else f"{s} or 1" if d in shared and s != 1 else str(s) for d, s in enumerate(shape)
            )
            raise ValueError(f"{self.op}: {name}: expected [{wanted}], got {list(found)}")
        if tensor.dtype != self.dtype or tensor.device != self.device:
            raise ValueError(
                f"{self.op}: {name}: tensors of one call must agree: it is {tensor.dtype} on {tensor.device}, "
                f"{self.first_name} is {self.dtype} on {self.device}"
            )
        if tensor.layout is not torch.strided:
            raise TypeError(f"{self.op}: {name}: expected a dense tensor, got layout {tensor.layout}")

    def members(self, name: str, weight: Tensor) -> int:
        """P, the first dimension of a weight."""
        self._tensor(name, weight)
        if weight.dim() != 5 or weight.shape[0] < 1:
            raise ValueError(
                f"{self.op}: {name}: expected [P, Cout, Cin, kh, kw] with P >= 1, got {list(weight.shape)}"
            )
        return weight.shape[0]

    def optional(self, name: str, tensor: Tensor | None, *shape: Size) -> None:
        """None is fine."""
        if tensor is not None:
            self.one(name, tensor, *shape)

    def lists(self, layers: int, **lists: Sequence[object]) -> None:
        """Each has one entry a layer."""
        for name, values in lists.items():
            if len(values) != layers:
                raise ValueError(f"{self.op}: {name}: expected {layers} entries, got {len(values)}")
            for k, value in enumerate(values):
                if value is None:
                    raise TypeError(f"{self.op}: {name}[{k}]: expected a tensor, got None")

    def _tensor(self, name: str, value: Tensor | None) -> None:
        """PyTorch's schemas let None pass for a tensor."""
        if value is None:
            raise TypeError(f"{self.op}: {name}: expected a tensor, got None")


@lru_cache(maxsize=4096)
def chain(op: str, values: tuple[int, ...]) -> tuple[Geometry, ...]:
    """The layers that ``values`` encode, each of which makes sense and fits the one before it."""
    try:
        layers = decode(values)
    except ValueError as error:
        raise ValueError(f"{op}: {error}") from None
    for k, layer in enumerate(layers):
        _layer(f"{op}: geometry of layer {k}", layer)
    for k, (below, layer) in enumerate(pairwise(layers)):
        image = (below.out_channels, below.out_height, below.out_width)
        given = (layer.in_channels, layer.in_height, layer.in_width)
        if given not in (image, (below.out_features, 1, 1)):
            raise ValueError(f"{op}: geometry: layer {k + 1} reads {given}, layer {k} gives {image} (C, H, W)")
    return tuple(layers)


def _layer(where: str, layer: Geometry) -> None:
    named = layer._asdict()
    for name, value in named.items():
        least = 0 if name in ("pad_height", "pad_width", "relu") else 1
        if not least <= value < 1 << 31:
            raise ValueError(f"{where}: {name} is {value}")
    if layer.relu > 1:
        raise ValueError(f"{where}: relu is {layer.relu}, not 0 or 1")
    for axis in ("height", "width"):
        padded = named[f"in_{axis}"] + 2 * named[f"pad_{axis}"]
        fitting = (padded - named[f"kernel_{axis}"]) // named[f"stride_{axis}"] + 1
        if padded < named[f"kernel_{axis}"] or named[f"out_{axis}"] != fitting:
            raise ValueError(
                f"{where}: out_{axis} is {named[f'out_{axis}']}, the kernel fits {max(0, fitting)} times into the "
                f"padded input of {padded}"
            )
    if max(layer.in_features, layer.out_features, math.prod(layer.weight_shape)) >= 1 << 31:
        raise ValueError(f"{where}: more than 2^31 inputs, outputs or weights")


def ibp_affine(
    lower: Tensor, upper: Tensor, weight: Tensor, bias: Tensor, geometry: list[int], relu: bool, leak: float
) -> None:
    """One layer, and a box of its inputs."""
    slope("ibp_affine", "leak", leak)
    layers = chain("ibp_affine", tuple(geometry))
    if len(layers) != 1:
        raise ValueError(f"ibp_affine: geometry: expected one layer, got {len(layers)}")
    tensors = Tensors("ibp_affine", "lower", lower)
    members = tensors.members("weight", weight)
    _box(tensors, ("lower", lower), ("upper", upper), members, layers[0].in_features)
    tensors.one("weight", weight, members, *layers[0].weight_shape)
    tensors.one("bias", bias, members, layers[0].out_channels)


def crown_pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    C: Tensor | None,
    known_lower: Tensor | None,
    known_upper: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    rule: str,
    bound_upper: bool,
    *,
    op: str = "crown_pass",
) -> None:
    """A chain, what makes the lines of its activations, and rows or what is known of them."""
    layers, tensors = chain(op, tuple(geometry)), Tensors(op, "x_L", x_L)
    members, samples = _chain_tensors(tensors, layers, x_L, x_U, weights, biases, C, leaks)
    if rule not in RULES:
        raise ValueError(f"{op}: rule: unknown {rule!r}; known: {', '.join(RULES)}")
    rows = layers[-1].out_features if C is None else C.shape[1]
    tensors.lists(len(layers) - 1, lowers=lowers, uppers=uppers, lines=lines)
    for k, (layer, lower, upper, given) in enumerate(zip(layers, lowers, uppers, lines, strict=False)):
        units, missing = layer.out_features, [t.dim() == 1 and t.shape[0] == 0 for t in (lower, upper, given)]
        if not missing[2]:
            if not layer.relu:
                raise ValueError(f"{op}: lines[{k}]: no activation follows layer {k}")
            tensors.one(f"lines[{k}]", given, members, samples, rows, 4, units, shared=(0, 1, 2))
        elif layer.relu and (missing[0] or missing[1]):
            raise ValueError(f"{op}: layer {k} has an activation: give lines[{k}], or lowers[{k}] and uppers[{k}]")
        for name, bound, absent in (("lowers", lower, missing[0]), ("uppers", upper, missing[1])):
            if not absent:
                tensors.one(f"{name}[{k}]", bound, members, samples, units)
    if (known_lower is None) != (known_upper is None):
        raise ValueError(f"{op}: known_lower and known_upper go together")
    if known_lower is not None and C is not None:
        raise ValueError(f"{op}: known_lower and known_upper are of the layer's outputs: not with C")
    tensors.optional("known_lower", known_lower, members, samples, rows)
    tensors.optional("known_upper", known_upper, members, samples, rows)


def optimised_pass(*operands: Any) -> None:
    """A pass, and how it is optimised."""
    *of_a_pass, iterations, lr = operands
    crown_pass(*of_a_pass, op="optimised_pass")
    if iterations < 1:
        raise ValueError(f"optimised_pass: iterations: expected at least 1, got {iterations}")
    if not (lr > 0 and math.isfinite(lr)):
        raise ValueError(f"optimised_pass: lr: expected a positive number, got {lr}")


def chain_bounds(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    C: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    method: str,
    prune: bool,
    bound_upper: bool,
    keep: bool,
) -> None:
    """A chain, its box, and rows."""
    layers, tensors = chain("chain_bounds", tuple(geometry)), Tensors("chain_bounds", "x_L", x_L)
    _chain_tensors(tensors, layers, x_L, x_U, weights, biases, C, leaks)
    if x_L.shape[0] != 1:
        raise ValueError(f"chain_bounds: x_L: expected one box for all members, [1, B, n], got {list(x_L.shape)}")
    if C is not None and not layers[-1].is_linear:
        raise ValueError("chain_bounds: C: the last layer must be linear")


def same_shape(op: str, *names: str) -> "SameShape":
    """A check of an elementwise op."""
    return SameShape(op, names)


class SameShape:
    """All tensors have the shape of the first."""

    def __init__(self, op: str, names: Sequence[str]) -> None:
        self.op, self.names = op, names

    def __call__(self, *operands: Tensor) -> None:
        tensors = Tensors(self.op, self.names[0], operands[0])
        for name, operand in zip(self.names, operands, strict=True):
            tensors.one(name, operand, *operands[0].shape)


def slope(op: str, name: str, leak: float) -> None:
    """Of an activation below zero."""
    if not 0 <= leak <= 1:
        raise ValueError(f"{op}: {name}: expected a slope in [0, 1], got {leak}")


def hbox_relu(box_lower: Tensor, box_upper: Tensor, lower: Tensor, upper: Tensor, leak: float) -> None:
    """Boxes and bounds of one shape."""
    slope("hbox_relu", "leak", leak)
    same_shape("hbox_relu", "box_lower", "box_upper", "lower", "upper")(box_lower, box_upper, lower, upper)


def robust_cross_entropy(margin_lower: Tensor) -> None:
    """Margins [P, B, S]."""
    Tensors("robust_cross_entropy", "margin_lower", margin_lower).one("margin_lower", margin_lower, None, None, None)
    if margin_lower.shape[1] == 0 or margin_lower.shape[2] == 0:
        raise ValueError(f"robust_cross_entropy: margin_lower: no margins in {list(margin_lower.shape)}")


def _chain_tensors(
    tensors: Tensors,
    layers: Sequence[Geometry],
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    C: Tensor | None,
    leaks: list[float],
) -> tuple[int, int]:
    """What every op over a chain is given; returns P and B."""
    tensors.lists(len(layers), weights=weights, biases=biases, leaks=leaks)
    members = tensors.members("weights[0]", weights[0])
    _box(tensors, ("x_L", x_L), ("x_U", x_U), members, layers[0].in_features)
    chain_weights(tensors, layers, weights, biases, leaks, members)
    tensors.optional("C", C, x_L.shape[1], None, layers[-1].out_features)
    if C is not None and C.shape[1] < 1:
        raise ValueError(f"{tensors.op}: C: expected at least one row, got {list(C.shape)}")
    return members, x_L.shape[1]


def chain_weights(
    tensors: Tensors,
    layers: Sequence[Geometry],
    weights: list[Tensor],
    biases: list[Tensor],
    leaks: list[float],
    members: int,
) -> None:
    for k, (layer, weight, bias) in enumerate(zip(layers, weights, biases, strict=True)):
        tensors.one(f"weights[{k}]", weight, members, *layer.weight_shape)
        tensors.one(f"biases[{k}]", bias, members, layer.out_channels)
    for k, leak in enumerate(leaks):
        slope(tensors.op, f"leaks[{k}]", leak)


def _box(tensors: Tensors, lower: tuple[str, Tensor], upper: tuple[str, Tensor], members: int, inputs: int) -> None:
    """[P or 1, B, n] both, B >= 1: an empty tensor of lines stands for none."""
    tensors.one(*lower, members, None, inputs, shared=(0,))
    if lower[1].shape[1] == 0:
        raise ValueError(f"{tensors.op}: {lower[0]}: no samples in {list(lower[1].shape)}")
    tensors.one(*upper, *lower[1].shape)
