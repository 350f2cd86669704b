"""Accuracy against what a network costs or how it is built: the paper's points, and ours where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from thriftylib.figures import style as look

_OTHER_RECIPES = ("P", "X", "*")
_SPAN = 2.0  # points: no axis of accuracy shows less, so that noise never looks like a slope


def accuracy_against_parameters(frame: pd.DataFrame, *, title: str) -> list[Axes]:
    """Accuracy against ``parameters``: a panel per series, the other series' claims behind it in light grey.

    The axis of accuracy is spaced by the logarithm of the error, because a size plot lives in its upper end.
    """
    plot = Plot(frame, "parameters", by_recipe=True)
    with look.style():
        panels = look.new_axes(*[1.75 if len(plot.series) > 1 else 3.2] * len(plot.series))
        for axes, series in zip(panels, plot.series, strict=True):
            for other, some in plot.rows("claimed").groupby("series"):
                if other != series:
                    axes.plot(some["parameters"], some["accuracy"], color=look.GHOST, linewidth=0.8, zorder=1)
            plot.claimed(axes, [series], line=True)
            plot.ours(axes, [series], line=True)
            look.corner(axes, series)
        if plot.is_empty:
            plot.nothing(panels[0])
        known = plot.rows("claimed", "ours")
        look.finish(panels, title, progress_note(frame, "parameters"), plot.key)
        for axes in panels:
            if not plot.is_empty:
                look.log_error_scale(axes, known["accuracy"].min(), known["accuracy"].max())
            look.parameters_axis(axes, frame["parameters"].min(), frame["parameters"].max())
            axes.label_outer()
        panels[len(panels) // 2].set_ylabel("test accuracy (%), spaced by log error")
    return panels


def accuracy_against_macs(frame: pd.DataFrame, *, title: str) -> Axes:
    """Accuracy against ``mmacs``, million multiply-accumulates per image: columns of single runs, and their means.

    ``x_error`` is how far a claimed point's MMACs may be off, ``iterations`` the depth of its column, if it is known.
    """
    plot = Plot(frame, "mmacs")
    with look.style():
        axes = look.new_axes(3.3)[0]
        plot.claimed(axes, plot.series, line=False, mean=True)
        plot.ours(axes, plot.series, line=False, aside=0.02 * (frame["mmacs"].max() - frame["mmacs"].min()))
        plot.limits(axes)
        columns = plot.rows("claimed").dropna(subset=["iterations"]).groupby("iterations")["mmacs"].mean()
        if len(columns):
            top = axes.secondary_xaxis("top")
            top.set_xticks(list(columns), [f"{depth:g}" for depth in columns.index])
            top.tick_params(length=3, pad=1)
            top.set_xlabel("depth T of the paper's columns, inferred from their MACs", fontsize=8.5)
        axes.locator_params(axis="x", nbins=7)
        axes.set_xlabel("million multiply-accumulates (MMACs) per image")
        axes.set_ylabel("test accuracy (%)")
        note = progress_note(frame, "mmacs")
        note += "\nOurs are drawn a little to the right of where they belong." if len(plot.rows("ours")) else ""
        look.finish([axes], title, note, plot.key_of_series(), above=0.45 if len(columns) else 0)
    return axes


def accuracy_against_depth(frame: pd.DataFrame, *, title: str) -> Axes:
    """Accuracy against ``iterations``, the depth T."""
    return _against_number(frame, "iterations", title, "iterations T")


def accuracy_against_history(frame: pd.DataFrame, *, title: str) -> Axes:
    """Accuracy against ``history``, the number h of states that an iteration mixes, x_t included."""
    return _against_number(frame, "history", title, "history h (states mixed, the current one included)")


def accuracy_against_downsamplings(frame: pd.DataFrame, *, title: str) -> Axes:
    """Accuracy against ``paper_label``, the paper's number of downsamplings, with what the network really does.

    ``period`` is the pooling period p and ``poolings`` how often the map shrinks before the head: the label 3 stands
    for 4. Both are written below the label. A run that failed, far below all claims, is written at the lower edge.
    """
    labels = frame.drop_duplicates("paper_label").sort_values("paper_label")
    places = {label: place for place, label in enumerate(labels["paper_label"])}
    plot = Plot(frame.assign(place=frame["paper_label"].map(places)), "place", spread=0.14)
    with look.style():
        axes = look.new_axes(3.0)[0]
        plot.claimed(axes, plot.series, line=True)
        claimed = plot.rows("claimed")["accuracy"]
        plot.ours(axes, plot.series, line=False, floor=claimed.min() - 2 if len(claimed) else -np.inf)
        plot.limits(axes)
        ticks = [f"{row.paper_label}\n$p$ = {row.period}\n{row.poolings}×" for row in labels.itertuples()]
        axes.set_xticks(range(len(ticks)), ticks)
        axes.grid(visible=False, axis="x")
        axes.set_xlim(-0.5, len(ticks) - 0.5)
        axes.set_xlabel("downsamplings as the paper counts them,\npooling period $p$, and how often maps really shrink")
        axes.set_ylabel("test accuracy (%)")
        look.finish([axes], title, progress_note(frame, "paper_label"), plot.key_of_series(), bottom=1.0)
    return axes


def _against_number(frame: pd.DataFrame, x: str, title: str, xlabel: str) -> Axes:
    plot = Plot(frame, x, spread=0.01 * (frame[x].max() - frame[x].min()))
    with look.style():
        axes = look.new_axes(1.2 if plot.is_empty else 3.1)[0]
        plot.claimed(axes, plot.series, line=True)
        plot.ours(axes, plot.series, line=True)
        plot.limits(axes)
        places = sorted(frame[x].dropna().unique())
        space = 0.05 * (places[-1] - places[0]) if places else 0
        ticks: list[float] = []
        for place in places:
            if not ticks or place - ticks[-1] >= space:
                ticks.append(place)
        axes.set_xticks(ticks)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("test accuracy (%)")
        look.finish([axes], title, progress_note(frame, x), plot.key_of_series())
    return axes


@dataclass(frozen=True)
class Spread:
    """What the seeds of one point came to: mean and sample standard deviation (NaN for a single seed)."""

    x: float
    mean: float
    deviation: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + (f" ± {self.deviation:.1f}" if self.n > 1 else "")


def spreads(rows: pd.DataFrame, x: str) -> list[Spread]:
    """Mean, standard deviation and number of seeds at each ``x``, from left to right."""
    groups = rows.dropna(subset=["accuracy"]).groupby(x, sort=True)["accuracy"]
    return [Spread(float(at), float(some.mean()), float(some.std(ddof=1)), len(some)) for at, some in groups]


def ours_as(recipe: str) -> str:
    """What ours are called: the paper's recipe is the rule, any other is named."""
    return "ours" if recipe == "paper" else f"ours, {recipe}"


