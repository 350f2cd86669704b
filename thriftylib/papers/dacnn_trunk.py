"""The trunk of a DACNN: 3x3 kernels used in many layers, with their batch norms, regulators, shortcuts and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import conv1x1

from thriftylib import cost
from thriftylib.cost import Size, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape
from thriftylib.papers.networks import conv_shortcut

Norm = Literal["free", "affine", "shared"]
"""Batch norms: one for each use ("free"); statistics for each use, one affine map per kernel; one per kernel."""


@dataclass(frozen=True)
class Layer:
    """One use of a 3x3 convolution, on maps of ``size`` (H, W), and what goes with it."""

    inputs: int
    outputs: int
    size: Size
    kernel: int  # which of the network's, in the order of their first use
    pool: bool  # a 2x2 max-pool follows
    bias: bool = False
    regulator: bool = False  # a 1x1 convolution after the batch norm
    shortcut: bool = False  # a 1x1 convolution and batch norm around the residual block that begins here
    bare: bool = False  # neither batch norm nor ReLU follows


def make_layers(image_shape: ImageShape, outputs: Sequence[int], pools: Sequence[int], *, shared: bool) -> list[Layer]:
    """The layers with ``outputs`` channels and pools after the uses ``pools``; a shape that recurs has one kernel.

    Raises:
        SpecError: the image is too small for so many pools.
    """
    channels, height, width = image_shape
    if min(height, width) < 2 ** len(pools):
        raise SpecError(
            f"pools = {len(pools)}: needs images of at least {2 ** len(pools)}x{2 ** len(pools)}, not {height}x{width}"
        )
    kernels: dict[object, int] = {}
    layers = []
    for i, shape in enumerate(pairwise((channels, *outputs))):
        kernel = kernels.setdefault(shape if shared and i else i, len(kernels))  # the stem's is its own, come what may
        layers.append(Layer(*shape, (height, width), kernel, pool=i in pools))
        if i in pools:
            height, width = height // 2, width // 2
    return layers


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


def by_kernel(layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers that use each kernel."""
    return [[layer for layer in layers if layer.kernel == k] for k in range(1 + max(x.kernel for x in layers))]


def trunk_terms(layers: Sequence[Layer], norm: Norm) -> list[Term]:
    """The cost of a :class:`Trunk` without its head; all 3x3 convolutions but the stem's are named "trunk conv ..."."""
    terms = []
    for k, uses in enumerate(by_kernel(layers)):
        first, sizes = uses[0], [layer.size for layer in uses]
        conv, name = (f"trunk conv {k}", f"trunk norm {k}") if k else ("stem conv", "stem norm")
        terms += [cost.conv(conv, first.inputs, first.outputs, 3, sizes, bias=first.bias)]
        if not (normed := [layer.size for layer in uses if not layer.bare]):
            continue
        own = norm != "affine"
        terms += [cost.batch_norm(name, first.outputs, normed, affine=own, shared=norm == "shared")]
        if not own:
            terms += [cost.free(f"{name} affine", 2 * first.outputs)]
    for i, layer in enumerate(layers):
        if layer.regulator:
            terms += [cost.conv(f"regulator {i}", layer.outputs, layer.outputs, 1, [layer.size])]
        if layer.shortcut:
            terms += [
                cost.conv(f"shortcut conv {i}", layer.inputs, layer.outputs, 1, [layer.size]),
                cost.batch_norm(f"shortcut norm {i}", layer.outputs, [layer.size]),
            ]
    return terms
