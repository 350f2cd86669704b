"""ExpandNets: chains against their products and against loops, the authors' counts, networks, mistakes."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from thriftylib.errors import SpecError
from thriftylib.merging import contract_chain, merge
from thriftylib.options import NetworkOptions, find
from thriftylib.papers import expandnets_expansion
from thriftylib.papers.expandnets import ExpandNetsOptions, SmallNetOptions
from thriftylib.papers.expandnets_expansion import (
    Expanded,
    ExpandedConv2d,
    ExpandedLinear,
    expand_conv,
    expand_linear,
)
from thriftylib.papers.expandnets_method import contract, expand
from thriftylib.training.fast_path import accelerate

CIFAR = (3, 32, 32)
KINDS = [("cl", 1), ("cl", 3), ("cl", 5), ("cl", 7), ("cl", 9), ("ck", 5), ("ck", 7), ("ck", 9)]
CHANNELS = {"one group": (3, 4, 1), "two groups": (4, 6, 2), "depthwise": (4, 8, 4)}


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def chain_of(kind, kernel, channels=(3, 4, 1), stride=1, bias=True, dtype=torch.float64, rate=2.5):
    """An expanded convolution, with weights that make no output small."""
    torch.manual_seed(kernel + 10 * stride)
    inputs, outputs, groups = channels
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias, dtype=dtype)
    return expand_conv(conv, kind, rate)


def images(channels=3, size=(11, 12), count=2, dtype=torch.float64):
    return torch.randn(count, channels, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def difference(a, b):
    """Largest, relative to the largest number."""
    return ((a - b).abs().max() / b.abs().max()).item()


# --- the operation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
@pytest.mark.parametrize(("kind", "kernel"), KINDS)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["f64", "f32"])
def test_a_chain_computes_what_its_product_computes(kind, kernel, channels, dtype, within):
    for stride in (1, 2):
        for bias in (True, False):
            chained = chain_of(kind, kernel, channels, stride, bias, dtype)
            one = contract_chain(chained.chain)
            assert (one.in_channels, one.out_channels, one.groups) == channels
            assert (one.kernel_size, one.stride, one.padding) == ((kernel,) * 2, (stride,) * 2, (kernel // 2,) * 2)
            assert (one.bias is not None, one.weight.dtype) == (bias, dtype)
            x = images(channels[0], dtype=dtype)
            with torch.no_grad():
                ran = chained.chain(x)
                assert difference(one(x), ran) < within
                assert difference(chained(x), ran) < within
                for from_last in (False, True):
                    weight, bias_of_product = merge(chained.chain, from_last=from_last)
                    args = chained.stride, chained.padding, 1, chained.groups
                    assert difference(F.conv2d(x, weight, bias_of_product, *args), ran) < within


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=["f64", "f32"])
def test_a_chain_of_linear_layers_computes_what_its_product_computes(bias, dtype, within):
    torch.manual_seed(0)
    chained = expand_linear(nn.Linear(7, 5, bias=bias, dtype=dtype))
    x = torch.randn(3, 2, 7, dtype=dtype)
    with torch.no_grad():
        for y in (contract_chain(chained.chain)(x), *(F.linear(x, *merge(chained.chain, from_last=b)) for b in (0, 1))):
            assert difference(y, chained.chain(x)) < within


def dense(layer):
    """A layer's kernel as (o, c, height, width) without groups, and its bias."""
    weight = layer.weight.detach()[(...,) + (None,) * (4 - layer.weight.dim())]
    groups = getattr(layer, "groups", 1)
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    full = torch.zeros(weight.shape[0], inputs * groups, *weight.shape[2:], dtype=weight.dtype)
    for g in range(groups):
        rows = slice(g * outputs, (g + 1) * outputs)
        full[rows, g * inputs : (g + 1) * inputs] = weight[rows]
    return full, layer.bias.detach()


def merged_by_loops(chain):
    """W[o, i, u, v] = sum of W2[o, c, a, b] W1[c, i, u - a, v - b] and b = (sum of W2) b1 + b2, from left to right."""
    weight, bias = dense(chain[0])
    for layer in chain[1:]:
        second, own = dense(layer)
        (outputs, middle, height, width), (_, inputs, rows, columns) = second.shape, weight.shape
        product = torch.zeros(outputs, inputs, rows + height - 1, columns + width - 1, dtype=weight.dtype)
        shift = own.clone()
        for o in range(outputs):
            for c in range(middle):
                for a in range(height):
                    for b in range(width):
                        product[o, :, a : a + rows, b : b + columns] += second[o, c, a, b] * weight[c]
                        shift[o] += second[o, c, a, b] * bias[c]
        weight, bias = product, shift
    return weight, bias


