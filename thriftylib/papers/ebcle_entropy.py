"""The entropy of 8-bit images, by every convention, and the run that measures a data set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.datasets.pixels import Images, luma, raw_images, without_border
from thriftylib.errors import RunError, SpecError
from thriftylib.histograms import histogram_entropy, row_counts
from thriftylib.method import Method
from thriftylib.papers.ebcle import IN_NATS, Channels, ImageEntropyOptions, check_known

if TYPE_CHECKING:
    from thriftylib.datasets.load import Dataset

CHUNK = 3 << 18  # pixels of all channels in a thread at a time
TRIPLES = 1 << 24


def image_entropies(
    images: Images, channels: Channels = "pooled", *, whole_set: bool = False, native: tuple[int, int] | None = None
) -> Tensor:
    """Entropies in nats of images, uint8 (N, C, H, W) of 1 or 3 channels: float64 (N,), or (1,) of the ``whole_set``.

    ``pooled`` is ``skimage.measure.shannon_entropy(image, base=np.e)``. Padding changes the value, so that a border
    warns: what is outside of ``native`` (H, W) in the middle; without it, lines of one value in all images.

    Raises:
        SpecError: no images, no raw 8-bit values, or images of several sizes or of another shape.
    """
    check_known("channels", channels, get_args(Channels))
    raw = raw_images(images)
    measure = _of_set if whole_set else _of_each
    values, core = measure(raw, channels), without_border(raw, native)
    if core.shape != raw.shape:
        warnings.warn(
            f"images of {list(raw.shape[2:])} seem padded: {values.mean():.4f} nats; {list(core.shape[2:])} inside: "
            f"{measure(core, channels).mean():.4f}; measure at native size, or say that native = {list(raw.shape[2:])}",
            stacklevel=2,
        )
    return values


def local_entropies(images: Images, radius: int) -> Tensor:
    """The entropy in nats of each pixel's neighbourhood, a disk, on BT.601 luma: its mean over each image (N,).

    Raises:
        SpecError: as :func:`image_entropies`, or a radius below 1.
        RunError: scikit-image is not installed.
    """
    try:
        from skimage.filters.rank import entropy
        from skimage.morphology import disk
    except ImportError:
        raise RunError("local entropy needs scikit-image: pip install scikit-image") from None
    if radius < 1:
        raise SpecError(f"radius = {radius}: must be 1 or more pixels")
    grey = luma(raw_images(images))[:, 0].byte().cpu().numpy()
    return torch.tensor([entropy(image, disk(radius)).mean() for image in grey]) * IN_NATS["bits"]


def _of_each(raw: Tensor, channels: Channels) -> Tensor:
    def entropies(chunk: Tensor) -> Tensor:
        values, bins = _symbols(chunk, channels)
        rows = values.flatten(0, 1)
        if bins == TRIPLES:  # too many bins: numbered anew in each image
            rows = rows.sort(1).values
            rows, bins = F.pad(rows[:, 1:] != rows[:, :-1], (1, 0)).cumsum(1), rows.shape[1]
        return histogram_entropy(row_counts(rows, bins)).view(values.shape[:2]).mean(1)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # scatter_add_ uses one thread
        return torch.cat(list(pool.map(entropies, _chunks(raw))))


def _of_set(raw: Tensor, channels: Channels) -> Tensor:
    values = torch.cat([_symbols(chunk, channels)[0] for chunk in _chunks(raw)])
    counts = (torch.bincount(each.flatten()) for each in values.unbind(1))
    return torch.stack([histogram_entropy(each) for each in counts]).mean(0, keepdim=True)


def _chunks(raw: Tensor) -> tuple[Tensor, ...]:
    return raw.split(max(1, CHUNK // raw[0].numel()))


def _symbols(raw: Tensor, channels: Channels) -> tuple[Tensor, int]:
    """What is counted of images: (N, K, L) for K histograms of L values an image, and how many values there may be."""
    if channels == "triples":
        if raw.shape[1] != 3:
            raise SpecError("channels = 'triples': needs images of 3 channels; these have 1")
        red, green, blue = raw.int().flatten(2).split(1, 1)
        return red << 16 | green << 8 | blue, TRIPLES
    if channels == "pooled":
        raw = raw.flatten(1).unsqueeze(1)
    elif channels == "red":
        raw = raw[:, :1]
    elif channels == "grey":
        raw = luma(raw)
    return raw.flatten(2), 256


class ImageEntropy(Method):
    """``measured``: ``entropy``, the mean over images in the options' unit.

    Unless there is one histogram for all, also the mean's ``entropy_standard_error``, and ``entropy_quantiles``: 101,
    from the lowest entropy of an image to the highest.
    """

    def __init__(self, options: ImageEntropyOptions) -> None:
        self.options = options

    def measure(self, network: nn.Module, dataset: Dataset) -> Mapping[str, float | Sequence[float]]:
        options, native = self.options, dataset.info.image_shape[1:]
        splits = {"train": [dataset.train], "test": [dataset.test], "both": [dataset.train, dataset.test]}
        images, whole_set = torch.cat([split.images for split in splits[options.split]]), options.histogram == "set"
        if options.radius:
            values = local_entropies(images, options.radius)
        else:
            values = image_entropies(images, options.channels, whole_set=whole_set, native=native)
        values = values.cpu() / IN_NATS[options.unit]
        if len(values) == 1:
            return {"entropy": values.item()}
        return {
            "entropy": values.mean().item(),
            "entropy_standard_error": values.std().item() / len(values) ** 0.5,
            "entropy_quantiles": values.quantile(torch.linspace(0, 1, 101, dtype=values.dtype)).tolist(),
        }
