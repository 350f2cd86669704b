"""Text on its way out: what others wrote is shown, and is no command to a terminal, a spreadsheet or a shell.

HTML is escaped by ``html.escape`` and jinja's autoescape, rich markup and matplotlib's formulae are switched off.
"""

from __future__ import annotations

import re
import shlex
import sys
from contextlib import suppress
from typing import Any

# Control characters but tab and newline, what turns the direction of writing, and halves of characters.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = tuple("=+-@\t\r\n")
_PLAIN_WORD = re.compile(r"[\w@%+=:,./{}\[\]-]+", re.ASCII)


def for_terminal(text: object, *, lines: bool = True) -> str:
    """``text`` with its control characters spelled out; without ``lines`` in one line."""
    shown = _COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
    return shown if lines else shown.replace("\n", "\\n")


def for_spreadsheet(value: Any) -> Any:
    """A cell's value: a text that a spreadsheet would take for a formula has an apostrophe before it."""
    if not isinstance(value, str):
        return value
    return f"'{for_terminal(value)}" if value.startswith(_FORMULA) else for_terminal(value)


def for_shell(word: str) -> str:
    """A word of a command, quoted where a shell would read more into it."""
    return word if _PLAIN_WORD.fullmatch(word) else shlex.quote(word)


def tell(line: str, *, lines: bool = True) -> None:
    """A line for the person on standard error; where nobody hears it (closed, full), work goes on."""
    with suppress(OSError, ValueError):
        print(for_terminal(line, lines=lines), file=sys.stderr, flush=True)


def on_terminal() -> bool:
    """Whether standard error is a terminal: rich would also take FORCE_COLOR for one, and draw into a file."""
    with suppress(OSError, ValueError, AttributeError):
        return sys.stderr.isatty()
    return False
