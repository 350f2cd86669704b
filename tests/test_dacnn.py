"""DACNN: the counts of the paper's table, the network against an unrolled twin, options, mistakes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thriftylib.errors import SpecError
from thriftylib.options import NetworkOptions, find
from thriftylib.papers.dacnn import POOLS, DacnnOptions, DacnnSmallOptions
from thriftylib.papers.expandnets import ExpandNetsOptions
from thriftylib.papers.networks import ResNet18Options, ResNet34Options, Vgg16BnOptions
from thriftylib.papers.networks_parts import uniform_norms

CIFAR = (3, 32, 32)
MIX = {"vgg": (4, 5, 6, 8, 8), "resnet": (4, 5, 6, 8)}


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


# --- counts -----------------------------------------------------------------------------------------------------------

TABLE = [  # options, kernels and linear layer with 100 classes, all with 100 classes, all with 10; None: not tabulated
    ({"order": "conv-relu-bn"}, 163_812, 167_396, 155_786),  # as released: with biases
    ({}, 163_812, None, None),
    ({"depth": 18}, 163_812, 168_164, 156_554),
    ({"depth": 34}, 163_812, None, None),
    ({"depth": 18, "regulators": "depth"}, 458_724, 463_076, 451_466),
    ({"depth": 24, "regulators": "depth"}, 557_028, None, None),
    ({"depth": 34, "regulators": "depth"}, 720_868, 729_316, 717_706),
    ({"sharing": "mix"}, 4_734_756, 4_745_124, 4_698_954),
    ({"sharing": "mix", "bare_fifth": True}, 4_734_756, 4_744_100, 4_697_930),  # as released: a batch norm less
    ({"depth": 18, "sharing": "mix"}, 4_906_788, None, None),
    ({"depth": 34, "sharing": "mix"}, 4_906_788, 4_925_668, 4_879_498),
    ({"depth": 18, "sharing": "mix", "regulators": "per-block"}, 5_603_108, 5_614_564, 5_568_394),
    ({"depth": 34, "sharing": "mix", "regulators": "per-block"}, 6_164_260, 6_183_140, 6_136_970),
]


@pytest.mark.parametrize(("given", "kernels", "of_100", "of_10"), TABLE, ids=str)
def test_counts_of_the_table(given, kernels, of_100, of_10):
    options = DacnnOptions(**given)
    cost = options.cost(CIFAR, 100)
    assert cost.kernel_parameters == kernels
    assert cost.parameters == parameters(options.build(CIFAR, 100))
    if of_100 is not None:
        assert (cost.parameters, options.cost(CIFAR, 10).parameters) == (of_100, of_10)


@pytest.mark.parametrize(("depth", "norms"), [(14, 13), (18, 17), (24, 23), (34, 33)])
@pytest.mark.parametrize(("width", "classes"), [(128, 100), (7, 3)])
def test_formula_of_plain_nets(depth, norms, width, classes):
    formula = 27 * width + 9 * width**2 + 2 * width * norms + width * classes + classes
    options = DacnnOptions(depth=depth, width=width)
    assert options.cost(CIFAR, classes).parameters == parameters(options.build(CIFAR, classes)) == formula


@pytest.mark.parametrize(
    ("regulators", "counts"),
    [("none", {}), ("per-block", {18: 8, 34: 16}), ("two-per-block", {18: 16, 34: 32})]
    + [("per-layer", {18: 17, 34: 33}), ("depth", {18: 18, 24: 24, 34: 34})],
)
def test_number_of_regulators(regulators, counts):
    for depth, count in counts.items():
        plain = DacnnOptions(depth=depth).cost(CIFAR, 100).parameters
        regulated = DacnnOptions(depth=depth, regulators=regulators).cost(CIFAR, 100).parameters
        assert regulated == plain + count * 128**2


@pytest.mark.parametrize(("depth", "uses"), [(14, 12), (18, 16), (24, 22), (34, 32)])
def test_the_trunk_shrinks_by_the_number_of_layers_that_use_its_kernel(depth, uses):
    shared, twin = (DacnnOptions(depth=depth, shared=flag).cost(CIFAR, 10) for flag in (True, False))
    assert shared.part("trunk conv").parameters == 9 * 128**2
    assert twin.part("trunk conv").parameters == uses * shared.part("trunk conv").parameters
    assert twin.part("trunk conv").weight_bytes() == uses * shared.part("trunk conv").weight_bytes()
    assert twin.parameters - shared.parameters == (uses - 1) * 9 * 128**2  # and nothing else differs
    assert (twin.macs, twin.activation_bytes()) == (shared.macs, shared.activation_bytes())


def test_mix_without_sharing_has_the_kernels_of_the_ordinary_networks():
    def counts(options):
        cost = options.cost(CIFAR, 100)
        return cost.kernel_parameters, cost.parameters

    assert counts(DacnnOptions(sharing="mix", shared=False)) == counts(Vgg16BnOptions())
    for depth, ordinary in ((18, ResNet18Options()), (34, ResNet34Options())):
        assert counts(DacnnOptions(depth=depth, sharing="mix", shared=False, bias=False)) == counts(ordinary)


# --- structure --------------------------------------------------------------------------------------------------------


def layers(**given):
    return DacnnOptions(**given).layers(CIFAR)


def test_plain_layouts():
    fourteen = layers()
    assert [layer.kernel for layer in fourteen] == [0] + [1] * 12
    assert [i for i, layer in enumerate(fourteen, start=1) if layer.pool] == [2, 4, 7, 10, 13]
    assert [layer.size[0] for layer in fourteen] == [32] * 2 + [16] * 2 + [8] * 3 + [4] * 3 + [2] * 3
    for depth, blocks in ((18, [2, 2, 2, 2]), (24, [2, 3, 4, 2]), (34, [3, 4, 6, 3])):
        plain = layers(depth=depth)
        assert [layer.kernel for layer in plain] == [0] + [1] * (depth - 2)
        sides = [32] + [side for side, count in zip((32, 16, 8, 4), blocks, strict=True) for _ in range(2 * count)]
        assert [layer.size for layer in plain] == [(side, side) for side in sides]
        assert plain[-1].pool
        assert not any(layer.shortcut for layer in plain)
    other = [layer.size[0] for layer in layers(depth=24, blocks=[3, 3, 3, 2])]
    assert [other.count(side) for side in (32, 16, 8, 4)] == [7, 6, 6, 4]


def test_mix_layouts():
    vgg = layers(sharing="mix")
    assert [layer.kernel for layer in vgg] == [0, 1, 2, 3, 4, 5, 5, 6, 7, 7, 7, 7, 7]
    assert [layer.outputs for layer in vgg] == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    assert all(layer.bias for layer in vgg)
    resnet = layers(depth=18, sharing="mix")
    assert [layer.kernel for layer in resnet] == [0, 1, 1, 1, 1, 2, 3, 3, 3, 4, 5, 5, 5, 6, 7, 7, 7]
    assert [i for i, layer in enumerate(resnet) if layer.shortcut] == [5, 9, 13]  # where a kernel of its own expands
    assert [layer.bias for layer in resnet] == [False] + [True] * 16


def test_places_of_regulators():
    def regulated(kind):
        return [i for i, layer in enumerate(layers(depth=18, regulators=kind)) if layer.regulator]

    assert regulated("none") == []
    assert regulated("per-block") == list(range(2, 17, 2))  # the second convolution's of each block; 0 is the stem
    assert regulated("two-per-block") == list(range(1, 17))
    assert regulated("per-layer") == regulated("depth") == list(range(17))


def test_shared_parts_are_stored_once():
    def stored(**given):
        network = DacnnOptions(depth=18, width=4, **given).build(CIFAR, 10)
        return len(network.convs), len(network.norms), parameters(network.norms) + parameters(network.affine)

    assert stored() == (2, 17, 2 * 4 * 17)
    assert stored(norm="affine") == (2, 17, 2 * 4 * 2)
    assert stored(norm="shared") == (2, 2, 2 * 4 * 2)
    assert stored(shared=False) == (17, 17, 2 * 4 * 17)
    rgb = DacnnOptions(width=3).build(CIFAR, 10)  # the stem has the trunk's shape, and still its own kernel
    assert len(rgb.convs) == 2


def test_shared_affine_map_has_statistics_of_each_use():
    torch.manual_seed(0)
    network = DacnnOptions(depth=18, width=4, norm="affine").build(CIFAR, 10)
    network(torch.randn(8, *CIFAR))
    means = torch.stack([norm.running_mean for norm in network.norms])
    assert len({tuple(mean.tolist()) for mean in means}) == 17
    assert means.abs().amax(1).min() > 0


def test_start_is_pytorchs_default():
    torch.manual_seed(0)
    network = DacnnOptions(depth=18, regulators="per-layer").build(CIFAR, 10)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            bound = module.weight[0].numel() ** -0.5
            assert 0.97 * bound < module.weight.abs().max() <= bound


# --- against the unrolled twin ----------------------------------------------------------------------------------------


def normalised(x, affine):
    """Batch norm in training, from its definition."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    weight, bias = (number.reshape(1, -1, 1, 1) for number in affine)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def rotated(x, by):
    return torch.cat([x[:, -by:], x[:, :-by]], dim=1)


