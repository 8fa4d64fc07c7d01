"""``pytest bench``: not part of the tests (pyproject.toml's testpaths)."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _no_grad() -> object:
    with torch.no_grad():
        yield


@pytest.fixture
def per_pair(benchmark: object) -> object:
    """Record the time per (member, sample) of the benchmark that uses it: call with the number of pairs at the end."""

    def record(pairs: int) -> None:
        stats = benchmark.stats
        if stats is not None:  # None with --benchmark-disable
            benchmark.extra_info["us_per_pair"] = 1e6 * stats.stats.median / pairs

    benchmark.extra_info["threads"] = torch.get_num_threads()
    return record
