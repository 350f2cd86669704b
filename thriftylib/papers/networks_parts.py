"""Parts of ordinary networks that torchvision does not have, and how networks are initialised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, conv1x1, conv3x3


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


def basic_blocks(
    channels: int, widths: Sequence[int], shortcut: Callable[[int, int, int], nn.Module]
) -> list[nn.Module]:
    """A 3x3 stem and one ``BasicBlock`` after another: (N, channels, H, W) to (N, widths[-1], H', W').

    Args:
        widths: channels of the stem, then of each block; where they double, the block has stride 2.
        shortcut: made from inputs, outputs and stride, for each such block.
    """
    layers = [conv3x3(channels, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
    for inputs, outputs in pairwise(widths):
        stride = outputs // inputs
        layers += [BasicBlock(inputs, outputs, stride, shortcut(inputs, outputs, stride) if stride > 1 else None)]
    return layers


def tiny_resnet(channels: int, widths: Sequence[int], classes: int) -> nn.Module:
    """The stem and blocks of ``basic_blocks`` with shortcuts of zero channels, and the head."""
    blocks = basic_blocks(channels, widths, lambda inputs, outputs, stride: PadShortcut((outputs - inputs) // 2))
    network = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    return network


def default_initialisation(network: nn.Module) -> nn.Module:
    """``network`` with PyTorch's default initial weights in its convolutions and linear layers."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()
    return network


def uniform_norms(network: nn.Module) -> nn.Module:
    """``network`` with the weights of its batch norms drawn between 0 and 1 by PyTorch's own generator.

    ``network.affine``, if there, has a weight and a bias for batch norms that share them.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.affine]
    for weight in [weight for weight, _ in getattr(network, "affine", ())] + [norm.weight for norm in norms]:
        nn.init.uniform_(weight)
    return network
