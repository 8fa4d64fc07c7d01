"""TAPS (Mao et al., 2023): interval bounds through the first layers, an adversarial search through the last ones."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from glsk.arguments import describe
from glsk.attacks.members import Members
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
        searched = self._cross_entropy(interval.at_points(last, found, rows))
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
        reach = ctx.share * (upper - lower)
        narrow = reach < _NARROW
        by_reach = (1 / reach).masked_fill(narrow, 0).unsqueeze(2)
        most = (1 - 0.5 * narrow.to(reach.dtype)).unsqueeze(2)
        found = torch.empty_like(lower), torch.empty_like(upper)
        samples = lower.shape[1]
        # On a CPU, so few samples at a time that they stay in its cache.
        room = max(1, _BLOCK * samples // points.numel()) if points.device.type == "cpu" else samples
        scratch = torch.empty_like(points[:, :room])
        for first in range(0, samples, room):
            part = (slice(None), slice(first, first + room))
            for end, sign, to in ((lower, -1, found[0]), (upper, 1, found[1])):
                share = torch.sub(points[part], end[part].unsqueeze(2), out=scratch[:, : points[part].shape[1]])
                torch.addcmul(most[part], share, by_reach[part], value=sign, out=share)
                to[part] = share.clamp_(0, 1).mul_(grads[0][part]).sum(dim=2)
        return *found, None, None


_BLOCK = 1 << 17
"""Numbers that the connector takes at a time."""

_NARROW = 1e-5
"""Of a box this narrow every point is both ends."""
