"""How EBCLE's networks are trained. The paper's recipe is not known to us: all of it is inferred or ours.

``ebcle`` is the recipe of TFLearn's public CIFAR-10 examples, whose labels "DenseNet-40" and "ResNeXt-56" are the
paper's (inferred; circumstantial), with the more usual drops at half and three quarters. It is the same for every
network and data set, except that digits and clothes are not flipped.
"""

from __future__ import annotations

from thriftylib.experiments.recipes import CIFAR, augmented, for_digits, like
from thriftylib.schedules import OneCycle, Steps
from thriftylib.spec import Augment, Recipe

READING = Recipe(
    name="ebcle",
    epochs=200,
    batch_size=128,
    learning_rate=0.1,
    momentum=0.9,
    nesterov=True,  # of the examples' DenseNet; their ResNets have plain momentum
    weight_decay=1e-4,
    schedule=Steps(milestones=(100, 150), factor=0.1),
    augment=CIFAR,
)
FAST = like(READING, "ebcle-fast", epochs=30, schedule=OneCycle(warmup=0.2))  # minutes on a GPU
SHORT = like(FAST, "ebcle-short", epochs=3, batch_size=100, augment=Augment())  # minutes on one thread of a CPU
SHORTER = like(SHORT, "ebcle-shorter", epochs=2)  # for MNIST and Fashion-MNIST
SMOKE = for_digits(FAST, "ebcle-smoke", epochs=2)


def unflipped(recipe: Recipe) -> Recipe:
    """``recipe`` for images whose mirrored image is another sign."""
    return augmented(recipe, "unflipped", flip=False) if recipe.augment.flip else recipe
