"""UCP's narrow networks trained from scratch, the scores that should choose them, and the control that the paper lacks.

``paper`` grids have the authors' recipe. Width lists are recovered from the history of the authors' code; those whose
layers were set by hand there are called so. Their training images of CIFAR-100 were normalised by the constants of
CIFAR-10, ours by those of CIFAR-100.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from thriftylib.experiments.base import Configuration, register
from thriftylib.experiments.recipes import CIFAR, for_digits, like
from thriftylib.spec import Data, Named, OneCycle, Recipe, Run, Steps

experiment = partial(register, paper="ucp")

AUTHORS = Recipe(  # of the baseline, the network with excitation blocks and the retrained one alike
    name="ucp",
    epochs=160,
    batch_size=64,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    schedule=Steps(milestones=(80, 120), factor=0.1),
    augment=CIFAR,
)
FAST = like(AUTHORS, "ucp-fast", epochs=30, schedule=OneCycle(warmup=0.2))  # minutes on a GPU
SHORT = like(FAST, "ucp-short", epochs=3)  # minutes on one thread of a CPU
TUNED = like(SHORT, "ucp-short-tuned", epochs=2, learning_rate=0.02)  # fine-tuning: shorter, and gentler
AUTHORS_TUNED = like(AUTHORS, "ucp-tuned", epochs=80, learning_rate=0.01, schedule=Steps(milestones=(40, 60)))
SMOKE = for_digits(FAST, "ucp-smoke", epochs=2)

CONTROL: dict[str, tuple[Recipe, Recipe, str, dict[str, Any]]] = {  # recipe, that of fine-tuning, data, network
    "smoke": (SMOKE, SMOKE, "digits", {"blocks": 1, "outer": [4, 4, 8]}),
    "fast": (SHORT, TUNED, "cifar10", {"blocks": 3, "outer": [8, 16, 32]}),
    "paper": (AUTHORS, AUTHORS_TUNED, "cifar10", {"blocks": 9, "outer": [16, 32, 64]}),
}
ARMS: dict[str, dict[str, Any]] = {  # how each narrow network of the control comes from the scored one
    "score": {},
    "random": {"widths": "shuffled"},
    "uniform": {"widths": "uniform"},
    "reversed": {"widths": "reversed"},
    "magnitude": {"widths": "magnitude"},
    "random-parameters": {"widths": "shuffled", "budget": "parameters"},
    "uniform-parameters": {"widths": "uniform", "budget": "parameters"},
}
TUNED_ARMS = ("scores", "random", "magnitude")
MULTIPLIER = 0.99999999


@experiment(
    title="Control: does the score matter when the narrow network is trained from scratch?, CIFAR-10",
    source="ours: the paper has no such control",
)
def control(preset: str) -> list[Configuration]:
    """Does the score matter at all when the narrow network is trained from scratch?"""
    recipe, tuned, data, options = CONTROL[preset]
    network = partial(Named, name="ucp-resnet")
    base = Run(network=network(options=options), data=Data(name=data), recipe=recipe)

    def changed(**changes: Any) -> Run:
        return Run.model_validate({**base.model_dump(), **changes})

    def scored(place: str = "inner", recipe: Recipe | None = recipe, **method: Any) -> Run:
        return changed(
            network=network(options={**options, "excited": place}),
            method=Named(name="ucp-scores", options=method),
            recipe=recipe,
        )

    def child(parent: Run, method: Mapping[str, Any], trained: Recipe = recipe) -> Run:
        named = Named(name="ucp", options={"multiplier": MULTIPLIER, **method})
        return changed(method=named, parent=parent.configuration, recipe=trained)

    def again(**method: Any) -> Run:
        """The scores of the trained network once more, measured in another way."""
        return scored(recipe=None, **method).model_copy(update={"parent": runs["scored"].configuration})

    half = [max(1, width // 2) for width in base.options.inner]
    runs = {"unpruned": base, "scored": scored(), "untrained": scored(recipe=None, mode="training")}
    runs |= {"scored-test": again(split="test"), "scored-authors": again(split="test", mode="training")}
    runs |= {arm: child(runs["scored"], method) for arm, method in ARMS.items()}
    runs |= {"scored-output": scored("output"), "scored-again": scored(redraws=1)}
    runs |= {"other-scores": child(runs["scored-again"], {})}
    runs |= {"half-retrained": child(runs["scored"], {"keep": half})}
    for channels in TUNED_ARMS:
        method = {"keep": half, "channels": channels, "weights": "parent"}
        runs[f"half-tuned-{channels}"] = child(runs["scored"], method, tuned)
    return [Configuration(run, {"arm": arm}) for arm, run in runs.items()]
