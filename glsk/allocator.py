"""How the C library's allocator treats the memory of tensors that come and go in every step."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Of glibc's mallopt."""
_MIB = 1 << 20


def keep_freed_memory() -> bool:
    """Let this process keep up to 512 MiB that it has freed, instead of giving it back to the system at once.

    With glibc's own limits a training step gets its mini-batch and gradients as fresh pages, each of which costs a
    fault and is cleared; in short steps that takes longer than the arithmetic.

    Returns:
        Whether there is such a choice here: with glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library, or another system
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 64 * _MIB)) and bool(mallopt(_TRIM_THRESHOLD, 512 * _MIB))
