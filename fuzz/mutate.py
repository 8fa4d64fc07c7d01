"""Seeded mutations of bytes, for where there is no coverage-guided fuzzer, and for the share that runs as tests."""

import random
from collections.abc import Iterator

from fuzz.scratch import MAX_INPUT

_NUMBERS = (0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_WORDS = (b"null", b"true", b"NaN", b"-1", b"1e999", b'"', b"{", b"[", b"\n", b"\0", b"\xff", b"9" * 40, b"-" * 3)


def mutations(seeds: list[bytes], seed: int) -> Iterator[bytes]:
    """The seeds, then forever one of them with a few changes."""
    random_ = random.Random(seed)
    yield from seeds
    while True:
        data = bytearray(random_.choice(seeds))
        for _ in range(random_.choice((1, 1, 2, 4, 16))):
            _change(data, random_, seeds)
        yield bytes(data[:MAX_INPUT])


def _change(data: bytearray, random_: random.Random, seeds: list[bytes]) -> None:
    at = random_.randrange(len(data) + 1)
    if random_.random() < 0.3:  # headers are where the numbers are
        at = min(at, random_.randrange(64))
    length = random_.choice((1, 2, 4, 8, 64))
    how = random_.randrange(7)
    if how == 0 and at < len(data):
        data[at] ^= 1 << random_.randrange(8)
    elif how == 1:
        data[at : at + length] = random_.randbytes(length)
    elif how == 2:
        order = random_.choice(("little", "big"))
        size = random_.choice((1, 2, 4, 8))
        data[at : at + size] = (random_.choice(_NUMBERS) % 256**size).to_bytes(size, order)
    elif how == 3:
        del data[at : at + random_.choice((1, 4, 64, len(data)))]
    elif how == 4:
        data[at:at] = random_.choice(_WORDS)
    elif how == 5:
        data[at:at] = data[at : at + length]
    else:
        other = random_.choice(seeds)
        start = random_.randrange(len(other) + 1)
        data[at : at + length] = other[start : start + length]
