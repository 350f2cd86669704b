"""Points: what a paper claims beside what is recorded, or any frame's means with their intervals."""

from __future__ import annotations

import textwrap
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.lines import Line2D

from thriftylib.figures.findings import tell
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

_ROW = 0.36  # inches
_STYLED = ("P", "X", "*")  # markers of all styles but the first
_POINT = ["facet", "hue", "style", "label", "place"]


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
    each: bool = False,
    height: float = 3.2,
    span: float = 0.0,
    dodge: float = 0.0,
    within: tuple[float, float] = (-np.inf, np.inf),
    zero: bool = False,
    claimed: str = "",
    interval: str = "mean ± sd",
    caption: str = "",
    **around: str,
) -> list[Axes]:
    """Means of the rows of one place with their standard deviation, or with the interval of columns ``low``, ``high``.

    Where ``y`` holds text, each text is a row of the figure, and the hues of a row lie below each other. A column
    ``source`` sets apart what a paper claims (``claimed``: hollow and grey, with its ``error`` or ``spread``), what is
    recorded (``reproduced``: filled and coloured) and what is ``pending``; the caption says how much is recorded, and
    names panels that would be empty. Rows with a column ``n`` are means already; a line takes several of one place in
    the frame's order. A point of a row with a ``claim`` has that claim's id as its URL (``display.show``).

    Args:
        hue: column that colour and marker tell; ``style``: column that marker and dashes tell, without hue colour too.
        label: column of the texts beside points; two labels at one place stay two points.
        xscale, yscale: ``log``, ``parameters`` or ``accuracy``; see ``style.SCALES``.
        share: panels have one axis of values.
        joined: draw lines, and behind them the claims of other panels; across what is pending there is no line.
        each: draw every row as a small dot too.
        height: inches of a single panel that has no rows.
        span: the axis of values shows at least so much, so that noise never looks like a difference.
        dodge: how far hues lie apart, in parts of the x axis.
        within: means beyond are only told in the caption, so that a failed run does not squeeze the others.
        zero: draw zero and keep it in view.
        claimed, interval: what the legend says of claimed values and of intervals.
    """
    is_rows = not pd.api.types.is_numeric_dtype(frame[y])
    place, value = (y, x) if is_rows else (x, y)
    data = _tidy(frame, place, value, {"facet": facet, "hue": hue, "style": style, "label": label})
    mean = data.groupby(["source", *_POINT])["value"].transform("mean")
    is_beyond = mean.lt(within[0]) | mean.gt(within[1])  # never where a limit is not known
    beyond = data.assign(mean=mean)[is_beyond].drop_duplicates(["source", *_POINT])
    told = ", ".join(f"{row.place} {row.hue} {row.mean:.1f}".replace("-", "−") for row in beyond.itertuples())
    lines = [_progress(data), caption, f"Beyond the axis: {told}." if told else ""]
    data = data[~is_beyond]
    is_empty = data["value"].isna().all()
    facets = dict(iter(data.groupby("facet", sort=False))) or {"": data}
    empty = [name for name, some in facets.items() if some["value"].isna().all()]
    if is_empty and empty:
        facets = {"": data}
    elif empty:
        facets = {name: some for name, some in facets.items() if name not in empty}
        lines.append(f"Nothing claimed, nothing run yet: {'; '.join(empty)}.")
    caption = "\n".join(filter(None, lines))
    rows = {
        name: list(dict.fromkeys(some["place"])) if some["value"].notna().any() else [] for name, some in facets.items()
    }
    with house_style():
        tall = 0.7 if is_empty else height / len(facets) ** 0.5
        heights = (max(_ROW * len(some) + 0.15, 0.5) if is_rows else tall for some in rows.values())
        panels = new_axes(*heights, share_x=share or not is_rows, share_y=share and not is_rows)
        for axes, (name, some) in zip(panels, facets.items(), strict=True):
            axes.set_title(name)
            if is_rows:
                axes.set_yticks(range(len(rows[name])), [textwrap.fill(text, 26) for text in rows[name]])
                axes.tick_params(axis="y", length=0)
                axes.grid(visible=False, axis="y")
                axes.xaxis.get_major_locator().set_params(nbins=6)  # more numbers of four digits would touch
            else:
                axes.update_datalim(np.column_stack([some["place"]] * 2), updatey=False)  # pending places are in view
                axes.autoscale_view(scaley=False)
            if some["value"].isna().all():
                say_nothing(axes, "nothing claimed, nothing run yet", "x" if is_rows else "y")
            elif is_rows:
                facets[name] = some.assign(place=some["place"].map(rows[name].index))
            elif joined:
                for _, other in data[data["source"].eq("claimed") & data["facet"].ne(name)].groupby("facet"):
                    axes.plot(other["place"], other["value"], color=GHOST, linewidth=0.8, zorder=1)
            if zero and not is_empty:
                (axes.axvline if is_rows else axes.axhline)(0, color=CLAIMED, linewidth=1, zorder=1)
        places = [] if is_rows else sorted(set(data["place"].dropna()))
        looks = _looks(data, by_hue=hue is not None, is_rows=is_rows, dodge=dodge * np.ptp(places) if dodge else 0.0)
        if is_rows:
            beside = max([0.6, *(abs(look.shift) + 0.4 for look in looks.values())])  # room for hues and claims
            for axes, name in zip(panels, facets, strict=True):
                axes.set_ylim(max(len(rows[name]), 1) - 1 + beside, -beside)
        for (source, *names), look in looks.items():
            for axes, some in zip(panels, facets.values(), strict=True):
                some = some[(some[["hue", "style"]] == names).all(axis=1) & some["source"].isin([source, *look.gaps])]
                for _, same in some.groupby("label"):
                    turns = [part for _, part in same.groupby("turn") if part["value"].notna().any()]
                    if is_path := joined and len(turns) > 1 and not look.is_claimed:
                        axes.plot(same["place"], same["value"], look.dash, color=look.colour, linewidth=1.5, zorder=3.9)
                    for part in turns:
                        _draw(axes, part, look, is_rows=is_rows, joined=joined and not is_path, each=each)
        for axes, some in zip(panels, facets.values(), strict=True):
            if label:
                _write_labels(axes, some[some["source"].eq(min(some["source"])) & some["value"].notna()])
            for which, scale in (("x", xscale), ("y", yscale)):
                if scale and not (is_empty and which == "y"):
                    rescale(axes, scale, which)
            if places and not xscale and min(np.diff(places), default=1) > 0.04 * np.ptp(places):
                axes.set_xticks(places)
            low, high = axes.get_xlim() if is_rows else axes.get_ylim()
            more = max(span - (high - low), 0) / 2
            (axes.set_xlim if is_rows else axes.set_ylim)(low - more, high + more)
        around = {"xlabel": x, "ylabel": y} | around | ({"ylabel": ""} if is_rows or is_empty else {})
        finish(panels, _key(data, looks, claimed, interval), caption=caption, **around)
    ours = data[~data["source"].isin(["claimed", "pending"])]
    whose = " of ours" if len(ours) < len(data) else ""
    return tell(panels, ours, "value", ["facet", "hue", "style", "label", "place"], whose=whose, alike=share)


