"""How Less Is More's networks are trained: the solvers of Caffe's examples, ours on CIFAR-size images, one for seconds.

The authors' schedules are not known. Caffe counts iterations and we count epochs, since each ends with an evaluation:
11 epochs of MNIST are 10,318 iterations where Caffe's solver has 10,000; 10 epochs of CIFAR-10 are its 5,000. Caffe
reads images in a fixed order and we shuffle each epoch. Momentum here holds gradients, and Caffe's holds steps: the two
part where the learning rate changes, for about ten steps.
"""

from __future__ import annotations

from thriftylib.experiments.recipes import CIFAR, for_digits, like
from thriftylib.schedules import Inverse, OneCycle, Steps
from thriftylib.spec import Recipe

LENET = Recipe(  # examples/mnist/lenet_solver.prototxt
    name="caffe-lenet",
    epochs=11,
    batch_size=64,
    learning_rate=0.01,
    momentum=0.9,
    weight_decay=5e-4,  # biases too
    bias_rate=2.0,
    schedule=Inverse(gamma=1e-4, power=0.75),
)
LONG_LENET = like(LENET, "caffe-lenet-long", epochs=33)
LARGE_STEPS = like(LENET, "caffe-lenet-large-steps", learning_rate=0.03)
# examples/cifar10/cifar10_quick_solver.prototxt, then its _lr1 after 4,000 iterations
DROP = Steps(milestones=(8,), factor=0.1)
QUICK = like(LENET, "cifar10-quick", epochs=10, batch_size=100, learning_rate=0.001, weight_decay=0.004, schedule=DROP)
CYCLE = OneCycle(warmup=0.2)  # AlexNet's and VGG-13's linear layers on CIFAR-10, minutes on a GPU: ours
FAST = like(LENET, "less-is-more-fast", epochs=20, batch_size=125, learning_rate=0.02, schedule=CYCLE, augment=CIFAR)
SMOKE = for_digits(FAST, "less-is-more-smoke", learning_rate=0.05)
