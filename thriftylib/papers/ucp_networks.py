"""UCP's networks: excitation blocks, VGG and ResNets whose layers know what reads them; and the authors' counting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import conv3x3

from thriftylib.options import ImageShape
from thriftylib.papers.ucp import HIDDEN, UcpResNetOptions, UcpVggOptions, hidden_units


class Excitation(nn.Module):
    """The modified squeeze-and-excitation block: maps (N, C, H, W), each channel times a number from 0 to 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden, bias = hidden_units(channels)
        self.squeeze = nn.Linear(channels, hidden, bias)
        self.excite = nn.Linear(hidden, channels, bias)
        self.sigmoid = nn.Sigmoid()  # a module: its outputs are the scores, and a hook reads them

    def forward(self, x: Tensor) -> Tensor:
        gate = self.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


def excitation(channels: int, excited: bool) -> nn.Module:
    """An excitation block, or nothing in its place."""
    return Excitation(channels) if excited else nn.Identity()


@dataclass(frozen=True)
class Layer:
    """A layer that may be narrowed: its convolution, the block that scores it or none, and what reads its outputs."""

    name: str
    conv: nn.Conv2d
    excitation: nn.Module
    readers: Sequence[nn.Module]


class PrunableNetwork(nn.Module):
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


class Vgg(PrunableNetwork):
    """Convolutions with batch norm, and a head of one or two linear layers."""

    norm_weight = 0.5
    linear_std = 0.01

    def __init__(self, options: UcpVggOptions, channels: int, classes: int) -> None:
        super().__init__()
        inputs = channels
        self.convs, self.excitations, self.norms = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for outputs in options.convs:
            self.convs.append(conv3x3(inputs, outputs))
            self.excitations.append(excitation(outputs, options.excited))
            self.norms.append(nn.BatchNorm2d(outputs))
            inputs = outputs
        self.pooled, self.relu, self.pool = options.pooled(), nn.ReLU(), nn.MaxPool2d(2)
        self.mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        head = [nn.Linear(inputs, classes)]
        if options.head == "hidden":
            head = [nn.Linear(inputs, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, classes)]
        self.head = nn.Sequential(*head)
        self.draw()

    def layers(self) -> list[Layer]:
        after = [*list(self.convs)[1:], self.head[0]]
        parts = enumerate(zip(self.convs, self.excitations, self.norms, after, strict=True))
        return [Layer(f"convs.{i}", conv, gate, (norm, reader)) for i, (conv, gate, norm, reader) in parts]

    def forward(self, x: Tensor) -> Tensor:
        for conv, gate, norm, pooled in zip(self.convs, self.excitations, self.norms, self.pooled, strict=True):
            x = self.relu(norm(gate(conv(x))))
            if pooled:
                x = self.pool(x)
        return self.head(self.mean(x))


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters; zero channels make up for those that the input lacks."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, options: UcpResNetOptions) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv3x3(inputs, inner, stride), nn.BatchNorm2d(inner)
        self.conv2, self.norm2 = conv3x3(inner, outputs), nn.BatchNorm2d(outputs)
        self.inner = excitation(inner, options.excited == "inner")
        self.output = excitation(outputs, options.excited == "output")
        self.relu, self.stride, self.shortcut_gradient = nn.ReLU(), stride, options.shortcut_gradient

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.inner(self.conv1(x))))
        out = self.output(self.norm2(self.conv2(out)))
        if self.stride == 2:
            x = F.avg_pool2d(x if self.shortcut_gradient else x.detach(), 2, ceil_mode=True)
            x = F.pad(x, (0, 0, 0, 0, 0, out.shape[1] - x.shape[1]))
        return self.relu(out + x)


class ResNet(PrunableNetwork):
    """A stem, three stages of blocks and a linear layer; the blocks' inner channels may be narrowed one by one."""

    def __init__(self, options: UcpResNetOptions, channels: int, classes: int) -> None:
        super().__init__()
        self.conv, self.norm = conv3x3(channels, options.outer[0]), nn.BatchNorm2d(options.outer[0])
        self.relu, self.mean = nn.ReLU(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.blocks = nn.ModuleList(Block(*shape, options) for shape in options.shapes())
        self.head = nn.Linear(options.outer[-1], classes)
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


def authors_flops(network: nn.Module, image_shape: ImageShape) -> int:
    """The authors' "FLOPs" of an image (C, H, W): ``ptflops_macs``, and what modules of two kinds add to them.

    A ReLU adds 1 for each element, a pooling layer 1 for each input; functions are not counted.
    """
    from thriftylib.training.counting import count  # training imports papers, not the other way round

    elements = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        nonlocal elements
        elements += inputs[0].numel()

    kinds = nn.ReLU | nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d
    hooks = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, kinds)]
    try:
        return count(network, image_shape).ptflops_macs + elements
    finally:
        for hook in hooks:
            hook.remove()
