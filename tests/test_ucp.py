"""UCP: counts against the recovered lists, excitation blocks, scores, and widths that come from scores."""

import copy

import pytest
import torch
from torch.nn import functional as F

from thriftylib.datasets.load import load
from thriftylib.errors import SpecError
from thriftylib.experiments.ucp import IMAGENET, RESNET_50, UNIFORM, VGG, numbers, resnet_options
from thriftylib.narrowing import match_cost
from thriftylib.papers.networks import PreActResNetOptions
from thriftylib.papers.networks_narrowable import Layer, imagenet_resnet
from thriftylib.papers.ucp import UcpOptions, UcpResNetOptions, UcpVggOptions, hidden_units
from thriftylib.papers.ucp_method import Excitation, excitations, is_tied, layers_of, threshold_widths, top
from thriftylib.spec import Data
from thriftylib.training.counting import count, early_ptflops
from thriftylib.training.evaluation import as_input, mean_outputs

SHAPE = (3, 32, 32)
DIGITS = (1, 8, 8)


def scores_of(*layers):
    return {f"layer {i}": torch.tensor(layer, dtype=torch.float64) for i, layer in enumerate(layers)}


def on_meta(options, classes=10):
    with torch.device("meta"):
        return options.build(SHAPE, classes)


def saved(narrow, whole, shape=SHAPE):
    """Parameters and the authors' FLOPs that are left out, in percent."""
    parameters = count(narrow, shape).parameters / count(whole, shape).parameters
    flops = early_ptflops(narrow, shape) / early_ptflops(whole, shape)
    return pytest.approx((100 - 100 * parameters, 100 - 100 * flops), abs=0.055)


# ----------------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("options", "classes", "parameters", "flops"),
    [
        (UcpResNetOptions(), 10, 853_018, 127.09),
        (UcpResNetOptions(blocks=18), 10, 1_727_962, 256.04),
        (UcpVggOptions(), 10, 14_987_722, 314.4),
        (UcpVggOptions(depth=19), 100, 20_344_868, 399.5),
        (UcpVggOptions(depth=19, head="linear"), 100, 20_081_188, 399.2),
    ],
)
def test_whole_networks_count_what_the_authors_count(options, classes, parameters, flops):
    network, cost = on_meta(options, classes), options.cost(SHAPE, classes)
    assert count(network, SHAPE).parameters == cost.parameters == parameters
    assert early_ptflops(network, SHAPE) / 1e6 == pytest.approx(flops, abs=0.05 if flops > 300 else 0.005)
    assert cost.macs < cost.ptflops_macs < early_ptflops(network, SHAPE)
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(("number", "expected"), [(0, (81.4, 62.8)), (1, (68.4, 37.6))])
def test_the_lists_of_vgg19_save_what_they_are_known_to(number, expected):
    widths = list(VGG[19, "cifar100"].values())[number]
    narrow, whole = UcpVggOptions(depth=19, convs=numbers(widths)), UcpVggOptions(depth=19)
    assert expected == saved(on_meta(narrow, 100), on_meta(whole, 100))


@pytest.mark.parametrize(
    ("name", "expected"),
    list(zip(UNIFORM, [(36.8, 15.8), (49.9, 49.7), (56.4, 24.2), (34.6, 14.9), (45.5, 44.8)], strict=True)),
)
def test_uniform_widths_of_resnet56_save_what_they_are_known_to(name, expected):
    assert expected == saved(on_meta(UcpResNetOptions(**resnet_options(9, name))), on_meta(UcpResNetOptions()))


@pytest.mark.parametrize(("name", "expected"), list(zip(RESNET_50, [(32.2, 18.2), (36.3, 23.0)], strict=True)))
def test_the_lists_of_depth_50_save_what_they_are_known_to(name, expected):
    narrow = UcpResNetOptions(**resnet_options(8, name))
    assert expected == saved(on_meta(narrow), on_meta(UcpResNetOptions(blocks=8)))


