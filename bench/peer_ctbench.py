"""The objectives beside CTBench's, on the same network, points and boxes, in float64: ``python -m bench.peer_ctbench``.

Nothing of CTBench is in this repository. ``GLSK_PEER_CTBENCH`` names a checkout of it. Its searches are given the
points that glsk's have found; all else is its own.
"""

import importlib
import os
import sys
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import glsk
from glsk.attacks import search
from glsk.models import build
from glsk.objectives import MiniBatch, attacked, create, registry, regularisers, taps

VARIABLE = "GLSK_PEER_CTBENCH"
SHAPE, CLASSES, SAMPLES = (1, 14, 14), 10, 12
PEERS = {
    "PGD": ("PGDModelWrapper", {}),
    "IBP": ("BoxModelWrapper", {}),
    "CROWN-IBP": ("DeepPolyModelWrapper", {"use_dp_box": True}),
    "CROWN": ("DeepPolyModelWrapper", {"use_dp_box": False}),
    "SABR": ("SmallBoxModelWrapper", {"eps_shrinkage": 0.4}),
    "TAPS": ("TAPSModelWrapper", {"block_sizes": (3, 4)}),
    "STAPS": ("STAPSModelWrapper", {"block_sizes": (3, 4), "eps_shrinkage": 0.4}),
    "MTL-IBP": ("MTLIBPModelWrapper", {"ibp_coef": 0.3, "attack_range_scale": 1.5}),
    "CC-IBP": ("CCIBPModelWrapper", {"ibp_coef": 0.3, "attack_range_scale": 1.5}),
    "Exp-IBP": ("EXPIBPModelWrapper", {"ibp_coef": 0.3, "attack_range_scale": 1.5}),
}
"""glsk's name -> CTBench's class and its own arguments; its first block is a normalisation, Conv2d and ReLU."""

OURS: dict[str, dict[str, Any]] = {
    "SABR": {"tau": 0.4},
    "STAPS": {"tau": 0.4},
    **{name: {"alpha": 0.3, "attack_radius": 1.5} for name in ("MTL-IBP", "CC-IBP", "Exp-IBP")},
}


def find() -> ModuleType:
    """CTBench's ``model_wrapper``. Raises ImportError saying what to do."""
    path = os.environ.get(VARIABLE)
    if path and path not in sys.path:
        sys.path.insert(0, path)
    try:
        module = importlib.import_module("model_wrapper")
    except ImportError as error:
        raise ImportError(f"CTBench cannot be imported ({error}); set {VARIABLE} to a checkout of it") from error
    kind = module.HybridZonotope
    for name in ("construct_from_bounds", "construct_from_noise"):  # which make float32 boxes unless told otherwise
        setattr(kind, name, partial(getattr(kind, name), dtype=torch.float64))
    return module


class Points:
    """What the searches of glsk find, kept for the peer."""

    def __init__(self) -> None:
        self.inputs = self.latents = torch.empty(0)
        find_inputs, find_latents = search.adversarial_points, search.lowest_rows

        def inputs(*args: Any) -> Tensor:
            self.inputs = find_inputs(*args)
            return self.inputs

        def latents(*args: Any) -> Tensor:
            self.latents = find_latents(*args)
            return self.latents

        vars(attacked)["adversarial_points"], vars(taps)["lowest_rows"] = inputs, latents


