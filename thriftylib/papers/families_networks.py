"""Networks in stages, made from torchvision's blocks, whose units can be looked at one by one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.efficientnet import EfficientNet, MBConv, MBConvConfig
from torchvision.models.resnet import Bottleneck, conv1x1, conv3x3

from thriftylib.papers.networks_parts import conv_shortcut


class DenseLayer(nn.Sequential):
    """Batch norm, ReLU and 3x3 convolution: (N, C, H, W) to its ``growth`` new channels alone, (N, growth, H, W)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__(nn.BatchNorm2d(inputs), nn.ReLU(inplace=True), conv3x3(inputs, growth))


class DenseBlock(nn.ModuleList):
    """Dense layers, each of which reads all channels before it."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C + layers * growth, H, W)."""
        for layer in self:
            x = torch.cat((x, layer(x)), 1)  # one copy a layer; its backward is a view and one addition
        return x


class Unit(NamedTuple):
    """A unit of a network in stages: a dense layer or a residual block.

    torchvision's blocks add the shortcut in place: within a forward hook the output of ``branch`` is the branch's own,
    afterwards the same tensor holds the sum.
    """

    name: str  # of its module in network.named_modules()
    stage: int  # from 0
    module: nn.Module  # residual: (N, C, H, W) to (N, C', H', W'); dense: to its new channels alone (N, growth, H, W)
    branch: nn.Module | None  # residual: the module whose output is added to the shortcut; dense: None
    skippable: bool  # residual: the shortcut is the identity; dense: True, its new channels can be zeroed


class StagedNetwork(nn.Module):
    """A stem, stages of units and a head: (N, C, H, W) to (N, classes) logits."""

    def __init__(self, stem: nn.Module, stages: Iterable[nn.Module], head: nn.Module) -> None:
        super().__init__()
        self.stem, self.stages, self.head = stem, nn.Sequential(*stages), head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))

    def units(self) -> list[Unit]:
        """The units in the order of a forward pass."""
        units = []
        for stage, modules in enumerate(self.stages):
            for name, module in modules.named_modules(prefix=f"stages.{stage}"):
                if isinstance(module, DenseLayer):
                    units.append(Unit(name, stage, module, None, True))
                elif isinstance(module, Bottleneck):
                    units.append(Unit(name, stage, module, module.bn3, module.downsample is None))
                elif isinstance(module, MBConv):
                    units.append(Unit(name, stage, module, module.block, module.use_res_connect))
        return units


def densenet(
    channels: int, stem: int, stem_stride: int, blocks: Sequence[tuple[int, int]], growth: int, classes: int
) -> StagedNetwork:
    """A DenseNet without bottlenecks; ``blocks`` are the channels before and behind each dense block."""
    stages, before = [], 0
    for inputs, outputs in blocks:
        transition = [*_norm_relu(before), conv1x1(before, inputs), nn.AvgPool2d(2)] if stages else []
        layers = (DenseLayer(features, growth) for features in range(inputs, outputs, growth))
        stages.append(nn.Sequential(*transition, DenseBlock(layers)))
        before = outputs
    head = nn.Sequential(*_norm_relu(before), *_mean_linear(before, classes))
    return _he_normal(StagedNetwork(conv3x3(channels, stem, stem_stride), stages, head))


def bottleneck_network(
    channels: int, stem: str, planes: int, groups: int, base_width: int, layers: Sequence[int], classes: int
) -> StagedNetwork:
    """A ResNet or ResNeXt of ``layers`` bottleneck blocks a stage, with the stem "3x3" or "7x7".

    ``planes`` are the channels of the stem and a quarter of those of the first stage's blocks; they double from stage
    to stage. A group of a block's 3x3 convolution has planes * base_width / 64 channels.
    """
    if stem == "3x3":
        first = [conv3x3(channels, planes), nn.BatchNorm2d(planes), nn.ReLU(inplace=True)]
    else:
        conv = nn.Conv2d(channels, planes, 7, stride=2, padding=3, bias=False)
        first = [conv, nn.BatchNorm2d(planes), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)]
    stages, inputs = [], planes
    for stage, blocks in enumerate(layers):
        units = []
        for block in range(blocks):
            stride, outputs = 2 if stage and not block else 1, 4 * planes << stage
            shortcut = None if block else conv_shortcut(inputs, outputs, stride)
            units.append(Bottleneck(inputs, planes << stage, stride, shortcut, groups, base_width))
            inputs = outputs
        stages.append(nn.Sequential(*units))
    return _he_normal(StagedNetwork(nn.Sequential(*first), stages, nn.Sequential(*_mean_linear(inputs, classes))))


def efficientnet(
    channels: int,
    stem_stride: int,
    stages: Iterable[tuple[int, int, int, int, int, int]],
    dropout: float,
    classes: int,
) -> StagedNetwork:
    """torchvision's EfficientNet; ``stages``: expansion, kernel, stride, inputs, outputs and blocks of each."""
    network = EfficientNet([MBConvConfig(*stage) for stage in stages], dropout, num_classes=classes)
    stem, *middle, last = network.features
    stem[0] = conv3x3(channels, stem[0].out_channels, stem_stride)
    nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
    return StagedNetwork(stem, middle, nn.Sequential(last, network.avgpool, nn.Flatten(), network.classifier))


def _norm_relu(features: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(features), nn.ReLU(inplace=True)]


def _mean_linear(features: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, classes)]


def _he_normal(network: StagedNetwork) -> StagedNetwork:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
