"""ThriftyNet against its fact sheet's counts and against an independent unrolled twin in float64."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from thriftylib.errors import SpecError
from thriftylib.options import NetworkOptions, find
from thriftylib.papers.thriftynet import BlockThriftyNetOptions, EmbeddedThriftyNetOptions, ThriftyNetOptions
from thriftylib.papers.thriftynet_recursion import ACTIVATIONS, ThriftyNet

CIFAR = (3, 32, 32)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


# --- counts of the fact sheet -----------------------------------------------------------------------------------------

UNDER_40K = [  # section 1.5: T, h, f, N
    *((10, 1, 181, 39850), (15, 1, 176, 39640), (20, 1, 172, 39782)),
    *((30, 1, 164, 39922), (40, 1, 156, 39870), (50, 1, 148, 39626)),
    *((10, 5, 181, 39890), (15, 5, 176, 39700), (20, 5, 172, 39862)),
    *((30, 5, 163, 39636), (40, 5, 155, 39620), (50, 5, 148, 39826)),
]
FIGURE_SIZE = {  # section 3.1: f -> N for T = 20, 30, 40
    32: (3042, 3742, 4442),
    64: (8002, 9342, 10682),
    96: (15010, 16990, 18970),
    128: (24066, 26686, 29306),
    160: (35170, 38430, 41690),
    192: (48322, 52222, 56122),
    256: (80770, 85950, 91130),
}
FIGURE_SVHN = {  # section 3.2: budget -> (f, N) for T = 20, 30, 40
    2000: ((22, 1912), (18, 1936), (15, 1960)),
    5000: ((46, 4960), (40, 4950), (35, 4940)),
    8000: ((63, 7816), (57, 7942), (51, 7900)),
    10000: ((74, 9972), (67, 9972), (60, 9790)),
    15000: ((95, 14760), (88, 14886), (81, 14830)),
    20000: ((114, 19852), (106, 19800), (99, 19852)),
    40000: ((172, 39862), (163, 39636), (155, 39620)),
}
BUDGETS = [
    *((40000, iterations, history, f, n) for iterations, history, f, n in UNDER_40K),
    *(
        (budget, iterations, 5, f, n)
        for budget, row in FIGURE_SVHN.items()
        for iterations, (f, n) in zip((20, 30, 40), row, strict=True)
    ),
    (60000, 30, 5, 208, 59886),  # section 3.4
]


@pytest.mark.parametrize(("budget", "iterations", "history", "filters", "count"), BUDGETS)
def test_budget_gives_the_sheets_width_and_count(budget, iterations, history, filters, count):
    options = ThriftyNetOptions(n_params=budget, iterations=iterations, history=history).resolve(CIFAR, 10)
    assert (options.filters, options.n_params) == (filters, None)
    assert options.cost(CIFAR, 10).parameters == count
    wider = options.model_copy(update={"filters": filters + 1})
    assert wider.cost(CIFAR, 10).parameters > budget


@pytest.mark.parametrize("filters", FIGURE_SIZE)
def test_counts_of_the_size_figure(filters):
    for iterations, count in zip((20, 30, 40), FIGURE_SIZE[filters], strict=True):
        options = ThriftyNetOptions(filters=filters, iterations=iterations)
        assert options.cost(CIFAR, 10).parameters == parameters(options.build(CIFAR, 10)) == count


@pytest.mark.parametrize(
    ("conv", "widths"),
    [("mb1", {20: 703, 30: 694, 40: 685, 50: 676}), ("classic", {20: 250, 30: 249, 40: 248})],
)
def test_widest_networks_under_600k_on_cifar_100(conv, widths):  # section 3.5
    for iterations, filters in widths.items():
        options = ThriftyNetOptions(n_params=600_000, iterations=iterations, conv=conv)
        assert options.resolve(CIFAR, 100).filters == filters


@pytest.mark.parametrize(
    ("iterations", "history", "filters", "mmacs"),
    [
        *((10, 5, 181, 94.8), (15, 5, 176, 134.7), (20, 5, 172, 171.7)),  # section 1.5
        *((30, 5, 163, 232.1), (40, 5, 155, 280.8), (50, 5, 148, 321.0)),
        *((20, 5, f, m) for f, m in zip(FIGURE_SIZE, (7.5, 26, 56, 97, 149, 213, 373), strict=True)),  # section 3.1
        *((30, 5, f, m) for f, m in zip(FIGURE_SIZE, (11, 39, 84, 146, 224, 319, 559), strict=True)),
        *((40, 5, f, m) for f, m in zip(FIGURE_SIZE, (15, 52, 112, 194, 299, 425, 746), strict=True)),
    ],
)
def test_macs_of_the_sheet(iterations, history, filters, mmacs):
    options = ThriftyNetOptions(filters=filters, iterations=iterations, history=history)
    digits = 1 if isinstance(mmacs, float) else 0
    assert round(options.cost(CIFAR, 10).ptflops_macs / 1e6, digits) == mmacs


@pytest.mark.parametrize(
    ("period", "pools", "mmacs"),  # sections 1.7 and 3.4: T = 30 under 40K
    [
        (40, (), 871),
        (15, (14, 29), 545),
        (10, (9, 19, 29), 381),
        (7, (6, 13, 20, 27), 270),
        (6, (5, 11, 17, 23, 29), 232),
    ],
)
def test_downsampling_figure(period, pools, mmacs):
    options = ThriftyNetOptions(filters=163, iterations=30, pool=period)
    assert options.pools == pools
    cost = options.cost(CIFAR, 10)
    assert (cost.parameters, round(cost.ptflops_macs / 1e6)) == (39636, mmacs)
    assert options.sizes(CIFAR)[-1] == (32 >> len(pools), 32 >> len(pools))


def test_block_candidate_has_548820_parameters():  # section 1.8
    options = BlockThriftyNetOptions()
    assert options.cost(CIFAR, 100).parameters == parameters(options.build(CIFAR, 100)) == 548_820


# --- the unrolled twin ------------------------------------------------------------------------------------------------


def dense_kernel(mode, weights):
    """One ordinary (f, f, 3, 3) kernel that does what the grouped and pointwise kernels do."""
    if mode == "classic":
        return weights[0]
    grouped, pointwise = weights
    narrow, k = grouped.shape[:2]
    spread = torch.zeros(narrow, narrow * k, 3, 3, dtype=grouped.dtype)
    for j in range(narrow):
        spread[j, j * k : (j + 1) * k] = grouped[j]
    return torch.einsum("oj,jixy->oixy", pointwise[:, :, 0, 0], spread)


def halve(x):
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    return x[:, :, : 2 * rows, : 2 * columns].unflatten(2, (rows, 2)).unflatten(4, (columns, 2)).amax((3, 5))


def twin_logits(options, images, kernels, alpha, gammas, betas, linear):
    """The paper's equations: every state kept by its time; a kernel, gamma and beta for each iteration."""
    f, h = options.filters, options.history
    padding = images.new_zeros(len(images), f - images.shape[1], *images.shape[2:])
    x = {0: torch.cat([images, padding], dim=1)}
    for t in range(options.iterations):
        activated = torch.tanh(F.conv2d(x[t], dense_kernel(options.conv, kernels[t]), padding=1))
        if options.recursion == "plain":
            z = activated + x[t]
        else:
            z = alpha[t, 0] * activated
            for i in range(1, h + 1):
                never_filled = options.history_bug and h >= 2 and i == 1
                if t - h + i >= 0 and not never_filled:
                    z = z + alpha[t, i] * x[t - h + i]
        mean, variance = z.mean((0, 2, 3), keepdim=True), z.var((0, 2, 3), unbiased=False, keepdim=True)
        z = (z - mean) / torch.sqrt(variance + 1e-5)
        x[t + 1] = z * gammas[t].reshape(1, f, 1, 1) + betas[t].reshape(1, f, 1, 1)
        period = options.pool
        if period == (1, 4) and t in (1, 4) or isinstance(period, int) and t % period == period - 1:
            x = {time: halve(state) for time, state in x.items()}
    last = x[options.iterations]
    features = last.flatten(2).max(2).values if options.head == "max" else last.flatten(1)
    return features @ linear[0].T + linear[1]


