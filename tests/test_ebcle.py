"""The bound by each reading, and the networks that it shapes."""

import math

import numpy as np
import pytest

from thriftylib.errors import SpecError
from thriftylib.papers.ebcle import READINGS, bound, shaped
from thriftylib.papers.families import (
    BottleneckResNetOptions,
    DenseNetOptions,
    EfficientNetOptions,
    ResNeXtOptions,
)

DENSENET, RESNET, RESNEXT = DenseNetOptions(), BottleneckResNetOptions(), ResNeXtOptions()


@pytest.mark.parametrize(
    ("nats", "rounding", "in_nats", "in_bits"),
    [  # the sheet's table of CIFAR-10, an ImageNet32 stand-in and MNIST
        (5.036, "floor", 5, 7),
        (5.036, "nearest", 5, 7),
        (5.036, "ceiling", 6, 8),
        (4.987, "floor", 4, 7),
        (4.987, "nearest", 5, 7),
        (4.987, "ceiling", 5, 8),
        (1.111, "floor", 1, 1),
        (1.111, "nearest", 1, 2),
        (1.111, "ceiling", 2, 2),
        (2.5, "nearest", 3, 4),  # a half goes up
        (3.5, "nearest", 4, 5),
    ],
)
def test_bound(nats, rounding, in_nats, in_bits):
    assert (bound(nats, rounding=rounding), bound(nats, unit="bits", rounding=rounding)) == (in_nats, in_bits)


@pytest.mark.parametrize(
    ("nats", "how", "message"),
    [
        (0.4, {}, r"^bound = 0: 0\.400 nats, nearest; must be 1 or more"),
        (0.4, {"unit": "bits", "rounding": "floor"}, r"^bound = 0: 0\.577 bits, floor"),
        (0.0, {"rounding": "ceiling"}, "^bound = 0"),
        (-1.0, {}, "^entropy = -1.0: must be a number of nats from 0 on"),
        (math.nan, {}, "^entropy = nan"),
        ("5", {}, "^entropy = '5': must be a number of nats"),
        (5.0, {"unit": "bans"}, "^unit = 'bans': must be one of nats, bits"),
        (5.0, {"rounding": "up"}, "^rounding = 'up': must be one of nearest, floor, ceiling"),
    ],
)
def test_no_bound(nats, how, message):
    with pytest.raises(SpecError, match=message) as error:
        bound(nats, **how)
    assert "\n" not in str(error.value)


def test_readings():
    assert list(READINGS)[:3] == ["R1", "R2", "R3"]
    for name in ("R1", "R2", "R3"):
        assert READINGS[name].unit == "nats"
        assert READINGS[f"R4 as {name}"] == READINGS[name]._replace(unit="bits")
    shapes = {
        name: shaped(DENSENET, bound(5.034, unit=unit), count=count).repeats for name, (count, unit) in READINGS.items()
    }
    assert shapes == {
        "R1": (5, 5, 5),
        "R2": (2, 2, 1),
        "R3": (2, 1, 1),
        "R4 as R1": (7, 7, 7),
        "R4 as R2": (3, 2, 2),
        "R4 as R3": (2, 2, 2),
    }


@pytest.mark.parametrize(
    ("options", "limit", "count", "repeats"),
    [
        (DENSENET, 5, "per stage", (5, 5, 5)),
        (DENSENET, 13, "per stage", (12, 12, 12)),
        (RESNET, 3, "per stage", (3, 3, 3, 3)),
        (RESNET, 5, "per stage", (3, 4, 5, 3)),
        (RESNET, 4, "blocks", (1, 1, 1, 1)),
        (RESNET, 5, "blocks", (1, 1, 2, 1)),
        (RESNET, 8, "blocks", (2, 2, 3, 1)),
        (RESNET, 16, "blocks", (3, 4, 6, 3)),
        (RESNET, 99, "blocks", (3, 4, 6, 3)),
        (RESNET, 5, "convolutions", (1, 1, 1, 1)),  # one is the stem's
        (DENSENET, 7, "convolutions", (2, 2, 2)),
    ],
)
def test_shallower(options, limit, count, repeats):
    found = shaped(options, limit, count=count)
    assert found == options.with_repeats(repeats)