def halved(x):
    rows, columns = x.shape[2] // 2, x.shape[3] // 2
    return x[:, :, : 2 * rows, : 2 * columns].unflatten(2, (rows, 2)).unflatten(4, (columns, 2)).amax((3, 5))


def twin_logits(x, own, *, ends, residual, relu_first=False, swap=False):
    """The equations, a kernel and an affine map for each use; ``ends``: the uses after which maps are halved."""

    def conv_norm(i, x):
        x = F.conv2d(x, *own["conv", i], padding=1)
        x = rotated(x, 1) if swap else x
        x = normalised(x.clamp(min=0) if relu_first else x, own["affine", i])
        if ("regulator", i) in own:
            x = torch.einsum("nchw,oc->nohw", x, own["regulator", i][0][:, :, 0, 0])
        return x

    def relu(x):
        return x.clamp(min=0)

    count = sum(kind == "conv" for kind, _ in own)
    if residual:
        x = relu(conv_norm(0, x))
        for i in range(1, count, 2):
            around = x
            if ("shortcut", i) in own:
                kernel, *affine = own["shortcut", i]
                around = normalised(torch.einsum("nchw,oc->nohw", x, kernel[:, :, 0, 0]), affine)
            around = rotated(around, 2) if swap else around
            x = relu(conv_norm(i + 1, relu(conv_norm(i, x))) + around)
            x = halved(x) if i + 1 in ends else x
    else:
        for i in range(count):
            x = conv_norm(i, x)
            x = x if relu_first else relu(x)
            x = halved(x) if i in ends else x
    x = x.mean((2, 3))
    if ("regulator", "head") in own:
        x = x @ own["regulator", "head"][0][:, :, 0, 0].T
    weight, bias = own["linear", 0]
    return x @ weight.T + bias


