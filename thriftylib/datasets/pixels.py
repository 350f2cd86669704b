"""Raw 8-bit images: checked, without a border, as luma, and changed as a run says (:class:`thriftylib.spec.Pixels`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from thriftylib import spec
from thriftylib.errors import SpecError
from thriftylib.training.streams import stream_seed

Images = Tensor | np.ndarray | Sequence


def change(images: Tensor, pixels: spec.Pixels) -> Tensor:
    """Images on the CPU, uint8 (N, C, H, W), with another histogram, then fewer bits, then moved pixels.

    All is computed in integers, so that it is the same on every machine.

    - ``histogram``: of each image and channel; equalised by torchvision's ``equalize``, or stretched over 0 to 255.
    - ``bits``: the lower bits are dropped, and the 2**bits levels left are spread evenly over 0 to 255.
    - ``shuffled``: one permutation of the positions for all images and channels, of numpy's ``RandomState``, whose
      numbers are frozen.
    """
    if pixels == spec.Pixels():
        return images
    places = images.shape[2] * images.shape[3]
    order = torch.from_numpy(np.random.RandomState(stream_seed(0, "pixel shuffle") % 2**32).permutation(places))
    levels = _spread(torch.arange(256) >> 8 - pixels.bits, (1 << pixels.bits) - 1).numpy()

    def changed(part: Tensor) -> Tensor:
        if pixels.histogram == "equalised":
            from torchvision.transforms.v2.functional import equalize

            part = equalize(part)
        elif pixels.histogram == "stretched":
            low, high = part.flatten(2).int().aminmax(dim=2, keepdim=True)
            low, high = low.unsqueeze(3), high.unsqueeze(3)
            part = _spread(part - low, (high - low).clamp(min=1)).where(high > low, part)  # a flat one stays
        if pixels.bits < 8:
            part = torch.from_numpy(levels[part.numpy()])
        return part.flatten(2)[:, :, order].view(part.shape) if pixels.shuffled else part

    return torch.cat([changed(part) for part in images.split(500)])  # little memory beside the images


def _spread(values: Tensor, limit: Tensor | int) -> Tensor:
    """Integers in 0 .. ``limit`` to the nearest of 0 .. 255, uint8."""
    return ((values * 510 + limit) // (2 * limit)).to(torch.uint8)


def raw_images(images: Images) -> Tensor:
    """Images as one uint8 tensor (N, C, H, W), or a SpecError that says why they are none."""
    if not isinstance(images, Tensor):
        if not isinstance(images, Iterable):
            raise SpecError(f"images are {images!r}: must be raw 8-bit values (uint8), (N, C, H, W)")
        if len(shapes := {np.shape(image) for image in images}) > 1:
            raise SpecError(f"images of {len(shapes)} sizes, {' and '.join(map(str, sorted(shapes)[:2]))}: must be one")
        stacked = np.stack(list(images)) if len(images) else np.empty(0)
        if stacked.dtype.kind not in "buif":  # such as pairs of an image and its label
            raise SpecError(f"images are of type {stacked.dtype}: must be the images alone, uint8 (N, C, H, W)")
        images = torch.from_numpy(stacked)
    if not len(images):
        raise SpecError("no images: must be 1 or more")
    if not images.numel():
        raise SpecError(f"images are of shape {tuple(images.shape)}: must have 1 pixel or more")
    if images.dtype != torch.uint8:
        # Some integer types have no minimum; floats are not copied, since a whole set may be large.
        low, high = (images if images.is_floating_point() else images.double()).aminmax()
        raise SpecError(
            f"images are {images.dtype}, {low:g} to {high:g}: must be raw 8-bit values (uint8); of "
            "standardised ones the entropy would be silently wrong, since channels no longer share values"
        )
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise SpecError(f"images are of shape {tuple(images.shape)}: must be (N, C, H, W) with 1 or 3 channels")
    return images


def luma(raw: Tensor) -> Tensor:
    """BT.601 luma, rounded as Pillow has it: (N, 1, H, W); a grey image is its own."""
    if raw.shape[1] == 1:
        return raw
    red, green, blue = raw.int().split(1, 1)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def without_border(raw: Tensor, native: tuple[int, int] | None = None) -> Tensor:
    """The middle of images, ``native`` (H, W) in size; else without the outer lines of one value a channel in all.

    Raises:
        SpecError: ``native`` is larger than the images, or has no pixel.
    """
    height, width = raw.shape[2:]
    if native is None:
        top, bottom = _inside(raw.unbind(2))
        left, right = _inside(raw.unbind(3))
        return raw[:, :, top:bottom, left:right]
    if not (0 < native[0] <= height and 0 < native[1] <= width):
        raise SpecError(f"native = {list(native)}: must be from [1, 1] up to the size of the images, {[height, width]}")
    top, left = (height - native[0]) // 2, (width - native[1]) // 2
    return raw[:, :, top : top + native[0], left : left + native[1]]


def _inside(lines: Sequence[Tensor]) -> tuple[int, int]:
    """The first line (N, C, L) that is no border, and the one after the last; all, where each might be."""

    def varies(i: int) -> bool:
        return bool((lines[i] != lines[i][:1, :, :1]).any())

    places = range(len(lines))
    return next(filter(varies, places), 0), next(filter(varies, reversed(places)), places[-1]) + 1
