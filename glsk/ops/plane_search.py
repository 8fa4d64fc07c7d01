"""Planes above the first layer's units, sought for each row by ascent of its bound.

Over a box the ReLU of w x + b lies below (t w) x + c for any shares t in [0, 1] of the weights, if c is large enough.
With sum t_i d_i = u, where d_i = |w_i| (x_U - x_L)_i is what an input moves the unit by and u its upper bound, the
least c is -sum t_i min(w_i x_L_i, w_i x_U_i): these planes make the ReLU's concave envelope (Anderson et al., 2020, in
another form). Shares, lower slopes and multipliers of splits ascend together, by Adam with projection; the gradient
needs no tape (see :mod:`glsk.ops.branch_pass`): by a share it is the row's coefficient on the unit, where negative,
times w_i x_i - min(w_i x_L_i, w_i x_U_i) at the corner x that the row picks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from glsk.geometry import Geometry, decode
from glsk.ops import affine, branch_checks
from glsk.ops.branch_columns import require_listed
from glsk.ops.branch_planes import taps
from glsk.ops.registry import Op

LR_DUALS, LR_SHARES, LAST = 0.1, 0.3, 0.12
"""Adam's steps, and by how much the last is smaller than the first."""

NEWTON = 3
"""Steps to the shift that makes shares sum to what they must."""


def decay(iterations: int) -> float:
    """Of the steps, from one to the next."""
    return float(LAST ** (1 / iterations))


