"""Everything recorded in one picture: which accuracy is to be had for how many parameters."""

from __future__ import annotations

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from thriftylib.figures import style as look


def pareto(frame: pd.DataFrame, *, title: str) -> Axes:
    """Accuracy against ``parameters`` by network family, with the front of what nothing recorded beats.

    ``frame`` has a row per point, already a mean over seeds: ``source`` (claimed or ours), ``family``, ``parameters``,
    ``accuracy`` (percent), ``n`` (seeds). What lies below the whole front and all claims is only counted.
    """
    known = frame.dropna(subset=["accuracy", "parameters"])
    claimed, mine = known[known["source"] == "claimed"], known[known["source"] == "ours"]
    front = pareto_front(mine)
    key: dict[str, Artist] = {}
    with look.style():
        axes = look.new_axes(3.5 if len(known) else 1.2)[0]
        for place, family in enumerate(sorted(set(mine["family"]))):
            marker, colour = look.MARKERS[place % len(look.MARKERS)], look.COLOURS[place % len(look.COLOURS)]
            for rows, size, alpha in ((mine.drop(front.index), 5.5, 0.5), (front, 8, 1.0)):
                some = rows[rows["family"] == family]
                axes.plot(
                    some["parameters"], some["accuracy"], linestyle="none", marker=marker, markersize=size,
                    color=colour, alpha=alpha, markeredgecolor="white", markeredgewidth=0.6, zorder=3,
                )  # fmt: skip
            key[f"ours: {family}"] = look.key_marker(marker, colour, 8)
        if len(front):
            reach = [*front["parameters"], known["parameters"].max() * 1.25]
            key["front of ours"] = axes.step(
                reach, [*front["accuracy"], front["accuracy"].iloc[-1]], where="post", color="#333333", linewidth=1.1,
                zorder=2,
            )[0]  # fmt: skip
        if len(claimed):
            key["claimed by a paper"] = axes.plot(
                claimed["parameters"], claimed["accuracy"], linestyle="none", marker="o", markersize=4.5,
                markerfacecolor="none", markeredgecolor="#7F7F7F", zorder=4,
            )[0]  # fmt: skip
        # A failed run far below would squeeze everything else together.
        low = min((rows["accuracy"].min() for rows in (front, claimed) if len(rows)), default=0)
        below = int((mine["accuracy"] < low).sum())
        note = (
            f"Ours: {len(mine)} points from {int(mine['n'].sum())} records"
            if len(mine)
            else "Ours: nothing recorded yet"
        )
        look.finish([axes], title, note + (f"; {below} below the axis." if below else "."), key)
        if len(known):
            look.log_error_scale(axes, low, known["accuracy"].max())
            look.parameters_axis(axes, known["parameters"].min(), known["parameters"].max())
        else:
            axes.set(xticks=[], yticks=[])
            axes.text(0.5, 0.5, "nothing claimed, nothing recorded yet", transform=axes.transAxes, ha="center")
            axes.set_xlabel("parameters (log scale)")
        axes.set_ylabel("test accuracy (%), spaced by log error" if len(known) else "")
    return axes


def pareto_front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other beats: none with as few parameters or fewer is as accurate, from small to large."""
    ordered = points.sort_values(["parameters", "accuracy"], ascending=[True, False])
    best_before = ordered["accuracy"].cummax().shift()  # the first has none
    return ordered[~(ordered["accuracy"] <= best_before)]
