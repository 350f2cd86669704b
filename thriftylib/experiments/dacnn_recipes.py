"""How DACNNs are trained: a reading of the authors' recipe, ours for a GPU and for a CPU, and one for seconds.

The authors' recipe is not publicly readable: no training script, configuration or log was released. Their model files
carry the marks of kuangliu/pytorch-cifar; READING is that project's recipe (commit 3407511, November 2018), with low
to medium confidence that the authors used exactly this.
"""

from __future__ import annotations

from thriftylib.spec import Augment, OneCycle, Recipe, Steps

CIFAR = Augment(crop=4, flip=True)  # RandomCrop(32, padding=4), horizontal flip
SVHN = Augment(crop=4)  # a mirrored digit is another sign: no flip


def _reading(name: str, augment: Augment) -> Recipe:
    return Recipe(
        name=name,
        epochs=350,
        batch_size=128,
        learning_rate=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=5e-4,
        weight_decay_on="all",  # SGD over all parameters, batch norms included
        schedule=Steps(milestones=(150, 250), factor=0.1),  # lowered by hand there: 0.1, 0.01 and 0.001
        augment=augment,
    )


READING = _reading("dacnn-reading", CIFAR)
READING_SVHN = _reading("dacnn-reading-svhn", SVHN)


def _one_cycle(name: str, augment: Augment, *, epochs: int, batch_size: int, learning_rate: float) -> Recipe:
    return Recipe(
        name=name,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule=OneCycle(warmup=0.2, anneal="cosine", final_factor=0.0),
        augment=augment,
    )


# Minutes on a GPU. One low peak for every net: plain ResNet layouts add up large features that no batch norm follows,
# and in short trials on the digits those with a regulator per layer failed to train from a peak of 0.05 on.
FAST = _one_cycle("dacnn-fast", CIFAR, epochs=20, batch_size=250, learning_rate=0.02)
FAST_SVHN = _one_cycle("dacnn-fast-svhn", SVHN, epochs=20, batch_size=250, learning_rate=0.02)

# For the small nets at a size that two cores of a CPU finish.
CPU = _one_cycle("dacnn-cpu", CIFAR, epochs=4, batch_size=128, learning_rate=0.1)

# A second or two on a CPU, for the embedded 8x8 digits: neither crop nor flip.
SMOKE = _one_cycle("dacnn-smoke", Augment(), epochs=3, batch_size=64, learning_rate=0.02)
