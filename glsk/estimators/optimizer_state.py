"""A ``torch.optim`` optimiser's state as flat tensors and JSON, for checkpoints."""

from typing import Any

import torch
from torch import Tensor

from glsk.estimators.base import State


def pack(optimizer: torch.optim.Optimizer) -> State:
    """Tensors named ``<parameter index>/<key>`` and the hyperparameters of every group."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            tensors[f"{index}/{key}"] = torch.as_tensor(value).detach().cpu().clone()
    return tensors, {"groups": state["param_groups"]}


def unpack(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Load what :func:`pack` returned into an optimiser over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split("/", 1)
        state.setdefault(int(index), {})[key] = value.clone()
    optimizer.load_state_dict({"state": state, "param_groups": meta["groups"]})


def hold(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A copy of the state for ``load_state_dict``, each tensor where it is: nothing waits for the device."""
    held = optimizer.state_dict()
    held["state"] = {index: {key: value.clone() for key, value in one.items()} for index, one in held["state"].items()}
    return held
