"""Evaluation of a network: natural, adversarial and certified accuracy."""

from glsk.certify.evaluate import Evaluation, evaluate
from glsk.certify.table import evaluation_table

__all__ = ["Evaluation", "evaluate", "evaluation_table"]