def _tidy(frame: pd.DataFrame, place: str, value: str, names: dict[str, str | None]) -> pd.DataFrame:
    """The columns under the names of what they are for; a text that is missing is empty."""
    frame = frame.reset_index(drop=True)
    nothing = pd.Series(np.nan, frame.index)
    data = pd.DataFrame({"source": frame.get("source", "")}, index=frame.index)
    for name, column in names.items():
        data[name] = frame[column].fillna("").astype(str) if column else ""
    data["place"], data["value"] = frame[place], frame[value].astype(float)
    is_claimed = data["source"].eq("claimed")
    error = frame.get("spread", nothing).fillna(frame.get("error", nothing)).where(is_claimed)
    data["low"], data["high"] = frame.get("low", data["value"] - error), frame.get("high", data["value"] + error)
    data["n"], data["claim"] = frame.get("n", nothing), frame.get("claim", nothing)
    data["recipe"] = frame.get("recipe", data["style"] if names["style"] else data["hue"])
    # Claimed values and means are not averaged: several of one place are points of their own.
    data["turn"] = data.groupby(["source", *_POINT]).cumcount().where(is_claimed | ("n" in frame), 0)
    return data.loc[is_claimed.sort_values(kind="stable").index]  # facets and rows in the order of what is run


class _Look(NamedTuple):
    """How the points of one source, hue and style look, and how far they are moved aside."""

    marker: str
    colour: str
    dash: str
    shift: float
    is_claimed: bool

    @property
    def gaps(self) -> list[str]:
        """What interrupts its line."""
        return [] if self.is_claimed else ["pending"]

    @property
    def face(self) -> dict[str, Any]:
        edge, width = (CLAIMED, 1.0) if self.is_claimed else ("white", 0.6)
        face = "white" if self.is_claimed else self.colour
        return {"marker": self.marker, "markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": width}


