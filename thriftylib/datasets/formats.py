"""Official data files, from bytes to arrays.

A reader takes the contents of the files that hold one part of a set, and the shape (C, H, W) of an image. It returns
the images, uint8 with N * C * H * W elements in that order, and N labels counted from 0. Where an MD5 sum is known the
contents have been compared with it before; where there is none a reader trusts nothing. What does not fit raises any
exception.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence

import numpy as np

from thriftylib.datasets.arrays import array, read_npz, read_pickle

Shape = tuple[int, int, int]
Arrays = tuple[np.ndarray, np.ndarray]
Reader = Callable[[Sequence[bytes], Shape], Arrays]


def cifar_binary(contents: Sequence[bytes], shape: Shape, *, label_bytes: int = 1) -> Arrays:
    """Per image ``label_bytes`` (the last is the fine label), then channel by channel and row by row."""
    rows = np.frombuffer(contents[0], np.uint8).reshape(-1, label_bytes + math.prod(shape))
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def cifar_pickle(contents: Sequence[bytes], shape: Shape) -> Arrays:
    """A pickled dictionary: ``data`` (N, C * H * W) and a list of labels."""
    batch = read_pickle(contents[0])
    return array(batch["data"]), array(batch["fine_labels" if "fine_labels" in batch else "labels"])


def stl10_binary(contents: Sequence[bytes], shape: Shape) -> Arrays:
    """``X.bin``: image, channel, column, row; ``y.bin``: one byte per image, 1 to 10."""
    channels, height, width = shape
    images = np.frombuffer(contents[0], np.uint8).reshape(-1, channels, width, height)
    return images.swapaxes(2, 3), np.frombuffer(contents[1], np.uint8) - np.uint8(1)


def idx(contents: Sequence[bytes], shape: Shape) -> Arrays:
    """Images behind a header of 16 bytes; labels behind one of 8."""
    return np.frombuffer(contents[0], np.uint8, offset=16), np.frombuffer(contents[1], np.uint8, offset=8)


def svhn_mat(contents: Sequence[bytes], shape: Shape) -> Arrays:
    """A MATLAB 5 file: ``X`` (H, W, C, N) and ``y`` (N, 1), where 10 stands for the digit 0."""
    from scipy.io import loadmat

    mat = loadmat(io.BytesIO(contents[0]), variable_names=("X", "y"))
    return mat["X"].transpose(3, 2, 0, 1), mat["y"].reshape(-1) % 10


def imagenet_npz(contents: Sequence[bytes], shape: Shape) -> Arrays:
    """Downsampled ImageNet: ``data`` (N, C * H * W) and ``labels`` from 1."""
    return read_npz(contents[0], "data"), _from_0(read_npz(contents[0], "labels"))


def imagenet_pickle(contents: Sequence[bytes], shape: Shape) -> Arrays:
    """The same as a pickled dictionary."""
    batch = read_pickle(contents[0])
    return array(batch["data"]), _from_0(array(batch["labels"]))


def _from_0(labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        raise ValueError(f"labels are {labels.dtype}")
    return labels.astype(np.int64) - 1
