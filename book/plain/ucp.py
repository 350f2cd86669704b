import torch
from torch import nn


class Excitation(nn.Module):
    def __init__(self, channels):
        super().__init__()
        hidden = max(1, channels // 16)
        self.W1 = nn.Linear(channels, hidden, bias=channels <= 16)
        self.W2 = nn.Linear(hidden, channels, bias=channels <= 16)

    def forward(self, maps):
        self.g = torch.sigmoid(self.W2(torch.relu(self.W1(maps.mean((2, 3))))))
        return maps * self.g[:, :, None, None]


@torch.no_grad()
def widths(network, batches, multiplier=1.0):
    """How many channels of each layer score above the multiplier times the layer's mean; all where all scores tie."""
    blocks = [module for module in network.eval().modules() if isinstance(module, Excitation)]
    scores = [0.0 for block in blocks]
    for images in batches:
        network(images)
        scores = [score + block.g.double().sum(0) for score, block in zip(scores, blocks, strict=True)]
    kept = [torch.where((x == x[0]).all(), True, x > multiplier * x.mean()) for x in scores]
    return [max(1, int(each.sum())) for each in kept]