@pytest.mark.parametrize(
    "chained",
    [chain_of(kind, kernel, (2, 2, groups), rate=2) for kind, kernel in (("cl", 3), ("ck", 7)) for groups in (1, 2)]
    + [expand_linear(nn.Linear(3, 2, dtype=torch.float64), 2)],
    ids=["CL", "CL grouped", "CK", "CK grouped", "FC"],
)
def test_the_product_is_that_of_the_formula(chained):
    weight, bias = merged_by_loops(chained.chain)
    found, found_bias = dense(contract_chain(chained.chain))
    torch.testing.assert_close(found, weight, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found_bias, bias, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
@pytest.mark.parametrize(("kind", "kernel"), [("cl", 3), ("cl", 7), ("ck", 5), ("ck", 9)])
def test_gradients_through_the_product_are_the_chains(kind, kernel, channels):
    for stride in (1, 2):
        chained = chain_of(kind, kernel, channels, stride)
        x = images(channels[0]).requires_grad_()
        inputs = [x, *chained.parameters()]
        for from_last in (False, True):
            chained.from_last = from_last
            y = F.conv2d(x, *chained.product(), chained.stride, chained.padding, 1, chained.groups)
            weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
            found = torch.autograd.grad((y * weights).sum(), inputs)
            expected = torch.autograd.grad((chained.chain(x) * weights).sum(), inputs)
            for a, b in zip(found, expected, strict=True):
                assert difference(a, b) < 1e-10


def pads_for_itself(chained):
    """The same layers, each padded by half its kernel."""
    chain = copy.deepcopy(chained.chain)
    for layer in chain:
        layer.padding = tuple(size // 2 for size in layer.kernel_size)
    return chain


@pytest.mark.parametrize(("kind", "kernel"), [("cl", 3), ("cl", 7), ("ck", 5), ("ck", 7), ("ck", 9)])
def test_layers_that_pad_for_themselves_are_another_map_at_the_border(kind, kernel):
    chained = chain_of(kind, kernel, (3, 16, 1), rate=4)
    natural, x, edge = pads_for_itself(chained), images(size=(24, 24)), kernel // 2
    with torch.no_grad():
        diff = (natural(x) - contract_chain(chained.chain)(x)).abs()
    assert diff[..., edge:-edge, edge:-edge].max() < 1e-13
    assert diff.max() > 0.1
    with pytest.raises(SpecError, match="pads its own input.*all padding must be on the first layer"):
        contract_chain(natural)


@settings(max_examples=40, deadline=None)
@given(
    case=st.sampled_from(KINDS),
    widths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    groups=st.sampled_from([1, 2, 3]),
    rate=st.floats(0.1, 5),
    stride=st.integers(1, 3),
    padding=st.integers(0, 5),
    widens_input=st.booleans(),
)
def test_any_convolution_can_be_expanded_and_contracted(case, widths, groups, rate, stride, padding, widens_input):
    kind, kernel = case
    inputs, outputs = (groups * width for width in widths)
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, dtype=torch.float64)
    chained = expand_conv(conv, kind, rate, widens_input=widens_input)
    one, x = contract(chained), images(inputs, (9, 10))
    with torch.no_grad():
        assert difference(one(x), chained.chain(x)) < 1e-12
    assert repr(one) == repr(conv)


def test_rates_below_one_narrow_the_chain_to_a_channel_per_group_at_least():
    chain = chain_of("cl", 3, (4, 8, 4), rate=0.01).chain
    assert [layer.out_channels for layer in chain] == [4, 4, 8]
    assert [layer.out_features for layer in expand_linear(nn.Linear(6, 2), 0.25).chain] == [2, 1, 2]


def multiplications(chain):
    """MACs of the product from left to right or from right to left, whichever are fewer; biases left out."""

    def of(shapes, at):
        total = 0
        while len(shapes) > 1:
            first, second = (shapes[0], shapes[1]) if at == 0 else (shapes[-2], shapes[-1])
            outputs, _, *size = second
            total += math.prod(second) * math.prod(first[1:])
            merged = (outputs, first[1], *(a + b - 1 for a, b in zip(size, first[2:], strict=True)))
            shapes = [merged, *shapes[2:]] if at == 0 else [*shapes[:-2], merged]
        return total

    shapes = [tuple(layer.weight.shape) for layer in chain]
    return min(of(shapes, 0), of(shapes, 1))


def macs_of(module, x):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    return counter.get_total_flops() // 2


@settings(max_examples=30, deadline=None)
@given(
    layer=st.sampled_from(
        [
            nn.Linear(6, 4),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.Conv2d(6, 6, 3, 2, 1, groups=6),
            nn.Conv2d(4, 8, 5, padding=2, groups=2),
        ]
    ),
    count=st.integers(1, 30),
    size=st.integers(5, 9),
)
def test_the_product_is_made_only_where_it_costs_fewer_macs(layer, count, size):
    linear = isinstance(layer, nn.Linear)
    chained = expand_linear(layer) if linear else expand_conv(layer, "cl")
    x = torch.randn(count, 6) if linear else torch.randn(count, layer.in_channels, size, size)
    cheaper = multiplications(chained.chain) + macs_of(layer, x) <= macs_of(chained.chain, x)
    assert chained.merges(x.shape) == cheaper


def test_a_small_batch_of_many_channels_runs_the_chain_and_a_large_one_does_not():
    chained = expand_conv(nn.Conv2d(64, 64, 3, padding=1), "cl")
    ran = []
    chained.chain.register_forward_hook(lambda *_: ran.append(True))
    chained(torch.randn(1, 64, 4, 4))
    assert ran == [True]
    chained(torch.randn(64, 64, 8, 8))
    assert ran == [True]


def test_the_product_keeps_its_precision_under_autocast():
    chained = chain_of("cl", 3, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(chained.product(), merge(chained.chain), strict=True))
        assert chained.weight.dtype == torch.float32
        assert chained(images(dtype=torch.float32)).dtype == torch.bfloat16
    torch.testing.assert_close(chained.weight, contract(chained).weight)


# --- SmallNet ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "of_10", "of_100", "macs", "flat"),
    [
        (3, 15_050, 20_900, 0.47, 128),
        (5, 50_250, None, None, None),
        (7, 66_186, 72_036, 4.45, 512),
        (9, 87_434, None, None, None),
    ],
)
def test_counts_of_smallnet(kernel, of_10, of_100, macs, flat):
    options = SmallNetOptions(kernel=kernel)
    network = options.build(CIFAR, 10)
    assert options.cost(CIFAR, 10).parameters == parameters(network) == of_10
    assert options.cost(CIFAR, 10).macs == macs_of(network.eval(), torch.zeros(1, *CIFAR))
    if of_100:
        assert options.cost(CIFAR, 100).parameters == parameters(options.build(CIFAR, 100)) == of_100
        assert round(options.cost(CIFAR, 10).macs / 1e6, 2) == macs
        assert network[4].in_features == flat


