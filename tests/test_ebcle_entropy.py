"""Entropies of images: against scikit-image, against values known by hand, and what is refused or warned of."""

import math
import sys
import warnings
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from skimage.filters.rank import entropy as rank_entropy
from skimage.measure import shannon_entropy
from skimage.morphology import disk
from torch.nn.functional import pad

from thriftylib.datasets import releases
from thriftylib.datasets.facts import DATASETS
from thriftylib.datasets.load import load
from thriftylib.datasets.pixels import luma
from thriftylib.errors import SpecError, ThriftyError
from thriftylib.histograms import histogram_entropy, row_counts
from thriftylib.papers import ebcle_entropy
from thriftylib.papers.ebcle_entropy import image_entropies, local_entropies
from thriftylib.paths import data_root
from thriftylib.spec import Data, Run
from thriftylib.training.engine import train


def made_up(count=40, channels=3, size=9, levels=256):
    """Random images of few levels, so that values repeat."""
    pixels = torch.randint(levels, (count, channels, size, size), generator=torch.Generator().manual_seed(0))
    return (pixels * (255 // (levels - 1))).to(torch.uint8)


@given(hnp.arrays(np.int64, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 6)))
def test_row_counts_are_numpys(values):
    expected = np.stack([np.bincount(row, minlength=7) for row in values])
    assert np.array_equal(row_counts(torch.from_numpy(values), 7).numpy(), expected)


def test_entropies_of_known_histograms():
    counts = torch.tensor([[4, 0, 0, 0], [1, 1, 1, 1], [3, 0, 3, 0], [0, 0, 0, 0]])
    assert histogram_entropy(counts).tolist() == [0, math.log(4), math.log(2), 0]
    assert histogram_entropy(counts[None, :, None]).shape == (1, 4, 1)


def test_known_images():
    constant = torch.full((1, 16, 16), 7, dtype=torch.uint8)
    every_value = torch.arange(256).view(1, 16, 16).to(torch.uint8)
    halves = torch.zeros(1, 16, 16, dtype=torch.uint8)
    halves[:, 8:] = 255
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of them is padded
        for image, expected in ((constant, 0), (every_value, math.log(256)), (halves, math.log(2))):
            for channels in ("pooled", "red", "mean", "grey"):
                for whole_set in (False, True):
                    found = image_entropies(image[None], channels, whole_set=whole_set)
                    assert found.tolist() == [pytest.approx(expected, abs=1e-12)]


@cache
def training_images(name):
    return load(Data(name=name)).train.images


def real_images():
    """CIFAR-10's and MNIST's training images where they are, always the digits."""
    for name in ("cifar10", "mnist", "digits"):
        if name == "digits" or releases.present(name, data_root()):
            images = training_images(name)
            yield images[:: len(images) // 300], DATASETS[name].image_shape[1:]


def test_is_scikit_images():
    for images, native in real_images():
        expected = [shannon_entropy(image, base=np.e) for image in images.numpy()]
        np.testing.assert_allclose(image_entropies(images, native=native), expected, rtol=0, atol=1e-12)
        np.testing.assert_allclose(image_entropies(images.numpy(), native=native), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [2, 6, 256])
def test_each_convention_by_scikit_image(levels, monkeypatch):
    monkeypatch.setattr(ebcle_entropy, "CHUNK", 1000)  # a chunk is no whole set
    images = made_up(levels=levels)
    pixels = images.numpy().astype(np.int64)
    packed = (pixels[:, 0] << 16) + (pixels[:, 1] << 8) + pixels[:, 2]
    grey = np.stack([np.asarray(Image.fromarray(each.transpose(1, 2, 0)).convert("L")) for each in images.numpy()])

    def entropy(values):
        return shannon_entropy(values, base=np.e)

    ways = {
        "pooled": lambda part: entropy(pixels[part]),
        "red": lambda part: entropy(pixels[part, 0]),
        "mean": lambda part: np.mean([entropy(pixels[part, channel]) for channel in range(3)]),
        "grey": lambda part: entropy(grey[part]),
        "triples": lambda part: entropy(packed[part]),
    }
    for channels, by_hand in ways.items():
        expected = [by_hand(slice(i, i + 1)) for i in range(len(images))]
        np.testing.assert_allclose(image_entropies(images, channels), expected, rtol=0, atol=1e-12)
        whole = image_entropies(images, channels, whole_set=True).tolist()
        assert whole == [pytest.approx(by_hand(slice(None)), abs=1e-12)]


def test_luma_is_pillows():
    colours = torch.stack(torch.meshgrid(*[torch.arange(0, 256, 15)] * 3, indexing="ij")).flatten(1).to(torch.uint8)
    image = Image.fromarray(colours.T.reshape(1, -1, 3).contiguous().numpy())
    assert np.array_equal(luma(colours[None, :, None])[0, 0].numpy(), np.asarray(image.convert("L")))


def test_local_entropy(monkeypatch):
    images = made_up(3, 1, 12, levels=4)
    expected = [rank_entropy(image[0], disk(3)).mean() * math.log(2) for image in images.numpy()]
    assert local_entropies(images, 3).tolist() == pytest.approx(expected, abs=1e-12)
    with pytest.raises(SpecError, match="^radius = 0: must be 1 or more pixels$"):  # a pixel alone has no entropy
        local_entropies(images, 0)
    monkeypatch.setitem(sys.modules, "skimage.filters.rank", None)
    with pytest.raises(ThriftyError, match="^local entropy needs scikit-image: pip install scikit-image$"):
        local_entropies(images, 3)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (made_up().float() / 64 - 2, r"torch.float32, -2 to 1\.98438: must be raw 8-bit values .*silently wrong"),
        (made_up().long(), r"torch.int64, 0 to 255: must be raw 8-bit values"),
        (torch.empty(0, 3, 4, 4, dtype=torch.uint8), "^no images: must be 1 or more$"),
        ([], "^no images: must be 1 or more$"),
        (None, r"^images are None: must be raw 8-bit values \(uint8\), \(N, C, H, W\)$"),
        (torch.empty(3, 0, 4, 4), r"shape \(3, 0, 4, 4\): must have 1 pixel or more"),
        (np.ones((2, 3, 4, 4), np.uint16), "^images are torch.uint16, 1 to 1: must be raw 8-bit values"),
        (np.array([(np.ones(3), 1)], dtype=object), "^images are of type object: must be the images alone"),
        (["a.png"], "^images are of type <U5: must be the images alone"),
        ([np.zeros((3, 4, 4), np.uint8), np.zeros((3, 5, 4), np.uint8)], r"of 2 sizes, \(3, 4, 4\) and \(3, 5, 4\)"),
        (made_up().permute(0, 2, 3, 1), r"shape \(40, 9, 9, 3\): must be \(N, C, H, W\) with 1 or 3 channels"),
        (made_up()[:, :, :0], r"shape \(40, 3, 0, 9\): must have 1 pixel or more"),
        (made_up()[:, 0], r"shape \(40, 9, 9\): must be"),
    ],
)
def test_what_is_refused(images, message):
    with pytest.raises(SpecError, match=message) as error:
        image_entropies(images)
    assert "\n" not in str(error.value)


