"""Everything recorded in one picture: which accuracy is to be had for how many parameters."""

from __future__ import annotations

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from thriftylib.figures import look


def pareto(frame: pd.DataFrame, *, title: str) -> Axes:
    """Accuracy against ``parameters`` by network family, with the front of what nothing recorded beats.

    ``frame`` has a row per point, already a mean over seeds: ``source`` (claimed or ours), ``family``, ``parameters``,
    ``accuracy`` (percent), ``n`` (seeds).
    """
    known = frame.dropna(subset=["accuracy", "parameters"])
    claimed, mine = known[known["source"] == "claimed"], known[known["source"] == "ours"]
    key: dict[str, Artist] = {}
    with look.style():
        axes = look.new_axes(3.5)[0]
        if len(claimed):
            key["claimed by a paper"] = axes.plot(
                claimed["parameters"], claimed["accuracy"], linestyle="none", marker="o", markersize=5,
                markerfacecolor="none", markeredgecolor="#9A9A9A", zorder=1,
            )[0]  # fmt: skip
        for place, family in enumerate(sorted(set(mine["family"]))):
            rows = mine[mine["family"] == family]
            key[f"ours: {family}"] = axes.plot(
                rows["parameters"], rows["accuracy"], linestyle="none", marker=look.MARKERS[place % len(look.MARKERS)],
                markersize=7, color=look.COLOURS[place % len(look.COLOURS)], markeredgecolor="white",
                markeredgewidth=0.6, zorder=3,
            )[0]  # fmt: skip
        front = pareto_front(mine)
        if len(front):
            reach = [*front["parameters"], known["parameters"].max() * 1.25]
            key["front of ours"] = axes.step(
                reach, [*front["accuracy"], front["accuracy"].iloc[-1]], where="post", color="#333333", linewidth=1.1,
                zorder=2,
            )[0]  # fmt: skip
        records = int(mine["n"].sum())
        note = f"Ours: {len(mine)} points from {records} records." if records else "Ours: nothing recorded yet."
        look.finish([axes], title, note, key)
        if len(known):
            look.log_error_scale(axes, known["accuracy"].min(), known["accuracy"].max())
            look.parameters_axis(axes, known["parameters"].min(), known["parameters"].max())
        else:
            axes.set(xticks=[], ylim=(0, 100))
            axes.set_xlabel("parameters (log scale)")
        axes.set_ylabel("test accuracy (%), spaced by log error")
    return axes


def pareto_front(points: pd.DataFrame) -> pd.DataFrame:
    """The points that no other beats: none with as few parameters or fewer is as accurate, from small to large."""
    ordered = points.sort_values(["parameters", "accuracy"], ascending=[True, False])
    best_before = ordered["accuracy"].cummax().shift(fill_value=float("-inf"))
    return ordered[ordered["accuracy"] > best_before]
