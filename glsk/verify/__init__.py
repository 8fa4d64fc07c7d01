"""Evaluation and verification of a network: accuracies, properties, verdicts."""

from glsk.verify.attack import AttackSettings
from glsk.verify.bounding import BranchSettings
from glsk.verify.evaluate import Evaluation, evaluate
from glsk.verify.property import Box, Halfspaces, Property, margin_property
from glsk.verify.table import evaluation_table
from glsk.verify.verdict import Verdict
from glsk.verify.verifier import VerifySettings, verify, verify_many

__all__ = [
    "AttackSettings",
    "Box",
    "BranchSettings",
    "Evaluation",
    "Halfspaces",
    "Property",
    "Verdict",
    "VerifySettings",
    "evaluate",
    "evaluation_table",
    "margin_property",
    "verify",
    "verify_many",
]
