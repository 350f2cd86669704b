"""Ordinary networks that the papers compare theirs with, made from torchvision's parts, for small images."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import DenseNet
from torchvision.models.resnet import BasicBlock, ResNet, conv1x1, conv3x3
from torchvision.models.vgg import cfgs, make_layers

from thriftylib import cost
from thriftylib.cost import Cost, Size, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, NetworkOptions
from thriftylib.spec import NO_NETWORK, Count

Counts = Annotated[tuple[Count, ...], Field(strict=False, min_length=1)]


class NoNetworkOptions(NetworkOptions, network=NO_NETWORK):
    """No network: what a run that measures a data set alone says in its place."""

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        return Cost(())

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        return nn.Identity()


class PadShortcut(nn.Module):
    """Option A of He et al. (2015, section 3.3): every second pixel, zero channels on both sides, no parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + 2 channels, ceil(H / 2), ceil(W / 2))."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.channels, self.channels))


def conv_shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Option B of He et al. (2015, section 3.3): a strided 1x1 convolution and a batch norm."""
    return nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


def basic_block_terms(
    name: str, inputs: int, outputs: int, size: Size, *, stride: int = 1, shortcut: bool = False
) -> tuple[list[Term], Size]:
    """The cost of a ``BasicBlock`` on maps of ``size``, perhaps with a :func:`conv_shortcut`, and its output's size."""
    halved = (-(-size[0] // stride), -(-size[1] // stride))
    terms = [
        cost.conv(f"{name} conv1", inputs, outputs, 3, [halved]),
        cost.conv(f"{name} conv2", outputs, outputs, 3, [halved]),
        cost.batch_norm(f"{name} norms", outputs, [halved] * (3 if shortcut else 2)),
    ]
    if shortcut:
        terms += [cost.conv(f"{name} shortcut", inputs, outputs, 1, [halved])]
    return terms, halved


class NormInitOptions(NetworkOptions):
    """Networks whose batch norms may start as they did in the PyTorch of their paper's day.

    ``norm_init``: where the weights of batch norms start. "ones" is today's default; "uniform" draws them from 0 to 1,
    PyTorch's default up to version 1.1 (1.2, of August 2019, made it ones). It is left out of a run's text where it is
    "ones", because it came after the first records. (ExpandNets' method has the same choice under its first name,
    ``norm_start``, which its recorded runs keep.)
    """

    norm_init: Literal["ones", "uniform"] = Field("ones", exclude_if=lambda value: value == "ones")

    def with_norms(self, network: nn.Module) -> nn.Module:
        """``network``, freshly built, with its batch norms' weights as ``norm_init`` says."""
        return uniform_norms(network) if self.norm_init == "uniform" else network


def uniform_norms(network: nn.Module) -> nn.Module:
    """``network`` with the weights of its affine batch norms drawn between 0 and 1 by PyTorch's own generator."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight)
    return network


class ResNetOptions(NormInitOptions):
    """torchvision's ResNet for small images: a 3x3 stem with stride 1 and no max-pool in it; stages of 64 to 512."""

    blocks: ClassVar[tuple[int, ...]]  # in each of the four stages

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """11,173,962 parameters for ResNet-18, 21,282,122 for ResNet-34; RGB images and 10 classes."""
        channels, height, width = image_shape
        size, inputs = (height, width), 64
        terms = [cost.conv("stem conv", channels, 64, 3, [size]), cost.batch_norm("stem norm", 64, [size])]
        for stage, blocks in enumerate(self.blocks):
            outputs = 64 * 2**stage
            for i in range(blocks):
                grows = outputs != inputs
                name = f"stage {stage} block {i}"
                block, size = basic_block_terms(name, inputs, outputs, size, stride=2 if grows else 1, shortcut=grows)
                terms, inputs = terms + block, outputs
        return Cost((*terms, cost.linear("head", inputs, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """With PyTorch's default initial weights, as the papers' networks beside it; batch norms by ``norm_init``."""
        network = ResNet(BasicBlock, list(self.blocks), num_classes=classes)
        network.conv1 = conv3x3(image_shape[0], 64)
        network.maxpool = nn.Identity()
        return self.with_norms(default_start(network))


class ResNet18Options(ResNetOptions, network="resnet18"):
    """ResNet-18 (He et al., 2015) with the small stem."""

    blocks = (2, 2, 2, 2)


class ResNet34Options(ResNetOptions, network="resnet34"):
    """ResNet-34 (He et al., 2015) with the small stem."""

    blocks = (3, 4, 6, 3)


class Vgg16BnOptions(NormInitOptions, network="vgg16-bn"):
    """torchvision's VGG16 (Simonyan & Zisserman, 2014) with batch norm, and one linear layer in place of three."""

    pools: Annotated[int, Field(ge=1, le=5)] = 5  # fewer: the last stages do not pool (for images under 32x32)

    @property
    def plan(self) -> list[int | str]:
        """Output channels of each convolution, "M" for a max-pool."""
        plan, pools = [], 0
        for layer in cfgs["D"]:
            pools += layer == "M"
            if layer != "M" or pools <= self.pools:
                plan.append(layer)
        return plan

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """14,728,266 parameters for RGB images and 10 classes; the convolutions have biases.

        Raises:
            SpecError: a map smaller than 2x2 would have to be halved.
        """
        inputs, height, width = image_shape
        least = 2**self.pools
        if min(height, width) < least:
            raise SpecError(f"pools = {self.pools}: needs images of at least {least}x{least}, not {height}x{width}")
        terms: list[Term] = []
        for i, layer in enumerate(self.plan):
            if layer == "M":
                height, width = height // 2, width // 2
                continue
            terms += [
                cost.conv(f"conv {i}", inputs, layer, 3, [(height, width)], bias=True),
                cost.batch_norm(f"norm {i}", layer, [(height, width)]),
            ]
            inputs = layer
        return Cost((*terms, cost.linear("head", inputs, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """With PyTorch's default initial weights, as the papers' networks beside it; batch norms by ``norm_init``."""
        self.cost(image_shape, classes)
        features = make_layers(self.plan, batch_norm=True)
        features[0] = nn.Conv2d(image_shape[0], features[0].out_channels, 3, padding=1)
        network = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
        return self.with_norms(network)


def default_start(network: nn.Module) -> nn.Module:
    """``network`` with PyTorch's default initial weights in its convolutions and linear layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    return network


class TinyResNetOptions(NetworkOptions, network="tiny-resnet"):
    """The CIFAR ResNet of He et al. (2015, section 4.2): 6 ``blocks`` + 2 layers, ``width`` channels in stage 1.

    The defaults are the ThriftyNet authors' baseline: ResNet-20 with 8-16-32 instead of 16-32-64 channels.
    """

    width: Annotated[int, Field(ge=2, multiple_of=2)] = 8
    blocks: Count = 3  # in each of the three stages

    def _plan(self) -> list[tuple[int, int, int]]:
        """(input channels, output channels, stride) of each block."""
        widths = [self.width * 2**stage for stage in range(3) for _ in range(self.blocks)]
        return [(before, after, after // before) for before, after in zip([self.width, *widths], widths, strict=False)]

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """68,050 parameters for the defaults, RGB images and 10 classes."""
        channels, *pixels = image_shape
        size = (pixels[0], pixels[1])
        terms = [
            cost.conv("stem conv", channels, self.width, 3, [size]),
            cost.batch_norm("stem norm", self.width, [size]),
        ]
        for i, (inputs, outputs, stride) in enumerate(self._plan()):
            block, size = basic_block_terms(f"block {i}", inputs, outputs, size, stride=stride)
            terms += block
        return Cost((*terms, cost.linear("head", 4 * self.width, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """Convolutions and the head start Kaiming-normal, as in the authors' baseline."""
        blocks = [
            BasicBlock(inputs, outputs, stride, PadShortcut((outputs - inputs) // 2) if stride > 1 else None)
            for inputs, outputs, stride in self._plan()
        ]
        network = nn.Sequential(
            conv3x3(image_shape[0], self.width),
            nn.BatchNorm2d(self.width),
            nn.ReLU(inplace=True),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * self.width, classes),
        )
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        return network


class TinyDenseNetOptions(NetworkOptions, network="tiny-densenet"):
    """DenseNet-BC (Huang et al., 2017) for small images: a 3x3 stem of 2 x ``growth`` channels and no pooling in it.

    The defaults are the ThriftyNet authors' baseline: half the layers of DenseNet-121, growth 12.
    """

    growth: Count = 12  # channels that each layer adds
    layers: Counts = (3, 6, 12, 8)  # of each dense block; between blocks, channels and map are halved

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """331,925 parameters for the defaults, RGB images and 10 classes.

        Raises:
            SpecError: a map smaller than 2x2 would have to be halved.
        """
        channels, height, width = image_shape
        least = 2 ** (len(self.layers) - 1)
        if min(height, width) < least:
            raise SpecError(f"layers = {self.layers}: needs images of at least {least}x{least}, not {height}x{width}")
        size, features = (height, width), 2 * self.growth
        terms = [cost.conv("stem", channels, features, 3, [size])]
        for block, layers in enumerate(self.layers):
            for layer in range(layers):
                name = f"block {block} layer {layer}"
                terms += [
                    cost.batch_norm(f"{name} norm1", features, [size]),
                    cost.conv(f"{name} conv1", features, 4 * self.growth, 1, [size]),
                    cost.batch_norm(f"{name} norm2", 4 * self.growth, [size]),
                    cost.conv(f"{name} conv2", 4 * self.growth, self.growth, 3, [size]),
                ]
                features += self.growth
            terms += [
                cost.batch_norm(f"block {block} norm", features, [size])
            ]  # the transition's; the head's at the end
            if block < len(self.layers) - 1:
                terms += [cost.conv(f"transition {block}", features, features // 2, 1, [size])]
                size, features = (size[0] // 2, size[1] // 2), features // 2
        return Cost((*terms, cost.linear("head", features, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """torchvision's DenseNet with the small stem and, as in the authors' baseline, PyTorch's default start."""
        self.cost(image_shape, classes)
        features = 2 * self.growth
        network = DenseNet(self.growth, self.layers, features, num_classes=classes)
        network.features.conv0 = conv3x3(image_shape[0], features)
        del network.features.norm0, network.features.relu0, network.features.pool0
        return default_start(network)
