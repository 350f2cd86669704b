"""The API reference: ``{modules} package`` documents every module of a package, so that a new one is never forgotten.

Strict models show their fields as the source has them, in place of a long signature.
"""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_OF_DATA = ("attribute", "data", "property")
_untouched: dict[str, list[str]] = {}


class Modules(SphinxDirective):
    """``{modules} package``: what autodoc says of each module of the package, in a section of its own."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        package = self.arguments[0]
        names = sorted(module.name for module in pkgutil.iter_modules(import_module(package).__path__))
        parts = [f"## {name}\n\n```{{eval-rst}}\n.. automodule:: {package}.{name}\n```\n" for name in names]
        return self.parse_text_to_nodes("\n".join(parts), allow_section_headings=True)


def _is_model(kind: str, thing: Any) -> bool:
    return kind == "class" and isinstance(thing, type) and issubclass(thing, BaseModel)


def _no_signature(app, kind, name, thing, options, signature, returns) -> tuple[str, str] | None:
    return ("", "") if _is_model(kind, thing) else None


def _keep(app, kind: str, name: str, thing: Any, options, lines: list[str]) -> None:
    """Napoleon takes "One value: explained." for a type and its text; remember what a description of data said."""
    if kind in _OF_DATA:
        _untouched[name] = list(lines)


def _finish(app, kind: str, name: str, thing: Any, options, lines: list[str]) -> None:
    if kind in _OF_DATA:
        lines[:] = _untouched.pop(name)
    elif _is_model(kind, thing):
        own = [(key, thing.model_fields[key]) for key in thing.__annotations__ if key in thing.model_fields]
        lines += [""] if own else []
        for key, field in own:
            default = "" if field.default is PydanticUndefined else f" = {field.default!r}"
            annotation = re.sub(r"\s+", " ", str(thing.__annotations__[key]))
            lines.append(f"- ``{key}: {annotation}{default}``")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect around napoleon, which listens at the default priority."""
    app.add_directive("modules", Modules)
    app.connect("autodoc-process-signature", _no_signature)
    app.connect("autodoc-process-docstring", _keep, priority=1)
    app.connect("autodoc-process-docstring", _finish, priority=999)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
