"""Lines, bars, heat maps and pictures: seaborn's own over a tidy frame, in the book's style and in facets.

Each takes a frame and the names of its columns, and returns its panels, one above the other, for ``figures.show``. All
take a ``title``, a ``caption`` below it, the ``xlabel`` and ``ylabel`` (else the columns' names) and the column
``facet`` of the panels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from thriftylib.figures.findings import tell
from thriftylib.figures.style import (
    CLAIMED,
    COLOURS,
    DASHES,
    MARKERS,
    WIDTH,
    finish,
    house_style,
    new_axes,
    say_nothing,
)


def lines(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    hue: str | None = None,
    facet: str | None = None,
    bands: Sequence[tuple[str, str]] = (),
    markers: bool = False,
    share: bool = True,
    height: float = 3.2,
    **around: str,
) -> list[Axes]:
    """A line for each hue: the mean of ``y`` at each ``x``, with the standard deviation over its rows as a band.

    ``bands`` are pairs of columns to draw bands between instead; ``share``: panels have one axis of values.
    """
    names = list(dict.fromkeys(frame[hue])) if hue else []
    colours, dashes, shapes = (dict(zip(names, cycle(each), strict=False)) for each in (COLOURS, DASHES, MARKERS))
    options = {"x": x, "y": y, "errorbar": None if bands else "sd", "legend": False}
    options |= {"hue": hue, "style": hue, "palette": colours, "dashes": dashes} if hue else {"color": COLOURS[0]}
    options |= {"markers": shapes} if hue and markers else {"marker": "o"} if markers else {}
    is_empty = frame[y].isna().all()

    def panel(axes: Axes, some: pd.DataFrame) -> None:
        for low, high in bands:
            axes.fill_between(some[x], some[low], some[high], color=COLOURS[0], alpha=0.22, linewidth=0)
        seaborn.lineplot(some, ax=axes, **options)
        if some[y].isna().all():
            say_nothing(axes, "not run yet", "y")
            axes.set(**({"xticks": [], "yticks": []} if is_empty else {}))

    with house_style():
        panels = _panels(frame, facet, 1.2 if is_empty else height, panel, share_y=share)
        ends = {name: {"marker": shapes[name]} if markers else {} for name in names}
        lines_of = {name: (0, dash) if dash else "-" for name, dash in dashes.items()}
        drawn = [] if is_empty else names
        key = {str(n): Line2D([], [], color=colours[n], linestyle=lines_of[n], **ends[n]) for n in drawn}
        finish(panels, key, **{"xlabel": x, "ylabel": y} | around)
    return tell(panels, frame, y, [facet, hue, x], alike=share)


def bars(
    frame: pd.DataFrame, *, x: str, y: str, hue: str | None = None, facet: str | None = None, **around: str
) -> list[Axes]:
    """A bar from zero for each ``x`` and hue: the mean of ``y``, with the standard deviation over its rows."""
    names = list(dict.fromkeys(frame[hue])) if hue else []
    colours = dict(zip(names, cycle(COLOURS), strict=False))
    options = {"hue": hue, "palette": colours} if hue else {"color": COLOURS[0]}
    options |= {"x": x, "y": y, "errorbar": "sd", "err_kws": {"color": CLAIMED, "linewidth": 1.2}, "saturation": 1}

    def panel(axes: Axes, some: pd.DataFrame) -> None:
        seaborn.barplot(some, ax=axes, legend=False, **options)
        axes.grid(visible=False, axis="x")

    with house_style():
        panels = _panels(frame, facet, 3.0, panel, share_y=True)
        key = {str(name): Patch(color=colour) for name, colour in colours.items()}
        return tell(finish(panels, key, **{"xlabel": x, "ylabel": y} | around), frame, y, [facet, hue, x])


def heatmap(
    frame: pd.DataFrame, *, x: str, y: str, value: str, facet: str | None = None, number: str = ".1f", **around: str
) -> list[Axes]:
    """The mean of ``value`` at each ``x`` and ``y``, as a colour and as a number in the format ``number``."""
    scale = frame.groupby([x, y, *([facet] if facet else [])])[value].mean()
    options = {"vmin": scale.min(), "vmax": scale.max(), "cmap": "cividis", "cbar": False, "linewidths": 1}

    def panel(axes: Axes, some: pd.DataFrame) -> None:
        grid = some.pivot_table(value, y, x, sort=False).reindex(columns=frame[x].drop_duplicates())
        seaborn.heatmap(grid, ax=axes, annot=True, fmt=number, annot_kws={"fontsize": 8.5}, **options)
        axes.tick_params(length=0, labelrotation=0)
        axes.grid(visible=False)

    with house_style():
        panels = _panels(frame, facet, 0.4 * frame[y].nunique() + 0.2, panel)
        return tell(finish(panels, {}, **{"xlabel": x, "ylabel": y} | around), frame, value, [facet, y, x])


def pictures(frame: pd.DataFrame, *, x: str, y: str, of: Sequence[str], columns: int = 3, **around: str) -> list[Axes]:
    """Grey images, so many in a row: each column named in ``of`` as a picture of its own range, black to white.

    ``x`` and ``y`` are the columns of a pixel's place.
    """
    with house_style():
        rows, side = -(-len(of) // columns), WIDTH / columns - 0.2  # as high as the layout makes them wide
        figure = Figure(figsize=(WIDTH, rows * side), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes, name in zip(panels.flat, of, strict=False):
            axes.imshow(
                frame.pivot(index=y, columns=x, values=name), cmap="gray", aspect="auto", interpolation="nearest"
            )
            axes.set_title(name, fontsize=9)
        for axes in panels.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        return finish(panels[:, 0], **around)


def _panels(
    frame, facet: str | None, heights, panel: Callable[[Axes, pd.DataFrame], None], **share: bool
) -> list[Axes]:
    """A panel for each facet, drawn by the function ``panel`` from its rows, with the facet's name above it."""
    facets = dict(iter(frame.groupby(facet, sort=False))) if facet else {"": frame}
    panels = new_axes(
        *(heights if isinstance(heights, list) else [heights / len(facets) ** 0.5] * len(facets)), **share
    )
    for axes, (name, some) in zip(panels, facets.items(), strict=True):
        panel(axes, some)
        axes.set_title(name)
    return panels
