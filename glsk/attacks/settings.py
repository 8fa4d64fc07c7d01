"""The settings of an attack within an objective."""

import math
from dataclasses import dataclass

from glsk.arguments import describe, is_number


@dataclass(frozen=True)
class AttackSettings:
    """How the adversarial points of an objective are searched for.

    Attributes:
        attack_steps: ascent steps of a restart; 0 keeps the random start.
        attack_step_size: of one ascent step, as a share of the radius; 0 stands for 2.5 / attack_steps.
        attack_restarts: random starts, at least 1; the worst point is kept.
        shared_attack: whether all members get the same points, those of their centre, for the price of one attack.

    Raises:
        ValueError: naming the setting, if a value makes no sense.
    """

    attack_steps: int = 8
    attack_step_size: float = 0.0
    attack_restarts: int = 1
    shared_attack: bool = False

    def __post_init__(self) -> None:
        check_count("attack_steps", self.attack_steps, 0)
        check_share("attack_step_size", self.attack_step_size, most=math.inf)
        check_count("attack_restarts", self.attack_restarts, 1)
        if not isinstance(self.shared_attack, bool):
            raise ValueError(f"shared_attack: expected True or False, got {describe(self.shared_attack)}")

    @property
    def step_size(self) -> float:
        """Of one ascent step, as a share of the radius."""
        return self.attack_step_size or 2.5 / max(self.attack_steps, 1)


def check_count(name: str, value: object, least: int) -> None:
    """Raises ValueError unless ``value`` is a whole number of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}: expected a whole number, at least {least}, got {describe(value)}")


def check_share(name: str, value: object, *, most: float = 1.0, zero: bool = True) -> None:
    """Raises ValueError unless ``value`` is a number in [0, most], or with ``zero=False`` in (0, most]; never inf."""
    good = is_number(value) and 0 <= value <= most and value != math.inf and (zero or value > 0)  # type: ignore[operator]
    if not good:
        wanted = f"in {'[' if zero else '('}0, {most:g}{')' if most == math.inf else ']'}"
        raise ValueError(f"{name}: expected a number {wanted}, got {describe(value)}")