def assert_same_as_twin(options, shape=(3, 9, 8)):
    torch.manual_seed(0)
    network = options.build(shape, 5).double()
    if options.alpha_init == "main" and network.alpha is not None:
        with torch.no_grad():
            network.alpha += 0.2 * torch.randn_like(network.alpha)  # no coefficient may stay 0
    if options.norm_affine:
        for norm in network.norms:
            nn.init.normal_(norm.weight, 1, 0.2)
            nn.init.normal_(norm.bias, 0, 0.2)
    images, target = torch.randn(4, *shape, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)

    def copies(modules):
        """For each iteration, copies of the weights of its module."""
        chosen = [modules[t if len(modules) > 1 else 0] for t in range(options.iterations)]
        return [[p.detach().clone().requires_grad_() for p in module.parameters()] for module in chosen]

    kernels = copies(network.convs)
    norms = copies(network.norms)
    if not options.norm_affine:
        norms = [[torch.ones(options.filters).double(), torch.zeros(options.filters).double()] for _ in norms]
    alpha = None if network.alpha is None else network.alpha.detach().clone().requires_grad_()
    linear = [p.detach().clone().requires_grad_() for p in network.head.parameters()]

    ours = network(images)
    twins = twin_logits(options, images, kernels, alpha, *zip(*norms, strict=True), linear)
    torch.testing.assert_close(ours, twins, rtol=1e-9, atol=1e-9)

    (ours * target).sum().backward()
    (twins * target).sum().backward()

    def assert_gradient(ours, twins):
        zero = torch.zeros_like(ours)
        total = sum((zero if twin.grad is None else twin.grad for twin in twins), start=zero)
        torch.testing.assert_close(zero if ours.grad is None else ours.grad, total, rtol=1e-7, atol=1e-9)

    def assert_gradients(modules, unrolled):
        for m, module in enumerate(modules):
            uses = unrolled if len(modules) == 1 else [unrolled[m]]  # a shared weight's gradient sums over its uses
            for position, parameter in enumerate(module.parameters()):
                assert_gradient(parameter, [copy[position] for copy in uses])

    assert_gradients(network.convs, kernels)
    assert_gradients(network.norms, norms)
    assert_gradients([network.head], [linear])
    if alpha is not None:
        assert_gradient(network.alpha, [alpha])
    assert any(p.grad.abs().max() > 1e-6 for p in network.convs.parameters())  # the comparison is not of zeros


