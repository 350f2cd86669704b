"""What a method's hooks may return: networks, and numbers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from thriftylib.errors import SpecError

Numbers = dict[str, float | list[float]]


def as_network(hook: str, value: Any) -> nn.Module:
    """``value``, which ``hook`` returned, if it is a network.

    Raises:
        SpecError: it is none.
    """
    if not isinstance(value, nn.Module):
        raise SpecError(f"{hook} = {type(value).__name__}: must return a network (nn.Module)")
    return value


def as_numbers(hook: str, values: Any, *, lists: bool = False) -> Numbers:
    """The numbers that ``hook`` returned as Python's own; ``lists``: or flat lists of them.

    Raises:
        SpecError: it returned something else; names the hook, the name and what is right.
    """
    if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
        raise SpecError(f"{hook} = {_short(values)}: must be numbers by name")
    found: Numbers = {}
    for name, value in values.items():
        try:
            found[name] = _plain(value, lists)
        except (TypeError, ValueError, OverflowError):
            right = "a number or a flat list of numbers" if lists else "a number"
            raise SpecError(f"{hook}: {name} = {_short(value)}: must be {right}") from None
    return found


def _plain(value: Any, lists: bool) -> float | list[float]:
    if hasattr(value, "tolist"):  # arrays and tensors, on any device
        value = value.tolist()
    if lists and isinstance(value, list | tuple):
        return [_plain(each, False) for each in value]
    if not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