def test_refused_conventions():
    with pytest.raises(SpecError, match="channels = 'blue': must be one of pooled, red, mean, grey, triples"):
        image_entropies(made_up(), "blue")
    with pytest.raises(SpecError, match="'triples': needs images of 3 channels; these have 1"):
        image_entropies(made_up(channels=1), "triples")
    with pytest.raises(SpecError, match=r"native = \[12, 9\]: must be from \[1, 1\] up to .* images, \[9, 9\]"):
        image_entropies(made_up(), native=(12, 9))
    with pytest.raises(SpecError, match=r"native = \[0, 9\]: must be from \[1, 1\]"):
        image_entropies(made_up(), native=(0, 9))
    with pytest.raises(SpecError, match="radius = 3: needs channels = 'grey'"):
        measuring(radius=3)


def test_an_object_array_of_equal_images_is_read():
    images = made_up(3).numpy()
    pairs = np.empty(3, object)
    pairs[:] = list(images)
    assert torch.equal(image_entropies(pairs), image_entropies(images))
    assert torch.equal(image_entropies(list(images)), image_entropies(images))


def test_padding_warns_with_both_values():
    images = made_up()
    plain = image_entropies(images).mean()
    for padded in (
        pad(images, (2, 2, 2, 2)),
        pad(images, (3, 1, 3, 1), value=9),
    ):
        with pytest.warns(UserWarning, match=rf"\[13, 13\] seem padded: .*; \[9, 9\] inside: {plain:.4f};") as seen:
            values = image_entropies(padded)
        assert len(seen) == 1
        assert f"{values.mean():.4f} nats" in str(seen[0].message)
        assert "\n" not in str(seen[0].message)
    with pytest.warns(UserWarning, match="seem padded"):
        image_entropies(pad(images, (0, 0, 1, 0)), "grey", whole_set=True)


