"""The modules of DACNNs: 3x3 kernels used in many layers, with their batch norms, regulators and shortcuts."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import conv1x1

from thriftylib.papers.dacnn import Layer, Norm, by_kernel
from thriftylib.papers.networks_parts import conv_shortcut


class OwnStatistics(nn.BatchNorm2d):
    """A batch norm whose statistics are its own and whose affine map (weight and bias, each (C,)) is handed to it."""

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, weight, bias, self.training, self.momentum, self.eps
        )


class Trunk(nn.Module):
    """Kernels, batch norms, regulators and shortcuts for ``layers``, and the head; PyTorch's default initial weights.

    Args:
        head_regulator: one more regulator between the average pool and the linear layer.
        relu_first: conv-ReLU-BN.
        rotation: channels by which each convolution's output is rotated.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        classes: int,
        norm: Norm,
        *,
        head_regulator: bool = False,
        relu_first: bool = False,
        rotation: int = 0,
    ) -> None:
        super().__init__()
        self.layers, self.norm, self.relu_first, self.rotation = layers, norm, relu_first, rotation
        firsts = [uses[0] for uses in by_kernel(layers)]
        self.convs = nn.ModuleList(nn.Conv2d(x.inputs, x.outputs, 3, padding=1, bias=x.bias) for x in firsts)
        kind = OwnStatistics if norm == "affine" else nn.BatchNorm2d
        self.norms = nn.ModuleList(  # a bare use has none of its own
            nn.Identity() if x.bare and norm != "shared" else kind(x.outputs)
            for x in (firsts if norm == "shared" else layers)
        )
        self.affine = nn.ModuleList(  # weight and bias for all uses of a kernel
            nn.ParameterList([torch.ones(x.outputs), torch.zeros(x.outputs)]) for x in firsts if norm == "affine"
        )
        self.regulators = nn.ModuleDict(
            {str(i): conv1x1(x.outputs, x.outputs) for i, x in enumerate(layers) if x.regulator}
        )
        self.shortcuts = nn.ModuleDict(
            {str(i): conv_shortcut(x.inputs, x.outputs, 1) for i, x in enumerate(layers) if x.shortcut}
        )
        width = layers[-1].outputs
        regulator = [conv1x1(width, width)] if head_regulator else []
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), *regulator, nn.Flatten(), nn.Linear(width, classes))

    def use(self, i: int, x: Tensor) -> Tensor:
        """Layer i, (N, inputs, H, W) to (N, outputs, H, W): convolution, batch norm and perhaps a regulator."""
        layer = self.layers[i]
        x = self.convs[layer.kernel](x)
        if layer.bare:
            return x
        if self.rotation:
            x = x.roll(self.rotation, dims=1)
        if self.relu_first:
            x = F.relu(x)
        norm = self.norms[layer.kernel if self.norm == "shared" else i]
        x = norm(x, *self.affine[layer.kernel]) if self.norm == "affine" else norm(x)
        return self.regulators[str(i)](x) if layer.regulator else x


class Chain(Trunk):
    """One layer after another, as in VGG: (N, C, H, W) to logits (N, classes)."""

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            x = self.use(i, x)
            if not (self.relu_first or layer.bare):
                x = F.relu(x)
            if layer.pool:
                x = F.max_pool2d(x, 2)
        return self.head(x)


class Residual(Trunk):
    """A stem and residual blocks of two layers, as in ResNet: (N, C, H, W) to logits (N, classes)."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.use(0, x))
        for i in range(1, len(self.layers), 2):
            branch = self.use(i + 1, F.relu(self.use(i, x)))
            shortcut = self.shortcuts[str(i)](x) if self.layers[i].shortcut else x
            if self.rotation:
                shortcut = shortcut.roll(2 * self.rotation, dims=1)
            x = F.relu(branch + shortcut)
            if self.layers[i + 1].pool:
                x = F.max_pool2d(x, 2)
        return self.head(x)
