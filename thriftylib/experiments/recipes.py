"""What the papers' recipes have in common: data augmentation, and which recipe a preset trains by."""

from __future__ import annotations

from thriftylib.spec import Augment, Recipe

CIFAR = Augment(crop=4, flip=True)  # RandomCrop(32, padding=4), horizontal flip
SVHN = Augment(crop=4)  # a mirrored digit is another sign: no flip


def like(recipe: Recipe, name: str, **changes: object) -> Recipe:
    """``recipe`` under another name, with ``changes`` to its fields."""
    return Recipe.model_validate({**dict(recipe), "name": name, **changes})


def for_svhn(recipe: Recipe) -> Recipe:
    """``recipe`` without flips."""
    return like(recipe, f"{recipe.name}-svhn", augment=SVHN)


def choose(preset: str, data: str, *, smoke: Recipe, fast: Recipe, paper: Recipe) -> tuple[str, Recipe]:
    """The data set and the recipe of a preset: the digits for ``smoke``, no flips for house numbers."""
    if preset == "smoke":
        return "digits", smoke
    recipe = fast if preset == "fast" else paper
    return data, for_svhn(recipe) if data == "svhn" else recipe
