"""What the papers' recipes and grids have in common: a recipe made from another, and the run that a preset makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from thriftylib.spec import Augment, Data, Named, Recipe, Run

CIFAR = Augment(crop=4, flip=True)  # RandomCrop(32, padding=4), horizontal flip


def like(recipe: Recipe, name: str, **changes: object) -> Recipe:
    """``recipe`` under another name, with ``changes`` to its fields."""
    return Recipe.model_validate({**dict(recipe), "name": name, **changes})


def augmented(recipe: Recipe, suffix: str, **changes: object) -> Recipe:
    """``recipe`` with ``changes`` to its data augmentation, and ``suffix`` at the end of its name."""
    return like(recipe, f"{recipe.name}-{suffix}", augment={**dict(recipe.augment), **changes})


def for_svhn(recipe: Recipe) -> Recipe:
    """``recipe`` without flips: a mirrored digit is another sign."""
    return augmented(recipe, "svhn", flip=False)


def for_digits(recipe: Recipe, name: str, **changes: object) -> Recipe:
    """``recipe`` for the 8x8 digits of the smoke grids, a second or two on a CPU: neither crop nor flip."""
    return like(recipe, name, **{"epochs": 3, "batch_size": 64, "augment": Augment(), **changes})


def changed(run: Run, part: Literal["network", "method"], **options: Any) -> Run:
    """The same run with other ``options`` of its network or its method."""
    named = getattr(run, part)
    return Run.model_validate({**run.model_dump(), part: {"name": named.name, "options": named.options | options}})


def run_of(
    preset: str,
    network: str,
    options: Mapping[str, Any],
    data: str,
    *,
    smoke: Recipe,
    fast: Recipe,
    paper: Recipe,
    method: Named | None = None,
    label_noise: float = 0.0,
) -> Run:
    """A run from seed 0 by the preset's recipe, on ``data`` (``smoke``: the digits); no flips for house numbers."""
    recipe = {"smoke": smoke, "fast": fast, "paper": paper}[preset]
    if preset == "smoke":
        data = "digits"
    elif data == "svhn":
        recipe = for_svhn(recipe)
    kept = Data(name=data, label_noise=label_noise)
    return Run(network=Named(name=network, options=dict(options)), data=kept, recipe=recipe, method=method)
