"""Launchers of csrc/cuda: every op of the ``cuda`` backend but the gradients.

Launches go to the current stream of the tensors' device and never wait for it: a call can be captured in a CUDA graph.
"""

from typing import Any

import torch
from torch import Tensor

from glsk import ops
from glsk.backends import cuda_select
from glsk.backends import cuda_views as cuda
from glsk.backends.cuda_views import _CUDA
from glsk.geometry import decode


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
    found = run_pass(*operands[:8], known, geometry, leaks, rule, 1 + bound_upper)
    if found is None:
        return ops.crown_pass(*operands, backend="triton")
    return found


def run_pass(
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
    lower = cuda.empty(x_L, members, samples, rows)
    upper = cuda.empty(x_L, members, samples, rows) if signs == 2 else cuda.empty(x_L, 0)
    if lower.numel() == 0:
        return lower, upper
    view = cuda.Views()
    arguments = cuda.arguments_of(
        view, x_L, x_U, weights, biases, lowers, uppers, lines, C, known, geometry, leaks, rule, lower, upper, signs
    )
    device, stream = cuda.where(x_L)
    if not variant:
        variant = cuda_select.variant_of(device, arguments)
        if variant == "general" and cuda_select.for_triton(layers, rows, C is not None, x_L.dtype):
            return None
    _CUDA.run_pass(device, stream, arguments, variant, cuda.Allocator(x_L))
    return lower, upper


@ops.ibp_affine.implement("cuda")
def ibp_affine(
    lower: Tensor, upper: Tensor, weight: Tensor, bias: Tensor, geometry: list[int], relu: bool, leak: float
) -> tuple[Tensor, Tensor]:
    (layer,) = decode(geometry)
    members, samples = weight.shape[0], lower.shape[1]
    out = tuple(cuda.empty(lower, members, samples, layer.out_features) for _ in range(2))
    if out[0].numel():
        view = cuda.Views()
        _CUDA.run_ibp(
            *cuda.where(lower),
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


@ops.hbox_relu.implement("cuda")
def hbox_relu(box_lower: Tensor, box_upper: Tensor, lower: Tensor, upper: Tensor, leak: float) -> tuple[Tensor, Tensor]:
    box = _elementwise(_CUDA.run_hbox_relu, box_lower, box_upper, lower, upper, outputs=2, options=(leak,))
    return box[0], box[1]


def _elementwise(launch: Any, *given: Tensor, outputs: int, options: tuple[float, ...] = ()) -> list[Tensor]:
    """Tensors of one shape in, ``outputs`` contiguous ones out."""
    given = tuple(t.contiguous() for t in torch.broadcast_tensors(*given))
    made = [cuda.empty(given[0], *given[0].shape) for _ in range(outputs)]
    if given[0].numel():
        addresses = [t.data_ptr() for t in (*given, *made)]
        launch(*cuda.where(given[0]), given[0].dtype == torch.float64, given[0].numel(), addresses, *options)
    return made


@ops.robust_cross_entropy.implement("cuda")
def robust_cross_entropy(margin_lower: Tensor) -> Tensor:
    members, samples, rows = margin_lower.shape
    loss = cuda.empty(margin_lower, members)
    view = cuda.Views()
    _CUDA.run_robust_cross_entropy(
        *cuda.where(margin_lower),
        margin_lower.dtype == torch.float64,
        members,
        samples,
        rows,
        view(margin_lower),
        loss.data_ptr(),
    )
    return loss
