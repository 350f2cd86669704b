"""The parameters of a notebook: what its cell of them says, and whether given values may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from thriftylib.errors import ThriftyError
from thriftylib.options import suggest
from thriftylib.paths import user_path
from thriftylib.running.folders import given_folder, parse_budget
from thriftylib.spec import parse_device, parse_seeds

_LINE = re.compile(r"^(\w+)(?:: \w+)? = (.+?)(?:  # (.*))?$", re.MULTILINE)
FOLDERS = ("data", "results")
PARSERS: dict[str, Callable[[Any], Any]] = {"device": parse_device, "seeds": parse_seeds, "budget": parse_budget}
"""Of the parameters whose values have a form; they refuse any other, also where nothing is trained."""


class Parameter(NamedTuple):
    """Its default, and the only values that it may have; none: any of the default's type."""

    default: Any
    choices: tuple[str, ...] = ()


def parse(source: str) -> dict[str, Parameter]:
    """The parameters of a cell: a line each, ``name: type = default  # comment``; type and comment may be left out.

    A comment that begins "a | b | c" or "a, or b, c" lists the values there are; those of a device are known by torch.
    """
    found = {}
    for name, default, comment in _LINE.findall(source):
        value = ast.literal_eval(default)
        listed = re.fullmatch(r"([\w-]+), or ([\w-]+(?:, [\w-]+)*)", comment)
        words = [listed[1], *listed[2].split(", ")] if listed else comment.split(" | ")
        choices = tuple(re.match(r"[\w-]*", word.strip())[0] for word in words)
        is_choice = len(choices) > 1 and name != "device" and value in choices and all(choices)
        found[name] = Parameter(value, choices if is_choice else ())
    return found


def check(known: Mapping[str, Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` as what the notebook's own defaults are.

    A folder of a name such as 2024 comes from papermill as a number; ``~`` is the home folder.

    Raises:
        ThriftyError: there is no such parameter, it is of another type or form, or has not this value.
    """
    checked = {}
    for name, value in given.items():
        if name not in known:
            raise ThriftyError(f"there is no parameter {name!r}" + suggest(name, known))
        default, choices = known[name]
        kind = type(default)
        if kind is str and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        try:
            value = TypeAdapter(kind).validate_python(value)
        except ValidationError:
            expected = f"must be of type {kind.__name__} such as {default!r}"
            raise ThriftyError(f"{name} = {value!r}: {expected}") from None
        if choices and value not in choices:
            raise ThriftyError(f"{name} = {value!r}" + suggest(value, choices))
        if parse := PARSERS.get(name):
            parse(value)
        checked[name] = str(user_path(value)) if name in FOLDERS and value else value
    if checked.get("epochs", 0) < 0:
        raise ThriftyError(f"epochs = {checked['epochs']}: must be above 0, or 0 for as many as the recipe says")
    if checked.get("results") and checked.get("preset") == "recorded":
        given_folder(checked["results"])
    return checked


def injected(cells: Sequence[str]) -> tuple[str, list[str]]:
    """The cell of the parameters among those that a kernel has executed, and the names that papermill set after it."""
    at = next((place for place, cell in enumerate(cells) if re.match("preset\\b", cell)), None)
    if at is None:
        return "", []
    after = cells[at + 1] if len(cells) > at + 1 else ""
    if not after.startswith("# Parameters"):
        return cells[at], []
    tree = ast.parse(after)
    targets = [target for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets]
    return cells[at], [target.id for target in targets if isinstance(target, ast.Name)]
