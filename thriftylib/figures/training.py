"""What happened during one training, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from thriftylib.evidence.quantities import TEST_ACCURACY
from thriftylib.evidence.records import Record
from thriftylib.figures import style as look


def curves(record: Record) -> pd.DataFrame:
    """A record's series as a frame: ``epoch``, counted from 0, and one column per series."""
    return pd.DataFrame({"epoch": range(record.epochs), **record.series})


def longest(records: Iterable[Record], runs: Iterable[str]) -> Record | None:
    """The record with most epochs among these runs, the largest id of equals; None where none is recorded."""
    wanted = set(runs)
    return max((record for record in records if record.id in wanted), key=lambda r: (r.epochs, r.id), default=None)


def run_in_words(record: Record) -> str:
    """Network, size, data set, recipe and seed of a record: the line below a figure's title."""
    run = record.run
    size = f"{record.counted.parameters:,} parameters"
    return f"{run.network.name}, {size}, {run.data.name}, {run.recipe_name}, seed {run.seed}; run {record.id}."


def training_curves(frame: pd.DataFrame, *, title: str, note: str) -> list[Axes]:
    """Accuracy, loss and learning rate by epoch, from :func:`curves`: three panels over one axis.

    The best and the last epoch on the test set are marked: papers report one or the other. Accuracy and loss on the
    training images are means over the epoch's augmented batches, while the weights change.
    """
    with look.style():
        panels = look.new_axes(2.0, 1.4, 0.8)
        for panel, name in zip(panels, ("accuracy", "loss"), strict=False):
            panel.plot(frame["epoch"], frame[f"train_{name}"], color=look.COLOURS[1], linestyle="--", linewidth=1.2)
            panel.plot(frame["epoch"], frame[f"test_{name}"], color=look.COLOURS[0])
        key = {
            "test": Line2D([], [], color=look.COLOURS[0]),
            "training": Line2D([], [], color=look.COLOURS[1], linestyle="--", linewidth=1.2),
            **_ends(panels[0], frame),
        }
        panels[1].set_ylim(bottom=0)
        rates = frame["learning_rate"]
        panels[2].plot(frame["epoch"], rates, color=look.CLAIMED, drawstyle="steps-post")
        if rates.gt(0).all() and rates.max() > 20 * rates.min():
            panels[2].set_yscale("log")
        panels[2].set_xlabel("epoch")
        panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
        for panel, label in zip(panels, ("accuracy (%)", "loss", "learning\nrate"), strict=True):
            panel.set_ylabel(label)
        look.finish(panels, title, note, key, left=0.9)
        for panel in panels:
            panel.yaxis.set_label_coords(-0.14, 0.5)
    return panels


def _ends(panel: Axes, frame: pd.DataFrame) -> dict[str, Line2D]:
    """Marks the best and the last measured epoch; an entry of the key for each."""
    measured = frame.dropna(subset=[TEST_ACCURACY])
    if measured.empty:
        return {}
    best, last = measured.loc[measured[TEST_ACCURACY].idxmax()], measured.iloc[-1]
    return {
        f"{name} epoch: {row[TEST_ACCURACY]:.2f} %": panel.plot(
            row["epoch"], row[TEST_ACCURACY], linestyle="none", marker=marker, markersize=size, color="black",
            markeredgecolor="white", markeredgewidth=0.6, zorder=4,
        )[0]
        for name, row, marker, size in (("best", best, "*", 11), ("last", last, "D", 6))
    }  # fmt: skip
