"""CNN5 on a GPU in every precision: its layers and the margins, by every backend, against float64 on the device."""

import pytest
import torch

from bench.gpu import first
from bench.gpu.cases import case
from glsk import backends
from glsk.precision import NAMES, using_precision

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def exact() -> dict[str, list[torch.Tensor]]:
    bounded, arguments = case("cnn5", (1, 28, 28), first.MEMBERS, 16, "cuda", torch.float64, 0.02)
    return {method: first._bounds(bounded, arguments, method, "reference") for method in first.METHODS}


@pytest.mark.parametrize("backend", ["cuda", "triton"])
@pytest.mark.parametrize("precision", NAMES)
@pytest.mark.parametrize("method", first.METHODS)
def test_cnn5(exact: dict[str, list[torch.Tensor]], method: str, precision: str, backend: str) -> None:
    if (reason := backends.why_missing(backend)) is not None:
        pytest.skip(reason)
    bounded, arguments = case("cnn5", (1, 28, 28), first.MEMBERS, 16, "cuda", torch.float32, 0.02)
    with using_precision(precision):
        found = first._bounds(bounded, arguments, method, backend)
    assert first._error(found, exact[method]) <= first.MOST[precision]
