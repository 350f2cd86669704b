"""Less Is More: neurons are removed while a network is trained, by sparse constraints on each neuron's weights.

Zhou, Alvarez, Porikli, "Less Is More: Towards Compact CNNs" (ECCV 2016; DOI 10.1007/978-3-319-46493-0_40). To the loss
comes, for each constrained layer, a strength tau times the sum of g over its neurons: filters of a convolution, rows of
a linear layer. A step of SGD with learning rate eta is followed by the proximal operator of g with step t = eta tau:

- group sparsity: g is the Euclidean norm, and w <- max(0, 1 - t / norm) w: exactly zero where the norm is at most t;
- tensor low rank: g is the mean of the nuclear norms of the three unfoldings of a filter (k x k x C). Its operator has
  no closed form; the mean of the three unfoldings with soft-thresholded singular values approximates it.

What is known of the paper comes from its abstract, table 1 and public reading notes: strengths and schedules are ours,
and so is every READING below. The networks are those of the Caffe examples that the table's counts fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from thriftylib import cost
from thriftylib.cost import Cost, Size
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, MethodOptions, NetworkOptions
from thriftylib.schedules import Count

if TYPE_CHECKING:
    from torch import nn

    from thriftylib.papers.less_is_more_method import LessIsMore
    from thriftylib.spec import Run

Strength = Annotated[float, Field(ge=0)]


class LessIsMoreOptions(MethodOptions, method="less-is-more"):
    """Constrain the neurons of ``layers`` while training, and remove those that became zero; the defaults do nothing.

    Both strengths above zero: first low rank, then group sparsity (READING).
    """

    group_sparsity: Strength = 0.0  # tau; there is no factor for the size of a group (READING)
    low_rank: Strength = 0.0  # tau; on linear layers the same as group sparsity
    layers: Annotated[tuple[str, ...], Field(strict=False)] = ()  # by name, such as ip1; empty: all but the classifier
    # READING: within, a neuron is its weights and its bias, so that what a zero neuron hands on is zero. outside: the
    # bias is not constrained, and a neuron without weights stays as long as it hands on a constant.
    bias: Literal["within", "outside"] = "within"
    clear_momentum: bool = True  # of a neuron at zero: momentum keeps neurons from dying (reading notes)
    constrained_epochs: Count | None = None  # then what is left trains on without constraint; None: to the end

    def check(self, run: Run) -> None:
        if self.constrained_epochs is not None and self.constrained_epochs >= run.epochs:
            raise SpecError(f"constrained_epochs = {self.constrained_epochs}: must be below the recipe's {run.epochs}")

    def start(self) -> LessIsMore:
        """The hooks of one training."""
        from thriftylib.papers.less_is_more_method import LessIsMore

        return LessIsMore(self)


@dataclass(frozen=True)
class Layer:
    """One layer of a Caffe network; names of others than convolutions and linear layers are free."""

    kind: Literal["conv", "linear", "max", "average", "relu", "lrn", "dropout"]
    name: str
    outputs: int = 0
    kernel: int = 0
    stride: int = 1
    padding: int = 0
    groups: int = 1
    std: float | None = None  # of the first weights, Gaussian; None: Caffe's xavier, uniform within sqrt(3 / fan-in)
    bias: float = 0.0  # all of the first biases

    def size(self, size: Size) -> Size:
        """Of its maps, (H, W); pools round up, as Caffe's do."""
        if self.kind == "conv":
            return tuple((pixels + 2 * self.padding - self.kernel) // self.stride + 1 for pixels in size)
        if self.kind in ("max", "average"):
            return tuple(-(-(pixels - self.kernel) // self.stride) + 1 for pixels in size)
        return size


class CaffeOptions(NetworkOptions):
    """A network as a table of layers, from which both its cost and its modules follow."""

    def layers(self, classes: int) -> list[Layer]:
        """From the image to the logits."""
        raise NotImplementedError

    def placed(self, image_shape: ImageShape, classes: int) -> Iterator[tuple[Layer, int, Size]]:
        """Each layer, the channels or features that it reads, and the size (H, W) of its maps; () once flattened.

        Raises:
            SpecError: the images are too small.
        """
        inputs, *size = image_shape
        for layer in self.layers(classes):
            if layer.kind == "linear":
                inputs, size = inputs * (size[0] * size[1] if size else 1), ()
            else:
                size = layer.size(size)
                if size and min(size) < 1:
                    images = f"network {self.network}: images of {image_shape[1]}x{image_shape[2]}"
                    raise SpecError(f"{images} are too small; nothing is left of them at {layer.name}")
            yield layer, inputs, size
            inputs = layer.outputs or inputs

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """With the biases of all layers; pools, ReLU and normalisation across channels cost nothing in our counting."""
        terms = []
        for layer, inputs, size in self.placed(image_shape, classes):
            shape = (layer.name, inputs, layer.outputs)
            if layer.kind == "linear":
                terms.append(cost.linear(*shape))
            elif layer.kind == "conv":
                terms.append(cost.conv(*shape, layer.kernel, [size], groups=layer.groups, bias=True))
        return Cost(tuple(terms))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """A chain of named layers with Caffe's first weights."""
        from thriftylib.papers.less_is_more_networks import chain

        return chain(list(self.placed(image_shape, classes)))


class LeNetOptions(CaffeOptions, network="caffe-lenet"):
    """Caffe's LeNet (``examples/mnist/lenet_train_test.prototxt``): 431,080 parameters for 28x28 grey images.

    Its convolutions are followed by a pool and by nothing else; ``relu`` puts a ReLU there.
    """

    widths: Annotated[tuple[Count, Count], Field(strict=False)] = (20, 50)
    hidden: Count = 500
    relu: bool = False
    padding: Annotated[int, Field(ge=0)] = 0  # Caffe: 0; more for smaller images

    def layers(self, classes: int) -> list[Layer]:
        table = []
        for i, width in enumerate(self.widths, start=1):
            table += [Layer("conv", f"conv{i}", width, 5, padding=self.padding), Layer("max", f"pool{i}", 0, 2, 2)]
            table += [Layer("relu", f"relu{i}")] * self.relu
        return [*table, *_rectified("linear", "ip1", self.hidden), Layer("linear", "ip2", classes)]


class Cifar10QuickOptions(CaffeOptions, network="cifar10-quick"):
    """Caffe's CIFAR-10 quick (``examples/cifar10/cifar10_quick_train_test.prototxt``): 145,578 parameters.

    Its first linear layer has no ReLU; ``relu`` puts one there.
    """

    widths: Annotated[tuple[Count, Count, Count], Field(strict=False)] = (32, 32, 64)
    hidden: Count = 64
    relu: bool = False

    def layers(self, classes: int) -> list[Layer]:
        first, second, third = self.widths
        return [
            Layer("conv", "conv1", first, 5, padding=2, std=1e-4),
            Layer("max", "pool1", 0, 3, 2),
            Layer("relu", "relu1"),
            *_rectified("conv", "conv2", second, 5, padding=2, std=0.01),
            Layer("average", "pool2", 0, 3, 2),
            *_rectified("conv", "conv3", third, 5, padding=2, std=0.01),
            Layer("average", "pool3", 0, 3, 2),
            *_rectified("linear", "ip1", self.hidden, std=0.1)[: 1 + self.relu],
            Layer("linear", "ip2", classes, std=0.1),
        ]


class AlexNetOptions(CaffeOptions, network="caffe-alexnet"):
    """Caffe's AlexNet (``models/bvlc_alexnet``), with its groups: 60,965,224 parameters for 227x227 and 1,000 classes.

    ``small``: for images of 32x32, a first convolution of 5x5 and stride 1 (ours).
    """

    hidden: Annotated[tuple[Count, Count], Field(strict=False)] = (4096, 4096)
    small: bool = False

    def layers(self, classes: int) -> list[Layer]:
        fc6, fc7 = self.hidden
        first = {"kernel": 5, "padding": 2} if self.small else {"kernel": 11, "stride": 4}
        return [
            *_rectified("conv", "conv1", 96, **first, std=0.01),
            Layer("lrn", "norm1"),
            Layer("max", "pool1", 0, 3, 2),
            *_rectified("conv", "conv2", 256, 5, padding=2, groups=2, std=0.01, bias=0.1),
            Layer("lrn", "norm2"),
            Layer("max", "pool2", 0, 3, 2),
            *_rectified("conv", "conv3", 384, 3, padding=1, std=0.01),
            *_rectified("conv", "conv4", 384, 3, padding=1, groups=2, std=0.01, bias=0.1),
            *_rectified("conv", "conv5", 256, 3, padding=1, groups=2, std=0.01, bias=0.1),
            Layer("max", "pool5", 0, 3, 2),
            *_rectified("linear", "fc6", fc6, std=0.005, bias=0.1),
            Layer("dropout", "drop6"),
            *_rectified("linear", "fc7", fc7, std=0.005, bias=0.1),
            Layer("dropout", "drop7"),
            Layer("linear", "fc8", classes, std=0.01),
        ]


class Vgg13Options(CaffeOptions, network="vgg13"):
    """Configuration B of the VGG paper, without batch norm: 133,047,848 parameters for 224x224 and 1,000 classes.

    READINGs: the paper's VGG-13 is this one, as its table's counts confirm; first weights are Caffe's xavier.
    """

    hidden: Annotated[tuple[Count, Count], Field(strict=False)] = (4096, 4096)

    def layers(self, classes: int) -> list[Layer]:
        table = []
        for stage, width in enumerate((64, 128, 256, 512, 512), start=1):
            for i in (1, 2):
                table += _rectified("conv", f"conv{stage}_{i}", width, 3, padding=1)
            table += [Layer("max", f"pool{stage}", 0, 2, 2)]
        for i, width in zip((6, 7), self.hidden, strict=True):
            table += [*_rectified("linear", f"fc{i}", width), Layer("dropout", f"drop{i}")]
        return [*table, Layer("linear", "fc8", classes)]


def _rectified(kind: Literal["conv", "linear"], name: str, *shape: int, **more: float) -> list[Layer]:
    """A layer and the ReLU after it."""
    return [Layer(kind, name, *shape, **more), Layer("relu", f"relu_{name}")]
