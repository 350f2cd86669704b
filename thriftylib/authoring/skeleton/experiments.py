"""How the paper's networks are trained, and its figures and tables as grids of runs."""

from __future__ import annotations

from thriftylib.experiments.base import Configuration, register, road
from thriftylib.schedules import OneCycle, Steps
from thriftylib.spec import Augment, Data, Named, Recipe, Run

# A recipe's name means this recipe for ever: claims and records refer to it. Another value is another recipe.
AUTHORS = Recipe(  # TODO: the authors' recipe, with the section of the paper that states it
    name="example-paper",
    epochs=100,
    batch_size=128,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule=Steps(milestones=(50, 75), factor=0.1),
    augment=Augment(crop=4, flip=True),
)
FAST = Recipe(  # ours, for minutes on a GPU; its runs answer no claim
    name="example-paper-fast",
    epochs=20,
    batch_size=250,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    schedule=OneCycle(warmup=0.2),
    augment=Augment(crop=4, flip=True),
)
SMOKE = Recipe(  # seconds on a CPU, for 8x8 digits: at most 3 epochs, neither crop nor flip
    name="example-paper-smoke",
    epochs=2,
    batch_size=64,
    learning_rate=0.1,
    momentum=0.9,
    schedule=OneCycle(warmup=0.2),
)

# One row per preset: recipe, data set, filters, depths. Networks of the paper's size belong to fast and paper.
_GRIDS = {
    "smoke": (SMOKE, "digits", 8, (1, 2)),
    "fast": (FAST, "cifar10", 32, (2, 4, 8)),
    "paper": (AUTHORS, "cifar10", 32, (2, 4, 8)),
}


@road("share", paper="example_paper")  # prune, share or over-parameterise; or leave it out
def ordinary(run: Run) -> Run:
    """The network with a kernel for each depth."""
    unshared = {**run.network.options, "shared": False}
    return run.model_copy(update={"network": Named(name="example-paper", options=unshared)})


@register(
    name="example-paper-depth",
    paper="example_paper",
    title="Accuracy against depth, one kernel or one for each depth, CIFAR-10",
    source="TODO: where the paper has it, such as figure 2",
)
def depth(preset: str) -> list[Configuration]:
    """TODO: what does this ask, in one sentence with a question mark?

    Then how it is run: what is the paper's, what is inferred, what is ours.
    """
    recipe, data, filters, depths = _GRIDS[preset]
    return [
        Configuration(
            Run(
                network=Named(
                    name="example-paper",
                    options={"filters": filters, "depth": depth, "shared": kernels == "one"},
                ),
                data=Data(name=data),
                recipe=recipe,
            ),
            {"kernels": kernels, "depth": depth},  # labels: what the figure draws by, and what --where can choose
        )
        for kernels in ("one", "one per depth")
        for depth in depths
    ]
