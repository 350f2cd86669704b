"""What a method hands to the record: numbers by name, and lists of them, as plain Python values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thriftylib.errors import SpecError

Numbers = dict[str, float | list[float]]


def plain(hook: str, values: Any, *, lists: bool = False) -> Numbers:
    """The numbers that ``hook`` returned: Python's, NumPy's or tensors of one element; perhaps flat lists of such.

    Raises:
        SpecError: it returned something else; names the hook, the name and what is right.
    """
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise SpecError(f"{hook} = {_short(values)}: must be numbers by name")
    return {name: _plain(hook, name, value, lists) for name, value in values.items()}


def _plain(hook: str, name: str, value: Any, lists: bool) -> float | list[float]:
    if hasattr(value, "tolist"):  # arrays and tensors, of any shape and on any device
        value = value.tolist()
    try:
        if lists and isinstance(value, list | tuple):
            return [_number(each) for each in value]
        return _number(value)
    except (TypeError, ValueError, OverflowError):
        right = "a number or a flat list of numbers" if lists else "a number"
        raise SpecError(f"{hook}: {name} = {_short(value)}: must be {right}") from None


def _number(value: Any) -> float:
    if hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
