"""How ExpandNets are trained on CIFAR: the authors' recipe as their code runs it, ours for a GPU, and one for seconds.

The authors' images are normalised by other constants than ours (:mod:`thriftylib.datasets.facts`). The means agree to
0.0003, and so do the deviations of CIFAR-100. Their deviations of CIFAR-10 are those of all pixels, ours the mean over
images of each image's own, so that our inputs are 1.22 times theirs, the blue ones 1.30 times. The batch norm behind
the first convolution undoes the common factor; the relative weight of blue, 1.07 times theirs, stays as a difference.
"""

from __future__ import annotations

from thriftylib.experiments.recipes import CIFAR, for_digits, like
from thriftylib.schedules import OneCycle, Steps
from thriftylib.spec import Recipe

# 0.01, 0.001 and 0.0001 for 50 epochs each. That momentum is reset at each epoch's start is an option of the method.
AUTHORS = Recipe(
    name="expandnets",
    epochs=150,
    batch_size=128,  # the last, smaller batch is kept
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=0.0,
    schedule=Steps(milestones=(50, 100), factor=0.1),
    augment=CIFAR,
)
FAST = like(
    AUTHORS,
    "expandnets-fast",
    epochs=20,  # minutes on a GPU
    learning_rate=0.05,  # peak: higher than the authors' 0.01, since it is held for a few epochs only
    nesterov=True,
    schedule=OneCycle(warmup=0.2),
)
SMOKE = for_digits(FAST, "expandnets-smoke")
