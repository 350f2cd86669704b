"""Wavelet edges: the layer beside PyWavelets and beside a search in plain loops, and any network behind it."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import pywt
import torch

from thriftylib import papers
from thriftylib.errors import SpecError
from thriftylib.evidence.records import Counted
from thriftylib.experiments import experiment
from thriftylib.experiments.wavelet_edges import feeds
from thriftylib.options import NetworkOptions, find
from thriftylib.papers.wavelet_edges import SPLINE, WaveletEdgesOptions, filters
from thriftylib.papers.wavelet_edges_layer import Edges, limited, local_maxima, maps, undecimated
from thriftylib.spec import Data, Named, Run
from thriftylib.training import fast_path
from thriftylib.training.counting import count, first_difference

MODES = ("symmetric", "reflect", "periodic", "constant", "zero")
NUMPY = {"symmetric": "symmetric", "reflect": "reflect", "periodic": "wrap", "constant": "edge", "zero": "constant"}
WAVELETS = ("haar", "db2", "sym4", "bior2.2", "rbio3.1", "coif1")
SIZES = ((32, 32), (28, 31), (33, 25))


def images(*shape, seed=0):
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(seed))


def applied(x, pairs):
    left, right = (torch.tensor(np.stack(side), dtype=torch.float32) for side in zip(*pairs, strict=True))
    return maps(x, left, right)


def most(size, wavelet):
    return pywt.dwt_max_level(min(size), pywt.Wavelet(wavelet).dec_len)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_method_1_is_pywavelets(wavelet, mode):
    for size in SIZES:
        x = images(*size)
        for level in range(1, most(size, wavelet) + 1):
            of = pywt.wavedec2(x.double().numpy(), wavelet, mode, level)
            for keep in (("H", "V", "D"), ("A",), ("A", "H", "V", "D"), ("V", "D"), ("A", "D"), ("H",)):
                kept = [of[0] * ("A" in keep)]
                kept += [tuple(x * (band in keep) for band, x in zip("HVD", each, strict=True)) for each in of[1:]]
                for steps in range(1, level + 1):
                    expected = pywt.waverec2(kept[: steps + 1], wavelet, mode)
                    pairs = limited(size, filters(wavelet), level=level, steps=steps, keep=keep, mode=mode)
                    found = applied(x, pairs).sum(1)
                    # PyWavelets gives odd sizes one more; of a coarse image without its mean, large numbers cancel.
                    expected = expected[:, : found.shape[1], : found.shape[2]]
                    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * max(1, np.abs(of[0]).max()))
                    other = len(of) - 1 - steps
                    whole = x.numpy() if not other else pywt.wavedec2(x.double().numpy(), wavelet, mode, other)[0]
                    assert found.shape == whole.shape


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wavelet", WAVELETS)
def test_the_undecimated_transform_is_pywavelets(wavelet, mode):
    """Of the image extended far enough, and cut to a size that PyWavelets takes."""
    for size in SIZES:
        x = images(*size)
        for level in range(1, most(size, wavelet) + 1):
            far = 2**level * len(filters(wavelet).low)
            after = [-(pixels + far) % 2**level + far for pixels in size]
            wide = np.pad(x.double().numpy(), ((0, 0), *((far, more) for more in after)), NUMPY[mode])
            coarse, (horizontal, vertical, _) = pywt.swt2(wide, wavelet, level, axes=(-2, -1))[0]
            found = applied(x, undecimated(size, filters(wavelet), level=level, mode=mode)).numpy()
            for mine, theirs in ((found[:, 0], vertical), (found[:, 1], horizontal)):
                theirs = theirs[:, far : far + size[0], far : far + size[1]]
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6 * max(1, np.abs(coarse).max()))


def test_the_spline_is_mallat_and_zhongs():
    """Twice the difference of neighbours; at the next level of the smoothed image, two pixels apart."""
    x = images(9, 11)
    rows = np.pad(x.double().numpy(), ((0, 0), (4, 8), (4, 8)), "symmetric")
    low = rows
    for axis in (1, 2):
        low = np.apply_along_axis(lambda row: np.convolve(row, (1 / 8, 3 / 8, 3 / 8, 1 / 8), "valid"), axis, low)
    for level, expected in (
        (1, 2 * (rows[:, 4:13, 5:16] - rows[:, 4:13, 4:15])),
        (2, 2 * (low[:, 3:12, 5:16] - low[:, 3:12, 3:14])),
    ):
        across, down = applied(x, undecimated((9, 11), filters(SPLINE), level=level, mode="symmetric")).unbind(1)
        np.testing.assert_allclose(across, expected, rtol=0, atol=1e-6)
        turned = undecimated((11, 9), filters(SPLINE), level=level, mode="symmetric")
        torch.testing.assert_close(applied(x.mT, turned)[:, 0].mT, down, rtol=0, atol=1e-6)


@pytest.mark.parametrize("threshold", [0.0, 0.9])
def test_local_maxima_are_those_of_a_search(threshold):
    across, down = torch.randn(2, 3, 13, 10, generator=torch.Generator().manual_seed(1)).unbind(0)
    across[0, :4], down[0, :4] = 0, 0  # flat
    across[1], down[1] = 1.5, 0  # a plateau: all of it is a maximum
    found = local_maxima(across, down, threshold=threshold)
    expected = torch.zeros_like(found)
    size = torch.hypot(across, down)
    for n, y, x in np.ndindex(*found.shape):
        quarter = round(math.degrees(math.atan2(down[n, y, x], across[n, y, x])) / 45) % 4
        dy, dx = ((0, 1), (1, 1), (1, 0), (1, -1))[quarter]
        others = [(y + s * dy, x + s * dx) for s in (1, -1)]
        inside = [size[n, v, u] for v, u in others if 0 <= v < 13 and 0 <= u < 10]
        if size[n, y, x] > threshold and all(size[n, y, x] >= other for other in inside):
            expected[n, y, x] = size[n, y, x]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
    assert (found[1] > 0).all()
    assert not found[0, :4].any()
    torch.testing.assert_close(local_maxima(across, down, threshold=threshold, mask=True), (expected > 0).float())


@pytest.mark.parametrize("quarter", range(4))
def test_a_straight_edge_gives_a_line_at_its_place(quarter):
    """Across, down and both diagonals: at each pixel of the middle's rows the maximum is where the edge is."""
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    place = (x, (x + y) / 2, y, (x - y + 16) / 2)[quarter]
    step = torch.sigmoid(2 * (place - 8))[None, None]
    found = Edges(WaveletEdgesOptions(feature="maxima"), (1, 16, 16)).edges(step)[0, 0, 3:13, 3:13]
    near = ((place + (0.5, 0.5, 0.5, 0.0)[quarter] - 8).abs() <= 0.75)[3:13, 3:13]
    assert (found[~near] == 0).all()
    assert ((found > 0).sum(0 if quarter == 2 else 1) >= 1).all()


