"""How the GPU kernels make float32 products. Training may trade accuracy for speed, certification never does."""

from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("tf32x3", "bf16x3", "fp16", "tf32", "ieee")

ACCURATE = ("tf32x3", "ieee")
"""Those with the accuracy of float32: what certification may use."""

TRAINING = ("tf32x3", "bf16x3", "fp16", "ieee")
"""Those that keep PGPE's gradient estimate, to a cosine of 0.999 with the one in float64 (``bench/precision.py``)."""

TRAINING_DEFAULT = "bf16x3"
"""The fastest of those: on tensor cores BF16 products take half the time of TF32 ones."""

_chosen = NAMES[0]


def precision() -> str:
    """How float32 products are made of tensor-core products; see :func:`set_precision`."""
    return _chosen


def validate_for_training(name: str) -> str:
    """Check that training may use a precision. Raises ValueError."""
    if name in NAMES and name not in TRAINING:
        raise ValueError(f"precision: {name!r} is too coarse to train in; choose one of {', '.join(TRAINING)}")
    return _validate(name)


def _validate(name: str) -> str:
    if name not in NAMES:
        raise ValueError(f"precision: unknown {name!r}; known: {', '.join(NAMES)}")
    return name


def set_precision(name: str) -> None:
    """Choose how float32 products are made; ``bench/results/precision.json`` holds what each does to training.

    Args:
        name: "tf32x3" (default: three TF32 products, float32 accuracy), "bf16x3" (three BF16 products, about 2^-16
            relative, faster), "fp16" (one FP16 product of numbers rounded to nearest, about 2^-11, in the CUDA kernel
            of deep networks; "bf16x3" elsewhere), "tf32" (one product of numbers cut off, about 2^-10) or "ieee" (no
            tensor cores).

    Raises:
        ValueError: unknown name.
    """
    global _chosen
    _chosen = _validate(name)


@contextmanager
def using_precision(name: str) -> Iterator[None]:
    """:func:`set_precision` for a ``with`` block."""
    before = _chosen
    set_precision(name)
    try:
        yield
    finally:
        set_precision(before)


@contextmanager
def accurate() -> Iterator[None]:
    """Within it products have the accuracy of float32, whatever precision has been chosen: for what certifies."""
    with using_precision(_chosen if _chosen in ACCURATE else ACCURATE[0]):
        yield