@torch.no_grad()
def plane_search_reference(
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
    """Duals and shares for which bounds of rows, one of each of R boxes, are high; nothing here is proved.

    U counts the outputs of layers 0..K-1, as in ``glsk.ops.branch_pass``.

    Args:
        x_L, x_U: boxes, [R, n].
        weights, biases: of layers 0..K, K at least 1, [1, Cout, Cin, kh, kw] and [1, Cout]; the activation of layer 0
            is a ReLU without leak.
        lower, upper: bounds of the hidden units, [R, U].
        splits: int8 [R, U], as in ``branch_pass``; None: all units are free.
        C: rows, [R, out].
        start: duals to start from, [R, U].
        units: int64 [R, m], of each row free unstable units of layer 0, ascending, and the number of layer 0's units
            past the last. Their planes are sought; they have no other upper bound here.
        shares: to start from, [R, m, Cin kh kw]; what the unit's weights are, as these are laid out.
        geometry, leaks: of layers 0..K, as ``glsk.ops.crown_pass``.
        iterations: how often the bounds are computed.

    Returns:
        lower: [R], of every row the best bound met, -inf if none is a number. The others are of the iterate with that
            bound.
        duals: [R, U], as ``branch_pass`` has them, but 0 where the row reads a plane.
        shares: [R, m, Cin kh kw].
        lost: [R, m], by how much a plane exceeds its ReLU at the corners that the row picks, on average over the second
            half of the iterations; 0 for one iteration.
    """
    require_listed(units, decode(geometry)[0].out_features)
    ascent = _Ascent(
        x_L, x_U, weights, biases, lower, upper, splits, C, start, units, shares, decode(geometry), leaks
    )  # fmt: skip
    ascent.run(iterations)
    return ascent.best, ascent.duals(), ascent.kept[1].contiguous(), ascent.lost


class FirstLayer:
    """Some units of layer 0, [R, m] (their number past the last), and what moves them, [R, m, taps].

    Attributes:
        own, inputs: the units' weights (0 where they meet padding), and which inputs they meet.
        least, greatest: of each product of a weight and an input over the box, the ends.
        bias: [R, m].
    """

    def __init__(
        self, x_L: Tensor, x_U: Tensor, weight: Tensor, bias: Tensor, layer: Geometry, units: Tensor
    ) -> None:  # fmt: skip
        inputs = F.pad(taps(layer, units), (0, 0, 0, 1), value=layer.in_features)
        own = weight[0].flatten(1).repeat_interleave(layer.out_height * layer.out_width, dim=0)
        self.inputs = inputs[units]
        self.own = F.pad(own, (0, 0, 0, 1))[units] * (self.inputs < layer.in_features)
        self.bias = F.pad(affine.per_unit(bias, layer)[0], (0, 1))[units]
        self.x_L, self.x_U = self.read(x_L), self.read(x_U)
        ends = self.own * self.x_L, self.own * self.x_U
        self.least, self.greatest = torch.minimum(*ends), torch.maximum(*ends)

    def read(self, x: Tensor) -> Tensor:
        """What the units meet of inputs [R, n]."""
        return F.pad(x, (0, 1)).gather(1, self.inputs.flatten(1)).view(self.inputs.shape)


class _Ascent:
    def __init__(
        self, x_L: Tensor, x_U: Tensor, weights: list[Tensor], biases: list[Tensor], lower: Tensor, upper: Tensor,
        splits: Tensor | None, C: Tensor, start: Tensor, units: Tensor, shares: Tensor, layers: list[Geometry],
        leaks: list[float],
    ) -> None:  # fmt: skip
        self.x_L, self.x_U, self.weights, self.biases = x_L, x_U, weights, biases
        self.layers, self.leaks, self.rows, self.units, n = layers, leaks, C, units, layers[0].out_features
        sizes = torch.tensor([layer.out_features for layer in layers[:-1]], device=lower.device)
        relu = torch.tensor([bool(layer.relu) for layer in layers[:-1]], device=lower.device).repeat_interleave(sizes)
        self.split = torch.zeros_like(lower, dtype=torch.int8) if splits is None else splits.sign() * relu
        self.free = (lower < 0) & (upper > 0) & (self.split == 0) & relu
        self.active = ((self.split > 0) | ((lower >= 0) & (self.split == 0))).to(lower)
        self.chord = torch.where(self.free, upper / (upper - lower), self.active)
        self.intercept = torch.where(self.free, -self.chord * lower, 0)
        listed = torch.zeros(len(C), n + 1, dtype=torch.bool, device=lower.device).scatter_(1, units, True)
        self.listed = listed[:, :n] & self.free[:, :n]
        self.has = F.pad(self.listed, (0, 1)).gather(1, units)
        self.first = FirstLayer(x_L, x_U, weights[0], biases[0], layers[0], units)
        self.moves = self.first.greatest - self.first.least
        self.padding = self.first.inputs == layers[0].in_features
        self.wanted = self._of(upper).unsqueeze(-1)
        self.slopes = torch.where(self.free, start.clamp(0, 1), start.clamp(min=0) * (self.split != 0))
        self.shares = shares
        self.lost = torch.zeros_like(self.wanted[..., 0])
        self.best = torch.full_like(lower[:, 0], -torch.inf)
        self.kept = self.slopes, self.shares, torch.zeros_like(lower[:, :n])

    def run(self, iterations: int) -> None:
        """Take steps; keep each row's best."""
        mean, square = [torch.zeros(())] * 2, [torch.zeros(())] * 2
        rate, by_step = 1.0, decay(iterations)
        for i in range(1, iterations + 1):
            bound, corner, coefficients = self._down()
            better = bound > self.best
            self.best = torch.where(better, bound, self.best)
            now = self.slopes, self.shares, coefficients[0]
            slopes, shares, row = (
                torch.where(better.view(-1, *[1] * (n.dim() - 1)), n, k) for n, k in zip(now, self.kept, strict=True)
            )
            self.kept = slopes, shares, row
            if i == iterations:
                return
            *slopes_of, lost = self._up(corner, coefficients)
            if 2 * i >= iterations:  # corners of the first steps say little
                self.lost = self.lost + lost / (iterations - (iterations + 1) // 2)
            steps = []
            for k, by in enumerate(slopes_of):
                mean[k], square[k] = 0.9 * mean[k] + 0.1 * by, 0.999 * square[k] + 0.001 * by * by
                root = (square[k] / (1 - 0.999**i)).sqrt_().add_(1e-8)
                steps.append(mean[k] / root * (rate / (1 - 0.9**i)))
            self.slopes = (self.slopes + LR_DUALS * steps[0]).clamp_(min=0)
            self.slopes = torch.where(self.free, self.slopes.clamp(max=1), self.slopes * (self.split != 0))
            self.shares = torch.where(self.padding, self.shares, self._summing(self.shares + LR_SHARES * steps[1]))
            rate *= by_step

    def duals(self) -> Tensor:
        slopes, n = self.kept[0].clone(), self.listed.shape[1]
        slopes[:, :n].masked_fill_(self.listed & (self.kept[2] < 0), 0)
        return slopes

    def _of(self, values: Tensor) -> Tensor:
        """Of values of all units those of the listed ones, and 0."""
        return F.pad(values[:, : self.listed.shape[1]], (0, 1)).gather(1, self.units)

    def _summing(self, shares: Tensor) -> Tensor:
        """Shifted, and cut to [0, 1], so that they sum to what they must, about: by Newton's steps."""
        shift = torch.zeros_like(self.wanted)
        for _ in range(NEWTON):
            moved = shares + shift
            cut = moved.clamp(0, 1)
            missing = self.wanted - (self.moves * cut).sum(dim=-1, keepdim=True)
            slope = (self.moves * (moved == cut)).sum(dim=-1, keepdim=True)
            shift = shift + (missing / slope.clamp(min=1e-6)).clamp(-1, 1)
        return (shares + shift).clamp_(0, 1)

    def _down(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Bounds [R], the corners [R, n] that the rows pick, and by layer the coefficients on activations."""
        rows, constant = self.rows, torch.zeros_like(self.best)
        seen: list[Tensor] = []
        end = self.free.shape[1]
        for k in reversed(range(len(self.layers))):
            layer = self.layers[k]
            if k + 1 < len(self.layers):
                part = slice(end - layer.out_features, end)
                end = part.start
                seen.append(rows)
                if layer.relu:
                    slope, intercept = self._lines(k, part)
                    below, above = rows.clamp(min=0), rows.clamp(max=0)
                    constant = constant + (above * intercept).sum(dim=1)
                    rows = below * self._passed(k, part) + above * slope - self.split[:, part] * self.slopes[:, part]
            constant = constant + rows @ affine.per_unit(self.biases[k], layer)[0]
            rows = affine.transposed(rows[None, :, None], self.weights[k], layer)[0, :, 0]
        self.above = self._of(seen[-1].clamp(max=0)) * self.has
        terms = (self.above.unsqueeze(-1) * self.shares * self.first.own).flatten(1)
        rows = rows + F.pad(torch.zeros_like(rows), (0, 1)).scatter_add_(1, self.first.inputs.flatten(1), terms)[:, :-1]
        constant = constant - (self.above * (self.shares * self.first.least).sum(dim=-1)).sum(dim=1)
        corner = torch.where(rows >= 0, self.x_L, self.x_U)
        return (rows * corner).sum(dim=1) + constant, corner, seen[::-1]

    def _up(self, corner: Tensor, coefficients: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The bounds' slopes by slopes and by shares, and what planes lose at the corner."""
        values, at, by = corner, 0, []
        reached = self.first.own * self.first.read(corner) - self.first.least
        plane = (self.shares * reached).sum(dim=-1)
        lost = plane
        for k, layer in enumerate(self.layers[:-1]):
            part = slice(at, at + layer.out_features)
            at = part.stop
            y = affine.forward(values[None], self.weights[k], layer)[0]
            y = y + affine.per_unit(self.biases[k], layer)[0]
            a = coefficients[k]
            slopes = a.clamp(min=0) * y * self.free[:, part] * (1 - self.leaks[k])
            by.append(slopes - self.split[:, part] * y)
            values = y
            if layer.relu:
                slope, intercept = self._lines(k, part)
                most = slope * y + intercept
                if k == 0:
                    lost = plane - self._of(y.clamp(min=0))
                    most = F.pad(most, (0, 1)).scatter(1, self.units, plane)[:, :-1]
                values = torch.where(a < 0, most, self._passed(k, part) * y)
        return torch.cat(by, dim=1), self.above.unsqueeze(-1) * reached, lost

    def _passed(self, k: int, part: slice) -> Tensor:
        """Slopes of the lower lines."""
        relu = torch.where(self.free[:, part], self.slopes[:, part], self.active[:, part])
        return self.leaks[k] + (1 - self.leaks[k]) * relu

    def _lines(self, k: int, part: slice) -> tuple[Tensor, Tensor]:
        """Upper lines; zeros where a plane stands for them."""
        chord, intercept, rest = self.chord[:, part], self.intercept[:, part], 1 - self.leaks[k]
        if k == 0:
            chord, intercept = (t.masked_fill(self.listed, 0) for t in (chord, intercept))
        return self.leaks[k] + rest * chord, rest * intercept


def _fake(
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
    return empty_found(lower, units, shares)


def empty_found(lower: Tensor, units: Tensor, shares: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Uninitialised results."""
    return (
        lower.new_empty(len(lower)),
        lower.new_empty(lower.shape),
        shares.new_empty(shares.shape),
        lower.new_empty(units.shape),
    )


plane_search = Op(
    "plane_search",
    "(Tensor x_L, Tensor x_U, Tensor[] weights, Tensor[] biases, Tensor lower, Tensor upper, Tensor? splits, "
    "Tensor C, Tensor start, Tensor units, Tensor shares, int[] geometry, float[] leaks, int iterations, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    plane_search_reference,
    _fake,
    branch_checks.plane_search,
    differentiable=False,
)
