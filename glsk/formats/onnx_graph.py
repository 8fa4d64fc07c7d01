"""The graph of an ONNX file, as one input, one output and nodes that know their attributes and constants."""

import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glsk.arguments import printable
from glsk.errors import DataError, UnsupportedLayerError
from glsk.requiring import requiring

# Sums on shapes, which exporters leave in front of a Reshape; evaluated where all their inputs are known.
FOLDED = frozenset(
    ("Add", "Cast", "Concat", "Constant", "Div", "Gather", "Identity", "Mul", "Reshape", "Slice", "Squeeze", "Sub",
     "Transpose", "Unsqueeze")
)  # fmt: skip


@dataclass
class Node:
    """One node: its name, operator, attributes not read yet, and the names of its inputs and outputs."""

    name: str
    op: str
    attributes: dict[str, Any]
    inputs: list[str]
    outputs: list[str]
    proto: Any
    opset: int = 0

    def whole(self, name: str, default: int) -> int:
        """The value of an attribute that is a whole number, which counts as read."""
        return int(self._take(name, (int,), default))

    def number(self, name: str, default: float) -> float:
        """The value of an attribute that is a finite number."""
        value = float(self._take(name, (int, float), default))
        if not math.isfinite(value):
            raise self.refuse(f"{name} is {value}")
        return value

    def text(self, name: str, default: bytes) -> bytes:
        """The value of an attribute that is a string."""
        return bytes(self._take(name, (bytes,), default))

    def wholes(self, name: str) -> list[int] | None:
        """The value of an attribute that is a list of whole numbers; None if it has none."""
        value = self._take(name, (list, tuple), None)
        if value is not None and not all(isinstance(n, int) for n in value):
            raise self.refuse(f"{name}: expected whole numbers")
        return None if value is None else list(value)

    def _take(self, name: str, kinds: tuple[type, ...], default: Any) -> Any:
        value = self.attributes.pop(name, default)
        if value is not default and not isinstance(value, kinds):
            raise self.refuse(f"{name}: expected {kinds[-1].__name__}, got {type(value).__name__}")
        return value

    def refuse(self, why: str) -> UnsupportedLayerError:
        """An error that names the node and its operator."""
        return UnsupportedLayerError(f"node {printable(self.name)!r} ({printable(self.op)}): {why}")


@dataclass
class Graph:
    """A graph of one input, whose batch axis has become 1.

    Attributes:
        input: its name, and ``shape`` its shape.
        output: the name of the only output.
        constants: the initializers, by name.
        nodes: in an order in which they can be computed.
    """

    input: str
    shape: tuple[int, ...]
    output: str
    constants: dict[str, NDArray[Any]]
    nodes: list[Node]


def read_graph(path: Path) -> Graph:
    """The graph of an ONNX file, ``.gz`` unpacked.

    Raises:
        OSError: the file cannot be read.
        DataError: it is no ONNX file, or damaged.
        UnsupportedLayerError: it has several inputs or outputs, a size that is not known, or another operator set.
    """
    with requiring("reading ONNX"):
        import onnx

    raw = path.read_bytes()
    try:
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        model = onnx.load_model_from_string(raw)
        onnx.load_external_data_for_model(model, str(path.parent))
        constants = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
        nodes = [_node(proto) for proto in model.graph.node]
    except Exception as error:  # gzip, protobuf and onnx raise of every kind on damaged bytes
        why = f" ({printable(error)})" if isinstance(error, ValueError | RuntimeError) else ""
        raise DataError(f"{path}: not an ONNX file, or damaged{why}") from error
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions or min(versions) < 7:
        raise UnsupportedLayerError(f"{path}: operator set {versions or '(none)'}; 7 and later are supported")
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        names = [v.name for v in inputs], [v.name for v in model.graph.output]
        raise UnsupportedLayerError(f"{path}: expected one input and one output, got {names[0]} and {names[1]}")
    shape = tuple(_sizes(path, inputs[0]))
    for node in nodes:
        node.opset = min(versions)
    return Graph(inputs[0].name, shape, model.graph.output[0].name, constants, nodes)


def whole_numbers(node: Node, values: Any) -> list[int]:
    """A constant of a node as a list of whole numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "iu":
        raise node.refuse(f"expected whole numbers, got {array.dtype}")
    return [int(n) for n in array.reshape(-1)]


def evaluate(node: Node, inputs: list[NDArray[Any] | None]) -> list[NDArray[Any]]:
    """The outputs of a node of ``FOLDED`` all of whose inputs are known, by ONNX's own reference."""
    from onnx import ValueInfoProto, helper
    from onnx.reference import ReferenceEvaluator

    feeds = {name: value for name, value in zip(node.inputs, inputs, strict=True) if value is not None}
    given, wanted = ([ValueInfoProto(name=name) for name in names] for names in (feeds, node.outputs))
    graph = helper.make_graph([node.proto], "constants", given, wanted)
    try:
        return [np.asarray(value) for value in ReferenceEvaluator(graph, {"": node.opset}).run(None, feeds)]
    except Exception as error:  # whatever the reference says of a node that is wrong
        raise node.refuse(f"cannot be computed ({type(error).__name__})") from error


def _sizes(path: Path, value: Any) -> Iterator[int]:
    """The shape of the input; the first size may be anything, and is 1."""
    dims = value.type.tensor_type.shape.dim
    if not value.type.tensor_type.HasField("shape") or not dims:
        raise UnsupportedLayerError(f"{path}: input {value.name!r} has no shape")
    for i, dim in enumerate(dims):
        known = dim.HasField("dim_value") and dim.dim_value > 0
        if not known and i > 0:
            raise UnsupportedLayerError(f"{path}: input {value.name!r}: axis {i} has no size ({dim.dim_param or '?'})")
        yield int(dim.dim_value) if known else 1


def _node(proto: Any) -> Node:
    import onnx

    name = proto.name or (proto.output[0] if proto.output else "")
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in proto.attribute}
    op = proto.op_type if proto.domain in ("", "ai.onnx") else f"{proto.domain}.{proto.op_type}"
    return Node(name, op, attributes, list(proto.input), list(proto.output), proto)
