"""Less Is More's table 1 as far as a CPU can run it, the curves behind it, and what the reading notes say, as grids.

All trainings use the solvers of Caffe's examples, whose networks the table's counts fit. Only the first linear layer,
``ip1``, is constrained unless a grid says otherwise: the table's counts fit nothing else. A strength means nothing
without its schedule, and the paper's are not known. Ours at the table's points come from the sweep, whose runs hold out
5,000 training images: the strength that leaves as many neurons as the table has. The test set has no part in it.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from thriftylib.experiments import less_is_more_recipes as recipes
from thriftylib.experiments.base import Configuration, register, road
from thriftylib.spec import Data, Named, Recipe, Run

experiment = partial(register, paper="less_is_more")
LENET, QUICK = "LeNet", "CIFAR-10 quick"
_NETWORKS: dict[str, tuple[str, Data, Recipe]] = {
    LENET: ("caffe-lenet", Data(name="mnist", scaling="1/256"), recipes.LENET),
    QUICK: ("cifar10-quick", Data(name="cifar10", scaling="minus mean image"), recipes.QUICK),
}
_TINY = {LENET: {"widths": [4, 8], "padding": 2, "hidden": 16}, QUICK: {"widths": [4, 4, 8], "hidden": 16}}
_TINY_SCALE = {LENET: 1.0, QUICK: 0.04}  # of strengths
POINTS = {LENET: (0.35, 11), QUICK: (3.9, 17)}  # strength on ip1, and neurons that the table leaves there
FIRST_LINEAR = "first linear"
LAYERS = {  # what is constrained; conv1 of CIFAR-10 quick starts so small that any strength removes it at once
    FIRST_LINEAR: {LENET: ["ip1"], QUICK: ["ip1"]},
    "all hidden": {LENET: ["conv1", "conv2", "ip1"], QUICK: ["conv2", "conv3", "ip1"]},
}
SWEEP: dict[tuple[str, str], tuple[float, ...]] = {  # strengths by network and the layers that are constrained
    (LENET, FIRST_LINEAR): (0.0, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08, 0.12, 0.16, 0.2, 0.3, 0.35, 0.4),
    (LENET, "all hidden"): (0.01, 0.015, 0.02, 0.03, 0.05),
    (QUICK, FIRST_LINEAR): (0.0, 0.9, 1.5, 2.5, 3.7, 3.8, 3.9, 4.0),
    (QUICK, "all hidden"): (0.02, 0.04, 0.06, 0.08, 0.2, 0.5),
}
HELD_OUT = 5000
ALL_AT = 0.02  # strength of the ablations
FREE = {"smoke": {"constrained_epochs": 2}, "fast": {"constrained_epochs": 8}, "paper": {"constrained_epochs": 8}}


def configuration(
    preset: str,
    network: str,
    strength: float,
    constrained: str = FIRST_LINEAR,
    *,
    held_out: int = 0,
    recipe: Recipe | None = None,
    method: dict[str, Any] | None = None,
    headline: bool = False,
    options: dict[str, Any] | None = None,
    **labels: str | int | float,
) -> Configuration:
    """A network from seed 0, its ``constrained`` layers by ``strength``; minutes on a CPU, so ``fast`` is ``paper``."""
    name, data, own = _NETWORKS[network]
    options = options or {}
    if preset == "smoke":
        data, own, recipe, options = Data(name="digits"), recipes.SMOKE, None, _TINY[network] | options
        held_out, strength = held_out // 50, strength * _TINY_SCALE[network]
    constraint = {"group_sparsity": strength, "layers": LAYERS[constrained][network], **(method or {})}
    run = Run(
        network=Named(name=name, options=options),
        data=data.model_copy(update={"validation_images": held_out}),
        recipe=recipe or own,
        method=Named(name="less-is-more", options=constraint),
    )
    return Configuration(run, {"network": network, "strength": strength, **labels}, headline)


@road("prune", paper="less_is_more")
def ordinary(run: Run) -> Run:
    """The same network, trained without constraint."""
    layers, is_long = run.method.options["layers"], run.recipe.name.endswith("-long")
    free = Named(name="less-is-more", options={"layers": layers if is_long or "fc6" in layers else ["ip1"]})
    return Run.model_validate({**run.model_dump(), "method": free})


@experiment(
    title="Table 1: neurons of the first linear layer removed, MNIST and CIFAR-10",
    source="table 1, rows LeNet and CIFAR-10 quick",
)
def table(preset: str) -> list[Configuration]:
    """What does it cost to remove most neurons of the first linear layer while training?

    paper: each network without constraint, and with the strength that leaves as many neurons as the table has (11 of
    500, 17 of 64). Ours: constraint in the first 8 epochs alone, and the small network trained from its start.
    """
    grid = []
    for network, (strength, left) in POINTS.items():
        point = partial(configuration, preset, network, headline=preset != "smoke")
        grid += [point(0.0, training="without constraint"), point(strength, training="with constraint")]
        grid += [point(strength, training="with constraint, then without", method=FREE[preset])]
        grid += [configuration(preset, network, 0.0, options={"hidden": left}, training="small from the start")]
    return grid


@experiment(
    title="Error against neurons left, over strengths, MNIST and CIFAR-10",
    source="reading notes: neurons fall as the strength rises; no figures",
)
def strength(preset: str) -> list[Configuration]:
    """How much error does each strength cost, and how many neurons does it leave?

    paper: the first linear layer alone, and all hidden layers; 5,000 training images held out. Strengths are ours.
    """
    return [
        configuration(preset, network, value, layers, held_out=HELD_OUT, layers=layers)
        for (network, layers), values in SWEEP.items()
        for value in (values if preset != "smoke" else values[:2])
    ]


@experiment(
    title="Ablations: ReLU, momentum, constraint, bias, schedule, MNIST",
    source="reading notes: ReLU lets more neurons go, momentum keeps neurons alive; no figures. The others are ours",
)
def ablations(preset: str) -> list[Configuration]:
    """What does each part of the method do?

    paper: LeNet, all hidden layers, one strength, and one change at a time. Reported: ReLU after the convolutions lets
    more neurons go, and so does clearing the momentum of a zero neuron. By arithmetic the latter matters where steps
    are large and the strength is small: hence steps three times as large, a third of the strength.
    """
    kept, large = {"clear_momentum": False}, {"recipe": recipes.LARGE_STEPS, "strength": ALL_AT / 3}
    changes: dict[str, dict[str, Any]] = {
        "as it is": {},
        "ReLU after convolutions": {"options": {"relu": True}},
        "momentum kept": {"method": kept},
        "low rank": {"method": {"group_sparsity": 0.0, "low_rank": ALL_AT}},
        "bias outside": {"method": {"bias": "outside"}},
        "three times as long": {"recipe": recipes.LONG_LENET},
        "three times as long, no constraint": {"recipe": recipes.LONG_LENET, "strength": 0.0},
        "large steps": large,
        "large steps, momentum kept": {**large, "method": kept},
        "last epochs free": {"method": FREE[preset]},
    }
    if preset == "smoke":
        del changes["three times as long"]  # smoke runs have a recipe of their own
    point = partial(configuration, preset, LENET, constrained="all hidden")
    return [point(**{"strength": ALL_AT, **change}, change=said) for said, change in changes.items()]


@experiment(
    title="Ours, beyond the paper: AlexNet's and VGG-13's linear layers on CIFAR-10",
    source="ours: the paper's AlexNet and VGG-13 see ImageNet",
)
def linear_layers(preset: str) -> list[Configuration]:
    """Can the two large networks do without most neurons of their linear layers on small images?

    Ours, beyond the paper: AlexNet with a small first convolution and VGG-13 on CIFAR-10; fc6 and fc7 constrained.
    """
    if preset == "smoke":
        return [configuration(preset, QUICK, value) for value in (0.0, 0.02)]
    grid = []
    for (name, options), value in product((("caffe-alexnet", {"small": True}), ("vgg13", {})), (0.0, 0.01, 0.03)):
        method = Named(name="less-is-more", options={"group_sparsity": value, "layers": ["fc6", "fc7"]})
        network = Named(name=name, options=options)
        run = Run(network=network, data=Data(name="cifar10"), recipe=recipes.FAST, method=method)
        grid.append(Configuration(run, {"network": name, "strength": value}))
    return grid
