"""Networks and properties in the formats of others: ONNX, PyTorch state dicts and VNN-LIB."""

from glsk.formats.vnnlib import parse_vnnlib, read_vnnlib
from glsk.formats.vnnlib_out import format_counterexample, format_vnnlib

__all__ = ["format_counterexample", "format_vnnlib", "parse_vnnlib", "read_vnnlib"]