def peer_of(name: str, module: ModuleType, net: nn.Sequential, points: Points) -> Any:
    """CTBench's wrapper of a copy of ``net``, whose searches return glsk's points."""
    layers = importlib.import_module("AIDomains.abstract_layers")
    concrete = importlib.import_module("AIDomains.concrete_layers")
    normalize = concrete.Normalization(SHAPE, [0.0], [1.0])
    copies = build("cnn3", SHAPE, CLASSES)
    copies.load_state_dict(net.state_dict())
    abstract = layers.Sequential.from_concrete_network(nn.Sequential(normalize, *copies), SHAPE).double()
    abstract.set_dim(torch.zeros(2, *SHAPE, dtype=torch.float64))
    args = SimpleNamespace(
        step_size=None, restarts=1, train_steps=8, train_eps=1.0, test_eps=1.0, estimation_batch=None, soft_thre=0.5,
        taps_grad_scale=5.0, no_ibp_multiplier=False, model_selection=None,
    )  # fmt: skip
    kind, own = PEERS[name]
    wrapper = getattr(module, kind)(abstract, nn.CrossEntropyLoss(), SHAPE, "cpu", args, **own)
    wrapper.robust_weight, wrapper.summary_accu_stat = 1.0, False

    def given(*_: Any, **__: Any) -> Tensor:
        return points.inputs[0].view(-1, *SHAPE)

    vars(module)["adv_whitebox"] = given
    wrapper._get_pivotal_points = lambda *_: points.latents[0].view(SAMPLES, CLASSES - 1, 8, 7, 7)
    return wrapper


def compare(name: str, module: ModuleType, samples: int = SAMPLES) -> tuple[float, float, float]:
    """The loss, and the largest differences of loss and gradient, both relative to the largest number."""
    net = build("cnn3", SHAPE, CLASSES, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, *SHAPE, dtype=torch.float64, generator=generator)
    y = torch.randint(0, CLASSES, (samples,), generator=generator)
    points = Points()
    loss = create(name, glsk.BoundedModule(net, SHAPE), CLASSES, OURS.get(name), backend="reference")(
        MiniBatch(x, y, 0.05)
    )
    loss.backward()
    wrapper = peer_of(name, module, net, points)
    (theirs, *_), *_ = wrapper.compute_model_stat(x, y, 0.05)
    theirs.backward()
    gradients = [p.grad for p in wrapper.net.parameters() if p.requires_grad and p.grad is not None]
    ours = [p.grad for p in net.parameters()]
    largest = max(float(g.abs().max()) for g in ours)
    apart = max(float((a - b).abs().max()) for a, b in zip(ours, gradients, strict=True))
    value = float(loss.detach())
    return value, abs(value - float(theirs.detach())) / value, apart / largest


def main() -> None:
    """Print the table."""
    module = find()
    torch.set_default_dtype(torch.float64)  # CTBench makes some of its tensors so
    assert set(PEERS) <= set(registry.names())
    print(f"{'objective':10} {'loss':>12} {'loss apart':>12} {'gradient apart':>15}")
    for name in PEERS:
        samples = 1 if name == "Exp-IBP" else SAMPLES  # CTBench combines the means of a batch, glsk those of samples
        print("{:10} {:12.6f} {:12.1e} {:15.1e}".format(name, *compare(name, module, samples)))
    fast_regularisers(module)


def fast_regularisers(module: ModuleType) -> None:
    """Shi et al.'s, which CTBench computes of the boxes that a wrapper has stored."""
    net = build("cnn3", SHAPE, CLASSES, seed=1).double()
    x = torch.rand(SAMPLES, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ours = regularisers.warm_up(glsk.BoundedModule(net, SHAPE), x, 0.05, (0.0, 1.0), None, backend="reference")[0]
    ours.backward()
    wrapper = peer_of("IBP", module, net, Points())
    wrapper.store_box_bounds = True
    wrapper.compute_model_stat(x, torch.zeros(SAMPLES, dtype=torch.int64), 0.05)
    vars(sys.modules.setdefault("loaders", ModuleType("loaders"))).setdefault("get_loaders", None)  # wants torchvision
    theirs = importlib.import_module("regularization").compute_fast_reg(wrapper.net, 0.05)
    theirs.backward()
    gradients = [p.grad for p in wrapper.net.parameters() if p.requires_grad and p.grad is not None]
    own = [p.grad for p in net.parameters() if p.grad is not None and bool(p.grad.any())]
    both = [float((a - b).abs().max()) for a, b in zip(own, gradients[: len(own)], strict=True)]
    value = float(ours.detach())
    values = value, abs(value - float(theirs.detach())) / value, float(np.max(both))
    print("{:10} {:12.6f} {:12.1e} {:15.1e}".format("Shi et al.", *values))


if __name__ == "__main__":
    main()
