"""Images with fewer bits, other histograms or moved pixels; and that runs without them stay what they were."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from thriftylib.datasets.load import load
from thriftylib.datasets.pixels import change
from thriftylib.errors import SpecError
from thriftylib.evidence.claims import Setting
from thriftylib.spec import Data, Pixels


def made_up(channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(40, 200, (5, channels, 6, 7), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("bits", range(1, 9))
def test_bits(bits):
    every = torch.arange(256).to(torch.uint8).view(1, 1, 16, 16)
    found = change(every, Pixels(bits=bits)).flatten()
    levels = sorted(set(found.tolist()))
    assert len(levels) == 2**bits
    assert [levels[0], levels[-1]] == [0, 255]
    assert max(np.diff(levels)) - min(np.diff(levels)) <= 1
    assert torch.equal(torch.bincount(found.int())[levels], torch.full((2**bits,), 256 >> bits))  # lower bits are gone
    assert torch.equal(found, found.sort().values)


@pytest.mark.parametrize(
    ("histogram", "by_pillow"), [("equalised", ImageOps.equalize), ("stretched", ImageOps.autocontrast)]
)
def test_histograms_of_each_image_and_channel(histogram, by_pillow):
    images = made_up()
    found = change(images, Pixels(histogram=histogram))
    assert found.dtype == torch.uint8
    for image, original in zip(found.flatten(0, 1), images.flatten(0, 1), strict=True):
        expected = np.asarray(by_pillow(Image.fromarray(original.numpy()))).astype(int)
        assert np.abs(image.numpy() - expected).max() <= 1  # rounded otherwise


def test_a_stretched_histogram_reaches_both_ends():
    images = made_up()
    images[0, 0] = 77
    found = change(images, Pixels(histogram="stretched"))
    assert (found[0, 0] == 77).all()  # a flat channel stays
    assert (found[1:].amin((2, 3)) == 0).all()
    assert (found[1:].amax((2, 3)) == 255).all()
    assert torch.equal(change(found, Pixels(histogram="stretched")), found)


def test_shuffled_pixels():
    images = made_up()
    found = change(images, Pixels(shuffled=True))
    assert not torch.equal(found, images)
    assert torch.equal(found.flatten(2).sort(2).values, images.flatten(2).sort(2).values)
    places = torch.arange(42, dtype=torch.uint8).view(1, 1, 6, 7).expand(2, 3, 6, 7)
    order = change(places, Pixels(shuffled=True))
    assert torch.equal(order, order[:1, :1].expand(2, 3, 6, 7))  # the same of all images and channels
    assert order[0, 0, 0].tolist() == [27, 9, 30, 1, 8, 17, 6]  # on each machine
    assert torch.equal(found, images.flatten(2)[:, :, order[0, 0].flatten().long()].view(images.shape))


def test_quantised_last():
    both = change(made_up(), Pixels(bits=2, histogram="equalised"))
    assert set(both.unique().tolist()) == {0, 85, 170, 255}


def test_nothing_is_changed_without():
    images = made_up()
    assert change(images, Pixels()) is images


def test_all_splits_are_changed_alike():
    pixels = Pixels(bits=1, shuffled=True)
    plain, changed = (load(Data(name="digits", validation_images=100, **more)) for more in ({}, {"pixels": pixels}))
    for split in ("train", "test", "validation"):
        before, after = getattr(plain, split), getattr(changed, split)
        assert torch.equal(after.images, change(before.images, pixels))
        assert torch.equal(after.labels, before.labels)
    assert changed.scaled(changed.test.images).max() == plain.scaled(plain.test.images).max()  # the same constants


def test_ids(make_run):
    plain = make_run()
    assert "pixels" not in plain.canonical()
    assert make_run(data={"pixels": {}}).id == plain.id
    changed = make_run(data={"pixels": {"bits": 3}})
    assert changed.id != plain.id
    assert type(changed).model_validate_json(changed.canonical()) == changed
    assert '"pixels":{"bits":3,"histogram":"as it is","shuffled":false}' in changed.canonical()


@pytest.mark.parametrize("bits", [0, 9])
def test_impossible_bits(bits):
    with pytest.raises(SpecError, match=f"bits = {bits}"):
        Pixels(bits=bits)


def test_claims_about_the_plain_data_are_not_answered(make_run):
    setting = Setting(network="toy", dataset="digits")
    everything = {"train_images": None, "test_images": None}
    plain, changed = (make_run(data={**everything, **more}) for more in ({}, {"pixels": {"bits": 3}}))
    assert setting.fits(plain)
    assert not setting.fits(changed)
    about_three_bits = Setting(network="toy", dataset="digits", pixels={"bits": 3})
    assert about_three_bits.fits(changed)
    assert not about_three_bits.fits(plain)


def test_label():
    assert Data(name="digits").label == "digits"
    pixels = Pixels(bits=3, histogram="equalised", shuffled=True)
    assert (
        Data(name="digits", pixels=pixels).label == "digits (equalised histograms, 3 bits a channel, shuffled pixels)"
    )
