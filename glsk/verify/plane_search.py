"""Planes above the first layer's units are found by ascent of each row's bound: slopes, multipliers and shares."""

import torch
import torch.nn.functional as F
from torch import Tensor

from glsk.bounds.subproblems import Roots
from glsk.ops import affine
from glsk.ops.branch_planes import taps

LR_DUALS, LR_SHARES, LAST = 0.1, 0.3, 0.12
"""Adam's steps, and by how much the last is smaller than the first."""

NEWTON = 3
"""Steps to the shift that makes shares sum to what they must."""


class FirstLayer:
    """Some units of some images' first layers, [R, m] (their number past the last), and what moves them, [R, m, taps].

    Attributes:
        own, inputs: the units' weights (0 where they meet padding), and which inputs they meet.
        least, greatest: of each product of a weight and an input over the box, the ends.
        bias: [R, m].
    """

    def __init__(self, roots: Roots, units: Tensor) -> None:
        layer = roots.chain.geometry[0]
        inputs = F.pad(taps(layer, units), (0, 0, 0, 1), value=layer.in_features)
        own = roots.weights.weights[0][0].flatten(1).repeat_interleave(layer.out_height * layer.out_width, dim=0)
        self.inputs = inputs[units]
        self.own = F.pad(own, (0, 0, 0, 1))[units] * (self.inputs < layer.in_features)
        self.bias = F.pad(affine.per_unit(roots.weights.biases[0], layer)[0], (0, 1))[units]
        self.x_L, self.x_U = self.read(roots.x_L), self.read(roots.x_U)
        ends = self.own * self.x_L, self.own * self.x_U
        self.least, self.greatest = torch.minimum(*ends), torch.maximum(*ends)

    def read(self, x: Tensor) -> Tensor:
        """What the units meet of inputs [R, n]."""
        return F.pad(x, (0, 1)).gather(1, self.inputs.flatten(1)).view(self.inputs.shape)

    def constants(self, weights: Tensor, error: Tensor) -> Tensor:
        """The least constants [R, m] with which planes of these weights hold, moved outward; error: of the units.

        A plane is above the ReLU of w x + b where it is above 0 and above w x + b: least values of linear functions.
        """
        rest = weights - self.own
        zero = torch.minimum(weights * self.x_L, weights * self.x_U).sum(dim=-1)
        line = torch.minimum(rest * self.x_L, rest * self.x_U).sum(dim=-1)
        return torch.maximum(-zero, self.bias - line) + 4 * error


