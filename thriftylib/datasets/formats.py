"""Official data files, from bytes to arrays: CIFAR (binary, Python), STL-10, idx (MNIST), SVHN, downsampled ImageNet.

Every reader takes the contents of the files that hold one part of a set, and the shape (C, H, W) of an image; it
returns images, uint8 (N, C, H, W), and labels, int64 (N,) counted from 0. Contents that do not fit raise an exception
of whichever parser met them first.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray]
Reader = Callable[[Sequence[bytes], tuple[int, int, int]], Arrays]


def cifar_binary(label_bytes: int) -> Reader:
    """Records of ``label_bytes`` (the last is the fine label) and the image, channel by channel, row by row."""

    def read(contents: Sequence[bytes], shape: tuple[int, int, int]) -> Arrays:
        (content,) = contents
        records = np.frombuffer(content, np.uint8).reshape(-1, label_bytes + int(np.prod(shape)))
        return records[:, label_bytes:].reshape(-1, *shape), records[:, label_bytes - 1].astype(np.int64)

    return read


def stl10_binary(contents: Sequence[bytes], shape: tuple[int, int, int]) -> Arrays:
    """``X.bin``: image, channel, column, row; ``y.bin``: one byte per image, 1 to 10."""
    channels, height, width = shape
    images = np.frombuffer(contents[0], np.uint8).reshape(-1, channels, width, height).transpose(0, 1, 3, 2)
    return images, np.frombuffer(contents[1], np.uint8).astype(np.int64) - 1


def idx(content: bytes) -> np.ndarray:
    """One idx file of unsigned bytes: two zero bytes, type 8, number of dimensions, big-endian sizes, values."""
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError("no idx file of unsigned bytes")
    dimensions = content[3]
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise ValueError("the idx header is cut off")
    sizes = struct.unpack(f">{dimensions}I", content[4:start])
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def mnist_idx(contents: Sequence[bytes], shape: tuple[int, int, int]) -> Arrays:
    """An idx file of images (N, H, W) and one of labels (N,)."""
    return idx(contents[0])[:, None], idx(contents[1]).astype(np.int64)


def svhn_mat(contents: Sequence[bytes], shape: tuple[int, int, int]) -> Arrays:
    """A MATLAB 5 file: ``X`` (H, W, C, N) and ``y`` (N, 1), where 10 stands for the digit 0."""
    from scipy.io import loadmat

    mat = loadmat(io.BytesIO(contents[0]), variable_names=("X", "y"))
    return mat["X"].transpose(3, 2, 0, 1), mat["y"].reshape(-1).astype(np.int64) % 10


def python_batch(label_key: str, first_label: int = 0) -> Reader:
    """A pickled dictionary with ``data`` (N, C * H * W) and a list of labels that counts from ``first_label``."""

    def read(contents: Sequence[bytes], shape: tuple[int, int, int]) -> Arrays:
        batch = _ArraysOnly(io.BytesIO(contents[0]), encoding="bytes").load()
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        return _batch(batch["data"], batch[label_key], first_label, shape)

    return read


def npz_batch(contents: Sequence[bytes], shape: tuple[int, int, int]) -> Arrays:
    """Downsampled ImageNet as npz: ``data`` (N, C * H * W) and ``labels`` from 1; read without pickle."""
    with np.load(io.BytesIO(contents[0]), allow_pickle=False) as batch:
        return _batch(batch["data"], batch["labels"], 1, shape)


def _batch(data: Any, labels: Any, first_label: int, shape: tuple[int, int, int]) -> Arrays:
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        raise ValueError("'data' is no array of unsigned bytes")
    return data.reshape(-1, *shape), np.asarray(labels, np.int64) - first_label


class _ArraysOnly(pickle.Unpickler):
    """Reads dictionaries, lists, numbers, texts and numpy arrays; runs nothing else that a pickle may ask for."""

    allowed = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),  # how Python 3 writes bytes in protocol 2
    } | {
        # The function that rebuilds an array; its module was renamed in numpy 2.
        (f"numpy.{core}.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0]
        for core in ("core", "_core")
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise ValueError(f"the pickle asks for {module}.{name}, which no official file does")
        return self.allowed[module, name]
