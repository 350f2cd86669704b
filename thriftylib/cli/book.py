"""The command book."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thriftylib.cli.app import FAILED, say
from thriftylib.paths import user_path


def book(
    check: Annotated[bool, typer.Option("--check", help="Follow every internal link of what was built.")] = False,
    to: Annotated[
        Path | None,
        typer.Option("--out", parser=user_path, metavar="PATH", help="Where _build goes; else the book folder."),
    ] = None,
) -> None:
    """Build the site strictly from what is committed; nothing is executed.

    Example: thrifty book --check
    """
    from thriftylib.book import build, check_links

    pages = build(to)
    say(f"built {pages / 'index.html'}")
    if check and (faults := check_links(pages)):
        for fault in faults:
            say(fault)
        raise typer.Exit(FAILED)