class PlaneSearch:
    """Slopes, multipliers and shares of rows, [R, ..], float32, by Adam.

    Args:
        roots: of a row an image.
        rows: [R, K].
        splits: int8 [R, U], or None.
        duals, coefficients: [R, U] where the ascent starts, and the row on free units' outputs there. Where that is not
            negative in the first layer, no plane is sought.
        shares: to start from, of all units; None: the chords'.
    """

    def __init__(
        self, roots: Roots, rows: Tensor, splits: Tensor | None, duals: Tensor, coefficients: Tensor,
        shares: Tensor | None,
    ) -> None:  # fmt: skip
        self.roots, self.rows, self.slopes = roots, rows, duals
        self.layers, self.leaks = roots.chain.geometry, roots.chain.leaks
        unstable, n = roots.unstable, self.layers[0].out_features
        self.split = torch.zeros_like(unstable, dtype=torch.int8) if splits is None else splits
        self.free = unstable & (self.split == 0)
        active = (self.split > 0) | ((roots.lower >= 0) & (self.split == 0))
        self.active = active.float()
        self.chord = torch.where(self.free, roots.upper / (roots.upper - roots.lower), self.active)
        self.intercept = torch.where(self.free, -self.chord * roots.lower, 0)
        self.listed = self.free[:, :n] & (coefficients[:, :n] < 0)
        number = torch.arange(n)
        most = int(self.listed.sum(dim=1).max())
        self.units = torch.where(self.listed, number, n).sort(dim=1).values[:, :most]
        self.first = FirstLayer(roots, self.units)
        self.moves = self.first.greatest - self.first.least
        self.wanted = self._of(roots.upper).unsqueeze(-1)
        if shares is None:
            self.shares = self._of(self.chord).unsqueeze(-1).expand_as(self.moves)
        else:
            self.shares = F.pad(shares, (0, 0, 0, 1)).gather(1, self.units.unsqueeze(-1).expand_as(self.moves))
        self.lost = torch.zeros_like(self.wanted[..., 0])
        self.best = torch.full((len(rows),), -torch.inf)
        self.kept: tuple[Tensor, Tensor, Tensor] = self.slopes, self.shares, coefficients[:, :n]

    def ascend(self, iterations: int) -> None:
        """Take steps; keep each row's best."""
        mean, square = [torch.zeros(())] * 2, [torch.zeros(())] * 2
        rate, decay = 1.0, LAST ** (1 / iterations)
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
            self.slopes = torch.where(self.free, self.slopes.clamp(max=1), self.slopes)
            self.shares = self._summing(self.shares + LR_SHARES * steps[1])
            rate *= decay

    def planes(self, exact: Roots, error: Tensor) -> Tensor:
        """[R, units, taps + 1], float64, as ``Roots`` has them; only where a row reads the unit's upper bound."""
        first = FirstLayer(exact, self.units)
        weights = self.kept[1].double().clamp(0, 1) * first.own
        constants = first.constants(weights, F.pad(error, (0, 1)).gather(1, self.units))
        found = torch.cat((weights, constants.unsqueeze(-1)), dim=-1)
        n = self.listed.shape[1]
        planes = found.new_zeros(len(found), n + 1, found.shape[2])
        planes[..., -1] = torch.inf
        planes.scatter_(1, self.units.unsqueeze(-1).expand_as(found), found)
        return planes[:, :n].contiguous()

    def duals(self) -> Tensor:
        """[R, U]: slopes and multipliers; of a unit's upper bound planes are all."""
        slopes, n = self.kept[0].clone(), self.listed.shape[1]
        slopes[:, :n].masked_fill_(self.listed & (self.kept[2] < 0), 0)
        return slopes

    def all_losses(self) -> Tensor:
        """[R, units]: no more than the chords lose at worst."""
        whole = self.intercept[:, : self.listed.shape[1]]
        lost = F.pad(whole, (0, 1)).scatter(1, self.units, self.lost.clamp(min=0))[:, :-1]
        return torch.minimum(whole, lost)

    def all_shares(self) -> Tensor:
        """[R, units, taps]: the chords' where none were sought."""
        n = self.listed.shape[1]
        whole = F.pad(self.chord[:, :n], (0, 1)).unsqueeze(-1).repeat(1, 1, self.shares.shape[2])
        return whole.scatter_(1, self.units.unsqueeze(-1).expand_as(self.shares), self.kept[1])[:, :n]

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
        roots, rows, constant = self.roots, self.rows, torch.zeros(len(self.rows))
        seen: list[Tensor] = []
        end = roots.lower.shape[1]
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
            constant = constant + rows @ affine.per_unit(roots.weights.biases[k], layer)[0]
            rows = affine.transposed(rows[None, :, None], roots.weights.weights[k], layer)[0, :, 0]
        self.above = self._of(seen[-1].clamp(max=0))
        terms = (self.above.unsqueeze(-1) * self.shares * self.first.own).flatten(1)
        rows = rows + F.pad(torch.zeros_like(rows), (0, 1)).scatter_add_(1, self.first.inputs.flatten(1), terms)[:, :-1]
        constant = constant - (self.above * (self.shares * self.first.least).sum(dim=-1)).sum(dim=1)
        corner = torch.where(rows >= 0, roots.x_L, roots.x_U)
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
            y = affine.forward(values[None], self.roots.weights.weights[k], layer)[0]
            y = y + affine.per_unit(self.roots.weights.biases[k], layer)[0]
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
