"""AutoAugment's policy for CIFAR-10 on whole batches (Cubuk et al., "AutoAugment", 2019, appendix, table 7).

The operations, their magnitudes and signs are those of ``torchvision.transforms.v2.AutoAugment`` on tensors: geometric
ones take the nearest pixel and fill with 0. (The ThriftyNet authors' code works on PIL images, shears with bicubic
interpolation and fills with 128.)
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


def autoaugment(images: Tensor, generator: torch.Generator) -> Tensor:
    """A sub-policy per image, uniformly; each of its two operations with its probability, and either sign.

    Args:
        images: uint8 (N, C, H, W); left as they are.
        generator: on the images' device.

    Returns:
        uint8 (N, C, H, W).
    """
    shape, device = (len(images), 2), images.device
    chosen = torch.randint(len(POLICY), shape[:1], generator=generator, device=device).tolist()
    chances = torch.rand(shape, generator=generator, device=device).tolist()
    negative = torch.randint(2, shape, generator=generator, device=device).tolist()
    images = images.clone()
    for step in range(2):
        groups = defaultdict(list)  # images that get the same operation with the same magnitude
        for image, policy in enumerate(chosen):
            operation, probability, level = POLICY[policy][step]
            if chances[image][step] < probability:
                groups[operation, level, operation in SIGNED and negative[image][step]].append(image)
        for (operation, level, minus), members in groups.items():
            value = 0.0 if level is None else magnitude(operation, level, tuple(images.shape[2:]))
            index = torch.tensor(members, device=device)
            images[index] = apply(images[index], operation, -value if minus else value)
    return images


@functools.lru_cache
def magnitude(operation: str, level: int, size: tuple[int, int]) -> float:
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
        "Solarize": (255, 0),  # threshold
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
