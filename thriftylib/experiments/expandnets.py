"""ExpandNets' CIFAR tables, and what is told of noise, initialisation and gradients, as grids of runs.

Every row, the unexpanded one too, is trained by the method ``expandnets`` with what the authors' code does beside the
recipe: momentum is lost at the start of each epoch, and batch norms start with weights drawn between 0 and 1, the
default of PyTorch 0.4, which the code's environment file (``exp_cifar/env.yml``) names. So rows differ in nothing but
the expansion. The tables' numbers are best test epochs,
means over five runs. On the 8x8 digits of the smoke grids the networks are smaller.

Rows are named as in the tables: FC expands the hidden linear layer, CL and CK expand the convolutions.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thriftylib.experiments import expandnets_recipes as recipes
from thriftylib.experiments.base import Configuration, register
from thriftylib.options import MethodOptions, find
from thriftylib.spec import Data, Named, Recipe, Run

if TYPE_CHECKING:
    import pandas

PAPER = "expandnets"
ROWS: dict[str, dict[str, Any]] = {  # of the paper's tables: what is expanded
    "SmallNet": {},
    "FC": {"linear": True},
    "CL": {"convs": "cl"},
    "CL+FC": {"convs": "cl", "linear": True},
    "CK": {"convs": "ck"},
    "CK+FC": {"convs": "ck", "linear": True},
}
METHOD: dict[str, Any] = {
    "convs": "plain",
    "linear": False,
    "rate": 4.0,
    "image": False,
    "reset_momentum": True,
    "norm_start": "uniform",
}
CIFAR = ("cifar10", "cifar100")
TINY: dict[str, Any] = {"widths": [4, 4, 8], "hidden": 16}  # for the digits
STARTS = {3: ("SmallNet", "CL+FC"), 7: ("SmallNet", "CL+FC", "CK", "CK+FC")}  # whose weights a SmallNet starts from


def choose(preset: str) -> tuple[Data, Recipe]:
    """The data, CIFAR-10 unless for the digits of ``smoke``, and the recipe of a preset."""
    if preset == "smoke":
        return Data(name="digits"), recipes.SMOKE
    return Data(name="cifar10"), recipes.AUTHORS if preset == "paper" else recipes.FAST


def configuration(
    kernel: int,
    row: str,
    data: Data,
    recipe: Recipe,
    *,
    headline: bool = False,
    changes: dict[str, Any] | None = None,
    **labels: str | int | float,
) -> Configuration:
    """SmallNet with ``kernel``, trained as a row; ``changes`` are to the method, the rest are labels."""
    tiny = {**TINY, "padding": kernel // 2} if data.name == "digits" else {}
    run = Run(
        network=Named(name="smallnet", options={"kernel": kernel, **tiny}),
        data=data,
        recipe=recipe,
        method=Named(name="expandnets", options={**METHOD, **ROWS[row], **(changes or {})}),
    )
    return Configuration(run, {"model": row, "kernel": kernel, "dataset": data.name, **labels}, headline)


def _table(preset: str, kernel: int, rows: tuple[str, ...], headlines: tuple[str, ...]) -> list[Configuration]:
    """Every row on both data sets; the headlines are CIFAR-10's."""
    data, recipe = choose(preset)
    sets = [data] if preset == "smoke" else [Data(name=name) for name in CIFAR]
    return [
        configuration(kernel, row, each, recipe, headline=each.name == "cifar10" and row in headlines)
        for each in sets
        for row in rows
    ]


@register(
    name="expandnets-table-a",
    paper=PAPER,
    title="SmallNet with 7x7 kernels, CIFAR-10 and CIFAR-100",
    source="README of the authors' repository: results of SmallNet 7x7 (tables 1, S1 and S3 without distillation)",
)
def table_a(preset: str) -> list[Configuration]:
    """How much does SmallNet with 7x7 kernels gain from training its layers as chains of rate 4?

    paper: all six rows on both data sets with the authors' recipe. The table's message is CK's gain; CL alone gains
    nothing on CIFAR-10. Of FC (Arora et al. 2018) its spreads allow no such sentence.
    """
    return _table(preset, 7, tuple(ROWS), ("SmallNet", "CL", "CK"))


@register(
    name="expandnets-table-b",
    paper=PAPER,
    title="SmallNet with 3x3 kernels, CIFAR-10 and CIFAR-100",
    source="README of the authors' repository: results of SmallNet 3x3",
)
def table_b(preset: str) -> list[Configuration]:
    """How much does SmallNet with 3x3 kernels gain from training its layers as chains of rate 4?

    paper: unexpanded, FC (Arora et al. 2018), CL and CL+FC on both data sets with the authors' recipe; a 3x3 kernel has
    no CK. The table's largest gain is CL+FC's.
    """
    rows = ("SmallNet", "FC", "CL", "CL+FC")
    return _table(preset, 3, rows, rows)


