"""How ThriftyNets are trained: the authors' three schedules, ours for minutes on a GPU, and one for seconds on a CPU.

Every value of the recipes a, b and c is read in the authors' code (github.com/GCoiffier/ThriftyNets, branches master
and dev, March to July 2020); which of them made which figure is inferred from the dates of its bench scripts and logs.
"""

from __future__ import annotations

from thriftylib.experiments.recipes import CIFAR, augmented, for_digits, like
from thriftylib.schedules import OneCycle, Plateau, Steps
from thriftylib.spec import Recipe


def by_test_loss(patience: int, min_learning_rate: float = 1e-4) -> Plateau:
    """Halved where the test loss has not fallen for ``patience`` epochs."""
    return Plateau(monitor="test_loss", factor=0.5, patience=patience, min_learning_rate=min_learning_rate)


# Schedule A, until mid-June 2020: CIFAR-10 size figure, downsampling logs. It steers by the test loss.
A = Recipe(
    name="thriftynet-a",
    epochs=200,
    batch_size=100,
    learning_rate=0.1,
    momentum=0.9,
    nesterov=False,  # their option defaults to True but never reaches SGD
    weight_decay=5e-4,
    weight_decay_on="all",  # batch norms and mixing coefficients included
    schedule=by_test_loss(7),
    augment=CIFAR,
)
# Schedule B, from 19 June 2020: depth and history benches, SVHN.
B = like(A, "thriftynet-b", epochs=150, schedule=Steps(milestones=(50, 100, 130), factor=0.1))
# Schedule C, the last default (3 July 2020): data-augmentation bench.
C = like(A, "thriftynet-c", schedule=Steps(milestones=(50, 100, 150), factor=0.1))

# Two single runs, by the settings that head the authors' logs: vanillaC10 of 17 June 2020,
VANILLA = like(augmented(A, "vanilla", cutout=8, cutout_defect=True), "thriftynet-vanilla", schedule=by_test_loss(8))
# and singleBN of March 2020, stopped after 79 of 200 epochs: a plateau schedule looks back alone.
SHARED_NORM = like(A, "thriftynet-shared-norm", epochs=79, batch_size=80, schedule=by_test_loss(5, 1e-5))
# For ImageNet, from the authors' train_imagenet.py of April 2020 (inferred): batches of 8 accumulated ones of 32, a
# tenth every 30 epochs, weight decay 1e-4 in its first version; its crop does not apply at 32x32.
IMAGENET = like(A, "thriftynet-imagenet", epochs=90, batch_size=256, schedule=Steps(milestones=(30, 60), factor=0.1))

FAST = like(
    A,
    "thriftynet-fast",
    epochs=16,  # minutes on a GPU; a small network ends in an hour on two cores of a CPU
    batch_size=250,  # larger than the authors' 100: fewer, fuller kernels
    learning_rate=0.3,  # peak; the authors' 0.1 scaled with the batch, rounded up
    nesterov=True,
    label_smoothing=0.05,
    schedule=OneCycle(warmup=0.2),
)
SMOKE = for_digits(FAST, "thriftynet-smoke", learning_rate=0.1, label_smoothing=0.0)

EXTRA_AUGMENTATIONS: dict[str, dict[str, object]] = {
    "none": {},  # crop and flip only
    "autoaugment": {"autoaugment": True},  # the CIFAR-10 policy, after crop and flip
    "autoaugment-released": {"autoaugment": True, "autoaugment_released": True},  # as their code performs it
    "cutout": {"cutout": 8},
    "cutout-defect": {"cutout": 8, "cutout_defect": True},  # squares on the diagonal or the left edge, as their code
    "cutmix": {"cutmix": 1.0},  # every batch
    "mixup": {"mixup": 1.0},
}
