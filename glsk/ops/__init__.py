"""The operators of glsk, one a file, each a ``torch.ops.glsk.*`` with a plain PyTorch reference."""

from glsk.ops.branch_pass import branch_pass
from glsk.ops.chain_bounds import chain_bounds
from glsk.ops.crown_pass import crown_pass
from glsk.ops.hbox_relu import hbox_relu
from glsk.ops.ibp_affine import ibp_affine
from glsk.ops.optimised_pass import optimised_pass
from glsk.ops.plane_search import plane_search
from glsk.ops.registry import Op
from glsk.ops.relu_relaxation import relu_relaxation
from glsk.ops.robust_cross_entropy import robust_cross_entropy
from glsk.ops.sign_ascent import sign_ascent

ALL: tuple[Op, ...] = (
    branch_pass,
    chain_bounds,
    crown_pass,
    hbox_relu,
    ibp_affine,
    optimised_pass,
    plane_search,
    relu_relaxation,
    robust_cross_entropy,
    sign_ascent,
)
"""Every op, for tests and benchmarks."""

__all__ = [
    "ALL",
    "Op",
    "branch_pass",
    "chain_bounds",
    "crown_pass",
    "hbox_relu",
    "ibp_affine",
    "optimised_pass",
    "plane_search",
    "relu_relaxation",
    "robust_cross_entropy",
    "sign_ascent",
]