def progress_note(frame: pd.DataFrame, x: str) -> str:
    """How many of the points are recorded, in words: the line below a figure's title."""
    mine = frame[frame["source"].isin(["ours", "wanted"])]
    if not (mine["source"] == "ours").any():
        return "Ours: not run yet."
    parts = []
    for recipe, rows in mine.groupby("recipe", sort=False):
        wanted = len(rows.drop_duplicates(["series", x]))
        there = len(rows[rows["source"] == "ours"].drop_duplicates(["series", x]))
        parts.append(f"{ours_as(recipe).removeprefix('ours, ')} {there} of {wanted}")
    return "Points recorded: " + ", ".join(parts) + "."


class Plot:
    """What one figure is drawn from, and what its key must name."""

    def __init__(
        self, frame: pd.DataFrame, x: str, *, spread: float = 0.0, by_recipe: bool = False, rule: str = "paper"
    ) -> None:
        """``spread``: how far apart series stand; ``by_recipe``: shape and colour tell the recipe, not the series.

        ``rule`` is the recipe whose points have their series' shape.
        """
        self.frame, self.x, self.spread, self.by_recipe, self.rule = frame, x, spread, by_recipe, rule
        self.series = list(dict.fromkeys(frame["series"]))
        self.key: dict[str, Artist | tuple[Artist, ...]] = {}

    def rows(self, *sources: str) -> pd.DataFrame:
        """The points of these sources that have an accuracy."""
        return self.frame[self.frame["source"].isin(sources) & self.frame["accuracy"].notna()]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is claimed and nothing recorded."""
        return self.rows("claimed", "ours").empty

    def claimed(self, axes: Axes, names: Sequence[str], *, line: bool, mean: bool = False) -> None:
        """The paper's values: hollow, grey, with their reading error; ``mean``: also the mean of each column."""
        everything = self.rows("claimed")
        for series, some in everything[everything["series"].isin(names)].groupby("series", sort=False):
            some = some.sort_values(self.x)
            axes.errorbar(
                some[self.x] + self._shift(series), some["accuracy"], yerr=some["error"].fillna(0),
                xerr=some["x_error"].fillna(0) if "x_error" in some else None, fmt=self._marker(series),
                linestyle="-" if line else "none", linewidth=1.0, color="#8A8A8A", markerfacecolor="none",
                markeredgecolor=look.CLAIMED, ecolor=look.CLAIMED, elinewidth=0.9, zorder=2,
                markersize=4.5 if mean else 7,
            )  # fmt: skip
            columns = [point for point in spreads(some, self.x) if point.n > 1] if mean else []
            half = 0.018 * (self.frame[self.x].max() - self.frame[self.x].min())
            for point in columns:
                axes.hlines(point.mean, point.x - half, point.x + half, color=look.CLAIMED, linewidth=2.2, zorder=2)
            self.key[f"claimed, as read{_within(everything['error'])}"] = look.key_marker("o", None)
            if columns:
                self.key["mean of a claimed column"] = Line2D([], [], color=look.CLAIMED, linewidth=2.2)

    def ours(self, axes: Axes, names: Sequence[str], *, line: bool, aside: float = 0.0, floor: float = -np.inf) -> None:
        """Our records: filled, coloured; mean and deviation over seeds; a single seed is smaller and has no bar.

        They stand ``aside`` times their number right of where they belong. A mean below ``floor`` is written at the
        lower edge.
        """
        everything = self.rows("ours")
        recipes = [self.rule, *sorted(set(everything["recipe"]) - {self.rule})]
        apart = [series for series in self.series if series in set(everything["series"])]
        fallen: dict[float, int] = {}
        for (series, recipe), some in everything[everything["series"].isin(names)].groupby(
            ["series", "recipe"], sort=False
        ):
            other = recipes.index(recipe)
            marker = _OTHER_RECIPES[(other - 1) % len(_OTHER_RECIPES)] if other else self._marker(series)
            colour = look.COLOURS[other % len(look.COLOURS)] if self.by_recipe else self._colour(series)
            shift = self._shift(series) + self.spread / 2 * bool(other) + aside * (1 + apart.index(series))
            points = spreads(some, self.x)
            seen = [point for point in points if point.mean >= floor]
            for point in [point for point in points if point.mean < floor]:
                fallen[point.x] = fallen.get(point.x, 0) + 1
                axes.annotate(
                    f"↓ {point}", (point.x + 0.16 * fallen[point.x] - 0.4, 0.02), xycoords=("data", "axes fraction"),
                    rotation=90, ha="center", va="bottom", color=colour, fontsize=8,
                )  # fmt: skip
            if line:  # across what is not recorded yet there is no line
                means = {point.x: point.mean for point in seen}
                places = sorted(set(self.frame.query("series == @series and recipe == @recipe")[self.x]))
                axes.plot(
                    [place + shift for place in places], [means.get(place, np.nan) for place in places], color=colour,
                    linewidth=1.3, zorder=3, linestyle="--" if other else "-",
                )  # fmt: skip
            for point in seen:
                axes.errorbar(
                    point.x + shift, point.mean, yerr=None if point.n == 1 else point.deviation, fmt=marker,
                    color=colour, markeredgecolor="white", markeredgewidth=0.6, capsize=2.5, elinewidth=1.4,
                    markersize=(5 if point.n == 1 else 7) + (1.5 if other else 0), zorder=5 - other / 10,
                )  # fmt: skip
            single = len(self.series) == 1 or self.by_recipe
            self._name(recipe, marker if other or single else "o", colour if single else look.CLAIMED, everything)

    def limits(self, axes: Axes) -> None:
        """An accuracy axis that shows at least ``_SPAN`` points, and an x axis that reaches what is still wanted."""
        if self.is_empty:
            self.nothing(axes)
        else:
            low, high = axes.get_ylim()
            missing = max(_SPAN - (high - low), 0) / 2
            axes.set_ylim(low - missing, min(high + missing, 100.5))
        low, high = self.frame[self.x].min(), self.frame[self.x].max()
        axes.set_xlim(low - 0.05 * (high - low or 1), high + 0.05 * (high - low or 1))

    def nothing(self, axes: Axes) -> None:
        """Says that there is nothing, where an empty plot would leave it to be guessed."""
        axes.set(ylim=(0, 1), yticks=[])
        axes.text(
            0.5, 0.5, "nothing claimed, nothing run yet", transform=axes.transAxes, ha="center", color=look.CLAIMED
        )

    def key_of_series(self) -> dict[str, Artist | tuple[Artist, ...]]:
        """The key, with each series by its shape where there are several: hollow as claimed beside filled as ours."""
        known = self.rows("claimed", "ours")
        names = [series for series in self.series if series in set(known["series"])]
        if len(self.series) < 2:
            return self.key
        keys: dict[str, Artist | tuple[Artist, ...]] = {}
        for name in names:
            there = set(known.loc[known["series"] == name, "source"])
            colours = {"claimed": None, "ours": self._colour(name)}
            keys[name] = tuple(look.key_marker(self._marker(name), colours[s]) for s in sorted(there))
        return keys | self.key

    def _marker(self, series: str) -> str:
        turn, place = divmod(self.series.index(series), len(look.MARKERS))
        return "o" if self.by_recipe else look.MARKERS[(turn + place) % len(look.MARKERS)]

    def _colour(self, series: str) -> str:
        return look.COLOURS[self.series.index(series) % len(look.COLOURS)]

    def _shift(self, series: str) -> float:
        """Keeps the series of a categorical axis apart."""
        return self.spread * (self.series.index(series) - (len(self.series) - 1) / 2)

    def _name(self, recipe: str, marker: str, colour: str, everything: pd.DataFrame) -> None:
        counts = everything[everything["recipe"] == recipe].groupby(["series", self.x]).size()
        low, high = counts.min(), counts.max()
        seeds = "one seed" if high == 1 else f"mean ± sd, n = {low}" + (f" to {high}" if high > low else "")
        self.key[f"{ours_as(recipe)}: {seeds}"] = look.key_marker(marker, colour, 5 if high == 1 else 7)


def _within(errors: pd.Series) -> str:
    known = sorted(set(np.round(errors.dropna(), 3)))
    return "" if not known else f" (±{known[0]:g})" if len(known) == 1 else f" (±{known[0]:g} to {known[-1]:g})"