@pytest.mark.parametrize(
    ("kernel", "convs", "linear", "count", "macs"),
    [
        (3, "cl", False, 109_086, 5.65),
        (3, "cl", True, 314_654, None),
        (3, None, True, 220_618, None),
        (7, "cl", False, 547_102, 57.4),
        (7, "cl", True, 2_105_886, None),
        (7, "ck", False, 186_982, 23.8),
        (7, "ck", True, 1_745_766, None),
        (7, None, True, 1_624_970, None),
    ],
)
def test_sizes_in_training(monkeypatch, kernel, convs, linear, count, macs):
    network = expand(SmallNetOptions(kernel=kernel).build(CIFAR, 10), convs=convs, linear=linear)
    assert parameters(network) == count
    if macs:
        monkeypatch.setattr(ExpandedConv2d, "merges", lambda *_: False)
        found = macs_of(network.eval(), torch.zeros(1, *CIFAR)) / 1e6
        assert found == pytest.approx(macs, abs=0.005 if macs < 10 else 0.05)


def test_smallnet_is_the_authors():
    network = SmallNetOptions().build(CIFAR, 10)
    names = [type(layer).__name__ for layer in network.modules() if not isinstance(layer, nn.Sequential)]
    assert names == ["Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d"] * 3 + ["Flatten", "Linear", "ReLU", "Linear"]
    convs = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [(conv.out_channels, conv.padding, conv.bias is not None) for conv in convs] == [
        (width, (0, 0), True) for width in (8, 16, 32)
    ]
    paddings = [SmallNetOptions(kernel=kernel).padding for kernel in (3, 5, 7, 9)]
    assert paddings == [0, 2, 3, 4]