def assert_same_as_twin(options, kernels, ends, shape, **twin):
    """``kernels``: for each use the kernel it should have, by number in the order of first use."""
    torch.manual_seed(0)
    network = options.build(shape, 5).double()
    for parameter in network.parameters():  # no affine map may stay 1 and 0
        nn.init.normal_(parameter, 0, 0.5 if parameter.dim() < 4 else parameter[0].numel() ** -0.5)
    images, target = torch.randn(4, *shape, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)

    theirs = {("linear", 0): list(network.head[-1].parameters())}
    for i, kernel in enumerate(kernels):
        theirs["conv", i] = list(network.convs[kernel].parameters())
        if options.norm == "affine":
            theirs["affine", i] = list(network.affine[kernel])
        else:
            theirs["affine", i] = list(network.norms[kernel if options.norm == "shared" else i].parameters())
    for key, module in network.regulators.items():
        theirs["regulator", int(key)] = list(module.parameters())
    for key, module in network.shortcuts.items():
        theirs["shortcut", int(key)] = list(module.parameters())
    if isinstance(network.head[1], nn.Conv2d):
        theirs["regulator", "head"] = list(network.head[1].parameters())
    own = {key: [p.detach().clone().requires_grad_() for p in parts] for key, parts in theirs.items()}

    ours = network(images)
    twins = twin_logits(images, own, ends=ends, **twin)
    torch.testing.assert_close(ours, twins, rtol=1e-9, atol=1e-9)

    (ours * target).sum().backward()
    (twins * target).sum().backward()
    sums = {parameter: torch.zeros_like(parameter) for parameter in network.parameters()}
    for key, parts in theirs.items():
        for parameter, copy in zip(parts, own[key], strict=True):
            sums[parameter] += copy.grad
    for parameter, total in sums.items():  # a shared weight's gradient sums over its uses
        torch.testing.assert_close(parameter.grad, total, rtol=1e-7, atol=1e-9)
        if parameter.dim() == 4:
            assert total.abs().max() > 1e-6  # the comparison is not of zeros


