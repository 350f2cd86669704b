"""The plots: seaborn's own over a tidy frame, in the book's style. Lines, points, bars and heat maps, in facets.

Each takes a frame and the names of its columns, and returns its panels, one above the other, for ``figures.show``. All
take a ``title``, a ``caption`` below it, the ``xlabel`` and ``ylabel`` (else the columns' names) and the column
``facet`` of the panels.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from thriftylib.figures.marks import POINT, Looks, draw, progress, say_nothing, tidy
from thriftylib.figures.style import CLAIMED, COLOURS, GHOST, MARKERS, finish, house_style, new_axes, rescale

_ROW = 0.36  # inches of a row


def points(
    frame: pd.DataFrame,
    *,
    x: str,
    y: str,
    hue: str | None = None,
    style: str | None = None,
    facet: str | None = None,
    label: str | None = None,
    xscale: str | None = None,
    yscale: str | None = None,
    share: bool = True,
    joined: bool = False,
    height: float = 3.2,
    span: float = 0.0,
    dodge: float = 0.0,
    within: tuple[float, float] = (-np.inf, np.inf),
    zero: bool = False,
    claimed: str = "claimed, as read",
    interval: str = "mean ± sd",
    caption: str = "",
    **around: str,
) -> list[Axes]:
    """Means of the rows of one place with their standard deviation, or with the interval of columns ``low``, ``high``.

    Where ``y`` holds text, each text is a row of the figure, and the hues of a row lie below each other. A column
    ``source`` sets apart what a paper claims (``claimed``: hollow and grey, with its ``error`` or ``spread``), what is
    recorded (``reproduced``: filled and coloured) and what is ``pending``; the caption says how much is recorded.

    Args:
        hue: column that colour and marker tell; ``style``: column that marker and dashes tell, without hue colour too.
        facet: behind the lines of each panel are the others' claims in light grey.
        label: column of the texts beside points; two labels at one place stay two points.
        xscale, yscale: ``log``, ``parameters`` or ``accuracy``; see ``style.SCALES``.
        share: panels have one axis of values.
        height: inches of a single panel that has no rows.
        span: the axis of values shows at least so much, so that noise never looks like a difference.
        dodge: how far hues lie apart, in parts of the x axis.
        within: means beyond are only told in the caption, so that a failed run does not squeeze the others.
        zero: draw zero and keep it in view.
        claimed, interval: what the legend calls claimed values and intervals.
    """
    is_rows = not pd.api.types.is_numeric_dtype(frame[y])
    place, value = (y, x) if is_rows else (x, y)
    data = tidy(frame, place, value, facet=facet, hue=hue, style=style, label=label)
    means = data.groupby(["source", *POINT])["value"].transform("mean")
    is_far = means.notna() & ~means.between(*within)
    beyond = data.assign(mean=means)[is_far].drop_duplicates(["source", *POINT])
    far = [f"{row.place} {row.hue} {row.mean:.1f}".replace("-", "−") for row in beyond.itertuples()]
    texts = progress(data), caption, f"Beyond the axis: {', '.join(far)}." if far else ""
    data = data[~is_far]
    looks = Looks(data, by_hue=hue is not None, is_rows=is_rows, dodge=dodge)
    rows = {name: list(dict.fromkeys(some["place"])) for name, some in data.groupby("facet", sort=False)}
    usual = 0.8 if data["value"].isna().all() else height / len(rows) ** 0.5

    def panel(axes: Axes, some: pd.DataFrame) -> None:
        if is_rows:
            names = rows[some["facet"].iloc[0]]
            some = some.assign(place=[len(names) - 1 - names.index(row) for row in some["place"]])
            axes.set_yticks(range(len(names)), [textwrap.fill(name, 26) for name in reversed(names)])
            axes.set_ylim(-0.6, len(names) - 0.4)
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False, axis="y")
        elif joined:
            for _, other in data[data["source"].eq("claimed") & data["facet"].ne(some["facet"].iloc[0])].groupby(
                "facet"
            ):
                axes.plot(other["place"], other["value"], color=GHOST, linewidth=0.8, zorder=1)
        draw(axes, some, looks, joined=joined)
        if zero:
            (axes.axvline if is_rows else axes.axhline)(0, color=CLAIMED, linewidth=1, zorder=1)

    with house_style():
        heights = [_ROW * len(names) + 0.15 if is_rows else usual for names in rows.values()]
        panels = _panels(data, "facet", heights, panel, share_x=share or not is_rows, share_y=share and not is_rows)
        for axes in panels:
            for which, scale in (("x", xscale), ("y", yscale)):
                if scale and axes.get_yticks().size:
                    rescale(axes, scale, which)
            low, high = axes.get_xlim() if is_rows else axes.get_ylim()
            more = max(span - (high - low), 0) / 2
            (axes.set_xlim if is_rows else axes.set_ylim)(low - more, high + more)
        around = {"xlabel": x, "ylabel": "" if is_rows else y} | around
        return _finish(panels, looks.key(claimed, interval), caption="\n".join(filter(None, texts)), **around)


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
    options = {"x": x, "y": y, "markers": list(MARKERS[: len(names)]) if markers else False, "legend": False}
    options |= {"hue": hue, "style": hue, "hue_order": names, "palette": COLOURS[: len(names)]} if hue else {}
    options |= {"errorbar": None if bands else "sd", "style_order": names} | ({} if hue else {"color": COLOURS[0]})

    def panel(axes: Axes, some: pd.DataFrame) -> None:
        for low, high in bands:
            axes.fill_between(some[x], some[low], some[high], color=COLOURS[0], alpha=0.22, linewidth=0)
        seaborn.lineplot(some, ax=axes, **options)
        if some[y].isna().all():
            say_nothing(axes, "not run yet")

    with house_style():
        panels = _panels(frame, facet, height, panel, share_y=share)
        pens = zip(names, COLOURS, MARKERS, strict=False)
        key = {name: Line2D([], [], color=colour, marker=marker if markers else "") for name, colour, marker in pens}
        return _finish(panels, key, **{"xlabel": x, "ylabel": y} | around)


def bars(
    frame: pd.DataFrame, *, x: str, y: str, hue: str | None = None, facet: str | None = None, **around: str
) -> list[Axes]:
    """A bar from zero for each ``x`` and hue: the mean of ``y``, with the standard deviation over its rows."""
    names = list(dict.fromkeys(frame[hue])) if hue else []
    options = {"hue": hue, "hue_order": names, "palette": COLOURS[: len(names)]} if hue else {"color": COLOURS[0]}
    options |= {"x": x, "y": y, "errorbar": "sd", "err_kws": {"color": CLAIMED, "linewidth": 1.2}, "saturation": 1}

    def panel(axes: Axes, some: pd.DataFrame) -> None:
        seaborn.barplot(some, ax=axes, legend=False, **options)
        axes.grid(visible=False, axis="x")

    with house_style():
        panels = _panels(frame, facet, 3.0, panel, share_y=True)
        key = {str(name): Patch(color=colour) for name, colour in zip(names, COLOURS, strict=False)}
        return _finish(panels, key, **{"xlabel": x, "ylabel": y} | around)


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

    with house_style():
        panels = _panels(frame, facet, 0.4 * frame[y].nunique() + 0.2, panel)
        return _finish(panels, {}, **{"xlabel": x, "ylabel": y} | around)


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
        axes.set(title=name, xlabel="", ylabel="")
    return panels


def _finish(
    panels: list[Axes], key: dict[str, Line2D | Patch], *, xlabel: str, ylabel: str, **texts: str
) -> list[Axes]:
    panels[-1].set_xlabel(xlabel)
    panels[0].set_ylabel(ylabel) if len(panels) == 1 else panels[0].figure.supylabel(ylabel)
    finish(panels, key=key, **texts)
    return panels
