"""The ``cpu`` backend: launchers that hand the compiled kernels (csrc/cpu) addresses, shapes and strides."""

from glsk.cpu import backward, forward

__all__ = ["backward", "forward"]
