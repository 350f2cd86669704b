"""The official files of every data set: where they lie below the data root, their MD5 sums, and how they are read.

MD5 sums are of the plain contents; each file may also lie there gzip-compressed, with ``.gz`` added to its name.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thriftylib.datasets import formats
from thriftylib.datasets.facts import DatasetInfo
from thriftylib.errors import DataError


@dataclass(frozen=True)
class Release:
    """One published form of a data set."""

    folders: tuple[str, ...]  # below the data root; a file may lie in any of them
    read: formats.Reader
    train: tuple[tuple[str, ...], ...]  # groups of files that are read together
    test: tuple[tuple[str, ...], ...]
    md5: Mapping[str, str]  # of the files whose sum is known

    @property
    def files(self) -> list[str]:
        """Every file, in order."""
        return [file for group in (*self.train, *self.test) for file in group]

    def locate(self, root: Path) -> dict[str, Path | None]:
        """Where each file lies; None: nowhere."""
        return {file: self._locate(root, file) for file in self.files}

    def _locate(self, root: Path, file: str) -> Path | None:
        places = (root / folder / (file + suffix) for folder in self.folders for suffix in ("", ".gz"))
        return next((place for place in places if place.is_file()), None)


def _singly(*files: str) -> tuple[tuple[str, ...], ...]:
    return tuple((file,) for file in files)


def _cifar(folder: str, read: formats.Reader, train: dict[str, str], test: dict[str, str]) -> Release:
    return Release((folder,), read, _singly(*train), _singly(*test), train | test)


def _idx(folders: tuple[str, ...], md5: tuple[str, str, str, str]) -> Release:
    train, test = (
        tuple(f"{part}-{kind}-ubyte" for kind in ("images-idx3", "labels-idx1")) for part in ("train", "t10k")
    )
    return Release(folders, formats.mnist_idx, (train,), (test,), dict(zip(train + test, md5, strict=True)))


def _imagenet32(suffix: str, read: formats.Reader) -> Release:
    # No official sums are published; counts, shapes and label ranges are checked instead.
    folders = ("imagenet32", "Imagenet32_train", "Imagenet32_val", "Imagenet32_train_npz", "Imagenet32_val_npz")
    train = _singly(*(f"train_data_batch_{number}{suffix}" for number in range(1, 11)))
    return Release(folders, read, train, _singly(f"val_data{suffix}"), {})


_STL10 = Release(
    ("stl10_binary",),
    formats.stl10_binary,
    (("train_X.bin", "train_y.bin"),),
    (("test_X.bin", "test_y.bin"),),
    {
        "train_X.bin": "918c2871b30a85fa023e0c44e0bee87f",
        "train_y.bin": "5a34089d4802c674881badbb80307741",
        "test_X.bin": "7f263ba9f9e0b06b93213547f721ac82",
        "test_y.bin": "36f9794fa4beb8a2c72628de14fa638e",
    },
)

RELEASES: dict[str, tuple[Release, ...]] = {
    "cifar10": (
        _cifar(
            "cifar-10-batches-bin",
            formats.cifar_binary(label_bytes=1),
            {
                "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
                "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
                "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
                "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
                "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
            },
            {"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
        ),
        _cifar(
            "cifar-10-batches-py",
            formats.python_batch("labels"),
            {
                "data_batch_1": "c99cafc152244af753f735de768cd75f",
                "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                "data_batch_4": "634d18415352ddfa80567beed471001a",
                "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            },
            {"test_batch": "40351d587109b95175f43aff81a1287e"},
        ),
    ),
    "cifar100": (
        _cifar(
            "cifar-100-binary",
            formats.cifar_binary(label_bytes=2),
            {"train.bin": "6172c7755cfe09b2fe270c85cebc1b15"},
            {"test.bin": "4499cfba6c016c1be1438163640a0898"},
        ),
        _cifar(
            "cifar-100-python",
            formats.python_batch("fine_labels"),
            {"train": "16019d7e3df5f24257cddd939b257f8d"},
            {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
        ),
    ),
    "svhn": (
        Release(
            ("svhn", "SVHN", "."),
            formats.svhn_mat,
            _singly("train_32x32.mat"),
            _singly("test_32x32.mat"),
            {
                "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
                "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
            },
        ),
    ),
    "mnist": (
        _idx(
            ("MNIST/raw", "mnist"),
            (
                "6bbc9ace898e44ae57da46a324031adb",
                "a25bea736e30d166cdddb491f175f624",
                "2646ac647ad5339dbf082846283269ea",
                "27ae3e4e09519cfbb04c329615203637",
            ),
        ),
    ),
    "fashionmnist": (
        _idx(
            ("FashionMNIST/raw", "fashion-mnist"),
            (
                "f4a8712d7a061bf5bd6d2ca38dc4d50a",
                "9018921c3c673c538a1fc5bad174d6f9",
                "8181f5470baa50b63fa0f6fddb340f0a",
                "15d484375f8d13e6eb1aabb0c3f46965",
            ),
        ),
    ),
    "stl10": (_STL10,),
    "stl10-split": (Release(_STL10.folders, _STL10.read, _STL10.train, (), _STL10.md5),),
    "imagenet32": (
        _imagenet32("", formats.python_batch("labels", first_label=1)),
        _imagenet32(".npz", formats.npz_batch),
    ),
}

_HINTS = {
    "stl10": " (the training images alone serve as the data set 'stl10-split')",
    "imagenet32": " (unpacked from image-net.org's Imagenet32_train.zip and Imagenet32_val.zip, or their _npz twins)",
}


# torchvision's class for each set, and where and with what options it is called.
_DOWNLOADS = {
    "cifar10": ("CIFAR10", [("", {})]),
    "cifar100": ("CIFAR100", [("", {})]),
    "svhn": ("SVHN", [("svhn", {"split": "train"}), ("svhn", {"split": "test"})]),
    "mnist": ("MNIST", [("", {})]),
    "fashionmnist": ("FashionMNIST", [("", {})]),
    "stl10": ("STL10", [("", {})]),
    "stl10-split": ("STL10", [("", {})]),
}


def present(name: str, root: Path) -> bool:
    """Whether every file of one release is there; nothing is read."""
    return any(None not in release.locate(root).values() for release in RELEASES[name])


def read(info: DatasetInfo, root: Path) -> tuple[formats.Arrays, formats.Arrays]:
    """The training and the test images and labels of the first complete release below ``root``, all checked.

    A release without test files (``stl10-split``) holds all ``info.train + info.test`` images in its training part.

    Raises:
        DataError: files are missing, corrupt or truncated, or do not hold what they should.
    """
    for release in RELEASES[info.name]:
        paths = release.locate(root)
        if None not in paths.values():
            sizes = (info.train, info.test) if release.test else (info.train + info.test, 0)
            return (
                _read_part(release, release.train, paths, info, sizes[0]),
                _read_part(release, release.test, paths, info, sizes[1]),
            )
    raise DataError(_missing(info.name, root))


def _missing(name: str, root: Path) -> str:
    found = [(release, release.locate(root)) for release in RELEASES[name]]
    begun = [(release, paths) for release, paths in found if any(paths.values())]
    looked = "; or ".join(
        f"{_enumerate([file for file, path in paths.items() if path is None])} in {' or '.join(release.folders)}"
        for release, paths in begun or found
    )
    fetch = f"run `thrifty data {name} --data {root}`, or " if name in _DOWNLOADS else ""
    hint = _HINTS.get(name, "")
    return f"{name}: missing below {root}: {looked}; to get them, {fetch}put the official files there{hint}"


def _enumerate(files: list[str]) -> str:
    return ", ".join(files) if len(files) <= 6 else f"{files[0]} ... {files[-1]} ({len(files)} files)"


def _read_part(
    release: Release,
    groups: tuple[tuple[str, ...], ...],
    paths: Mapping[str, Path],
    info: DatasetInfo,
    count: int,
) -> formats.Arrays:
    """All groups into one array that is allocated once: ImageNet32 has 3.9 GB."""
    images, labels, filled = np.empty((count, *info.image_shape), np.uint8), np.empty(count, np.int64), 0
    for group in groups:
        names = " and ".join(str(paths[file]) for file in group)
        contents = [_contents(paths[file], release.md5.get(file)) for file in group]
        try:
            some_images, some_labels = release.read(contents, info.image_shape)
        except Exception as error:  # a file without a known MD5 sum may hold anything, and break its reader in any way
            raise DataError(f"{names}: corrupt or truncated: {_line(error)}") from error
        end = filled + len(some_labels)
        if some_images.shape != (len(some_labels), *info.image_shape):
            raise DataError(
                f"{names}: {some_images.shape} images for {len(some_labels)} labels, not {info.image_shape} each"
            )
        if len(some_labels) and not 0 <= some_labels.min() <= some_labels.max() < len(info.classes):
            raise DataError(f"{names}: labels outside the {len(info.classes)} classes of {info.name}")
        if end > count:
            raise DataError(f"{names}: more than the {count} images of {info.name}")
        images[filled:end], labels[filled:end], filled = some_images, some_labels, end
    if filled != count:
        raise DataError(f"{info.name}: {filled} images in {', '.join(map(str, paths.values()))}, where {count} belong")
    return images, labels


def _contents(path: Path, md5: str | None) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            found = hashlib.md5(content, usedforsecurity=False).hexdigest()
            raise DataError(
                f"{path}: corrupt or truncated, cannot be decompressed ({_line(error)}): its MD5 sum is {found}, "
                f"that of the official contents {md5}; delete it and get it again"
            ) from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if md5 is not None and found != md5:
        raise DataError(
            f"{path}: corrupt or truncated: the MD5 sum of its contents is {found}, the official one {md5}; "
            "delete it and get it again"
        )
    return content


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def download(name: str, root: Path) -> None:
    """Fetch the official files below ``root`` with torchvision, which checks the archives.

    Raises:
        DataError: the set cannot be fetched by a program, or the download failed.
    """
    if name not in _DOWNLOADS:
        raise DataError(_missing(name, root))
    from torchvision import datasets

    kind, calls = _DOWNLOADS[name]
    root.mkdir(parents=True, exist_ok=True)
    try:
        for folder, options in calls:
            getattr(datasets, kind)(root / folder, download=True, **options)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{name}: the download to {root} failed: {_line(error)}") from error
