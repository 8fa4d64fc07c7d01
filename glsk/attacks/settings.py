"""The settings of an attack within an objective."""

import math
from dataclasses import dataclass

from glsk.arguments import describe, is_number

REACH = 2.5
"""Half widths of the box that all steps make together by default: from any start, every side of it is in reach."""


@dataclass(frozen=True)
class AttackSettings:
    """How the adversarial points of an objective are searched for.

    Attributes:
        attack_steps: ascent steps of a restart; 0 keeps the random start.
        attack_step_size: of one ascent step, in half widths of the box; 0 stands for 2.5 / attack_steps.
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
        """Of one ascent step, in half widths of the box."""
        return self.attack_step_size or REACH / max(self.attack_steps, 1)


@dataclass(frozen=True)
class LatentSettings:
    """How the boxes of a hidden layer are searched, for every margin by itself.

    Attributes:
        latent_steps: ascent steps of a restart; 0 keeps the random start.
        latent_step_size: of one ascent step, in half widths of the box; 0 stands for 2.5 / latent_steps.
        latent_restarts: random starts, at least 1; the worst point is kept.

    Raises:
        ValueError: naming the setting, if a value makes no sense.
    """

    latent_steps: int = 8
    latent_step_size: float = 0.0
    latent_restarts: int = 1

    def __post_init__(self) -> None:
        check_count("latent_steps", self.latent_steps, 0)
        check_share("latent_step_size", self.latent_step_size, most=math.inf)
        check_count("latent_restarts", self.latent_restarts, 1)

    @property
    def latent_step(self) -> float:
        """Of one ascent step, in half widths of the box."""
        return self.latent_step_size or REACH / max(self.latent_steps, 1)


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