PLAIN = {14: [0] + [1] * 12, 18: [0] + [1] * 16, 24: [0] + [1] * 22, 34: [0] + [1] * 32}
MIXED = {14: [0, 1, 2, 3, 4, 5, 5, 6, 7, 7, 7, 7, 7], 18: [0] + [1] * 4 + [2] + [3] * 3 + [4] + [5] * 3 + [6] + [7] * 3}
ENDS = {14: (1, 3, 6, 9, 12), 18: (4, 8, 12, 16), 24: (4, 10, 18, 22), 34: (6, 14, 26, 32)}


@pytest.mark.parametrize("sharing", ["plain", "mix"])
@pytest.mark.parametrize("order", ["conv-bn-relu", "conv-relu-bn"])
@pytest.mark.parametrize("norm", ["free", "affine", "shared", "own kernels"])
def test_vgg_layout_equals_twin(sharing, order, norm):
    shared = norm != "own kernels"
    width = 4 if sharing == "plain" else MIX["vgg"]
    options = DacnnOptions(
        **{"sharing": sharing, "width": width, "order": order, "shared": shared, "norm": norm if shared else "free"},
        pools=4,
    )
    kernels = (PLAIN if sharing == "plain" else MIXED)[14] if shared else range(13)
    assert_same_as_twin(options, kernels, ENDS[14][:4], (3, 17, 16), residual=False, relu_first=order == "conv-relu-bn")


@pytest.mark.parametrize("sharing", ["plain", "mix"])
@pytest.mark.parametrize("norm", ["free", "affine", "shared", "own kernels"])
@pytest.mark.parametrize(
    "given",
    [{}, {"swap": True}, {"bias": True}]
    + [{"regulators": kind} for kind in ("per-block", "two-per-block", "per-layer", "depth")]
    + [{"regulators": "per-layer", "swap": True}],
    ids=str,
)
def test_resnet_layout_equals_twin(sharing, norm, given):
    shared = norm != "own kernels"
    width = 4 if sharing == "plain" else MIX["resnet"]
    options = DacnnOptions(
        **{"depth": 18, "sharing": sharing, "width": width, "shared": shared, "norm": norm if shared else "free"},
        **given,
    )
    kernels = (PLAIN if sharing == "plain" else MIXED)[18] if shared else range(17)
    assert_same_as_twin(options, kernels, ENDS[18], (3, 17, 16), residual=True, swap="swap" in given)


@pytest.mark.parametrize("depth", [24, 34])
def test_deeper_resnet_layouts_equal_twin(depth):
    options = DacnnOptions(depth=depth, width=4, regulators="per-block")
    assert_same_as_twin(options, PLAIN[depth], ENDS[depth], (3, 16, 16), residual=True)


@pytest.mark.parametrize("count", POOLS)
@pytest.mark.parametrize("norm", ["free", "affine", "shared", "own kernels"])
def test_small_nets_equal_twin(count, norm):
    shared = norm != "own kernels"
    options = DacnnSmallOptions(layers=count, width=4, shared=shared, norm=norm if shared else "free")
    after_body_convs = {3: (1, 2), 5: (1, 2, 3, 4), 7: (1, 2, 4, 6), 9: (2, 4, 6, 8), 11: (2, 4, 7, 10)}[count]
    kernels = [0] + [1] * (count - 1) if shared else range(count)
    assert_same_as_twin(options, kernels, after_body_convs, (3, 17, 16), residual=False)


# --- DACNN14(MIX) as its file was released ---


