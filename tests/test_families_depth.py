"""What the units of a network do, by depth: each measure against its definition, and nothing of the network changed."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thriftylib.datasets.facts import dataset_info
from thriftylib.datasets.load import Dataset, Split
from thriftylib.errors import SpecError
from thriftylib.evidence.records import load_record, record_path
from thriftylib.papers.families import (
    BottleneckResNetOptions,
    DenseNetOptions,
    DepthMeasuresOptions,
    EfficientNetOptions,
)
from thriftylib.papers.families_depth import linear_cka, map_entropy, observe, random_entropy, skipped
from thriftylib.papers.families_networks import Unit
from thriftylib.running.execute import verify_weights
from thriftylib.spec import Run
from thriftylib.training import evaluation, fast_path
from thriftylib.training.engine import train
from thriftylib.training.evaluation import as_input, evaluate

SHAPE = (3, 16, 16)
LISTS = ("residual_norm", "cosine", "cka", "skip_loss")


class Block(nn.Module):
    """Adds in place, as torchvision's blocks do, and may have an activation behind the sum."""

    def __init__(self, channels, activation=True):
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.activation = nn.ReLU(inplace=True) if activation else nn.Identity()

    def forward(self, x):
        out = self.branch(x)
        out += x
        return self.activation(out)


class Residual(nn.Module):
    """Stem, blocks, a block that halves the maps and cannot be skipped, a block more, head."""

    def __init__(self, blocks=2, width=6, activation=True):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(inplace=True))
        blocks = [Block(width, activation) for _ in range(blocks)]
        halve = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(*blocks, halve, Block(2 * width, activation))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))

    def units(self):
        found = []
        for i, module in enumerate(self.blocks):
            block = isinstance(module, Block)
            stage = int(i >= len(self.blocks) - 2)
            found.append(Unit(f"blocks.{i}", stage, module, module.branch if block else module[0], block))
        return found


