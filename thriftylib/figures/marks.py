"""How the points of a frame are drawn: their look, the legend, and what the caption says is recorded."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from thriftylib.figures.style import CLAIMED, COLOURS, MARKERS

POINT = ["facet", "hue", "style", "label", "place"]
"""The columns that tell one point from another."""

_STYLED = ("P", "X", "*")  # markers of all styles but the first


def tidy(frame: pd.DataFrame, place: str, value: str, **names: str | None) -> pd.DataFrame:
    """The columns that the plots need, under their own names; a text that is missing is empty.

    ``place`` is the column along which points lie, ``value`` that of their numbers; ``names`` are the columns of facet,
    hue, style and label, if there are any.
    """
    nothing = pd.Series(np.nan, frame.index)
    data = pd.DataFrame({"source": frame.get("source", "")}, index=frame.index)
    for name, column in names.items():
        data[name] = frame[column].fillna("").astype(str) if column else ""
    data["place"], data["value"] = frame[place], frame[value].astype(float)
    is_claimed = data["source"].eq("claimed")
    error = frame.get("spread", nothing).fillna(frame.get("error", nothing)).where(is_claimed)
    data["low"], data["high"] = frame.get("low", data["value"] - error), frame.get("high", data["value"] + error)
    data["n"] = frame.get("n", nothing)
    data["recipe"] = frame.get("recipe", data["style"] if names["style"] else data["hue"])
    data["turn"] = data.groupby(["source", *POINT]).cumcount().where(is_claimed, 0)  # claimed values are not averaged
    return data


class Look(NamedTuple):
    """How points of one source, hue and style look, and how far they are moved aside."""

    colour: str
    marker: str
    dash: str
    shift: float
    is_claimed: bool

    def face(self) -> dict[str, Any]:
        """Claimed markers are hollow and grey, all others filled and coloured."""
        if self.is_claimed:
            return {"markerfacecolor": "white", "markeredgecolor": CLAIMED, "markeredgewidth": 1.0}
        return {"markerfacecolor": self.colour, "markeredgecolor": "white", "markeredgewidth": 0.6}

    def handle(self) -> Line2D:
        """An entry of the legend."""
        return Line2D([], [], linestyle="none", marker=self.marker, markersize=6.5, **self.face())


class Looks:
    """The looks of a figure's points, and its legend."""

    def __init__(self, data: pd.DataFrame, *, by_hue: bool, is_rows: bool, dodge: float) -> None:
        self.by_hue, self.is_rows = by_hue, is_rows
        known = data[data["value"].notna() & data["source"].ne("pending")]
        self.claimed, self.own = (known[known["source"].eq("claimed") == is_it] for is_it in (True, False))
        others = data[data["source"].ne("claimed")]
        self.styles = list(dict.fromkeys(others["style"]))
        # In rows the claimed values lie above all hues; elsewhere each belongs to one.
        self.hues = list(dict.fromkeys((others if is_rows else data)["hue"]))
        self.dodge = 0.24 if is_rows else dodge * float(np.ptp(data["place"])) if dodge else 0.0

    def of(self, source: str, hue: str, style: str) -> Look:
        """The look of these points; a hue or style that is no level looks as the first does."""
        is_claimed = source == "claimed"
        place = self.hues.index(hue) if hue in self.hues else 0
        other = self.styles.index(style) if style in self.styles else 0
        marker = _STYLED[(other - 1) % len(_STYLED)] if other else MARKERS[place % len(MARKERS)]
        shift = place - (len(self.hues) - 1) / 2 + (0 if is_claimed else (other + 1) / (len(self.styles) + 2))
        if self.is_rows:
            above = int(not self.claimed.empty)
            shift = (len(self.hues) - 1 + above) / 2 - (0 if is_claimed else place + above)
            marker = "D" if is_claimed else marker
        colour = CLAIMED if is_claimed else COLOURS[(place if self.by_hue else other) % len(COLOURS)]
        return Look(colour, marker, "--" if other else "-", shift * self.dodge, is_claimed)

    def key(self, claimed: str, interval: str) -> dict[str, Line2D]:
        """The legend: hues, claimed values, and of what is recorded each style, or else each hue, with its runs."""
        entries, who = {}, "style" if any(self.styles) else "hue"
        has_hues = len(self.hues) > 1 and not self.is_rows
        if has_hues and (who == "style" or self.own.empty):
            own, all_known = set(self.own["hue"]), {*self.own["hue"], *self.claimed["hue"]}
            for hue in (hue for hue in self.hues if hue in all_known):
                entries[hue] = self.of("" if hue in own else "claimed", hue, "").handle()
        if len(self.claimed):
            halves = sorted(set((self.claimed["high"] - self.claimed["low"]).div(2).dropna().round(3)) - {0.0})
            ends = " to ".join(f"{half:g}" for half in dict.fromkeys((*halves[:1], *halves[-1:])))
            entries[claimed + f" (±{ends})" * (bool(ends) and not self.is_rows)] = self.of("claimed", "", "").handle()
        for (name, source), some in self.own.groupby([who, "source"], sort=False):
            counts = some["n"] if some["n"].notna().all() else some.groupby(POINT).size()
            low, high = int(counts.min()), int(counts.max())
            runs = f"{interval}, n = {low}" + f" to {high}" * (high > low) if high > 1 else "one seed" if source else ""
            who_it_is = ", ".join(filter(None, (source, name if name != "paper" else "")))
            look = self.of(source, *((name, "") if who == "hue" else ("", name)))
            if who == "style" and has_hues:
                look = look._replace(colour=CLAIMED)
            if text := ": ".join(filter(None, (who_it_is, runs))):
                entries[text] = look.handle()
        return entries


