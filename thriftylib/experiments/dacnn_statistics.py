"""DACNN's small networks evaluated with other batch-norm statistics: measured only, nothing is trained anew."""

from __future__ import annotations

from dataclasses import replace

from thriftylib.experiments import dacnn_recipes as recipes
from thriftylib.experiments.base import Cell, register
from thriftylib.experiments.dacnn import PAPER, SMALL_LAYERS, small
from thriftylib.spec import Named, Run

SHARED = ("shared with norm", "shared")


@register(
    name="dacnn-small-statistics",
    paper=PAPER,
    title="Small networks with one kernel, evaluated with other batch-norm statistics, CIFAR-100",
    source="ours: why the released small networks, which share the batch norm too, evaluate near chance",
)
def statistics(preset: str) -> list[Cell]:
    """Do the networks that share their batch norm fail by their weights, or by the statistics that they keep?

    Ours, no claim. The trained networks of the depth sweep that use one kernel, with and without a shared batch norm,
    are evaluated by their running statistics, by those of each test batch, and by statistics of each use, re-estimated
    over the training images. Nothing is trained: each run starts from a network of the depth sweep. paper: those of
    dacnn-reading (READING). fast: the ten at 32 channels that are recorded. smoke: the networks on digits, trained
    first.
    """
    if preset == "smoke":
        parents = [small(layers, kernels, 4, "digits", recipes.SMOKE) for kernels in SHARED for layers in (3, 7)]
        trained = [replace(parent, labels={**parent.labels, "task": "trained"}) for parent in parents]
        return trained + [_measured(parent) for parent in parents]
    width, recipe = (128, recipes.READING) if preset == "paper" else (32, recipes.CPU)
    return [
        _measured(small(layers, kernels, width, "cifar100", recipe)) for kernels in SHARED for layers in SMALL_LAYERS
    ]


def _measured(parent: Cell) -> Cell:
    """The measure-only run that starts from a trained one."""
    run = Run(
        network=parent.run.network,
        data=parent.run.data,
        recipe=None,
        method=Named(name="norm-statistics"),
        parent=parent.run.configuration,
    )
    return Cell(run, {**parent.labels, "task": "measured"})
