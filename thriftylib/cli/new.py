"""The command new."""

from __future__ import annotations

from typing import Annotated

import typer

from thriftylib.cli.app import put, say


def new(
    paper: Annotated[str, typer.Argument(help="Its name: small letters and digits, words joined by _.")],
) -> None:
    """Write the files of a new paper: module, experiments, claims, notebook, page and its lines in the contents.

    They run as they are, on made-up numbers; every TODO in them is yours to fill in.

    Example: thrifty new tiny_loop
    """
    from thriftylib.authoring.new import new_paper

    for path in new_paper(paper):
        put(path)
    say(f"thrifty check {paper} lists what is left to fill in; book/contribute.md goes through it step by step")
