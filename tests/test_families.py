"""The networks in stages: counts against the fact sheet of EBCLE, their units, and what their knobs refuse."""

import itertools

import pytest
import torch
from torch.nn import functional as F
from torchvision.models import efficientnet_b0, efficientnet_b1, efficientnet_b2, resnet50
from torchvision.models.efficientnet import MBConvConfig

from thriftylib.errors import SpecError
from thriftylib.papers.families import (
    BottleneckResNetOptions,
    DenseNetOptions,
    EfficientNetOptions,
    ResNeXtOptions,
    StagedOptions,
)
from thriftylib.papers.families_networks import DenseBlock, DenseLayer
from thriftylib.training.counting import check_cost, count

CIFAR = (3, 32, 32)
FAMILIES = [DenseNetOptions, BottleneckResNetOptions, ResNeXtOptions, EfficientNetOptions]
SMALL = [
    DenseNetOptions(growth=3, layers=(2, 1, 3), stem=5, compression=0.5),
    DenseNetOptions(growth=4, layers=(1, 2), stem=8, stem_stride=2),
    BottleneckResNetOptions(layers=(1, 2), width=3),
    BottleneckResNetOptions(layers=(2, 1, 1), width=4, stem="7x7"),
    ResNeXtOptions(layers=(2, 1), cardinality=3, group_width=2),
    EfficientNetOptions(layers=(2, 1, 1, 2, 1, 1, 1), width=0.3),
    EfficientNetOptions(layers=(1,) * 7, width=0.2, stem_stride=2),
]


def on_meta(options, shape=CIFAR, classes=10):
    with torch.device("meta"):
        return options.build(shape, classes)


# ----------------------------------------------------------------------------------------------------- counts

# Section 3.2 of the fact sheet: layers, other options, parameters and MACs with their printed last digit.
DENSE = [
    *(
        ((n,) * 3, {}, *counts)
        for n, *counts in [(12, "1.020", "264.8"), (10, "0.717", "187.5"), (8, "0.467", "123.6")]
    ),
    *(((n,) * 3, {}, *counts) for n, *counts in [(7, "0.362", "96.6"), (6, "0.271", "72.9"), (5, "0.192", "52.6")]),
    ((1,) * 3, {}, "0.013", "4.5"),
    ((8,) * 3, {"growth": 18}, "1.00", "260"),
    ((7,) * 3, {"growth": 21}, "1.04", "267"),
    ((6,) * 3, {"growth": 24}, "0.99", "254"),
    ((5,) * 3, {"growth": 29}, "0.99", "253"),
    ((4,) * 3, {"growth": 37}, "1.01", "257"),
]
RESNEXT = [
    *(((n,) * 3, {}, *counts) for n, *counts in [(6, "4.817", "732"), (5, "4.10", "628"), (4, "3.38", "523")]),
    *(((n,) * 3, {}, *counts) for n, *counts in [(3, "2.66", "419"), (2, "1.95", "315"), (1, "1.23", "211")]),
    *(((n,) * 3, {"group_width": 4}, *counts) for n, *counts in [(6, "9.216", "1420"), (5, "7.74", "1205")]),
    *(((n,) * 3, {"group_width": 4}, *counts) for n, *counts in [(3, "4.78", "774"), (1, "1.82", "343")]),
]
RESNET = [
    ((3, 4, 6, 3), {}, "23.52", "1298"),
    ((2, 2, 2, 2), {}, "13.96", "727"),
    ((1, 2, 1, 1), {}, "8.31", "513"),
    ((1, 1, 1, 1), {}, "8.03", "442"),
    ((2, 2, 1), {}, "2.33", "463"),
]


def decimals(text):
    return len(text.partition(".")[2])


@pytest.mark.parametrize(
    ("family", "layers", "options", "parameters", "macs"),
    [
        (family, *row)
        for family, rows in [(DenseNetOptions, DENSE), (ResNeXtOptions, RESNEXT), (BottleneckResNetOptions, RESNET)]
        for row in rows
    ],
)
def test_counts_are_the_fact_sheets(family, layers, options, parameters, macs):
    """To the last printed digit; its MACs are of convolutions alone (with the head, one row rounds the other way)."""
    cost = family(layers=layers, **options).cost(CIFAR, 10)
    assert f"{cost.parameters / 1e6:.{decimals(parameters)}f}" == parameters
    assert f"{(cost.macs - cost.part('head').macs) / 1e6:.{decimals(macs)}f}" == macs


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        (DenseNetOptions(compression=0.5), 578_090),
        (ResNeXtOptions(), 4_817_482),
        (ResNeXtOptions(cardinality=16, group_width=4), 4_962_634),
        (ResNeXtOptions(cardinality=1, group_width=64), 9_317_194),
    ],
)
def test_counts_of_third_parties(options, parameters):
    assert options.cost(CIFAR, 10).parameters == parameters
    assert sum(parameter.numel() for parameter in on_meta(options).parameters()) == parameters


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        (BottleneckResNetOptions(stem="7x7"), resnet50),
        (EfficientNetOptions(version="B0", stem_stride=2), efficientnet_b0),
        (EfficientNetOptions(version="B1", stem_stride=2), efficientnet_b1),
        (EfficientNetOptions(version="B2", stem_stride=2), efficientnet_b2),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_for_imagenet_they_are_torchvisions_networks(options, reference):
    shape = (3, 64, 64)
    with torch.device("meta"):
        expected = reference()
    found, cost = on_meta(options, shape, 1000), options.cost(shape, 1000)
    assert [x.shape for x in found.state_dict().values()] == [x.shape for x in expected.state_dict().values()]
    counted = count(expected, shape)
    assert (counted.parameters, counted.macs) == (cost.parameters, cost.macs)
    assert (counted.ptflops_macs, counted.activation_bytes) == (cost.ptflops_macs, cost.activation_bytes())


