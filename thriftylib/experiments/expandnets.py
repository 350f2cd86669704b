"""The CIFAR tables of ExpandNets as grids of runs.

Every row, the unexpanded one too, is trained by the method ``expandnets`` with the authors' code's quirk, momentum lost
at the start of each epoch, so that rows differ in nothing but the expansion. The tables' numbers are best test epochs,
means over five runs. On the 8x8 digits of the smoke grids the networks are smaller.
"""

from __future__ import annotations

from typing import Any

from thriftylib.experiments import expandnets_recipes as recipes
from thriftylib.experiments.base import Cell, register
from thriftylib.spec import Data, Named, Recipe, Run

PAPER = "expandnets"
ROWS: dict[str, dict[str, Any]] = {  # of the paper's tables: what is expanded
    "SmallNet": {},
    "FC": {"linear": True},
    "CL": {"convs": "cl"},
    "CL+FC": {"convs": "cl", "linear": True},
    "CK": {"convs": "ck"},
    "CK+FC": {"convs": "ck", "linear": True},
}
METHOD: dict[str, Any] = {"convs": "plain", "linear": False, "rate": 4.0, "image": False, "reset_momentum": True}
CIFAR = ("cifar10", "cifar100")
TINY: dict[str, Any] = {"widths": [4, 4, 8], "hidden": 16}  # for the digits


def cell(
    kernel: int,
    row: str,
    data: Data,
    recipe: Recipe,
    *,
    headline: bool = False,
    changes: dict[str, Any] | None = None,
    **labels: str | int | float,
) -> Cell:
    """SmallNet with ``kernel``, trained as one of :data:`ROWS`; ``changes`` are to the method, the rest are labels."""
    tiny = {**TINY, "padding": kernel // 2} if data.name == "digits" else {}
    run = Run(
        network=Named(name="smallnet", options={"kernel": kernel, **tiny}),
        data=data,
        recipe=recipe,
        method=Named(name="expandnets", options={**METHOD, **ROWS[row], **(changes or {})}),
    )
    return Cell(run, {"model": row, "kernel": kernel, "dataset": data.name, **labels}, headline)


def _table(preset: str, kernel: int, rows: tuple[str, ...], headlines: tuple[str, ...]) -> list[Cell]:
    """Every row on both data sets; the headlines are CIFAR-10's."""
    if preset == "smoke":
        return [cell(kernel, row, Data(name="digits"), recipes.SMOKE) for row in rows]
    recipe = recipes.AUTHORS if preset == "paper" else recipes.FAST
    return [
        cell(kernel, row, Data(name=name), recipe, headline=name == "cifar10" and row in headlines)
        for name in CIFAR
        for row in rows
    ]


@register(
    name="expandnets-table-b",
    paper=PAPER,
    title="SmallNet with 3x3 kernels, CIFAR-10 and CIFAR-100",
    source="README of the authors' repository: results of SmallNet 3x3",
)
def table_b(preset: str) -> list[Cell]:
    """How much does SmallNet with 3x3 kernels gain from training its layers as chains of rate 4?

    paper: unexpanded, FC (Arora et al. 2018), CL and CL+FC on both data sets with the authors' recipe; a 3x3 kernel has
    no CK. The table's largest gain is CL+FC's.
    """
    return _table(preset, 3, ("SmallNet", "FC", "CL", "CL+FC"), ("SmallNet", "FC", "CL", "CL+FC"))
