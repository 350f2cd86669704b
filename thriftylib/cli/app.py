"""The command group: how mistakes end, how tables and JSON are printed, and the options that several commands share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from thriftylib.errors import DiedError, ThriftyError

FAILED = 1
MISTAKE = 2
STOPPED = 3


def out() -> Console:
    """Standard output; a pipe gets whole lines, not ones folded to 80 columns."""
    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=250)


def say(line: str) -> None:
    """A line for the person on standard error, where it does not mix with data."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(line))


class Commands(TyperGroup):
    """Ends a mistake in one line on standard error and exit code 2 (a dead process: 1), without a traceback."""

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ThriftyError as error:
            say(f"thrifty: {error}")
            raise typer.Exit(FAILED if isinstance(error, DiedError) else MISTAKE) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Papers on parameter-thrifty CNNs, put to the test: what they claim, what came out, and how to rerun it.\n\n"
    "Exit codes: 0 done, 1 something failed, 2 a mistake in the call, 3 stopped early (the same command goes on).",
)


class Precision(StrEnum):
    """What ``--precision`` may be."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


Json = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
Seeds = Annotated[str, typer.Option(help="Seeds such as 0, 0,3 or 0-4.")]
Budget = Annotated[str | None, typer.Option(help="Stop cleanly after this time, such as 90s, 9m or 1h30m.")]
Device = Annotated[str, typer.Option(help="auto (a GPU if there is one), cpu, cuda or cuda:N.")]
DataFolder = Annotated[
    Path | None, typer.Option("--data", help="Folder of the data sets; else THRIFTY_DATA, else a cache folder.")
]
Where = Annotated[
    list[str] | None,
    typer.Option("--where", "-w", metavar="LABEL=V1,V2", help="Only cells whose label has one of the values."),
]


def print_json(value: Any) -> None:
    """Indented JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """A table with numbers to the right; None is an empty cell."""
    rows = [list(row) for row in rows]
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", title_style="bold")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(column, justify="right" if numeric and rows else "left", overflow="fold", no_wrap=numeric)
    for row in rows:
        table.add_row(*(_text(value) for value in row))
    out().print(table)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return escape(f"{value:.2f}" if isinstance(value, float) else str(value))


def parse_value(text: str, words: Sequence[Any] = ()) -> Any:
    """``64`` int, ``0.5`` float, ``true``, ``none``, ``3,7`` or ``3,`` a tuple, JSON lists, else the text itself.

    ``words`` are always texts: an option or a label may have a value named ``none``.
    """
    if text in words:
        return text
    if "," in text and text[0] not in "[{":
        return tuple(parse_value(part, words) for part in text.split(",") if part)
    if text.lower() in ("true", "false", "none"):
        return {"true": True, "false": False, "none": None}[text.lower()]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def parse_pairs(texts: Iterable[str], what: str) -> dict[str, str]:
    """``["a=1", "b=x"]`` -> {"a": "1", "b": "x"}.

    Raises:
        ThriftyError: a text without ``=``, or a key given twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ThriftyError(f"{what} {text!r}: must be key=value")
        if key in pairs:
            raise ThriftyError(f"{what} {key}: is given twice")
        pairs[key] = value
    return pairs


def parse_where(texts: Sequence[str] | None) -> Mapping[str, Sequence[Any]]:
    """``["filters=32,64"]`` -> {"filters": (32, 64)}."""
    values = {key: parse_value(text, ["none"]) for key, text in parse_pairs(texts or (), "--where").items()}
    return {key: value if isinstance(value, tuple) else (value,) for key, value in values.items()}
