"""Every plot of the book: tidy data frame in, matplotlib axes out. Imports evidence alone, no torch.

``lines``, ``points``, ``bars``, ``heatmap`` and ``pictures`` draw any frame in the book's style, and ``show`` puts the
picture with its data into a notebook. A paper's own figure needs no more than these and a few lines of its notebook::

    axes = figures.lines(frame, x="epoch", y="loss", hue="network", facet="dataset", title="...", caption="...")
    figures.show(axes, frame, "paper-loss", alt="What the picture shows.")

The frames of claimed and reproduced accuracies come from ``accuracies`` and ``gains``; their column ``source`` is

- ``claimed`` (a number of the paper), ``reproduced`` (one record) or ``pending`` (a run that is not recorded yet).

Claimed values are hollow and grey, reproduced ones filled and coloured, so that neither is ever taken for the other.
"""
# ruff: noqa: E402

import logging

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a folder or font that it lacks is no output of a notebook

from thriftylib.figures.display import html_table, replications, show, status, table, verdicts
from thriftylib.figures.frames import (
    accuracies,
    claimed_at,
    differences,
    gains,
    measured_lists,
    stack,
)
from thriftylib.figures.plots import bars, heatmap, lines, pictures
from thriftylib.figures.pointplot import points
from thriftylib.figures.roads import road_points, road_table
from thriftylib.figures.style import finish, house_style
from thriftylib.figures.training import curves, describe, longest, longest_curves, training_curves

__all__ = [
    "accuracies", "bars", "claimed_at", "curves", "describe", "differences", "finish", "gains", "heatmap",
    "house_style", "html_table", "lines", "longest", "longest_curves", "measured_lists", "pictures", "points",
    "replications", "road_points", "road_table", "show", "stack", "status", "table", "training_curves", "verdicts",
]  # fmt: skip
