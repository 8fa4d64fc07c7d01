"""Adversarial points of a whole network, or of its last layers: ascent by the signs of gradients within boxes.

Projected gradient descent in the L-infinity norm (Madry et al., 2018); TAPS searches the boxes of hidden layers so (Mao
et al., 2023). In one op a small network's activations never leave the core that computes them.
"""

import torch
from torch import Tensor

from glsk.geometry import decode
from glsk.ops import affine, checks, interval
from glsk.ops.registry import Op


@torch.no_grad()
def sign_ascent_reference(
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
    """Points of boxes at which the cross-entropy, or linear functions of the logits, are large.

    Every step moves each coordinate by ``step`` times its half width of the box along the sign of the gradient there (0
    for none), and back into the box.

    Args:
        start: where the ascent starts, a point of the box for every row, [P or 1, B, S, n].
        lower, upper: the box, [P or 1, B, n].
        weights, biases: of all layers, [P, Cout, Cin, kh, kw] and [P, Cout].
        rows: the linear functions of the logits, [B, S, K], one a point; or None.
        labels: without rows, the true classes [B], int64: the points ascend the cross-entropy, and S is 1.
        geometry: all layers, encoded. The last one's outputs are the logits, before any activation.
        leaks: of all layers, the slope in [0, 1] below zero of the activation that follows; 0 is a ReLU.
        step: of one step, in half widths of the box.
        steps: how many; 0 returns the start.

    Returns:
        [P, B, S, n]. A gradient that is NaN moves nothing.
    """
    layers = decode(geometry)
    members, (_, samples, count, inputs) = weights[0].shape[0], start.shape
    point = start.expand(members, samples, count, inputs).clone()
    low, high = lower.unsqueeze(2), upper.unsqueeze(2)
    length = step * interval.radius(low, high)
    for _ in range(steps):
        after = _forward(point.flatten(1, 2), weights, biases, leaks, geometry)
        gradient = rows.flatten(0, 1).expand(members, -1, -1) if rows is not None else _by_logits(after[-1], labels)
        for k in reversed(range(len(layers))):
            if layers[k].relu and k + 1 < len(layers):
                gradient = torch.where(after[k] > 0, gradient, leaks[k] * gradient)
            gradient = affine.transposed(gradient.unsqueeze(2), weights[k], layers[k]).squeeze(2)
        point = torch.clamp(point + length * gradient.sign().view(point.shape), low, high)
    return point


def _forward(
    values: Tensor, weights: list[Tensor], biases: list[Tensor], leaks: list[float], geometry: list[int]
) -> list[Tensor]:
    """The outputs [P, M, out] of every layer, after the activation that follows; of the last before it."""
    after: list[Tensor] = []
    for layer, weight, bias, leak in zip(decode(geometry), weights, biases, leaks, strict=True):
        values = affine.forward(values, weight, layer) + affine.per_unit(bias, layer)[:, None]
        if layer.relu and len(after) + 1 < len(weights):
            values = torch.where(values > 0, values, leak * values)
        after.append(values)
    return after


def _by_logits(logits: Tensor, labels: Tensor | None) -> Tensor:
    """The gradient of the cross-entropy, softmax minus 1 for the true class, in units of the largest other's softmax.

    Only its signs count, and however sure a network is, these units let nothing vanish.
    """
    assert labels is not None
    true = torch.arange(logits.shape[2], device=logits.device) == labels[:, None]
    others = logits.masked_fill(true, float("-inf"))
    found = (others - others.amax(dim=2, keepdim=True)).exp()
    return torch.where(true, -found.sum(dim=2, keepdim=True), found)


def _check(
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
) -> None:
    layers = checks.chain("sign_ascent", tuple(geometry))
    tensors = checks.Tensors("sign_ascent", "start", start)
    tensors.lists(len(layers), weights=weights, biases=biases, leaks=leaks)
    members = tensors.members("weights[0]", weights[0])
    checks.chain_weights(tensors, layers, weights, biases, leaks, members)
    tensors.one("start", start, members, None, None, layers[0].in_features, shared=(0,))
    samples, count = start.shape[1:3]
    if samples < 1 or count < 1:
        raise ValueError(f"sign_ascent: start: no points in {list(start.shape)}")
    for name, end in (("lower", lower), ("upper", upper)):
        tensors.one(name, end, members, samples, layers[0].in_features, shared=(0,))
    if (rows is None) == (labels is None):
        raise ValueError("sign_ascent: rows: expected either rows or labels")
    if labels is not None and (
        labels.shape != (samples,) or labels.dtype != torch.int64 or labels.device != start.device or count != 1
    ):
        raise ValueError(
            f"sign_ascent: labels: expected [{samples}] of torch.int64 on {start.device} and one point a sample, "
            f"got {list(labels.shape)} of {labels.dtype} on {labels.device} and {count}"
        )
    tensors.optional("rows", rows, samples, count, layers[-1].out_features)
    if not 0 <= step < float("inf"):
        raise ValueError(f"sign_ascent: step: expected a finite number, at least 0, got {step}")
    if steps < 0:
        raise ValueError(f"sign_ascent: steps: expected at least 0, got {steps}")


sign_ascent = Op(
    "sign_ascent",
    "(Tensor start, Tensor lower, Tensor upper, Tensor[] weights, Tensor[] biases, Tensor? rows, Tensor? labels, "
    "int[] geometry, float[] leaks, float step, int steps, str backend) -> Tensor",
    sign_ascent_reference,
    lambda start, lower, upper, weights, *_: start.new_empty(weights[0].shape[0], *start.shape[1:]),
    _check,
    differentiable=False,
)