@pytest.mark.parametrize("pool", [None, 2, (1, 4)], ids=str)
@pytest.mark.parametrize("conv", ["classic", "mb1", "mb2", "mb4"])
@pytest.mark.parametrize("bug", [False, True], ids=["fixed", "bug"])
@pytest.mark.parametrize("alpha_main", ["oldest", "newest"])
@pytest.mark.parametrize("history", [1, 2, 3, 4, 5])
def test_augmented_recursion_equals_twin(history, alpha_main, bug, conv, pool):
    options = ThriftyNetOptions(
        filters=8, iterations=6, history=history, alpha_main=alpha_main, history_bug=bug, conv=conv, pool=pool
    )
    assert_same_as_twin(options)


@pytest.mark.parametrize("pool", [None, 2, (1, 4)], ids=str)
@pytest.mark.parametrize("conv", ["classic", "mb1", "mb2", "mb4"])
def test_plain_recursion_equals_twin(conv, pool):
    assert_same_as_twin(ThriftyNetOptions(filters=8, iterations=6, recursion="plain", conv=conv, pool=pool))


@pytest.mark.parametrize(
    "given",
    [
        {"shared": False},
        {"shared": False, "recursion": "plain"},
        {"shared": False, "history": 3},
        {"norm": "shared"},
        {"norm_affine": False},
        {"norm": "shared", "norm_affine": False},
        {"head": "flatten"},
        {"alpha_init": "half"},
        {"alpha_init": "one"},
        {"history": 9},
    ],
    ids=str,
)
def test_other_options_equal_twin(given):
    assert_same_as_twin(ThriftyNetOptions(filters=8, iterations=6, pool=3, **given))


