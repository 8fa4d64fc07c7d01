"""Bounds of subproblems twice over: float32 finds the multipliers, float64 with rigorous slack decides.

A float32 bound is never believed. What it says is done is bounded again by float64 with the same multipliers, over root
bounds that are float64's moved outward by their own rounding (:mod:`glsk.verify.outward`).
"""

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import glsk
from glsk import box
from glsk.bounds.subproblems import Roots, SubproblemBounds
from glsk.errors import NumericalError
from glsk.verify.goals import Goals
from glsk.verify.outward import hidden_and_rows
from glsk.verify.planes import possible, raised
from glsk.verify.witness import unsafe


class Networks:
    """One network, copied, in float64 (``exact``) and float32 (``single``), and both bounded."""

    def __init__(self, net: nn.Module, input_shape: tuple[int, ...]) -> None:
        self.exact = copy.deepcopy(net).to(device="cpu", dtype=torch.float64)
        self.single = copy.deepcopy(self.exact).float()
        for parameter in (*self.exact.parameters(), *self.single.parameters()):
            parameter.requires_grad_(False)
        self.bounded = glsk.BoundedModule(self.exact, input_shape)
        self.screening = glsk.BoundedModule(self.single, input_shape)

    def outputs(self, x: Tensor) -> Tensor:
        """Float64 outputs [N, K] of x [N, *input_shape] in data units. Raises NumericalError if one is not finite."""
        with torch.no_grad():
            found: Tensor = self.exact(x.double())
        if not bool(found.isfinite().all()):
            raise NumericalError("the network's outputs are NaN or infinite")
        return found

    def meets(self, goals: Goals, points: Tensor, goal: Tensor) -> Tensor:
        """Which points [N, *input_shape] have outputs, in real arithmetic, in their goal's unsafe set: bool [N]."""
        met = goals.met(self.outputs(points), goal)
        which = met.nonzero()[:, 0]
        if len(which):
            sets = goals.A[goal[which]], goals.b[goal[which]]
            met[which] = unsafe(self.bounded, points[which].double(), *sets)
        return met


_OF_BOXES = (
    "moved", "images", "columns", "_moved_at", "intercepts", "unstable", "losses", "least", "start", "shares",
)  # fmt: skip
"""Tensors of an engine whose first index is a box."""


