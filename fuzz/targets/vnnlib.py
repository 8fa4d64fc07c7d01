"""VNN-LIB files: what is read is a property, and writing it again says the same."""

from fuzz import scratch
from glsk import DataError
from glsk.formats import format_vnnlib, parse_vnnlib, read_vnnlib

_DECLARED = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0", "Y_1"))
_BOX = "(assert (>= X_0 -1.5))\n(assert (<= X_0 2e-1))\n(assert (= X_1 (/ 1 3)))\n"
_CASE = "(and (<= X_0 {0}) (>= X_0 -{0}) (<= 0 X_1 {0}) (<= (+ (* 2 Y_0) (- Y_1)) {0}))"


def seeds() -> list[bytes]:
    """Boxes and outputs apart and together, comments, linear terms."""
    texts = [
        f"; a comment\n{_DECLARED}{_BOX}(assert (<= Y_0 Y_1))",
        f"{_DECLARED}{_BOX}(assert (or (and (<= Y_0 Y_1) (>= Y_1 3)) (<= (+ Y_0 (* 2 Y_1)) (- 4 Y_0))))",
        f"{_DECLARED}(assert (or {_CASE.format(1)} {_CASE.format(2.5)}))",
    ]
    return [text.encode() for text in texts]


def check(data: bytes) -> None:
    """DataError, or properties that read back the same."""
    path = scratch.folder() / "fuzz.vnnlib"
    path.write_bytes(data)
    with scratch.refusing(DataError, naming=path):
        found = read_vnnlib(path)
        if found and found[0].input_shape[0] < 100:
            again = parse_vnnlib(format_vnnlib(found))
            assert sum(len(p.boxes) * len(p.unsafe) for p in again) <= sum(len(p.boxes) * len(p.unsafe) for p in found)