@pytest.mark.parametrize("feature", ["details", "maxima", "sobel", "random"])
def test_gradients(feature):
    """Of every feature, in fp64, and finite where the image is flat."""
    options = WaveletEdgesOptions(feature=feature, combine="add", gain=0.7, mode="zero")
    layer = Edges(options, (3, 8, 9)).double()
    x = torch.randn(2, 3, 8, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    assert torch.autograd.gradcheck(layer, x, atol=1e-4)
    flat = torch.zeros(1, 3, 8, 9, requires_grad=True)
    layer.float().edges(flat).sum().backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "shape", "inner"),
    [
        ({}, (3, 32, 32), (3, 32, 32)),
        ({"combine": "add", "feature": "maxima", "per_channel": False}, (3, 32, 32), (3, 32, 32)),
        ({"combine": "concatenate", "feature": "sobel"}, (1, 28, 30), (2, 28, 30)),
        ({"combine": "concatenate", "per_channel": False, "keep": ("H", "D")}, (3, 32, 32), (4, 32, 32)),
        ({"per_channel": False, "feature": "random", "mode": "reflect"}, (3, 32, 32), (1, 32, 32)),
        ({"level": 3, "inverse": 1, "wavelet": "db2", "inner": "resnet18"}, (3, 32, 32), (3, 10, 10)),
        ({"feature": "image", "combine": "concatenate", "inner": "cifar10-quick"}, (3, 32, 32), (6, 32, 32)),
        ({"feature": "maxima", "mask": True, "standardise": False}, (3, 32, 32), (3, 32, 32)),
        ({"keep": ("A", "V"), "level": 2, "inner": "thriftynet"}, (3, 33, 35), (3, 33, 35)),
    ],
)
def test_shapes_and_cost(options, shape, inner):
    options = WaveletEdgesOptions(**options)
    assert options.inner_shape(shape) == inner
    network = options.build(shape, 10)
    x = images(*shape).to(memory_format=torch.channels_last)
    assert network.edges(x).shape == (2, *inner)
    assert network(x).shape == (2, 10)
    assert first_difference(Counted.of(options.cost(shape, 10)), count(network, shape)) is None
    alone = find(NetworkOptions, options.inner)().cost(inner, 10)
    assert options.cost(shape, 10).parameters == alone.parameters == sum(x.numel() for x in network.parameters())
    assert not list(network.edges.parameters())
    assert {name for name in network.state_dict() if name.startswith("edges")} == (
        {f"edges.norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
        if options.standardise
        else set()
    )


for paper in papers.names():  # which registers its networks
    importlib.import_module(f"thriftylib.papers.{paper}")
BOOK = {name for name, of in NetworkOptions.known.items() if of.__module__.startswith("thriftylib.")}


@pytest.mark.parametrize("name", sorted(BOOK - {"none", "wavelet-edges"}))
def test_every_network_of_the_book_goes_behind_it(name):
    shape = (3, 227, 227) if name == "caffe-alexnet" else (3, 32, 32)
    options = WaveletEdgesOptions(inner=name)
    alone = find(NetworkOptions, name)()
    assert options.resolve(shape, 10).inner_options == alone.resolve(shape, 10).model_dump(mode="json")
    found, own = options.cost(shape, 10), alone.cost(shape, 10)
    assert found.parameters == own.parameters
    side = shape[1]
    assert found.macs - own.macs == 3 * side * side * 2 * side


def test_what_is_combined():
    x = torch.randn(2, 3, 16, 16)
    made = {
        how: Edges(WaveletEdgesOptions(combine=how, standardise=False), (3, 16, 16))(x)
        for how in ("replace", "add", "concatenate")
    }
    edges = x - torch.nn.functional.avg_pool2d(x, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(made["replace"], edges)
    torch.testing.assert_close(made["add"], x + edges)
    torch.testing.assert_close(made["concatenate"], torch.cat((x, edges), 1))
    torch.testing.assert_close(
        Edges(WaveletEdgesOptions(per_channel=False), (3, 16, 16)).edges(x),
        0.299 * edges[:, :1] + 0.587 * edges[:, 1:2] + 0.114 * edges[:, 2:],
        rtol=0, atol=1e-6,
    )  # fmt: skip
    standard = Edges(WaveletEdgesOptions(), (3, 16, 16))(x)
    torch.testing.assert_close(standard.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-6)
    torch.testing.assert_close(standard.var((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-3)


def test_the_controls():
    x = torch.zeros(1, 1, 9, 9)
    x[:, :, :, 5:] = 3.0
    sobel = Edges(WaveletEdgesOptions(feature="sobel"), (1, 9, 9)).edges(x)[0, 0]
    expected = torch.zeros(9, 9)
    expected[:, 4:6] = 3.0  # a step of height h gives h
    torch.testing.assert_close(sobel, expected)
    pair = [Edges(WaveletEdgesOptions(feature="random", filter_seed=seed), (1, 9, 9)) for seed in (0, 0, 1)]
    assert torch.equal(pair[0].edges(x), pair[1].edges(x))
    assert not torch.equal(pair[0].edges(x), pair[2].edges(x))
    impulse = torch.zeros(1, 9, 9)
    impulse[:, 4, 4] = 1
    sizes = [
        maps(impulse, layer.left, layer.right).norm() for layer in (pair[0], Edges(pair[0].options, (1, 9, 9)), pair[2])
    ]
    sobels = Edges(WaveletEdgesOptions(feature="sobel"), (1, 9, 9))
    torch.testing.assert_close(torch.stack(sizes), maps(impulse, sobels.left, sobels.right).norm().expand(3))


def test_autocast_leaves_the_edges_as_they_are():
    x = images(3, 32, 32)
    layer = Edges(WaveletEdgesOptions(feature="maxima", wavelet="db2", level=2), (3, 32, 32)).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), layer(x.clone()))
        found = layer(x)
    assert torch.equal(found, layer(x))
    assert found.dtype == torch.float32


@pytest.mark.fast
@pytest.mark.parametrize(
    ("inner", "own"), [("smallnet", {"padding": 1}), ("thriftynet", {"filters": 8, "iterations": 3, "conv": "classic"})]
)
def test_inner_networks_keep_their_fast_paths(inner, own):
    from thriftylib.fast.compiled import missing

    options = WaveletEdgesOptions(inner=inner, inner_options=own, combine="concatenate")
    network, x = options.build((3, 16, 16), 10).double(), images(3, 16, 16).repeat(16, 1, 1, 1).double()
    expected = network(x)
    fast_path.accelerate(network, options.fast)
    if missing("fused_block", torch.float64) is None:
        assert fast_path.describe(network)
    torch.testing.assert_close(network(x), expected, rtol=1e-9, atol=1e-9)


def test_a_run_says_everything():
    run = Run(network=Named(name="wavelet-edges", options={"inner": "smallnet"}), data=Data(name="mnist"), recipe=None,
              method=Named(name="norm-statistics"))  # fmt: skip
    assert run.network.options["inner_options"] == {"kernel": 3, "padding": 0, "widths": [8, 16, 32], "hidden": 64}
    again = Run.model_validate(run.model_dump())
    assert again.id == run.id
    other = {**run.network.options, "inner_options": {"kernel": 5}}
    assert Run.model_validate({**run.model_dump(), "network": {"name": "wavelet-edges", "options": other}}).id != run.id


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"wavelet": "harr"}, r"wavelet = 'harr'; did you mean 'haar'\? known: "),
        ({"wavelet": "spline"}, "wavelet = 'spline': has no inverse; feature = 'details' needs one, such as 'haar'"),
        ({"wavelet": None}, "wavelet = None: must be a wavelet for feature = 'details'"),
        ({"feature": "sobel", "wavelet": "haar"}, "wavelet = 'haar': must be None for feature = 'sobel'"),
        ({"feature": "sobel", "level": 2}, "level = 2: needs feature = 'details' or 'maxima'"),
        ({"threshold": 0.5}, "threshold = 0.5: needs feature = 'maxima'"),
        ({"feature": "maxima", "threshold": -1.0}, r"threshold = -1\.0: should be greater than or equal to 0"),
        ({"feature": "maxima", "keep": ("H",)}, "keep = .*: needs feature = 'details'"),
        ({"feature": "image", "mode": "zero"}, "mode = 'zero': needs feature = "),
        ({"mode": "smooth"}, "mode = 'smooth': should be 'symmetric', 'reflect'"),
        ({"keep": ("H", "H")}, r"keep = \['H', 'H'\]: must name each band once, in the order A, H, V, D"),
        ({"keep": ()}, "keep = "),
        ({"level": 2, "inverse": 3}, "inverse = 3: must be at most level = 2"),
        ({"level": 2, "inverse": 1, "combine": "add"}, "inverse = 1: gives smaller images, which need combine = 'repl"),
        ({"gain": 2.0}, "gain = 2.0: needs combine = 'add'"),
        ({"inner": "smalnet"}, r"unknown network 'smalnet'; did you mean 'smallnet'\?"),
        ({"inner": "none"}, "inner = 'none': must be another network"),
        ({"inner": "wavelet-edges"}, "inner = 'wavelet-edges': must be another network"),
        ({"inner_options": {"kernle": 3}}, "unknown key 'kernle'; did you mean 'kernel'"),
        ({"level": 6}, "level = 6: must be at most 5 for images of 32x32 and haar"),
        ({"per_channel": False, "image": (2, 32, 32)}, "per_channel = False: needs images of 1 or 3 channels, not 2"),
        ({"level": 2, "inverse": 1}, "images of 16x16 are too small for 3 stages"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, message):
    options = dict(options)
    shape = options.pop("image", (3, 32, 32))
    with pytest.raises(SpecError, match=message) as error:
        WaveletEdgesOptions(**options).resolve(shape, 10)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("preset", ["smoke", "fast", "paper"])