# --- details ----------------------------------------------------------------------------------------------------------


def test_initial_coefficients():
    def alpha(**given):
        return ThriftyNetOptions(filters=4, iterations=5, **given).build(CIFAR, 10).alpha.detach()

    for history in (1, 5):
        oldest, newest = alpha(history=history), alpha(history=history, alpha_main="newest")
        assert oldest.shape == (5, history + 1)
        assert (oldest[:, 0] == 0.1).all()
        assert (oldest[:, 1] == 0.9).all()
        assert (newest[:, -1] == 0.9).all()
        assert torch.allclose(oldest.sum(1), torch.ones(5))
        assert torch.allclose(newest.sum(1), torch.ones(5))
    assert (alpha(alpha_init="half") == 0.5).all()
    assert (alpha(alpha_init="one") == 1.0).all()
    assert alpha(shared=False).tolist() == [pytest.approx([0.1, 0.9])] * 5


@pytest.mark.parametrize("bug", [False, True])
def test_history_bug_leaves_the_oldest_slot_empty(bug):
    torch.manual_seed(0)
    network = ThriftyNetOptions(filters=8, iterations=10, pool=3, history_bug=bug).build((3, 16, 16), 10)
    nn.init.normal_(network.alpha)
    images = torch.randn(4, 3, 16, 16)
    before = network(images)
    before.square().sum().backward()
    used = network.alpha.grad[:, 1].abs() > 0
    # a[t,1] belongs to x_{t-4}, which exists from t = 4 on; with the bug it never does
    assert used.tolist() == ([False] * 10 if bug else [False] * 4 + [True] * 6)
    with torch.no_grad():
        network.alpha[:, 1] += 1
    assert torch.equal(network(images), before) == bug


@pytest.mark.parametrize(
    ("history", "bug", "kept"), [(1, False, 1), (1, True, 1), (2, True, 1), (5, False, 5), (5, True, 4)]
)
def test_recursion_goes_through_step_with_no_more_states_than_it_needs(history, bug, kept):
    network = ThriftyNetOptions(filters=4, iterations=8, history=history, history_bug=bug, pool=3).build(
        (3, 16, 16), 10
    )
    seen = []

    def step(t, states):
        seen.append((t, len(states), tuple(states[-1].shape)))
        assert len({state.shape for state in states}) == 1
        return ThriftyNet.step(network, t, states)

    network.step = step
    network(torch.randn(2, 3, 16, 16))
    sides = [16] * 3 + [8] * 3 + [4] * 2
    assert seen == [(t, min(t + 1, kept), (2, 4, side, side)) for t, side in enumerate(sides)]