class Engine:
    """Bounds over some boxes. Subproblems' tensors have W columns, those of the boxes' unstable units (``columns``).

    Args:
        networks: what is bounded.
        x_L, x_U: float64 boxes [I, *input_shape].
        backend, memory_limit: of the ops.
    """

    def __init__(
        self, networks: Networks, x_L: Tensor, x_U: Tensor, *, backend: str = "auto", memory_limit: int = 1 << 30
    ) -> None:
        self.networks = networks
        self.options: dict[str, Any] = {"backend": backend, "memory_limit": memory_limit}
        self.ends = x_L, x_U
        planes = possible(networks.bounded.chain)
        self.outward, _ = hidden_and_rows(networks.bounded, x_L, x_U, None, backend=backend, planes=planes)
        self.moved, self.images = self.outward.packed(), torch.arange(len(x_L))  # images: those of ``outward``
        self.hold(Roots.of(networks.bounded, x_L, x_U, hidden=self.outward.by_name(), **self.options))

    def take(self, boxes: Tensor) -> "Engine":
        """An engine of some of the boxes."""
        if torch.equal(boxes, torch.arange(len(self.ends[0]))):
            return self
        found = copy.copy(self)
        found.ends = self.ends[0][boxes], self.ends[1][boxes]
        for name in ("roots", "exact", "screens", "compact"):
            setattr(found, name, getattr(self, name).take(boxes))
        for name in _OF_BOXES:
            tensor = getattr(self, name)
            setattr(found, name, tensor if tensor is None else tensor[boxes])
        return found

    def hold(self, roots: Roots) -> None:
        """Take root bounds that hold."""
        self.roots, self.exact = roots, roots.compact()
        columns = self.exact.columns
        assert columns is not None
        self.columns = columns
        self._moved_at = self.exact.at_columns(self.moved)
        hidden = {
            name: (self.roots.lower[:, part].float(), self.roots.upper[:, part].float())
            for name, part in roots.units.items()
        }
        ends = (end.float() for end in self.ends)
        self.screens = Roots.of(self.networks.screening, *ends, hidden=hidden, **self.options)
        lower, upper = self.screens.lower, self.screens.upper
        self.unstable = self.screens.unstable
        # Of the lines above: what the bound of a row of coefficient -1 on the unit loses.
        self.intercepts = torch.where(self.unstable, upper * lower / (lower - upper), 0)
        # Rounded, a bound may reach 0, but none passes it: float32's unstable units have columns.
        self.compact = self.screens.compact(columns)
        self.losses = -self.compact.at_columns(self.intercepts)
        self.least = 1e-30 * self.compact.at_columns(self.unstable)  # of what a free unit loses
        self.start: Tensor | None = None
        self.shares: Tensor | None = None

    def raised(self, C: Tensor, iterations: int, splits: Tensor | None = None, duals: Tensor | None = None) -> "Engine":
        """An engine whose bounds use planes, for a row C [I, K] a box; sought under splits [I, W] from duals [I, W]."""
        first = self.roots.chain.geometry[0].out_features
        plain = replace(self.exact, planes=None), replace(self.compact, planes=None)
        planes = raised(
            *plain, self.moved[:, :first], C.float(), iterations, splits=splits,
            start=None if duals is None else duals[:, None], shares=self.shares,
        )  # fmt: skip
        found = copy.copy(self)
        found.exact, found.compact, found.start, found.shares = planes.exact, planes.single, planes.start, planes.shares
        whole = torch.cat((planes.losses, self.intercepts[:, first:]), dim=1)
        found.losses = -self.compact.at_columns(whole)
        return found

    def tighten(self, iterations: int) -> None:
        """Optimise the root bounds of every unstable unit."""
        self.hold(self.roots.tightened(iterations=iterations, outward=self.moved))

    def screen(self, C: Tensor, index: Tensor, **how: Any) -> SubproblemBounds:
        """Float32 bounds of float64 rows C [B, S, K] in boxes ``index`` [B]; ``how`` is of ``Roots.bound``."""
        return self.compact.bound(C.float(), index=index, **how)

    def proves(
        self,
        C: Tensor,
        b: Tensor,
        index: Tensor,
        splits: Tensor | None,
        duals: Tensor | None,
        magnitudes: Tensor | None = None,
    ) -> Tensor:
        """Of which subproblems some row of C y - b is positive everywhere: bool [B], by ``duals`` [B, S, W], proved.

        ``magnitudes``: of the terms of which rows C were added up in float64, as C; None: C is exact.
        """
        start = None if duals is None else duals.double()
        lower = self.exact.bound(C, index=index, splits=splits, start=start, iterations=1, duals=False).lower
        slack = self.slack(C if magnitudes is None else magnitudes, index, splits, start)
        return (lower - slack > b).any(dim=1)

    def slack(self, C: Tensor, index: Tensor, splits: Tensor | None, duals: Tensor | None) -> Tensor:
        """What float64 rounding may have added to bounds of these rows: [B, S]."""
        multipliers = None
        if splits is not None and duals is not None:
            multipliers = (duals.clamp(min=0) * (self._moved_at[index] * (splits != 0)).unsqueeze(1)).sum(-1)
        return self.outward.rows(C, index=self.images[index], multipliers=multipliers)

    def in_data_units(self, x: Tensor) -> Tensor:
        """A normalised input [n] in data units, [*input_shape]."""
        chain = self.roots.chain
        return box.denormalised(chain, x.unflatten(0, chain.input_shape)[None])[0]
