"""Every bad call raises one short error of glsk's own, and every odd but valid one gives the right answer."""

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import glsk
from tests.bad_calls import Row, rows

PACKAGE = Path(glsk.__file__).parent
TABLE = rows()

pytestmark = pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")  # PyTorch will drop quantised tensors


def test_the_table_is_long() -> None:
    assert len(TABLE) >= 300


@pytest.mark.parametrize("row", TABLE, ids=[name for name, *_ in TABLE])
def test_call(row: Row) -> None:
    _, call, error, expected = row
    if error is None:
        assert expected(call()) is not False
    else:
        check_refusal(call, error, expected)


def check_refusal(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert words in message
    assert len(message) < 500
    assert len(message.splitlines()) == 1
    raised_in = Path(traceback.extract_tb(caught.value.__traceback__)[-1].filename)
    assert raised_in.is_relative_to(PACKAGE), f"raised in {raised_in}"
    assert caught.value.__cause__ is None
