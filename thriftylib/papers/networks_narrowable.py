"""VGG and ResNets of any widths, whose layers know what reads them: for papers that remove channels.

Behind a convolution there may be a gate, a module that a paper makes from the number of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import conv1x1, conv3x3, resnet18, resnet34

from thriftylib.narrowing import narrow

Gate = Callable[[int], nn.Module]


def no_gate(channels: int) -> nn.Module:
    """Nothing in the place of a gate."""
    return nn.Identity()


class Layer(NamedTuple):
    """A layer that may be narrowed: its convolution, the gate behind it, and what reads its outputs."""

    name: str
    conv: nn.Conv2d
    gate: nn.Module
    readers: Sequence[nn.Module]


class NarrowableNetwork(nn.Module):
    """A network with layers to narrow, and a way to draw its weights anew whatever their shapes have become."""

    norm_weight = 1.0
    linear_std: float | None = None  # None: PyTorch's default

    def layers(self) -> list[Layer]:
        """The layers that may be narrowed, in the order of a forward pass."""
        raise NotImplementedError

    def draw(self) -> None:
        """Draw all weights by PyTorch's own generator: convolutions He-normal by the fan-out that they have now."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.reset_parameters()
                nn.init.constant_(module.weight, self.norm_weight)
            elif isinstance(module, nn.Linear):
                module.reset_parameters()
                if self.linear_std is not None:
                    nn.init.normal_(module.weight, std=self.linear_std)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)


class Vgg(NarrowableNetwork):
    """Convolutions, gates and batch norms, max-pools behind some; a mean over the map; one or two linear layers."""

    norm_weight = 0.5
    linear_std = 0.01

    def __init__(
        self, channels: int, widths: Iterable[int], pooled: Sequence[bool], hidden: int, classes: int, gate: Gate
    ) -> None:
        """``pooled``: whether a max-pool follows each convolution; ``hidden``: units between linear layers, or 0."""
        super().__init__()
        self.convs, self.gates, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        inputs = channels
        for outputs in widths:
            self.convs.append(conv3x3(inputs, outputs))
            self.gates.append(gate(outputs))
            self.norms.append(nn.BatchNorm2d(outputs))
            inputs = outputs
        self.pooled, self.relu, self.pool = pooled, nn.ReLU(), nn.MaxPool2d(2)
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        head = [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU()] if hidden else []
        self.head = nn.Sequential(*head, nn.Linear(hidden or inputs, classes))
        self.draw()

    def layers(self) -> list[Layer]:
        after = [*list(self.convs)[1:], self.head[0]]
        parts = enumerate(zip(self.convs, self.gates, self.norms, after, strict=True))
        return [Layer(f"convs.{i}", conv, gate, (norm, reader)) for i, (conv, gate, norm, reader) in parts]

    def forward(self, x: Tensor) -> Tensor:
        for conv, gate, norm, pooled in zip(self.convs, self.gates, self.norms, self.pooled, strict=True):
            x = self.relu(norm(gate(conv(x))))
            if pooled:
                x = self.pool(x)
        return self.head(self.mean(x))


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters; zero channels make up for those that the input lacks.

    Gates are behind the first convolution and behind the second batch norm.
    """

    def __init__(
        self, inputs: int, inner: int, outputs: int, stride: int, gates: tuple[Gate, Gate], shortcut_gradient: bool
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(inputs, inner, stride), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = conv3x3(inner, outputs), nn.BatchNorm2d(outputs)
        self.inner, self.output = gates[0](inner), gates[1](outputs)
        self.relu, self.stride, self.shortcut_gradient = nn.ReLU(), stride, shortcut_gradient

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.inner(self.conv1(x))))
        out = self.output(self.norm2(self.conv2(out)))
        if self.stride == 2:
            x = F.avg_pool2d(x if self.shortcut_gradient else x.detach(), 2, ceil_mode=True)
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        return self.relu(out + x)


class ResNet(NarrowableNetwork):
    """A stem, blocks and a linear layer; the blocks' inner channels may be narrowed one by one."""

    def __init__(
        self,
        channels: int,
        shapes: Sequence[tuple[int, int, int, int]],
        classes: int,
        gates: tuple[Gate, Gate],
        shortcut_gradient: bool,
    ) -> None:
        """``shapes``: of each block inputs, inner channels, outputs and stride."""
        super().__init__()
        self.conv, self.norm = conv3x3(channels, shapes[0][0]), nn.BatchNorm2d(shapes[0][0])
        self.relu, self.mean = nn.ReLU(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.blocks = nn.ModuleList(Block(*shape, gates, shortcut_gradient) for shape in shapes)
        self.head = nn.Linear(shapes[-1][2], classes)
        self.draw()

    def layers(self) -> list[Layer]:
        return [
            Layer(f"blocks.{i}.conv1", block.conv1, block.inner, (block.norm1, block.conv2))
            for i, block in enumerate(self.blocks)
        ]

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(self.mean(x))


class Bottleneck(nn.Module):
    """Pre-activation bottleneck (He et al., 2016): batch norm and ReLU before each of 1x1, 3x3 and 1x1 convolutions."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), conv1x1(inputs, inner)
        self.norm2, self.conv2 = nn.BatchNorm2d(inner), conv3x3(inner, inner, stride)
        self.norm3, self.conv3 = nn.BatchNorm2d(inner), conv1x1(inner, outputs)
        self.shortcut = conv1x1(inputs, outputs, stride) if inputs != outputs else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.relu(self.norm1(x)))
        out = self.conv2(self.relu(self.norm2(out)))
        return self.conv3(self.relu(self.norm3(out))) + self.shortcut(x)


class PreActResNet(NarrowableNetwork):
    """A stem, pre-activation bottlenecks, a last batch norm and a linear layer; as narrow as it is made."""

    norm_weight = 0.5

    def __init__(self, channels: int, stem: int, shapes: Sequence[tuple[int, int, int, int]], classes: int) -> None:
        """``shapes``: of each block inputs, channels of its 3x3 convolution, outputs and stride."""
        super().__init__()
        self.conv, self.blocks = conv3x3(channels, stem), nn.ModuleList(Bottleneck(*shape) for shape in shapes)
        self.norm, self.relu = nn.BatchNorm2d(shapes[-1][2]), nn.ReLU()
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(shapes[-1][2], classes)
        self.draw()

    def layers(self) -> list[Layer]:
        return []  # the 3x3 convolutions have as many inputs as outputs: none can be narrowed alone

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.mean(self.relu(self.norm(x))))


def imagenet_resnet(depth: Literal[18, 34], inner: Sequence[int] = ()) -> nn.Module:
    """torchvision's ResNet-18 or 34 on the device "meta", each block with so many ``inner`` channels; empty: all."""
    with torch.device("meta"):
        network = {18: resnet18, 34: resnet34}[depth]()
    blocks = [block for stage in (network.layer1, network.layer2, network.layer3, network.layer4) for block in stage]
    for block, width in zip(blocks, inner, strict=bool(inner)):
        narrow(None, block.conv1, "outputs", range(width), readers=(block.bn1, block.conv2))
    return network
