"""auto_LiRPA as its users run it: one network at a time, ``conv_mode='patches'`` (its fastest), a batch of samples.

Nothing of auto_LiRPA is in this repository. ``GLSK_PEER_AUTO_LIRPA`` names a checkout of it; without one the rows that
need it are left out.
"""

import copy
import importlib
import os
import sys
import warnings
from types import ModuleType

import torch
from torch import Tensor, nn

from bench.workloads import Workload

VARIABLE = "GLSK_PEER_AUTO_LIRPA"
METHODS = {"IBP": "IBP", "CROWN-IBP": "CROWN-IBP", "CROWN": "CROWN"}
"""glsk's name -> auto_LiRPA's; it has no HBox."""


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


class AutoLirpa:
    """Bounds of single members. Building it, which traces the network for a batch size, is not part of any timing."""

    def __init__(self, case: Workload) -> None:
        module, why = find()
        if module is None:
            raise ImportError(why)
        self.peer, self.case = module, case
        self.net: nn.Module = copy.deepcopy(case.net)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.bounded = module.BoundedModule(
                self.net, case.x_L, bound_opts={"conv_mode": "patches"}, device=case.x_L.device
            )
        self.names = [name for name, _ in case.net.named_parameters()]

    @torch.no_grad()
    def lower(self, method: str) -> Tensor:
        """Lower bounds of the margins of every member of the case, one after the other, [P, B, S]."""
        found = []
        for p in range(self.case.members):
            for name, own in zip(self.names, self._own_parameters(), strict=True):
                own.copy_(self.case.params[name][p])
            ball = self.peer.PerturbationLpNorm(norm=float("inf"), x_L=self.case.x_L, x_U=self.case.x_U)
            x = self.peer.BoundedTensor((self.case.x_L + self.case.x_U) / 2, ball)
            lower, _ = self.bounded.compute_bounds(x=(x,), C=self.case.C, method=METHODS[method], bound_upper=False)
            found.append(lower)
        return torch.stack(found)

    def _own_parameters(self) -> list[Tensor]:
        """In the order of the original network: the graph lists them as they are used."""
        return list(self.bounded.parameters())
