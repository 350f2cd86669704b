"""Data sets as tensors that stay on the device: read and checked once, cut by fixed seeds, never cached on disk."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thriftylib import spec
from thriftylib.datasets import releases
from thriftylib.datasets.facts import DatasetInfo
from thriftylib.datasets.formats import Arrays
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


def load(
    data: spec.Data,
    *,
    root: Path | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    download: bool = False,
) -> Dataset:
    """Read a data set, check every file, and put it on ``device`` as uint8.

    - ``train_images`` / ``test_images`` N: the first N images of a fixed class-balanced order (each class comes once
      before any comes twice, as long as it has images left), kept in their official order; so the first 100 are among
      the first 200, and all of them are the data set itself.
    - ``validation_images`` N: taken away from those training images by a fixed seed, each class in proportion to its
      share.
    - ``label_noise`` share: that share of the labels of the training images that are left (rounded to whole images) is
      replaced by a class drawn uniformly, which may be the true one. The run's ``seed`` decides, and nothing else here
      depends on it. Validation and test labels stay clean.

    Our own fixed cuts are made by numpy's ``RandomState``, whose numbers are frozen for ever, so that they are the
    same on every machine.

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
    train, test = _arrays(info, data_root(root), download)
    if data.train_images is not None:
        train = _take(train, _first(train[1], data.train_images, "training subset", balanced=True))
    if data.test_images is not None:
        test = _take(test, _first(test[1], data.test_images, "test subset", balanced=True))
    validation = None
    if data.validation_images:
        chosen = _first(train[1], data.validation_images, "validation", balanced=False)
        validation, train = _take(train, chosen), _take(train, ~chosen)
    images, labels = train
    if data.label_noise:
        labels = _with_noise(labels, data.label_noise, len(info.classes), seed)
    return Dataset(
        info,
        _to_device((images, labels), device),
        _to_device(test, device),
        None if validation is None else _to_device(validation, device),
    )


def normalise(images: Tensor, info: DatasetInfo, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 images (N, C, H, W) to floats, (value / 255 - mean) / std per channel; the memory format stays.

    Computed in fp32 as one multiplication and addition, and only then rounded to ``dtype``.
    """
    scale, shift = _constants(info, images.device)
    return images.to(torch.float32).mul_(scale).add_(shift).to(dtype)


@functools.lru_cache
def _constants(info: DatasetInfo, device: torch.device) -> tuple[Tensor, Tensor]:
    """1 / (255 std) and -mean / std, (C, 1, 1): kept, since each copy to a GPU would wait for it."""
    mean, std = torch.tensor(info.mean, dtype=torch.float64), torch.tensor(info.std, dtype=torch.float64)
    scale, shift = 1 / (255 * std), -mean / std
    return tuple(values.to(torch.float32).view(-1, 1, 1).to(device) for values in (scale, shift))


def _arrays(info: DatasetInfo, root: Path, download: bool) -> tuple[Arrays, Arrays]:
    if info.name == "digits":
        pool = _digits()
    else:
        if download and not releases.present(info.name, root):
            releases.download(info.name, root)
        pool, test = releases.read(info, root)
    if info.name not in _OWN_SPLITS:
        return pool, test
    chosen = _first(pool[1], info.test, info.name, balanced=False)
    return _take(pool, ~chosen), _take(pool, chosen)


def _digits() -> Arrays:
    """scikit-learn's 1,797 digits; their 17 levels, 0 to 16, spread over 0 to 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, None], digits.target.astype(np.int64)


def _first(labels: np.ndarray, count: int, name: str, *, balanced: bool) -> np.ndarray:
    """A mask of the first ``count`` images of a fixed random order in which the classes take turns.

    ``balanced``: in turns of equal length while they last; else in proportion to the size of each class.
    """
    order = np.random.RandomState(stream_seed(0, name) % 2**32).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within its class
    turn = np.empty(len(labels))
    turn[by_class] = place if balanced else (place + 0.5) / np.repeat(sizes, sizes)
    chosen = np.zeros(len(labels), bool)
    chosen[order[np.argsort(turn[order], kind="stable")[:count]]] = True
    return chosen


def _take(part: Arrays, chosen: np.ndarray) -> Arrays:
    return part[0][chosen], part[1][chosen]


def _with_noise(labels: np.ndarray, share: float, classes: int, seed: int) -> np.ndarray:
    generator = stream("cpu", seed, "label noise")
    replaced = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    noisy = torch.from_numpy(labels).clone()
    noisy[replaced] = torch.randint(classes, (len(replaced),), generator=generator)
    return noisy.numpy()


def _to_device(part: Arrays, device: torch.device | str) -> Split:
    return Split(*(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in part))
