"""What many tests share: the backends of this machine, boxes, and how two bounds are compared."""

import torch
from torch import Tensor

import glsk

# Those whose bounds a formula gives; alpha-CROWN, an ascent, has tests of its own.
METHODS = tuple(method for method in glsk.methods() if method != "alpha-CROWN")

# Triton and CUDA have tests of their own; these two run everywhere that a compiler was there.
CPU_BACKENDS = [name for name in ("reference", "cpu") if glsk.backends.why_missing(name) is None]
NATIVE = [name for name in CPU_BACKENDS if name != "reference"]

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Of a backend against the float64 reference, relative to the scale of the bounds."""


def scale(*bounds: Tensor, floor: float = 0.1) -> float:
    """The largest magnitude among bounds; ``floor`` where they are all near 0."""
    return max(floor, *(b.abs().max().item() for b in bounds if b.numel()))


def assert_close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    """``found`` equals ``wanted`` up to ``tolerance`` times the scale of ``wanted``."""
    assert found.shape == wanted.shape
    error = (found.double() - wanted.double()).abs().max().item() / scale(wanted.double())
    assert error <= tolerance, f"differs by {error:.2e} of the scale, {tolerance:.0e} allowed"


def assert_bounds_close(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], tolerance: float) -> None:
    """Both ends, on the scale of the two together."""
    assert_close(torch.stack(found), torch.stack(wanted), tolerance)
