"""AutoAugment's policy for CIFAR-10 on whole batches (Cubuk et al., "AutoAugment", 2019, appendix, table 7).

Policy, magnitudes and operations are those of ``torchvision.transforms.v2.AutoAugment``, which draws for one image
from PyTorch's global generator; here each image of a batch has its own draws, from the generator given.

As *released* it is what the ThriftyNet authors' code does to PIL images (``common/dataaugment.py``): images are rotated
one way only, solarised from a threshold of 256 and not of 255, and shifted by as many pixels as the magnitude says
(14.5 of 32 at most) and not by whole ones rounded down; shears are bicubic; what comes from outside the image is 128.
The operations on colours stay torchvision's.
"""

from __future__ import annotations

from collections import defaultdict

import torch
from PIL.Image import Resampling, Transform
from torch import Tensor
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy, functional

from thriftylib.training.device import sent

_STANDARD = AutoAugment(AutoAugmentPolicy.CIFAR10)
_OUTSIDE = 128  # what the authors' code puts where an image has no pixel


def autoaugment(images: Tensor, generator: torch.Generator, *, released: bool = False) -> Tensor:
    """A sub-policy per image, uniformly; each of its two operations with its probability, and either sign.

    Args:
        images: uint8 (N, C, H, W); left as they are.
        generator: on the images' device; of one on a GPU the seed alone counts, from which a CPU's draws.
        released: as the ThriftyNet authors' code does it; the same draws.

    Returns:
        uint8 (N, C, H, W).
    """
    policy, shape, device = _STANDARD._policies, (len(images), 2), images.device
    if generator.device.type != "cpu":  # which operation comes is decided on the CPU: drawn there, nothing waits for it
        generator = torch.Generator().manual_seed(generator.initial_seed())
    chosen = torch.randint(len(policy), shape[:1], generator=generator).tolist()
    chances = torch.rand(shape, generator=generator).tolist()
    negative = torch.randint(2, shape, generator=generator).tolist()
    images = images.clone()
    for step in range(2):
        groups = defaultdict(list)  # images that get the same operation with the same magnitude
        for image, sub_policy in enumerate(chosen):
            operation, probability, level = policy[sub_policy][step]
            if chances[image][step] < probability:
                signed = is_signed(operation) and not (released and operation == "Rotate")
                groups[operation, level, signed and negative[image][step]].append(image)
        members = list(groups.values())
        places = sent(torch.tensor(sum(members, []), dtype=torch.int64), device).split([*map(len, members)])
        for (operation, level, minus), index in zip(groups, places, strict=True):
            value = magnitude(operation, level, tuple(images.shape[2:]))
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
    """:func:`apply` as the ThriftyNet authors' code does it, by the operations of PIL that it calls."""
    moved = {
        "ShearX": ((1, value, 0, 0, 1, 0), Resampling.BICUBIC),
        "ShearY": ((1, 0, 0, value, 1, 0), Resampling.BICUBIC),
        "TranslateX": ((1, 0, value, 0, 1, 0), Resampling.NEAREST),
        "TranslateY": ((1, 0, 0, 0, 1, value), Resampling.NEAREST),
    }
    if operation in moved:
        pictures = [functional.to_pil_image(image) for image in images.cpu()]
        outside = (_OUTSIDE,) * images.shape[1] if images.shape[1] > 1 else _OUTSIDE
        pictures = [
            picture.transform(picture.size, Transform.AFFINE, *moved[operation], fillcolor=outside)
            for picture in pictures
        ]
        return torch.stack([functional.pil_to_tensor(picture) for picture in pictures]).to(images.device)
    if operation == "Rotate":
        return functional.rotate(images, value, fill=_OUTSIDE)
    return functional.solarize(images, 256 * value) if operation == "Solarize" else apply(images, operation, value)
