"""Networks and properties in the formats of others: ONNX, PyTorch state dicts and VNN-LIB."""

from glsk.formats.onnx_in import OnnxNetwork, read_onnx
from glsk.formats.onnx_out import onnx_bytes
from glsk.formats.state_dict import read_state_dict
from glsk.formats.vnnlib import parse_vnnlib, read_vnnlib
from glsk.formats.vnnlib_out import format_counterexample, format_vnnlib

__all__ = [
    "OnnxNetwork",
    "format_counterexample",
    "format_vnnlib",
    "onnx_bytes",
    "parse_vnnlib",
    "read_onnx",
    "read_state_dict",
    "read_vnnlib",
]
