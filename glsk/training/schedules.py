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


def annealing(step: int, anneal_steps: int) -> float:
    """The share of the final perturbation size in ``step`` (0-based): 1 / n at the first, 1 from the n-th step on.

    With ``anneal_steps`` 0 it is 1 throughout.
    """
    return 1.0 if step + 1 >= anneal_steps else (step + 1) / anneal_steps


def tail_decay(lr: float, step: int, steps: int) -> float:
    """``lr`` for the first half of ``steps``, then linearly to lr / (steps / 2) at the last one."""
    half = steps / 2
    return lr * min(1.0, (steps - step) / half)
