"""Random streams that are a pure function of the run's seed and a label.

Nothing about them has to be saved: a resumed run derives the same streams again.
"""

import hashlib

import torch


def derive_seed(seed: int, *labels: object) -> int:
    """A seed in [0, 2**63) for the stream called ``labels``; different labels give unrelated streams."""
    digest = hashlib.sha256(repr((seed, *labels)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def stream(seed: int, *labels: object) -> torch.Generator:
    """A CPU generator at the start of the stream called ``labels``."""
    return torch.Generator().manual_seed(derive_seed(seed, *labels))
