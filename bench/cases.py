"""The comparisons: one workload and method each, computed by several providers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import glsk
from bench import peer_auto_lirpa
from bench.vmapped import VmappedBounds
from bench.workloads import Workload, workload
from glsk.precision import TRAINING_DEFAULT, using_precision

PROVIDERS = ("glsk", "glsk-noprune", "vmapped", "auto_LiRPA")
"""glsk: ``backend="auto"`` and default pruning. glsk-noprune: every row of every pass, as vmapped does."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """Lower bounds of the margins, float32, as training needs them.

    Attributes:
        sizes: provider -> (members, samples) of one call. The slower a provider, the smaller its share of the work;
            results are compared per (member, sample).
    """

    name: str
    net: str
    method: str
    sizes: dict[str, Size]


def _case(net: str, method: str, glsk_size: Size, vmapped_size: Size, peer_size: Size) -> Case:
    sizes = {"glsk": glsk_size, "vmapped": vmapped_size}
    if method == "CROWN":
        sizes["glsk-noprune"] = glsk_size
    if method in peer_auto_lirpa.METHODS:
        sizes["auto_LiRPA"] = peer_size
    return Case(f"{net}-{method.lower()}", net, method, sizes)


CASES = {
    case.name: case
    for case in (
        _case("cnn3", "CROWN", (64, 512), (8, 64), (2, 64)),
        _case("cnn3", "CROWN-IBP", (64, 512), (64, 64), (4, 64)),
        _case("cnn3", "HBox", (64, 512), (8, 64), (0, 0)),
        _case("cnn3", "IBP", (64, 512), (64, 512), (8, 64)),
        _case("cnn5", "CROWN", (8, 64), (2, 4), (1, 16)),
    )
}

SMOKE = dict.fromkeys(PROVIDERS, (2, 4))
"""Sizes with which a run only shows that everything works."""


@dataclass
class Contender:
    """A provider made ready: ``call()`` gives the lower bounds [P, B, 9] of its share of the work."""

    provider: str
    case: Workload
    call: Callable[[], Tensor]


def why_missing(provider: str) -> str | None:
    """None if the provider can run here, else why not."""
    if provider == "auto_LiRPA":
        module, why = peer_auto_lirpa.find()
        return why if module is None else None
    return None


def prepare(case: Case, provider: str, size: Size, device: str, backend: str) -> Contender:
    """Build everything that is not part of a timing."""
    own = workload(case.net, *size).to(device)
    return Contender(provider, own, _call(case.method, provider, own, backend))


def _call(method: str, provider: str, own: Workload, backend: str) -> Callable[[], Tensor]:
    if provider == "auto_LiRPA":
        peer = peer_auto_lirpa.AutoLirpa(own)
        return lambda: peer.lower(method)
    if provider == "vmapped":
        plain = VmappedBounds(own.net, (1, 28, 28))
        return lambda: plain.lower(own.params, own.x_L, own.x_U, own.C, method, VMAPPED_LIMIT[0])
    bounded = glsk.BoundedModule(own.net, (1, 28, 28))
    prune = provider == "glsk"

    def call() -> Tensor:
        with torch.no_grad(), using_precision(TRAINING_DEFAULT):
            lower, _ = bounded.compute_bounds(
                x_L=own.x_L,
                x_U=own.x_U,
                C=own.C,
                params=own.params,
                method=method,
                backend=backend,
                prune=prune,
                bound_upper=False,
            )
        return lower

    return call


VMAPPED_LIMIT = [256 << 20]
"""Bytes of coefficients that the vmapped bounds hold at once; ``compare`` tries several and keeps the fastest."""
