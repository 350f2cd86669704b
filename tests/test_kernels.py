"""The fast path against the plain module: values, gradients, statistics; its layout, precision and determinism."""

import copy
import ctypes
import random
import re
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thriftylib.fast import compiled, recursion_kernel, recursion_states, tiles
from thriftylib.fast.compiled import library
from thriftylib.fast.recursion import FastThriftyNet
from thriftylib.papers.thriftynet import ThriftyNetOptions
from thriftylib.papers.thriftynet_recursion import ThriftyNet
from thriftylib.training.fast_path import accelerate

pytestmark = pytest.mark.fast

# Between them: every option of the recursion that the fast path serves.
SERVED = {
    "default": {"iterations": 7, "pool": 2},
    "classic, never pooled": {"iterations": 6, "pool": None, "conv": "classic", "head": "flatten"},
    "mb2, relu, pool at both ends": {"iterations": 6, "pool": (0, 2, 5), "conv": "mb2", "activation": "relu"},
    "mb4, newest": {"iterations": 5, "pool": 2, "conv": "mb4", "alpha_main": "newest", "alpha_init": "half"},
    "plain, leaky": {"iterations": 6, "pool": 3, "recursion": "plain", "activation": "leaky"},
    "un-factorised": {"iterations": 6, "pool": 3, "shared": False},
    "one norm": {"iterations": 6, "pool": 3, "norm": "shared"},
    "history bug, no affine norm": {
        "iterations": 6,
        "pool": 3,
        "norm_affine": False,
        "history_bug": True,
        "history": 3,
    },
    "one iteration": {"iterations": 1, "pool": None},
    "more states than are mixed at once": {"iterations": 9, "pool": (6,), "history": 8},
    "25 filters": {"filters": 25, "iterations": 3},
    "42 filters, mb2": {"filters": 42, "iterations": 3, "conv": "mb2"},
    "more filters than a block of depth": {"filters": 203, "iterations": 2, "pool": None},
    "classic with 27": {"filters": 27, "iterations": 3, "conv": "classic", "activation": "relu"},
}


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of unequal size in every batch, and threads for them."""
    monkeypatch.setattr(recursion_kernel, "TILES", 3)
    monkeypatch.setattr(tiles, "WORTH_SHARING", 0)


def networks(dtype=torch.float64, precision="fp32", size=(12, 10), **options):
    """A network away from its start, as it is and accelerated."""
    torch.manual_seed(0)
    plain = ThriftyNetOptions(**{"filters": 8, "iterations": 7, "pool": 2, **options}).build((3, *size), 10)
    with torch.no_grad():
        if plain.alpha is not None:
            plain.alpha.add_(0.2 * torch.randn_like(plain.alpha))
        for norm in plain.norms:
            if norm.affine:
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(0, 0.3)
    plain = plain.to(dtype)  # only now: drawn in float64, the numbers would be others
    return plain, accelerate(copy.deepcopy(plain), ("recursion",), precision)


def batch(images=5, dtype=torch.float64, size=(12, 10)):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(images, 3, *size, dtype=dtype, generator=generator),
        torch.randint(10, (images,), generator=generator),
    )


def learn(network, images, labels):
    """Logits and every gradient of one training step."""
    network.zero_grad()
    logits = network(images)
    F.cross_entropy(logits, labels).backward()
    return {"logits": logits.detach()} | {name: p.grad for name, p in network.named_parameters()}


def assert_same(mine, theirs, **tolerance):
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("options", SERVED.values(), ids=SERVED)
def test_equals_the_plain_module_in_float64(options):
    plain, fast = networks(**options)
    for images in (5, 3, 6):  # the buffers of one batch serve the next, smaller or larger
        assert_same(learn(fast, *batch(images)), learn(plain, *batch(images)), rtol=1e-9, atol=1e-11)
    assert_same(fast.state_dict(), plain.state_dict(), rtol=1e-9, atol=1e-11)  # running statistics among them
    plain.eval(), fast.eval()
    with torch.no_grad():
        torch.testing.assert_close(fast(batch()[0]), plain(batch()[0]), rtol=1e-9, atol=1e-11)


def random_network(rng):
    """Options, size of images and images of a network that may be."""
    conv, size = rng.choice(["classic", "mb1", "mb2", "mb4"]), (rng.randint(1, 19), rng.randint(1, 19))
    group = {"mb2": 2, "mb4": 4}.get(conv, 1)
    pools, left, iterations = [], min(size), rng.randint(1, 8)
    for t in range(iterations):
        if left >= 2 and rng.random() < 0.3:
            pools.append(t)
            left //= 2
    options = {"iterations": iterations, "pool": tuple(pools) or None, "conv": conv}
    options |= {"filters": group * rng.randint(-(-3 // group), 50 // group), "shared": rng.random() < 0.7}
    options |= {"activation": rng.choice(["tanh", "relu", "leaky"]), "head": rng.choice(["max", "flatten"])}
    options |= {"norm_affine": rng.random() < 0.8, "norm": rng.choice(["separate", "shared"])}
    if rng.random() < 0.7:
        options |= {"history": rng.randint(1, 8), "alpha_init": rng.choice(["main", "half", "one"])}
    else:
        options |= {"recursion": "plain"}
    return options, size, rng.randint(2, 11)


@pytest.mark.parametrize("seed", range(3))
def test_random_networks_equal_the_plain_module(seed):
    rng = random.Random(seed)
    for _ in range(8):
        options, size, images = random_network(rng)
        plain, fast = networks(size=size, **options)
        assert type(fast) is FastThriftyNet
        found = [learn(network, *batch(images, size=size)) | dict(network.named_buffers()) for network in (fast, plain)]
        for name, theirs in found[1].items():
            torch.testing.assert_close(
                found[0][name], theirs, rtol=1e-8, atol=1e-10 * theirs.abs().max().clamp(min=1).item(),
                msg=lambda text, name=name, options=options: f"{name} of {options}: {text}",
            )  # fmt: skip


def test_gradient_of_the_images():
    plain, fast = networks(iterations=5, pool=(1, 3))
    gradients = []
    for network in (plain, fast):
        images = batch()[0].requires_grad_()
        network(images).square().sum().backward()
        gradients.append(images.grad)
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)


def test_channels_that_batch_norm_has_switched_off():
    plain, fast = networks(iterations=5)
    for network in (plain, fast):
        with torch.no_grad():
            for norm in network.norms:
                norm.weight[::3] = 0
                norm.weight[1::3] = 1e-9
    assert_same(learn(fast, *batch()), learn(plain, *batch()), rtol=1e-9, atol=1e-11)


def relative_error(mine, truth):
    """Of everything in ``mine`` together."""
    difference = sum((mine[name].double() - value).square().sum() for name, value in truth.items())
    return (difference / sum(value.square().sum() for value in truth.values())).sqrt().item()


def test_fp32_is_as_close_to_float64_as_the_plain_module():
    truth = learn(networks(iterations=6)[0], *batch())
    plain, fast = networks(torch.float32, iterations=6)
    images, labels = batch()
    theirs, mine = (relative_error(learn(network, images.float(), labels), truth) for network in (plain, fast))
    assert mine < 3 * theirs < 1e-4


def test_bf16_is_as_close_to_float64_as_autocast():
    truth = learn(networks(iterations=6)[0], *batch())
    plain, fast = networks(torch.float32, "bf16", iterations=6)
    images, labels = batch()
    errors = []
    for network in (plain, fast):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(images.float())
        F.cross_entropy(logits.float(), labels).backward()
        found = {"logits": logits.detach()} | {name: p.grad for name, p in network.named_parameters()}
        assert all(value.dtype == torch.float32 for name, value in found.items() if name != "logits")
        errors.append(relative_error(found, truth))
    assert 1e-4 < errors[1] < 1.5 * errors[0]


def trained(threads, precision="fp32"):
    """The weights after a few steps of SGD, one of them with a smaller batch."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network = networks(torch.float32, precision, iterations=5)[1]
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for images in (7, 7, 3, 7):
            learn(network, *batch(images, torch.float32))
            optimizer.step()
        return network.state_dict()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_bits_every_time_and_on_any_number_of_threads(precision):
    first = trained(2, precision)
    for threads in (2, 2, 1, 3):
        again = trained(threads, precision)
        assert all(torch.equal(again[name], value) for name, value in first.items())


