"""Parts of ordinary networks that torchvision does not have, and how networks are initialised."""

from __future__ import annotations

from collections.abc import Sequence

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


def tiny_resnet(channels: int, width: int, plan: Sequence[tuple[int, int, int]], classes: int) -> nn.Module:
    """A 3x3 stem to ``width``, a basic block for each (inputs, outputs, stride) of ``plan``, and the head."""
    blocks = [
        BasicBlock(inputs, outputs, stride, PadShortcut((outputs - inputs) // 2) if stride > 1 else None)
        for inputs, outputs, stride in plan
    ]
    stem = (conv3x3(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(plan[-1][1], classes))
    network = nn.Sequential(*stem, *blocks, *head)
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
    """``network`` with the weights of its affine batch norms drawn between 0 and 1 by PyTorch's own generator."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight)
    return network
