"""A short, seeded share of the fuzzer's work (see fuzz/README.md): every target, without guidance or sanitizers."""

from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import targets
from fuzz.mutate import mutations

EXAMPLES = {"bounds_agree": 15, "bounds_sound": 10, "raw_ops": 60}


@pytest.mark.parametrize("name", targets.VALUES)
@given(data=st.data())
def test_values(name: str, data: Any) -> None:
    target = targets.load(name)
    target.check(data.draw(target.inputs()))


@pytest.mark.parametrize("name", targets.FILES)
def test_files(name: str) -> None:
    target, tried = targets.load(name), 0
    for content in islice(mutations(target.seeds(), seed=0), 300):
        target.check(content)
        tried += 1
    assert tried == 300


@pytest.mark.parametrize("name", targets.FILES)
def test_the_seeds_of_a_target_reach_what_comes_after_the_refusals(name: str) -> None:
    """A target whose every input is refused tests the refusals alone."""