@pytest.mark.parametrize(
    ("limit", "count"), [(5.036, "per stage"), (12.5, "per stage"), (4.5, "blocks"), ("5", "blocks"), (True, "blocks")]
)
def test_an_entropy_is_no_bound(limit, count):
    with pytest.raises(SpecError, match=r"^bound = .*: must be a whole number; bound\(\) rounds an entropy$"):
        shaped(DenseNetOptions(), limit, count=count)


def test_two_convolutions_a_unit():
    class Basic(DenseNetOptions):
        convolutions_3x3 = 2

    assert shaped(Basic(), 9, count="convolutions").repeats == (2, 1, 1)
    with pytest.raises(SpecError, match=r"bound = 6 \(convolutions\): must be 7 or more"):
        shaped(Basic(), 6, count="convolutions")


@pytest.mark.parametrize("match", ["parameters", "macs"])
@pytest.mark.parametrize(
    ("options", "limit"), [(RESNEXT, 3), (RESNET, 2), (EfficientNetOptions(), 1), (DENSENET, 8), (DENSENET, 4)]
)
def test_broader(options, limit, match):
    found = shaped(options, limit, match=match)

    def quantity(network):
        return getattr(network.cost((3, 32, 32), 10), match)

    assert found.repeats == shaped(options, limit).repeats
    assert getattr(found, found.knob) > getattr(options, options.knob)
    target = quantity(options)
    assert abs(quantity(found) - target) <= 0.02 * target
    others = []
    for wide in shaped(options, limit).widths():
        others.append(abs(quantity(wide) - target))
        if quantity(wide) > 1.1 * target:
            break
    assert min(others) == abs(quantity(found) - target)


@pytest.mark.parametrize("match", ["parameters", "macs"])
def test_what_is_not_cut_keeps_its_width(match):
    """0.32 has the channels of 0.33 and a shorter name."""
    options = EfficientNetOptions(width=0.33)
    assert shaped(options, 4, match=match) == options


def test_a_whole_number_of_numpys_is_a_bound():
    assert shaped(DENSENET, np.int64(5), match="parameters") == shaped(DENSENET, 5, match="parameters")


def test_what_is_matched_depends_on_images_and_classes():
    widths = {
        shaped(EfficientNetOptions(), 1, match="macs", image_shape=shape, classes=classes).width
        for shape, classes in (((3, 32, 32), 10), ((3, 8, 8), 10), ((3, 8, 8), 1000))
    }
    assert len(widths) == 3


def test_a_stem_makes_up_for_what_a_step_of_growth_misses():
    """The sheet's 29 channels a layer have 2.9 % too few parameters, and 30 have 3.6 % too many."""
    deep, broad = DENSENET, shaped(DENSENET, 5, match="parameters")
    assert (broad.growth, broad.stem) == (29, 22)
    counts = [options.cost((3, 32, 32), 10).parameters for options in (deep, broad)]
    assert abs(counts[1] / counts[0] - 1) < 0.001
    assert shaped(DENSENET, 8, match="parameters").stem == DENSENET.stem  # where growth alone is near enough


@pytest.mark.parametrize(
    ("options", "limit", "how", "message"),
    [
        (
            EfficientNetOptions(),
            2,
            {"match": "macs", "image_shape": (1, 28, 28)},
            r"within 2% of 29,207,488; the nearest are 25,476,336 with width = 1.11 and 29,955,776 with width = 1.12$",
        ),
        (DENSENET, 0, {}, r"^bound = 0 \(per stage\): must be 1 or more, "),
        (RESNET, 3, {"count": "blocks"}, r"^bound = 3 \(blocks\): must be 4 or more, 4 stages have a unit each"),
        (RESNET, 4, {"count": "convolutions"}, r"^bound = 4 \(convolutions\): must be 5 or more"),
        (RESNET, 4, {"count": "layers"}, "^count = 'layers': must be one of per stage, blocks, convolutions"),
        (RESNET, 4, {"match": "flops"}, "^match = 'flops': must be one of none, parameters, macs"),
    ],
)
def test_no_such_network(options, limit, how, message):
    with pytest.raises(SpecError, match=message) as error:
        shaped(options, limit, **how)
    assert "\n" not in str(error.value)