def test_input_is_padded_with_zero_channels_after_the_images():
    network = ThriftyNetOptions(filters=5, iterations=1, pool=None).build((3, 4, 4), 10)
    seen = []
    network.step = lambda t, states: seen.append(states[0]) or states[0]
    images = torch.randn(2, 3, 4, 4)
    network(images)
    assert torch.equal(seen[0][:, :3], images)
    assert (seen[0][:, 3:] == 0).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name):
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    zero = torch.zeros_like(x)
    expected = {
        "tanh": (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
        "relu": x.maximum(zero),
        "leaky": torch.where(x > 0, x, 0.1 * x),
        "softplus": (1 + x.exp()).log(),
        "rrelu": torch.where(x > 0, x, (1 / 8 + 1 / 3) / 2 * x),
        "celu": torch.where(x > 0, x, x.exp() - 1),
        "tanhshrink": x - x.tanh(),
        "swish": x / (1 + (-x).exp()),
        "hswish": x * (x + 3).clamp(0, 6) / 6,
        "retanh": x * x.tanh(),
    }[name]
    network = ThriftyNetOptions(filters=4, iterations=1, activation=name).build(CIFAR, 10).eval()
    torch.testing.assert_close(network.activation(x), expected)


def test_channels_last_changes_nothing_but_the_layout():
    torch.manual_seed(0)
    network = ThriftyNetOptions(filters=8, iterations=5).build(CIFAR, 10)
    images = torch.randn(4, *CIFAR)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    layouts = []
    inner = network.step

    def step(t, states):
        layouts.extend(state.is_contiguous(memory_format=torch.channels_last) for state in states)
        return inner(t, states)

    network.step = step
    torch.testing.assert_close(network(images.to(memory_format=torch.channels_last)), expected, rtol=1e-4, atol=1e-4)
    assert all(layouts)


def test_bf16_autocast_keeps_batch_norm_statistics_in_fp32():
    torch.manual_seed(0)
    network = ThriftyNetOptions(filters=16, iterations=5, history=2).build(CIFAR, 10)
    images = torch.randn(8, *CIFAR)
    expected = network(images)
    dtypes = set()
    network.norms[-1].register_forward_hook(lambda norm, inputs, output: dtypes.add(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(images.bfloat16())
    assert dtypes == {torch.bfloat16}  # images in bf16 keep every map in bf16
    assert {buffer.dtype for name, buffer in network.named_buffers() if "running" in name} == {torch.float32}
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)
    logits.sum().backward()
    assert {p.grad.dtype for p in network.parameters()} == {torch.float32}


def test_shared_parts_are_stored_once():
    network = ThriftyNetOptions(filters=4, iterations=6, norm="shared").build(CIFAR, 10)
    assert (len(network.convs), len(network.norms)) == (1, 1)
    control = ThriftyNetOptions(filters=4, iterations=6, shared=False).build(CIFAR, 10)
    assert (len(control.convs), len(control.norms)) == (6, 6)


def test_blocks_in_series_equal_their_parts_with_zero_channels_between():
    torch.manual_seed(0)
    options = BlockThriftyNetOptions(filters=(4, 6), iterations=(4, 3), pool=(2, None), head="max")
    network = options.build(CIFAR, 7).eval()
    first, second, head = network
    images = torch.randn(2, *CIFAR)
    middle = first(images)
    assert middle.shape == (2, 4, 8, 8)
    last = second(torch.cat([middle, torch.zeros(2, 2, 8, 8)], dim=1))
    torch.testing.assert_close(network(images), F.linear(last.flatten(2).max(2).values, head[1].weight, head[1].bias))


def test_embedded_network_hands_128_channels_at_half_size_to_the_recursion():
    options = EmbeddedThriftyNetOptions(n_params=1_100_000).resolve(CIFAR, 100)
    network = options.build(CIFAR, 100)
    assert network[:5](torch.randn(1, *CIFAR)).shape == (1, 128, 16, 16)
    assert network(torch.randn(2, *CIFAR)).shape == (2, 100)
    assert options.cost(CIFAR, 100).parameters <= 1_100_000
    assert options.model_copy(update={"filters": options.filters + 1}).cost(CIFAR, 100).parameters > 1_100_000


# --- defaults and mistakes --------------------------------------------------------------------------------------------


def test_defaults_are_the_authors_last_and_follow_what_is_given():
    assert ThriftyNetOptions().model_dump() == {
        **{"filters": 128, "n_params": None, "iterations": 20, "history": 5, "recursion": "augmented"},
        **{"alpha_main": "oldest", "alpha_init": "main", "history_bug": False, "conv": "mb1", "activation": "tanh"},
        **{"pool": 4, "norm": "separate", "norm_affine": True, "head": "max", "shared": True},
    }
    assert ThriftyNetOptions(filters=None, n_params=None).filters == 128
    assert ThriftyNetOptions(iterations=30).pool == 6
    assert [ThriftyNetOptions(iterations=t).pool for t in (1, 5, 6, 14, 15)] == [1, 1, 2, 3, 3]
    assert ThriftyNetOptions(pool=None).pools == ()
    assert ThriftyNetOptions(recursion="plain").history == ThriftyNetOptions(shared=False).history == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pool": 0}, "pool = 0: must be a period >= 1, a rising list of iterations from 0 to 19, or None"),
        ({"pool": [3, 20]}, "pool = [3, 20]: must be a period >= 1, a rising list of iterations from 0 to 19, or None"),
        ({"pool": [-1]}, "pool = [-1]: must be a period"),
        ({"pool": [7, 3]}, "pool = [7, 3]: must be a period"),
        ({"pool": [3, 3]}, "pool = [3, 3]: must be a period"),
        ({"pool": []}, "pool = []: must be a period"),
        ({"pool": "4"}, "pool = '4': must be a period"),
        ({"pool": True}, "pool = True: must be a period"),
        ({"pool": [99], "iterations": 0}, "iterations = 0: should be greater than or equal to 1"),
        ({"history": 0}, "history = 0: should be greater than or equal to 1"),
        ({"filters": 0}, "filters = 0: should be greater than or equal to 1"),
        ({"n_params": 0}, "n_params = 0: should be greater than or equal to 1"),
        ({"filters": 8, "n_params": 9}, "filters = 8 and n_params = 9: give only one of them"),
        ({"conv": "mb2", "filters": 7}, "filters = 7: must be a multiple of 2 for conv mb2"),
        ({"conv": "mb4", "filters": 6}, "filters = 6: must be a multiple of 4 for conv mb4"),
        ({"conv": "mb3"}, "conv = 'mb3': should be 'classic', 'mb1', 'mb2' or 'mb4'"),
        ({"activation": "sigmoid"}, "activation = 'sigmoid': should be 'tanh', 'relu'"),
        ({"recursion": "plain", "history": 5}, "history = 5: must be 1 for recursion = 'plain'"),
        ({"recursion": "plain", "history_bug": True}, "history_bug = True: must be False for recursion = 'plain'"),
        ({"recursion": "plain", "alpha_init": "one"}, "alpha_init = 'one': must be 'main' for recursion = 'plain'"),
        ({"iterations": 20.0}, "iterations = 20.0: should be a valid integer"),
        ({"filter": 8}, "unknown key 'filter'; did you mean 'filters'?"),
    ],
    ids=str,
)
def test_impossible_options_are_named(given, message):
    with pytest.raises(SpecError) as caught:
        ThriftyNetOptions(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"filters": 2}, "filters = 2: must be at least 3, the channels of the input"),
        ({"n_params": 500}, "n_params = 500: must be at least 556, the count with 3 filters"),
        ({"n_params": 1, "conv": "mb4"}, "n_params = 1: must be at least 650, the count with 4 filters"),
        ({"filters": 8, "pool": 1}, "pool = 1: iteration 3 meets a 1x1 map, needs 2x2 or more"),
        ({"filters": 8, "pool": [2, 5, 9, 11]}, "pool = (2, 5, 9, 11): iteration 11 meets a 1x1 map"),
        ({"n_params": 40_000, "pool": 1}, "pool = 1: iteration 3 meets a 1x1 map"),
    ],
    ids=str,
)
@pytest.mark.parametrize("method", ["resolve", "cost", "build"])
def test_networks_that_such_images_do_not_allow(given, message, method):
    with pytest.raises(SpecError) as caught:
        getattr(ThriftyNetOptions(iterations=40, **{"pool": None, **given}), method)((3, 8, 8), 10)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"filters": (8,)}, "must each have 1 entries, as filters = (8,) has"),
        ({"iterations": (30, 20)}, "block 1: pool = (14, 29): must be a period"),
        ({"filters": (0, 8)}, "block 0: ThriftyNetOptions.filters = 0: should be greater than or equal to 1"),
    ],
    ids=str,
)
def test_impossible_blocks_are_named(given, message):
    with pytest.raises(SpecError) as caught:
        BlockThriftyNetOptions(**given)
    assert message in str(caught.value)