@register(
    name="expandnets-noise",
    paper=PAPER,
    title="Noisy labels, CIFAR-10",
    source="table 7, second-hand: a summary of the paper gives four of its test errors",
)
def noise(preset: str) -> list[Configuration]:
    """Does the expansion help more where labels are wrong?

    paper: 20 % of the training labels drawn anew, uniformly from all classes (READING); kernels of 5, 7 and 9, the
    networks of 5 and 9 with padding 2 and 4 (READING); SmallNet, CL, CK and CK+FC with the authors' recipe. What is
    known of the table is SECOND-HAND.
    """
    data, recipe = choose(preset)
    noisy = data.model_copy(update={"label_noise": 0.2})
    sides = (7,) if preset == "smoke" else (5, 7, 9)
    return [configuration(kernel, row, noisy, recipe) for kernel in sides for row in ("SmallNet", "CL", "CK", "CK+FC")]


@register(
    name="expandnets-kernels",
    paper=PAPER,
    title="SmallNet with 5x5 and 9x9 kernels, CIFAR-10",
    source="the paper's tables name kernels of 5 and 9; no readable number without noise",
)
def kernels(preset: str) -> list[Configuration]:
    """Does CK gain at other kernels what it gains at 7?

    paper: SmallNet, CL, CK and CK+FC with kernels of 5 and 9 (READING: padding 2 and 4), the authors' recipe. CK is
    two convolutions of 3x3 for kernel 5, four for kernel 9.
    """
    data, recipe = choose(preset)
    return [configuration(kernel, row, data, recipe) for kernel in (5, 9) for row in ("SmallNet", "CL", "CK", "CK+FC")]


@register(
    name="expandnets-init",
    paper=PAPER,
    title="SmallNet started from contracted weights, CIFAR-10",
    source="table 8, second-hand: such a start does not reliably match training the ExpandNet; no figures",
)
def init(preset: str) -> list[Configuration]:
    """Is what an ExpandNet gains a better start, or a better way?

    paper: SmallNets trained again from the contracted weights of trained ExpandNets, which are trained first; recipe
    and seed are the same in both trainings (READING). A control of ours starts from a trained SmallNet, since whoever
    starts from trained weights is trained twice as long. What is known of the table is SECOND-HAND.
    """
    data, recipe = choose(preset)
    parents = [
        configuration(kernel, row, data, recipe, start="scratch") for kernel, rows in STARTS.items() for row in rows
    ]
    children = []
    for parent in parents:
        start, kernel = parent.labels["model"], int(parent.labels["kernel"])
        plain = configuration(
            kernel, "SmallNet", data, recipe, changes={"norm_start": "network"}, start=start
        )  # the parent's
        children.append(replace(plain, run=plain.run.model_copy(update={"parent": parent.run.configuration})))
    return parents + children


@register(
    name="expandnets-confusion",
    paper=PAPER,
    title="Gradient confusion, CIFAR-10",
    source="figure 3, second-hand: cosines between the gradients of mini-batches, 7x7 kernels; no figures",
)
def confusion(preset: str) -> list[Configuration]:
    """Do the gradients of different mini-batches agree more in an ExpandNet?

    paper: after each epoch the cosine between the gradients of two mini-batches each, 100 pairs of them, of the
    parameters being trained (READING); SmallNet, FC, CL and CK with 7x7 kernels, the authors' recipe. Told of the
    figure, SECOND-HAND: the minimum is higher for CL and CK, not for FC. To look takes time but changes no weight: the
    accuracies are those of table A's runs of the same seeds, and answer its claims as well as they do.
    """
    data, recipe = choose(preset)
    pairs = 4 if preset == "smoke" else 100
    return [configuration(7, row, data, recipe, changes={"confusion": pairs}) for row in ("SmallNet", "FC", "CL", "CK")]


def sizes() -> pandas.DataFrame:
    """How many numbers each row trains, and how many are left once it is contracted: built and counted, 10 classes.

    Returns:
        Columns source (counted), kernel, model, trained and contracted (parameters), times (their ratio).
    """
    import pandas

    from thriftylib.papers.expandnets_method import contract  # imports torch

    rows = []
    for kernel in (3, 5, 7, 9):
        for row in ROWS:
            if kernel == 3 and row.startswith("CK"):
                continue
            run = configuration(kernel, row, Data(name="cifar10"), recipes.AUTHORS).run
            method = find(MethodOptions, run.method.name).model_validate(run.method.options).start()
            network = method.prepare(run.build(), None)
            trained = sum(parameter.numel() for parameter in network.parameters())
            contracted = sum(parameter.numel() for parameter in contract(network).parameters())
            rows.append(("counted", kernel, row, trained, contracted, trained / contracted))
    return pandas.DataFrame(rows, columns=["source", "kernel", "model", "trained", "contracted", "times"])
