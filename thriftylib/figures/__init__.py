"""Every plot of the book: tidy data frame in, matplotlib axes out. Imports evidence alone, no torch.

A frame of points has one row per point and these columns:

- ``source``: ``claimed`` (a number of the paper), ``ours`` (one record) or ``wanted`` (a run that is not recorded yet);
- ``series`` and the column of the x axis, which say where the point belongs;
- ``accuracy``: test accuracy in percent; ``error``: how far a claimed value may be off (reading error, same unit);
- ``recipe``: ``paper``, or the name of another recipe, which never counts for the paper's verdict; ``seed``.

Claimed values are hollow and grey, ours filled and coloured, so that neither is ever taken for the other.
"""

from thriftylib.figures.accuracy import (
    accuracy_against_depth,
    accuracy_against_downsamplings,
    accuracy_against_history,
    accuracy_against_macs,
    accuracy_against_parameters,
)
from thriftylib.figures.audit import protocol_audit
from thriftylib.figures.depth import accuracy_against_layers, error_against_parameters, memory_against_depth
from thriftylib.figures.display import replications, show, status, verdicts
from thriftylib.figures.frames import claimed_at, differences, front_points, points, stack
from thriftylib.figures.pareto import pareto, pareto_front
from thriftylib.figures.rows import (
    accuracy_by_row,
    cosine_fans,
    gain_by_row,
    gradient_cosines,
    table_gains,
    table_rows,
)
from thriftylib.figures.style import style
from thriftylib.figures.training import curves, longest, run_in_words, training_curves

__all__ = [
    "accuracy_against_depth",
    "accuracy_against_downsamplings",
    "accuracy_against_history",
    "accuracy_against_layers",
    "accuracy_against_macs",
    "accuracy_against_parameters",
    "accuracy_by_row",
    "claimed_at",
    "cosine_fans",
    "curves",
    "differences",
    "error_against_parameters",
    "front_points",
    "gain_by_row",
    "gradient_cosines",
    "longest",
    "memory_against_depth",
    "pareto",
    "pareto_front",
    "points",
    "protocol_audit",
    "replications",
    "run_in_words",
    "show",
    "stack",
    "status",
    "style",
    "table_gains",
    "table_rows",
    "training_curves",
    "verdicts",
]