def test_native_size_says_what_padding_is(recwarn):
    blank = pad(made_up(), (2, 2, 2, 2))
    image_entropies(blank, native=(13, 13))
    image_entropies(made_up())
    assert not recwarn
    with pytest.warns(UserWarning, match=r"\[9, 9\] seem padded: .* \[7, 7\] inside"):
        image_entropies(made_up(), native=(7, 7))


def measuring(data="digits", **options):
    return Run(
        network={"name": "none"},
        data={"name": data},
        recipe=None,
        method={"name": "image-entropy", "options": options},
    )


def test_a_run_measures_a_data_set(tmp_path, recwarn):
    record = train(measuring(), results=tmp_path).record
    images = load(Data(name="digits")).train.images
    values = image_entropies(images, native=(8, 8))
    assert record.measured["entropy"] == pytest.approx(values.mean().item())
    assert record.measured["entropy_standard_error"] == pytest.approx(values.std().item() / len(images) ** 0.5)
    quantiles = record.measured["entropy_quantiles"]
    assert len(quantiles) == 101
    assert [quantiles[0], quantiles[-1]] == [values.min().item(), values.max().item()]
    assert quantiles[50] == pytest.approx(values.median().item(), abs=1e-3)
    assert train(measuring(), results=tmp_path).record == record  # it is there already
    in_bits = train(measuring(unit="bits", split="both"), results=tmp_path).record.measured
    whole = load(Data(name="digits"))
    both = image_entropies(torch.cat([whole.train.images, whole.test.images]), native=(8, 8)) / math.log(2)
    assert in_bits["entropy"] == pytest.approx(both.mean().item())
    of_set = train(measuring(histogram="set"), results=tmp_path).record.measured
    assert of_set == {"entropy": pytest.approx(image_entropies(images, whole_set=True, native=(8, 8)).item())}
    local = train(measuring(channels="grey", radius=2), results=tmp_path).record.measured
    assert local["entropy"] == pytest.approx(local_entropies(images, 2).mean().item())
    assert not recwarn.list


@pytest.mark.parametrize(
    ("name", "channels", "whole_set", "nats", "error"),
    [  # measured on a part of the images, or on all of MNIST's, before this code was written
        ("cifar10", "pooled", False, 5.036, 0.005),
        ("cifar10", "red", False, 4.854, 0.006),
        ("cifar10", "mean", False, 4.821, 0.006),
        ("cifar10", "pooled", True, 5.485, 0.0015),
        ("mnist", "pooled", False, 1.111, 0.0006),
        ("mnist", "pooled", True, 1.363, 0.0006),
    ],
)
def test_real_data_sets(name, channels, whole_set, nats, error):
    if not releases.present(name, data_root()):
        pytest.skip(f"{name} is not here")
    images = training_images(name)
    found = image_entropies(images, channels, whole_set=whole_set, native=DATASETS[name].image_shape[1:])
    assert found.mean().item() == pytest.approx(nats, abs=error)
