"""Searches for adversarial points: of one module (:func:`pgd`), and of all members of a population at once."""

from glsk.attacks.pgd import LOSSES, pgd

__all__ = ["LOSSES", "pgd"]
