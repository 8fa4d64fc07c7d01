"""Bounds of many subproblems of branch and bound at once, each with slopes and multipliers of its own.

A subproblem is a box, splits (hidden units forced active or inactive) and rows to bound. By Lagrangian duality a split
z >= 0 takes beta z from the row, a split z <= 0 adds it, for any beta >= 0, and the split unit's own lines are exact
(beta-CROWN; Wang et al., 2021); every free unstable unit has a lower slope alpha in [0, 1] (alpha-CROWN; Xu et al.,
2021). Both are found by Adam with projection. The gradient needs no tape: a bound is the value of the row's own linear
network at the corner of the box that the row picks, so its derivative by a slope is the coefficient on that unit times
the value y that reaches it, and by a multiplier -y or +y.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from glsk import lines as lines_of
from glsk.geometry import Geometry, decode
from glsk.ops import affine, branch_checks
from glsk.ops.branch_columns import Columns, children, parents, require_in_range
from glsk.ops.branch_planes import Planes
from glsk.ops.crown_pass import concretise, through
from glsk.ops.registry import Op

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's."""


def branch_pass_reference(
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
    """Lower bounds of C times the last layer's outputs for B subproblems of I images, with optimised duals.

    U counts the outputs of layers 0..K-1 in order: a packed tensor holds all of them, and what it holds of a layer that
    no activation follows is not read, and is returned as 0. Subproblems need only unstable units: with ``columns``
    their tensors hold W units, where [.., U] stands below.

    Args:
        x_L, x_U: boxes of the images, [I, n].
        weights, biases: of layers 0..K, [1, Cout, Cin, kh, kw] and [1, Cout].
        lower, upper: bounds of the hidden units of the images, [I, U].
        index: the image of each subproblem, int64 [B]; None: subproblem i is of image i.
        splits: int8 [B, U], positive: the unit's pre-activation is >= 0; negative: <= 0; 0: free. None: all are free.
        C: rows, [B, S, out].
        start: duals to start from, [B, S, U], brought into their range; None: CROWN's slopes, and multipliers of 0.
        threshold: [B, S]; a row stops, with what it has, once its bound is greater. None: no row stops.
        parent: int64 [B]: subproblem b has row parent[b] of ``splits`` and ``start`` ([P, ..] then). None: its own.
        extra: int32 [B], one split beside those: c + 1 where column c is active, -c - 1 where it is inactive, 0: none.
            ``start`` is 0 there.
        columns: int64 [I, W], of each image the units of which ``splits``, ``start``, ``duals`` and ``coefficients``
            have a column, ascending, and U past the last; others are free, and ``start`` is 0 there. None: all units.
        planes: of every unit of layer 0 a second upper bound of its activation, affine in the layer's inputs: [I, units
            of layer 0, Cin kh kw + 1], the weights of what the unit reads, as its own are laid out (0 where that is
            padding), and a constant; not finite: it has none. A free unit of a coefficient < 0 is bounded by dual times
            its upper line and 1 - dual times its plane.
        geometry, leaks: of layers 0..K, as ``glsk.ops.crown_pass``.
        iterations: how often the bounds are computed; 1 is the plain pass.
        lr_alpha, lr_beta: Adam's steps, times ``decay`` after every iteration.
        duals, coefficients, corner: which of these are wanted; the others come back empty.

    Returns:
        lower: [B, S]; of every row the best bound met, so never looser than the first. NaN where an infinite bound of a
            hidden unit is read. The others are of the iterate with that bound:
        duals: [B, S, U]: of a split unit its multiplier beta >= 0; of a free unit with lower < 0 < upper the slope
            alpha in [0, 1] of its ReLU (a leak k makes it k + (1 - k) alpha), or with a plane, where its coefficient is
            negative, its upper line's share; else 0.
        coefficients: [B, S, U], of the row on the outputs of those free units (before it meets their lines); else 0.
        corner: [B, S, n], where in the box the row's linear function is least.
    """
    require_in_range(lower, index, parents(splits, start, C), parent, extra, columns)
    image = torch.arange(x_L.shape[0], device=x_L.device) if index is None else index
    where = Columns.of(columns, image, lower.shape[1])
    splits, start = map(where.unpacked, children(splits, start, parent, extra, where.width))
    units = Units.packed(lower[image], upper[image], splits, decode(geometry), leaks)
    above = None if planes is None else Planes.of(planes[image], units.free[:, : planes.shape[1]], decode(geometry)[0])
    network = Network(weights, biases, decode(geometry), x_L[image][None], x_U[image][None], above)
    chosen = units.first() if start is None else units.projected(start)
    chosen = chosen.expand(C.shape[0], C.shape[1], -1)
    mean, square = torch.zeros_like(chosen), torch.zeros_like(chosen)
    rates = torch.where(units.split[:, None] != 0, chosen.new_tensor(lr_beta), chosen.new_tensor(lr_alpha))
    best: Tensor | None = None
    kept: tuple[Tensor, ...] = ()
    going = torch.ones_like(C[..., 0], dtype=torch.bool)
    for t in range(1, iterations + 1):
        found = network.evaluate(units, C, chosen)
        values = found.bounds.masked_fill(found.bounds == float("inf"), float("nan"))
        better = going if best is None else going & ((values > best) | values.isnan())
        best = values if best is None else torch.where(better, values, best)
        now = chosen, found.coefficients, found.input
        if t == 1:
            kept = now
        else:
            kept = tuple(torch.where(better[..., None], n, k) for n, k in zip(now, kept, strict=True))
        going = going if threshold is None else going & ~(best > threshold)
        if t == iterations or not going.any():
            break
        gradient = network.gradient(units, found)
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient
        square = BETAS[1] * square + (1 - BETAS[1]) * gradient**2
        step = mean / (1 - BETAS[0] ** t) / ((square / (1 - BETAS[1] ** t)).sqrt() + EPSILON)
        chosen = units.projected(chosen + rates * step)
        rates = rates * decay
    assert best is not None
    ends = network.x_L[0, :, None], network.x_U[0, :, None]
    return (
        best,
        where.packed(kept[0]).contiguous() if duals else best.new_empty(0),
        where.packed(kept[1] * units.free[:, None]) if coefficients else best.new_empty(0),
        torch.where(kept[2] >= 0, *ends) if corner else best.new_empty(0),
    )


@dataclass(frozen=True)
class Units:
    """The hidden units of B subproblems, all [B, U]: lines of the stable and the split, and who has a dual."""

    lower: Tensor
    upper: Tensor
    split: Tensor
    free: Tensor
    leaks: Tensor
    sizes: tuple[int, ...]

    @classmethod
    def packed(
        cls, lower: Tensor, upper: Tensor, splits: Tensor | None, layers: list[Geometry], leaks: list[float]
    ) -> "Units":
        sizes = tuple(layer.out_features for layer in layers[:-1])
        counts = torch.tensor(sizes, dtype=torch.int64, device=lower.device)

        def per_unit(values: list[float]) -> Tensor:
            return torch.tensor(values[:-1], dtype=lower.dtype, device=lower.device).repeat_interleave(counts)

        active = per_unit([float(layer.relu) for layer in layers]) > 0
        split = torch.zeros_like(lower, dtype=torch.int8) if splits is None else splits.sign() * active
        return cls(lower, upper, split, (lower < 0) & (upper > 0) & (split == 0) & active, per_unit(leaks), sizes)

    def first(self) -> Tensor:
        """CROWN's slopes, no multipliers: [B, 1, U]."""
        return self.projected(lines_of.adaptive(self.lower, self.upper)[:, 0] * (self.split == 0)).unsqueeze(1)

    def projected(self, duals: Tensor) -> Tensor:
        """Duals [B, S, U] or [B, U] in their ranges; 0 where a unit has none."""
        free, split = (m if duals.dim() == 2 else m[:, None] for m in (self.free, self.split != 0))
        return torch.where(free, duals.clamp(0, 1), torch.where(split, duals.clamp(min=0), 0))

    def lines(self, duals: Tensor) -> Tensor:
        """[B, S, 4, U]."""
        made = lines_of.free(self.lower[:, None], self.upper[:, None], duals)
        exact = made.new_zeros(4)
        exact[::2] = 1
        exact = (self.split > 0)[:, None, None] * exact[:, None]
        finite = (self.lower.isfinite() & self.upper.isfinite())[:, None, None]
        made = torch.where((self.split != 0)[:, None, None] & finite, exact, made)
        is_slope = 1 - torch.arange(4, dtype=made.dtype, device=made.device) % 2
        return (1 - self.leaks) * made + self.leaks * is_slope[:, None]

    def multipliers(self, duals: Tensor) -> Tensor:
        """What the splits add to a row's coefficients on the units' inputs: [B, S, U]."""
        return -self.split[:, None] * duals


@dataclass(frozen=True)
class Found:
    """One evaluation: bounds [B, S], the row on activations' outputs and as it meets lines [B, S, U], on the input."""

    bounds: Tensor
    coefficients: Tensor
    duals: Tensor
    lines: Tensor
    input: Tensor


@dataclass(frozen=True)
class Network:
    """Layers 0..K, the boxes of the subproblems, [1, B, n], and planes above the units of layer 0."""

    weights: list[Tensor]
    biases: list[Tensor]
    layers: list[Geometry]
    x_L: Tensor
    x_U: Tensor
    planes: Planes | None = None

    def evaluate(self, units: Units, C: Tensor, duals: Tensor) -> Found:
        """Down the layers."""
        lines, added = units.lines(duals), units.multipliers(duals)
        lines_by_layer, added_by_layer = list(lines.split(units.sizes, dim=-1)), added.split(units.sizes, dim=-1)
        rows, constant, seen = C[None], C.new_zeros(()), []
        for k in reversed(range(len(self.layers))):
            layer = self.layers[k]
            if k + 1 < len(self.layers):
                seen.append(rows[0] if layer.relu else torch.zeros_like(rows[0]))
                if layer.relu:
                    if k == 0 and self.planes is not None:
                        lines_by_layer[0] = self.planes.shared(lines_by_layer[0], duals[..., : units.sizes[0]])
                    rows, gain = through(rows, lines_by_layer[k][None])
                    rows, constant = rows + added_by_layer[k], constant + gain
            constant = constant + (rows @ affine.per_unit(self.biases[k], layer)[:, None, :, None]).squeeze(-1)
            rows = affine.transposed(rows, self.weights[k], layer)
            if k == 0 and self.planes is not None:
                more, gain = self.planes.spread(seen[-1], duals[..., : units.sizes[0]])
                rows, constant = rows + more, constant + gain
        bounds = concretise(rows, constant, self.x_L, self.x_U)[0]
        coefficients = torch.cat(seen[::-1], dim=-1) if seen else bounds.new_empty(*bounds.shape, 0)
        return Found(bounds, coefficients, duals, lines, rows[0])

    def gradient(self, units: Units, found: Found) -> Tensor:
        """By the duals, [B, S, U]: up the layers from the corner of the box that each row picks."""
        corner = torch.where(found.input >= 0, self.x_L[0, :, None], self.x_U[0, :, None])
        values = corner[None]
        by: list[Tensor] = []
        coefficients, lines = (t.split(units.sizes, dim=-1) for t in (found.coefficients, found.lines))
        splits, leaks = (t.split(units.sizes, dim=-1) for t in (units.split, units.leaks))
        for k, layer in enumerate(self.layers[:-1]):
            flat = affine.forward(values.flatten(1, 2), self.weights[k], layer)
            values = flat.view(*values.shape[:3], -1) + affine.per_unit(self.biases[k], layer)[:, None, None]
            y, below = values[0], coefficients[k] >= 0
            by_slope = (1 - leaks[k]) * coefficients[k].clamp(min=0) * y
            split = splits[k][:, None]
            by.append(torch.where(split != 0, -split * y, by_slope))
            if layer.relu:
                lower_slope, lower_intercept, upper_slope, upper_intercept = lines[k].unbind(-2)
                most = upper_slope * values + upper_intercept
                if k == 0 and self.planes is not None:
                    duals = found.duals[..., : units.sizes[0]]
                    mixed, slopes = self.planes.mixed(most[0], corner, coefficients[0], duals)
                    most, by[0] = mixed[None], by[0] + slopes
                values = torch.where(below, lower_slope * values + lower_intercept, most)
        return torch.cat(by, dim=-1) if by else found.coefficients


def _fake(
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
    return empty_outputs(x_L, lower, C, columns, duals, coefficients, corner)


def empty_outputs(
    x_L: Tensor, lower: Tensor, C: Tensor, columns: Tensor | None, duals: bool, coefficients: bool, corner: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Uninitialised; empty where not wanted."""
    shape, width = C.shape[:2], (lower if columns is None else columns).shape[1]
    return (
        C.new_empty(shape),
        C.new_empty((*shape, width) if duals else 0),
        C.new_empty((*shape, width) if coefficients else 0),
        C.new_empty((*shape, x_L.shape[1]) if corner else 0),
    )


branch_pass = Op(
    "branch_pass",
    "(Tensor x_L, Tensor x_U, Tensor[] weights, Tensor[] biases, Tensor lower, Tensor upper, Tensor? index, "
    "Tensor? splits, Tensor C, Tensor? start, Tensor? threshold, Tensor? parent, Tensor? extra, "
    "Tensor? columns, Tensor? planes, int[] geometry, float[] leaks, int iterations, float lr_alpha, float lr_beta, "
    "float decay, bool duals, bool coefficients, bool corner, str backend) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    branch_pass_reference,
    _fake,
    branch_checks.branch_pass,
    differentiable=False,
)
