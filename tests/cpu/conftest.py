"""What tests of the CPU's kernels share."""

from collections.abc import Iterator

import pytest

from tests.support import NATIVE


def instruction_sets() -> list[str]:
    """Those of this build and machine."""
    if "cpu" not in NATIVE:
        return []
    from glsk import _C

    return list(_C.available_isas())


@pytest.fixture(scope="module", params=instruction_sets())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set in turn."""
    from glsk import _C

    before = _C.isa()
    assert _C.select_isa(request.param)
    yield request.param
    assert _C.select_isa(before)
