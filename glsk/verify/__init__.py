"""Evaluation and verification of a network: accuracies, properties, verdicts."""

from glsk.verify.evaluate import Evaluation, evaluate
from glsk.verify.property import Box, Halfspaces, Property, margin_property
from glsk.verify.table import evaluation_table

__all__ = ["Box", "Evaluation", "Halfspaces", "Property", "evaluate", "evaluation_table", "margin_property"]