def test_what_is_compared_differs_in_what_is_fed_alone(preset):
    fed = {}
    for each in experiment("wavelet-edges-accuracy").configurations(preset):
        labels = each.labels
        fed.setdefault((labels["network"], labels["dataset"]), {})[labels["feature"], labels["combine"]] = each.run
    assert len(fed) == {"smoke": 1, "fast": 1, "paper": 4}[preset]
    for runs in fed.values():
        plain, twice = runs["plain", "alone"], runs["image", "concatenate"]
        assert len(runs) == (5 if preset == "smoke" else 14)
        for (_, combine), run in runs.items():
            assert (run.data, run.recipe) == (plain.data, plain.recipe)
            assert run.cost.parameters == (twice if combine == "concatenate" else plain).cost.parameters
            if run != plain:
                assert run.network.options["inner"] == plain.network.name
                assert run.network.options["inner_options"].keys() == plain.network.options.keys()


def test_few_images_are_balanced_and_all_of_them_are_the_other_experiments_runs():
    accuracy = {each.run.id for each in experiment("wavelet-edges-accuracy").configurations("paper")}
    grid = experiment("wavelet-edges-small").configurations("paper")
    assert {each.run.id in accuracy for each in grid if each.labels["percent"] == 100} == {True}
    for each in grid:
        data = each.run.data
        assert each.run.data.training_images == data.info.train * each.labels["percent"] // 100
        assert each.run.data.training_images % len(data.info.classes) == 0
    recipes = {(each.labels["percent"], each.run.recipe.name) for each in grid}
    assert len(recipes) == 4


def test_claims_are_answered_by_the_grid():
    grid = experiment("wavelet-edges-accuracy").configurations("paper")
    answered = {claim for each in grid for claim in each.claims}
    assert len(answered) == 8
    sides = [each for each in grid if each.claims]
    assert {each.labels["combine"] for each in sides} == {"alone", "replace"}
    assert {each.labels["feature"] for each in sides} == {"plain", "method 1", "method 2"}


def test_what_is_fed_is_what_the_layer_makes():
    image = images(16, 16)[0].numpy()
    made = feeds(image)
    assert list(made["the image"]) == pytest.approx(image.flatten())
    edges = Edges(WaveletEdgesOptions(feature="maxima"), (1, 16, 16)).edges(torch.tensor(image)[None, None])
    assert list(made["method 2 (J = 1)"]) == pytest.approx(edges.flatten().tolist(), abs=1e-6)
    assert made[["y", "x"]].iloc[17].tolist() == [1, 1]
