"""A network that glsk can bound becomes an ONNX file."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from glsk.geometry import Geometry
from glsk.input_shape import read_input_shape
from glsk.layers import Normalize
from glsk.network import build_chain
from glsk.requiring import requiring

OPSET, IR_VERSION = 13, 8  # what tools of some years ago understand too

_Step = tuple[str, list[Tensor], dict[str, Any]]
"""An operator, the constants that follow the value among its inputs, and its attributes."""


def onnx_bytes(net: nn.Module, input_shape: int | tuple[int, ...] | Tensor) -> bytes:
    """The content of an ONNX file of ``net`` for one sample: input "x" [1, *input_shape], output "y" [1, K].

    ONNX has the slope of a LeakyReLU and the eps of a BatchNorm in float32, and rounds them; weights are as they are.

    Args:
        net: as :class:`glsk.BoundedModule` takes it, with weights of one dtype, float32 or float64.
        input_shape: of one sample, or a batch to take it from.

    Raises:
        TypeError, ValueError, glsk.UnsupportedLayerError: as ``BoundedModule`` raises them, or the dtypes differ.
        glsk.MissingPackageError: onnx is not installed.
    """
    with requiring("writing ONNX"):
        from onnx import TensorProto, helper, numpy_helper

    shape = read_input_shape(input_shape)
    chain = build_chain(net, shape)
    dtypes = {part.dtype for part in net.state_dict().values() if part.is_floating_point()}
    dtype = next(iter(dtypes))
    kind = {torch.float32: TensorProto.FLOAT, torch.float64: TensorProto.DOUBLE}.get(dtype)
    if len(dtypes) != 1 or kind is None:
        raise ValueError(f"the weights are {', '.join(sorted(map(str, dtypes)))}; expected float32 or float64 alone")
    steps = [(path, step) for path, layer, its in _placed(net, chain.geometry) for step in _steps(layer, its, dtype)]
    if all(op != "Flatten" for _, (op, _, _) in steps) and len(shape) == 3:
        steps.append(("outputs", ("Flatten", [], {"axis": 1})))
    nodes, constants, value = [], [], "x"
    for i, (path, (op, tensors, attributes)) in enumerate(steps):
        names = [f"{path}.{op}.{k}" for k in range(len(tensors))]
        constants += [
            numpy_helper.from_array(t.detach().cpu().numpy(), name) for t, name in zip(tensors, names, strict=True)
        ]
        result = "y" if i == len(steps) - 1 else f"{path}.{op}.out"
        nodes.append(helper.make_node(op, [value, *names], [result], f"{path}.{op}", **attributes))
        value = result
    ends = (
        [helper.make_tensor_value_info("x", kind, [1, *shape])],
        [helper.make_tensor_value_info("y", kind, [1, chain.num_outputs])],
    )
    graph = helper.make_graph(nodes, "glsk", *ends, constants)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, producer_name="glsk", opset_imports=[opset], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())


def _placed(net: nn.Module, geometry: tuple[Geometry, ...]) -> Iterator[tuple[str, nn.Module, Geometry | None]]:
    """Every layer that does something, with its path and, of an affine one, its geometry."""
    shapes = iter(geometry)
    for path, layer in _leaves(net, ""):
        yield path, layer, next(shapes) if isinstance(layer, nn.Conv2d | nn.Linear | nn.AvgPool2d) else None


def _leaves(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, nn.Sequential):
        yield path or "net", module
        return
    for name, child in module._modules.items():  # a layer object may stand in it twice
        if child is not None:
            yield from _leaves(child, f"{path}.{name}" if path else name)


def _steps(layer: nn.Module, shape: Geometry | None, dtype: torch.dtype) -> list[_Step]:
    """The operators of one layer. Identity and Dropout have none."""
    if shape is not None:
        return _affine(layer, shape, dtype)
    if isinstance(layer, Normalize):
        channels = (-1, 1, 1) if layer.mean.numel() > 1 else (-1,)
        return [("Sub", [layer.mean.view(channels)], {}), ("Div", [layer.std.view(channels)], {})]
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        mean, var = layer.running_mean, layer.running_var
        assert mean is not None  # the chain has seen them
        assert var is not None
        weight = torch.ones_like(mean) if layer.weight is None else layer.weight
        bias = torch.zeros_like(mean) if layer.bias is None else layer.bias
        return [("BatchNormalization", [weight, bias, mean, var], {"epsilon": float(layer.eps)})]
    if isinstance(layer, nn.LeakyReLU):
        return [("LeakyRelu", [], {"alpha": float(layer.negative_slope)})]
    if isinstance(layer, nn.ReLU):
        return [("Relu", [], {})]
    return [("Flatten", [], {"axis": 1})] if isinstance(layer, nn.Flatten) else []


def _affine(layer: nn.Module, shape: Geometry, dtype: torch.dtype) -> list[_Step]:
    if isinstance(layer, nn.Linear):
        bias = [] if layer.bias is None else [layer.bias]
        return [("Gemm", [layer.weight, *bias], {"transB": 1})]
    windows = {
        "kernel_shape": [shape.kernel_height, shape.kernel_width],
        "strides": [shape.stride_height, shape.stride_width],
        "pads": [shape.pad_height, shape.pad_width] * 2,
    }
    if isinstance(layer, nn.Conv2d):
        return [("Conv", [layer.weight, *([] if layer.bias is None else [layer.bias])], windows)]
    assert isinstance(layer, nn.AvgPool2d)
    steps: list[_Step] = [("AveragePool", [], {**windows, "count_include_pad": 1})]
    area = shape.kernel_height * shape.kernel_width
    if layer.divisor_override not in (None, area):
        steps.append(("Mul", [torch.tensor(area / layer.divisor_override, dtype=dtype)], {}))
    return steps
