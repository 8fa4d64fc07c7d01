"""A short, seeded share of the fuzzer's work (see fuzz/README.md): every target, without guidance or sanitizers."""

from contextlib import nullcontext, suppress
from itertools import islice
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz import scratch, targets
from fuzz.mutate import mutations
from glsk import CheckpointError, DataError

EXAMPLES = {"bounds_agree": 12, "bounds_sound": 8, "raw_ops": 60}
FILES = 200


@pytest.mark.parametrize("name", targets.VALUES)
def test_values(name: str) -> None:
    target, tried = targets.load(name), []

    @given(target.inputs())
    @settings(max_examples=EXAMPLES[name], suppress_health_check=list(HealthCheck))
    def check(value: Any) -> None:
        target.check(value)
        tried.append(1)

    check()
    assert tried


@pytest.mark.parametrize("name", targets.FILES)
def test_files(name: str) -> None:
    target, tried = targets.load(name), 0
    for content in islice(mutations(target.seeds(), seed=0), FILES):
        target.check(content)
        tried += 1
    assert tried == FILES


@pytest.mark.parametrize("name", targets.FILES)
def test_some_seeds_are_good_files(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A target whose every input is refused would try the refusals alone."""
    monkeypatch.setattr(scratch, "refusing", lambda *_, **__: nullcontext())
    target, good = targets.load(name), 0
    for content in target.seeds():
        with suppress(ValueError):
            target.check(content)
            good += 1
    assert good


def test_other_errors_silence_and_warnings_are_findings() -> None:
    path = scratch.folder() / "x"
    for error in (KeyError("x"), DataError("no name"), DataError(f"{path}: two\nlines"), MemoryError(), UserWarning()):
        with pytest.raises((AssertionError, type(error))), scratch.refusing(DataError, naming=path):
            raise error
    with scratch.refusing(DataError, CheckpointError, naming=path):
        raise DataError(f"{path}: corrupt")


def test_mutations_are_the_same_every_time() -> None:
    first, again = (list(islice(mutations([b"abc", b"1234567890" * 9], seed=3), 50)) for _ in range(2))
    assert first == again
    assert len(set(first)) > 30
