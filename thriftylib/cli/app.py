"""The command group: how commands are found, how mistakes end, what is printed, and options that several share.

A command is a module of this folder with a function of its name (``list_`` where Python has the name). It is imported
when it is called or help is asked for, so it imports what it works with inside its functions.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from thriftylib.errors import DEBUG, FAILED, MISTAKE, STOPPED, BuildError, ThriftyError, debugging
from thriftylib.escaping import for_terminal, tell
from thriftylib.paths import user_path

if TYPE_CHECKING:
    from thriftylib.evidence.claims_files import Loaded


class Commands(TyperGroup):
    """The commands; whatever goes wrong ends in one line on standard error, and only ``--debug`` shows a traceback."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        modules = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
        self.commands = dict.fromkeys(name for name in modules if name not in ("app", "__main__"))

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            module = importlib.import_module(f"thriftylib.cli.{cmd_name}")
            single = typer.Typer(add_completion=False, rich_markup_mode="rich")
            single.command(cmd_name, cls=Command)(getattr(module, cmd_name, None) or getattr(module, f"{cmd_name}_"))
            self.commands[cmd_name] = typer.main.get_command(single)
        return self.commands.get(cmd_name)

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        if "--debug" in args:  # before or after the command
            args = [word for word in args if word != "--debug"]
            os.environ[DEBUG] = "1"
            ctx.call_on_close(lambda: os.environ.pop(DEBUG, None))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, SystemExit, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            say("thrifty: stopped")
            raise typer.Exit(STOPPED) from None
        except Exception as error:
            if is_usage(error):
                raise
            if debugging():
                traceback.print_exc()
            text, code = explain(error)
            tell(f"thrifty: {text}", lines=isinstance(error, BuildError))
            raise typer.Exit(code) from None


def is_usage(error: Exception) -> bool:
    """Whether the command's parser says what is wrong, which typer shows."""
    return hasattr(error, "format_message")


def explain(error: Exception) -> tuple[str, int]:
    """Any error in one line, and its exit code: a place that cannot be used is the user's, the rest a failure."""
    if isinstance(error, ThriftyError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror or error}", MISTAKE
    if isinstance(error, OSError):
        return f"the system refuses something: {error.strerror or error}", FAILED
    if isinstance(error, MemoryError):
        return "there is not enough memory for that", MISTAKE
    return f"failed by {type(error).__name__}: {error}; --debug shows where", FAILED


class Command(TyperCommand):
    """A command that no option may be given to twice, but those of which several count."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        single = [one for one in order if one.param_type_name == "option" and not one.multiple]
        if twice := next((one for one in single if single.count(one) > 1), None):
            raise ThriftyError(f"{max(twice.opts, key=len)} is given twice")
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False
)


@app.callback()
def _thrifty(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Papers on parameter-thrifty CNNs, put to the test: what they claim, what came out, and how to rerun it.

    Exit codes: 0 done, 1 something failed, 2 a mistake in the call, 3 stopped early (the same command goes on).
    """


def _device(text: str) -> str:
    from thriftylib.spec import parse_device

    return parse_device(text)


class Precision(StrEnum):
    """What ``--precision`` may be."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class Execution(StrEnum):
    """What ``--execution`` may be."""

    auto = "auto"
    eager = "eager"
    compiled = "compiled"
    graph = "graph"


Json = Annotated[bool, typer.Option("--json", help="Print data as JSON.")]
Budget = Annotated[str | None, typer.Option(help="Stop cleanly after this time, such as 90s, 9m or 1h30m.")]
Device = Annotated[
    str, typer.Option(parser=_device, metavar="DEVICE", help="auto (a GPU if there is one), cpu, cuda or cuda:N.")
]
DataFolder = Annotated[
    Path | None,
    typer.Option(
        "--data",
        parser=user_path,
        metavar="PATH",
        help="Folder of the data sets; else THRIFTY_DATA, else a cache folder.",
    ),
]
Results = Annotated[
    Path | None, typer.Option(parser=user_path, metavar="PATH", help="Folder of the records; else data/results.")
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", parser=user_path, metavar="PATH", help="Folder of records, weights and checkpoints; else local/."
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, max=1024, help="Of a CPU, for a run; last digits depend on it.")]
Jobs = Annotated[int, typer.Option(min=1, max=256, help="Runs trained at once on a device; pays for small networks.")]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="auto: bf16 on a GPU, fp32 on a CPU.")]

ExecutionOption = Annotated[
    Execution,
    typer.Option(
        "--execution",
        help="Of steps. auto: on a GPU as one CUDA graph where a run allows it, else eager; see the book.",
    ),
]


def say(line: str) -> None:
    """A line for the person on standard error, where it does not mix with data."""
    tell(line)


@contextmanager
def readable(loaded: Loaded) -> Iterator[Loaded]:
    """``loaded``, with a line for each claims file that cannot be read; the command then fails at its end."""
    for fault in loaded.faults.values():
        say(fault)
    yield loaded
    if loaded.faults:
        raise typer.Exit(FAILED)


def print_json(value: Any) -> None:
    """Indented JSON on standard output."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False, default=str))


def runs_are(count: int) -> str:
    """``"1 run is"``, ``"2 runs are"``."""
    return f"{count} run is" if count == 1 else f"{count} runs are"


def put(text: object = "") -> None:
    """A line, or lines, on standard output."""
    typer.echo(for_terminal(text))


def print_rows(rows: Sequence[Mapping[str, Any]], title: str | None = None) -> None:
    """A table of rows with the same keys, numbers to the right; None is an empty cell."""
    if title is not None:
        typer.secho(for_terminal(title), bold=True)
    if rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table with numbers to the right; None is an empty cell."""
    numeric = [all(isinstance(value, int | float | None) for value in column) for column in zip(*rows, strict=True)]
    cells = [[for_terminal(_text(value), lines=False) for value in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for number, row in enumerate(cells):
        aligned = zip(row, widths, numeric, strict=True)
        line = "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in aligned)
        typer.secho(line.rstrip(), bold=number == 0)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def parse_value(text: str, words: Sequence[Any] = ()) -> Any:
    """``64`` int, ``0.5`` float, ``true``, ``none``, ``3,7`` or ``3,`` a tuple, JSON lists, else the text itself.

    ``words`` are always texts: an option or a label may have a value named ``none``.
    """
    if text in words:
        return text
    if "," in text and text[0] not in "[{":
        return tuple(parse_value(part, words) for part in text.split(",") if part)
    try:
        return json.loads(
            {"none": "null"}.get(text.lower(), text.lower() if text.lower() in ("true", "false") else text)
        )
    except (ValueError, RecursionError):  # 5000 digits, or brackets
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
