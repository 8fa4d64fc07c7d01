"""auto_LiRPA as its users run it: one network at a time, ``conv_mode='patches'`` (its fastest), a batch of samples.

Nothing of auto_LiRPA is in this repository. ``GLSK_PEER_AUTO_LIRPA`` names a checkout of it; without one the rows that
need it are left out.
"""

import copy
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.workloads import Workload

VARIABLE = "GLSK_PEER_AUTO_LIRPA"
METHODS = {"IBP": "IBP", "CROWN-IBP": "CROWN-IBP", "CROWN": "CROWN"}
"""glsk's name -> auto_LiRPA's; it has no HBox."""

Options = dict[str, object]


def find() -> tuple[ModuleType | None, str]:
    """The module, or None and why not."""
    path = os.environ.get(VARIABLE)
    if path and path not in sys.path:
        sys.path.insert(0, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("auto_LiRPA"), ""
    except ImportError as error:
        return None, f"auto_LiRPA cannot be imported ({error}); set {VARIABLE} to a checkout of it"


def ascent(iterations: int, lr: float) -> Options:
    """Options with which CROWN-Optimized is glsk's alpha-CROWN: Adam on the last pass's slopes alone, as many times."""
    settings = {"iteration": iterations, "lr_alpha": lr, "lr_decay": 0.98, "fix_interm_bounds": True}
    # init_alpha is called apart; stopping early would compare different numbers of iterations
    return {"optimize_bound_args": settings | {"init_alpha": False, "early_stop_patience": iterations}}


class AutoLirpa:
    """Bounds of single members. Building it, which traces the network for a batch size, is not part of any timing."""

    def __init__(self, case: Workload, options: Options | None = None) -> None:
        module, why = find()
        if module is None:
            raise ImportError(why)
        self.peer, self.case = module, case
        self.net: nn.Module = copy.deepcopy(case.net)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.bounded = module.BoundedModule(
                self.net, case.x_L, bound_opts={"conv_mode": "patches"} | (options or {}), device=case.x_L.device
            )
        self.names = [name for name, _ in case.net.named_parameters()]

    @torch.no_grad()
    def lower(self, method: str) -> Tensor:
        """Lower bounds of the margins of every member of the case, one after the other, [P, B, S]."""
        return torch.stack([self._lower(x, method) for x in self._members()])

    @torch.enable_grad()
    def gradient(self, method: str) -> Tensor:
        """Of every member's robust cross-entropy by its weights, [P, D], in the order of ``named_parameters()``."""
        found = []
        for x in self._members():
            lower = self._lower(x, method)
            loss = F.softplus(torch.logsumexp(-lower, dim=1)).mean()
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, self._own_parameters())]))
        return torch.stack(found)

    @torch.enable_grad()
    def optimised(self) -> Tensor:
        """As ``lower``, with lower slopes optimised for every row of C; built with the options of ``ascent``.

        As its own verifier does it: CROWN once, whose hidden bounds are kept (else every iteration computes them anew,
        ``fix_interm_bounds`` or not), then the iterations.
        """
        found = []
        for x in self._members():
            _, _, hidden = self.bounded.init_alpha((x,), c=self.case.C, bound_upper=False)
            lower, _ = self.bounded.compute_bounds(
                x=(x,), C=self.case.C, method="CROWN-Optimized", interm_bounds=hidden, bound_upper=False
            )
            found.append(lower.detach())
        return torch.stack(found)

    def _members(self) -> Iterator[Tensor]:
        """The box, once for every member, whose weights are then those of the network."""
        for p in range(self.case.members):
            with torch.no_grad():
                for name, own in zip(self.names, self._own_parameters(), strict=True):
                    own.copy_(self.case.params[name][p])
            ball = self.peer.PerturbationLpNorm(norm=float("inf"), x_L=self.case.x_L, x_U=self.case.x_U)
            yield self.peer.BoundedTensor((self.case.x_L + self.case.x_U) / 2, ball)

    def _lower(self, x: Tensor, method: str) -> Tensor:
        lower, _ = self.bounded.compute_bounds(x=(x,), C=self.case.C, method=METHODS[method], bound_upper=False)
        return lower

    def _own_parameters(self) -> list[Tensor]:
        """In the order of the original network: the graph lists them as they are used."""
        return list(self.bounded.parameters())
