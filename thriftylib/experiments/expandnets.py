"""ExpandNets' CIFAR tables, the studies that others report of it, and audits of ours, as grids of runs.

Every row, the unexpanded one too, is trained by the method ``expandnets`` as the authors' code does: momentum is reset
at the start of each epoch, and batch norms have initial weights between 0 and 1, the default of PyTorch 0.4, which the
code's ``exp_cifar/env.yml`` names. So rows differ in nothing but the expansion: FC is of the hidden linear layer, CL
and CK of the convolutions. ``paper`` grids have the authors' recipe; the tables' numbers are best test epochs, means
over five runs. What a source calls second-hand we know from summaries of the paper alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from thriftylib.experiments import expandnets_recipes as recipes
from thriftylib.experiments.base import Configuration, register, road
from thriftylib.experiments.recipes import changed, run_of
from thriftylib.spec import Named, Run

if TYPE_CHECKING:
    import pandas

experiment = partial(register, paper="expandnets")
ROWS: dict[str, dict[str, Any]] = {  # of the paper's tables: what is expanded
    "SmallNet": {},
    "FC": {"linear": True},
    "CL": {"convs": "cl"},
    "CL+FC": {"convs": "cl", "linear": True},
    "CK": {"convs": "ck"},
    "CK+FC": {"convs": "ck", "linear": True},
}
CONVS = ("SmallNet", "CL", "CK", "CK+FC")  # rows of the studies beside the tables
AUDITED = ("SmallNet", "CL+FC")
AUTHORS = {"reset_momentum": True, "norm_start": "uniform"}
REUSED = {"ThriftyNet, 3x3": "convs.0", "ThriftyNet, mb1": "convs.0", "DACNN14": "convs.1"}
"""Networks with one kernel that is used many times, and the module that holds it."""


@road("over-parameterise", paper="expandnets")
def ordinary(run: Run) -> Run | None:
    """The unexpanded network, trained the same way; None of a start from another run's weights."""
    if run.method is None or run.parent is not None:
        return None
    if run.network.name != "smallnet":  # another paper's network, trained as that paper does
        return run.model_copy(update={"method": None})
    return changed(run, "method", convs="plain", linear=False, rate=4.0, image=False, only=[])


