"""What depth gains and what it costs: error against parameters, accuracy and memory against depth."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from thriftylib.figures import style as look
from thriftylib.figures.accuracy import Plot, progress_note

_ERRORS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 25, 30, 35, 40, 50, 60, 70, 80, 90, 100)
_ASIDE = 0.08  # of its parameters: how far a point stands from one of the same size
_FACTORS = {
    "kernel": "factor: the kernel",
    "body": "factor: all but the linear layer",
    "parameters": "factor: all parameters",
}


def error_against_parameters(frame: pd.DataFrame, x: str, *, title: str, note: str, rule: str) -> Axes:
    """Test error (100 less the accuracy, percent, log scale) against the parameters in column ``x`` (log scale).

    A series is a family of networks. ``label`` is what is written beside a network's point, ``rule`` the recipe whose
    points have their series' shape. ``note`` stands below the title. Networks of a series that have equally many
    parameters are points of their own: ours stand side by side.
    """
    ours = frame["source"] != "claimed"
    alike = frame[ours].groupby(["series", x])["label"].transform(lambda labels: pd.factorize(labels)[0])
    errors = frame.assign(accuracy=100 - frame["accuracy"])
    errors[x] *= (1 + _ASIDE * alike).reindex(frame.index, fill_value=1)
    plot = Plot(errors, x, rule=rule)
    with look.style():
        axes = look.new_axes(1.2 if plot.is_empty else 3.6)[0]
        plot.claimed(axes, plot.series, line=False)
        plot.ours(axes, plot.series, line=False)
        known = plot.rows("claimed", "ours")
        if plot.is_empty:
            plot.nothing(axes)
        else:
            low, high = known["accuracy"].min() / 1.06, min(known["accuracy"].max() * 1.06, 102)
            axes.set_yscale("log")
            axes.set_ylim(low, high)
            axes.yaxis.set_major_locator(FixedLocator([error for error in _ERRORS if low <= error <= high]))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            _write_labels(axes, plot.rows("claimed") if len(plot.rows("claimed")) else known, x)
        aside = "\nOurs of one size stand side by side." if (alike[frame["accuracy"].notna()] > 0).any() else ""
        look.finish([axes], title, f"{progress_note(errors, x)}\n{note}{aside}", plot.key_of_series())
        look.parameters_axis(axes, errors[x].min(), errors[x].max())
        axes.set_ylabel("" if plot.is_empty else "test error (%, log scale)")
    return axes


def _write_labels(axes: Axes, known: pd.DataFrame, x: str) -> None:
    """One label for points of a series that lie on each other; beside a point that has a near neighbour, else above."""
    means = known.groupby(["series", "label"], sort=False)[[x, "accuracy"]].mean().reset_index()
    places: list[tuple[str, float, float, list[str]]] = []
    for row in means.to_dict("records"):
        for series, at, error, labels in places:
            if series == row["series"] and abs(row[x] / at - 1) < 0.02 and abs(row["accuracy"] / error - 1) < 0.02:
                labels.append(row["label"])
                break
        else:
            places.append((row["series"], row[x], row["accuracy"], [row["label"]]))
    for _, at, error, labels in places:
        near = [other for _, other, its_error, _ in places if abs(its_error / error - 1) < 0.04]
        right, left = (any(low < other / at < high for other in near) for low, high in ((1, 1.2), (1 / 1.2, 1)))
        away = left - right  # from the only neighbour; between two or alone: above
        axes.annotate(
            ", ".join(labels), (at, error), (7 * away, 0 if away else 6), textcoords="offset points", fontsize=8,
            ha={-1: "right", 0: "center", 1: "left"}[away], va="center" if away else "bottom", color=look.CLAIMED,
        )  # fmt: skip


def accuracy_against_layers(frame: pd.DataFrame, x: str, *, title: str, note: str, xlabel: str) -> Axes:
    """Accuracy against the number of layers in column ``x``; ``series`` names the recipe too, one each."""
    recipes = sorted(set(frame["recipe"].dropna()))
    plot = Plot(frame.assign(recipe="paper"), x)  # no shape stands for a recipe: every series has its own
    places = sorted(frame[x].dropna().unique())
    with look.style():
        axes = look.new_axes(1.2 if plot.is_empty else 3.1)[0]
        plot.claimed(axes, plot.series, line=True)
        plot.ours(axes, plot.series, line=True)
        plot.limits(axes)
        axes.set_xticks(places)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("" if plot.is_empty else "test accuracy (%)")
        progress = progress_note(frame, x) + (f" Recipes: {', '.join(recipes)}." if plot.rows("ours").empty else "")
        look.finish([axes], title, f"{progress}\n{note}", plot.key_of_series())
    return axes


def memory_against_depth(frame: pd.DataFrame, *, title: str, note: str) -> list[Axes]:
    """Bytes of a network, and how many times smaller sharing makes it, against ``uses``, the layers with one shape.

    ``frame`` has a row per network and ``kernels`` (shared or unshared): ``uses``, ``weight_bytes`` (stored network),
    ``activation_bytes`` (of one image), and the parameters of its ``kernel`` (the convolutions that could be one), of
    its ``body`` (all but the linear layer) and all ``parameters``.
    """
    kept = {name: some.sort_values("uses").set_index("uses") for name, some in frame.groupby("kernels")}
    both = (("unshared", "s", look.COLOURS[1]), ("shared", "o", look.COLOURS[0]))
    depths = sorted(frame["uses"].unique())
    with look.style():
        stored, saved = look.new_axes(1.9, 2.3)
        key = {}
        for name, marker, colour in both:
            key[f"weights, {name}"] = stored.plot(
                kept[name]["weight_bytes"] / 1e6, marker=marker, color=colour, markeredgecolor="white"
            )[0]
        key["activations of one image, either way"] = stored.plot(
            kept["shared"]["activation_bytes"] / 1e6, marker="^", linestyle=":", color=look.COLOURS[2]
        )[0]
        stored.set_ylim(0)
        stored.set_ylabel("megabytes")
        saved.plot([0, depths[-1]], [0, depths[-1]], color=look.GHOST, linewidth=5, solid_capstyle="butt", zorder=1)
        key["exactly L"] = Line2D([], [], color=look.GHOST, linewidth=5)
        for (column, words), marker, colour in zip(_FACTORS.items(), "Dvh", look.COLOURS[3:], strict=True):
            factor = kept["unshared"][column] / kept["shared"][column]
            key[words] = saved.plot(factor, marker=marker, color=colour, markeredgecolor="white", zorder=3)[0]
        saved.set_ylim(0)
        saved.set_ylabel("times smaller")
        saved.set_xlim(0, depths[-1] * 1.04)
        saved.set_xticks(depths)
        saved.set_xlabel("L, layers that use the one kernel")
        look.finish([stored, saved], title, note, key)
    return [stored, saved]
