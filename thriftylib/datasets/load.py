"""Data sets as tensors that stay on the device: read and checked once, cut by fixed seeds, never cached on disk."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thriftylib import spec
from thriftylib.datasets import pixels, releases
from thriftylib.datasets.facts import DatasetInfo
from thriftylib.datasets.formats import Arrays
from thriftylib.errors import DataError
from thriftylib.paths import data_root
from thriftylib.training.streams import stream, stream_seed

_OWN_SPLITS = ("digits", "stl10-split")  # one pool of images, cut into training and test images by us


@dataclass(frozen=True)
class Split:
    """Images, uint8 (N, C, H, W), and labels, int64 (N,), on the device."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """What one run trains and is measured on."""

    info: DatasetInfo
    train: Split
    test: Split
    validation: Split | None
    scaling: str = "normalised"  # see thriftylib.spec.Data

    def scaled(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 images (N, C, H, W) to floats as the run's data says; the memory format stays.

        Computed in fp32 as one multiplication and addition, and only then rounded to ``dtype``.
        """
        scale, shift = self._scale_and_shift
        return images.to(torch.float32).mul_(scale).add_(shift).to(dtype)

    @functools.cached_property
    def _scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """On the images' device: kept, since each copy to a GPU would wait for it."""
        device = self.train.images.device
        if self.scaling == "1/256":
            return torch.tensor(1 / 256, device=device), torch.zeros((), device=device)
        if self.scaling == "minus mean image":
            mean = self.train.images.sum(0, dtype=torch.int64).double() / len(self.train)
            return torch.ones((), device=device), -mean.float()
        mean, std = torch.tensor(self.info.mean, dtype=torch.float64), torch.tensor(self.info.std, dtype=torch.float64)
        return tuple(x.to(torch.float32).view(-1, 1, 1).to(device) for x in (1 / (255 * std), -mean / std))


def load(
    data: spec.Data,
    *,
    root: Path | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    download: bool = False,
) -> Dataset:
    """Read a data set, check every file, and put it on ``device`` as uint8.

    - ``train_images``, ``test_images``: the first N images of a fixed order in which the classes take turns while they
      last, so that subsets are balanced and nested; the images keep their official order.
    - ``validation_images``: taken away from those training images by a fixed seed, in proportion to the classes.
    - ``pixels``: every image is changed so, before anything else sees it (:func:`thriftylib.datasets.pixels.change`).
    - ``label_noise``: this fraction of the remaining training labels is drawn anew, uniformly over the classes, by the
      run's ``seed``. Validation and test labels stay clean.

    Our own cuts come from numpy's ``RandomState``, whose numbers are frozen, so they are the same on every machine.

    Args:
        data: which set and which part of it.
        root: folder of the data sets; see :func:`thriftylib.paths.data_root`.
        device: where the tensors go.
        seed: the run's seed, for label noise alone.
        download: fetch missing files with torchvision.

    Raises:
        DataError: files are missing, corrupt or truncated; one line names them and says how to get them.
    """
    info = data.info
    train, test = _read(info, data_root(root), download)
    if data.train_images is not None:
        train, _ = _cut(train, data.train_images, "training subset", balanced=True)
    if data.test_images is not None:
        test, _ = _cut(test, data.test_images, "test subset", balanced=True)
    validation = None
    if data.validation_images:
        validation, train = _cut(train, data.validation_images, "validation")
    train, test, validation = (part and Split(*map(torch.from_numpy, part)) for part in (train, test, validation))
    if data.label_noise:
        noisy = stream("cpu", seed, "label noise")
        replaced = torch.randperm(len(train), generator=noisy)[: round(data.label_noise * len(train))]
        train.labels[replaced] = torch.randint(len(info.classes), (len(replaced),), generator=noisy)
    splits = (
        part and Split(pixels.change(part.images, data.pixels).to(device), part.labels.to(device))
        for part in (train, test, validation)
    )
    return Dataset(info, *splits, data.scaling)


def _read(info: DatasetInfo, root: Path, download: bool) -> tuple[Arrays, Arrays]:
    if info.name == "digits":
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise DataError("digits come with scikit-learn, which is not installed: pip install scikit-learn") from None

        digits = load_digits()  # 17 levels, 0 to 16, spread over 0 to 255
        train = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None], digits.target.astype(np.int64)
    else:
        if download and not releases.present(info.name, root):
            releases.download(info.name, root)
        train, test = releases.read(info, root)
    if info.name in _OWN_SPLITS:
        test, train = _cut(train, info.test, info.name)
    return train, test


def _cut(part: Arrays, count: int, name: str, *, balanced: bool = False) -> tuple[Arrays, Arrays]:
    """The first ``count`` images of a fixed random order in which the classes take turns, and the others.

    ``balanced``: in turns of equal length while they last; else in proportion to the size of each class.
    """
    images, labels = part
    order = np.random.RandomState(stream_seed(0, name) % 2**32).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within its class
    turn = np.empty(len(labels))
    turn[by_class] = place if balanced else (place + 0.5) / np.repeat(sizes, sizes)
    chosen = np.zeros(len(labels), bool)
    chosen[order[np.argsort(turn[order], kind="stable")[:count]]] = True
    return (images[chosen], labels[chosen]), (images[~chosen], labels[~chosen])
