"""ExpandNets: a linear layer trained as a chain of linear layers, and multiplied back into one layer afterwards.

"ExpandNets: Linear Over-parameterization to Train Compact Convolutional Networks" (Guo, Alvarez, Salzmann; NeurIPS
2020; arXiv 1811.10495), after the authors' CIFAR code (GUOShuxuan/expandnets, commit 065d4d3). A convolution from m to
n channels, expansion rate r:

- CL: 1x1, kxk, 1x1 with m -> r m -> r n -> n channels; a depthwise convolution's chain is grouped as it is;
- CK: (k - 1) / 2 convolutions of 3x3 with m -> r m -> r n -> ... -> n channels, for odd k > 3;
- FC: three linear layers with in -> r in -> r out -> out features.

Nothing stands between the layers of a chain. All of the padding is on its first layer, so that the chain and the one
layer see the same padded input; the stride is on the kxk layer (CL) or on the last 3x3 (CK; a READING).

A chain computes what its product computes. So training multiplies it first, with gradients for every layer of the
chain, wherever that costs fewer MACs than walking through it: the numbers are the chain's, up to rounding.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from thriftylib import cost
from thriftylib.cost import Cost
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, MethodOptions, NetworkOptions
from thriftylib.papers.networks import Counts, conv_norm_terms
from thriftylib.spec import Count, Positive

if TYPE_CHECKING:
    from torch import nn

    from thriftylib.papers.expandnets_method import ExpandNets

QUANTILES = {
    "cosine_min": 0.0,
    "cosine_5": 0.05,
    "cosine_25": 0.25,
    "cosine_50": 0.5,
    "cosine_75": 0.75,
    "cosine_95": 0.95,
    "cosine_max": 1.0,
}
"""The record's series of gradient confusion: quantiles over the pairs of mini-batches."""


class ExpandNetsOptions(MethodOptions, method="expandnets"):
    """Train a network's layers as chains and contract them at the end; the defaults change nothing.

    ``convs`` and ``linear`` say which layers are expanded, ``only`` within which modules: see
    :func:`thriftylib.papers.expandnets_method.expand`.
    """

    convs: Literal["plain", "cl", "ck"] = "plain"
    linear: bool = False  # the linear layers, except the classifier
    rate: Positive = 4.0
    image: bool = False  # whether the chain that reads the image widens it too; authors: only in their ImageNet code
    only: Annotated[tuple[str, ...], Field(strict=False)] = ()
    reset_momentum: bool = False  # at each epoch; True: the authors' CIFAR code, which makes a new optimiser each epoch
    # uniform: from 0 to 1, the batch norms' default in PyTorch 0.4, which the authors' environment file names; network:
    # as the network has them, today 1. Left out of a run's text where it is "network": it came after the first records.
    norm_start: Literal["network", "uniform"] = Field("network", exclude_if=lambda value: value == "network")
    confusion: Annotated[int, Field(ge=0)] = 0  # pairs of mini-batches whose gradients are compared after each epoch

    def start(self) -> ExpandNets:
        """The hooks of one training."""
        from thriftylib.papers.expandnets_method import ExpandNets

        return ExpandNets(self)


class SmallNetOptions(NetworkOptions, network="smallnet"):
    """Stages of convolution, batch norm, ReLU and 2x2 max-pool; then a hidden linear layer, ReLU and the classifier.

    Convolutions have biases. Kernels 3 (without padding) and 7 are the authors'; for 5 and 9 the paper's text is not
    known: the same network with padding 2 and 4 is a READING.
    """

    kernel: Literal[3, 5, 7, 9] = 3
    padding: Annotated[int, Field(ge=0)] = Field(
        default_factory=lambda given: 0 if given.get("kernel") == 3 else given.get("kernel", 3) // 2
    )
    widths: Counts = (8, 16, 32)
    hidden: Count = 64

    def _sizes(self, image_shape: ImageShape) -> list[tuple[int, int]]:
        """(H, W) of each convolution's output.

        Raises:
            SpecError: the images are too small for so many stages.
        """
        sizes, (height, width) = [], image_shape[1:]
        for stage in range(len(self.widths)):
            height, width = (pixels + 2 * self.padding - self.kernel + 1 for pixels in (height, width))
            if min(height, width) < 2:
                raise SpecError(
                    f"kernel = {self.kernel}, padding = {self.padding}: images of {image_shape[1]}x{image_shape[2]} "
                    f"are too small for {len(self.widths)} stages; stage {stage + 1} would have no pixel left to pool"
                )
            sizes.append((height, width))
            height, width = height // 2, width // 2
        return sizes

    def _features(self, image_shape: ImageShape) -> int:
        height, width = self._sizes(image_shape)[-1]
        return self.widths[-1] * (height // 2) * (width // 2)

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """15,050 parameters for kernel 3 and 66,186 for kernel 7; 32x32 RGB images and 10 classes."""
        channels = (image_shape[0], *self.widths)
        terms = []
        for i, (shape, size) in enumerate(zip(pairwise(channels), self._sizes(image_shape), strict=True)):
            terms += conv_norm_terms(f"stage {i}", *shape, size, kernel=self.kernel, bias=True)
        hidden = cost.linear("hidden", self._features(image_shape), self.hidden)
        return Cost((*terms, hidden, cost.linear("head", self.hidden, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """With PyTorch's default initialisation, as the authors have it."""
        from torch import nn

        stages = [
            nn.Sequential(
                nn.Conv2d(inputs, outputs, self.kernel, padding=self.padding),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d(2),
            )
            for inputs, outputs in pairwise((image_shape[0], *self.widths))
        ]
        head = [nn.Linear(self._features(image_shape), self.hidden), nn.ReLU(), nn.Linear(self.hidden, classes)]
        return nn.Sequential(*stages, nn.Flatten(), *head)
