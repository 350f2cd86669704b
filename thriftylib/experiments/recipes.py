"""What the papers' recipes have in common."""

from __future__ import annotations

from thriftylib.spec import Augment, Recipe

CIFAR = Augment(crop=4, flip=True)  # RandomCrop(32, padding=4), horizontal flip
SVHN = Augment(crop=4)  # a mirrored digit is another sign: no flip


def like(recipe: Recipe, name: str, **changes: object) -> Recipe:
    """``recipe`` under another name, with ``changes`` to its fields."""
    return Recipe.model_validate({**dict(recipe), "name": name, **changes})
