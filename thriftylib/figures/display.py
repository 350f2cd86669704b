"""How a notebook shows a plot with its data, and verdicts: text that a comparison of notebooks can compare."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Sequence

import pandas as pd
from IPython.display import HTML, Image, Markdown, display
from matplotlib.axes import Axes

from thriftylib.figures.look import style

SHOWN_WIDTH = 620
"""CSS pixels: the book's column. The picture has twice as many."""


def show(axes: Axes | Sequence[Axes], data: pd.DataFrame, name: str, alt: str) -> None:
    """Display the figure of ``axes`` and a link that holds ``data``, all that it was drawn from, as ``name``.csv.

    The link is text, so a notebook that is run again and compared shows any change of the data, which a comparison of
    pictures across machines could not; and the picture carries the checksum of that data (PNG key ``Data-SHA256``),
    so that a picture and the data below it cannot part. ``alt`` says in words what the picture shows.
    """
    figure = (axes if isinstance(axes, Axes) else axes[0]).figure
    text = as_csv(data)
    picture = io.BytesIO()
    with style():
        dpi = 2 * SHOWN_WIDTH / figure.get_figwidth()
        figure.savefig(picture, format="png", dpi=dpi, metadata={"Software": None, "Data-SHA256": checksum(text)})
    display(Image(picture.getvalue(), width=SHOWN_WIDTH, alt=alt))
    link = base64.b64encode(text.encode()).decode()
    rows = f"{len(data)} row" + "s" * (len(data) != 1)
    display(HTML(f'<a download="{name}.csv" href="data:text/csv;base64,{link}">Data of this figure (CSV, {rows})</a>'))


def as_csv(data: pd.DataFrame) -> str:
    """The frame as CSV text: rounded so that the last bits of a mean never differ between machines."""
    return data.round(4).to_csv(index=False, lineterminator="\n")


def checksum(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def verdicts(board: pd.DataFrame, folded: int = 8) -> HTML:
    """A table of claims with ours and the verdict, from ``evidence.tables.scoreboard``; long ones are folded.

    Claimed values show how far they may be off; ours the mean, the standard deviation and the number of seeds.
    """
    rows = [
        (row.statement, _claimed(row), _ours(row), f"{row.n}" if row.n else "", _number(row.final), row.verdict)
        for row in board.itertuples()
    ]
    heads = ("claim", "claimed", "ours", "n", "last epoch", "verdict")
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    table = f"<div style='overflow-x:auto'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    counts = board["verdict"].value_counts(sort=False)
    summary = f"{len(board)} claim{'s' * (len(board) != 1)}: " + ", ".join(
        f"{n} {verdict}" for verdict, n in counts.items()
    )
    is_open = " open" if len(board) <= folded else ""
    return HTML(f"<details{is_open}><summary>{summary}</summary>{table}</details>")


def status(table: pd.DataFrame) -> Markdown:
    """What of an experiment (``experiments.collect``) is recorded and what is missing, in a sentence per preset."""
    lines = []
    for (name, preset), rows in table.groupby(["experiment", "preset"], sort=False):
        there, diverged = (rows["status"] != "missing").sum(), (rows["status"] == "diverged").sum()
        line = f"**{name}**, preset `{preset}`: {there} of {len(rows)} runs recorded"
        line += f", {diverged} of them diverged" if diverged else ""
        missing = len(rows) - there
        train = f"thrifty train {name} --preset {preset}"
        lines.append(f"- {line}" + (f"; {missing} missing, `{train}` trains them." if missing else "."))
    return Markdown("\n".join(lines))


def _claimed(row: pd.Series) -> str:
    bound = {"more than": "> ", "at least": "≥ ", "at most": "≤ "}.get(row.bound, "")
    how = " (read from the figure)" if row.mark == "FIGURE" else " (log)" if row.mark == "AUTHORS' LOG" else ""
    return f"{bound}{row.claimed:g}" + (f" ± {row.error:g}" if row.error else "") + f" {row.unit}{how}".rstrip()


def _ours(row: pd.Series) -> str:
    if pd.isna(row.ours):
        return ""
    recipe = "" if pd.isna(row.recipe) else f" ({row.recipe})"  # a count has none
    return _number(row.ours) + (f" ± {row.spread:.2f}" if row.n > 1 else "") + recipe


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"