@pytest.mark.parametrize("data", ["mnist", "digits", "cifar10", "stl10"])
@pytest.mark.parametrize("options", SMALL, ids=lambda options: f"{options.network} {options.layers}")
def test_closed_form_cost_is_the_built_networks(make_run, options, data):
    run = make_run(options.network, options.model_dump(mode="json"), data={"name": data})
    network = run.build()
    check_cost(run, network)
    assert network(torch.randn(2, *run.data.info.image_shape)).shape == (2, 10)


# ------------------------------------------------------------------------------------------------------ units


def passes(network, shape):
    """What each unit reads, returns and adds to its shortcut, in the order of a forward pass in evaluation mode."""
    units, seen, branches, hooks = network.units(), [], {}, []
    for unit in units:
        if unit.branch is not None:
            hook = lambda module, inputs, output, name=unit.name: branches.update({name: output.clone()})  # noqa: E731
            hooks.append(unit.branch.register_forward_hook(hook))
        hook = lambda module, inputs, output, unit=unit: seen.append((unit, inputs[0].clone(), output.clone()))  # noqa: E731
        hooks.append(unit.module.register_forward_hook(hook))
    with torch.no_grad():
        network.eval()(torch.randn(2, *shape))
    for hook in hooks:
        hook.remove()
    return seen, branches


@pytest.mark.parametrize("options", SMALL, ids=lambda options: f"{options.network} {options.layers}")
def test_units_are_what_they_say(options):
    network = options.build(CIFAR, 10)
    units, modules = network.units(), dict(network.named_modules())
    assert all(modules[unit.name] is unit.module for unit in units)
    assert [unit.stage for unit in units] == [i for i, n in enumerate(options.repeats) for _ in range(n)]
    seen, branches = passes(network, CIFAR)
    assert [unit for unit, _, _ in seen] == units  # so each runs once, and in that order
    for unit, x, y in seen:
        if unit.branch is None:
            assert unit.skippable
            assert y.shape == (x.shape[0], options.growth, *x.shape[2:])
        elif unit.skippable:
            total = branches[unit.name] + x
            assert torch.equal(y, total if isinstance(options, EfficientNetOptions) else total.relu())
    if isinstance(options, DenseNetOptions):
        return
    firsts = [next(unit for unit in units if unit.stage == stage) for stage in range(len(options.repeats))]
    for (
        unit,
        x,
        y,
    ) in seen:  # a bottleneck's shortcut is a convolution in each stage's first block, an MBConv's is absent
        same = x.shape == y.shape if isinstance(options, EfficientNetOptions) else unit not in firsts
        assert unit.skippable == same


