"""Settings: frozen dataclasses whose values are checked by their fields' types, and read from text by them."""

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any


def check(settings: Any) -> None:
    """Hold every field of a dataclass to its type, and every number to [0, inf).

    A tuple's items are of its first item's type. An integer is a float too; a bool is neither. Fields of other types
    are left alone.

    Raises:
        ValueError: naming the setting.
    """
    kinds = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, kind = getattr(settings, field.name), kinds[field.name]
        if not _known(kind):
            continue
        if not _is(value, kind):
            raise ValueError(f"{field.name}: expected {_say(kind)}, got {value!r:.50}")
        if isinstance(value, int | float) and not 0 <= value <= sys.float_info.max:
            raise ValueError(f"{field.name}: expected a finite number, at least 0, got {value}")


def check_known(name: str, value: str, known: typing.Iterable[str]) -> None:
    """Raises ValueError naming the setting, if ``value`` is not among the known ones."""
    if value not in known:
        raise ValueError(f"{name}: unknown {value!r}; known: {', '.join(known)}")


def check_positive(settings: Any, *names: str) -> None:
    """Raises ValueError naming the first of these settings that is 0 (or less)."""
    for name in names:
        value = getattr(settings, name)
        if value <= 0:
            least = "at least 1" if isinstance(value, int) else "a positive number"
            raise ValueError(f"{name}: expected {least}, got {value}")


def names(kind: type) -> tuple[str, ...]:
    """The settings of a dataclass."""
    return tuple(field.name for field in dataclasses.fields(kind))


def to_json(settings: Any) -> dict[str, Any]:
    """All settings of a flat dataclass, as JSON can hold them."""
    values = ((name, getattr(settings, name)) for name in names(type(settings)))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values}


def from_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a dataclass from what :func:`to_json` made: JSON's lists are tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def read(kind: type, name: str, text: str) -> Any:
    """The value of setting ``name`` of the dataclass ``kind`` in text; tuples are comma-separated, 2/255 is a float.

    Raises:
        ValueError: naming the setting, if the text is not of its type.
    """
    try:
        return _read(typing.get_type_hints(kind)[name], text.strip())
    except (ValueError, ArithmeticError) as error:
        raise ValueError(f"{name}: cannot read {text!r} ({error})") from error


def _alternatives(kind: Any) -> tuple[Any, ...]:
    union = typing.get_origin(kind) in (typing.Union, types.UnionType)
    return typing.get_args(kind) if union else (kind,)


def _known(kind: Any) -> bool:
    return all(one in (bool, int, float, str, types.NoneType) or _item(one) for one in _alternatives(kind))


def _item(kind: Any) -> Any:
    """The type of a tuple's items; None for what is no tuple."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None


def _is(value: object, kind: Any) -> bool:
    alternatives = _alternatives(kind)
    if len(alternatives) > 1:
        return any(_is(value, one) for one in alternatives)
    if item := _item(kind):
        return isinstance(value, tuple) and all(_is(part, item) for part in value)
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or type(value) is not bool)


def _say(kind: Any) -> str:
    alternatives = _alternatives(kind)
    if len(alternatives) > 1:
        return " or ".join(_say(one) for one in alternatives)
    if item := _item(kind):
        return f"a tuple of {item.__name__}"
    return "nothing" if kind is types.NoneType else str(kind.__name__)


def _read(kind: Any, text: str) -> Any:
    alternatives = _alternatives(kind)
    if types.NoneType in alternatives and text.lower() in ("", "none"):
        return None
    kind = next(one for one in alternatives if one is not types.NoneType)
    if item := _item(kind):
        return tuple(_read(item, part.strip()) for part in text.split(",") if part.strip())
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
            raise ValueError("expected true or false")
        return text.lower() in ("true", "1", "yes")
    if kind is float and "/" in text:  # eps is customarily written 2/255
        numerator, denominator = text.split("/", 1)
        return float(numerator) / float(denominator)
    return kind(text)
