"""The papers' roads to a small network, on one chart and as a table, from the frame of ``running.roads``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import offset_copy

from thriftylib.figures.display import html_table
from thriftylib.figures.style import CLAIMED, COLOURS, GHOST, MARKERS, finish, house_style, new_axes, rescale

_ORDINARY, _ASIDE = "#1A1A1A", 9  # colour; points by which what saves nothing is beside its start
_HEADS = ("data", "network", "road", "paper", "recipe", "n", "parameters", "MACs", "last epoch", "best epoch")
_HEADS += ("started from", "parameters saved", "MACs saved", "gain, points")


def road_points(frame: pd.DataFrame, *, x: str, height: float = 3.6, **around: str) -> list[Axes]:
    """Test accuracy against ``x`` (parameters or macs), a panel for each data set; ``around`` as of the other plots.

    Colour tells the road and shape the paper. Filled: the paper's recipe; pale: another; hollow and grey: claimed. A
    line leads from each ordinary network to what was made of it, which is beside it where it saves nothing. Bars are
    the intervals of the frame.
    """
    colours = dict(zip(frame["road"].cat.categories, (_ORDINARY, *COLOURS), strict=False))
    shapes = dict(zip(sorted(set(frame["paper"])), MARKERS * 9, strict=False))
    panels_of = dict(iter(frame.dropna(subset=[x]).groupby("dataset"))) or {"nothing recorded yet": frame}
    with house_style():
        panels = new_axes(*[height] * len(panels_of))
        for axes, (title, some) in zip(panels, panels_of.items(), strict=True):
            axes.set_title(title)
            for _, side in some.groupby("source"):  # claimed first: below
                starts = side.set_index("run")[[x, "accuracy"]].to_dict("index")
                for row in side.itertuples():
                    _draw(axes, row, getattr(row, x), starts.get(row.start), x, _look(row, colours, shapes))
            for which, scale in (("x", "parameters"), ("y", "accuracy")) if len(some) else ():
                rescale(axes, scale, which)
        ylabel = "test accuracy (%), spaced by log error"
        return finish(panels, _key(frame, colours, shapes), **({"xlabel": x, "ylabel": ylabel} | around))


def _draw(axes: Axes, row: Any, place: float, start: Mapping[str, float] | None, x: str, look: dict[str, Any]) -> None:
    is_claimed, is_small = row.source == "claimed", row.start != row.run
    colour, above = look["markeredgecolor"], 2 if is_claimed else 5
    is_beside = is_small and start is not None and place == start[x]
    moved = offset_copy(axes.transData, axes.figure, _ASIDE if is_beside else 0, 0, "points")
    if is_small and start is not None:
        ends = ((start[x], start["accuracy"]), (place, row.accuracy))
        line = {"color": GHOST, "linestyle": "--"} if is_claimed else {"color": colour, "alpha": 0.6}
        arrow = {"arrowstyle": "-", "linewidth": 1, "shrinkA": 0, "shrinkB": 0, **line}
        axes.annotate("", ends[1], ends[0], xycoords=moved, textcoords="data", arrowprops=arrow, zorder=above - 1)
    if pd.notna(row.low):
        axes.plot([place] * 2, [row.low, row.high], color=colour, linewidth=1.4, transform=moved, zorder=above)
    axes.plot(place, row.accuracy, transform=moved, zorder=above, markersize=4.5 if is_claimed else 6, **look)
    axes.update_datalim([(place, value) for value in (row.accuracy, row.low, row.high) if pd.notna(value)])


def _look(row: Any, colours: Mapping[str, str], shapes: Mapping[str, str]) -> dict[str, Any]:
    colour = CLAIMED if row.source == "claimed" else colours[row.road]
    pale = tuple(1 - 0.35 * (1 - int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    face = "white" if row.source == "claimed" else colour if row.preset == "paper" else pale
    look = {"marker": shapes[row.paper], "markerfacecolor": face, "markeredgecolor": colour, "markeredgewidth": 0.9}
    return {**look, "linestyle": "none"}


def _key(frame: pd.DataFrame, colours: Mapping[str, str], shapes: Mapping[str, str]) -> dict[str, Line2D]:
    """What colours, shapes and faces stand for: of those that there are, an example of each."""
    grey, entries = dict.fromkeys(colours, CLAIMED), {}
    dots = dict.fromkeys(shapes, "o")
    kinds = frame["preset"].map(lambda preset: "the paper’s recipe" if preset == "paper" else "another recipe")
    kinds = kinds.where(frame["source"].ne("claimed"), "claimed by the paper")
    for row in frame[frame["source"] == "reproduced"].drop_duplicates("road").assign(preset="paper").itertuples():
        entries[f"{row.road} network" if row.start == row.run else row.road] = _look(row, colours, dots)
    for row in frame.drop_duplicates("paper").sort_values("paper").assign(source="claimed").itertuples():
        entries[row.paper.replace("_", " ")] = _look(row, grey, shapes)
    for row in frame.assign(kind=kinds).drop_duplicates("kind").sort_values("kind", ascending=False).itertuples():
        entries[row.kind] = _look(row, grey, dots)
    return {name: Line2D([], [], **look, markersize=6.5) for name, look in entries.items()}


def road_table(frame: pd.DataFrame) -> HTML:
    """What is recorded, a row for each network and recipe: size, accuracy, and what it saves and gains."""
    rows = []
    for row in frame[frame["source"] == "reproduced"].itertuples():
        spread = "" if pd.isna(row.low) else f" ± {row.accuracy - row.low:.2f}"
        gain = "" if pd.isna(row.gain) else f"{row.gain:+.2f}"
        gain += "" if pd.isna(row.gain_low) else f" ± {row.gain - row.gain_low:.2f}"
        saved = (f"{value:.0f} %" if pd.notna(value) else "" for value in (row.parameters_saved, row.macs_saved))
        recipe = row.recipe + " (the paper’s)" * (row.preset == "paper")
        sizes = f"{row.n:.0f}", f"{row.parameters:,.0f}", f"{row.macs / 1e6:,.2f} M"
        ends = f"{row.accuracy:.2f}{spread}", f"{row.best:.2f}", row.started_from, *saved, gain
        texts = (row.dataset, row.network, row.road, row.paper, recipe, *sizes, *ends)
        rows.append([text.replace("-", "−") if at > 10 else text for at, text in enumerate(texts)])
    return HTML(html_table(_HEADS, rows, numbers=(5, 6, 7, 8, 9, 11, 12, 13)))