@pytest.mark.parametrize("options", SMALL, ids=lambda options: f"{options.network} {options.layers}")
def test_every_parameter_has_a_gradient(options):
    torch.manual_seed(0)
    network = options.build(CIFAR, 10)
    F.cross_entropy(network(torch.randn(4, *CIFAR)), torch.arange(4)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    dead = [name for name, parameter in network.named_parameters() if not parameter.grad.any()]
    assert not [name for name in dead if "fc1" not in name]  # few squeezed channels, each of which may be dead


def test_a_dense_block_is_the_naive_one():
    """Against batch norm by its formula and the convolution of all earlier outputs, with gradients, in float64."""
    torch.manual_seed(0)
    block = DenseBlock([DenseLayer(3 + 2 * i, 2) for i in range(3)]).double()
    for layer in block:
        torch.nn.init.uniform_(layer[0].weight)
        torch.nn.init.normal_(layer[0].bias)
    x = torch.randn(4, 3, 5, 6, dtype=torch.float64, requires_grad=True)

    outputs = [x]
    for norm, _, conv in block:
        features = torch.cat(outputs, 1)
        mean = features.mean((0, 2, 3), keepdim=True)
        variance = (features - mean).square().mean((0, 2, 3), keepdim=True)
        normed = (features - mean) / (variance + norm.eps).sqrt() * norm.weight[:, None, None]
        patches = F.unfold((normed + norm.bias[:, None, None]).clamp(min=0), 3, padding=1)
        outputs.append((conv.weight.flatten(1) @ patches).unflatten(2, (5, 6)))
    naive, target = torch.cat(outputs, 1), torch.randn(4, 9, 5, 6, dtype=torch.float64)
    expected = torch.autograd.grad((naive * target).sum(), [x, *block.parameters()])

    found = block(x)
    torch.testing.assert_close(found, naive, rtol=1e-12, atol=1e-12)
    for one, other in zip(torch.autograd.grad((found * target).sum(), [x, *block.parameters()]), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_densenet_pools_between_blocks_and_compresses_there():
    network = DenseNetOptions(growth=3, layers=(2, 1, 3), stem=5, compression=0.5).build((1, 28, 28), 10)
    shapes = [tuple(x.shape[1:]) for _, x, _ in passes(network, (1, 28, 28))[0]]
    assert shapes == [(5, 28, 28), (8, 28, 28), (5, 14, 14), (4, 7, 7), (7, 7, 7), (10, 7, 7)]
    assert network.head[0].num_features == 13


# ------------------------------------------------------------------------------------------------------ knobs


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.network)
def test_knobs_change_depth_and_width_alone(family):
    options = family()
    assert issubclass(family, StagedOptions)
    deeper = options.with_repeats(tuple(n + 1 for n in options.repeats))
    assert deeper.repeats == tuple(n + 1 for n in options.repeats)
    assert deeper.model_dump(exclude={"layers"}) == options.model_dump(exclude={"layers"})
    assert options.with_repeats(options.repeats) == options
    assert sum(module.kernel_size[0] > 1 for module in convolutions(options)) == 1 + sum(options.repeats)
    assert options.convolutions_3x3 == 1

    widths = list(itertools.islice(options.widths(), 40))
    assert all(each.model_dump(exclude={family.knob}) == options.model_dump(exclude={family.knob}) for each in widths)
    costs = [each.cost(CIFAR, 10) for each in widths]
    assert all(a.parameters < b.parameters and a.macs < b.macs for a, b in itertools.pairwise(costs))
    assert any(each == options for each in itertools.islice(options.widths(), 100))  # the default width is met, too


def convolutions(options):
    return [module for module in on_meta(options).modules() if isinstance(module, torch.nn.Conv2d)]


def test_the_narrowest_width_comes_first():
    first = [next(iter(family().widths())) for family in FAMILIES]
    assert [getattr(each, each.knob) for each in first] == [1, 1, 1, 0.01]
    assert first[3].cost(CIFAR, 10) == EfficientNetOptions(width=1e-9).cost(CIFAR, 10)  # 8 channels everywhere


def test_efficientnet_rounds_channels_as_torchvision():
    """And its widths are all that differ: no two have the same channels, and none between is left out."""

    def channels(width):
        return [MBConvConfig.adjust_channels(n, width) for n in (32, 16, 24, 40, 80, 112, 192, 320)]

    widths = [each.width for each in itertools.takewhile(lambda each: each.width <= 2, EfficientNetOptions().widths())]
    distinct = {tuple(channels(hundredths / 100)) for hundredths in range(1, 201)}
    assert {tuple(channels(width)) for width in widths} == distinct
    assert len(widths) == len(distinct)
    for width in widths[::10]:
        convs = convolutions(EfficientNetOptions(width=width))
        assert convs[0].out_channels == channels(width)[0]
        assert convs[-1].in_channels == channels(width)[-1]


def test_versions_are_defaults():
    b2 = EfficientNetOptions(version="B2")
    assert (b2.layers, b2.width, b2.dropout) == ((2, 3, 3, 4, 4, 5, 2), 1.1, 0.3)
    assert EfficientNetOptions(version="B2", layers=(1,) * 7).width == 1.1
    assert b2.with_repeats((5,) * 7).dropout == 0.3
    assert b2.build(CIFAR, 10).head[-1][0].p == 0.3


def test_impossible_options_are_named_in_one_line():
    with pytest.raises(SpecError, match=r"^repeats = \(5, 5\): must be 3 numbers, one for each stage$"):
        DenseNetOptions().with_repeats((5, 5))
    with pytest.raises(SpecError, match=r"^ResNeXtOptions.layers.1 = 0: should be greater than or equal to 1$"):
        ResNeXtOptions().with_repeats((5, 0, 5))
    with pytest.raises(SpecError, match=r"^EfficientNetOptions.layers = \(1, 2\): .* at least 7 items"):
        EfficientNetOptions(layers=(1, 2))
    with pytest.raises(SpecError, match=r"^EfficientNetOptions.width = 0.0: should be greater than 0$"):
        EfficientNetOptions(width=0.0)
    with pytest.raises(SpecError, match=r"^BottleneckResNetOptions.layers = \(\): "):
        BottleneckResNetOptions(layers=())
    with pytest.raises(SpecError, match=r"^DenseNetOptions.compression = 1.5: should be less than or equal to 1$"):
        DenseNetOptions(compression=1.5)
    message = r"^layers = \(1, 1, 1\), stem_stride = 2: needs images of at least 8x8, not 7x9$"
    with pytest.raises(SpecError, match=message):
        DenseNetOptions(layers=(1, 1, 1), stem_stride=2).build((1, 7, 9), 10)
