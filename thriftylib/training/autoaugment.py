"""AutoAugment's policy for CIFAR-10 on whole batches (Cubuk et al., "AutoAugment", 2019, appendix, table 7).

The operations, their magnitudes and signs are those of ``torchvision.transforms.v2.AutoAugment`` on tensors: geometric
ones take the nearest pixel and fill with 0.

As *released* it is what the ThriftyNet authors' code does to PIL images (``common/dataaugment.py``): images are rotated
one way only, solarised from a threshold of 256 and not of 255, and shifted by as many pixels as the magnitude says
(14.5 of 32 at most) and not by whole ones rounded down, so that the nearest pixel is up to one further; shears
interpolate by cubics; and what comes from outside the image is 128. The operations on colours stay torchvision's.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

Step = tuple[str, float, int | None]
"""Operation, probability, index 0..9 of the magnitude (None: the operation has none)."""

POLICY: tuple[tuple[Step, Step], ...] = (
    (("Invert", 0.1, None), ("Contrast", 0.2, 6)),
    (("Rotate", 0.7, 2), ("TranslateX", 0.3, 9)),
    (("Sharpness", 0.8, 1), ("Sharpness", 0.9, 3)),
    (("ShearY", 0.5, 8), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.5, None), ("Equalize", 0.9, None)),
    (("ShearY", 0.2, 7), ("Posterize", 0.3, 7)),
    (("Color", 0.4, 3), ("Brightness", 0.6, 7)),
    (("Sharpness", 0.3, 9), ("Brightness", 0.7, 9)),
    (("Equalize", 0.6, None), ("Equalize", 0.5, None)),
    (("Contrast", 0.6, 7), ("Sharpness", 0.6, 5)),
    (("Color", 0.7, 7), ("TranslateX", 0.5, 8)),
    (("Equalize", 0.3, None), ("AutoContrast", 0.4, None)),
    (("TranslateY", 0.4, 3), ("Sharpness", 0.2, 6)),
    (("Brightness", 0.9, 6), ("Color", 0.2, 8)),
    (("Solarize", 0.5, 2), ("Invert", 0.0, None)),
    (("Equalize", 0.2, None), ("AutoContrast", 0.6, None)),
    (("Equalize", 0.2, None), ("Equalize", 0.6, None)),
    (("Color", 0.9, 9), ("Equalize", 0.6, None)),
    (("AutoContrast", 0.8, None), ("Solarize", 0.2, 8)),
    (("Brightness", 0.1, 3), ("Color", 0.7, 0)),
    (("Solarize", 0.4, 5), ("AutoContrast", 0.9, None)),
    (("TranslateY", 0.9, 9), ("TranslateY", 0.7, 9)),
    (("AutoContrast", 0.9, None), ("Solarize", 0.8, 3)),
    (("Equalize", 0.8, None), ("Invert", 0.1, None)),
    (("TranslateY", 0.7, 9), ("AutoContrast", 0.9, None)),
)

SIGNED = frozenset(
    ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness")
)
"""Operations whose magnitude is negative half of the time."""
RELEASED_SIGNED = SIGNED - {"Rotate"}


def autoaugment(images: Tensor, generator: torch.Generator, *, released: bool = False) -> Tensor:
    """A sub-policy per image, uniformly; each of its two operations with its probability, and either sign.

    Args:
        images: uint8 (N, C, H, W); left as they are.
        generator: on the images' device.
        released: as the ThriftyNet authors' code does it; the same draws.

    Returns:
        uint8 (N, C, H, W).
    """
    shape, device = (len(images), 2), images.device
    chosen = torch.randint(len(POLICY), shape[:1], generator=generator, device=device).tolist()
    chances = torch.rand(shape, generator=generator, device=device).tolist()
    negative = torch.randint(2, shape, generator=generator, device=device).tolist()
    signed, perform = (RELEASED_SIGNED, apply_released) if released else (SIGNED, apply)
    images = images.clone()
    for step in range(2):
        groups = defaultdict(list)  # images that get the same operation with the same magnitude
        for image, policy in enumerate(chosen):
            operation, probability, level = POLICY[policy][step]
            if chances[image][step] < probability:
                groups[operation, level, operation in signed and negative[image][step]].append(image)
        for (operation, level, minus), members in groups.items():
            value = 0.0 if level is None else magnitude(operation, level, tuple(images.shape[2:]), released=released)
            index = torch.tensor(members, device=device)
            images[index] = perform(images[index], operation, -value if minus else value)
    return images


@functools.lru_cache
def magnitude(operation: str, level: int, size: tuple[int, int], *, released: bool = False) -> float:
    """The strength of ``operation`` at ``level`` 0..9 for images of ``size`` (H, W), without its sign."""
    height, width = size
    weakest, strongest = {
        "ShearX": (0, 0.3),  # tangent of the angle
        "ShearY": (0, 0.3),
        "TranslateX": (0, 150 / 331 * width),  # pixels
        "TranslateY": (0, 150 / 331 * height),
        "Rotate": (0, 30),  # degrees
        "Brightness": (0, 0.9),  # distance of the factor from 1
        "Color": (0, 0.9),
        "Contrast": (0, 0.9),
        "Sharpness": (0, 0.9),
        "Posterize": (8, 4),  # bits kept
        "Solarize": (256 if released else 255, 0),  # threshold
    }[operation]
    value = float(torch.linspace(weakest, strongest, 10)[level])  # fp32 as in torchvision: its last bit moves pixels
    return round(value) if operation == "Posterize" else value


def apply(images: Tensor, operation: str, value: float) -> Tensor:
    """One operation on uint8 images (N, C, H, W), with its signed magnitude (0 where it has none)."""
    match operation:
        case "ShearX":
            return _affine(images, shear=[math.degrees(math.atan(value)), 0.0], center=[0, 0])
        case "ShearY":
            return _affine(images, shear=[0.0, math.degrees(math.atan(value))], center=[0, 0])
        case "TranslateX":
            return _affine(images, translate=[int(value), 0])
        case "TranslateY":
            return _affine(images, translate=[0, int(value)])
        case "Rotate":
            return F.rotate(images, value)
        case "Brightness":
            return F.adjust_brightness(images, 1 + value)
        case "Color":
            return F.adjust_saturation(images, 1 + value)
        case "Contrast":
            return F.adjust_contrast(images, 1 + value)
        case "Sharpness":
            return F.adjust_sharpness(images, 1 + value)
        case "Posterize":
            return F.posterize(images, int(value))
        case "Solarize":
            return F.solarize(images, value)
        case "AutoContrast":
            return F.autocontrast(images)
        case "Equalize":
            return F.equalize(images)
        case "Invert":
            return F.invert(images)
    raise ValueError(f"unknown operation {operation!r}")


def _affine(images: Tensor, translate=(0, 0), shear=(0.0, 0.0), center=None) -> Tensor:
    return F.affine(images, angle=0.0, translate=list(translate), scale=1.0, shear=list(shear), center=center)


FILL = 128
"""What the authors' code puts where an image has no pixel."""


def apply_released(images: Tensor, operation: str, value: float) -> Tensor:
    """:func:`apply` as the ThriftyNet authors' code does it; a shift or a shear takes its pixels from +``value``."""
    match operation:
        case "ShearX":
            return _sheared(images, value)
        case "ShearY":
            return _sheared(images.mT, value).mT
        case "TranslateX":
            return _shifted(images, value)
        case "TranslateY":
            return _shifted(images.mT, value).mT
        case "Rotate":
            return F.rotate(images, value, fill=FILL)
    return apply(images, operation, value)


def _shifted(images: Tensor, pixels: float) -> Tensor:
    """Each pixel is the nearest to the one ``pixels`` further right: for 14.5 or a little more the 15th from it."""
    column = torch.arange(images.shape[3], device=images.device) + math.floor(pixels + 0.5)
    inside = (column >= 0) & (column < images.shape[3])
    return torch.where(inside, images[..., column.clamp(0, images.shape[3] - 1)], FILL)


def _sheared(images: Tensor, slope: float) -> Tensor:
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
    return torch.where(inside, value.clamp(0, 255).to(torch.uint8), FILL)
