"""A paper's table, row by row: the accuracies, the gains over its reference row, and how gradients agree in each."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator

from thriftylib.evidence.claims import Claim
from thriftylib.evidence.intervals import Estimate, Side, subtract
from thriftylib.evidence.records import Record
from thriftylib.figures import style as look
from thriftylib.figures.training import longest

_HEIGHT = 0.36  # inches of a row
_SPAN = 2.0  # points: no axis shows less, so that noise never looks like a difference
_ROWS = ["source", "panel", "row", "accuracy", "spread", "recipe", "seed", "run"]
_GAINS = ["source", "panel", "row", "recipe", "difference", "low", "high", "n"]
_FAN = (("cosine_min", "cosine_max", 0.14), ("cosine_5", "cosine_95", 0.25), ("cosine_25", "cosine_75", 0.4))


def table_rows(table: pd.DataFrame, claims: Mapping[str, Claim], *, row: str, panel: str) -> pd.DataFrame:
    """Claimed accuracies and ours, one row per number or run, from an experiment's table (``experiments.collect``).

    Args:
        row: what a row of the figure is called, such as ``"{model}"``; any column may be named.
        panel: likewise of the panel that it stands in.

    Returns:
        Columns source, panel, row, accuracy (percent, best epoch), spread (of claimed ones, as the paper states it),
        recipe, seed and run.
    """
    table = _named(table, row, panel)
    claimed = [
        ("claimed", each.panel, each.row, claim.value, claim.stated_spread)
        for each in table.drop_duplicates(["panel", "row"]).itertuples()
        if (claim := _own(each.claim, each.experiment, claims))
    ]
    ours = table.assign(
        source=table["status"].map({"missing": "wanted"}).fillna("ours"), accuracy=table["best_accuracy"], spread=np.nan
    )
    frame = [*(dict(zip(_ROWS, each, strict=False)) for each in claimed), *ours[_ROWS].to_dict("records")]
    return pd.DataFrame(frame, columns=_ROWS).astype({"accuracy": float, "spread": float})


def table_gains(
    table: pd.DataFrame,
    claims: Mapping[str, Claim],
    *,
    row: str,
    panel: str,
    against: Mapping[str, str],
    by: Sequence[str] = (),
) -> pd.DataFrame:
    """Each row's difference from its reference, with the 90 % interval of ``evidence.intervals``.

    Args:
        against: the labels of the reference rows, such as ``{"model": "SmallNet"}``; ours are subtracted within one
            recipe.
        by: the labels in which a row and its reference agree.

    Returns:
        Columns source, panel, row, recipe, difference (points), low, high (its interval) and n, runs of the side that
        has fewer. A claimed interval is that of the two spreads which the paper states.
    """
    table = _named(table, row, panel)
    is_reference = np.logical_and.reduce([table[label] == value for label, value in against.items()])
    references = dict(iter(table[is_reference].groupby(["recipe", *by])))
    found, claimed = [], {}
    for key, some in table[~is_reference].groupby(["recipe", *by, "panel", "row"], sort=False):
        reference = references[key[: 1 + len(by)]]
        place = {"panel": key[-2], "row": key[-1]}
        ours, theirs = (side.dropna(subset=["best_accuracy"]) for side in (some, reference))
        measured = {"source": "wanted"}
        if len(ours) and len(theirs):
            sides = (dict(zip(side["seed"], side["best_accuracy"], strict=True)) for side in (ours, theirs))
            measured = {"source": "ours", **_interval(subtract(*sides))}
        found.append({**place, "recipe": key[0], **measured})
        one, other = (_own(*side[["claim", "experiment"]].iloc[0], claims) for side in (some, reference))
        if one and other:
            claimed[key[-2:]] = {**place, "source": "claimed", **_interval(_stated(one, other))}
    frame = pd.DataFrame([*claimed.values(), *found], columns=_GAINS)
    return frame.astype(dict.fromkeys(("difference", "low", "high", "n"), float))


def accuracy_by_row(frame: pd.DataFrame, *, title: str, note: str) -> list[Axes]:
    """Claimed accuracies above ours, each with its spread; from :func:`table_rows`. A panel each, with its own axis."""
    marks = []
    for (panel, row, recipe), some in frame.fillna({"recipe": ""}).groupby(["panel", "row", "recipe"], sort=False):
        values = some["accuracy"].dropna()
        if len(values):
            spread = some["spread"].iloc[0] if not recipe else values.std(ddof=1)
            mark = values.mean(), values.mean() - spread, values.mean() + spread
            marks.append((panel, row, recipe, *mark, len(values)))
    panels = _draw(frame, marks, title=title, note=note, claimed="claimed ± its spread", spread="mean ± sd", zero=False)
    panels[-1].set_xlabel("test accuracy (%)")
    return panels


def gain_by_row(frame: pd.DataFrame, *, title: str, note: str, xlabel: str) -> list[Axes]:
    """Claimed differences above ours, each with its 90 % interval; from :func:`table_gains`. One axis for all."""
    known = frame.dropna(subset=["difference"]).fillna({"recipe": ""})
    marks = list(known[["panel", "row", "recipe", "difference", "low", "high", "n"]].itertuples(index=False, name=None))
    words = {"claimed": "claimed, 90 % by its spreads", "spread": "90 % interval"}
    panels = _draw(frame, marks, title=title, note=note, zero=True, **words)
    panels[-1].set_xlabel(xlabel)
    return panels


def _draw(
    frame: pd.DataFrame, marks: list[tuple], *, title: str, note: str, claimed: str, spread: str, zero: bool
) -> list[Axes]:
    """Dots with intervals; ``marks`` are (panel, row, recipe, at, low, high, n), the recipe empty where claimed."""
    order = frame[frame["source"] != "claimed"]  # every row is there, in the experiment's order
    names = {panel: list(dict.fromkeys(some["row"])) for panel, some in order.groupby("panel", sort=False)}
    recipes = [recipe for recipe in dict.fromkeys(frame["recipe"].dropna()) if recipe in {mark[2] for mark in marks}]
    slots = [*([""] if any(not mark[2] for mark in marks) else []), *recipes]  # claimed above ours
    words = {row: textwrap.fill(row, 24) for rows in names.values() for row in rows}
    longest_line = max(len(line) for text in words.values() for line in text.splitlines())
    with look.style():
        panels = look.new_axes(*(_HEIGHT * len(rows) + 0.15 for rows in names.values()), share_x=zero)
        for axes, (panel, rows) in zip(panels, names.items(), strict=True):
            axes.set_title(panel, loc="left", fontsize=9.5, color="#333333", pad=4)
            axes.set_yticks(range(len(rows)), [words[row] for row in reversed(rows)])
            axes.set_ylim(-0.6, len(rows) - 0.4)
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False, axis="y")
            if zero:
                axes.axvline(0, color=look.CLAIMED, linewidth=1, zorder=1)
            here = [mark for mark in marks if mark[0] == panel]
            for _, row, recipe, at, low, high, _ in here:
                place = len(rows) - 1 - rows.index(row) + 0.24 * ((len(slots) - 1) / 2 - slots.index(recipe))
                _dot(axes, place, at, low, high, None if not recipe else recipes.index(recipe))
            if not here:
                axes.text(0.5, 0.5, "nothing claimed, nothing run yet", transform=axes.transAxes, ha="center",
                          va="center", color=look.CLAIMED, backgroundcolor="white")  # fmt: skip
            _limit(axes, marks if zero else here, zero)
        key: dict[str, Artist | tuple[Artist, ...]] = {}
        if any(not mark[2] for mark in marks):
            key[claimed] = look.key_marker("D", None)
        for number, recipe in enumerate(recipes):
            counts = {int(mark[-1]) for mark in marks if mark[2] == recipe}
            n = f"n = {min(counts)}" + (f" to {max(counts)}" if len(counts) > 1 else "")
            key[f"ours, {recipe}: " + (f"{spread}, {n}" if counts != {1} else "one seed")] = look.key_marker(
                look.MARKERS[number], look.COLOURS[number]
            )
        gap = 0.25 if zero else 0.42  # a panel with an axis of its own needs room for it
        look.finish(
            panels, title, f"{_progress(frame)}\n{note}", key, left=0.3 + 0.075 * longest_line, above=0.22, gap=gap
        )
    return panels


def _dot(axes: Axes, place: float, at: float, low: float, high: float, recipe: int | None) -> None:
    if not math.isnan(low):
        colour = look.CLAIMED if recipe is None else look.COLOURS[recipe]
        axes.plot([low, high], [place, place], color=colour, linewidth=1.1 if recipe is None else 2, zorder=2)
    face = "white" if recipe is None else look.COLOURS[recipe]
    axes.plot(
        at, place, linestyle="none", marker="D" if recipe is None else look.MARKERS[recipe], markersize=6,
        markerfacecolor=face, markeredgecolor=look.CLAIMED if recipe is None else "white",
        markeredgewidth=1.0 if recipe is None else 0.6, zorder=3,
    )  # fmt: skip


def _limit(axes: Axes, marks: list[tuple], zero: bool) -> None:
    """An axis that shows all intervals and at least ``_SPAN`` points."""
    values = [value for mark in marks for value in mark[3:6] if not math.isnan(value)]
    if not values:
        axes.set(xlim=(-_SPAN / 2, _SPAN / 2))
        axes.tick_params(axis="x", labelbottom=False)
        return
    low, high = (limit([*values, 0.0] if zero else values) for limit in (min, max))
    room = max(0.06 * (high - low), (_SPAN - (high - low)) / 2)
    axes.set_xlim(low - room, high + room)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _progress(frame: pd.DataFrame) -> str:
    """How many rows have a number of ours, by recipe."""
    mine = frame[frame["source"] != "claimed"]
    if not (mine["source"] == "ours").any():
        return "Ours: not run yet."
    parts = []
    for recipe, some in mine.groupby("recipe", sort=False):
        there = some[some["source"] == "ours"].drop_duplicates(["panel", "row"])
        parts.append(f"{recipe} {len(there)} of {len(some.drop_duplicates(['panel', 'row']))}")
    return f"Rows recorded: {', '.join(parts)}."


def gradient_cosines(records: Iterable[Record], table: pd.DataFrame, *, row: str) -> pd.DataFrame:
    """The quantiles of each row's cosines between gradients, epoch by epoch, of the longest recorded run.

    Returns:
        Columns source (ours, or wanted where none is recorded), row, recipe, run, epoch (from 0), cosine_min,
        cosine_5, ... cosine_max.
    """
    known = {record.id: record for record in records}
    table = _named(table, row, "")
    parts = []
    for name, some in table.groupby("row", sort=False):
        chosen = longest(known.values(), some["run"])
        if chosen is None:
            parts.append(pd.DataFrame({"source": ["wanted"], "row": [name]}))
            continue
        quantiles = {key: values for key, values in chosen.series.items() if key.startswith("cosine_")}
        same = {"source": "ours", "row": name, "recipe": chosen.run.recipe_name, "run": chosen.id}
        parts.append(pd.DataFrame({**same, "epoch": range(chosen.epochs), **quantiles}))
    columns = ["source", "row", "recipe", "run", "epoch", *dict.fromkeys(itertools.chain(*(fan[:2] for fan in _FAN)))]
    columns.insert(8, "cosine_50")
    return pd.concat(parts, ignore_index=True).reindex(columns=columns)


def cosine_fans(frame: pd.DataFrame, *, title: str, note: str) -> list[Axes]:
    """Cosines between gradients by epoch, from :func:`gradient_cosines`: all, 90 % and half of the pairs."""
    rows = dict(iter(frame.groupby("row", sort=False)))
    there = frame.dropna(subset=["epoch"])
    with look.style():
        panels = look.new_axes(*[1.15 if len(there) else 0.5] * len(rows))
        for axes, (name, some) in zip(panels, rows.items(), strict=True):
            axes.set_title(name, loc="left", fontsize=9.5, color="#333333", pad=4)
            if some["epoch"].isna().all():
                axes.set_yticks([])
                axes.text(
                    0.5, 0.5, "not run yet", transform=axes.transAxes, ha="center", va="center", color=look.CLAIMED
                )
                continue
            for low, high, alpha in _FAN:
                axes.fill_between(some["epoch"], some[low], some[high], color=look.COLOURS[0], alpha=alpha, linewidth=0)
            axes.plot(some["epoch"], some["cosine_min"], color=look.COLOURS[1], linewidth=1.2, linestyle="--")
            axes.plot(some["epoch"], some["cosine_50"], color=look.COLOURS[0])
            axes.axhline(0, color=look.CLAIMED, linewidth=0.8, zorder=1)
            axes.set_ylim(*_cosine_limits(there))
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True) if len(there) else NullLocator())
        panels[len(panels) // 2].set_ylabel("cosine of two gradients" if len(there) else "")
        key: dict[str, Artist | tuple[Artist, ...]] = {
            "median": Line2D([], [], color=look.COLOURS[0]),
            "minimum": Line2D([], [], color=look.COLOURS[1], linewidth=1.2, linestyle="--"),
            **{
                words: Patch(color=look.COLOURS[0], alpha=alpha, linewidth=0)
                for words, alpha in zip(("half of the pairs", "90 %", "all"), (0.6, 0.35, 0.14), strict=True)
            },
        }
        gap = 0.3 if len(there) else 0.7
        progress = "Ours: not run yet." if there.empty else f"Recipe: {', '.join(sorted(set(there['recipe'])))}."
        look.finish(panels, title, f"{progress}\n{note}", key if len(there) else {}, left=0.75, above=0.22, gap=gap)
    return panels


def _cosine_limits(frame: pd.DataFrame) -> tuple[float, float]:
    low, high = frame["cosine_min"].min(), frame["cosine_max"].max()
    return min(low - 0.05, -0.1), min(high + 0.05, 1.02)


def _named(table: pd.DataFrame, row: str, panel: str) -> pd.DataFrame:
    rows = table.to_dict("records")
    return table.assign(row=[row.format(**each) for each in rows], panel=[panel.format(**each) for each in rows])


def _own(claim: str | None, experiment: str, claims: Mapping[str, Claim]) -> Claim | None:
    """The claim where it is this experiment's own: another's stands in that one's figure."""
    found = claims.get(claim)
    return found if found and found.experiment == experiment else None


def _stated(ours: Claim, theirs: Claim) -> Estimate:
    """The difference of two stated means, with the variances that the paper's spreads give."""
    spreads = [claim.known_spread for claim in (ours, theirs)]
    sides = tuple(Side(spread.deviation**2, spread.runs) for spread in spreads if spread)
    is_known = len(sides) == 2
    n = min(side.runs for side in sides) if is_known else 1
    return Estimate(ours.value - theirs.value, sides if is_known else (), n)


def _interval(found: Estimate) -> dict[str, float]:
    half = math.nan if found.half is None else found.half
    return {"difference": found.mean, "low": found.mean - half, "high": found.mean + half, "n": found.n}