# --- networks ---------------------------------------------------------------------------------------------------------


def chains_in(network):
    return {name: module for name, module in network.named_modules() if isinstance(module, Expanded)}


def hooks_in(network):
    return [
        hooks for module in network.modules() for hooks in (module._forward_hooks, module._forward_pre_hooks) if hooks
    ]


def train_steps(network, x, steps=3):
    """A few steps of training, so that nothing is at its start; returns the logits of evaluation."""
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9)
    labels = torch.arange(len(x)) % 10
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network.train()(x), labels).backward()
        optimizer.step()
    return predict(network, x)


def predict(network, x):
    with torch.no_grad():
        return network.eval()(x)


NETWORKS = {
    "CL+FC, 3x3": ("smallnet", {}, {"convs": "cl", "linear": True}),
    "CK+FC, 7x7": ("smallnet", {"kernel": 7, "widths": [4, 6]}, {"convs": "ck", "linear": True, "image": True}),
    "ThriftyNet": ("thriftynet", {"filters": 8, "iterations": 3, "conv": "classic"}, {"convs": "cl"}),
    "ThriftyNet, grouped": ("thriftynet", {"filters": 8, "iterations": 3, "conv": "mb1"}, {"convs": "cl", "rate": 2.0}),
    "DACNN": ("dacnn", {"width": 8}, {"convs": "cl"}),
}


@pytest.mark.parametrize("fast", [False, pytest.param(True, marks=pytest.mark.fast)], ids=["plain", "fast path"])
@pytest.mark.parametrize(("name", "options", "how"), NETWORKS.values(), ids=NETWORKS)
def test_contraction_keeps_the_predictions_and_leaves_the_plain_network(name, options, how, fast):
    torch.manual_seed(0)
    options = find(NetworkOptions, name).model_validate(options)
    plain = options.build(CIFAR, 10)
    network = expand(options.build(CIFAR, 10), **how)
    if fast:
        accelerate(network, options.fast)
    x = images(3, (32, 32), 12, torch.float32)
    before = train_steps(network, x)
    kept = contract(copy.deepcopy(network)).state_dict()
    assert {name: tensor.shape for name, tensor in kept.items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    plain.load_state_dict(kept)
    after = predict(plain, x)
    assert difference(after, before) < 1e-5
    assert torch.equal(after.argmax(1), before.argmax(1))


@pytest.mark.fast
def test_a_fast_network_of_chains_learns_what_a_plain_one_does():
    options = find(NetworkOptions, "thriftynet")(filters=8, iterations=3, conv="classic", pool=2)
    torch.manual_seed(0)
    network = expand(options.build(CIFAR, 10), convs="cl").double()
    x = images(3, (32, 32), 6)
    assert difference(train_steps(accelerate(copy.deepcopy(network), options.fast), x), train_steps(network, x)) < 1e-9


def test_contraction_removes_the_chains_and_the_hooks():
    network = expand(SmallNetOptions().build(CIFAR, 10), convs="cl", linear=True)
    assert len(chains_in(network)) == 4
    assert hooks_in(network)
    whole = nn.Sequential(network)
    assert contract(whole) is whole
    assert not chains_in(whole)
    assert not hooks_in(whole)
    plain = copy.deepcopy(whole)
    assert [type(part) for part in contract(whole).modules()] == [type(part) for part in plain.modules()]


def test_the_chain_that_reads_the_image_keeps_its_channels_as_in_the_authors_cifar_code():
    for convs, kernel in (("cl", 3), ("ck", 7)):
        for image, first in ((False, 3), (True, 12)):
            network = expand(SmallNetOptions(kernel=kernel).build(CIFAR, 10), convs=convs, image=image)
            widths = [module.chain[0].out_channels for module in chains_in(network).values()]
            assert widths == [first, 32, 64]


def test_all_linear_layers_are_expanded_but_the_classifier():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    expand(network, linear=True)
    assert list(chains_in(network)) == ["1", "3"]
    assert [layer.out_features for layer in network[1].chain] == [48, 24, 6]
    assert type(network[5]) is nn.Linear


def test_only_says_where():
    def names(**how):
        return list(chains_in(expand(SmallNetOptions().build(CIFAR, 10), **how)))

    assert names(convs="cl", only=("1",)) == ["1.0"]
    assert names(convs="cl", linear=True, only=("2.0", "4")) == ["2.0", "4"]
    assert names(convs="cl", only=["0", "2"]) == ["0.0", "2.0"]
    deep = nn.Sequential(*(nn.Conv2d(2, 2, 3) for _ in range(11)))
    assert list(chains_in(expand(deep, convs="cl", only=("1",)))) == ["1"]  # and not 10


def test_a_second_call_expands_what_is_no_chain_yet():
    network = expand(SmallNetOptions(kernel=7).build(CIFAR, 10), convs="ck", only=("1", "2"))
    ready = chains_in(network)
    expand(expand(network, convs="cl"), linear=True)
    assert list(chains_in(network)) == ["0.0", "1.0", "2.0", "4"]
    assert all(network.get_submodule(name) is module for name, module in ready.items())
    assert [len(module.chain) for module in chains_in(network).values()] == [3, 3, 3, 3]
    assert len(network._forward_hooks) == len(network._forward_pre_hooks) == 1
    assert not hooks_in(contract(network))


class Repeated(nn.Module):
    """One convolution under two names, used three times: forward may fail, or look at it without gradients first."""

    def __init__(self):
        super().__init__()
        self.first = self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.fails = self.looks = False

    def forward(self, x):
        if self.looks:
            with torch.no_grad():
                self.first(x)
        for conv in (self.first, self.second, self.first):
            x = conv(x).tanh()
        if self.fails:
            raise RuntimeError("on purpose")
        return x


@pytest.fixture
def merges(monkeypatch):
    """The chains that were multiplied, in order."""
    made = []

    def counted(chain, **how):
        made.append(chain)
        return merge(chain, **how)

    monkeypatch.setattr(expandnets_expansion, "merge", counted)
    return made


def test_a_module_at_two_places_stays_one_chain_multiplied_once_a_pass(merges):
    torch.manual_seed(0)
    for only in ((), ("second",)):
        merges.clear()
        network = expand(Repeated(), convs="cl", only=only)
        assert network.first is network.second
        assert isinstance(network.first, ExpandedConv2d)
        x = images(4, (8, 8), 32, torch.float32)
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        losses = []
        for step in range(3):
            optimizer.zero_grad()
            loss = network(x).square().mean()
            assert len(merges) == step + 1
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] > losses[1] > losses[2]
        one = contract(network)
        assert one.first is one.second
        assert type(one.first) is nn.Conv2d


