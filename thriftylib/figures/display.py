"""How a notebook shows a plot with its data, and verdicts: text that a comparison of notebooks can compare."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import pandas as pd
from IPython.display import HTML, Image, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo

from thriftylib.errors import ThriftyError
from thriftylib.escaping import for_spreadsheet
from thriftylib.evidence.claims_files import Replication
from thriftylib.figures.style import house_style

SHOWN_WIDTH = 620
"""CSS pixels: the book's column. The picture has twice as many."""

SMALL_WIDTH = 420
"""CSS pixels of a figure that holds nothing of ours."""

_BOUNDS = {"more than": "> ", "at least": "≥ ", "at most": "≤ "}
_MARKS = {"FIGURE": " (read from the figure)", "AUTHORS' LOG": " (log)"}


def show(axes: Axes | Sequence[Axes], data: pd.DataFrame, name: str, alt: str) -> None:
    """Display the figure of ``axes`` and a link that holds ``data``, all that it was drawn from, as ``name``.csv.

    The link is text, so a notebook that is run again and compared shows any change of the data, which a comparison of
    pictures across machines could not; and the picture carries the checksum of that data (PNG key ``Data-SHA256``),
    so that a picture and the data below it cannot part. ``alt`` says what is drawn; the figure's own label, what it
    shows (``findings.tell``), follows it. Points that have a URL are in the picture too (PNG key ``Points``: a JSON
    list of per cent from the left, from the top, and the URL).

    A figure of claimed and reproduced points without any of ours is drawn small, and a sentence (of the class
    ``still-to-run``, which the book folds) says what is missing and how to train it.
    """
    figure = (axes if isinstance(axes, Axes) else axes[0]).figure
    text, missing = as_csv(data), still_to_run(data)
    width = SMALL_WIDTH if missing else SHOWN_WIDTH
    words = " ".join(filter(None, (alt, figure.get_label())))
    display(Image(as_png(figure, {"Data-SHA256": checksum(text)}, width), width=width, alt=words))
    link = base64.b64encode(text.encode()).decode()
    rows = f"{len(data)} row" + "s" * (len(data) != 1)
    place = f'download="{escape(name)}.csv" href="data:text/csv;base64,{link}"'
    display(HTML(f"{missing}<a {place}>Data of this figure (CSV, {rows})</a>"))


def still_to_run(data: pd.DataFrame) -> str:
    """A paragraph on what is missing in a figure that holds no point of ours; empty of any other figure.

    Points that are ``claimed`` or ``pending`` by the column ``source`` are not ours; the frame's attribute
    ``experiments`` names what would give them (``frames.from_experiments``).
    """
    if "source" not in data or not data["source"].isin(["claimed", "pending"]).all():
        return ""
    claimed = int(data["source"].eq("claimed").sum())
    what = f"{claimed} point{'s' * (claimed != 1)} of the paper, and none of ours yet."
    presets = set(data.get("preset", ()))
    preset = presets.pop() if len(presets) == 1 else "paper"
    names = data.attrs.get("experiments", ())
    commands = [f"<code>thrifty train {escape(name)} --preset {escape(preset)}</code>" for name in names]
    how = f"To run it: {', '.join(commands)}." if commands else "The list of runs at the top has the commands."
    nothing = "No pair of runs is complete yet." if "difference" in data else "Nothing of this is run yet."
    return f'<p class="still-to-run">{what if claimed else nothing} {how}</p>'


def as_png(figure: Figure, words: Mapping[str, str], width: int = SHOWN_WIDTH) -> bytes:
    """``figure`` as a PNG file with ``words`` in it, for ``width`` CSS pixels.

    A palette of 256 colours, nearly all that a plot has, makes it less than half as large; k-means keeps greys grey.
    """
    drawn, file, info = io.BytesIO(), io.BytesIO(), PngInfo()
    with house_style():
        # A little more than needed: matplotlib 3.10 cuts the product down to whole pixels, 3.11 rounds it.
        figure.savefig(drawn, format="png", dpi=(2 * width + 1e-6) / figure.get_figwidth())
    for key, word in (words | {"Points": json.dumps(_points(figure))}).items():
        info.add_text(key, word)
    with Picture.open(drawn) as picture:
        small = picture.convert("RGB").quantize(256, Picture.Quantize.MAXCOVERAGE, kmeans=1, dither=Picture.Dither.NONE)
    small.save(file, "png", optimize=True, pnginfo=info)
    return file.getvalue()


def _points(figure: Figure) -> list[tuple[float, float, str]]:
    """Where the points of a drawn figure that have a URL lie."""
    found = {}
    for collection in (each for axes in figure.axes for each in axes.collections if any(each.get_urls())):
        spots = collection.get_offset_transform().transform(collection.get_offsets()) / figure.bbox.size
        for (x, y), url in zip(spots, collection.get_urls(), strict=True):
            found[round(100 * x, 1), round(100 * (1 - y), 1), url] = None
    return list(found)


def as_csv(data: pd.DataFrame) -> str:
    """The frame as CSV text: rounded so that the last bits of a mean never differ between machines."""
    safe = data.round(4).apply(lambda column: column if is_numeric_dtype(column) else column.map(for_spreadsheet))
    return safe.rename(columns=for_spreadsheet).to_csv(index=False, lineterminator="\n")


