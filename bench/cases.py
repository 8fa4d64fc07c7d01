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

PROVIDERS = ("glsk", "glsk-noprune", "glsk-forward", "vmapped", "auto_LiRPA")
"""glsk: ``backend="auto"`` and default pruning. glsk-noprune: every row of every pass, as vmapped does.
glsk-forward: of a gradient, the loss alone."""

ITERATIONS, LR = 20, 0.1
"""Of alpha-CROWN."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """Lower bounds of the margins, float32, as training needs them, or the gradient of the loss they make.

    Attributes:
        sizes: provider -> (members, samples) of one call. The slower a provider, the smaller its share of the work;
            results are compared per (member, sample).
        gradient: of every member's robust cross-entropy by its weights, instead of the bounds.
        batches: numbers of samples of which auto_LiRPA gets the one that is fastest a sample; none: that of sizes.
    """

    name: str
    net: str
    method: str
    sizes: dict[str, Size]
    gradient: bool = False
    batches: tuple[int, ...] = ()


def _case(net: str, method: str, glsk_size: Size, vmapped_size: Size, peer_size: Size) -> Case:
    sizes = {"glsk": glsk_size, "vmapped": vmapped_size}
    if method == "CROWN":
        sizes["glsk-noprune"] = glsk_size
    if method in peer_auto_lirpa.METHODS:
        sizes["auto_LiRPA"] = peer_size
    return Case(f"{net}-{method.lower()}", net, method, sizes)


_BATCHES = {"cnn3": (16, 64, 256), "cnn5": (4, 16, 64)}


def _optimised(net: str, size: Size) -> Case:
    sizes = {"glsk": size, "auto_LiRPA": (1, _BATCHES[net][0])}
    return Case(f"{net}-alpha-crown", net, "alpha-CROWN", sizes, batches=_BATCHES[net])


def _gradient(net: str, method: str, size: Size) -> Case:
    name = f"{net}-{method.lower()}-grad" + (f"-p{size[0]}" if size[0] > 1 else "")
    sizes = {"glsk": size, "glsk-forward": size, "auto_LiRPA": (1, _BATCHES[net][0])}
    return Case(name, net, method, sizes, gradient=True, batches=_BATCHES[net])


CASES = {
    case.name: case
    for case in (
        _case("cnn3", "CROWN", (64, 512), (8, 64), (2, 64)),
        _case("cnn3", "CROWN-IBP", (64, 512), (64, 64), (4, 64)),
        _case("cnn3", "HBox", (64, 512), (8, 64), (0, 0)),
        _case("cnn3", "IBP", (64, 512), (64, 512), (8, 64)),
        _case("cnn5", "CROWN", (8, 64), (2, 4), (1, 16)),
        _optimised("cnn3", (1, 64)),
        _gradient("cnn3", "CROWN", (1, 256)),
        _gradient("cnn3", "CROWN", (16, 256)),
        _gradient("cnn3", "CROWN-IBP", (1, 256)),
        _gradient("cnn3", "IBP", (1, 256)),
        _gradient("cnn5", "CROWN", (1, 64)),
        _gradient("cnn5", "CROWN-IBP", (1, 64)),
    )
}

SMOKE = dict.fromkeys(PROVIDERS, (2, 4))
"""Sizes with which a run only shows that everything works."""


@dataclass
class Contender:
    """A provider made ready: ``call()`` gives the lower bounds [P, B, 9] of its share of the work.

    Of a gradient it gives that, [P, D]; glsk-forward the losses [P].
    """

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
    return Contender(provider, own, _call(case, provider, own, backend))


def _call(case: Case, provider: str, own: Workload, backend: str) -> Callable[[], Tensor]:
    method = case.method
    if provider == "auto_LiRPA":
        if method == "alpha-CROWN":
            return peer_auto_lirpa.AutoLirpa(own, peer_auto_lirpa.ascent(ITERATIONS, LR)).optimised
        peer = peer_auto_lirpa.AutoLirpa(own)
        return lambda: peer.gradient(method) if case.gradient else peer.lower(method)
    if provider == "vmapped":
        plain = VmappedBounds(own.net, (1, 28, 28))
        return lambda: plain.lower(own.params, own.x_L, own.x_U, own.C, method, VMAPPED_LIMIT[0])
    return _own_call(case, provider, own, backend)


def _own_call(case: Case, provider: str, own: Workload, backend: str) -> Callable[[], Tensor]:
    bounded = glsk.BoundedModule(own.net, (1, 28, 28))
    prune = provider != "glsk-noprune"
    leaves = {name: value.detach().requires_grad_() for name, value in own.params.items()}

    def bounds(params: dict[str, Tensor]) -> Tensor:
        with using_precision(TRAINING_DEFAULT):
            lower, _ = bounded.compute_bounds(
                x_L=own.x_L,
                x_U=own.x_U,
                C=own.C,
                params=params,
                method=case.method,
                backend=backend,
                prune=prune,
                bound_upper=False,
                iterations=ITERATIONS,
                lr=LR,
            )
        return lower

    @torch.no_grad()
    def forward() -> Tensor:
        lower = bounds(own.params)
        return glsk.robust_cross_entropy(lower, backend=backend) if case.gradient else lower

    @torch.enable_grad()
    def gradient() -> Tensor:
        with using_precision(TRAINING_DEFAULT):
            losses = glsk.robust_cross_entropy(bounds(leaves), backend=backend)
            found = torch.autograd.grad(losses.sum(), list(leaves.values()))
        return torch.cat([g.flatten(1) for g in found], 1)

    return gradient if case.gradient and provider != "glsk-forward" else forward


VMAPPED_LIMIT = [256 << 20]
"""Bytes of coefficients that the vmapped bounds hold at once; ``compare`` tries several and keeps the fastest."""
