"""How ThriftyNets are trained: the authors' three schedules, ours for minutes on a GPU, and one for seconds on a CPU.

Every value of the recipes a, b and c is read in the authors' code (github.com/GCoiffier/ThriftyNets, branches master
and dev, March to July 2020); which of them made which figure is inferred from the dates of its bench scripts and logs.
"""

from __future__ import annotations

from collections.abc import Mapping

from thriftylib.spec import Augment, OneCycle, Plateau, Recipe, Steps

CIFAR = Augment(crop=4, flip=True)  # RandomCrop(32, padding=4), horizontal flip
SVHN = Augment(crop=4)  # a mirrored digit is another sign: no flip


def _authors(
    name: str, epochs: int, schedule: Plateau | Steps, augment: Augment = CIFAR, batch_size: int = 100
) -> Recipe:
    return Recipe(
        name=name,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=0.1,
        momentum=0.9,
        nesterov=False,  # their option defaults to True but never reaches SGD
        weight_decay=5e-4,
        weight_decay_on="all",  # batch norms and mixing coefficients included
        label_smoothing=0.0,
        schedule=schedule,
        augment=augment,
    )


# Schedule A, until mid-June 2020: CIFAR-10 size figure, downsampling logs. It steers by the test loss.
A = _authors("thriftynet-a", 200, Plateau(monitor="test_loss", factor=0.5, patience=7, min_learning_rate=1e-4))
# Schedule B, from 19 June 2020: depth and history benches, SVHN.
B = _authors("thriftynet-b", 150, Steps(milestones=(50, 100, 130), factor=0.1))
B_SVHN = _authors("thriftynet-b-svhn", 150, Steps(milestones=(50, 100, 130), factor=0.1), SVHN)
# Schedule C, the last default (3 July 2020): data-augmentation bench.
C = _authors("thriftynet-c", 200, Steps(milestones=(50, 100, 150), factor=0.1))

# Two single runs of the authors' logs, by the settings that head them. Like A, they steer by the test loss.
VANILLA = _authors(  # vanillaC10, 17 June 2020
    "thriftynet-vanilla",
    200,
    Plateau(monitor="test_loss", factor=0.5, patience=8, min_learning_rate=1e-4),
    Augment(crop=4, flip=True, cutout=8, cutout_defect=True),
)
SHARED_NORM = _authors(  # singleBN, March 2020: stopped after 79 of 200 epochs; a plateau schedule looks back alone
    "thriftynet-shared-norm",
    79,
    Plateau(monitor="test_loss", factor=0.5, patience=5, min_learning_rate=1e-5),
    batch_size=80,
)

# For ImageNet, from the authors' train_imagenet.py of April 2020 (READING); its crop does not apply at 32x32.
IMAGENET = Recipe(
    name="thriftynet-imagenet",
    epochs=90,
    batch_size=256,  # 8 accumulated batches of 32
    learning_rate=0.1,
    weight_decay=5e-4,  # 1e-4 in its first version
    schedule=Steps(milestones=(30, 60), factor=0.1),  # a tenth every 30 epochs
    augment=CIFAR,
)


def _fast(name: str, augment: Augment = CIFAR) -> Recipe:
    return Recipe(
        name=name,
        epochs=16,  # minutes on a GPU; a small network ends in an hour on two cores of a CPU
        batch_size=250,  # larger than the authors' 100: fewer, fuller kernels
        learning_rate=0.3,  # peak; the authors' 0.1 scaled with the batch, rounded up
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        label_smoothing=0.05,
        schedule=OneCycle(warmup=0.2, anneal="cosine", final_factor=0.0),
        augment=augment,
    )


FAST = _fast("thriftynet-fast")
FAST_SVHN = _fast("thriftynet-fast-svhn", SVHN)

SMOKE = Recipe(
    name="thriftynet-smoke",
    epochs=3,  # a second or two on a CPU
    batch_size=64,
    learning_rate=0.1,
    nesterov=True,
    weight_decay=5e-4,
    schedule=OneCycle(warmup=0.2),
)

EXTRA_AUGMENTATIONS: Mapping[str, Mapping[str, object]] = {
    "none": {},  # crop and flip only
    "autoaugment": {"autoaugment": True},  # the CIFAR-10 policy, after crop and flip
    "autoaugment-released": {"autoaugment": True, "autoaugment_released": True},  # as their code performs it
    "cutout": {"cutout": 8},
    "cutout-defect": {
        "cutout": 8,
        "cutout_defect": True,
    },  # squares on the diagonal or the left edge, as their code draws
    "cutmix": {"cutmix": 1.0},  # every batch
    "mixup": {"mixup": 1.0},
}


def augmented(recipe: Recipe, extra: str, **changes: object) -> Recipe:
    """``recipe`` with one of the data-augmentation bench's extras, and its name with it."""
    if extra == "none":
        return recipe
    augment = Augment(**{**recipe.augment.model_dump(), **EXTRA_AUGMENTATIONS[extra], **changes})
    return recipe.model_copy(update={"name": f"{recipe.name}-{extra}", "augment": augment})