@pytest.mark.parametrize(
    ("depth", "number", "whole", "parameters", "flops", "expected"),
    [
        (18, 0, (11.69, 1.822), 8.26, 1.425, (29.4, 21.8)),
        (18, 1, (11.69, 1.822), 5.31, 0.907, (54.6, 50.2)),
        (34, 0, (21.80, 3.676), 14.40, 2.563, (34.0, 30.3)),
        (34, 1, (21.80, 3.676), 8.21, 1.571, (62.3, 57.3)),
    ],
)
def test_imagenet_resnets_count_what_they_are_known_to(depth, number, whole, parameters, flops, expected):
    shape, all_channels = (3, 224, 224), imagenet_resnet(depth)
    narrow = imagenet_resnet(depth, numbers(list(IMAGENET[depth].values())[number]))
    for network, known in ((all_channels, whole), (narrow, (parameters, flops))):
        found = count(network, shape).parameters / 1e6, early_ptflops(network, shape) / 1e9
        assert known == pytest.approx(found, abs=0.006)
    assert expected == saved(narrow, all_channels, shape)


@pytest.mark.parametrize("excited", ["no", "inner", "output"])
@pytest.mark.parametrize("gradient", [True, False])
def test_a_resnet_costs_what_its_closed_form_says(excited, gradient):
    inner = [3, 17, 5, 40, 7, 20]
    options = UcpResNetOptions(blocks=2, outer=(4, 4, 32), inner=inner, excited=excited, shortcut_gradient=gradient)
    network, cost = options.build((3, 9, 9), 7), options.cost((3, 9, 9), 7)
    counted = count(network, (3, 9, 9))
    assert (counted.parameters, counted.macs, counted.ptflops_macs) == (cost.parameters, cost.macs, cost.ptflops_macs)
    assert network(torch.randn(2, 3, 9, 9)).shape == (2, 7)


@pytest.mark.parametrize("head", ["hidden", "linear"])
@pytest.mark.parametrize(("depth", "layers"), [(16, 13), (19, 16)])
def test_a_vgg_costs_what_its_closed_form_says(head, depth, layers):
    options = UcpVggOptions(depth=depth, convs=range(4, 4 + 3 * layers, 3), head=head, pools=3, excited=True)
    network = options.build(DIGITS, 10)
    counted, cost = count(network, DIGITS), options.cost(DIGITS, 10)
    assert (counted.parameters, counted.macs, counted.ptflops_macs) == (cost.parameters, cost.macs, cost.ptflops_macs)
    assert network(torch.randn(2, *DIGITS)).shape == (2, 10)
    assert len(network.layers()) == layers


@pytest.mark.parametrize("inner", [None, [3, 5, 7, 9, 11, 13]])
def test_a_pre_activation_resnet_costs_what_its_closed_form_says(inner):
    options = PreActResNetOptions(blocks=2, **({"inner": inner} if inner else {}))
    network, cost = options.build((3, 9, 9), 7), options.cost((3, 9, 9), 7)
    counted = count(network, (3, 9, 9))
    assert (counted.parameters, counted.macs, counted.ptflops_macs) == (cost.parameters, cost.macs, cost.ptflops_macs)
    assert network(torch.randn(2, 3, 9, 9)).shape == (2, 7)


def test_resnet_164_counts_what_the_authors_count():
    cost = PreActResNetOptions().cost(SHAPE, 10)
    assert cost.parameters == pytest.approx(1.703e6, abs=500)
    assert cost.macs / 1e6 == pytest.approx(247.6, abs=0.1)
    with pytest.raises(SpecError, match="inner: 2 widths; must be 54, one for each block"):
        PreActResNetOptions(inner=[1, 2]).resolve(SHAPE, 10)


# ----------------------------------------------------------------------------------------------- networks and blocks


@pytest.mark.parametrize(
    ("channels", "hidden", "bias"), [(8, 1, True), (16, 1, True), (17, 1, False), (64, 4, False), (512, 32, False)]
)
def test_an_excitation_block_is_what_the_paper_modifies(channels, hidden, bias):
    assert hidden_units(channels) == (hidden, bias)
    block, x = Excitation(channels).double(), torch.randn(3, channels, 4, 5, dtype=torch.float64, requires_grad=True)
    first, second = block.squeeze, block.excite
    hidden_of = (x.mean((2, 3)) @ first.weight.T + (first.bias if bias else 0)).clamp(min=0)
    gate = torch.sigmoid(hidden_of @ second.weight.T + (second.bias if bias else 0))
    torch.testing.assert_close(block(x), x * gate[:, :, None, None])
    if channels == 8:  # the full Jacobian: of wide maps it would fill the memory
        assert torch.autograd.gradcheck(block, (x[:1, :, :2, :2],))


