"""The ops of the ``cpu`` backend."""

import torch
from torch import Tensor

from glsk import _C, ops, workspace
from glsk.cpu.given import Given, address, chain_given, ibp_given, kernel, pass_given
from glsk.geometry import decode
from glsk.ops.branch_columns import parents, require_in_range, require_listed
from glsk.ops.branch_pass import empty_outputs
from glsk.ops.branch_scratch import branch_scratch, plane_scratch
from glsk.ops.chain_bounds import empty_hidden
from glsk.ops.crown_pass import empty_bounds, keep_known
from glsk.ops.optimised_pass import DECAY
from glsk.ops.plane_search import LR_DUALS, LR_SHARES, decay, empty_found


@ops.ibp_affine.implement("cpu")
def ibp_affine(
    lower: Tensor, upper: Tensor, weight: Tensor, bias: Tensor, geometry: list[int], relu: bool, leak: float
) -> tuple[Tensor, Tensor]:
    """As ``glsk.ops.ibp_affine``."""
    (layer,) = decode(geometry)
    out_lower = lower.new_empty(weight.shape[0], lower.shape[1], layer.out_features)
    outputs = out_lower, torch.empty_like(out_lower)
    given = Given()
    kernel("ibp_affine", lower)(ibp_given(given, lower, upper, weight, bias, geometry, relu, leak, outputs))
    return outputs


@ops.crown_pass.implement("cpu")
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
    """As ``glsk.ops.crown_pass``."""
    C = rows_of(C, geometry, lines, x_L)
    lower, upper = empty_bounds(x_L, weights, C, geometry, bound_upper)
    known = known_lower, known_upper
    given = Given()
    kernel("crown_pass", x_L)(
        pass_given(
            given, x_L, x_U, weights, biases, lowers, uppers, lines, C, known, geometry, leaks, rule, (lower, upper)
        )
    )
    if C is not None and known_lower is not None and known_upper is not None:
        return keep_known(lower, upper, known_lower, known_upper)
    return lower, upper


def rows_of(C: Tensor | None, geometry: list[int], lines: list[Tensor], like: Tensor) -> Tensor | None:
    """C, or an identity where the kernel cannot take the last layer's own rows.

    That is where it is also the first layer, and where lines differ from row to row.
    """
    layers = decode(geometry)
    if C is not None or (len(layers) > 1 and not any(given.numel() and given.shape[2] > 1 for given in lines)):
        return C
    return _identity(layers[-1].out_features, like)


def _identity(rows: int, like: Tensor) -> Tensor:
    """The C of a layer's own rows, for every sample of ``like``."""
    return torch.eye(rows, dtype=like.dtype, device=like.device).expand(like.shape[1], -1, -1)


@ops.optimised_pass.implement("cpu")
def optimised_pass(
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
    iterations: int,
    lr: float,
) -> tuple[Tensor, Tensor]:
    """As ``glsk.ops.optimised_pass``."""
    operands = x_L, x_U, weights, biases, lowers, uppers, lines, C, known_lower, known_upper, geometry, leaks, rule
    if rule == "mask" or len(weights) == 1:  # upper lines that are not the rule's; nothing to choose
        reference: tuple[Tensor, Tensor] = ops.optimised_pass.reference(*operands, bound_upper, iterations, lr)
        return reference
    if C is None:
        C = _identity(decode(geometry)[-1].out_features, x_L)
    lower, upper = empty_bounds(x_L, weights, C, geometry, bound_upper)
    given = Given()
    nothing = None, None
    kernel("optimised_pass", x_L)(
        pass_given(
            given, x_L, x_U, weights, biases, lowers, uppers, lines, C, nothing, geometry, leaks, rule, (lower, upper)
        ),
        iterations,
        lr,
        DECAY,
    )
    return keep_known(lower, upper, known_lower, known_upper)


