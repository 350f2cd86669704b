"""How a notebook shows a plot with its data, and verdicts: text that a comparison of notebooks can compare."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from IPython.display import HTML, Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo

from thriftylib.evidence.claims_files import Replication
from thriftylib.figures.style import style

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
    display(Image(as_png(figure, {"Data-SHA256": checksum(text)}), width=SHOWN_WIDTH, alt=alt))
    link = base64.b64encode(text.encode()).decode()
    rows = f"{len(data)} row" + "s" * (len(data) != 1)
    display(HTML(f'<a download="{name}.csv" href="data:text/csv;base64,{link}">Data of this figure (CSV, {rows})</a>'))


def as_png(figure: Figure, words: Mapping[str, str]) -> bytes:
    """``figure`` as a PNG file with ``words`` in it.

    A palette of 256 colours, nearly all that a plot has, makes it less than half as large.
    """
    drawn, file, info = io.BytesIO(), io.BytesIO(), PngInfo()
    with style():
        figure.savefig(drawn, format="png", dpi=2 * SHOWN_WIDTH / figure.get_figwidth())
    for key, word in words.items():
        info.add_text(key, word)
    with Picture.open(drawn) as picture:
        small = picture.convert("RGB").quantize(256, Picture.Quantize.MAXCOVERAGE, dither=Picture.Dither.NONE)
    small.save(file, "png", optimize=True, pnginfo=info)
    return file.getvalue()


def as_csv(data: pd.DataFrame) -> str:
    """The frame as CSV text: rounded so that the last bits of a mean never differ between machines."""
    return data.round(4).to_csv(index=False, lineterminator="\n")


def checksum(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def verdicts(board: pd.DataFrame, folded: int = 8) -> HTML:
    """A table of claims with ours and the verdict, from ``evidence.tables.scoreboard``; long ones are folded.

    Claimed values show how far they may be off; ours the mean, the standard deviation (of a difference half the 90 %
    interval) and the number of seeds. A verdict with a star rests on a reading that was changed after results were
    seen; how stands below the table.
    """
    changes = list(dict.fromkeys(text for row in board.itertuples() if (text := _changed(row))))
    rows = [
        (row.statement, _claimed(row), _ours(row), f"{row.n}" if row.n else "", _number(row.final))
        + (row.verdict + "*" * (changes.index(_changed(row)) + 1 if _changed(row) else 0),)
        for row in board.itertuples()
    ]
    table = _table(("claim", "claimed", "ours", "n", "last epoch", "verdict"), [map(html.escape, row) for row in rows])
    notes = (f"<p>{'*' * number} {html.escape(text)}.</p>" for number, text in enumerate(changes, 1))
    table += "".join(notes)
    counts = board["verdict"].value_counts(sort=False)
    summary = f"{len(board)} claim{'s' * (len(board) != 1)}: " + ", ".join(
        f"{n} {verdict}" for verdict, n in counts.items()
    )
    return _folding(summary, table, is_open=len(board) <= folded)


def status(*tables: pd.DataFrame) -> HTML:
    """What of experiments (``experiments.collect``) is recorded, and how to train what is missing; folded.

    The summary counts each run once, in however many tables it is; a row is a preset of an experiment.
    """
    rows = []
    for (name, preset), runs in pd.concat(tables).groupby(["experiment", "preset"], sort=False):
        there, diverged = (runs["status"] != "missing").sum(), (runs["status"] == "diverged").sum()
        recorded = f"{there} of {len(runs)}" + (f", {diverged} diverged" if diverged else "")
        command = f"<code>thrifty train {name} --preset {preset}</code>" if there < len(runs) else ""
        rows.append((name, preset, recorded, command))
    runs = pd.concat(tables).drop_duplicates("run")
    there = (runs["status"] != "missing").sum()
    table = _table(("experiment", "preset", "recorded", "what is missing is trained by"), rows)
    return _folding(f"{there} of {len(runs)} runs recorded", table, is_open=False)


def replications(others: Iterable[Replication]) -> HTML:
    """What third parties measured with a paper's networks, each with its recipe and a remark: theirs, and no claim."""
    shown = []
    for other in others:
        rows = [
            (result.network, result.start, _with_spread(result.value, result.spread) + f" {other.unit}".rstrip())
            for result in other.results
        ]
        about = f"{other.what}, by {other.by}; {other.recipe}. {other.remark}".rstrip()
        table = _table(("network", "first weights", "measured by them"), [map(html.escape, row) for row in rows])
        shown.append(f"<p>{html.escape(about)}</p>{table}")
    return HTML("".join(shown))


def _with_spread(value: float, spread: float | None) -> str:
    return f"{value:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """HTML, which scrolls where it is wider than its column; cells are HTML."""
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<div style='overflow-x:auto'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _folding(summary: str, content: str, *, is_open: bool) -> HTML:
    return HTML(f"<details{' open' if is_open else ''}><summary>{summary}</summary>{content}</details>")


def _claimed(row: pd.Series) -> str:
    bound = {"more than": "> ", "at least": "≥ ", "at most": "≤ "}.get(row.bound, "")
    how = " (read from the figure)" if row.mark == "FIGURE" else " (log)" if row.mark == "AUTHORS' LOG" else ""
    return f"{bound}{row.claimed:g}" + (f" ± {row.error:g}" if row.error else "") + f" {row.unit}{how}".rstrip()


def _ours(row: pd.Series) -> str:
    if pd.isna(row.ours):
        return ""
    recipe = "" if pd.isna(row.recipe) else f" ({row.recipe})"  # a count has none
    return _number(row.ours) + (f" ± {row.spread:.2f}" if row.n > 1 else "") + recipe


def _changed(row: pd.Series) -> str:
    """How the reading behind a verdict was changed; empty where it was not, or where there is no verdict yet."""
    return getattr(row, "reading_changed", "") if not pd.isna(row.ours) else ""


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"
