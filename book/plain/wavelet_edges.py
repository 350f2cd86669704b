import torch
from torch.nn import functional as F


def details(x):
    """Method 1 by reading 1a, one level of Haar: images (N, C, H, W) of even size less the means of 2x2 blocks."""
    return x - F.interpolate(F.avg_pool2d(x, 2), scale_factor=2)


def maxima(x):
    """Method 2 at the finest scale: the size of the gradient where neither neighbour along it has a larger one."""
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    across, down = 2 * x.diff(dim=3)[:, :, :-1], 2 * x.diff(dim=2)[..., :-1]
    size = (across**2 + down**2).sqrt()
    direction = (torch.atan2(down, across) / (torch.pi / 4)).round() % 4
    around, kept = F.pad(size, (1, 1, 1, 1)), torch.zeros_like(size)
    for i, (dy, dx) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
        one, other = (around.roll((s * dy, s * dx), (2, 3))[:, :, 1:-1, 1:-1] for s in (1, -1))
        kept += size * ((direction == i) & (size >= torch.maximum(one, other)))
    return kept
