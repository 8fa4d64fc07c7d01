"""The ``cuda`` backend: launchers that hand the kernels of csrc/cuda addresses, shapes and strides of device tensors.

Launches go to the current stream of the tensors' device and never wait for it: a call can be captured in a CUDA graph.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glsk import backends, ops, tiling
from glsk.geometry import Geometry, decode, encode
from glsk.precision import ACCURATE, precision
from glsk.workspace import Widest, Workspace

_CUDA: Any = importlib.import_module("glsk._CUDA")

View = tuple[int, int, int]
"""Address, member stride and sample stride in elements; a stride of 0 repeats one slice."""

Around = tuple[int, int, int, int, int, int]
"""Addresses of lower and upper bounds, or of lines and 0; strides by member, sample, row and line, in elements."""

_NULL: View = (0, 0, 0)
_NO_LINES: Around = (0, 0, 0, 0, 0, 0)

LANES = 32
GENERAL_BYTES = 256 << 20
BLOCKS = 3
"""As in csrc/cuda/pass_general.cu: rows and sides that a thread block carries at once, bytes of workspace at most, and
thread blocks on a multiprocessor."""

TRITON_FROM = 4_000_000
"""Multiply-adds of a pass for one (member, sample), one-sided, from which Triton's kernels, made for big layers, are
preferred to the general CUDA kernel."""


def _where(tensor: Tensor) -> tuple[int, int]:
    """Device index and stream handle."""
    return tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream


class _Views:
    """Turns tensors into views for the kernels, and keeps alive the copies it had to make."""

    def __init__(self) -> None:
        self.copies: list[Tensor] = []

    def __call__(self, tensor: Tensor | None) -> View:
        """[P or 1, B or 1, n], or None or an empty tensor for none."""
        if tensor is None or tensor.numel() == 0:
            return _NULL
        if tensor.stride(2) != 1 and tensor.shape[2] > 1:
            tensor = self._copy(tensor)
        members, samples, _ = tensor.shape
        return tensor.data_ptr(), 0 if members == 1 else tensor.stride(0), 0 if samples == 1 else tensor.stride(1)

    def weights(self, tensor: Tensor | None) -> tuple[int, int]:
        """[P, ...] whose members are contiguous: address and member stride."""
        if tensor is None:
            return 0, 0
        if not tensor[0].is_contiguous():
            tensor = self._copy(tensor)
        return tensor.data_ptr(), 0 if tensor.shape[0] == 1 else tensor.stride(0)

    def around(self, lower: Tensor, upper: Tensor, lines: Tensor) -> Around:
        """Lines [P or 1, B or 1, R or 1, 4, n] if there are any, else bounds [P or 1, B or 1, n]; nothing if empty."""
        if lines.numel():
            if lines.stride(4) != 1 and lines.shape[4] > 1:
                lines = self._copy(lines)
            strides = [0 if n == 1 else stride for n, stride in zip(lines.shape, lines.stride(), strict=True)]
            return lines.data_ptr(), 0, strides[0], strides[1], strides[2], lines.stride(3)
        if not lower.numel():
            return _NO_LINES
        low, high = self(lower), self(upper)
        if low[1:] != high[1:]:
            low, high = (self(self._copy(bound)) for bound in torch.broadcast_tensors(lower, upper))
        return low[0], high[0], low[1], low[2], 0, 0

    def _copy(self, tensor: Tensor) -> Tensor:
        self.copies.append(tensor.contiguous())
        return self.copies[-1]


def _empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """Device memory; running out of it says what to do."""
    try:
        return like.new_empty(shape, dtype=dtype)
    except torch.cuda.OutOfMemoryError as error:
        error.add_note(f"glsk: no room for {list(shape)} on {like.device}; give compute_bounds a smaller memory_limit")
        raise


@ops.crown_pass.implement("cuda")
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
) -> tuple[Tensor, Tensor]:
    known = (known_lower, known_upper)
    operands = (x_L, x_U, weights, biases, lowers, uppers, lines, C, *known, geometry, leaks, rule, bound_upper)
    if len(weights) == 1 and C is None and None in known:
        lower, upper = ibp_affine(x_L, x_U, weights[0], biases[0], geometry, False, 0.0)  # one layer: the same bounds
        return lower, upper if bound_upper else x_L.new_empty(0)
    if len(weights) > _CUDA.max_layers:
        return ops.crown_pass.reference(*operands)
    found = _pass(*operands[:8], known, geometry, leaks, rule, 1 + bound_upper)
    if found is None:
        return ops.crown_pass(*operands, backend="triton")
    return found


def _pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: "list[Tensor] | list[Tensor | None]",
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    C: Tensor | None,
    known: tuple[Tensor | None, Tensor | None],
    geometry: list[int],
    leaks: list[float],
    rule: str,
    signs: int,
    variant: str = "",
) -> tuple[Tensor, Tensor] | None:
    """Launch a pass, by the named kernel or the best one; None leaves it to Triton."""
    layers = decode(geometry)
    members, samples = weights[0].shape[0], x_L.shape[1]
    rows = layers[-1].out_features if C is None else C.shape[1]
    lower = _empty(x_L, members, samples, rows)
    upper = _empty(x_L, members, samples, rows) if signs == 2 else _empty(x_L, 0)
    if lower.numel() == 0:
        return lower, upper
    view = _Views()
    arguments = _arguments_of(
        view, x_L, x_U, weights, biases, lowers, uppers, lines, C, known, geometry, leaks, rule, lower, upper, signs
    )
    device, stream = _where(x_L)
    if not variant:
        variant = _variant(device, arguments)
        if variant == "general" and _for_triton(layers, rows, C is not None, x_L.dtype):
            return None
    _CUDA.run_pass(device, stream, arguments, variant, _Allocator(x_L))
    return lower, upper


class _Allocator:
    """Gives a call its workspaces, and keeps them alive as long as it lives itself."""

    def __init__(self, like: Tensor) -> None:
        self.like, self.given = like, list[Tensor]()

    def __call__(self, size: int) -> int:
        self.given.append(_empty(self.like, size, dtype=torch.uint8))
        return self.given[-1].data_ptr()


def _arguments_of(
    view: _Views,
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: "list[Tensor] | list[Tensor | None]",
    lowers: list[Tensor],
    uppers: list[Tensor],
    lines: list[Tensor],
    C: Tensor | None,
    known: tuple[Tensor | None, Tensor | None],
    geometry: list[int],
    leaks: list[float],
    rule: str,
    lower: Tensor,
    upper: Tensor,
    signs: int,
) -> Any:
    """A pass with these results as the kernels are told of it; what ``view`` copies must outlive the call."""
    members, samples, rows = lower.shape
    return _CUDA.Pass(
        members=members,
        samples=samples,
        rows=rows,
        signs=signs,
        rule=rule,
        is_double=x_L.dtype == torch.float64,
        geometry=list(geometry),
        weights=[view.weights(weight) for weight in weights],
        biases=[view.weights(bias) for bias in biases],
        arounds=[view.around(*around) for around in zip(lowers, uppers, lines, strict=True)],
        leaks=list(leaks),
        x_lower=view(x_L),
        x_upper=view(x_U),
        C=_NULL if C is None else view(C.transpose(0, 1)),  # rows in the place of members
        known_lower=_NULL if None in known else view(known[0]),
        known_upper=_NULL if None in known else view(known[1]),
        lower=lower.data_ptr(),
        upper=upper.data_ptr(),
    )


def _variant(device: int, arguments: Any) -> str:
    """The kernel that serves a pass best in the precision that is asked for."""
    variant = str(_CUDA.select_pass(device, arguments))
    if variant == "deep" and precision() in ACCURATE:  # its products are three of BF16
        return "general"
    return variant


def _for_triton(layers: Sequence[Geometry], rows: int, spec: bool, dtype: torch.dtype) -> bool:
    """Whether Triton is there and serves this pass, which no CUDA kernel is made for, better than the general one."""
    if backends.why_missing("triton") is not None or dtype != torch.float32:
        return False
    below = layers if spec else layers[:-1]  # the rows of an identity are the last layer's weights
    taps = sum(layer.out_features * layer.in_channels * layer.kernel_height * layer.kernel_width for layer in below)
    return rows * taps >= TRITON_FROM


def _multiprocessors(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def pass_workspace(
    layers: tuple[Geometry, ...],
    spec_rows: int | None,
    device: torch.device,
    dtype: torch.dtype,
    backward: bool = False,
) -> Workspace | Widest:
    """What :func:`_pass` allocates for a two-sided pass; ``spec_rows``: rows of C, None for the last layer's.

    With ``backward``, enough for its gradient too, beside the gradients of weights, bounds and C themselves.
    """
    forward = _forward_workspace(layers, spec_rows, device, dtype)
    if not backward:
        return forward
    return Widest((forward, cuda_backward.pass_workspace(layers, spec_rows, dtype)))


def _forward_workspace(
    layers: tuple[Geometry, ...], spec_rows: int | None, device: torch.device, dtype: torch.dtype
) -> Workspace | Widest:
    spec = spec_rows is not None
    rows = layers[-1].out_features if spec_rows is None else spec_rows
    if len(layers) == 1 and not spec:
        return Workspace()  # an interval step
    if len(layers) > _CUDA.max_layers:
        return Workspace(per_pair=tiling.bytes_per_pair(layers, rows, "reference", dtype.itemsize))
    # How rows are cut, and so what serves them, may depend on how many (member, sample) pairs there are.
    passes = [_arguments(layers, rows, spec, dtype, samples) for samples in (1, 1 << 30)]
    index = device.index or 0
    variants = [_variant(index, arguments) for arguments in passes]
    found: list[Workspace | Widest] = [
        Workspace(program=_CUDA.deep_workspace(index, arguments), programs=1, programs_per_pair=1, scalable=False)
        for arguments, variant in zip(passes, variants, strict=True)
        if variant == "deep"
    ]
    if "general" in variants and _for_triton(layers, rows, spec, dtype):
        found.append(backends.pass_workspace("triton", layers, spec_rows, device, dtype))
    elif "general" in variants:
        widths = [layer.in_features for layer in layers[1:]] or [layers[0].in_features]
        block = 2 * LANES * max(*widths, layers[-1].out_features if spec else 1) * dtype.itemsize
        most = max(1, min(BLOCKS * _multiprocessors(device), GENERAL_BYTES // block))
        found.append(
            Workspace(program=block, programs=most, programs_per_pair=-(-rows // (LANES // 2)), scalable=False)
        )
    return found[0] if len(found) == 1 else Widest(tuple(found))


def _arguments(layers: tuple[Geometry, ...], rows: int, spec: bool, dtype: torch.dtype, samples: int) -> Any:
    """A two-sided pass of these shapes, of which no address is ever read."""
    some: View = (16, 0, 0)
    inner: list[Around] = [(16, 16, 0, 0, 0, 0)] * (len(layers) - 1)
    return _CUDA.Pass(
        members=1,
        samples=samples,
        rows=rows,
        signs=2,
        rule="adaptive",
        is_double=dtype == torch.float64,
        geometry=encode(layers),
        weights=[(16, 0)] * len(layers),
        biases=[(16, 0)] * len(layers),
        arounds=inner,
        leaks=[0.0] * len(layers),
        x_lower=some,
        x_upper=some,
        C=some if spec else _NULL,
        known_lower=_NULL,
        known_upper=_NULL,
        lower=16,
        upper=16,
    )


@ops.ibp_affine.implement("cuda")
def ibp_affine(
    lower: Tensor, upper: Tensor, weight: Tensor, bias: Tensor, geometry: list[int], relu: bool, leak: float
) -> tuple[Tensor, Tensor]:
    (layer,) = decode(geometry)
    members, samples = weight.shape[0], lower.shape[1]
    out = tuple(_empty(lower, members, samples, layer.out_features) for _ in range(2))
    if out[0].numel():
        view = _Views()
        _CUDA.run_ibp(
            *_where(lower),
            lower.dtype == torch.float64,
            members,
            samples,
            list(geometry),
            relu,
            leak,
            view.weights(weight),
            view.weights(bias),
            view(lower),
            view(upper),
            *(t.data_ptr() for t in out),
        )
    return out[0], out[1]


@ops.relu_relaxation.implement("cuda")
def relu_relaxation(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    lines = _elementwise(_CUDA.run_relu_relaxation, lower, upper, outputs=3)
    return lines[0], lines[1], lines[2]


@ops.hbox_relu.implement("cuda")
def hbox_relu(box_lower: Tensor, box_upper: Tensor, lower: Tensor, upper: Tensor, leak: float) -> tuple[Tensor, Tensor]:
    box = _elementwise(_CUDA.run_hbox_relu, box_lower, box_upper, lower, upper, outputs=2, options=(leak,))
    return box[0], box[1]


def _elementwise(launch: Any, *given: Tensor, outputs: int, options: tuple[float, ...] = ()) -> list[Tensor]:
    """Tensors of one shape in, ``outputs`` contiguous ones out."""
    given = tuple(t.contiguous() for t in torch.broadcast_tensors(*given))
    made = [_empty(given[0], *given[0].shape) for _ in range(outputs)]
    if given[0].numel():
        addresses = [t.data_ptr() for t in (*given, *made)]
        launch(*_where(given[0]), given[0].dtype == torch.float64, given[0].numel(), addresses, *options)
    return made


@ops.robust_cross_entropy.implement("cuda")
def robust_cross_entropy(margin_lower: Tensor) -> Tensor:
    members, samples, rows = margin_lower.shape
    loss = _empty(margin_lower, members)
    view = _Views()
    _CUDA.run_robust_cross_entropy(
        *_where(margin_lower),
        margin_lower.dtype == torch.float64,
        members,
        samples,
        rows,
        view(margin_lower),
        loss.data_ptr(),
    )
    return loss


from glsk import cuda_backward  # noqa: E402  adds the gradients; it needs what is above
