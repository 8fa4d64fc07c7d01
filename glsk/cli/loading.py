"""What commands about trained networks read first."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from glsk.cli.options import radius

if TYPE_CHECKING:
    from torch import nn

    from glsk.data import Dataset


def load(
    weights: Path, model: str | None, dataset: str | None, data: str | None, eps: str | None, threads: int | None
) -> "tuple[nn.Sequential, float, Dataset]":
    """The network, the perturbation size and the data set of a weights file."""
    import torch

    from glsk.data import NAMES
    from glsk.data import load as load_dataset
    from glsk.training.weights import load_weights

    size = None if eps is None else radius(eps)
    if threads:
        torch.set_num_threads(threads)
    net, description = load_weights(weights, model)
    named = description.dataset if description is not None and description.dataset in NAMES else "mnist-5k"
    test = load_dataset(dataset or named, data)
    if size is None:
        size = description.eps if description is not None else 0.1
    expected = description.input_shape if description is not None else None
    if expected is not None and expected != test.input_shape:
        raise ValueError(f"{weights}: takes images {expected}, {test.name} has {test.input_shape}")
    outputs = [layer.out_features for layer in net if isinstance(layer, torch.nn.Linear)][-1]
    largest = int(test.y_test.max())
    if largest >= outputs:
        raise ValueError(f"{weights}: tells {outputs} classes apart, {test.name} has label {largest}")
    return net, size, replace(test, num_classes=outputs)