@pytest.mark.parametrize("size", [(32, 32), (7, 5), (1, 9), (2, 2), (16, 3)])
def test_sizes_of_images(size):
    for options in ({"pool": None}, {"pool": None, "conv": "classic"}, *([{"pool": 1}] if size == (7, 5) else [])):
        plain, fast = networks(size=size, iterations=2, **options)
        assert_same(learn(fast, *batch(size=size)), learn(plain, *batch(size=size)), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("conv", ["classic", "mb2"])
def test_weights_in_another_order_of_memory(conv):
    plain, fast = (network.to(memory_format=torch.channels_last) for network in networks(iterations=3, conv=conv))
    assert_same(learn(fast, *batch()), learn(plain, *batch()), rtol=1e-9, atol=1e-11)


def test_evaluation_in_parts(monkeypatch):
    monkeypatch.setattr("thriftylib.fast.recursion.EVALUATED", 4)
    plain, fast = networks()
    with torch.no_grad():
        plain.eval(), fast.eval()
        torch.testing.assert_close(fast(batch(10)[0]), plain(batch(10)[0]), rtol=1e-9, atol=1e-11)


def test_two_maps_an_iteration_and_none_fresh_in_the_next_step(monkeypatch):
    _, fast = networks(iterations=6, pool=None)
    made = []
    fresh = recursion_kernel.Plan._map
    monkeypatch.setattr(recursion_kernel.Plan, "_map", lambda plan, *size: made.append(size) or fresh(plan, *size))
    learn(fast, *batch())
    assert len(made) == 2 * 6 + 1  # and x_0
    made.clear()
    learn(fast, *batch())
    assert not made


def test_python_and_c_agree_on_the_fields():
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert library("recursion", dtype).recursion_bytes() == ctypes.sizeof(recursion_states.Fields)
    source = (compiled._SOURCES / "recursion.h").read_text()
    for name, cls in (("recursion", recursion_states.Fields), ("part", recursion_states.Part)):
        struct = re.search(rf"struct {name} {{(.*?)\n}};", source, re.DOTALL)[1]
        names = re.findall(r"(\w+)\s*[,;]", re.sub(r"/\*.*?\*/", "", struct, flags=re.DOTALL))
        assert names == [field for field, _ in cls._fields_]


@pytest.mark.parametrize("activation", ["softplus", "celu", "tanhshrink", "swish", "hswish", "retanh"])
def test_other_activations_keep_the_plain_forward(activation):
    plain, fast = networks(iterations=4, activation=activation)
    assert type(fast) is ThriftyNet
    assert_same(learn(fast, *batch()), learn(plain, *batch()), rtol=0, atol=0)


def test_plain_where_the_fast_path_does_not_apply():
    plain, fast = networks(iterations=4)
    images, labels = batch(1)
    assert_same(learn(fast, images, labels), learn(plain, images, labels), rtol=0, atol=0)
    with torch.no_grad():  # training mode, no gradients
        assert torch.equal(fast(batch()[0]), plain(batch()[0]))
    plain.eval(), fast.eval()  # evaluation mode, gradients
    assert_same(learn(fast, *batch()), learn(plain, *batch()), rtol=0, atol=0)


def test_networks_that_hold_thriftynets():
    torch.manual_seed(0)
    options = ThriftyNetOptions(filters=8, iterations=4, pool=3)
    blocks = [ThriftyNet(options, nn.Identity()).double() for _ in range(2)]
    stem = nn.Conv2d(3, 5, 3).double()
    plain = nn.Sequential(stem, *blocks, nn.Flatten(), nn.LazyLinear(10, dtype=torch.float64))
    plain(batch(size=(24, 20))[0])
    fast = accelerate(copy.deepcopy(plain), ("recursion",))
    assert [type(block) for block in fast[1:3]] == [FastThriftyNet] * 2
    assert_same(learn(fast, *batch(size=(24, 20))), learn(plain, *batch(size=(24, 20))), rtol=1e-9, atol=1e-11)


def test_a_graph_serves_once_and_only_unchanged_weights():
    _, fast = networks(iterations=3)
    loss = fast(batch()[0]).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="one backward pass only"):
        loss.backward()
    loss = fast(batch()[0]).sum()
    with torch.no_grad():
        fast.alpha.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_two_graphs_at_once():
    plain, fast = networks(iterations=4)
    for network in (plain, fast):
        network.zero_grad()
        losses = [network(batch(images)[0]).square().sum() for images in (5, 4)]
        for loss in losses:
            loss.backward()
    mine, theirs = ({name: p.grad for name, p in network.named_parameters()} for network in (fast, plain))
    assert_same(mine, theirs, rtol=1e-9, atol=1e-11)


def test_each_keeps_the_order_and_ends_with_an_error():
    """On more threads than tiles, and fewer; inside a step that shares its threads and outside."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for shared in (nullcontext, tiles.sharing_threads):
                with shared():
                    assert tiles.each(lambda i: (i, torch.get_num_threads()), range(3)) == [(i, 1) for i in range(3)]
                    assert tiles.each(str, []) == []
                    with pytest.raises(ZeroDivisionError):
                        tiles.each(lambda i: 1 / i, [2, 1, 0, 1])
                    with pytest.raises(IndexError):
                        tiles.each([].__getitem__, range(3))
                assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
