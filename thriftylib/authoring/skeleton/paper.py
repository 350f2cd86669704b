"""TODO: short name (authors, year; arXiv 0000.00000): the paper's idea in one line.

::

    x_0     = relu(BN(S * image))                      S: the stem, the only kernel that reads the image
    x_{t+1} = relu(BN_t(W * x_t))                      W: one 3x3 kernel, used at all T depths
    logits  = Linear(mean over the map of x_T)

TODO: replace the equations by the paper's, with their numbers, and say what you had to infer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thriftylib.cost import Cost, batch_norm, conv, linear
from thriftylib.options import ImageShape, NetworkOptions
from thriftylib.schedules import Count

if TYPE_CHECKING:
    from torch import nn

# No torch at the top: `thrifty list` and `thrifty cost` need the options and the cost alone, and answer at once.
# A network that needs classes of its own has them in a second module, imported inside build():
# papers/example_paper_network.py, or with another word in place of network.


class ExamplePaperOptions(NetworkOptions, network="example-paper"):
    """A stem, then ``depth`` uses of a 3x3 kernel, each with its own batch norm; the map's mean; a linear layer."""

    # Each field is an option of the network, for claims, experiments and `thrifty cost`. Its name and its values become
    # part of a run's id, so choose them well. Any wrong value ends in one line that names the field.
    filters: Count = 16  # channels of every layer
    depth: Count = 4  # T, the uses of W
    shared: bool = True  # False: a kernel of its own at each depth, the network to compare with

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """One term per layer, each weight counted once, each use computed. `thrifty check` compares it with build()."""
        channels, height, width = image_shape
        size = [(height, width)]  # of one output map; a layer that is used T times has T sizes
        if self.shared:
            kernels = [conv("kernel", self.filters, self.filters, 3, size * self.depth)]
        else:
            kernels = [conv(f"kernel {i}", self.filters, self.filters, 3, size) for i in range(self.depth)]
        return Cost(
            (
                conv("stem", channels, self.filters, 3, size),
                batch_norm("stem norm", self.filters, size),
                *kernels,
                batch_norm("norms", self.filters, size * self.depth),
                linear("head", self.filters, classes),
            )
        )

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """(N, C, H, W) images in, (N, classes) logits out, with PyTorch's default initial weights."""
        from torch import nn  # here, and not at the top: see above

        def kernel(inputs: int) -> nn.Module:
            return nn.Conv2d(inputs, self.filters, 3, padding=1, bias=False)  # a bias would be lost in the batch norm

        kernels = [kernel(self.filters)] * self.depth  # the same layer, many times: its weights are shared
        if not self.shared:
            kernels = [kernel(self.filters) for _ in range(self.depth)]
        layers: list[nn.Module] = []
        for convolution in (kernel(image_shape[0]), *kernels):
            layers += [convolution, nn.BatchNorm2d(self.filters), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(self.filters, classes))


# A paper that changes how a network is trained has a method beside it: subclass MethodOptions (thriftylib.options) and
# Method (thriftylib.method), whose hooks run before an epoch, after a step, or after the training.
