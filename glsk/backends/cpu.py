"""The ``cpu`` backend: the kernels of csrc/cpu, compiled for AVX2 and AVX-512, launched by ``glsk.cpu``."""

import importlib

import torch

from glsk.backends.backend import Backend, no_workspace


def _why_missing() -> str | None:
    try:
        importlib.import_module("glsk._C")
    except ImportError as error:
        return (
            f"the compiled CPU part glsk._C cannot be loaded ({error}); reinstall glsk with a C++17 compiler (g++) "
            "present"
        )
    return None


BACKEND = Backend(
    name="cpu",
    devices=("cpu",),
    dtypes=(torch.float32, torch.float64),
    ops=frozenset(
        {
            "branch_pass",
            "chain_bounds",
            "crown_pass",
            "ibp_affine",
            "optimised_pass",
            "plane_search",
            "robust_cross_entropy",
            "sign_ascent",
        }
    ),
    gradients=frozenset({"chain_bounds", "crown_pass", "ibp_affine", "robust_cross_entropy"}),
    why_missing=_why_missing,
    load=lambda: importlib.import_module("glsk.cpu"),
    pass_workspace=no_workspace,  # a thread's scratch, which lies in its caches
)
