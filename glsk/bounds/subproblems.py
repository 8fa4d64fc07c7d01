"""Bounds of many subproblems of branch and bound: splits, optimised slopes and multipliers (beta-CROWN), warm starts.

:class:`Roots` holds what all subproblems of some images share; :meth:`Roots.bound` bounds any number of subproblems.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from glsk import backends, box, ops, population, workspace
from glsk.bounds.scores import babsr
from glsk.bounds.tightening import tightened
from glsk.geometry import encode
from glsk.network import Chain
from glsk.ops.branch_columns import Columns
from glsk.ops.branch_scratch import branch_scratch
from glsk.population import Params, Population

if TYPE_CHECKING:
    from glsk.module import BoundedModule

_TENSORS = 40
"""How many tensors of a row's units or inputs the plain PyTorch pass holds at once, at most."""


class SubproblemBounds(NamedTuple):
    """Of B subproblems of S rows each; what was not asked for is None. All but ``lower`` are of its iterate.

    U: the columns of the roots' tensors of subproblems, see :meth:`Roots.compact`.

    Attributes:
        lower: [B, S], the best bound met.
        duals: [B, S, U]: of a split unit its multiplier beta >= 0, of a free unstable one its lower slope alpha in
            [0, 1], else 0.
        coefficients: [B, S, U]: the row as a linear function of the outputs of free unstable units, else 0.
        corner: [B, S, *input_shape], in data units: where in the box the row's linear function is least.
    """

    lower: Tensor
    duals: Tensor | None
    coefficients: Tensor | None
    corner: Tensor | None