def test_gradients_of_a_chain_used_again_and_again_are_those_of_running_it(monkeypatch):
    torch.manual_seed(0)
    network = expand(Repeated().double(), convs="cl")
    x = images(4, (8, 8), 8)
    found = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
    network.looks = True
    again = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
    monkeypatch.setattr(ExpandedConv2d, "forward", lambda self, x: self.chain(x))
    ran = torch.autograd.grad(network(x).square().sum(), list(network.parameters()))
    for a, b, c in zip(found, again, ran, strict=True):
        assert difference(a, c) < 1e-10
        assert difference(b, c) < 1e-10


def test_no_product_outlives_its_pass(merges):
    network = expand(Repeated(), convs="cl")
    chained, x = network.first, images(4, (8, 8), 32, torch.float32)
    network(x)
    assert (chained.kept, chained.keeps) == (None, False)
    network.fails = True
    with pytest.raises(RuntimeError, match="on purpose"):
        network(x)
    assert (chained.kept, chained.keeps) == (None, False)
    network.fails = False
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
    merges.clear()
    assert copied(x).abs().max() == 0
    assert network(x).abs().max() > 0
    assert merges == [copied.first.chain, network.first.chain]
    assert not hooks_in(contract(copied))
    assert hooks_in(network)
    merges.clear()
    network(x)
    assert merges == [network.first.chain]


# --- mistakes ---------------------------------------------------------------------------------------------------------


def sequence(*layers):
    return lambda: contract_chain(nn.Sequential(*layers))


def smallnet(**how):
    return lambda: expand(SmallNetOptions().build(CIFAR, 10), **how)