def test_a_dead_block_without_biases_gives_every_channel_one_half():
    block = Excitation(32)
    with torch.no_grad():
        block.squeeze.weight.copy_(-block.squeeze.weight.abs())
    found = []
    block.sigmoid.register_forward_hook(lambda module, inputs, gate: found.append(gate))
    block(torch.rand(5, 32, 4, 4))
    assert torch.equal(found[0], torch.full((5, 32), 0.5))


def test_a_constant_scale_before_a_batch_norm_changes_nothing():
    """So nothing in the loss fixes the mean excitation of a channel where the block is before its batch norm."""
    network = UcpResNetOptions(blocks=1, outer=(4, 4, 8), excited="inner").build(DIGITS, 10).double().train()
    x = torch.randn(16, *DIGITS, dtype=torch.float64)
    for layer in network.layers():
        layer.readers[0].eps = 1e-30
    before = network(x)
    with torch.no_grad():
        for layer in network.layers():
            layer.conv.weight.mul_(0.5)
            layer.gate.squeeze.weight.mul_(2.0)  # the block itself sees what it saw
    torch.testing.assert_close(network(x), before)


@pytest.mark.parametrize("gradient", [True, False])
def test_the_shortcut_between_stages_pools_adds_zero_channels_and_may_stop_its_gradient(gradient):
    network = UcpResNetOptions(blocks=1, outer=(2, 2, 6), shortcut_gradient=gradient).build(DIGITS, 10).eval()
    block = network.blocks[2]
    torch.nn.init.zeros_(block.norm2.weight)
    x = torch.rand(1, 2, 6, 6, requires_grad=True)
    y = block(x)
    torch.testing.assert_close(y[:, :2], F.avg_pool2d(x, 2))
    assert torch.equal(y[:, 2:], torch.zeros(1, 4, 3, 3))
    y.sum().backward()
    assert bool(x.grad.any()) == gradient