def released_mix(images, convs, affines, linear):
    """The file's order, written out: the second block of 512 channels begins with a convolution and nothing else."""

    def conv(x, kernel):
        return F.conv2d(x, *convs[kernel], padding=1)

    def norm_relu(x, i):
        return F.batch_norm(x, None, None, *affines[i], training=True).relu()

    x = norm_relu(conv(images, 0), 0)
    x = F.max_pool2d(norm_relu(conv(x, 1), 1), 2)
    x = norm_relu(conv(x, 2), 2)
    x = F.max_pool2d(norm_relu(conv(x, 3), 3), 2)
    x = norm_relu(conv(x, 4), 4)  # widens
    x = norm_relu(conv(x, 5), 5)
    x = F.max_pool2d(norm_relu(conv(x, 5), 6), 2)
    x = norm_relu(conv(x, 6), 7)  # widens
    x = norm_relu(conv(x, 7), 8)
    x = F.max_pool2d(norm_relu(conv(x, 7), 9), 2)
    x = conv(x, 7)
    x = norm_relu(conv(x, 7), 10)
    x = F.max_pool2d(norm_relu(conv(x, 7), 11), 2)
    return F.linear(x.mean((2, 3)), *linear)


def small_mix(**given):
    torch.manual_seed(0)
    options = DacnnOptions(**{"sharing": "mix", "width": MIX["vgg"], "bare_fifth": True, **given})
    return options.build(CIFAR, 5).double()


def test_the_released_mix_has_no_norm_and_no_relu_after_the_fourth_pool():
    network, images = small_mix(), torch.randn(4, *CIFAR, dtype=torch.float64)
    for parameter in network.parameters():
        nn.init.normal_(parameter, 0, 0.5)
    norms = [list(norm.parameters()) for norm in network.norms if not isinstance(norm, nn.Identity)]
    assert len(norms) == 12
    reference = released_mix(
        images, [list(conv.parameters()) for conv in network.convs], norms, network.head[-1].parameters()
    )
    torch.testing.assert_close(network(images), reference, rtol=1e-9, atol=1e-9)
    with_norm = small_mix(bare_fifth=False)
    left = {name: value for name, value in network.state_dict().items() if not name.startswith("norms.10")}
    assert all(name.startswith("norms.10.") for name in with_norm.load_state_dict(left, strict=False).missing_keys)
    assert (with_norm(images) - reference).abs().max() > 0.1


@pytest.mark.parametrize("norm", ["free", "affine", "shared", "own kernels"])
def test_the_released_mix_is_counted_as_it_is_built(norm):
    shared = norm != "own kernels"
    given = {"sharing": "mix", "shared": shared, "norm": norm if shared else "free"}
    released, other = DacnnOptions(bare_fifth=True, **given), DacnnOptions(**given)
    cost = released.cost(CIFAR, 100)
    built = released.build(CIFAR, 100)
    assert cost.parameters == parameters(built)
    fewer = 1024 if norm in ("free", "own kernels") else 0  # a weight and a bias of 512 channels
    assert other.cost(CIFAR, 100).parameters - cost.parameters == fewer
    assert cost.kernel_parameters == other.cost(CIFAR, 100).kernel_parameters
    assert cost.macs == other.cost(CIFAR, 100).macs
    assert other.cost(CIFAR, 100).ptflops_macs - cost.ptflops_macs == 2 * 512 * 2 * 2
    assert built(torch.randn(2, *CIFAR)).shape == (2, 100)


# --- how batch norms start ---

NORMED = [DacnnOptions(width=4), DacnnOptions(depth=18, width=4, norm="affine"), DacnnSmallOptions(width=4)]
NORMED += [Vgg16BnOptions(), ResNet18Options()]


def norm_weights(network):
    norms = [module.weight for module in network.modules() if isinstance(module, nn.BatchNorm2d) and module.affine]
    return torch.cat(norms + [weight for weight, _ in getattr(network, "affine", ())])


@pytest.mark.parametrize("options", NORMED, ids=lambda options: options.network)
def test_batch_norms_start_with_ones_or_between_0_and_1(options):
    ones = norm_weights(options.build(CIFAR, 10))
    assert torch.equal(ones, torch.ones_like(ones))
    other = type(options)(**{**options.model_dump(), "norm_init": "uniform"}).build(CIFAR, 10)
    weights = norm_weights(other)
    assert weights.shape == ones.shape
    assert 0 <= weights.min() < weights.max() <= 1
    assert 0.2 < weights.mean() < 0.8
    biases = [module.bias for module in other.modules() if isinstance(module, nn.BatchNorm2d) and module.affine]
    assert not any(bias.any() for bias in [*biases, *(bias for _, bias in getattr(other, "affine", ()))])