def images(count, seed=1, shape=SHAPE):
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def random_norms(network):
    """Batch norms with affine maps and statistics that are no identities."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.1)
    return network.eval()


@pytest.fixture
def dataset():
    labels = torch.arange(150) % 10
    return Dataset(dataset_info("cifar10"), Split(images(20), labels[:20]), Split(images(150, 2), labels), None)


@pytest.fixture
def residual():
    torch.manual_seed(0)
    return random_norms(Residual())


def built(options):
    torch.manual_seed(0)
    return random_norms(options.build(SHAPE, 10))


FAMILIES = [
    DenseNetOptions(growth=3, layers=(2, 2), stem=4),
    BottleneckResNetOptions(layers=(2, 2), width=4),
    EfficientNetOptions(layers=(1, 1, 2, 1, 1, 1, 1), width=0.1),
]


def measure(network, dataset, **options):
    return DepthMeasuresOptions(**options).start().measure(network, dataset)


def entropy_by_numpy(values):
    counts, _ = np.histogram(values, bins=256)
    shares = counts[counts > 0] / counts.sum()
    return -(shares * np.log(shares)).sum()


# Entropy of maps


@pytest.mark.parametrize("shape", [(3, 5, 8, 8), (2, 3, 1, 1), (2, 4, 2, 3)])
def test_map_entropy_is_that_of_numpys_histograms(shape):
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(3)).relu()
    expected = [np.mean([entropy_by_numpy(each) for each in image]) for image in maps.double().numpy()]
    found = map_entropy(maps)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_edges_of_bins_are_numpys():
    """The left edge is in its bin, and the maximum in the last one beside what is left of it."""
    edges = torch.cat((torch.arange(257.0), torch.tensor([255.5, 3.0, 3.999, 0.0])))
    assert map_entropy(edges.view(1, 1, 1, -1)).item() == pytest.approx(entropy_by_numpy(edges.numpy()), rel=1e-12)
    equally = torch.arange(256.0).repeat(4).view(1, 1, 32, 32)
    assert map_entropy(equally).item() == pytest.approx(math.log(256), rel=1e-12)


def test_entropy_ignores_scale_and_shift_and_how_many_maps_are_counted_at_once():
    maps = torch.randn(2, 7000, 2, 2, generator=torch.Generator().manual_seed(4))  # more than one piece
    maps[1] = maps[0] * 8 - 0.0
    found = map_entropy(maps)
    assert found[0] == found[1]
    assert found[0].item() == pytest.approx(np.mean([entropy_by_numpy(each) for each in maps[0].numpy()]), rel=1e-9)


def test_of_8_bit_images_it_is_the_shannon_entropy_of_each_channel():
    x = images(4) // torch.tensor([1, 2, 5, 64], dtype=torch.uint8).view(-1, 1, 1, 1)

    def shannon(channel):
        shares = channel.unique(return_counts=True)[1].double() / channel.numel()
        return float(-(shares * shares.log()).sum())

    expected = [np.mean([shannon(channel) for channel in image]) for image in x]
    np.testing.assert_allclose(map_entropy(x), expected, rtol=1e-12)


def test_constant_maps_have_entropy_0_and_those_that_are_not_finite_none():
    maps = torch.full((3, 2, 4, 4), 7.0)
    maps[1, 0, 0, 0] = 8.0
    maps[2, 0, 0, 0] = math.inf
    found = map_entropy(maps)
    one = -(math.log(1 / 16) + 15 * math.log(15 / 16)) / 16
    assert found[:2].tolist() == [0.0, pytest.approx(one / 2)]
    assert found[2].isnan()
    maps[2, 0, 0, 0] = math.nan
    assert map_entropy(maps)[2].isnan()


def expected_uniform(pixels):
    """In closed form: between the extremes the others are uniform again, so a bin has binomially many of them."""
    others, p = pixels - 2, 1 / 256
    chances = [math.comb(others, n) * p**n * (1 - p) ** (others - n) for n in range(others + 1)]

    def sum_of(extra):
        return sum(chance * (n + extra) * math.log(n + extra) for n, chance in enumerate(chances) if n + extra)

    return math.log(pixels) - (2 * sum_of(1) + 254 * sum_of(0)) / pixels


@pytest.mark.parametrize("pixels", [2, 16, 64])
def test_uniform_values_are_what_a_closed_form_says(pixels):
    assert random_entropy("uniform", pixels) == pytest.approx(expected_uniform(pixels), abs=0.01)
    assert random_entropy("uniform", pixels, 20_000) == pytest.approx(expected_uniform(pixels), abs=0.001)


def test_random_values_fill_the_histogram_with_pixels_and_never_more_than_the_ceiling():
    assert random_entropy("uniform", 1) == random_entropy("gaussian", 1) == 0
    for pixels in (4, 64, 1024):
        gaussian, uniform = (random_entropy(kind, pixels) for kind in ("gaussian", "uniform"))
        assert gaussian <= uniform + 0.02
        assert uniform < math.log(min(pixels, 256)) + 1e-9
    assert 5.4 < random_entropy("uniform", 1024) < math.log(256)
    maps = torch.randn(200, 1, 8, 8, generator=torch.Generator().manual_seed(9))
    assert random_entropy("gaussian", 64) == pytest.approx(map_entropy(maps).mean().item(), abs=0.02)


# Identity measures


def test_cka_is_the_centred_gram_matrices_alignment():
    x, y = (torch.randn(40, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (5, 9))
    centre = torch.eye(40, dtype=torch.float64) - 1 / 40
    k, m = (centre @ each @ each.T @ centre for each in (x + 3, y))
    expected = (k * m).sum() / (k.norm() * m.norm())
    assert linear_cka(x, y) == pytest.approx(expected.item(), rel=1e-12)
    q, _ = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))
    assert linear_cka(x, 3 * x @ q + 1) == pytest.approx(1, rel=1e-12)  # rotation, scale and shift
    assert math.isnan(linear_cka(x, torch.zeros(40, 3)))


def test_units_that_add_nothing_are_identities(residual, dataset):
    for unit in residual.units():
        if unit.skippable:
            nn.init.zeros_(unit.branch[1].weight)
            nn.init.zeros_(unit.branch[1].bias)
    found = measure(residual, dataset)
    for i in (0, 1, 3):
        assert [found[name][i] for name in LISTS] == [0, pytest.approx(1, abs=1e-6), pytest.approx(1, abs=1e-9), 0]
        assert found["map_entropy"][i + 2] == found["map_entropy"][i + 1]
    assert found["unit_stage"] == [0, 0, 1, 1]
    assert found["map_pixels"] == [256, 256, 256, 256, 64, 64]
    assert found["map_entropy_ceiling"][3:5] == [math.log(256), math.log(64)]
    assert found["map_entropy_uniform"][4] == random_entropy("uniform", 64)
    assert found["map_entropy_gaussian"][4] == random_entropy("gaussian", 64)


def test_measures_are_those_of_the_network_written_out(residual, dataset):
    found, stem, rows = measure(residual, dataset), None, []
    with torch.no_grad():
        x = stem = residual.stem(as_input(dataset.test.images, dataset, "fp32"))
        for block in residual.blocks:
            if isinstance(block, Block):
                added = block.branch(x)
                y = (x + added).relu()
                norm = [(f.double().norm() / each.double().norm()).item() for f, each in zip(added, x, strict=True)]
                cosine = F.cosine_similarity(x.flatten(1).double(), y.flatten(1).double())
                rows.append((np.mean(norm), cosine.mean().item()))
            else:
                y = block(x)
                rows.append((math.nan, math.nan))
            rows[-1] += (linear_cka(x.mean((2, 3)), y.mean((2, 3))), map_entropy(y).mean().item())
            x = y
    norm, cosine, cka, entropy = (list(each) for each in zip(*rows, strict=True))
    assert found["residual_norm"] == pytest.approx(norm, rel=1e-5, nan_ok=True)
    assert found["cosine"] == pytest.approx(cosine, rel=1e-5, nan_ok=True)
    assert found["cka"] == pytest.approx(cka, rel=1e-4)
    raw = map_entropy(dataset.test.images).mean().item()
    assert found["map_entropy"] == pytest.approx([raw, map_entropy(stem).mean().item(), *entropy], abs=1e-4)
    assert [math.isnan(each) for each in found["skip_loss"]] == [False, False, True, False]


# Skipping


def without(residual, i):
    other = Residual()
    other.load_state_dict(residual.state_dict())
    other.blocks = nn.Sequential(*(block for k, block in enumerate(residual.blocks) if k != i))
    return other.eval()


@pytest.mark.parametrize("i", [0, 1, 3])
def test_a_skipped_residual_unit_is_as_good_as_not_there(residual, dataset, i):
    x = as_input(dataset.test.images, dataset, "fp32")
    with torch.no_grad():
        before, expected = residual(x), without(residual, i)(x)
        with skipped(residual.units()[i]):
            found = residual(x)
    assert torch.equal(found, expected)
    assert not torch.equal(found, before)
    whole, rest = (
        evaluate(each, dataset.test, dataset, torch.device("cpu"))[1] for each in (residual, without(residual, i))
    )
    measured = measure(residual, dataset)
    assert (measured["unskipped_accuracy"], measured["skip_loss"][i]) == (whole, whole - rest)


def test_a_skipped_dense_unit_gives_zeros_in_place_of_its_new_channels(dataset):
    network, x = built(FAMILIES[0]), as_input(dataset.test.images, dataset, "fp32")
    for unit in network.units():
        with torch.no_grad():
            before = network(x)
            with skipped(unit):
                found = network(x)
            kernel = unit.module[2].weight.clone()
            unit.module[2].weight.zero_()
            assert torch.equal(found, network(x))
            unit.module[2].weight.copy_(kernel)
            assert not torch.equal(found, before)


# All families


@pytest.mark.parametrize("options", FAMILIES, ids=lambda options: options.network)
def test_families_are_measured_and_left_as_they_were(options, dataset):
    network = built(options).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found, units = measure(network, dataset), network.units()
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert len(found["map_entropy"]) == len(found["map_pixels"]) == len(units) + 2
    bounds = found["map_entropy"], found["map_entropy_ceiling"]
    assert all(0 <= low <= high + 1e-9 for low, high in zip(*bounds, strict=True))
    assert all(0 <= each <= 1 + 1e-9 for each in found["cka"])
    residual = [unit.branch is not None and unit.skippable for unit in units]
    assert [not math.isnan(each) for each in found["residual_norm"]] == residual
    assert [not math.isnan(each) for each in found["cosine"]] == residual
    assert [not math.isnan(each) for each in found["skip_loss"]] == [unit.skippable for unit in units]


@pytest.mark.parametrize("options", FAMILIES, ids=lambda options: options.network)
def test_what_is_seen_of_a_family_is_what_its_units_are_given_and_give(options, dataset):
    """In-place sums and activations spoil nothing: each unit is run again, alone, on copies; its input stays."""
    network, seen = built(options), {}
    x = as_input(dataset.test.images[:8], dataset, "fp32")
    units = network.units()

    def keep(module, inputs, output):
        seen[module] = inputs[0].clone(), output.clone()

    handles = [unit.module.register_forward_hook(keep) for unit in units]
    with torch.no_grad():
        network(x)
    for handle in handles:
        handle.remove()
    places = observe(network, units, [x])
    for unit, place in zip(units, places[1:], strict=True):
        given, gives = seen[unit.module]
        kept = given.clone()
        with torch.no_grad():
            torch.testing.assert_close(unit.module(given), gives)
        assert torch.equal(given, kept)
        torch.testing.assert_close(place.entropy[0], map_entropy(gives))
        if unit.branch is not None and unit.skippable:
            linear = not isinstance(options, BottleneckResNetOptions)
            if linear:  # no activation behind the sum: what was added is the difference
                expected = (gives - given).flatten(1).norm(dim=1) / given.flatten(1).norm(dim=1)
                torch.testing.assert_close(place.residual_norm[0], expected, rtol=1e-3, atol=1e-5)
            cosine = F.cosine_similarity(given.flatten(1), gives.flatten(1))
            torch.testing.assert_close(place.cosine[0], cosine)


def test_batches_of_any_size_give_the_same(residual, dataset, monkeypatch):
    found = measure(residual, dataset)
    monkeypatch.setattr(evaluation, "BATCH", 37)
    again = measure(residual, dataset)
    for name, value in found.items():
        assert again[name] == pytest.approx(value, rel=1e-4, abs=1e-4, nan_ok=True), name


def test_the_first_images_alone(residual, dataset):
    part = Dataset(dataset.info, dataset.train, Split(dataset.test.images[:60], dataset.test.labels[:60]), None)
    assert repr(measure(residual, dataset, images=60)) == repr(measure(residual, part))
    with pytest.raises(SpecError, match="images = 151: the test set has 150"):
        measure(residual, dataset, images=151)
    with pytest.raises(SpecError, match=r"images = -1"):
        DepthMeasuresOptions(images=-1)


class Hidden(nn.Sequential):
    """A block that a fast path serves as a whole, with units that are it and one of its layers."""

    def __init__(self):
        block = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        super().__init__(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def units(self):
        return [Unit("0.1", 0, self[0][1], None, True), Unit("0", 0, self[0], None, True)]


@pytest.mark.fast
def test_a_fast_path_hides_no_layer(dataset):
    torch.manual_seed(0)
    plain = random_norms(Hidden())
    fast = fast_path.accelerate(copy.deepcopy(plain), ("fused_blocks",))
    assert fast_path.describe(fast)
    found = measure(fast, dataset)
    assert len(found["cka"]) == 2
    for name, value in measure(plain, dataset).items():
        assert found[name] == pytest.approx(value, abs=1e-5, nan_ok=True), name
    x = as_input(dataset.test.images, dataset, "fp32")
    for unit, own in zip(plain.units(), fast.units(), strict=True):
        with torch.no_grad():
            before = fast(x)
            with skipped(unit), skipped(own):
                torch.testing.assert_close(fast(x), plain(x))
                assert (fast(x) - before).abs().max() > 0.01
    assert not DenseNetOptions.fast  # and a run that measures only is never accelerated


# In the engine

TINY = {"growth": 4, "layers": [2, 1], "stem": 4}


def test_a_trained_run_is_measured_and_its_weights_still_verified(make_run, tmp_path):
    options = {"results": tmp_path, "weights": tmp_path / "weights", "threads": 1, "progress": False, "device": "cpu"}
    run = make_run("densenet", TINY, learning_rate=0.05, epochs=1)
    parent = train(run, **options).record
    method = {"name": "depth-measures", "options": {}}
    child = Run.model_validate({**run.model_dump(), "recipe": None, "method": method, "parent": run.configuration})
    record = train(child, **options).record
    assert load_record(record_path(tmp_path, child.id)) == record
    assert (record.epochs, record.kept, record.weights) == (0, None, None)
    assert record.measured["unskipped_accuracy"] == pytest.approx(parent.kept.test_accuracy)
    assert list(record.measured["residual_norm"]) == [None] * 3  # does not apply
    assert list(record.measured["unit_stage"]) == [0, 0, 1]
    assert list(record.measured["map_pixels"]) == [64, 64, 64, 64, 16]
    assert all(math.isfinite(each) for name in ("cka", "skip_loss") for each in record.measured[name])
    assert verify_weights(parent, tmp_path / "weights", device="cpu") == pytest.approx(parent.kept.test_accuracy)


def test_a_network_without_units_is_refused_before_it_is_trained(make_run, tmp_path):
    run = make_run("toy", method={"name": "depth-measures", "options": {}})
    with pytest.raises(
        SpecError, match="no units; those that have: bottleneck-resnet, densenet, efficientnet, resnext"
    ):
        train(run, results=tmp_path, progress=False, device="cpu")
