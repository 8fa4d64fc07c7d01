"""Bounds of many subproblems of branch and bound: splits, optimised slopes and multipliers (beta-CROWN), warm starts.

:class:`Roots` holds what all subproblems of some images share; :meth:`Roots.bound` bounds any number of subproblems.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from glsk import backends, box, ops, population
from glsk.geometry import encode
from glsk.lines.relu import classify, upper_line
from glsk.network import Chain
from glsk.ops import affine
from glsk.population import Params, Population

if TYPE_CHECKING:
    from glsk.module import BoundedModule

_TENSORS = 40
"""How many tensors of a row's units or inputs the plain PyTorch pass holds at once, at most."""


class SubproblemBounds(NamedTuple):
    """Of B subproblems of S rows each; what was not asked for is None. All but ``lower`` are of its iterate.

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
        backend: of the op.
        memory_limit: bytes of scratch memory, beside inputs and outputs, that a call may use. The CPU's kernel needs
            about 1 KB a hidden unit and thread, however many subproblems there are.
    """

    chain: Chain
    weights: Population = field(repr=False)
    x_L: Tensor = field(repr=False)
    x_U: Tensor = field(repr=False)
    lower: Tensor = field(repr=False)
    upper: Tensor = field(repr=False)
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
        return cls(chain, weights, low, up, lower, upper, backend, memory_limit)

    @property
    def units(self) -> dict[str, slice]:
        """Where the units of each layer that an activation follows stand, by the affine layer's name."""
        found, at = {}, 0
        for layer in self.chain.layers[:-1]:
            if layer.geometry.relu:
                found[layer.name] = slice(at, at + layer.geometry.out_features)
            at += layer.geometry.out_features
        return found

    def bound(
        self,
        C: Tensor,
        *,
        index: Tensor | None = None,
        splits: Tensor | None = None,
        start: Tensor | None = None,
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
        found = [
            ops.branch_pass(
                self.x_L, self.x_U, list(self.weights.weights), list(self.weights.biases), self.lower, self.upper,
                *part, encode(self.chain.geometry), list(self.chain.leaks), iterations, lr_alpha, lr_beta, decay,
                duals, coefficients, corner, backend=self.backend,
            )
            for part in self._parts(index, splits, C, start, limit)
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
        units = classify(self.lower, self.upper)
        slope, intercept = upper_line(self.lower, self.upper, units)
        layers = [(layer.geometry, layer.leak) for layer in self.chain.layers[:-1]]

        def per_unit(values: list[float]) -> Tensor:
            counts = torch.tensor([g.out_features for g, _ in layers], device=slope.device)
            return torch.tensor(values, dtype=slope.dtype, device=slope.device).repeat_interleave(counts)

        rest = per_unit([1 - leak for _, leak in layers])
        bias = torch.cat([affine.per_unit(b, g)[0] for b, (g, _) in zip(self.weights.biases, layers, strict=False)])
        shut = units.active | units.inactive | (per_unit([g.relu for g, _ in layers]) == 0)

        def of(per_image: Tensor) -> Tensor:
            """[B or 1, 1, U]."""
            return (per_image if index is None or len(per_image) == 1 else per_image[index]).unsqueeze(1)

        through = coefficients * (rest * bias)
        scores = through.clamp(max=0).addcmul_(of(slope), through, value=-1)
        scores.addcmul_(of(rest * intercept), coefficients.clamp(max=0), value=-1).abs_()
        scores.masked_fill_(of(shut), float("-inf"))
        return scores if splits is None else scores.masked_fill_(splits[:, None] != 0, float("-inf"))

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
        lower, upper = self.lower.clone(), self.upper.clone()
        at = 0
        for k, layer in enumerate(self.chain.layers[:-1]):
            n = layer.geometry.out_features
            part = slice(at, at + n)
            at += n
            if k == 0 or not layer.geometry.relu:  # bounds of an affine function of the box are exact
                continue
            unstable = (lower[:, part] < 0) & (upper[:, part] > 0)
            if images is not None:
                asked = torch.zeros(len(lower), dtype=torch.bool, device=lower.device)
                asked[images] = True
                unstable &= asked[:, None]
            below = replace(
                self,
                chain=replace(self.chain, layers=self.chain.layers[: k + 1]),
                weights=Population(self.weights.weights[: k + 1], self.weights.biases[: k + 1]),
                lower=lower[:, : part.start],
                upper=upper[:, : part.start],
            )
            image, unit = unstable.nonzero(as_tuple=True)
            if not len(image):
                continue
            for i, u in zip(*(t.split(self._rows(n)) for t in (image, unit)), strict=True):
                for side, ends in ((1.0, lower), (-1.0, upper)):
                    C = torch.zeros(len(u), 1, n, dtype=lower.dtype, device=lower.device)
                    C.scatter_(2, u[:, None, None], side)
                    found = below.bound(C, index=i, iterations=iterations, lr_alpha=lr, duals=False).lower[:, 0]
                    found = found if outward is None else found - outward[i, u + part.start]
                    now = ends[i, u + part.start]
                    better = torch.maximum(found, now) if side > 0 else torch.minimum(-found, now)
                    ends[i, u + part.start] = better
        return replace(self, lower=lower, upper=upper)

    def _rows(self, outputs: int) -> int:
        """How many rows of a layer of so many outputs a quarter of the memory limit holds."""
        return max(1, self.memory_limit // (4 * outputs * self.x_L.element_size()))

    def _parts(self, *per_subproblem: Tensor | None) -> list[tuple[Tensor | None, ...]]:
        """The subproblems in parts within the memory limit: the plain pass needs memory for every row."""
        index, splits, C, start, limit = per_subproblem
        if C is None or C.dim() != 3 or ops.branch_pass.implemented(self.backend):
            return [per_subproblem]
        row = _TENSORS * (self.lower.shape[1] + self.x_L.shape[1] + C.shape[2]) * C.element_size()
        size = max(1, self.memory_limit // (row * max(1, C.shape[1])))
        if size >= C.shape[0]:
            return [per_subproblem]
        if index is None:
            index = torch.arange(C.shape[0], device=C.device)
        parts = [slice(b, b + size) for b in range(0, C.shape[0], size)]
        return [tuple(None if t is None else t[p] for t in (index, splits, C, start, limit)) for p in parts]


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
