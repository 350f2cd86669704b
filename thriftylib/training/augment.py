"""Augmentation of whole batches on their device, with random numbers for each image from the given generator only.

Equal in distribution to torchvision's transforms of single images (AutoAugment, MixUp, CutMix: the same pixels for the
same draws); cutout, which torchvision has not, to its paper or to the ThriftyNet authors' code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from thriftylib.errors import SpecError
from thriftylib.spec import Augment


def augment(images: Tensor, spec: Augment, generator: torch.Generator, fill: Tensor | Sequence[int]) -> Tensor:
    """Crop, flip, AutoAugment and cutout, in this order, as ``spec`` asks; mixup and cutmix follow in :func:`mix`.

    Args:
        images: uint8 (N, C, H, W); left as they are.
        generator: on the images' device; the same state gives the same images.
        fill: value 0..255 per channel inside a cutout, the data set's mean (0 after normalisation);
            a tensor on the images' device, where nobody shall wait for its copy.

    Returns:
        uint8 (N, C, H, W).

    Raises:
        SpecError: the images are too small for ``spec``.
    """
    if spec.crop or spec.flip:
        images = crop_and_flip(images, spec.crop, generator, reflect=spec.crop_padding == "reflect", flip=spec.flip)
    if spec.autoaugment:
        from thriftylib.training.autoaugment import autoaugment  # torchvision's transforms take seconds to import

        images = autoaugment(images, generator, released=spec.autoaugment_released)
    if spec.cutout_defect:
        images = cutout_defect(images, spec.cutout, generator)
    elif spec.cutout:
        images = cutout(images, spec.cutout, generator, fill)
    return images


def crop_and_flip(images: Tensor, pad: int, generator: torch.Generator, *, reflect: bool, flip: bool) -> Tensor:
    """torchvision's ``RandomCrop((H, W), padding=pad)`` (zeros or reflection), then ``RandomHorizontalFlip()``.

    Raises:
        SpecError: a reflection reaches beyond the image.
    """
    count, _, height, width = images.shape
    device = images.device
    if reflect and pad >= min(height, width):
        raise SpecError(
            f"augment.crop = {pad}: reflection needs images of more than {pad} pixels, not {height}x{width}"
        )
    top, left = torch.randint(2 * pad + 1, (2, count, 1), generator=generator, device=device)
    columns = torch.arange(width, device=device).expand(count, width)
    if flip:
        mirrored = torch.randint(2, (count, 1), generator=generator, device=device).bool()
        columns = torch.where(mirrored, width - 1 - columns, columns)
    # One gather cuts and mirrors the whole batch.
    rows, columns = top + torch.arange(height, device=device), left + columns
    if reflect:  # without repeating the edge
        rows, columns = (
            size - 1 - (size - 1 - (index - pad).abs()).abs() for index, size in ((rows, height), (columns, width))
        )
    else:
        images = F.pad(images, (pad,) * 4)
    pixels = rows[:, :, None] * images.shape[3] + columns[:, None, :]
    picked = images.flatten(2).gather(2, pixels.flatten(1)[:, None].expand(-1, images.shape[1], -1))
    return picked.unflatten(2, (height, width))


def cutout(images: Tensor, side: int, generator: torch.Generator, fill: Tensor | Sequence[int]) -> Tensor:
    """Cover a square of ``side`` pixels whose centre is any pixel of the image, so that part of it may be outside.

    DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout" (2017), section 3.2;
    ``fill`` is the data set's mean, as they have 0 after normalisation.
    """
    top, left = (
        torch.randint(size, (len(images), 1), generator=generator, device=images.device) - side // 2
        for size in images.shape[2:]
    )
    value = torch.as_tensor(fill, dtype=torch.uint8, device=images.device).view(1, -1, 1, 1)
    return torch.where(_boxes(images, top, top + side, left, left + side), value, images)


def cutout_defect(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """The cutout of the ThriftyNet authors' code (``common/dataaugment.py``), with its defects.

    The left edge is set to the top edge wherever it was not negative, while the right edge stays: the rectangles are on
    the diagonal or on the left border, and may be empty. No draw reaches the last row or column. The value is the
    image's own mean over all its pixels and channels, truncated.

    Raises:
        SpecError: ``side`` leaves no position to draw, where the authors' code fails too.
    """
    height, width = images.shape[2:]
    if min(height, width) - side <= -(side // 2):
        raise SpecError(f"augment.cutout = {side}: too large for the authors' cutout of {height}x{width} images")
    top, left = (
        torch.randint(-(side // 2), size - side, (len(images), 1), generator=generator, device=images.device)
        for size in (height, width)
    )
    bottom, right = top + side, left + side
    top = top.clamp(min=0)
    left = torch.where(left < 0, 0, top)
    value = images.flatten(1).sum(1, dtype=torch.int64) // images[0].numel()
    return torch.where(_boxes(images, top, bottom, left, right), value.to(torch.uint8).view(-1, 1, 1, 1), images)


def _boxes(images: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """A mask, (N, 1, H, W), of the rows top..bottom - 1 and columns left..right - 1; edges are (N, 1) or 0-d."""
    row, column = (torch.arange(size, device=images.device) for size in images.shape[2:])
    rows, columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    return (rows[..., :, None] & columns[..., None, :]).view(-1, 1, *images.shape[2:])


def mix(images: Tensor, labels: Tensor, spec: Augment, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Mixup or cutmix of each image with its predecessor in the batch, with one lambda ~ Beta(alpha, alpha).

    Zhang et al., "mixup" (2018), and Yun et al., "CutMix" (2019), as torchvision's ``v2.MixUp`` and ``v2.CutMix``: the
    batch is rolled by one, which is random because batches are shuffled (the authors' code permutes it). The loss is
    ``lam * loss(logits, labels) + (1 - lam) * loss(logits, partner labels)``. Every batch is mixed.

    Args:
        images: floats (N, C, H, W); left as they are.
        labels: int64 (N,).
        spec: at most one of ``mixup`` and ``cutmix`` above 0.
        generator: on the images' device.

    Returns:
        Mixed images, partner labels (N,), and ``lam``, 0-d on the device: the weight of an image's own label (for
        cutmix the fraction of pixels outside the box); 1 without mixing.
    """
    device = images.device
    if not (spec.mixup or spec.cutmix):
        return images, labels, torch.ones((), device=device)
    # From two gammas, as torch.distributions draws a Beta, which takes no generator; nothing waits for the device.
    gammas = torch._standard_gamma(torch.full((2,), spec.mixup or spec.cutmix, device=device), generator=generator)
    gammas = gammas.clamp(min=torch.finfo(gammas.dtype).tiny)  # a small alpha underflows: 0 / 0
    lam, partners = gammas[0] / gammas.sum(), images.roll(1, 0)
    if spec.mixup:
        mixed = torch.lerp(partners, images, lam.to(images.dtype))
    else:
        half = 0.5 * torch.sqrt(1 - lam)
        edges = []
        for size in images.shape[2:]:
            centre = torch.randint(size, (), generator=generator, device=device)
            edges += [centre - (half * size).long(), centre + (half * size).long()]
        box = _boxes(images, *edges)
        mixed = torch.where(box, partners, images)
        lam = 1 - box.float().mean()
    return mixed, labels.roll(1, 0), lam
