"""The command check."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from thriftylib.cli.app import FAILED, Json, print_json, put, say


def check(
    paper: Annotated[str | None, typer.Argument(help="Only this paper; none: all papers.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Then train the smoke grids, and time them.")] = False,
    as_json: Json = False,
) -> None:
    """Check the files of a paper against one another, each finding in one line with file and line.

    Claims, options, recipes, counts, grids, notebooks and page; exit code 1 where something is to be mended.

    Example: thrifty check thriftynet --smoke
    """
    from thriftylib.authoring.check import check as check_files
    from thriftylib.authoring.check import check_smoke, paper_names

    papers = [paper] if paper else paper_names()
    found = [finding for name in papers for finding in check_files(name)]
    if smoke and not found:  # what is wrong on paper fails or misleads in training too
        with tempfile.TemporaryDirectory() as folder:
            found = [finding for name in papers for finding in check_smoke(name, Path(folder))]
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        for finding in found:
            put(finding)
    say(f"{', '.join(papers)}: {len(found) or 'nothing'} to mend")
    if found:
        raise typer.Exit(FAILED)
