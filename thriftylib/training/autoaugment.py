"""AutoAugment's policy for CIFAR-10 on whole batches (Cubuk et al., "AutoAugment", 2019, appendix, table 7).

Policy, magnitudes and operations are those of ``torchvision.transforms.v2.AutoAugment``, which draws for one image
from PyTorch's global generator; here each image of a batch has its own draws, from the generator given.

As *released* it is what the ThriftyNet authors' code does to PIL images (``common/dataaugment.py``): images are rotated
one way only, solarised from a threshold of 256 and not of 255, and shifted by as many pixels as the magnitude says
(14.5 of 32 at most) and not by whole ones rounded down, so that the nearest pixel is up to one further; shears
interpolate by cubics; and what comes from outside the image is 128. The operations on colours stay torchvision's.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy, functional

_STANDARD = AutoAugment(AutoAugmentPolicy.CIFAR10)
_OUTSIDE = 128  # what the authors' code puts where an image has no pixel


def autoaugment(images: Tensor, generator: torch.Generator, *, released: bool = False) -> Tensor:
    """A sub-policy per image, uniformly; each of its two operations with its probability, and either sign.

    Args:
        images: uint8 (N, C, H, W); left as they are.
        generator: on the images' device.
        released: as the ThriftyNet authors' code does it; the same draws.

    Returns:
        uint8 (N, C, H, W).
    """
    policy, shape, device = _STANDARD._policies, (len(images), 2), images.device
    chosen = torch.randint(len(policy), shape[:1], generator=generator, device=device).tolist()
    chances = torch.rand(shape, generator=generator, device=device).tolist()
    negative = torch.randint(2, shape, generator=generator, device=device).tolist()
    images = images.clone()
    for step in range(2):
        groups = defaultdict(list)  # images that get the same operation with the same magnitude
        for image, sub_policy in enumerate(chosen):
            operation, probability, level = policy[sub_policy][step]
            if chances[image][step] < probability:
                signed = is_signed(operation) and not (released and operation == "Rotate")
                groups[operation, level, signed and negative[image][step]].append(image)
        for (operation, level, minus), members in groups.items():
            value = magnitude(operation, level, tuple(images.shape[2:]))
            index = torch.tensor(members, device=device)
            apply_one = apply_released if released else apply
            images[index] = apply_one(images[index], operation, -value if minus else value)
    return images


def is_signed(operation: str) -> bool:
    """Whether the magnitude of ``operation`` is negative half of the time."""
    return _STANDARD._AUGMENTATION_SPACE[operation][1]


def magnitude(operation: str, level: int | None, size: tuple[int, int]) -> float:
    """The strength of ``operation`` at ``level`` 0..9 for images of ``size`` (H, W), without its sign."""
    return 0.0 if level is None else float(_STANDARD._AUGMENTATION_SPACE[operation][0](10, *size)[level])


def apply(images: Tensor, operation: str, value: float) -> Tensor:
    """One operation on uint8 images (N, C, H, W), with its signed magnitude (0 where it has none)."""
    return _STANDARD._apply_image_or_video_transform(
        images, operation, value, interpolation=_STANDARD.interpolation, fill=_STANDARD._fill
    )


def apply_released(images: Tensor, operation: str, value: float) -> Tensor:
    """:func:`apply` as the ThriftyNet authors' code does it; a shift or a shear takes its pixels from +``value``."""
    match operation:
        case "ShearX":
            return _shear(images, value)
        case "ShearY":
            return _shear(images.mT, value).mT
        case "TranslateX":
            return _shift(images, value)
        case "TranslateY":
            return _shift(images.mT, value).mT
        case "Rotate":
            return functional.rotate(images, value, fill=_OUTSIDE)
        case "Solarize":
            return functional.solarize(images, 256 * value)
    return apply(images, operation, value)


def _shift(images: Tensor, pixels: float) -> Tensor:
    """Each pixel is the nearest to the one ``pixels`` further right: for 14.5 or a little more the 15th from it."""
    column = torch.arange(images.shape[3], device=images.device) + math.floor(pixels + 0.5)
    inside = (column >= 0) & (column < images.shape[3])
    return torch.where(inside, images[..., column.clamp(0, images.shape[3] - 1)], _OUTSIDE)


def _shear(images: Tensor, slope: float) -> Tensor:
    """Each pixel is taken ``slope`` times its distance from the upper edge further right, by PIL's cubic (a = -1)."""
    height, width = images.shape[2:]
    row = torch.arange(height, dtype=torch.float64, device=images.device)[:, None] + 0.5
    place = torch.arange(width, dtype=torch.float64, device=images.device) + 0.5 + slope * row  # (H, W)
    inside = (place >= 0) & (place < width)
    first = (place - 0.5).floor()
    d = place - 0.5 - first
    columns = (first[..., None].long() + torch.arange(-1, 3, device=images.device)).clamp(0, width - 1)
    rows = torch.arange(height, device=images.device)[:, None, None]
    a, b, c, e = images[:, :, rows, columns].double().unbind(-1)
    value = b + d * (c - a + d * (2 * (a - b) + c - e + d * (b - a + e - c)))
    return torch.where(inside, value.clamp(0, 255).to(torch.uint8), _OUTSIDE)