@dataclass(frozen=True)
class Roots:
    """A network, and I images with bounds of their hidden units: what their subproblems share.

    A packed tensor [.., U] holds the outputs of every affine layer but the last, in order, each in C, H, W order; what
    it holds of a layer that no activation follows is not read.

    Attributes:
        chain, weights: the network and its one weight set.
        x_L, x_U: the boxes [I, n], normalised.
        lower, upper: sound bounds of the hidden units, [I, U].
        columns: units [I, W] that the tensors of subproblems have columns for, as :meth:`compact` makes them; None: U
            columns, those of all units.
        planes: upper bounds of the first layer's activations that are affine in its inputs, beside their upper lines,
            as ``glsk.ops.branch_pass`` takes them; whoever gives them vouches for them.
        backend: of the op.
        memory_limit: bytes of scratch memory, beside inputs and outputs, that a call may use. The CPU's kernel needs
            about 1 KB a hidden unit and thread, however many subproblems there are: it runs on as many threads as there
            is room for, and where there is none for one, plain PyTorch computes some subproblems at a time.
    """

    chain: Chain
    weights: Population = field(repr=False)
    x_L: Tensor = field(repr=False)
    x_U: Tensor = field(repr=False)
    lower: Tensor = field(repr=False)
    upper: Tensor = field(repr=False)
    columns: Tensor | None = field(default=None, repr=False)
    planes: Tensor | None = field(default=None, repr=False)
    backend: str = "auto"
    memory_limit: int = 1 << 30

    @classmethod
    def of(
        cls,
        bounded: "BoundedModule",
        x_L: Tensor,
        x_U: Tensor,
        *,
        method: str = "CROWN",
        params: Params | None = None,
        hidden: Mapping[str, tuple[Tensor, Tensor]] | None = None,
        backend: str = "auto",
        memory_limit: int = 1 << 30,
        check_finite: bool = True,
    ) -> "Roots":
        """The images' boxes, and the bounds of their hidden units by ``method``.

        Args:
            x_L, x_U: [I, *input_shape], float32 or float64, in data units.
            params: one member, as ``BoundedModule.compute_bounds`` takes it; None: the module's own weights.
            hidden: sound bounds [I, n] of every layer that an activation follows, by the affine layer's name, instead
                of computing them.
            The others: as ``BoundedModule.intermediate_bounds``.

        Raises:
            TypeError, ValueError, glsk.BackendUnavailableError, glsk.NumericalError: as ``intermediate_bounds``; a
                ValueError where there is more than one member, or ``hidden`` does not fit.
        """
        chain = bounded.chain
        if hidden is None:
            found = bounded.intermediate_bounds(
                x_L=x_L, x_U=x_U, method=method, params=params, backend=backend, memory_limit=memory_limit,
                check_finite=check_finite,
            )  # fmt: skip
            hidden = {n: (low.flatten(0, -2), up.flatten(0, -2)) for n, (low, up) in found.items()}
        low, up = (end.detach() for end in box.resolve(chain, None, None, None, x_L, x_U, check_finite))
        named = population.resolve(chain, bounded.net, params)
        weights = population.assemble(chain, {name: value.detach() for name, value in named.items()})
        if weights.size != 1:
            raise ValueError(f"params: expected one member, got {weights.size}")
        lower, upper = (_packed(chain, hidden, end, low).detach() for end in (0, 1))
        backend = backends.resolve(backend, low.device, low.dtype)
        return cls(chain, weights, low, up, lower, upper, None, None, backend, memory_limit)

    @property
    def units(self) -> dict[str, slice]:
        """Where the units of each layer that an activation follows stand, by the affine layer's name."""
        found, at = {}, 0
        for layer in self.chain.layers[:-1]:
            if layer.geometry.relu:
                found[layer.name] = slice(at, at + layer.geometry.out_features)
            at += layer.geometry.out_features
        return found

    @property
    def unstable(self) -> Tensor:
        """Which units' bounds leave their sign open, bool [I, U]; those that no activation follows are not."""
        found = torch.zeros_like(self.lower, dtype=torch.bool)
        for part in self.units.values():
            found[:, part] = (self.lower[:, part] < 0) & (self.upper[:, part] > 0)
        return found

    def compact(self, columns: Tensor | None = None) -> "Roots":
        """Roots whose subproblems' tensors (splits, start, duals, coefficients) have columns for unstable units alone.

        Where a stable unit is never split, nothing is lost, and most of their memory and time is saved. W, the width,
        is that of the image of most unstable units.

        Args:
            columns: int64 [I, W], other units: of each image ascending, and U past the last.
        """
        if columns is None:
            has = self.unstable
            number = torch.arange(has.shape[1], device=has.device)
            width = int(has.sum(dim=1).max()) if len(has) else 0
            columns = torch.where(has, number, has.shape[1]).sort(dim=1).values[:, :width].contiguous()
        return replace(self, columns=columns)

    def take(self, images: Tensor) -> "Roots":
        """Roots of some of the images, [N], each as often as it is named."""
        columns, planes = (None if t is None else t[images] for t in (self.columns, self.planes))
        x_L, x_U, lower, upper = (t[images] for t in (self.x_L, self.x_U, self.lower, self.upper))
        return replace(self, x_L=x_L, x_U=x_U, lower=lower, upper=upper, columns=columns, planes=planes)

    def at_columns(self, values: Tensor) -> Tensor:
        """Of values [I or 1, U] of units those that have a column: [I or 1, W], 0 past the last."""
        if self.columns is None:
            return values
        return Columns(self.columns, self.lower.shape[1]).packed(values.expand(len(self.columns), -1))

    def bound(
        self,
        C: Tensor,
        *,
        index: Tensor | None = None,
        splits: Tensor | None = None,
        start: Tensor | None = None,
        parent: Tensor | None = None,
        extra: Tensor | None = None,
        threshold: float | Tensor | None = None,
        iterations: int = 20,
        lr_alpha: float = 0.1,
        lr_beta: float = 0.1,
        decay: float = 0.98,
        duals: bool = True,
        coefficients: bool = False,
        corner: bool = False,
    ) -> SubproblemBounds:
        """Lower bounds of rows of the outputs, for B subproblems.

        Subproblems of one image should stand side by side: 16 of float32 (8 of float64) that follow each other are
        computed together, and units that are stably inactive in all of them cost nothing.

        Args:
            C: rows [B, S, K].
            index: the image of each subproblem, int64 [B]; None: subproblem i is of image i.
            splits: int8 [B, U]: +1 where the unit's pre-activation is >= 0, -1 where it is <= 0, 0 where it is free.
            start: duals to start from, [B, S, U], as a call returned them. The entry of a unit that has been split
                since turns from a slope into a multiplier: write its start, for instance 0. None: CROWN's slopes and
                multipliers of 0; then no bound is looser than CROWN's with the same hidden bounds and splits.
            parent: int64 [B]: subproblem b has row parent[b] of ``splits`` and ``start``; None: row b.
            extra: int32 [B]: of each subproblem one more split, of column c, as c + 1 (active) or -c - 1 (inactive),
                whose multiplier starts from 0; 0: none.
            threshold: a number, or [B, S]: a row stops once its bound is greater.
            iterations: how often bounds are computed; 1 is one CROWN pass.
            lr_alpha, lr_beta, decay: Adam's steps for slopes and multipliers, times ``decay`` after every iteration.
            duals, coefficients, corner: which of these to return.

        Returns:
            :class:`SubproblemBounds`, never looser than what it started from. NaN where hidden bounds are not finite.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        limit = torch.full(C.shape[:2], threshold).to(C) if isinstance(threshold, int | float) else threshold
        backend, parts = self._parts(C, index, splits, start, limit, parent, extra)
        with workspace.grant(self.memory_limit):
            found = [
                ops.branch_pass(
                    self.x_L, self.x_U, list(self.weights.weights), list(self.weights.biases), self.lower, self.upper,
                    *part, self.columns, self.planes, encode(self.chain.geometry), list(self.chain.leaks),
                    iterations, lr_alpha, lr_beta, decay, duals, coefficients, corner, backend=backend,
                )
                for part in parts
            ]  # fmt: skip
        lower, *others = found[0] if len(found) == 1 else map(torch.cat, zip(*found, strict=True))
        wanted = duals, coefficients, corner
        a, b, x = (value if want else None for value, want in zip(others, wanted, strict=True))
        x = None if x is None else box.denormalised(self.chain, x.unflatten(-1, self.chain.input_shape))
        return SubproblemBounds(lower, a, b, x)

    def babsr(self, coefficients: Tensor, index: Tensor | None = None, splits: Tensor | None = None) -> Tensor:
        """The scores by which BaBSR splits the unit of the greatest (Bunel et al., 2020), [B, S, U].

        A score is the smaller of what the two children are thought to gain on their parent, without its sign; -inf
        where nothing is to split.

        Args:
            coefficients: [B, S, U], of :meth:`bound`.
            index, splits: as :meth:`bound` was given them.
        """
        return babsr(self, coefficients, index, splits)

    def tightened(
        self, iterations: int = 20, lr: float = 0.1, images: Tensor | None = None, outward: Tensor | None = None
    ) -> "Roots":
        """Roots whose unstable hidden units are bounded again, each by a pass with slopes optimised for it alone.

        Layer by layer, so that a layer is bounded with what the ones before it have gained: as auto_LiRPA's
        CROWN-Optimized. Never looser.

        Args:
            iterations, lr: of the ascent.
            images: numbers of the images to do this for, int64; None: all.
            outward: [I, U], by which a new bound is moved outward before it is used: what rounding may have moved it.
        """
        return tightened(self, iterations, lr, images, outward)

    def _parts(
        self,
        C: Tensor,
        index: Tensor | None,
        splits: Tensor | None,
        start: Tensor | None,
        limit: Tensor | None,
        parent: Tensor | None,
        extra: Tensor | None,
    ) -> tuple[str, list[tuple[Tensor | None, ...]]]:
        """Who computes them, and the subproblems in parts, within the memory limit.

        The plain pass needs memory for every row.
        """
        whole = index, splits, C, start, limit, parent, extra
        fits = branch_scratch(self.chain.geometry, self.x_L.dtype) <= self.memory_limit
        backend = self.backend if fits or not ops.branch_pass.implemented(self.backend) else "reference"
        if C.dim() != 3 or ops.branch_pass.implemented(backend):
            return backend, [whole]
        row = _TENSORS * (self.lower.shape[1] + self.x_L.shape[1] + C.shape[2]) * C.element_size()
        size = max(1, self.memory_limit // (row * max(1, C.shape[1])))
        if size >= C.shape[0]:
            return backend, [whole]
        if index is None:
            index = torch.arange(C.shape[0], device=C.device)
        parts: list[tuple[Tensor | None, ...]] = []
        for p in (slice(b, b + size) for b in range(0, C.shape[0], size)):
            of = p if parent is None else slice(None)  # all parents
            cuts = (p, of, p, of, p, p, p)
            given = index, splits, C, start, limit, parent, extra
            parts.append(tuple(None if t is None else t[cut] for t, cut in zip(given, cuts, strict=True)))
        return backend, parts


def _packed(chain: Chain, hidden: Mapping[str, tuple[Tensor, Tensor]], end: int, like: Tensor) -> Tensor:
    """One end of the bounds of all hidden layers, [I, U]; zeros where no activation follows."""
    found = []
    for layer in chain.layers[:-1]:
        shape = (like.shape[0], layer.geometry.out_features)
        if not layer.geometry.relu:
            found.append(like.new_zeros(shape))
            continue
        if layer.name not in hidden:
            raise ValueError(f"hidden: no bounds of layer {layer.name!r}")
        bound = hidden[layer.name][end]
        if tuple(bound.shape) != shape or bound.dtype != like.dtype or bound.device != like.device:
            raise ValueError(
                f"hidden[{layer.name!r}]: expected {list(shape)} of {like.dtype} on {like.device}, got "
                f"{list(bound.shape)} of {bound.dtype} on {bound.device}"
            )
        found.append(bound)
    return torch.cat(found, dim=1) if found else like.new_zeros(like.shape[0], 0)
