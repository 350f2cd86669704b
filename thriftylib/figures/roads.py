"""The papers' roads to a small network on one chart, and as a table; the frame is that of ``running.roads``."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from IPython.display import HTML
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from thriftylib.figures.display import html_table
from thriftylib.figures.style import (
    CLAIMED,
    COLOURS,
    GHOST,
    MARKERS,
    finish,
    house_style,
    new_axes,
    rescale,
    say_nothing,
)

ORDINARY = "#1A1A1A"
"""The colour of ordinary networks."""
_HEADS = ("data", "network", "road", "paper", "recipe", "n", "parameters", "MACs", "last epoch", "best epoch")
_HEADS += ("started from", "parameters saved", "MACs saved", "gain, points")


def roads(
    frame: pd.DataFrame, *, x: str, title: str, xlabel: str, caption: str = "", height: float = 3.6
) -> list[Axes]:
    """Test accuracy against ``x`` (parameters or macs), a panel for each data set, from ``running.roads``.

    Colour tells the road, marker the paper. A line leads from each ordinary network to what was made of it. Filled: the
    paper's recipe; pale: another recipe; hollow and grey: claimed. Bars are 90 % intervals of means.
    """
    colours = dict(zip(frame["road"].cat.categories, (ORDINARY, *COLOURS), strict=False))
    markers = dict(zip(sorted(set(frame["paper"])), MARKERS * 9, strict=False))
    datasets = list(dict.fromkeys(frame["dataset"]))
    with house_style():
        panels = new_axes(*[height] * max(len(datasets), 1))
        if not datasets:
            say_nothing(panels[0], "nothing recorded yet", "y")
        for axes, dataset in zip(panels, datasets, strict=False):
            axes.set_title(dataset)
            some = frame[frame["dataset"] == dataset].dropna(subset=[x])
            for _, side in some.groupby("source"):  # claimed first, below
                _draw(axes, side, x, colours, markers)
            rescale(axes, "parameters", "x")
            rescale(axes, "accuracy", "y")
        around = {"title": title, "caption": caption, "xlabel": xlabel}
        return finish(panels, _key(frame, colours, markers), ylabel="test accuracy (%), spaced by log error", **around)


def _draw(axes: Axes, side: pd.DataFrame, x: str, colours: Mapping[str, str], markers: Mapping[str, str]) -> None:
    starts = side.set_index("run")
    for row in side.itertuples():
        is_claimed, place = row.source == "claimed", getattr(row, x)
        colour, above = (CLAIMED, 2) if is_claimed else (colours[row.road], 5 if row.road == "ordinary" else 4)
        if row.start != row.run and row.start in starts.index:
            start = starts.loc[row.start]
            line = {"color": GHOST, "dashes": (3, 2)} if is_claimed else {"color": colour, "alpha": 0.6}
            axes.plot([start[x], place], [start["accuracy"], row.accuracy], linewidth=1, zorder=above - 1.5, **line)
        if pd.notna(row.low):
            axes.plot([place, place], [row.low, row.high], color=colour, linewidth=1.4, zorder=above - 0.5)
        look = _look(markers[row.paper], colour, row.source, row.preset)
        axes.plot(place, row.accuracy, zorder=above, markersize=4.5 if is_claimed else 6.5, **look)


def _look(marker: str, colour: str, source: str, preset: str) -> dict[str, object]:
    pale = tuple(1 - 0.35 * (1 - int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    face = "white" if source == "claimed" else colour if preset == "paper" else pale
    return {
        "marker": marker,
        "markerfacecolor": face,
        "markeredgecolor": colour,
        "markeredgewidth": 0.9,
        "linestyle": "",
    }


def _key(frame: pd.DataFrame, colours: Mapping[str, str], markers: Mapping[str, str]) -> dict[str, Artist]:
    def entry(marker: str, colour: str, source: str = "reproduced", preset: str = "paper") -> Line2D:
        return Line2D([], [], **_look(marker, colour, source, preset), markersize=6.5)

    there = [road for road in colours if (frame["road"] == road).any()]
    roads = {road if road != "ordinary" else "ordinary network": entry("o", colours[road]) for road in there}
    papers = {paper: entry(marker, CLAIMED, "claimed") for paper, marker in markers.items()}
    kinds = {"the paper’s recipe": entry("o", CLAIMED), "another recipe": entry("o", CLAIMED, preset="fast")}
    return {**roads, **papers, **kinds, "claimed by the paper": entry("o", CLAIMED, "claimed")}


def roads_table(frame: pd.DataFrame) -> HTML:
    """What is recorded, a row for each network and recipe: size, accuracy, and what it saves against its start."""
    rows = []
    for row in frame[frame["source"] == "reproduced"].itertuples():
        spread = "" if pd.isna(row.low) else f" ± {row.accuracy - row.low:.2f}"
        gain = "" if pd.isna(row.gain) else f"{row.gain:+.2f}"
        gain += "" if pd.isna(row.gain_low) else f" ± {row.gain - row.gain_low:.2f}"
        recipe = f"{row.recipe} ({'the paper’s' if row.preset == 'paper' else row.preset})"
        sizes = f"{row.parameters:,.0f}", f"{row.macs / 1e6:,.2f} M"
        saved = (f"{value:.0f} %" if pd.notna(value) else "" for value in (row.parameters_saved, row.macs_saved))
        texts = row.dataset, row.network, row.road, row.paper, recipe, f"{row.n:.0f}", *sizes
        ends = f"{row.accuracy:.2f}{spread}", f"{row.best:.2f}", row.started_from
        rows.append((*texts, *ends, *saved, gain.replace("-", "−")))
    return HTML(html_table(_HEADS, rows, numbers=(5, 6, 7, 8, 9, 11, 12, 13)))
