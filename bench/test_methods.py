"""Each whole method and gradient on CNN3 and CNN5, glsk beside its peers: ``pytest bench/test_methods.py``.

``bench.compare`` measures the same with larger shares, interleaved; these are for a quick look and for regressions.
"""

from collections.abc import Callable

import pytest

from bench import cases
from bench.cases import CASES

SIZES = {
    "cnn3": {"glsk": (8, 64), "vmapped": (4, 16), "auto_LiRPA": (1, 64)},
    "cnn5": {"glsk": (2, 16), "vmapped": (1, 2), "auto_LiRPA": (1, 4)},
}
ROWS = [(case.name, provider) for case in CASES.values() for provider in case.sizes]


@pytest.mark.parametrize(("name", "provider"), ROWS)
def test_method(benchmark: Callable, per_pair: Callable, name: str, provider: str) -> None:
    why = cases.why_missing(provider)
    if why is not None:
        pytest.skip(why)
    benchmark.group = name
    case = CASES[name]
    contender = cases.prepare(
        case, provider, SIZES[case.net][provider.removesuffix("-noprune").removesuffix("-forward")], "cpu", "auto"
    )
    benchmark.pedantic(contender.call, rounds=3, warmup_rounds=1)
    per_pair(contender.case.pairs)
