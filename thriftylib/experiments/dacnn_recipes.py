"""How DACNNs are trained: an inferred recipe of the authors', ours for a GPU and for a CPU, and one for seconds.

The authors' recipe was not available to us: no training script, configuration or log was released. Their model files
carry the marks of kuangliu/pytorch-cifar; INFERRED is that project's recipe (commit 3407511, November 2018), with low
to medium confidence that the authors used exactly this. The first runs recorded it as ``dacnn-reading``.
"""

from __future__ import annotations

from thriftylib.experiments.recipes import CIFAR, for_digits, like
from thriftylib.schedules import OneCycle, Steps
from thriftylib.spec import Recipe

INFERRED = Recipe(
    name="dacnn-reading",
    epochs=350,
    batch_size=128,
    learning_rate=0.1,
    momentum=0.9,
    weight_decay=5e-4,
    weight_decay_on="all",  # SGD over all parameters, batch norms included
    schedule=Steps(milestones=(150, 250), factor=0.1),  # lowered by hand there: 0.1, 0.01 and 0.001
    augment=CIFAR,
)
# Minutes on a GPU. One low peak for every net: plain ResNet layouts add up large features that no batch norm follows,
# and in short trials on the digits those with a regulator per layer failed to train from a peak of 0.05 on.
FAST = like(
    INFERRED,
    "dacnn-fast",
    epochs=20,
    batch_size=250,
    learning_rate=0.02,
    nesterov=True,
    schedule=OneCycle(warmup=0.2),
)
# For the small nets at a size that two cores of a CPU finish.
CPU = like(FAST, "dacnn-cpu", epochs=4, batch_size=128, learning_rate=0.1)
SMOKE = for_digits(FAST, "dacnn-smoke")
