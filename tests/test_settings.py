from dataclasses import dataclass

import pytest

from glsk import settings


@dataclass(frozen=True)
class Example:
    count: int = 1
    share: float = 0.5
    name: str = "a"
    on: bool = True
    steps: tuple[int, ...] = ()
    names: tuple[str, ...] = ("x",)
    eps: float | None = None
    other: object = None

    def __post_init__(self):
        settings.check(self)


@pytest.mark.parametrize(
    "good", [{"count": 0}, {"share": 1}, {"eps": 0}, {"eps": 0.1}, {"steps": (1, 2)}, {"other": 1j}, {"on": False}]
)
def test_values_of_their_types_pass(good):
    example = Example(**good)
    assert Example(**settings.from_json(settings.to_json(example))) == example


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ({"count": 1.0}, "count: expected int, got 1.0"),
        ({"count": True}, "count: expected int, got True"),
        ({"count": -1}, "count: expected a finite number, at least 0"),
        ({"share": "1"}, "share: expected float, got '1'"),
        ({"share": float("nan")}, "share: expected a finite number"),
        ({"share": float("inf")}, "share: expected a finite number"),
        ({"share": 10**400}, "share: expected a finite number"),
        ({"name": None}, "name: expected str"),
        ({"on": 1}, "on: expected bool"),
        ({"steps": [1]}, "steps: expected a tuple of int"),
        ({"steps": (1.5,)}, "steps: expected a tuple of int"),
        ({"steps": (True,)}, "steps: expected a tuple of int"),
        ({"names": "x"}, "names: expected a tuple of str"),
        ({"eps": "0"}, "eps: expected float or nothing"),
        ({"eps": -1.0}, "eps: expected a finite number"),
    ],
)
def test_other_values_are_named(bad, expected):
    with pytest.raises(ValueError, match=expected.replace(".", r"\.")):
        Example(**bad)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("count", " 3 ", 3),
        ("share", "2/255", 2 / 255),
        ("share", "1e-3", 1e-3),
        ("on", "No", False),
        ("steps", "1, 2,", (1, 2)),
        ("steps", "", ()),
        ("names", "a,b", ("a", "b")),
        ("eps", "none", None),
        ("eps", "1/4", 0.25),
    ],
)
def test_text_is_read_by_type(name, text, expected):
    assert settings.read(Example, name, text) == expected


@pytest.mark.parametrize(
    ("name", "text"), [("count", "1.5"), ("on", "maybe"), ("share", "1/0"), ("share", "x"), ("steps", "1,b")]
)
def test_text_of_another_type_is_named(name, text):
    with pytest.raises(ValueError, match=f"^{name}: cannot read '{text}'"):
        settings.read(Example, name, text)


def test_positive_and_known_values():
    settings.check_positive(Example(), "count", "share")
    with pytest.raises(ValueError, match="share: expected a positive number, got 0"):
        settings.check_positive(Example(share=0.0), "count", "share")
    with pytest.raises(ValueError, match="count: expected at least 1, got 0"):
        settings.check_positive(Example(count=0), "count")
    with pytest.raises(ValueError, match="name: unknown 'a'; known: b, c"):
        settings.check_known("name", "a", ("b", "c"))
