"""What commands about trained networks read first."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from glsk.cli.options import radius, set_threads

if TYPE_CHECKING:
    from torch import nn

    from glsk.data import Dataset
    from glsk.formats import OnnxNetwork
    from glsk.training.description import Description


def load(
    weights: Path, model: str | None, dataset: str | None, data: str | None, eps: str | None, threads: int | None
) -> "tuple[nn.Sequential, float, Dataset]":
    """The network, the perturbation size and the data set of a file of weights or of a network."""
    from glsk import BoundedModule
    from glsk.data import NAMES
    from glsk.data import load as load_dataset

    size = None if eps is None else radius(eps)
    set_threads(threads)
    net, description, shape = load_network(weights, model)
    named = description.dataset if description is not None and description.dataset in NAMES else "mnist-5k"
    test = load_dataset(dataset or named, data)
    if size is None:
        size = description.eps if description is not None else 0.1
    if shape is not None and shape != test.input_shape:
        raise ValueError(f"{weights}: takes images {shape}, {test.name} has {test.input_shape}")
    outputs = BoundedModule(net, test.input_shape).chain.num_outputs
    largest = int(test.y_test.max())
    if largest >= outputs:
        raise ValueError(f"{weights}: tells {outputs} classes apart, {test.name} has label {largest}")
    return net, size, replace(test, num_classes=outputs)


def load_network(path: Path, model: str | None) -> "tuple[nn.Sequential, Description | None, tuple[int, ...] | None]":
    """The network of a file, what the file says of it, and the shape of its input if that is known.

    Of ONNX the network is float64 (its folded constants are no float32), of weights it is float32.
    """
    if is_onnx(path):
        from glsk.formats import read_onnx

        if model is not None:
            raise ValueError(f"{path}: an ONNX file holds its network; leave out --model")
        found = read_onnx(path)
        return found.network, None, found.input_shape
    from glsk.training.weights import load_weights

    net, description = load_weights(path, model)
    return net, description, description.input_shape if description else None


def load_in_file_order(path: Path, model: str | None) -> "OnnxNetwork":
    """The network of a file, and how its inputs lie there, which is how VNN-LIB numbers them."""
    import torch

    from glsk import BoundedModule
    from glsk.formats import OnnxNetwork, read_onnx

    if is_onnx(path) and model is None:
        return read_onnx(path)
    net, _, shape = load_network(path, model)
    if shape is None:
        raise ValueError(f"{path}: does not say what shape its network's input has")
    outputs = BoundedModule(net, shape).chain.num_outputs
    return OnnxNetwork(net, shape, (1, *shape), torch.arange(math.prod(shape)), outputs)


def is_onnx(path: Path) -> bool:
    """Whether the file is named as an ONNX file."""
    return path.name.lower().endswith((".onnx", ".onnx.gz"))
