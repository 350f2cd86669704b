"""Ordinary networks that the papers compare theirs with, made from torchvision's parts, for small images.

Beside them is a measurement of any trained network, which is no paper's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from thriftylib import cost
from thriftylib.cost import Cost, Size, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, MethodOptions, NetworkOptions
from thriftylib.schedules import Count
from thriftylib.spec import NO_NETWORK

if TYPE_CHECKING:
    from torch import nn

    from thriftylib.papers.networks_statistics import NormStatistics

Counts = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]
VGG_STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels and convolutions of each stage


class NoNetworkOptions(NetworkOptions, network=NO_NETWORK):
    """No network: what a run that measures a data set alone says in its place."""

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        return Cost(())

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        from torch import nn

        return nn.Identity()


def conv_norm_terms(
    name: str, inputs: int, outputs: int, size: Size, *, kernel: int = 3, groups: int = 1, bias: bool = False
) -> list[Term]:
    """The cost of a convolution that gives maps of ``size`` (H, W), and of the batch norm after it."""
    conv = cost.conv(f"{name} conv", inputs, outputs, kernel, [size], groups=groups, bias=bias)
    return [conv, cost.batch_norm(f"{name} norm", outputs, [size])]


def resnet_terms(
    image_shape: ImageShape, widths: Sequence[int], *, conv_shortcuts: bool
) -> tuple[list[Term], ImageShape]:
    """The cost of a 3x3 stem and one ``BasicBlock`` after another, and the shape (C, H, W) that they hand over.

    Args:
        widths: channels of the stem, then of each block; where they double, the block has stride 2. None: no layer.
        conv_shortcuts: whether the shortcut there is a 1x1 convolution with batch norm; else it costs nothing.
    """
    terms, (inputs, *size) = [], image_shape
    for i, outputs in enumerate(widths):
        if not i:
            terms += conv_norm_terms("stem", inputs, outputs, size)
        else:
            size = [-(-pixels // (outputs // inputs)) for pixels in size]
            terms += conv_norm_terms(f"block {i} first", inputs, outputs, size)
            terms += conv_norm_terms(f"block {i} second", outputs, outputs, size)
            if conv_shortcuts and outputs > inputs:
                terms += conv_norm_terms(f"block {i} shortcut", inputs, outputs, size, kernel=1)
        inputs = outputs
    return terms, (inputs, *size)


def check_size(option: str, halvings: int, image_shape: ImageShape) -> None:
    """Check that images can be halved so often; ``option``, such as "pools = 5", is what asks for it.

    Raises:
        SpecError: a map smaller than 2x2 would have to be halved.
    """
    _, height, width = image_shape
    if min(height, width) < 2**halvings:
        raise SpecError(f"{option}: needs images of at least {2**halvings}x{2**halvings}, not {height}x{width}")


class NormInitOptions(NetworkOptions):
    """Networks whose batch norms may be initialised as in the PyTorch of their paper's day.

    ``norm_init``: the initial weights of batch norms. "ones" is today's default; "uniform" draws them from 0 to 1,
    PyTorch's default up to version 1.1 (1.2, of August 2019, made it ones). It is left out of a run's text where it is
    "ones", because it came after the first records. (ExpandNets' method has the same choice under its first name,
    ``norm_start``, which its recorded runs keep.)
    """

    norm_init: Literal["ones", "uniform"] = Field("ones", exclude_if=lambda value: value == "ones")

    def with_norms(self, network: nn.Module) -> nn.Module:
        """``network``, freshly built, with its batch norms initialised as ``norm_init`` says."""
        from thriftylib.papers.networks_parts import uniform_norms

        return uniform_norms(network) if self.norm_init == "uniform" else network


class ResNetOptions(NormInitOptions):
    """torchvision's ResNet for small images: a 3x3 stem with stride 1 and no max-pool in it; stages of 64 to 512."""

    blocks: ClassVar[tuple[int, ...]]  # in each of the four stages

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """11,173,962 parameters for ResNet-18, 21,282,122 for ResNet-34; RGB images and 10 classes."""
        widths = [64, *(64 * 2**stage for stage, blocks in enumerate(self.blocks) for _ in range(blocks))]
        terms, _ = resnet_terms(image_shape, widths, conv_shortcuts=True)
        return Cost((*terms, cost.linear("head", widths[-1], classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """With PyTorch's default initialisation, as the papers' networks beside it; batch norms by ``norm_init``."""
        from torch import nn
        from torchvision.models.resnet import BasicBlock, ResNet, conv3x3

        from thriftylib.papers.networks_parts import default_initialisation

        network = ResNet(BasicBlock, list(self.blocks), num_classes=classes)
        network.conv1 = conv3x3(image_shape[0], 64)
        network.maxpool = nn.Identity()
        return self.with_norms(default_initialisation(network))


class ResNet18Options(ResNetOptions, network="resnet18"):
    """ResNet-18 (He et al., 2015) with the small stem."""

    blocks = (2, 2, 2, 2)


class ResNet34Options(ResNetOptions, network="resnet34"):
    """ResNet-34 (He et al., 2015) with the small stem."""

    blocks = (3, 4, 6, 3)


class Vgg16BnOptions(NormInitOptions, network="vgg16-bn"):
    """torchvision's VGG16 (Simonyan & Zisserman, 2014) with batch norm, and one linear layer in place of three."""

    pools: Annotated[int, Field(ge=1, le=5)] = 5  # fewer: the last stages do not pool (for images under 32x32)

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """14,728,266 parameters for RGB images and 10 classes; the convolutions have biases."""
        check_size(f"pools = {self.pools}", self.pools, image_shape)
        inputs, height, width = image_shape
        terms: list[Term] = []
        for stage, (outputs, convs) in enumerate(VGG_STAGES):
            size = (height >> min(stage, self.pools), width >> min(stage, self.pools))
            for i in range(convs):
                terms += conv_norm_terms(f"stage {stage} layer {i}", inputs, outputs, size, bias=True)
                inputs = outputs
        return Cost((*terms, cost.linear("head", inputs, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """With PyTorch's default initialisation, as the papers' networks beside it; batch norms by ``norm_init``."""
        from torch import nn
        from torchvision.models.vgg import make_layers

        self.cost(image_shape, classes)
        plan: list[int | str] = []
        for stage, (width, convs) in enumerate(VGG_STAGES):
            plan += [width] * convs + ["M"] * (stage < self.pools)
        features = make_layers(plan, batch_norm=True)
        features[0] = nn.Conv2d(image_shape[0], features[0].out_channels, 3, padding=1)
        network = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
        return self.with_norms(network)


class TinyResNetOptions(NetworkOptions, network="tiny-resnet"):
    """The CIFAR ResNet of He et al. (2015, section 4.2): 6 ``blocks`` + 2 layers, ``width`` channels in stage 1.

    The defaults are the ThriftyNet authors' baseline: ResNet-20 with 8-16-32 instead of 16-32-64 channels.
    """

    width: Annotated[int, Field(ge=2, multiple_of=2)] = 8
    blocks: Count = 3  # in each of the three stages

    @property
    def widths(self) -> list[int]:
        """Channels of the stem, then of each block."""
        return [self.width, *(self.width * 2**stage for stage in range(3) for _ in range(self.blocks))]

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """68,050 parameters for the defaults, RGB images and 10 classes."""
        terms, _ = resnet_terms(image_shape, self.widths, conv_shortcuts=False)
        return Cost((*terms, cost.linear("head", 4 * self.width, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """Convolutions and the head are initialised Kaiming-normal, as in the authors' baseline."""
        from thriftylib.papers.networks_parts import tiny_resnet

        return tiny_resnet(image_shape[0], self.widths, classes)


class PreActResNetOptions(NetworkOptions, network="preact-resnet"):
    """The pre-activation ResNet of He et al. (2016) for small images: 9 ``blocks`` + 2 layers, bottlenecks throughout.

    ``inner`` are the channels of each block's 3x3 convolution, at its inputs and outputs.
    """

    blocks: Count = 18  # in each of the three stages; 18: ResNet-164
    inner: Counts = Field(
        default_factory=lambda given: tuple(16 * 2**stage for stage in range(3) for _ in range(given.get("blocks", 1)))
    )

    def _shapes(self) -> list[tuple[int, int, int, int]]:
        if len(self.inner) != 3 * self.blocks:
            raise SpecError(f"inner: {len(self.inner)} widths; must be {3 * self.blocks}, one for each block")
        outputs = [64 * 2**stage for stage in range(3) for _ in range(self.blocks)]
        strides = [2 if i and not i % self.blocks else 1 for i in range(3 * self.blocks)]
        return list(zip((16, *outputs[:-1]), self.inner, outputs, strides, strict=True))

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """1,703,258 parameters for the defaults, RGB images and 10 classes."""
        check_size("stages = 3", 2, image_shape)
        size = image_shape[1:]
        terms = [cost.conv("stem", image_shape[0], 16, 3, [size])]
        for i, (inputs, inner, outputs, stride) in enumerate(self._shapes()):
            small = (-(-size[0] // stride), -(-size[1] // stride))
            terms += [cost.batch_norm(f"block {i} norm", inputs, [size])]
            terms += conv_norm_terms(f"block {i} first", inputs, inner, size, kernel=1)
            terms += conv_norm_terms(f"block {i} second", inner, inner, small)
            terms += [cost.conv(f"block {i} third", inner, outputs, 1, [small])]
            terms += [cost.conv(f"block {i} shortcut", inputs, outputs, 1, [small])] * (inputs != outputs)
            size = small
        return Cost((*terms, cost.batch_norm("norm", 256, [size]), cost.linear("head", 256, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """Convolutions He-normal by fan-out, batch norms of weight 0.5, as UCP's authors have it."""
        from thriftylib.papers.networks_narrowable import PreActResNet

        self.cost(image_shape, classes)
        return PreActResNet(image_shape[0], 16, self._shapes(), classes)


class TinyDenseNetOptions(NetworkOptions, network="tiny-densenet"):
    """DenseNet-BC (Huang et al., 2017) for small images: a 3x3 stem of 2 x ``growth`` channels and no pooling in it.

    The defaults are the ThriftyNet authors' baseline: half the layers of DenseNet-121, growth 12.
    """

    growth: Count = 12  # channels that each layer adds
    layers: Counts = (3, 6, 12, 8)  # of each dense block; between blocks, channels and map are halved

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """331,925 parameters for the defaults, RGB images and 10 classes."""
        check_size(f"layers = {self.layers}", len(self.layers) - 1, image_shape)
        size, features, bottleneck = image_shape[1:], 2 * self.growth, 4 * self.growth
        terms = [cost.conv("stem", image_shape[0], features, 3, [size])]
        for block, layers in enumerate(self.layers):
            for layer in range(layers):
                name = f"block {block} layer {layer}"
                terms += [cost.batch_norm(f"{name} norm", features, [size])]
                terms += conv_norm_terms(f"{name} bottleneck", features, bottleneck, size, kernel=1)
                terms += [cost.conv(f"{name} conv", bottleneck, self.growth, 3, [size])]
                features += self.growth
            terms += [cost.batch_norm(f"block {block} norm", features, [size])]  # the transition's; the head's, at last
            if block < len(self.layers) - 1:
                terms += [cost.conv(f"transition {block}", features, features // 2, 1, [size])]
                size, features = (size[0] // 2, size[1] // 2), features // 2
        return Cost((*terms, cost.linear("head", features, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """torchvision's DenseNet with the small stem and, as in the authors' baseline, PyTorch's initialisation."""
        from torchvision.models import DenseNet
        from torchvision.models.resnet import conv3x3

        from thriftylib.papers.networks_parts import default_initialisation

        self.cost(image_shape, classes)
        features = 2 * self.growth
        network = DenseNet(self.growth, self.layers, features, num_classes=classes)
        network.features.conv0 = conv3x3(image_shape[0], features)
        del network.features.norm0, network.features.relu0, network.features.pool0
        return default_initialisation(network)


class NormStatisticsOptions(MethodOptions, method="norm-statistics"):
    """Measure only: a trained network's test accuracy with three kinds of batch-norm statistics."""

    def start(self) -> NormStatistics:
        """The hooks of one run."""
        from thriftylib.papers.networks_statistics import NormStatistics

        return NormStatistics()