def _looks(data: pd.DataFrame, *, by_hue: bool, is_rows: bool, dodge: float) -> dict[tuple[str, str, str], _Look]:
    """The look of each source, hue and style that has a value: claimed first."""
    run = data[data["source"].ne("claimed")]
    styles = list(dict.fromkeys(run["style"])) or [""]
    hues = list(dict.fromkeys((run if is_rows else data)["hue"])) or [""]  # in rows the claims stand above all hues
    known = data[data["value"].notna()]
    above = int(is_rows and known["source"].eq("claimed").any())
    looks = {}
    for source, hue, style in known[["source", "hue", "style"]].drop_duplicates().itertuples(index=False):
        is_claimed = source == "claimed"
        place, other = (names.index(name) if name in names else 0 for names, name in ((hues, hue), (styles, style)))
        aside = 0 if is_claimed else (other + 1) / (len(styles) + 2)
        shift = dodge * (place - (len(hues) - 1) / 2 + aside)
        if is_rows:
            shift = 0.24 * ((0 if is_claimed else place + above) - (len(hues) - 1 + above) / 2)
        marker = _STYLED[(other - 1) % len(_STYLED)] if other else MARKERS[place % len(MARKERS)]
        colour = CLAIMED if is_claimed else COLOURS[(place if by_hue else other) % len(COLOURS)]
        marker = "D" if is_claimed and is_rows else marker
        looks[source, hue, style] = _Look(marker, colour, "--" if other else "-", shift, is_claimed)
    return dict(sorted(looks.items(), key=lambda look: not look[1].is_claimed))


def _key(
    data: pd.DataFrame, looks: dict[tuple[str, str, str], _Look], claimed: str, interval: str
) -> dict[str, Line2D]:
    """The legend: what each look stands for, and how many runs are behind it."""
    entries = {}
    for names, look in looks.items():
        some = data[(data[["source", "hue", "style"]] == list(names)).all(axis=1) & data["value"].notna()]
        if look.is_claimed:
            halves = sorted(set((some["high"] - some["low"]).div(2).round(3).dropna()) - {0.0})
            ends = " to ".join(f"{half:g}" for half in dict.fromkeys((*halves[:1], *halves[-1:])))
            about = claimed or (f"as read, ±{ends}" if ends else "as read")
        else:
            counts = some["n"] if some["n"].notna().all() else some.groupby(_POINT).size()
            ends = " to ".join(f"{n:.0f}" for n in dict.fromkeys((counts.min(), counts.max())))
            about = f"{interval}, n = {ends}" if counts.max() > 1 else "one seed" if names[0] else ""
        # Here "reproduced" only says whose they are; it is the word of a verdict too.
        who = ", ".join({"reproduced": "ours"}.get(name, name) for name in names if name not in ("", "paper"))
        if text := ": ".join(filter(None, (who, about))):
            entries[text] = Line2D([], [], linestyle="none", markersize=6.5, **look.face)
    return entries