def test_expandnets_starts_batch_norms_by_the_same_draws():
    def weights(start):
        network = DacnnSmallOptions(width=4, shared=False).build(CIFAR, 10)
        torch.manual_seed(3)
        return norm_weights(start(network))

    method = ExpandNetsOptions(norm_start="uniform").start()
    assert torch.equal(weights(method.prepare), weights(uniform_norms))


def test_what_came_after_the_first_records_is_left_out_of_a_runs_text():
    for options in (DacnnOptions(sharing="mix"), *NORMED):
        assert not options.model_dump().keys() & {"norm_init", "bare_fifth"}
    later = DacnnOptions(sharing="mix", bare_fifth=True, norm_init="uniform").model_dump()
    assert (later["bare_fifth"], later["norm_init"]) == (True, "uniform")


# --- how it runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["free", "affine", "shared"])
def test_bf16_autocast_keeps_maps_in_bf16_and_statistics_in_fp32(norm):
    torch.manual_seed(0)
    network = DacnnOptions(depth=18, width=16, norm=norm, regulators="per-block").build(CIFAR, 10)
    images = torch.randn(8, *CIFAR)
    network.eval()
    expected = network(images)
    dtypes = set()
    for module in network.norms:
        module.register_forward_hook(lambda norm, inputs, output: dtypes.add(output.dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(network(images.bfloat16()).float(), expected, rtol=0.1, atol=0.1)
        network.train()(images.bfloat16()).sum().backward()
    assert dtypes == {torch.bfloat16}
    assert {buffer.dtype for name, buffer in network.named_buffers() if "running" in name} == {torch.float32}
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("given", [{}, {"depth": 18, "swap": True, "regulators": "per-block"}], ids=str)
def test_channels_last_changes_nothing_but_the_layout(given):
    torch.manual_seed(0)
    network = DacnnOptions(width=8, **given).build(CIFAR, 10)
    images = torch.randn(4, *CIFAR)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


# --- defaults and mistakes --------------------------------------------------------------------------------------------


def test_defaults_follow_what_is_given():
    assert DacnnOptions().model_dump() == {
        **{"depth": 14, "layout": "vgg", "sharing": "plain", "width": 128, "blocks": None, "regulators": "none"},
        **{"swap": False, "norm": "free", "order": "conv-bn-relu", "bias": False, "shared": True, "pools": 5},
    }
    mixed = DacnnOptions(depth=34, sharing="mix")
    assert (mixed.layout, mixed.width, mixed.blocks) == ("resnet", (64, 128, 256, 512), (3, 4, 6, 3))
    assert (mixed.bias, mixed.pools) == (True, 4)
    assert DacnnOptions(sharing="mix").width == (64, 128, 256, 512, 512)
    assert DacnnOptions(order="conv-relu-bn").bias
    assert [DacnnSmallOptions(layers=count).pools for count in POOLS] == [2, 4, 4, 4, 4]
    assert (DacnnSmallOptions().norm, DacnnSmallOptions(shared=False).norm) == ("shared", "free")


@pytest.mark.parametrize("given", [given for given, *_ in TABLE] + [{"shared": False}, {"swap": True, "depth": 24}])
def test_options_survive_json(given):
    options = DacnnOptions(**given)
    assert find(NetworkOptions, "dacnn").model_validate_json(options.model_dump_json()) == options
    assert DacnnOptions(**options.model_dump(mode="json")) == options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth": 16}, "DacnnOptions.depth = 16: should be 14, 18, 24 or 34"),
        ({"depth": 18, "layout": "vgg"}, "depth = 18: layout 'vgg' has 14, layout 'resnet' 18, 24 or 34"),
        ({"depth": 14, "layout": "resnet"}, "depth = 14: layout 'vgg' has 14, layout 'resnet' 18, 24 or 34"),
        ({"layout": "plain"}, "DacnnOptions.layout = 'plain': should be 'vgg' or 'resnet'"),
        ({"sharing": "all"}, "DacnnOptions.sharing = 'all': should be 'plain' or 'mix'"),
        ({"width": [64, 128, 256, 512, 512]}, "one kernel cannot be shared across unequal widths"),
        ({"width": 0}, "width = 0: must be one number >= 1 for sharing = 'plain'"),
        ({"width": "wide"}, "width = 'wide': must be one number >= 1"),
        ({"width": True}, "width = True: must be one number >= 1"),
        ({"sharing": "mix", "width": 128}, "width = 128: must be a list of 5 numbers that do not fall"),
        ({"sharing": "mix", "width": [8, 8, 8, 8]}, "must be a list of 5 numbers"),
        ({"sharing": "mix", "depth": 18, "width": [8, 4, 4, 4]}, "must be a list of 4 numbers that do not fall"),
        ({"sharing": "mix", "depth": 18, "width": [0, 4, 4, 4]}, "must be a list of 4 numbers"),
        ({"sharing": "mix", "depth": 18, "width": [1, 4, 4, 4.5]}, "must be a list of 4 numbers"),
        (
            {"regulators": "per-block"},
            "regulators = 'per-block': must be 'none' for layout 'vgg', which has no residual",
        ),
        ({"regulators": "all"}, "DacnnOptions.regulators = 'all': should be 'none', 'per-block'"),
        ({"swap": True}, "swap = True: must be False for layout 'vgg', which has no residual branches"),
        ({"blocks": [2, 2, 2, 2]}, "blocks = (2, 2, 2, 2): must be None for layout 'vgg'"),
        ({"depth": 24, "blocks": [2, 2, 2, 2]}, "blocks = (2, 2, 2, 2): must be 4 numbers of sum 11 for depth = 24"),
        ({"depth": 18, "blocks": [8]}, "blocks = (8,): must be 4 numbers of sum 8 for depth = 18"),
        ({"depth": 18, "blocks": [0, 4, 2, 2]}, "DacnnOptions.blocks.0 = 0: should be greater than or equal to 1"),
        ({"depth": 18, "blocks": None}, "blocks = None: must be 4 numbers of sum 8"),
        ({"depth": 18, "order": "conv-relu-bn"}, "order = 'conv-relu-bn': must be 'conv-bn-relu' for layout 'resnet'"),
        ({"shared": False, "norm": "affine"}, "norm = 'affine': must be 'free' for shared = False"),
        ({"bare_fifth": True}, "bare_fifth = True: needs depth = 14, sharing = 'mix' and order = 'conv-bn-relu'"),
        ({"bare_fifth": True, "sharing": "mix", "depth": 18}, "bare_fifth = True: needs depth = 14"),
        ({"bare_fifth": True, "sharing": "mix", "order": "conv-relu-bn"}, "bare_fifth = True: needs depth = 14"),
        ({"norm_init": "zeros"}, "DacnnOptions.norm_init = 'zeros': should be 'ones' or 'uniform'"),
        ({"pools": 6}, "pools = 6: must be at most 5 for layout 'vgg'"),
        ({"depth": 18, "pools": 5}, "pools = 5: must be at most 4 for layout 'resnet'"),
        ({"pools": 0}, "DacnnOptions.pools = 0: should be greater than or equal to 1"),
        ({"regulator": "per-block"}, "unknown key 'regulator'; did you mean 'regulators'?"),
    ],
    ids=str,
)
def test_impossible_options_are_named(given, message):
    with pytest.raises(SpecError) as caught:
        DacnnOptions(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": 4}, "DacnnSmallOptions.layers = 4: should be 3, 5, 7, 9 or 11"),
        ({"shared": False, "norm": "shared"}, "norm = 'shared': must be 'free' for shared = False"),
        ({"layers": 3, "pools": 4}, "pools = 4: must be at most 2 for layers = 3"),
        ({"width": 0}, "DacnnSmallOptions.width = 0: should be greater than or equal to 1"),
    ],
    ids=str,
)
def test_impossible_small_nets_are_named(given, message):
    with pytest.raises(SpecError) as caught:
        DacnnSmallOptions(**given)
    assert message in str(caught.value)


@pytest.mark.parametrize("method", ["resolve", "cost", "build"])
def test_images_that_are_too_small_are_named(method):
    digits = (1, 8, 8)
    with pytest.raises(SpecError, match="pools = 5: needs images of at least 32x32, not 8x8"):
        getattr(DacnnOptions(), method)(digits, 10)
    with pytest.raises(SpecError, match="pools = 4: needs images of at least 16x16, not 8x8"):
        getattr(DacnnSmallOptions(), method)(digits, 10)
    for options in (DacnnOptions(pools=3), DacnnOptions(depth=18, pools=3), DacnnSmallOptions(pools=3)):
        assert options.build(digits, 10)(torch.randn(2, *digits)).shape == (2, 10)
