"""Planes above the first layer's units are found by ascent of each row's bound, and made to hold."""

import torch
import torch.nn.functional as F
from torch import Tensor

from glsk import ops, workspace
from glsk.bounds.subproblems import Roots
from glsk.geometry import encode
from glsk.ops.plane_search import FirstLayer


class PlaneSearch:
    """Slopes, multipliers and shares of rows, [R, ..], float32, by ``glsk.ops.plane_search``.

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
        self.roots, self.rows, self.splits, self.slopes = roots, rows, splits, duals
        n = roots.chain.geometry[0].out_features
        lower, upper = roots.lower[:, :n], roots.upper[:, :n]
        free = roots.unstable[:, :n] if splits is None else roots.unstable[:, :n] & (splits[:, :n] == 0)
        self.chord = torch.where(free, upper / (upper - lower), 0)
        self.intercept = torch.where(free, -self.chord * lower, 0)
        listed = free & (coefficients[:, :n] < 0)
        most = int(listed.sum(dim=1).max())
        self.units = torch.where(listed, torch.arange(n), n).sort(dim=1).values[:, :most].contiguous()
        whole = self.chord.unsqueeze(-1) if shares is None else shares
        whole = whole.expand(-1, -1, roots.weights.weights[0][0, 0].numel())
        self.shares = F.pad(whole, (0, 0, 0, 1)).gather(1, self.units.unsqueeze(-1).expand(-1, -1, whole.shape[-1]))
        self.lost = torch.zeros_like(self.shares[..., 0])

    def ascend(self, iterations: int) -> None:
        """Take steps; keep each row's best."""
        roots = self.roots
        with workspace.grant(roots.memory_limit):
            _, self.slopes, self.shares, self.lost = ops.plane_search(
                roots.x_L, roots.x_U, list(roots.weights.weights), list(roots.weights.biases), roots.lower, roots.upper,
                self.splits, self.rows, self.slopes, self.units, self.shares, encode(roots.chain.geometry),
                list(roots.chain.leaks), iterations, backend=roots.backend,
            )  # fmt: skip

    def planes(self, exact: Roots, error: Tensor) -> Tensor:
        """[R, units, taps + 1], float64, as ``Roots`` has them; only where a row reads the unit's upper bound."""
        first = first_layer(exact, self.units)
        weights = self.shares.double().clamp(0, 1) * first.own
        held = constants(first, weights, F.pad(error, (0, 1)).gather(1, self.units))
        found = torch.cat((weights, held.unsqueeze(-1)), dim=-1)
        n = self.chord.shape[1]
        planes = found.new_zeros(len(found), n + 1, found.shape[2])
        planes[..., -1] = torch.inf
        planes.scatter_(1, self.units.unsqueeze(-1).expand_as(found), found)
        return planes[:, :n].contiguous()

    def all_losses(self) -> Tensor:
        """[R, units]: no more than the chords lose at worst."""
        lost = F.pad(self.intercept, (0, 1)).scatter(1, self.units, self.lost.clamp(min=0))[:, :-1]
        return torch.minimum(self.intercept, lost)

    def all_shares(self) -> Tensor:
        """[R, units, taps]: the chords' where none were sought."""
        whole = F.pad(self.chord, (0, 1)).unsqueeze(-1).repeat(1, 1, self.shares.shape[2])
        return whole.scatter_(1, self.units.unsqueeze(-1).expand_as(self.shares), self.shares)[:, :-1]


def first_layer(roots: Roots, units: Tensor) -> FirstLayer:
    """Units [R, m] of the first layer of R images."""
    weights = roots.weights
    return FirstLayer(
        roots.x_L, roots.x_U, weights.weights[0], weights.biases[0], roots.chain.geometry[0], units
    )  # fmt: skip


def constants(first: FirstLayer, weights: Tensor, error: Tensor) -> Tensor:
    """The least constants [R, m] with which planes of these weights hold, moved outward; error: of the units.

    A plane is above the ReLU of w x + b where it is above 0 and above w x + b: least values of linear functions.
    """
    rest = weights - first.own
    zero = torch.minimum(weights * first.x_L, weights * first.x_U).sum(dim=-1)
    line = torch.minimum(rest * first.x_L, rest * first.x_U).sum(dim=-1)
    return torch.maximum(-zero, first.bias - line) + 4 * error