def _draw(axes: Axes, data: pd.DataFrame, look: _Look, *, is_rows: bool, joined: bool, each: bool) -> None:
    """Means and their intervals: those of the columns low and high where they are given, else the deviation."""
    data = data.assign(place=data["place"] + look.shift)
    x, y, orient = ("value", "place", "y") if is_rows else ("place", "value", "x")
    if each and not look.is_claimed:
        axes.plot(data[x], data[y], "o", color=look.colour, markersize=4, alpha=0.35, markeredgewidth=0, zorder=3)
    linked = data.dropna(subset=["claim", "value"]).groupby(["claim", "place"], as_index=False)["value"].mean()
    is_single = data["low"].isna().all() and not data["place"].duplicated().any()
    if is_given := data["low"].notna().any():  # the median and the range of three numbers
        data = pd.concat([data, *(data.assign(value=data[bound]) for bound in ("low", "high"))], ignore_index=True)
    width, colour, above = (1.0, "#8A8A8A", 2) if look.is_claimed else (1.5, look.colour, 4)
    seaborn.pointplot(
        data, x=x, y=y, orient=orient, native_scale=True, ax=axes, legend=False, color=colour, linewidth=width,
        estimator="median" if is_given else "mean", errorbar=("pi", 100) if is_given else "sd", zorder=above,
        markers=look.marker, markersize=5 if is_single and not look.is_claimed else 6.5,
        linestyles=look.dash if joined else "none", err_kws={"color": look.colour, "zorder": above - 0.1},
        **{name: value for name, value in look.face.items() if name != "marker"},
    )  # fmt: skip
    axes.set(xlabel="", ylabel="")
    if len(linked):  # without a path it draws nothing
        urls = {"urls": list(linked["claim"]), "offsets": linked[[x, y]], "offset_transform": axes.transData}
        axes.add_collection(PathCollection([], **urls), autolim=False)


def _write_labels(axes: Axes, data: pd.DataFrame) -> None:
    """Each label above its point, or away from a near neighbour; one for points that lie on each other."""
    means = data.groupby(["hue", "label"], sort=False)[["place", "value"]].mean().reset_index()
    spot = [means["hue"], *(np.log(means[name]).div(0.03).round() for name in ("place", "value"))]
    spots = means.groupby(spot, sort=False).agg({"place": "mean", "value": "mean", "label": ", ".join})
    for x, y, text in spots.itertuples(index=False):
        near = np.log(spots.loc[(spots["value"] / y - 1).abs() < 0.04, "place"] / x)
        away = int(near.between(-0.18, -0.001).any()) - int(near.between(0.001, 0.18).any())
        axes.annotate(
            text, (x, y), (7 * away, 0 if away else 6), textcoords="offset points", fontsize=8, color=CLAIMED,
            ha={-1: "right", 0: "center", 1: "left"}[away], va="center" if away else "bottom",
        )  # fmt: skip


def _progress(data: pd.DataFrame) -> str:
    """How many of the points are recorded, by recipe; empty where nothing is to be recorded."""
    own = data[data["source"].isin(["reproduced", "pending"])]
    if own["source"].eq("pending").all():
        return "Not run yet." if len(own) else ""
    parts = []
    for name, some in own.groupby("recipe", sort=False):
        there, total = (len(rows.drop_duplicates(_POINT)) for rows in (some[some["source"] == "reproduced"], some))
        parts.append(f"{'the paper’s recipe' if name == 'paper' else name} {there} of {total}".strip())
    return f"Recorded: {', '.join(parts)}."