def test_blocks_that_such_images_do_not_allow():
    with pytest.raises(SpecError, match="block 1: filters = 8: must be at least 16"):
        BlockThriftyNetOptions(filters=(16, 8)).build(CIFAR, 10)
    with pytest.raises(SpecError, match="block 1: pool = 2: iteration 7 meets a 1x1 map"):
        BlockThriftyNetOptions(pool=((14, 29), 2)).cost(CIFAR, 10)
    with pytest.raises(SpecError, match="filters = 64: must be at least 128, the channels of the input"):
        EmbeddedThriftyNetOptions(filters=64).build(CIFAR, 10)
    with pytest.raises(SpecError, match="n_params = 300000: must be at least .*, the count with 128 filters"):
        EmbeddedThriftyNetOptions(n_params=300_000).build(CIFAR, 10)


# --- properties -------------------------------------------------------------------------------------------------------


@st.composite
def possible_options(draw):
    """Options that (3, 8..20, 8..20) images allow: at most three pools."""
    iterations = draw(st.integers(1, 7))
    given = {"iterations": iterations, "recursion": draw(st.sampled_from(["augmented", "plain"]))}
    given["shared"] = draw(st.booleans())
    if given["recursion"] == "augmented":
        given |= {"history": draw(st.integers(1, 6)), "history_bug": draw(st.booleans())}
        given |= {"alpha_init": draw(st.sampled_from(["main", "half", "one"]))}
    given["conv"] = draw(st.sampled_from(["classic", "mb1", "mb2", "mb4"]))
    given["filters"] = 4 * draw(st.integers(1, 4))
    given["pool"] = draw(
        st.none()
        | st.integers(max(1, iterations // 3), 9).filter(lambda p: iterations // p <= 3)
        | st.lists(st.integers(0, iterations - 1), min_size=1, max_size=3, unique=True).map(sorted)
    )
    given["norm"] = draw(st.sampled_from(["separate", "shared"]))
    given["norm_affine"] = draw(st.booleans())
    given["head"] = draw(st.sampled_from(["max", "flatten"]))
    given["activation"] = draw(st.sampled_from(sorted(ACTIVATIONS)))
    return given


@settings(max_examples=60, deadline=None)
@given(possible_options(), st.integers(8, 20), st.integers(8, 20), st.integers(1, 3), st.integers(1, 11))
def test_possible_options_build_and_match_the_formula(given, height, width, channels, classes):
    options = ThriftyNetOptions(**given)
    assert find(NetworkOptions, "thriftynet").model_validate_json(options.model_dump_json()) == options
    shape = (channels, height, width)
    network = options.build(shape, classes)
    f, iterations, k = options.filters, options.iterations, options.reduction
    conv = 9 * f * f if options.conv == "classic" else 9 * f + f * f // k
    features = f if options.head == "max" else f * math.prod(options.sizes(shape)[-1])
    expected = (
        conv * (1 if options.shared else iterations)
        + 2 * f * options.norm_affine * (1 if options.norm == "shared" else iterations)
        + iterations * (options.history + 1) * (options.recursion == "augmented")
        + classes * features
        + classes
    )
    assert options.cost(shape, classes).parameters == parameters(network) == expected
    assert network(torch.randn(2, *shape)).shape == (2, classes)


@settings(max_examples=40, deadline=None)
@given(st.integers(1000, 300_000), st.sampled_from(["classic", "mb1", "mb2", "mb4"]), st.integers(1, 12))
def test_budget_is_used_as_far_as_it_goes(budget, conv, iterations):
    options = ThriftyNetOptions(n_params=budget, conv=conv, iterations=iterations, pool=None).resolve(CIFAR, 10)
    wider = options.model_copy(update={"filters": options.filters + options.reduction})
    assert options.cost(CIFAR, 10).parameters <= budget < wider.cost(CIFAR, 10).parameters