def checksum(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def verdicts(board: pd.DataFrame, folded: int = 8) -> HTML:
    """A table of claims with ours and the verdict, from ``evidence.tables.scoreboard``; folded from ``folded`` on.

    Claimed values show how far they may be off; ours the mean, the standard deviation (of a difference half the 90 %
    interval) and the number of seeds. A verdict with a star rests on a reading that was changed after results were
    seen; the change is described below the table.

    Raises:
        ThriftyError: no claim is chosen; an empty table would hide that a name has changed.
    """
    if board.empty:
        raise ThriftyError(
            "verdicts: no claim is chosen; the rows must be those of a figure or an experiment of the board"
        )
    rows, changes = [], []
    for row in board.itertuples():
        is_run = not pd.isna(row.ours)
        changed = getattr(row, "reading_changed", "") if is_run else ""
        changes += [changed] if changed and changed not in changes else []
        error = f" ± {row.error:g}" if row.error else ""
        claimed = f"{_BOUNDS.get(row.bound, '')}{row.claimed:g}{error} {row.unit}{_MARKS.get(row.mark, '')}".rstrip()
        spread = f" ± {row.spread:.2f}" if row.n > 1 else ""
        recipe = "" if pd.isna(row.recipe) else f" ({row.recipe})"  # a count has none
        ours = _number(row.ours) + spread + recipe if is_run else ""
        star = "*" * (changes.index(changed) + 1) if changed else ""
        rows.append((row.statement, claimed, ours, str(row.n or ""), _number(row.final), row.verdict + star))
    table = html_table(("claim", "claimed", "ours", "n", "last epoch", "verdict"), rows)
    table += "".join(f"<p>{'*' * number} {escape(text)}.</p>" for number, text in enumerate(changes, 1))
    counts = ", ".join(f"{n} {verdict}" for verdict, n in board["verdict"].value_counts(sort=False).items())
    summary = f"{len(board)} claim{'s' * (len(board) != 1)}: {counts}"
    return _folding(summary, table, is_open=len(board) <= folded)


def status(*tables: pd.DataFrame) -> HTML:
    """What of experiments (``experiments.collect``) is recorded, and how to train what is missing; folded.

    The summary counts each run once, in however many tables it is; a row is a preset of an experiment.
    """
    runs, rows = pd.concat(tables), []
    for (name, preset), some in runs.groupby(["experiment", "preset"], sort=False):
        there, diverged = (some["status"] != "missing").sum(), (some["status"] == "diverged").sum()
        recorded = f"{there} of {len(some)}" + f", {diverged} diverged" * bool(diverged)
        command = f"<code>thrifty train {escape(name)} --preset {escape(preset)}</code>" if there < len(some) else ""
        rows.append((name, preset, recorded, command))
    runs = runs.drop_duplicates("run")
    table = html_table(("experiment", "preset", "recorded", "what is missing is trained by"), rows, raw=(3,))
    return _folding(f"{(runs['status'] != 'missing').sum()} of {len(runs)} runs recorded", table, is_open=False)


def replications(others: Iterable[Replication]) -> HTML:
    """What third parties measured with a paper's networks, each with its recipe and a remark: theirs, and no claim."""
    shown = []
    for other in others:
        rows = [
            (each.network, each.start, f"{each.value:.2f}" + ("" if each.spread is None else f" ± {each.spread:.2f}"))
            for each in other.results
        ]
        heads = ("network", "first weights", f"measured by them, {other.unit}")
        if not any(each.start for each in other.results):
            heads, rows = (heads[0], heads[2]), [(row[0], row[2]) for row in rows]
        about = f"{other.what}, by {other.by}. Their recipe: {other.recipe}. {other.remark}".rstrip()
        shown.append(f"<p>{escape(about)}</p>{html_table(heads, rows, numbers=(len(heads) - 1,))}")
    return HTML("".join(shown))


def table(frame: pd.DataFrame, form: str = "{:,.2f}", forms: Mapping[str, str] | None = None) -> HTML:
    """A frame as a table, numbers on the right: by the column's of ``forms``, else by ``form`` if not whole.

    Without rows it is one line that says so.
    """
    if frame.empty:
        return HTML("<p>No row yet: not enough is recorded. The list of runs at the top has the commands.</p>")

    def text(value: object, name: str) -> str:
        if isinstance(value, str):
            return value
        return (
            "" if pd.isna(value) else (forms or {}).get(name, "{:,}" if isinstance(value, int) else form).format(value)
        )

    rows = [[text(value, name) for value, name in zip(row, frame, strict=True)] for row in frame.astype(object).values]
    numbers = [place for place, name in enumerate(frame) if pd.api.types.is_numeric_dtype(frame[name])]
    return HTML(html_table([*frame], rows, numbers=numbers))


def html_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = (), raw: Sequence[int] = ()
) -> str:
    """A table of texts that scrolls where it is wider than its column.

    Columns ``numbers`` are aligned to the right; those of ``raw`` are HTML already.
    """
    sides = ['class="num"' if column in numbers else 'style="text-align:left"' for column in range(len(heads))]

    def line(tag: str, cells: Sequence[str], plain: Sequence[int] = ()) -> str:
        texts = (text if at in plain else escape(text) for at, text in enumerate(cells))
        return "".join(f"<{tag} {side}>{text}</{tag}>" for side, text in zip(sides, texts, strict=True))

    body = "".join(f"<tr>{line('td', row, raw)}</tr>" for row in rows)
    table = f"<table><thead><tr>{line('th', heads)}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="table-scroll" style="overflow-x:auto" tabindex="0">{table}</div>'


def _folding(summary: str, content: str, *, is_open: bool) -> HTML:
    return HTML(f"<details{' open' if is_open else ''}><summary>{escape(summary)}</summary>{content}</details>")


def _number(value: float) -> str:
    return "" if pd.isna(value) else f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"
