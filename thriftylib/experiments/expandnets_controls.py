"""ExpandNets beyond the published tables: rates, the momentum audit, and, ours alone, a kernel that is used again."""

from __future__ import annotations

from typing import Any

from thriftylib.experiments import dacnn_recipes, thriftynet_recipes
from thriftylib.experiments.base import Configuration, register
from thriftylib.experiments.dacnn import POINTS
from thriftylib.experiments.expandnets import METHOD, PAPER, ROWS, choose, configuration
from thriftylib.spec import Data, Named, Recipe, Run

RATES = (0.25, 2.0, 4.0, 8.0)

# One kernel used many times: network, its options, the module that holds the kernel, the smoke test's smaller options.
REUSED: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "ThriftyNet, 3x3": (
        "thriftynet",
        {"filters": 64, "iterations": 20, "history": 5, "conv": "classic"},
        "convs.0",
        {"filters": 8, "iterations": 4, "pool": 2, "history": 3},
    ),
    "ThriftyNet, mb1": (
        "thriftynet",
        {"filters": 172, "iterations": 20, "history": 5, "conv": "mb1"},
        "convs.0",
        {"filters": 8, "iterations": 4, "pool": 2, "history": 3},
    ),
    "DACNN14": ("dacnn", {**POINTS["DACNN14"][2], "norm_init": "uniform"}, "convs.1", {"width": 4, "pools": 3}),
}
RECIPES: dict[str, dict[str, Recipe]] = {
    "thriftynet": {
        "smoke": thriftynet_recipes.SMOKE,
        "fast": thriftynet_recipes.FAST,
        "paper": thriftynet_recipes.B,
    },
    "dacnn": {"smoke": dacnn_recipes.SMOKE, "fast": dacnn_recipes.FAST, "paper": dacnn_recipes.INFERRED},
}


@register(
    name="expandnets-rate",
    paper=PAPER,
    title="Expansion rate, CIFAR-10",
    source="rate study (S5 and table 9), second-hand: 0.25 hurts; 2, 4 and 8 help progressively; no figures",
)
def rate(preset: str) -> list[Configuration]:
    """How wide must the chain be?

    paper: CL and CK at 7x7 with rates of 0.25, 2, 4 and 8 beside SmallNet, the authors' recipe. What is known of the
    study is SECOND-HAND.
    """
    data, recipe = choose(preset)
    grid = [configuration(7, row, data, recipe, changes={"rate": r}, rate=r) for row in ("CL", "CK") for r in RATES]
    return [configuration(7, "SmallNet", data, recipe), *grid]


@register(
    name="expandnets-momentum",
    paper=PAPER,
    title="Audit: momentum lost at each epoch's start, CIFAR-10",
    source="authors' code, which makes a new optimiser for each epoch; the audit is ours",
)
def momentum(preset: str) -> list[Configuration]:
    """What does it make that the authors' code forgets momentum at the start of each epoch?

    paper: SmallNet and CL+FC at 3x3 with the authors' recipe, momentum lost as in table B, and kept. Ours: no number is
    published.
    """
    data, recipe = choose(preset)
    return [
        configuration(3, row, data, recipe, changes={"reset_momentum": lost}, momentum="lost" if lost else "kept")
        for lost in (True, False)
        for row in ("SmallNet", "CL+FC")
    ]


@register(
    name="expandnets-start",
    paper=PAPER,
    title="Audit: how batch norms start, CIFAR-10",
    source="authors' code, whose environment file names PyTorch 0.4; the audit is ours",
)
def start(preset: str) -> list[Configuration]:
    """What does it make that batch norms started with weights drawn between 0 and 1, and not with ones?

    paper: SmallNet and CL+FC at 3x3 with the authors' recipe, started as in table B, and with ones, as PyTorch
    starts batch norms today. Ours: no number is published.
    """
    data, recipe = choose(preset)
    starts = {"uniform": "between 0 and 1", "network": "ones"}
    return [
        configuration(3, row, data, recipe, changes={"norm_start": option}, start=words)
        for option, words in starts.items()
        for row in ("SmallNet", "CL+FC")
    ]


@register(
    name="expandnets-shared",
    paper=PAPER,
    title="Ours, beyond the paper: chains for a kernel that is used again and again, CIFAR-10",
    source="ours: no paper asks this",
)
def shared(preset: str) -> list[Configuration]:
    """Does linear over-parameterisation help where one kernel is used at every depth?

    Ours, beyond the paper. The shared kernel of ThriftyNet (a 3x3 convolution, or mb1's pair of depthwise and pointwise
    ones) and of DACNN14 is trained as it is and as CL of rate 4; everything else is as it was, momentum kept. Recipes
    are those of the kernel's own paper (paper: thriftynet-b and dacnn-reading; fast: ours), the same on both sides.
    They have weight decay, which acts on the chain's layers and not on their product: another strength for CL.
    """
    return [_reused(name, row, preset) for name in REUSED for row in ("plain", "CL")]


def _reused(name: str, row: str, preset: str) -> Configuration:
    """Plain, it is the run of the network's own paper, which has no method."""
    network, options, module, small = REUSED[name]
    is_smoke = preset == "smoke"
    method = {**METHOD, **ROWS["CL"], "image": True, "reset_momentum": False, "norm_start": "network", "only": [module]}
    run = Run(
        network=Named(name=network, options=options | small if is_smoke else options),
        data=Data(name="digits" if is_smoke else "cifar10"),
        recipe=RECIPES[network][preset],
        method=None if row == "plain" else Named(name="expandnets", options=method),
    )
    return Configuration(run, {"network": name, "kernels": row})
