"""How every figure of the book looks: palette, size of type, scales, and what is around the axes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.style
import numpy as np
import seaborn
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.scale import FuncScale
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#8F4E80", "#A67C00", "#2F4B7C")
"""Okabe and Ito's colours (purple and yellow darkened for white paper): distinct for colour-blind readers."""

MARKERS = ("o", "s", "^", "D", "v", "h", "P", "X")
"""One shape per series, so that colour is never the only difference."""

DASHES = ("", (4, 1.5), (1, 1), (3, 1.25, 1.5, 1.25), (5, 1, 1, 1), (5, 1, 2, 1, 2, 1))
"""Likewise of lines: lengths of strokes and gaps; the first is solid."""

CLAIMED = "#4D4D4D"
"""The edge of every claimed marker; its face stays white."""

GHOST = "#BDBDBD"
"""What is there for comparison only."""

WIDTH = 5.2
"""Inches. Shown 350 CSS pixels wide (on a phone) the smallest type is 8 pixels high, at 620 (the book's column) 14."""

_RC = {
    **seaborn.axes_style("whitegrid"),
    # The bundled font only, so that a figure looks the same on every machine.
    "font.family": "DejaVu Sans",
    "text.parse_math": False,  # a name with dollar signs is no formula; labels of axes, our own, may hold one
    "font.size": 9.5,
    "axes.labelsize": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "figure.labelsize": 9.5,
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
    "axes.titlecolor": "#333333",
}


def house_style() -> AbstractContextManager[None]:
    """The book's style, for a ``with`` block; every plot of this package is drawn in it.

    It starts from matplotlib's defaults, so that nobody's ``matplotlibrc`` changes a figure.
    """
    return mpl.style.context(["default", _RC])


def new_axes(*heights: float, share_x: bool = True, share_y: bool = False) -> list[Axes]:
    """Axes of these heights in inches, stacked so that a phone shows them, in a figure that nothing else shows."""
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = {"height_ratios": heights}
    return list(figure.subplots(len(heights), 1, sharex=share_x, sharey=share_y, squeeze=False, gridspec_kw=grid)[:, 0])


def finish(
    panels: Sequence[Axes],
    key: Mapping[str, Artist] | None = None,
    *,
    title: str,
    caption: str = "",
    xlabel: str = "",
    ylabel: str = "",
) -> list[Axes]:
    """Write title and caption above the panels and the legend ``key`` below; the figure grows by what they take."""
    figure = panels[0].figure
    for axes in panels:
        axes.set(xlabel="", ylabel="")
    panels[-1].set_xlabel(xlabel)
    of_y = panels[0].yaxis.label if len(panels) == 1 else figure.supylabel("")
    of_y.set_text(ylabel)
    for label in (panels[-1].xaxis.label, of_y):
        label.set_parse_math(True)
    texts = [(line, {"fontsize": 10.5, "fontweight": "bold"}, 0.23) for line in textwrap.wrap(title, 56)]
    lines = [line for part in caption.splitlines() for line in textwrap.wrap(part, 76)]
    texts += [(line, {"fontsize": 8.5}, 0.2) for line in lines]
    top = sum(height for *_, height in texts) + 0.12
    for columns in range(min(len(key or ()), 4), 0, -1):  # as many as fit beside each other
        legend = figure.legend(
            list(key.values()), [textwrap.fill(name, 70) for name in key], loc="outside lower left", ncols=columns,
            frameon=False, borderpad=0.2, columnspacing=1.2, handletextpad=0.5, handlelength=1.8,
        )  # fmt: skip
        if columns == 1 or legend.get_window_extent().width < (WIDTH - 0.1) * figure.dpi:
            break
        legend.remove()
    wanted = figure.get_figheight()
    height = wanted + top + 0.8 * len(panels) + 0.3 * len(key or ())
    _set_height(figure, height, top)
    figure.draw_without_rendering()  # the first layout shows how much room labels and legend take
    height += wanted - sum(axes.get_position().height for axes in panels) * height
    _set_height(figure, height, top)
    below = height - 0.18
    for line, font, space in texts:
        figure.text(0.1 / WIDTH, below / height, line, va="center", color="#1A1A1A", **font)
        below -= space
    return list(panels)


def _set_height(figure: Figure, height: float, top: float) -> None:
    """The figure's height, of which the ``top`` inches are for title and caption."""
    figure.set_figheight(height)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - top / height), h_pad=0.05, w_pad=0.1)


class Scale(NamedTuple):
    """How an axis is spaced (matplotlib's name or scale), its tick values by importance, and how one is written."""

    kind: Any
    ticks: Sequence[float]
    text: Callable[[float], str]


def short(value: float) -> str:
    """40000 as ``40K``, 4150000 as ``4.15M``."""
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}K" if value >= 1e3 else f"{value:g}"


def _to_log_error(accuracy: np.ndarray) -> np.ndarray:
    return -np.log10(np.clip(100 - np.asarray(accuracy, float), 0.02, None))


def _from_log_error(position: np.ndarray) -> np.ndarray:
    return 100 - 10 ** -np.asarray(position, float)


_PERCENT = (90, 99, 80, 50, 95, 70, 85, 98, 60, 97, 92, 96, 75, 40, 30, 20, 10, 94, 88, 93, 91, 98.5, 99.5)
_ROUND = [digit * 10.0**power for digit in (1, 2, 5, 3, 4, 7, 1.5, 6, 8, 2.5, 3.5) for power in range(-9, 10)]
SCALES = {
    "log": Scale("log", _ROUND, "{:g}".format),
    "parameters": Scale("log", [tick for tick in _ROUND if tick >= 1], short),
    "accuracy": Scale(FuncScale(None, (_to_log_error, _from_log_error)), _PERCENT, "{:g}".format),
}
"""``log``: numbers; ``parameters``: 2K, 4M; ``accuracy``: percent, spaced by the log of the error, so that from 95 to
97.5 is as far as from 80 to 90."""


def rescale(axes: Axes, name: str, which: str) -> None:
    """Space the ``x`` or ``y`` axis of drawn data by one of ``SCALES``, with as many of its ticks as do not touch."""
    scale, axis = SCALES[name], {"x": axes.xaxis, "y": axes.yaxis}[which]
    axes.set(**{f"{which}scale": scale.kind})
    axes.autoscale_view()
    low, high = sorted(axis.get_view_interval())
    place = axis.get_transform().transform
    inches = getattr(axes.bbox, {"x": "width", "y": "height"}[which]) / axes.figure.dpi
    gap = {"x": 0.4, "y": 0.15}[which] / inches * abs(place(high) - place(low))
    kept: list[float] = []

    def add(ticks: Sequence[float]) -> None:
        for tick in ticks:
            if low <= tick <= high and all(abs(place(tick) - place(other)) > gap for other in kept):
                kept.append(tick)

    add(scale.ticks)
    if len(kept) < 3:  # a short axis is nearly even
        kept.clear()
        add(MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high))
    axis.set_major_locator(FixedLocator(sorted(kept)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: scale.text(value)))


def say_nothing(axes: Axes, text: str, axis: str) -> None:
    """Write ``text`` where an empty panel would leave it to be guessed; an ``axis`` that others share stays."""
    group = {"x": axes.get_shared_x_axes(), "y": axes.get_shared_y_axes()}[axis]
    if len(group.get_siblings(axes)) == 1:
        axes.set(**{f"{axis}lim": (-1, 1), f"{axis}ticks": []})
    axes.text(
        0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=CLAIMED, backgroundcolor="white"
    )
