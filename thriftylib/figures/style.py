"""How every figure of the book looks: one palette, one size of type, one way to tell claimed from ours."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import matplotlib as mpl
import numpy as np
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#8F4E80", "#A67C00", "#2F4B7C")
"""Okabe and Ito's colours (purple and yellow darkened for white paper): distinct for colour-blind readers."""

MARKERS = ("o", "s", "^", "D", "v", "h")
"""One shape per series, so that colour is never the only difference."""

CLAIMED = "#4D4D4D"
"""The edge of every claimed marker; its face stays empty."""

GHOST = "#BDBDBD"
"""What is there for comparison only."""

WIDTH = 5.2
"""Inches. Shown 350 CSS pixels wide (on a phone) the smallest type is 8 pixels high, at 620 (the book's column) 14."""

_LINE = 0.2  # inches of one line above the axes
_RC = {
    **seaborn.axes_style("whitegrid"),
    # The bundled font only, so that a figure looks the same on every machine.
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 8.5,
    # White and opaque: a card that stays readable on a dark page, where transparent grey on black would not be.
    "savefig.facecolor": "white",
    "axes.edgecolor": "#8A8A8A",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "axes.labelcolor": "#333333",
}


def style() -> AbstractContextManager[None]:
    """The book's style, for a ``with`` block; every plot of this package is drawn in it."""
    return mpl.rc_context(_RC)


def new_axes(*heights: float, share_x: bool = True) -> list[Axes]:
    """Axes of these heights in inches, stacked, over one x axis or each its own, in a figure that nothing shows."""
    figure = Figure(figsize=(WIDTH, sum(heights)))
    grid = {"height_ratios": heights}
    return list(figure.subplots(len(heights), 1, sharex=share_x, squeeze=False, gridspec_kw=grid)[:, 0])


def finish(
    panels: Sequence[Axes], title: str, note: str, key: Mapping[str, Artist | tuple[Artist, ...]],
    *, left: float = 0.68, right: float = 0.2, bottom: float = 0.5, above: float = 0.0, gap: float = 0.1,
) -> None:  # fmt: skip
    """Write title, ``note`` and key above the first panel, where they cover no data, and make room for them.

    ``left``, ``right``, ``bottom`` and ``above`` are inches around the axes, ``gap`` the share of a panel between two.
    """
    figure = panels[0].figure
    rows = list(_flow(key))
    titles, notes = textwrap.wrap(title, 56), [line for part in note.splitlines() for line in textwrap.wrap(part, 76)]
    strip = above + _LINE * (len(rows) + len(notes)) + 0.23 * len(titles) + 0.17
    height = figure.get_figheight() + strip + bottom
    figure.set_figheight(height)
    figure.subplots_adjust(
        left=left / WIDTH, right=1 - right / WIDTH, bottom=bottom / height, top=1 - strip / height, hspace=gap
    )
    y = height - 0.2
    for line in titles:
        figure.text(0.1 / WIDTH, y / height, line, fontsize=10.5, fontweight="bold", va="center", color="#1A1A1A")
        y -= 0.23
    for line in notes:
        figure.text(0.1 / WIDTH, y / height, line, fontsize=8.5, va="center", color="#333333")
        y -= _LINE
    for row in rows:
        legend = Legend(
            panels[0], list(row.values()), list(row), loc="center left", bbox_to_anchor=(0.1 / WIDTH, y / height),
            bbox_transform=figure.transFigure, ncols=len(row), frameon=False, borderpad=0, borderaxespad=0,
            columnspacing=1.1, handletextpad=0.4, handlelength=1.8,
        )  # fmt: skip
        figure.add_artist(legend)
        y -= _LINE


def _flow(key: Mapping[str, Artist | tuple[Artist, ...]]) -> Iterator[dict[str, Artist | tuple[Artist, ...]]]:
    """The key's entries in rows that fit the figure's width."""
    row: dict[str, Artist | tuple[Artist, ...]] = {}
    used = 0.0
    for label, handle in key.items():
        width = 0.5 + 0.062 * len(label)
        if row and used + width > WIDTH - 0.2:
            yield row
            row, used = {}, 0.0
        row[label] = handle
        used += width
    if row:
        yield row


def corner(axes: Axes, text: str) -> None:
    """A label in the lower right corner, which rising curves leave free."""
    axes.text(0.985, 0.06, text, transform=axes.transAxes, ha="right", va="bottom", fontweight="bold", color="#333333")


def key_marker(shape: str, colour: str | None, size: float = 6.5) -> Line2D:
    """An entry of the key: hollow and grey without a colour."""
    return Line2D(
        [], [], linestyle="none", marker=shape, markersize=size, markerfacecolor=colour or "none",
        markeredgecolor="white" if colour else CLAIMED, markeredgewidth=0.6 if colour else 1.0,
    )  # fmt: skip


def log_error_scale(axes: Axes, low: float, high: float) -> None:
    """Accuracies (percent), ``low`` to ``high``, spaced by the log of the error: 95 to 97.5 is as far as 80 to 90."""
    bottom, top = max(100 - (100 - low) * 1.12, 0), min(100 - (100 - high) * 0.85, 99.9)
    axes.set_yscale("function", functions=(_to_log_error, _from_log_error))
    axes.set_ylim(bottom, top)
    choices = [10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 88, 90, 91, 92, 93, 94, 95, 96, 97, 98, 98.5, 99, 99.5]
    space = 0.2 / (axes.get_position().height * axes.figure.get_figheight())  # one line of type
    axes.yaxis.set_major_locator(FixedLocator(_apart([c for c in choices if bottom <= c <= top], bottom, top, space)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _apart(ticks: list[float], bottom: float, top: float, space: float) -> list[float]:
    """As many ticks as leave the share ``space`` of the axis between two, the round ones first."""
    span = float(_to_log_error(top) - _to_log_error(bottom))
    kept: list[float] = []
    for tick in sorted(ticks, key=lambda t: (t % 10 != 0, t % 5 != 0, t % 2 != 0, -t)):
        if all(abs(_to_log_error(tick) - _to_log_error(other)) / span > space for other in kept):
            kept.append(tick)
    return sorted(kept)


def _to_log_error(accuracy: np.ndarray) -> np.ndarray:
    return -np.log10(np.clip(100 - np.asarray(accuracy, float), 0.02, None))


def _from_log_error(position: np.ndarray) -> np.ndarray:
    return 100 - 10 ** -np.asarray(position, float)


def parameters_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x axis of parameters with labels such as 2K and 4M."""
    axes.set_xscale("log")
    axes.set_xlim(low / 1.25, high * 1.25)
    if high / low > 1000:
        ticks = [float(10**power) for power in range(2, 9)]
    else:
        steps = (1, 2, 4) if high / low > 4 else (1, 1.5, 2, 3, 4, 5, 6, 8)
        ticks = [step * 10**power for power in range(2, 8) for step in steps]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low / 1.25 <= tick <= high * 1.25]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.set_xlabel("parameters (log scale)")


def short(value: float) -> str:
    """40000 as ``40K``, 4150000 as ``4.15M``."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}K" if value >= 1e3 else f"{value:g}"
