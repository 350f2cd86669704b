"""The protocol audit: what one change of the protocol is worth, in points of accuracy."""

from __future__ import annotations

import textwrap

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from thriftylib.figures import style as look

_REACH = 6.0  # points: a difference beyond it is written at the edge, so that one failed run hides no other row


def protocol_audit(frame: pd.DataFrame, *, title: str) -> Axes:
    """Differences in points of test accuracy: a row per change, a dot per seed, a bar for mean and standard deviation.

    ``frame`` has a row per seed and ``change``: ``difference`` is the accuracy with the change minus the accuracy
    without it, same seed, all else equal (NaN: not run yet). Mean and number of seeds stand at the right; a change that
    is not recorded has no row, and is named above.
    """
    recorded = frame.dropna(subset=["difference"])
    changes = list(dict.fromkeys(recorded["change"]))
    missing = [change for change in dict.fromkeys(frame["change"]) if change not in changes]
    inside = recorded[recorded.groupby("change")["difference"].transform("mean").abs() <= _REACH]
    reach = max(inside["difference"].abs().max() * 1.1 if len(inside) else 0, 1.0)
    with look.style():
        axes = look.new_axes(0.36 * len(changes) + 0.25)[0]
        axes.axvline(0, color=look.CLAIMED, linewidth=1)
        for place, change in enumerate(reversed(changes)):
            _row(axes, place, recorded.loc[recorded["change"] == change, "difference"], reach)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-0.6, max(len(changes), 1) - 0.4)
        axes.set_yticks(range(len(changes)), [textwrap.fill(change, 26) for change in reversed(changes)])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.locator_params(axis="x", nbins=5)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("change in test accuracy (points)\n← worse      better →")
        note = f"Not run yet: {', '.join(missing)}." if missing else ""
        key = {
            "one pair of runs with the same seed": look.key_marker("o", look.COLOURS[0]),
            "mean ± sd": Line2D([], [], marker="|", markersize=9, color=look.COLOURS[0], linewidth=2),
        }
        look.finish([axes], title, note, key if changes else {}, left=1.95, right=1.12, bottom=0.65)
    return axes


def _row(axes: Axes, place: float, differences: pd.Series, reach: float) -> None:
    mean, n = differences.mean(), len(differences)
    beyond = "" if not abs(mean) > reach else " →" if mean > 0 else " ←"
    label = f"{mean:+.2f}{beyond}  n = {n}".replace("-", "−")
    colour = look.COLOURS[0]
    axes.text(1.02, place, label, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5, color=colour)
    if beyond:
        return
    axes.plot(differences, [place - 0.14] * n, linestyle="none", marker="o", markersize=5.5, color=colour, alpha=0.6,
              markeredgecolor="white", markeredgewidth=0.5)  # fmt: skip
    if n > 1:
        axes.errorbar(
            mean, place + 0.14, xerr=differences.std(ddof=1), fmt="|", markersize=9, color=colour, elinewidth=2
        )
