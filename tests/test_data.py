"""Data sets: every official format, every way a file can be wrong, and the cuts that runs ask for.

Small files of the official formats are written here; the real ones are read only where THRIFTY_DATA has them.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import io
import os
import pickle
import struct
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from thriftylib.datasets import formats, releases
from thriftylib.datasets.facts import DATASETS, dataset_info
from thriftylib.datasets.load import Dataset, Split, load
from thriftylib.errors import DataError
from thriftylib.spec import Data

TRAIN, TEST = 40, 20  # images of the small sets


def python2_batch(label_key: bytes, images: np.ndarray, labels: np.ndarray) -> bytes:
    """The CIFAR batches as Python 2 wrote them: protocol 2, byte strings, numpy's old module names."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    data = images.tobytes()
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|")
    dtype += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R(K\x01"
    array += b"K" + bytes([len(images)]) + b"M" + struct.pack("<H", images[0].size) + b"\x86" + dtype
    array += b"\x89T" + struct.pack("<i", len(data)) + data + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels.tolist()) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(label_key) + numbers + b"u."


def npz_batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, data=images.reshape(len(images), -1), labels=labels + 1)
    return file.getvalue()


def idx_file(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def mat_file(images: np.ndarray, labels: np.ndarray) -> bytes:
    file = io.BytesIO()
    ten_for_zero = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
    scipy.io.savemat(file, {"X": images.transpose(2, 3, 1, 0), "y": ten_for_zero}, do_compression=True)
    return file.getvalue()


def records(images: np.ndarray, *label_columns: np.ndarray) -> bytes:
    columns = [labels.astype(np.uint8)[:, None] for labels in label_columns]
    return np.concatenate([*columns, images.reshape(len(images), -1)], 1).tobytes()


def write_cifar10_bin(folder, train, test):
    for number, part in enumerate(np.split(np.arange(TRAIN), 5), 1):
        yield folder / f"cifar-10-batches-bin/data_batch_{number}.bin", records(train[0][part], train[1][part])
    yield folder / "cifar-10-batches-bin/test_batch.bin", records(*test)


def write_cifar10_py(folder, train, test):
    for number, part in enumerate(np.split(np.arange(TRAIN), 5), 1):
        content = python2_batch(b"labels", train[0][part], train[1][part])
        yield folder / f"cifar-10-batches-py/data_batch_{number}", content
    yield folder / "cifar-10-batches-py/test_batch", python2_batch(b"labels", *test)


def write_cifar100_bin(folder, train, test):
    for name, (images, labels) in (("train", train), ("test", test)):
        yield folder / f"cifar-100-binary/{name}.bin", records(images, labels // 5, labels)


def write_cifar100_py(folder, train, test):
    for name, part in (("train", train), ("test", test)):
        yield folder / f"cifar-100-python/{name}", python2_batch(b"fine_labels", *part)


def write_svhn(folder, train, test):
    for name, part in (("train", train), ("test", test)):
        yield folder / f"svhn/{name}_32x32.mat", mat_file(*part)


def write_mnist(folder, train, test):
    for name, (images, labels) in (("train", train), ("t10k", test)):
        yield folder / f"MNIST/raw/{name}-images-idx3-ubyte", idx_file(images[:, 0])
        yield folder / f"MNIST/raw/{name}-labels-idx1-ubyte", idx_file(labels)


def write_fashion_gz(folder, train, test):
    for path, content in write_mnist(folder, train, test):
        yield folder / "fashion-mnist" / f"{path.name}.gz", gzip.compress(content)


def write_stl10(folder, train, test):
    for name, (images, labels) in (("train", train), ("test", test)):
        yield folder / f"stl10_binary/{name}_X.bin", images.transpose(0, 1, 3, 2).tobytes()
        yield folder / f"stl10_binary/{name}_y.bin", (labels + 1).astype(np.uint8).tobytes()


def write_stl10_train(folder, train, test):
    pool = tuple(np.concatenate(parts) for parts in zip(train, test, strict=True))
    return [file for file in write_stl10(folder, pool, test) if "train" in file[0].name]


def write_imagenet32(folder, train, test):
    for number, part in enumerate(np.split(np.arange(TRAIN), 10), 1):
        yield folder / f"Imagenet32_train_npz/train_data_batch_{number}.npz", npz_batch(train[0][part], train[1][part])
    yield folder / "Imagenet32_val_npz/val_data.npz", npz_batch(*test)


def write_imagenet32_pickles(folder, train, test, protocol):
    def batch(images, labels):
        content = {"data": images.reshape(len(images), -1), "labels": (labels + 1).tolist(), "mean": images.mean(0)}
        return pickle.dumps(content, protocol)

    for number, part in enumerate(np.split(np.arange(TRAIN), 10), 1):
        yield folder / f"Imagenet32_train/train_data_batch_{number}", batch(train[0][part], train[1][part])
    yield folder / "Imagenet32_val/val_data", batch(*test)


WRITERS = {
    "cifar10-bin": ("cifar10", write_cifar10_bin),
    "cifar10-py": ("cifar10", write_cifar10_py),
    "cifar100-bin": ("cifar100", write_cifar100_bin),
    "cifar100-py": ("cifar100", write_cifar100_py),
    "svhn": ("svhn", write_svhn),
    "mnist": ("mnist", write_mnist),
    "fashionmnist-gz": ("fashionmnist", write_fashion_gz),
    "stl10": ("stl10", write_stl10),
    "stl10-split": ("stl10-split", write_stl10_train),
    "imagenet32-npz": ("imagenet32", write_imagenet32),
    "imagenet32-pickle-2": ("imagenet32", functools.partial(write_imagenet32_pickles, protocol=2)),
    "imagenet32-pickle-4": ("imagenet32", functools.partial(write_imagenet32_pickles, protocol=4)),
}


def part_of(info, count, seed):
    random = np.random.RandomState(seed)
    images = random.randint(0, 256, (count, *info.image_shape)).astype(np.uint8)
    return images, random.permutation(np.arange(count) % len(info.classes)).astype(np.int64)


@pytest.fixture
def know(monkeypatch):
    """Lets the table of MD5 sums know contents; where it knows no sum of the file, none is checked."""

    def replace(name, file, content):
        for release in releases.RELEASES[name]:
            if release.md5(file):
                monkeypatch.setitem(releases.MD5, f"{release.folders[0]}/{file}", hashlib.md5(content).hexdigest())

    return replace


@pytest.fixture
def small(tmp_path, monkeypatch, know):
    """Writes a small set in one of the official forms, and lets the tables know its sizes and MD5 sums."""

    def write(kind):
        name, files = WRITERS[kind]
        info = dataclasses.replace(DATASETS[name], train=TRAIN, test=TEST)
        monkeypatch.setitem(DATASETS, name, info)
        train, test = part_of(info, TRAIN, 1), part_of(info, TEST, 2)
        for path, content in files(tmp_path, train, test):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            know(name, path.name.removesuffix(".gz"), gzip.decompress(content) if path.suffix == ".gz" else content)
        return name, tmp_path, train, test

    return write


@pytest.mark.parametrize("kind", WRITERS)
def test_each_official_form_is_read_as_written(small, kind):
    name, root, train, test = small(kind)
    data = load(Data(name=name), root=root)
    if name == "stl10-split":
        pool = np.concatenate([train[0], test[0]])
        assert sorted(i.tobytes() for i in pool) == sorted(
            i.numpy().tobytes() for part in (data.train, data.test) for i in part.images
        )
        assert data.test.labels.bincount().tolist() == [TEST // 10] * 10
        return
    for found, (images, labels) in ((data.train, train), (data.test, test)):
        assert found.images.dtype == torch.uint8
        assert found.images.is_contiguous()
        np.testing.assert_array_equal(found.images, images)
        np.testing.assert_array_equal(found.labels, labels)
    assert data.validation is None


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if not kind.startswith("imagenet32")])
@pytest.mark.parametrize("damage", ["a changed byte", "cut short", "empty"])
def test_a_damaged_file_is_named_with_both_checksums(small, kind, damage):
    name, root, *_ = small(kind)
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        changed = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        path.write_bytes({"a changed byte": changed, "cut short": whole[:-1], "empty": b""}[damage])
        with pytest.raises(DataError) as caught:
            load(Data(name=name), root=root)
        message = str(caught.value)
        assert str(path) in message
        official_sum = hashlib.md5(gzip.decompress(whole) if path.suffix == ".gz" else whole).hexdigest()
        assert official_sum in message
        assert hashlib.md5(path.read_bytes()).hexdigest() in message or path.suffix == ".gz"
        assert "\n" not in message
        path.write_bytes(whole)


def test_imagenet32_without_checksums_is_still_checked(small):
    name, root, train, _ = small("imagenet32-npz")
    path = next(root.rglob("train_data_batch_3*"))
    images, labels = train[0][:4], train[1][:4]
    for content, reason in (
        (path.read_bytes()[:-40], "corrupt or truncated"),
        (npz_batch(images, labels + 1000), "labels 1"),
        (npz_batch(images[:3], labels[:3]), "39 images in .*, not 40"),
        (npz_batch(np.repeat(images, 20, 0), np.repeat(labels, 20)), "116 images in .*, not 40"),
        (npz_batch(images, labels[:3]), "corrupt or truncated"),
        (npz_batch(images[:, :2], labels), "corrupt or truncated"),
        (npz_batch(images.astype(np.float32), labels), "pixels are float32"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=reason) as caught:
            load(Data(name=name), root=root)
        assert str(path) in str(caught.value)


class Evil:
    """Makes a folder where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(small):
    name, root, *_ = small("cifar10-py")
    mark = root / "ran"
    (root / "cifar-10-batches-py/data_batch_2").write_bytes(pickle.dumps({"data": Evil(mark), "labels": []}))
    with pytest.raises(DataError, match="data_batch_2: corrupt or truncated: the MD5 sum"):
        load(Data(name=name), root=root)
    name, root, *_ = small("imagenet32-npz")
    with open(root / "Imagenet32_val_npz/val_data.npz", "wb") as file:
        np.savez(file, data=np.array([Evil(mark)], object), labels=np.array([1]))
    with pytest.raises(DataError, match=r"val_data.npz: corrupt or truncated.*elements '\|O'"):
        load(Data(name=name), root=root)
    assert not mark.exists()


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_missing_files_are_one_line_that_says_what_where_and_how(tmp_path, name):
    with pytest.raises(DataError) as caught:
        load(Data(name=name), root=tmp_path)
    message = str(caught.value)
    release = releases.RELEASES[name][0]
    for part in (
        name,
        release.train[0],
        (release.train + release.test)[-1],
        release.folders[0],
        str(tmp_path),
        "put the official files",
    ):
        assert part in message
    assert (f"`thrifty data {name} --data {tmp_path}`" in message) == (name != "imagenet32")
    assert "\n" not in message


def test_a_half_present_set_names_just_what_is_missing(small):
    name, root, *_ = small("cifar10-bin")
    (root / "cifar-10-batches-bin/data_batch_4.bin").unlink()
    with pytest.raises(DataError) as caught:
        load(Data(name=name), root=root)
    assert "data_batch_4.bin in cifar-10-batches-bin;" in str(caught.value)
    assert "data_batch_3.bin" not in str(caught.value)
    assert "batches-py" not in str(caught.value)


def test_stl10_without_its_test_images_points_to_our_split(small):
    _, root, *_ = small("stl10-split")
    with pytest.raises(DataError, match="test_X.bin, test_y.bin in stl10_binary.*'stl10-split'"):
        load(Data(name="stl10"), root=root)


def test_the_data_root_is_the_environment_variable_unless_given(small, monkeypatch):
    name, root, *_ = small("mnist")
    monkeypatch.setenv("THRIFTY_DATA", str(root))
    assert len(load(Data(name=name)).train) == TRAIN
    with pytest.raises(DataError, match="elsewhere"):
        load(Data(name=name), root=root / "elsewhere")


def test_torchvision_downloads_only_what_is_missing_and_only_when_asked(small, monkeypatch, tmp_path):
    name, root, *_ = small("cifar10-py")
    asked = []

    class Fake:
        def __init__(self, folder, download):
            asked.append((Path(folder), download))
            raise urllib.error.URLError("no route\nto host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Fake)
    load(Data(name=name), root=root, download=True)
    assert asked == []
    with pytest.raises(DataError, match="missing below"):
        load(Data(name=name), root=tmp_path / "new")
    assert asked == []
    with pytest.raises(DataError, match="cifar10: the download to .*new failed: .*no route to host"):
        load(Data(name=name), root=tmp_path / "new", download=True)
    assert asked == [(tmp_path / "new", True)]
    with pytest.raises(DataError, match="imagenet32: missing below"):
        load(Data(name="imagenet32"), root=tmp_path / "new", download=True)


def test_checksums_are_those_of_torchvision():
    for name, kind in (("cifar10", "CIFAR10"), ("cifar100", "CIFAR100"), ("stl10", "STL10")):
        theirs = getattr(torchvision.datasets, kind)
        listed = {file: md5 for file, md5 in theirs.train_list + theirs.test_list if "unlabeled" not in file}
        release = releases.RELEASES[name][-1]
        assert {file: release.md5(file) for file in release.train + release.test} == listed
        assert release.folders == (theirs.base_folder,)
    (svhn,) = releases.RELEASES["svhn"]
    for split, (_, file, md5) in torchvision.datasets.SVHN.split_list.items():
        assert split == "extra" or svhn.md5(file) == md5
    unknown = {
        name
        for name, several in releases.RELEASES.items()
        for release in several
        for file in release.train + release.test
        if not release.md5(file)
    }
    assert unknown == {"imagenet32"}


@given(st.integers(1, 2), st.binary(max_size=60))
def test_cifar_records_are_read_whole_or_refused(label_bytes, content):
    shape = (3, 2, 2)
    try:
        images, labels = formats.cifar_binary([content], shape, label_bytes=label_bytes)
    except ValueError:
        assert len(content) % (label_bytes + 12)
        return
    assert len(images) * (label_bytes + 12) == len(content)
    assert [content[start + label_bytes - 1] for start in range(0, len(content), label_bytes + 12)] == labels.tolist()


def pool_of_digits():
    data = load(Data(name="digits"))
    return torch.cat([data.train.images, data.test.images]), torch.cat([data.train.labels, data.test.labels])


def test_digits_are_scikit_learns_with_our_fixed_stratified_split():
    from sklearn.datasets import load_digits

    data = load(Data(name="digits"))
    assert (len(data.train), len(data.test)) == (1437, 360)
    images, labels = pool_of_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert (images.min(), images.max()) == (0, 255)
    levels = (images.float() * 16 / 255).round().to(torch.uint8)
    theirs = load_digits()
    ours = sorted((i.numpy().tobytes(), int(label)) for i, label in zip(levels, labels, strict=True))
    assert ours == sorted(
        (i.astype(np.uint8).tobytes(), int(label)) for i, label in zip(theirs.images, theirs.target, strict=True)
    )
    expected = labels.bincount() * 360 / 1797
    assert ((data.test.labels.bincount() - expected).abs() <= 1).all()
    # Whoever changes the split changes every record made with it.
    assert hashlib.sha256(data.test.images.numpy().tobytes()).hexdigest()[:16] == "7e74657bc1ebe78f"


def test_subsets_are_nested_balanced_and_fixed():
    def train(count):
        return load(Data(name="digits", train_images=count, test_images=count)).train

    def keys(split):
        return [image.numpy().tobytes() for image in split.images]

    whole = load(Data(name="digits"))
    previous = set()
    for count in (1, 10, 25, 100, 300):
        chosen = train(count)
        assert len(chosen) == count
        sizes = chosen.labels.bincount(minlength=10)
        assert sizes.max() - sizes.min() <= 1
        assert previous <= set(keys(chosen))
        previous = set(keys(chosen))
    assert torch.equal(train(100).images, train(100).images)
    test = load(Data(name="digits", test_images=50)).test
    assert test.labels.bincount().tolist() == [5] * 10
    assert torch.equal(load(Data(name="digits", train_images=1437)).train.images, whole.train.images)


def test_a_subset_of_unequal_classes_is_balanced_until_a_class_runs_out(small, know):
    name, root, train, _ = small("svhn")
    labels = np.repeat([1, 2, 3], [30, 8, 2])
    path = root / "svhn/train_32x32.mat"
    path.write_bytes(mat_file(train[0], labels))
    know(name, path.name, path.read_bytes())
    subset = load(Data(name=name, train_images=16), root=root).train
    assert subset.labels.bincount(minlength=4).tolist() == [0, 7, 7, 2]
    validation = load(Data(name=name, validation_images=20), root=root).validation
    assert validation.labels.bincount(minlength=4).tolist() == [0, 15, 4, 1]


def test_the_validation_split_is_stratified_disjoint_and_fixed():
    data = load(Data(name="digits", train_images=800, validation_images=200), seed=1)
    again = load(Data(name="digits", train_images=800, validation_images=200), seed=2)
    subset = load(Data(name="digits", train_images=800))
    assert (len(data.train), len(data.validation)) == (600, 200)
    assert torch.equal(data.validation.images, again.validation.images)
    sizes = data.validation.labels.bincount()
    assert sizes.tolist() == [20] * 10
    parts = [image.numpy().tobytes() for split in (data.train, data.validation) for image in split.images]
    assert sorted(parts) == sorted(image.numpy().tobytes() for image in subset.train.images)


def test_label_noise_replaces_that_fraction_by_the_runs_seed():
    clean = load(Data(name="digits", validation_images=200))
    noisy = load(Data(name="digits", validation_images=200, label_noise=0.5), seed=3)
    again = load(Data(name="digits", validation_images=200, label_noise=0.5), seed=3)
    other = load(Data(name="digits", validation_images=200, label_noise=0.5), seed=4)
    assert torch.equal(noisy.train.labels, again.train.labels)
    assert not torch.equal(noisy.train.labels, other.train.labels)
    assert torch.equal(noisy.train.images, clean.train.images)
    for split in ("validation", "test"):
        assert torch.equal(getattr(noisy, split).labels, getattr(clean, split).labels)
    # Of n / 2 replaced labels, 9 in 10 change: 4 standard deviations on either side.
    count = len(clean.train)
    changed = int((noisy.train.labels != clean.train.labels).sum())
    assert abs(changed - 0.45 * count) < 4 * (count * 0.5 * 0.9 * 0.1) ** 0.5
    assert changed <= round(0.5 * count)
    replaced = noisy.train.labels[noisy.train.labels != clean.train.labels].bincount(minlength=10)
    assert (replaced > 0.5 * changed / 10).all()


def of_random_images(scaling="normalised"):
    info = dataset_info("cifar10")
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.zeros(8, dtype=torch.int64))
    return images, Dataset(info, split, split, None, scaling)


def test_normalised_is_totensor_and_normalize():
    images, dataset = of_random_images()
    expected = torchvision.transforms.Normalize(dataset.info.mean, dataset.info.std)(images.double() / 255)
    torch.testing.assert_close(dataset.scaled(images).double(), expected, rtol=0, atol=1e-6)
    assert dataset.scaled(images, torch.bfloat16).dtype == torch.bfloat16
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert dataset.scaled(channels_last).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(dataset.scaled(channels_last), dataset.scaled(images))
    assert images.dtype == torch.uint8


def test_the_scalings_of_caffes_examples():
    images, dataset = of_random_images("1/256")
    assert torch.equal(dataset.scaled(images), images / 256)
    images, dataset = of_random_images("minus mean image")
    torch.testing.assert_close(dataset.scaled(images), images - images.float().mean(0))
    other = torch.full_like(images, 7)  # test images lose the mean of the training images
    torch.testing.assert_close(dataset.scaled(other), 7 - images.float().mean(0).expand(8, -1, -1, -1))


def test_the_mean_image_is_that_of_the_images_that_are_trained_on():
    data = Data(name="digits", validation_images=300, scaling="minus mean image")
    dataset = load(data)
    assert len(dataset.train) == 1437 - 300
    torch.testing.assert_close(dataset.scaled(dataset.train.images).mean(0), torch.zeros(1, 8, 8), rtol=0, atol=1e-3)


def test_digits_constants_are_those_of_the_training_images():
    dataset = load(Data(name="digits"))
    values = dataset.scaled(dataset.train.images).double()
    assert abs(values.mean()) < 3e-4  # constants have four digits
    assert abs(values.std() - 1) < 3e-4


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("digits", "imagenet32")])
def test_the_real_files(name):
    """Sizes, class counts and constants of the real set."""
    root = os.environ.get("THRIFTY_DATA")
    if root is None or not releases.present(name, Path(root)):
        pytest.skip(f"THRIFTY_DATA holds no {name}")
    data = load(Data(name=name))
    info = data.info
    assert (len(data.train), len(data.test)) == (info.train, info.test)
    if name not in ("svhn", "mnist"):
        for split in (data.train, data.test):
            assert split.labels.bincount().tolist() == [len(split) // len(info.classes)] * len(info.classes)
    if name != "svhn":  # whose constants are the authors' 0.5
        images = data.train.images.float() / 255
        deviation = images.std((2, 3)).mean(0) if name == "cifar10" else images.std((0, 2, 3))
        torch.testing.assert_close(images.mean((0, 2, 3)), torch.tensor(info.mean), rtol=0, atol=1e-4)
        torch.testing.assert_close(deviation, torch.tensor(info.std), rtol=0, atol=1e-4)