MISTAKES = {
    "CK, even kernel": (lambda: expand_conv(nn.Conv2d(2, 2, 6), "ck"), r"odd, square kernel of 5 or more, not 6x6"),
    "CK, kernel 3": (smallnet(convs="ck"), r"odd, square kernel of 5 or more, not 3x3; 'cl' takes any"),
    "CK, not square": (lambda: expand_conv(nn.Conv2d(2, 2, (5, 7)), "ck"), "not 5x7"),
    "kind": (lambda: expand_conv(nn.Conv2d(2, 2, 3), "c1"), "kind = 'c1': must be 'cl' or 'ck'"),
    "rate 0": (smallnet(convs="cl", rate=0), "rate = 0: must be a number above 0"),
    "rate -1": (smallnet(linear=True, rate=-1.0), "rate = -1.0: must be a number above 0"),
    "rate nan": (smallnet(convs="cl", rate=math.nan), "rate = nan: must be a number above 0"),
    "rate inf": (smallnet(convs="cl", rate=math.inf), "rate = inf: must be a number above 0"),
    "dilation": (lambda: expand_conv(nn.Conv2d(2, 2, 3, dilation=2), "cl"), "dilation=.* only a convolution without"),
    "circular": (lambda: expand_conv(nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "cl"), "circular"),
    "same": (lambda: expand_conv(nn.Conv2d(2, 2, 3, padding="same"), "cl"), "padded with a number of zeros"),
    "only": (smallnet(convs="cl", only=("7x7",)), "only = '7x7': the network has no such module; its parts: 0, 1, 2"),
    "no such layer there": (smallnet(convs="cl", only=("4",)), "convs = 'cl', linear = False: there is no such layer"),
    "no hidden layer": (lambda: expand(nn.Sequential(nn.Linear(2, 2)), linear=True), "there is no such layer"),
    "a layer, no network": (lambda: expand(nn.Conv2d(2, 2, 3), convs="cl"), "there is no such layer"),
    "ReLU inside": (
        sequence(nn.Conv2d(2, 4, 1, stride=2), nn.ReLU(), nn.Conv2d(4, 2, 3)),
        "layer 1 of the chain is ReLU: .* no activation or normalisation between them",
    ),
    "norm inside": (sequence(nn.Linear(2, 4), nn.BatchNorm1d(4)), "layer 1 of the chain is BatchNorm1d"),
    "nothing": (sequence(), "an empty nn.Sequential is no chain"),
    "channels that do not fit": (
        sequence(nn.Conv2d(2, 4, 1), nn.Conv2d(3, 2, 3)),
        "layer 1 of the chain takes 3 channels or features, but the one before gives 4",
    ),
    "a bias here and there": (sequence(nn.Linear(2, 4), nn.Linear(4, 2, bias=False)), "must have a bias, or none"),
    "a dilated layer": (sequence(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 3, dilation=2)), "layer 1 .* needs dilation 1"),
    "same in a chain": (sequence(nn.Conv2d(2, 4, 3, padding="same"), nn.Conv2d(4, 2, 3)), "layer 0 .* with a number"),
    "groups": (
        sequence(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 3, groups=2)),
        "layer 1 .* needs .* the first one's groups",
    ),
    "stride": (sequence(nn.Conv2d(2, 4, 1, stride=2), nn.Conv2d(4, 2, 3)), "layer 0 .* only 1x1 layers may follow"),
    "option rate": (lambda: ExpandNetsOptions(convs="cl", rate=0.0), "rate = 0.0: should be greater than 0"),
    "option rate nan": (lambda: ExpandNetsOptions(rate=math.nan), "rate = nan: should be a finite number"),
    "option convs": (lambda: ExpandNetsOptions(convs="c1"), "convs = 'c1': should be 'plain', 'cl' or 'ck'"),
    "SmallNet's kernel": (lambda: SmallNetOptions(kernel=4), "kernel = 4: should be 3, 5, 7 or 9"),
    "SmallNet's images": (
        lambda: SmallNetOptions().build((1, 8, 8), 10),
        "padding = 0: images of 8x8 are too small for 3 stages; stage 2 would have no pixel left to pool",
    ),
}


@pytest.mark.parametrize(("mistake", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_in_one_line(mistake, message):
    with pytest.raises(SpecError, match=message) as caught:
        mistake()
    assert "\n" not in str(caught.value)


def test_an_activation_put_into_a_chain_afterwards_is_found():
    network = expand(SmallNetOptions().build(CIFAR, 10), linear=True)
    assert isinstance(network[4], ExpandedLinear)
    network[4].chain.insert(1, nn.ReLU())
    with pytest.raises(SpecError, match="layer 1 of the chain is ReLU"):
        contract(network)
