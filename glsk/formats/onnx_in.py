"""An ONNX file becomes a network that glsk can bound."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from glsk.arguments import printable
from glsk.errors import UnsupportedLayerError
from glsk.formats.onnx_build import Builder
from glsk.formats.onnx_graph import FOLDED, Node, evaluate, read_graph
from glsk.formats.onnx_nodes import HANDLERS
from glsk.network import build_chain
from glsk.verify.property import Box, Property

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class OnnxNetwork:
    """A network read from an ONNX file, and how its inputs lie in the file.

    Attributes:
        network: in eval mode; takes [B, *input_shape] and returns [B, K].
        input_shape: of one sample, (n,) or (C, H, W).
        file_shape: of the file's input, the batch first.
        order: [n] the network's flat input is ``flat[order]`` of the file's, which VNN-LIB numbers X_0 .. X_{n-1}.
        num_outputs: K.
    """

    network: nn.Sequential
    input_shape: tuple[int, ...]
    file_shape: tuple[int, ...]
    order: Tensor
    num_outputs: int

    def to_network(self, x: Tensor) -> Tensor:
        """Inputs of the file, [B, n] or [B, *file_shape[1:]], as the network takes them."""
        return x.reshape(len(x), -1)[:, self.order].reshape(len(x), *self.input_shape)

    def to_file(self, x: Tensor) -> Tensor:
        """The inverse of :meth:`to_network`, [B, n]."""
        flat = x.reshape(len(x), -1)
        return torch.empty_like(flat).index_copy_(1, self.order, flat)

    def arrange(self, found: Property) -> Property:
        """A property of the file's flat input (as :func:`glsk.formats.read_vnnlib` returns it), of the network's input.

        Raises:
            ValueError: it is about another number of inputs or outputs.
        """
        sizes = found.boxes[0].lower.numel(), found.num_outputs
        if sizes != (len(self.order), self.num_outputs):
            raise ValueError(
                f"the network has {len(self.order)} inputs and {self.num_outputs} outputs, the property is about "
                f"{sizes[0]} and {sizes[1]}"
            )
        boxes = tuple(Box(*(self.to_network(end.reshape(1, -1))[0] for end in box)) for box in found.boxes)
        return Property(boxes, found.unsafe)


def read_onnx(path: Path | str, dtype: torch.dtype = torch.float64) -> OnnxNetwork:
    """The network of an ONNX file that is a chain of layers which glsk can bound.

    Supported: Conv, Gemm, MatMul, BatchNormalization, AveragePool, GlobalAveragePool, Pad, Relu, LeakyRelu, Add, Sub,
    Mul and Div with a constant, Flatten, Reshape, Squeeze, Unsqueeze, Transpose, Identity and Dropout. Constants and
    transposes are folded into the layer before or after, in float64; what needs no folding keeps its numbers.

    Args:
        path: the file; ``.gz`` is unpacked.
        dtype: of the network's weights.

    Raises:
        OSError: the file cannot be read.
        glsk.DataError: it is no ONNX file, or damaged.
        glsk.UnsupportedLayerError: naming the node and its operator, or what else cannot be bounded.
        glsk.MissingPackageError: onnx is not installed.
    """
    source = Path(path)
    graph = read_graph(source)
    try:
        builder = Builder(graph.shape)
        current, known = graph.input, dict(graph.constants)
        for node in graph.nodes:
            current = _step(builder, node, current, known)
        if current != graph.output:
            raise ValueError(f"its output {graph.output!r} is not what its last node computes, {current!r}")
        if any(builder.padding):
            raise ValueError("it ends in a Pad")
        network = builder.finish().to(dtype)
        input_shape = builder.input_shape
        build_chain(network, input_shape)
    except ValueError as error:
        raise UnsupportedLayerError(f"{source}: {error}") from error
    order = torch.from_numpy(builder.order.copy())
    return OnnxNetwork(network, input_shape, graph.shape, order, builder.where.size)


def _step(builder: Builder, node: Node, current: str, known: dict[str, NDArray[Any]]) -> str:
    """Take one node; the name of the network's value after it."""
    data = [i for i, name in enumerate(node.inputs) if name == current]
    inputs = [known.get(name) for name in node.inputs]
    unknown = [n for n, v in zip(node.inputs, inputs, strict=True) if n and n != current and v is None]
    if unknown:
        raise node.refuse(f"reads {unknown[0]!r}, so that the network is no chain of layers")
    if not node.outputs:
        raise node.refuse("has no output")
    if not data or node.op == "Shape":
        if node.op == "Shape" and data and not node.attributes:
            values: Arrays = [np.array(builder.where.shape)]
        elif node.op in FOLDED and not data:
            values = evaluate(node, inputs)
        else:
            raise node.refuse("is not supported")
        known.update(zip(node.outputs, values, strict=False))
        return current
    if node.op not in HANDLERS:
        raise node.refuse(f"is not supported; known: {', '.join(sorted(HANDLERS))}")
    if len(data) != 1:
        raise node.refuse("reads the network's value twice")
    for name, value in zip(node.inputs, inputs, strict=True):
        if value is not None and value.dtype.kind not in "fiub":
            raise node.refuse(f"{printable(name)!r} is {value.dtype}, expected real numbers")
        if value is not None and value.dtype.kind == "f" and not np.isfinite(value).all():
            raise node.refuse(f"{printable(name)!r} holds NaN or infinity")
    if any(builder.padding) and node.op not in ("AveragePool", "Conv", "Identity", "Pad"):
        raise node.refuse("only a Conv may follow a Pad")
    HANDLERS[node.op](builder, node, inputs, data[0])
    if node.attributes:
        raise node.refuse(f"its attribute {next(iter(node.attributes))!r} is not supported")
    return node.outputs[0]