def configuration(
    preset: str,
    kernel: int,
    row: str,
    data: str = "cifar10",
    *,
    headline: bool = False,
    noise: float = 0.0,
    changes: dict[str, Any] | None = None,
    **labels: str | int | float,
) -> Configuration:
    """SmallNet with ``kernel`` from seed 0, trained as a row; ``changes`` are to the method, the rest are labels."""
    tiny = {"widths": [4, 4, 8], "hidden": 16, "padding": kernel // 2} if preset == "smoke" else {}
    method = Named(name="expandnets", options={**AUTHORS, **ROWS[row], **(changes or {})})
    presets = {"smoke": recipes.SMOKE, "fast": recipes.FAST, "paper": recipes.AUTHORS}
    run = run_of(preset, "smallnet", {"kernel": kernel, **tiny}, data, **presets, method=method, label_noise=noise)
    return Configuration(run, {"model": row, "kernel": kernel, "dataset": run.data.name, **labels}, headline)


def _table(preset: str, kernel: int, rows: tuple[str, ...], headlines: tuple[str, ...]) -> list[Configuration]:
    """Every row on both data sets; the headlines are CIFAR-10's."""
    return [
        configuration(preset, kernel, row, data, headline=preset != "smoke" and data == "cifar10" and row in headlines)
        for data in (("digits",) if preset == "smoke" else ("cifar10", "cifar100"))
        for row in rows
    ]


@experiment(
    title="SmallNet with 7x7 kernels, CIFAR-10 and CIFAR-100",
    source="README of the authors' repository: results of SmallNet 7x7 (tables 1, S1 and S3 without distillation)",
)
def table_a(preset: str) -> list[Configuration]:
    """How much does SmallNet with 7x7 kernels gain from over-parameterised layers of rate 4?

    paper: all six rows on both data sets. The table claims CK's gain; CL alone gains nothing on CIFAR-10.
    """
    return _table(preset, 7, tuple(ROWS), ("SmallNet", "CL", "CK"))


@experiment(
    title="SmallNet with 3x3 kernels, CIFAR-10 and CIFAR-100",
    source="README of the authors' repository: results of SmallNet 3x3",
)
def table_b(preset: str) -> list[Configuration]:
    """How much does SmallNet with 3x3 kernels gain from over-parameterised layers of rate 4?

    paper: unexpanded, FC, CL and CL+FC on both data sets; a 3x3 kernel has no CK. The largest gain is CL+FC's.
    """
    rows = ("SmallNet", "FC", "CL", "CL+FC")
    return _table(preset, 3, rows, rows)


@experiment(
    title="Noisy labels, CIFAR-10",
    source="table 7, second-hand: a summary of the paper gives four of its test errors",
)
def noise(preset: str) -> list[Configuration]:
    """Does the expansion help more where labels are wrong?

    paper: 20 % of the training labels drawn anew, uniformly from all classes; kernels of 5, 7 and 9, those of 5 and 9
    with padding 2 and 4 (all inferred).
    """
    kernels = (7,) if preset == "smoke" else (5, 7, 9)
    return [configuration(preset, kernel, row, noise=0.2) for kernel in kernels for row in CONVS]


@experiment(
    title="SmallNet with 5x5 and 9x9 kernels, CIFAR-10",
    source="the paper's tables name kernels of 5 and 9; no readable number without noise",
)
def kernels(preset: str) -> list[Configuration]:
    """Does CK gain at other kernels what it gains at 7?

    paper: kernels of 5 and 9 (inferred: padding 2 and 4). CK is two convolutions of 3x3 for 5, four for 9.
    """
    return [configuration(preset, kernel, row) for kernel in (5, 9) for row in CONVS]


@experiment(
    title="SmallNet started from contracted weights, CIFAR-10",
    source="table 8, second-hand: such a start does not reliably match training the ExpandNet; no figures",
)
def init(preset: str) -> list[Configuration]:
    """Does an ExpandNet gain by a better initialisation, or by better training?

    paper: SmallNets trained again from the contracted weights of trained ExpandNets, by the same recipe and seed
    (inferred). A control of ours starts from a trained SmallNet, since such a start is a training twice as long.
    """
    rows = [(3, row) for row in AUDITED] + [(7, row) for row in ("SmallNet", "CL+FC", "CK", "CK+FC")]
    grid = [configuration(preset, kernel, row, start="scratch") for kernel, row in rows]
    for (kernel, row), parent in zip(rows, grid.copy(), strict=True):
        child = configuration(preset, kernel, "SmallNet", changes={"norm_start": "network"}, start=row)
        run = child.run.model_copy(update={"parent": parent.run.configuration})
        grid.append(replace(child, run=run))
    return grid


@experiment(
    title="Gradient confusion, CIFAR-10",
    source="figure 3, second-hand: cosines between the gradients of mini-batches, 7x7 kernels; no figures",
)
def confusion(preset: str) -> list[Configuration]:
    """Do the gradients of different mini-batches agree more in an ExpandNet?

    paper: after each epoch the cosine between the gradients of two mini-batches, for 100 pairs (inferred: of what is
    trained). Reported: the minimum is higher for CL and CK, not for FC. Measuring changes no weight, so the runs answer
    table A's claims as well.
    """
    changes = {"confusion": 4 if preset == "smoke" else 100}
    return [configuration(preset, 7, row, changes=changes) for row in ("SmallNet", "FC", "CL", "CK")]


@experiment(
    title="Expansion rate, CIFAR-10",
    source="rate study (S5 and table 9), second-hand: 0.25 hurts; 2, 4 and 8 help progressively; no figures",
)
def rate(preset: str) -> list[Configuration]:
    """How wide must the over-parameterised block be?

    paper: CL and CK at 7x7 with rates of 0.25, 2, 4 and 8 beside SmallNet.
    """
    rates = product(("CL", "CK"), (0.25, 2.0, 4.0, 8.0))
    grid = [configuration(preset, 7, row, changes={"rate": rate}, rate=rate) for row, rate in rates]
    return [configuration(preset, 7, "SmallNet"), *grid]


def _audit(preset: str, option: str, label: str, captions: dict[Any, str]) -> list[Configuration]:
    """Two rows of table B with each value of an option of the method, and the value's caption as a label."""
    grid = product(captions.items(), AUDITED)
    return [configuration(preset, 3, row, changes={option: value}, **{label: said}) for (value, said), row in grid]


@experiment(
    title="Audit: momentum reset at each epoch's start, CIFAR-10",
    source="authors' code, which makes a new optimiser for each epoch; the audit is ours",
)
def momentum(preset: str) -> list[Configuration]:
    """What is the effect of resetting momentum at the start of each epoch, as the authors' code does?

    paper: SmallNet and CL+FC at 3x3, momentum reset as in table B, and kept. Ours: no number is published.
    """
    return _audit(preset, "reset_momentum", "momentum", {True: "lost", False: "kept"})


@experiment(
    title="Audit: how batch norms are initialised, CIFAR-10",
    source="authors' code, whose environment file names PyTorch 0.4; the audit is ours",
)
def start(preset: str) -> list[Configuration]:
    """What is the effect of initial batch-norm weights drawn between 0 and 1, and not ones?

    paper: SmallNet and CL+FC at 3x3, initialised as in table B, and with ones, as in today's PyTorch. Ours: no number
    is published.
    """
    return _audit(preset, "norm_start", "start", {"uniform": "between 0 and 1", "network": "ones"})


@experiment(
    title="Ours, beyond the paper: over-parameterising a kernel that is used again and again, CIFAR-10",
    source="ours: no paper asks this",
)
def shared(preset: str) -> list[Configuration]:
    """Does linear over-parameterisation help where one kernel is used at every depth?

    Ours, beyond the paper. The shared kernel of ThriftyNet (3x3, or mb1's pair) and of DACNN14 is trained as it is and
    as CL of rate 4; all else, the recipe too, is as in the kernel's own paper. Weight decay acts on the block's layers
    and not on their product: another strength for CL.
    """
    from thriftylib.experiments import dacnn, thriftynet  # here: experiments are listed in the order of their papers

    dense = {"filters": 8 if preset == "smoke" else 64, "conv": "classic"}
    plain = {
        "ThriftyNet, 3x3": thriftynet.configuration(preset, dense).run,
        "ThriftyNet, mb1": thriftynet.configuration(preset).run,
        "DACNN14": dacnn.configuration(preset, dacnn.POINTS["DACNN14"][2], "cifar10").run,
    }
    grid = []
    for name, run in plain.items():
        method = Named(name="expandnets", options={**ROWS["CL"], "image": True, "only": [REUSED[name]]})
        expanded = Run.model_validate({**run.model_dump(), "method": method})
        grid += [Configuration(run, {"network": name, "kernels": "plain"})]
        grid += [Configuration(expanded, {"network": name, "kernels": "CL"})]
    return grid


def sizes() -> pandas.DataFrame:
    """How many numbers each row trains, and how many are left once it is contracted: built and counted, 10 classes.

    Returns:
        Columns source (counted), kernel, model, trained and contracted (parameters), times (their ratio).
    """
    import pandas

    from thriftylib.papers.expandnets_method import contract  # imports torch
    from thriftylib.training.trainer import build

    rows = []
    for kernel, row in [(k, row) for k, row in product((3, 5, 7, 9), ROWS) if k > 3 or row not in ("CK", "CK+FC")]:
        _, network = build(configuration("paper", kernel, row).run, None)
        trained = sum(parameter.numel() for parameter in network.parameters())
        contracted = sum(parameter.numel() for parameter in contract(network).parameters())
        rows.append(("counted", kernel, row, trained, contracted, trained / contracted))
    return pandas.DataFrame(rows, columns=["source", "kernel", "model", "trained", "contracted", "times"])
