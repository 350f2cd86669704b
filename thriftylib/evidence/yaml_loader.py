"""YAML that a stranger may have written: bounded before it is built, and without a key given twice."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import yaml

from thriftylib.errors import RecordError

_MOST, _DEEPEST = 2**22, 50
"""Characters and items of a text with its aliases, and brackets within each other."""
_Safe = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Loader(_Safe):
    """PyYAML's safe loader of a text.

    Raises:
        RecordError: its aliases make it too large, or it is too deep.
    """

    def __init__(self, text: str) -> None:
        _check_size(text)
        super().__init__(text)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for each, _ in node.value:
            key = None if each.tag == "tag:yaml.org,2002:merge" else self.construct_object(each, deep=True)
            if key is not None and isinstance(key, Hashable):  # others are refused below
                if key in seen:
                    raise yaml.MarkedYAMLError(problem=f"the key {key!r} is there twice", problem_mark=node.start_mark)
                seen.add(key)
        return super().construct_mapping(node, deep)


def _check_size(text: str) -> None:
    """Refuse what a few aliases of aliases would make too large, or too deep, before it is built."""
    sizes: dict[str, float] = {}
    opened: list[tuple[str | None, float]] = []
    total = 0.0
    for event in yaml.parse(text, _Safe):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            total += sizes.get(anchor, 0)
        elif isinstance(event, yaml.ScalarEvent):
            total += (size := 1 + len(event.value))
            sizes[anchor] = size
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append((anchor, total))
            sizes[anchor] = math.inf  # inside itself it has no end
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            total += 1
            sizes[anchor] = total - before
        if total > _MOST or len(opened) > _DEEPEST:
            raise RecordError(f"line {event.start_mark.line + 1}: with its aliases it is too large, or too deep")
