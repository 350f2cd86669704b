"""SmallNet, the compact network of the ExpandNets paper's CIFAR experiments (authors' code)."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from thriftylib import cost
from thriftylib.cost import Cost
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, NetworkOptions
from thriftylib.spec import Count

Widths = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]


class SmallNetOptions(NetworkOptions, network="smallnet"):
    """Stages of convolution, batch norm, ReLU and 2x2 max-pool; then a hidden linear layer, ReLU and the classifier.

    Convolutions have biases. Kernels 3 (without padding) and 7 are the authors'; for 5 and 9 the paper's text is not
    known: the same network with padding 2 and 4 is a READING.
    """

    fast = ("fused_blocks",)

    kernel: Literal[3, 5, 7, 9] = 3
    padding: Annotated[int, Field(ge=0)] = Field(
        default_factory=lambda given: 0 if given.get("kernel") == 3 else given.get("kernel", 3) // 2
    )
    widths: Widths = (8, 16, 32)
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
            terms += [
                cost.conv(f"stage {i} conv", *shape, self.kernel, [size], bias=True),
                cost.batch_norm(f"stage {i} norm", shape[1], [size]),
            ]
        hidden = cost.linear("hidden", self._features(image_shape), self.hidden)
        return Cost((*terms, hidden, cost.linear("head", self.hidden, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """With PyTorch's default initial weights, as the authors have it."""
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
