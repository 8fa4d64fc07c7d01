"""Learning-rate and perturbation schedules: pure functions of the epoch or the step."""

from collections.abc import Sequence


def step_lr(lr: float, epoch: int, milestones: Sequence[int], gamma: float) -> float:
    """The learning rate in ``epoch`` (0-based): ``lr`` times ``gamma`` for every milestone already reached.

    The paper decays "after the 110th epoch", which is from epoch index 110 on (App. B.2).
    """
    rate = lr
    for milestone in milestones:
        if epoch >= milestone:
            rate *= gamma
    return rate


def annealed_eps(eps: float, step: int, anneal_steps: int) -> float:
    """The perturbation size in ``step`` (0-based): linear from eps / n at the first to eps at the n-th step, then eps.

    With ``anneal_steps`` 0 it is ``eps`` throughout.
    """
    return eps if step + 1 >= anneal_steps else eps * (step + 1) / anneal_steps


def tail_decay(lr: float, step: int, steps: int) -> float:
    """``lr`` for the first half of ``steps``, then linearly to lr / (steps / 2) at the last one."""
    half = steps / 2
    return lr * min(1.0, (steps - step) / half)
