"""Triton kernels, one fused op a file, each kernel beside its launcher.

Importing this package adds the ``triton`` implementation to every op.

* ``back_substitution`` is the engine of both passes, ``coefficients`` its device functions; ``plan`` makes the
  ``shape`` of a pass, the constants of that kernel; ``pack``, ``rows`` and ``relu_relaxation`` prepare what it reads,
  ``passes`` launches it.
* ``config`` holds every tile size; ``launch`` the precision of products (:func:`glsk.precision.set_precision`).
"""

from glsk.kernels import crown_pass, hbox_relu, ibp_affine, relu_relaxation, robust_cross_entropy
from glsk.kernels.passes import pass_workspace

__all__ = [
    "crown_pass",
    "hbox_relu",
    "ibp_affine",
    "pass_workspace",
    "relu_relaxation",
    "robust_cross_entropy",
]
