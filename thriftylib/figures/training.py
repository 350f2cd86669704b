"""Trainings, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from thriftylib.evidence.quantities import TEST_ACCURACY, TRAIN_ACCURACY
from thriftylib.evidence.records import Record
from thriftylib.figures.frames import from_experiments
from thriftylib.figures.plots import lines
from thriftylib.figures.style import house_style


def curves(record: Record) -> pd.DataFrame:
    """A record's series as a frame: ``epoch``, counted from 0, and one column per series."""
    return pd.DataFrame({"epoch": range(record.epochs), **record.series})


def longest(records: Iterable[Record], runs: Iterable[str]) -> Record | None:
    """The record with most epochs among these runs, the largest id of equals; None where none is recorded."""
    asked = set(runs)
    return max((record for record in records if record.id in asked), key=lambda r: (r.epochs, r.id), default=None)


def describe(record: Record) -> str:
    """Network, size, data set, recipe and seed of a record: a figure's caption."""
    run = record.run
    size = f"{record.counted.parameters:,} parameters"
    return f"{run.network.name}, {size}, {run.data.label}, {run.recipe_name}, seed {run.seed}; run {record.id}."


def longest_curves(records: Iterable[Record], table: pd.DataFrame, *, row: str, series: Sequence[str]) -> pd.DataFrame:
    """These series of the longest recorded run of each ``row`` (a label of ``table``), epoch by epoch.

    Returns:
        Columns source (reproduced, or pending where none is recorded), row, recipe, run, epoch (from 0) and ``series``.
    """
    known, parts = list(records), []
    for name, some in table.groupby(row, sort=False):
        record = longest(known, some["run"])
        same = {"row": name, "source": "reproduced" if record else "pending"}
        same |= {"recipe": record.run.recipe_name, "run": record.id} if record else {}
        parts.append((curves(record) if record else pd.DataFrame(index=[0])).assign(**same))
    columns = ["source", "row", "recipe", "run", "epoch", *series]
    return from_experiments(pd.concat(parts, ignore_index=True).reindex(columns=columns), table)


def training_curves(frame: pd.DataFrame, *, title: str, caption: str) -> list[Axes]:
    """Accuracy, loss and learning rate by epoch, from :func:`curves`: three panels over one axis.

    The best and the last epoch on the test set are marked: papers report one or the other. Accuracy and loss on the
    training images are means over the epoch's augmented batches, while the weights change.
    """
    quantities = {"accuracy": "accuracy (%)", "loss": "loss", "rate": "learning rate"}
    columns = [TEST_ACCURACY, TRAIN_ACCURACY, "test_loss", "train_loss", "learning_rate"]
    long = frame.melt("epoch", columns)
    parts = long["variable"].str.rpartition("_")
    long = long.assign(
        part=parts[0].replace({"train": "training", "learning": "learning rate"}), quantity=parts[2].map(quantities)
    )
    measured = frame.dropna(subset=[TEST_ACCURACY])
    ends = {"★ best": measured.nlargest(1, TEST_ACCURACY), "◆ last": measured.tail(1)}
    told = [f"{name} epoch: {row[TEST_ACCURACY].item():.2f} %" for name, row in ends.items() if len(row)]
    panels = lines(
        long, x="epoch", y="value", hue="part", facet="quantity", share=False, height=3.0, title=title, ylabel="",
        caption="\n".join(filter(None, (caption, ", ".join(told)))),
    )  # fmt: skip
    with house_style():
        for (name, row), size in zip(ends.items(), (11, 6), strict=True):
            look = {"marker": {"★": "*", "◆": "D"}[name[0]], "markersize": size, "markeredgecolor": "white"}
            panels[0].plot(row["epoch"], row[TEST_ACCURACY], color="black", linestyle="none", zorder=4, **look)
        panels[1].set_ylim(bottom=0)
        rates = frame["learning_rate"]
        if rates.gt(0).all() and rates.max() > 20 * rates.min():
            panels[2].set_yscale("log")
            panels[2].yaxis.set_major_formatter("{x:g}")
            panels[2].yaxis.set_minor_formatter(NullFormatter())
        panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
    return panels
