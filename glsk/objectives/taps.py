"""TAPS (Mao et al., 2023): interval bounds through the first layers, an adversarial search through the last ones."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from glsk.arguments import describe
from glsk.attacks.members import Members, rows_at
from glsk.attacks.search import lowest_rows
from glsk.attacks.settings import LatentSettings, check_count, check_share
from glsk.bounds import Bounds
from glsk.objectives import interval
from glsk.objectives.attacked import Attacked, Sample
from glsk.objectives.registry import objective
from glsk.objectives.regularisers import RegulariserSettings


@dataclass(frozen=True)
class TapsSettings(LatentSettings, RegulariserSettings):
    """Of TAPS.

    Attributes:
        classifier_layers: how many affine layers, the last ones, are searched; from 1 to one less than there are.
        connector: c, the share of a box's width next to each end, in (0, 1], within which the gradient by a point is
            passed on to that end.
        gradient_scale: by what the gradient of TAPS's factor of the loss, not its value, is multiplied.
        bounds_while_annealing: whether the loss is that of interval bounds alone until eps has reached its final value.
    """

    classifier_layers: int = 2
    connector: float = 0.5
    gradient_scale: float = 5.0
    bounds_while_annealing: bool = True

    def __post_init__(self) -> None:
        LatentSettings.__post_init__(self)
        RegulariserSettings.__post_init__(self)
        check_count("classifier_layers", self.classifier_layers, 1)
        check_share("connector", self.connector, zero=False)
        check_share("gradient_scale", self.gradient_scale, most=float("inf"), zero=False)
        if not isinstance(self.bounds_while_annealing, bool):
            raise ValueError(
                f"bounds_while_annealing: expected True or False, got {describe(self.bounds_while_annealing)}"
            )


@objective("TAPS")
class Taps(Attacked):
    """The product of two mean cross-entropies: of the margins found by the search, and of those that bounds leave.

    For every margin a point of the hidden layer's box is searched for at which that margin is small. Its gradient goes
    on to the box by the rectified linear connector.

    Raises:
        ValueError: if the network has no layer before those that are searched.
    """

    Settings: ClassVar[type] = TapsSettings

    def __init__(self, *args: Any, **engine: Any) -> None:
        super().__init__(*args, **engine)
        layers = len(self.bounded.chain.layers)
        if self.settings.classifier_layers >= layers:
            raise ValueError(
                f"classifier_layers: expected less than the network's {layers} affine layers, "
                f"got {self.settings.classifier_layers}"
            )
        self.split = layers - self.settings.classifier_layers

    def _losses_of(self, members: Members, sample: Sample, points: Tensor) -> Tensor:
        own, rows = self.settings, sample.rows
        lower, upper = self._box(sample, points)
        if own.bounds_while_annealing and sample.batch.ramp < 1:
            return self._cross_entropy(interval.lowest_rows(members, lower, upper, rows))
        last = members.part(self.split)
        lower, upper = interval.outputs(members.part(0, self.split), lower, upper)
        bounded = self._cross_entropy(interval.lowest_rows(last, lower, upper, rows))
        found = lowest_rows(last, lower.detach(), upper.detach(), rows, own, self.seed, sample.batch.step)
        found = _Connector.apply(lower, upper, found, own.connector)
        logits = last.logits(found.flatten(1, 2)).unflatten(1, found.shape[1:3])
        searched = self._cross_entropy(rows_at(rows, logits))
        return (searched + (own.gradient_scale - 1) * (searched - searched.detach())) * bounded

    def _box(self, sample: Sample, points: Tensor) -> Bounds:
        return sample.lower, sample.upper

    def _points(self, members: Members, sample: Sample) -> Tensor:
        return sample.lower  # no input is searched

    def _shares(self, params: Tensor | None) -> bool:
        return False

    def _floats(self, members: Members) -> int:
        hidden = members.layers[self.split - 1].out_features + members.layers[self.split].out_features
        return super()._floats(members) + 6 * (self.num_classes - 1) * hidden


class _Connector(torch.autograd.Function):
    """Points of boxes as functions of the boxes' ends, by the rectified linear connector."""

    @staticmethod
    def forward(ctx: Any, lower: Tensor, upper: Tensor, points: Tensor, share: float) -> Tensor:
        """Points [P, B, S, n] of boxes [P, B, n]: the points."""
        ctx.save_for_backward(lower, upper, points)
        ctx.share = share
        return points.view_as(points)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """max(0, 1 - (z - l) / (c (u - l))) of the gradient goes to l, the mirror of it to u; half each if u = l."""
        lower, upper, points = ctx.saved_tensors
        reach = (ctx.share * (upper - lower)).unsqueeze(2)
        narrow = reach < _NARROW
        shares = []
        for distance in (points - lower.unsqueeze(2), upper.unsqueeze(2) - points):
            share = (1 - distance / reach.clamp(min=_NARROW)).clamp(0, 1)
            shares.append((grads[0] * torch.where(narrow, 0.5, share)).sum(dim=2))
        return *shares, None, None


_NARROW = 1e-5
"""Of a box this narrow every point is both ends."""
