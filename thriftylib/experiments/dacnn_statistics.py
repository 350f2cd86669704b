"""DACNN's small networks evaluated with other batch-norm statistics: measured only, nothing is trained for it."""

from __future__ import annotations

from dataclasses import replace

from thriftylib.experiments.base import Configuration, register
from thriftylib.experiments.dacnn import PAPER, depth_sweep
from thriftylib.spec import Named, Run

SHARED = ("shared with norm", "shared")  # kernels of the depth sweep


@register(
    name="dacnn-small-statistics",
    paper=PAPER,
    title="Small networks with one kernel, evaluated with other batch-norm statistics, CIFAR-100",
    source="ours: why the released small networks, which share the batch norm too, evaluate near chance",
)
def statistics(preset: str) -> list[Configuration]:
    """Do the networks that share their batch norm fail by their weights, or by the statistics that they keep?

    Ours, no claim. The depth sweep's networks that use one kernel, with and without a shared batch norm, are evaluated
    by their running statistics, by those of each test batch, and by statistics of each use, re-estimated over the
    training images. Nothing is trained for it: each run starts from a trained network of the depth sweep, which stands
    beside it and has the recipes that it has there (paper: dacnn-reading, a READING).
    """
    parents = [configuration for configuration in depth_sweep.grid(preset) if configuration.labels["kernels"] in SHARED]
    trained = [replace(parent, labels={**parent.labels, "task": "trained"}) for parent in parents]
    return trained + [_measured(parent) for parent in parents]


def _measured(parent: Configuration) -> Configuration:
    """The measure-only run that starts from a trained one."""
    run = Run(
        network=parent.run.network,
        data=parent.run.data,
        recipe=None,
        method=Named(name="norm-statistics"),
        parent=parent.run.configuration,
    )
    return Configuration(run, {**parent.labels, "task": "measured"})