def draw(axes: Axes, data: pd.DataFrame, looks: Looks, *, joined: bool) -> None:
    """The points of one panel, from :func:`tidy` data whose places are numbers."""
    if not looks.is_rows:
        axes.update_datalim(np.column_stack([data["place"]] * 2), updatey=False)  # what is pending keeps its place
    if data["value"].isna().all():
        say_nothing(axes, "nothing claimed, nothing run yet")
        axes.set(**{"xticks" if looks.is_rows else "yticks": []})
    pending, keys = data["source"].eq("pending"), ["hue", "style", "label", "turn"]
    for (source, *names), some in data[~pending].groupby(["source", *keys], sort=False):
        if source != "claimed":  # what is pending breaks the line
            some = pd.concat([some, data[pending & (data[keys] == names).all(axis=1)]])
        if some["value"].notna().any():
            _point(axes, some, looks.of(source, *names[:2]), is_rows=looks.is_rows, joined=joined)
    if data["label"].any():
        _write_labels(axes, data[data["source"].eq(data["source"].min()) & data["value"].notna()])


def say_nothing(axes: Axes, text: str) -> None:
    """Write ``text`` where an empty panel would leave it to be guessed."""
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=CLAIMED, backgroundcolor="white"
    )


def _point(axes: Axes, data: pd.DataFrame, look: Look, *, is_rows: bool, joined: bool) -> None:
    """Means and their intervals: those of the columns low and high where they are given, else the deviation."""
    if is_given := data["low"].notna().any():  # the median and the range of three numbers
        data = pd.concat([data, *(data.assign(value=data[bound]) for bound in ("low", "high"))])
    x, y, orient = ("value", "place", "y") if is_rows else ("place", "value", "x")
    thin = {
        "linewidth": 1.0,
        "color": "#8A8A8A",
        "zorder": 2,
        "err_kws": {"color": CLAIMED, "linewidth": 1.1, "zorder": 1.9},
    }
    thick = {"linewidth": 1.4, "color": look.colour, "zorder": 4, "err_kws": {"linewidth": 1.8, "zorder": 3.9}}
    seaborn.pointplot(
        data.assign(place=data["place"] + look.shift), x=x, y=y, orient=orient, native_scale=True, ax=axes,
        estimator="median" if is_given else "mean", errorbar=("pi", 100) if is_given else "sd", legend=False,
        markers=look.marker, markersize=6.5 if look.is_claimed or data["place"].duplicated().any() else 5,
        linestyles=look.dash if joined else "none", **(thin if look.is_claimed else thick), **look.face(),
    )  # fmt: skip


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


def progress(data: pd.DataFrame) -> str:
    """How many of the points are recorded, by recipe; empty where nothing is to be recorded."""
    own = data[data["source"].isin(["reproduced", "pending"])]
    if own["source"].eq("pending").all():
        return "Not run yet." if len(own) else ""
    parts = []
    for name, some in own.groupby("recipe", sort=False):
        there, total = (len(rows.drop_duplicates(POINT)) for rows in (some[some["source"] == "reproduced"], some))
        parts.append(f"{'the paper’s recipe' if name == 'paper' else name} {there} of {total}".strip())
    return f"Recorded: {', '.join(parts)}."