@ops.branch_pass.implement("cpu")
def branch_pass(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lower: Tensor,
    upper: Tensor,
    index: Tensor | None,
    splits: Tensor | None,
    C: Tensor,
    start: Tensor | None,
    threshold: Tensor | None,
    parent: Tensor | None,
    extra: Tensor | None,
    columns: Tensor | None,
    planes: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    iterations: int,
    lr_alpha: float,
    lr_beta: float,
    decay: float,
    duals: bool,
    coefficients: bool,
    corner: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As ``glsk.ops.branch_pass``; on as many threads as the scratch memory that is granted has room for."""
    require_in_range(lower, index, parents(splits, start, C), parent, extra, columns)
    bounds, *others = empty_outputs(x_L, lower, C, columns, duals, coefficients, corner)
    limit, scratch = workspace.granted(), branch_scratch(decode(geometry), x_L.dtype)
    given = Given()
    inputs = x_L, x_U, lower, upper, index, splits, C, start, threshold, parent, extra, columns, planes
    kernel("branch_pass", x_L)(
        given.layers(decode(geometry), weights, biases, leaks),
        C.shape[0],
        C.shape[1],
        lower.shape[1],
        (lower if columns is None else columns).shape[1],
        [address(given.contiguous(tensor)) for tensor in inputs],
        iterations,
        lr_alpha,
        lr_beta,
        decay,
        [address(bounds), *map(address, others)],
        max(1, torch.get_num_threads() if limit is None else min(torch.get_num_threads(), limit // scratch)),
    )
    return bounds, others[0], others[1], others[2]


@ops.plane_search.implement("cpu")
def plane_search(
    x_L: Tensor,
    x_U: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    lower: Tensor,
    upper: Tensor,
    splits: Tensor | None,
    C: Tensor,
    start: Tensor,
    units: Tensor,
    shares: Tensor,
    geometry: list[int],
    leaks: list[float],
    iterations: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As ``glsk.ops.plane_search``; on as many threads as the scratch memory that is granted has room for."""
    layers = decode(geometry)
    require_listed(units, layers[0].out_features)
    best, duals, found, lost = empty_found(lower, units, shares)
    found.copy_(shares)
    lost.zero_()
    limit, scratch = workspace.granted(), plane_scratch(layers, units.shape[1], x_L.dtype)
    given = Given()
    inputs = x_L, x_U, lower, upper, splits, C, start, units
    kernel("plane_search", x_L)(
        given.layers(layers, weights, biases, leaks),
        len(x_L),
        lower.shape[1],
        units.shape[1],
        [address(given.contiguous(tensor)) for tensor in inputs],
        iterations,
        LR_DUALS,
        LR_SHARES,
        decay(iterations),
        [address(best), address(duals), address(found), address(lost)],
        max(1, torch.get_num_threads() if limit is None else min(torch.get_num_threads(), limit // scratch)),
    )
    return best, duals, found, lost


@ops.chain_bounds.implement("cpu")
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
) -> tuple[Tensor, Tensor, Tensor]:
    """As ``glsk.ops.chain_bounds``."""
    lower, upper = empty_bounds(x_L, weights, C, geometry, bound_upper)
    hidden = empty_hidden(x_L, weights, geometry, keep)
    given = Given()
    kernel("chain_bounds", x_L)(
        chain_given(given, x_L, x_U, weights, biases, C, geometry, leaks, method, prune, (lower, upper, hidden))
    )
    return lower, upper, hidden


def sign_ascent(
    start: Tensor,
    lower: Tensor,
    upper: Tensor,
    weights: list[Tensor],
    biases: list[Tensor],
    rows: Tensor | None,
    labels: Tensor | None,
    geometry: list[int],
    leaks: list[float],
    step: float,
    steps: int,
) -> Tensor:
    """As ``glsk.ops.sign_ascent``."""
    members, (_, samples, points, inputs) = weights[0].shape[0], start.shape
    out = start.new_empty(members, samples, points, inputs)
    given = Given()
    x_lower, x_upper, box_stride = given.box(lower, upper)
    one = points > 1 and start.stride(2) == 0  # the points of a sample start as one
    first, start_stride = given.members(start[:, :, :1] if one else start)
    kernel("sign_ascent", start)(
        members=members,
        samples=samples,
        points=points,
        layers=given.layers(decode(geometry), weights, biases, leaks),
        start=first,
        start_stride=start_stride,
        start_points=1 if one else points,
        lower=x_lower,
        upper=x_upper,
        box_stride=box_stride,
        rows=address(given.contiguous(rows)),
        labels=address(given.contiguous(labels)),
        step=step,
        steps=steps,
        out=address(out),
        threads=torch.get_num_threads(),
    )
    return out


if hasattr(_C, "sign_ascent_float32"):  # an extension built before there was this kernel leaves it to the reference
    ops.sign_ascent.implement("cpu")(sign_ascent)


@ops.robust_cross_entropy.implement("cpu")
def robust_cross_entropy(margin_lower: Tensor) -> Tensor:
    """As ``glsk.ops.robust_cross_entropy``."""
    margin_lower = margin_lower.contiguous()
    loss = margin_lower.new_empty(margin_lower.shape[0])
    kernel("robust_cross_entropy", margin_lower)(
        address(margin_lower), *margin_lower.shape, address(loss), torch.get_num_threads()
    )
    return loss
