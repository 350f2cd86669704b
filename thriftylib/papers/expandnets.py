"""ExpandNets: a linear layer trained as a chain of linear layers, and multiplied back into one layer afterwards.

"ExpandNets: Linear Over-parameterization to Train Compact Convolutional Networks" (Guo, Alvarez, Salzmann; NeurIPS
2020; arXiv 1811.10495), after the authors' CIFAR code (GUOShuxuan/expandnets, commit 065d4d3). A convolution from m to
n channels, expansion rate r:

- CL: 1x1, kxk, 1x1 with m -> r m -> r n -> n channels; a depthwise convolution's chain is grouped as it is;
- CK: (k - 1) / 2 convolutions of 3x3 with m -> r m -> r n -> ... -> n channels, for odd k > 3;
- FC: three linear layers with in -> r in -> r out -> out features.

There is nothing between the layers of a chain. All of the padding is on its first layer, so that the chain and the one
layer see the same padded input; the stride is on the kxk layer (CL) or on the last 3x3 (CK; inferred).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from thriftylib import cost
from thriftylib.cost import Cost, Size
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, MethodOptions, NetworkOptions
from thriftylib.papers.networks import Counts, conv_norm_terms
from thriftylib.schedules import Count
from thriftylib.spec import Positive

if TYPE_CHECKING:
    from torch import nn

    from thriftylib.papers.expandnets_method import ExpandNets


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
    # The initial weights of batch norms. uniform: from 0 to 1, the default in PyTorch 0.4, which the authors'
    # environment file names; network: the network's own, today 1, left out of a run's text since it came later.
    norm_start: Literal["network", "uniform"] = Field("network", exclude_if=lambda value: value == "network")
    confusion: Annotated[int, Field(ge=0)] = 0  # pairs of mini-batches whose gradients are compared after each epoch

    def start(self) -> ExpandNets:
        """The hooks of one training."""
        from thriftylib.papers.expandnets_method import ExpandNets

        return ExpandNets(self)


class SmallNetOptions(NetworkOptions, network="smallnet"):
    """The paper's network for CIFAR: stages of convolution, batch norm, ReLU and 2x2 max-pool; a hidden linear layer.

    Convolutions have biases. Kernels 3 (without padding) and 7 are the authors'; for 5 and 9 the paper's text is not
    known: the same network with padding 2 and 4 is inferred.
    """

    fast = ("fused_blocks",)

    kernel: Literal[3, 5, 7, 9] = 3
    padding: Annotated[int, Field(ge=0)] = Field(
        default_factory=lambda given: 0 if given.get("kernel") == 3 else given.get("kernel", 3) // 2
    )
    widths: Counts = (8, 16, 32)
    hidden: Count = 64

    def _stages(self, image_shape: ImageShape) -> tuple[list[tuple[int, int, Size]], int]:
        """Each convolution's inputs, outputs and output size, and the features that the hidden layer reads.

        Raises:
            SpecError: the images are too small for so many stages.
        """
        stages, (_, height, width) = [], image_shape
        for stage, shape in enumerate(pairwise((image_shape[0], *self.widths)), start=1):
            height, width = (pixels + 2 * self.padding - self.kernel + 1 for pixels in (height, width))
            if min(height, width) < 2:
                raise SpecError(
                    f"kernel = {self.kernel}, padding = {self.padding}: images of {image_shape[1]}x{image_shape[2]} "
                    f"are too small for {len(self.widths)} stages; stage {stage} would have no pixel left to pool"
                )
            stages.append((*shape, (height, width)))
            height, width = height // 2, width // 2
        return stages, self.widths[-1] * height * width

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """15,050 parameters for kernel 3 and 66,186 for kernel 7; 32x32 RGB images and 10 classes."""
        stages, features = self._stages(image_shape)
        terms = [cost.linear("hidden", features, self.hidden), cost.linear("head", self.hidden, classes)]
        for i, shape in enumerate(stages):
            terms += conv_norm_terms(f"stage {i}", *shape, kernel=self.kernel, bias=True)
        return Cost(tuple(terms))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """With PyTorch's default initialisation, as the authors have it."""
        from torch import nn

        shapes, features = self._stages(image_shape)
        stages = []
        for inputs, outputs, _ in shapes:
            conv = nn.Conv2d(inputs, outputs, self.kernel, padding=self.padding)
            stages += [nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))]
        head = [nn.Linear(features, self.hidden), nn.ReLU(), nn.Linear(self.hidden, classes)]
        return nn.Sequential(*stages, nn.Flatten(), *head)