def test_weights_are_drawn_for_the_shapes_that_are_there():
    torch.manual_seed(0)
    network = UcpResNetOptions(blocks=1, outer=(64, 64, 64), inner=[7, 256, 64]).build(SHAPE, 10)
    for block, width in zip(network.blocks, (7, 256, 64), strict=True):
        assert float(block.conv1.weight.detach().std()) == pytest.approx((2 / (9 * width)) ** 0.5, rel=0.05)
        assert float(block.conv2.weight.detach().std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    vgg = UcpVggOptions(convs=[8] * 13, pools=1).build(DIGITS, 10)
    assert all(torch.equal(norm.weight, torch.full((8,), 0.5)) for norm in vgg.norms)
    assert float(vgg.head[-1].weight.detach().std()) == pytest.approx(0.01, rel=0.1)


# ---------------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("excited", ["inner", "output"])
def test_scores_are_the_mean_excitations_over_a_split(split, training, excited):
    dataset = load(Data(name="digits", train_images=700, test_images=100))
    torch.manual_seed(1)
    network = UcpResNetOptions(blocks=1, outer=(4, 4, 20), excited=excited).build(DIGITS, 10)
    before = copy.deepcopy(network.state_dict())
    gates = {name: block.sigmoid for name, block in excitations(network).items()}
    images = getattr(dataset, split).images
    found = mean_outputs(network, gates, images, dataset, training=training)
    assert list(found) == [f"blocks.{i}.{'conv1' if excited == 'inner' else 'output'}" for i in range(3)]
    assert not network.training
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    # Once more by hand: the maps that a block reads, and the block's formula on them.
    seen = {name: [] for name in found}
    for name, block in excitations(network).items():
        block.register_forward_pre_hook(lambda module, inputs, name=name: seen[name].append(inputs[0].detach()))
    network.train(training)
    with torch.no_grad():
        for batch in images.split(500):
            network(as_input(batch, dataset, "fp32"))
    for name, block in excitations(network).items():
        means = torch.cat(seen[name]).mean((2, 3))
        gate = torch.sigmoid(block.excite(F.relu(block.squeeze(means)))).double().mean(0)
        torch.testing.assert_close(found[name], gate, rtol=1e-5, atol=1e-7)


def test_a_network_without_blocks_has_no_scores():
    with pytest.raises(SpecError, match="no excitation block; set its option excited"):
        excitations(UcpResNetOptions(blocks=1).build(DIGITS, 10))
    with pytest.raises(SpecError, match="Linear: UCP scores and narrows the networks ucp-vgg and ucp-resnet alone"):
        layers_of(torch.nn.Linear(2, 2))


# ---------------------------------------------------------------------------------------------------- widths

TIED = [0.5, 0.5, 0.5, 0.5]
SPREAD = [0.1, 0.5, 0.52, 0.9]  # mean 0.505


@pytest.mark.parametrize(
    ("options", "widths"),
    [
        ({}, [2, 4]),
        ({"ties": "halve"}, [2, 2]),
        ({"ties": "halve", "skip": [1]}, [2, 4]),
        ({"skip": [0]}, [4, 4]),
        ({"multiplier": 0.99}, [3, 4]),
        ({"multiplier": 1.1}, [1, 4]),
        ({"multiplier": 100.0}, [1, 4]),
        ({"keep": [3, 1]}, [3, 1]),
    ],
)
def test_the_threshold_keeps_what_is_above_it(options, widths):
    assert threshold_widths(UcpOptions(**options), scores_of(SPREAD, TIED)) == widths


def test_a_last_bit_makes_a_layer_untied():
    almost = torch.tensor([0.5, 0.5, 0.5, 0.5 + 2**-50], dtype=torch.float64)
    assert is_tied(torch.tensor(TIED))
    assert not is_tied(almost)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"skip": [2]}, "skip = 2: there is no such layer; must be from 0 to 1"),
        ({"keep": [3]}, "keep: 1 widths; must be 2, one for each layer"),
        ({"keep": [3, 5]}, "keep = 5: the layer has 4 channels"),
    ],
)
def test_wrong_widths_are_refused(options, message):
    with pytest.raises(SpecError, match=message):
        threshold_widths(UcpOptions(**options), scores_of(SPREAD, TIED))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (UcpVggOptions, {"convs": [8] * 12}, "convs: 12 widths; must be 13, one for each layer"),
        (UcpVggOptions, {"depth": 19, "convs": [8] * 13}, "convs: 13 widths; must be 16"),
        (UcpResNetOptions, {"blocks": 2, "inner": [8] * 3}, "inner: 3 widths; must be 6"),
        (UcpOptions, {"multiplier": -1.0}, "multiplier = -1.0: should be greater than 0"),
        (UcpOptions, {"skip": [-1]}, "should be greater than or equal to 0"),
        (UcpOptions, {"ties": "drop"}, "ties = 'drop': should be 'keep' or 'halve'"),
    ],
)
def test_wrong_options_are_refused_in_one_line(kind, options, message):
    with pytest.raises(SpecError, match=message) as error:
        kind(**options)
    assert "\n" not in str(error.value)


def test_a_stage_may_not_be_narrower_than_the_one_before():
    with pytest.raises(SpecError, match=r"outer = \[16, 8, 32\]: must not fall"):
        UcpResNetOptions(outer=(16, 8, 32)).resolve(SHAPE, 10)


def test_the_best_channels_are_kept_in_their_order():
    assert top(torch.tensor([0.3, 0.9, 0.3, 0.5]), 3).tolist() == [0, 1, 3]


def test_matched_widths_cost_as_much_and_no_channel_would_bring_them_nearer():
    channels, prices = torch.tensor([8.0, 16.0, 32.0], dtype=torch.float64), (147, 73, 37)

    def cost(widths):
        return sum(price * width for price, width in zip(prices, widths, strict=True))

    for shares in ([1.0, 1.0, 1.0], [1.0, 0.25, 0.5], [0.1, 0.9, 0.3]):
        widths = match_cost(torch.tensor(shares, dtype=torch.float64), channels, cost, 1300)
        off = abs(cost(widths) - 1300)
        assert off <= max(prices) / 2
        assert all(1 <= width <= of for width, of in zip(widths, channels, strict=True))
    assert match_cost(torch.ones(3, dtype=torch.float64), channels, cost, 10**9) == [8, 16, 32]
    assert match_cost(torch.ones(3, dtype=torch.float64), channels, cost, 0) == [1, 1, 1]


def test_a_layer_says_what_reads_it():
    network = UcpVggOptions(convs=range(3, 16), pools=1).build(DIGITS, 10)
    for layer in network.layers():
        assert isinstance(layer, Layer)
        norm, reader = layer.readers
        assert norm.num_features == layer.conv.out_channels
        assert getattr(reader, "in_channels", None) or reader.in_features == layer.conv.out_channels
