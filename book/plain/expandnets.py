from torch import nn
from torch.nn import functional as F


def expand(m, n, k, rate=4, padding=0):
    """CL: what is trained in place of a convolution from m to n channels."""
    return nn.Sequential(
        nn.Conv2d(m, rate * m, 1, padding=padding), nn.Conv2d(rate * m, rate * n, k), nn.Conv2d(rate * n, n, 1)
    )


def merge(chain):
    """The one convolution that the chain is."""
    (first, *others), padding = chain, chain[0].padding
    weight, bias = first.weight.double(), first.bias.double()
    for layer in others:
        bias = layer.weight.double().sum((2, 3)) @ bias + layer.bias.double()
        kernel, border = layer.weight.double().flip(2, 3), layer.kernel_size[0] - 1
        weight = F.conv2d(weight.transpose(0, 1), kernel, padding=border).transpose(0, 1)
    one = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], padding=padding)
    one.weight, one.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
    return one
