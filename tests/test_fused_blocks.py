"""The fast path of convolution, batch norm, ReLU and max-pool against the four plain modules."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from thriftylib.fast import fused_kernel, tiles
from thriftylib.fast.fused_blocks import FusedBlock
from thriftylib.papers.expandnets import SmallNetOptions
from thriftylib.papers.expandnets_method import expand
from thriftylib.training import fast_path

pytestmark = pytest.mark.fast


def accelerate(network, precision="fp32"):
    return fast_path.accelerate(network, ("fused_blocks",), precision)


def block(inputs=3, outputs=8, kernel=3, padding=0, bias=True, gamma=(-1.0, 1.5), dtype=torch.float64):
    """A block away from its start, as it is and accelerated."""
    torch.manual_seed(0)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=bias)
    plain = nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2))
    with torch.no_grad():
        plain[1].weight.uniform_(*gamma)
        plain[1].bias.normal_(0, 0.3)
    plain = plain.to(dtype)
    return plain, accelerate(copy.deepcopy(plain))


def images(count=6, channels=3, size=(15, 12), dtype=torch.float64):
    return torch.randn(count, channels, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def learn(network, x):
    """The output of a training pass, and the gradients of the images and of every parameter."""
    x = x.clone().requires_grad_()
    y = network.train()(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    return y.detach(), [x.grad, *(parameter.grad for parameter in network.parameters())]


SERVED = {
    "as the first of SmallNet": {},
    "7x7, padded": {"kernel": 7, "padding": 3},
    "no bias": {"bias": False},
    "every gamma negative": {"gamma": (-2.0, -0.1)},
    "a gamma of zero": {"gamma": (0.0, 0.0)},
    "many channels": {"outputs": 40},
    "images of one channel": {"inputs": 1},
    "a single channel": {"outputs": 1},
}


@pytest.mark.parametrize("options", SERVED.values(), ids=SERVED)
def test_equals_the_plain_modules_in_float64(options):
    plain, fast = block(**options)
    assert type(fast) is FusedBlock
    x = images(channels=options.get("inputs", 3))
    (y, gradients), (ours, our_gradients) = learn(plain, x), learn(fast, x)
    torch.testing.assert_close(ours, y, rtol=1e-11, atol=1e-12)
    for ours, theirs in zip(our_gradients, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-11)
    for ours, theirs in zip(fast.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    with torch.no_grad():
        torch.testing.assert_close(fast.eval()(x), plain.eval()(x), rtol=1e-11, atol=1e-12)


def test_fp32_is_as_close_to_float64_as_the_plain_modules():
    exact = learn(block()[0], images())
    found = [learn(network, images(dtype=torch.float32)) for network in block(dtype=torch.float32)]
    errors = [
        [(a.double() - b).norm() / (b.norm() + 1e-3) for a, b in zip([y, *grads], [exact[0], *exact[1]], strict=True)]
        for y, grads in found
    ]
    for plain, ours in zip(*errors, strict=True):
        assert ours < 3 * plain + 1e-6


def test_ties_share_nothing():
    """Equal pixels, as in an image's black border: the gradient goes where the plain max-pool sends it."""
    plain, fast = block(gamma=(0.5, 1.5))
    flat = torch.zeros(6, 3, 12, 12, dtype=torch.float64)
    flat[:, :, 6:] = images(size=(6, 12))
    (_, gradients), (_, ours) = learn(plain, flat), learn(fast, flat)
    for a, b in zip(ours, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("count", [8, 9, 15, 16, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_images(count, dtype):
    """One block, a full one, some and a part of one."""
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    (exact, fast), x = block(), images(count)
    y, gradients = learn(exact, x)
    ours, our_gradients = learn(fast.to(dtype), x.to(dtype))
    for a, b in zip([ours, *our_gradients], [y, *gradients], strict=True):
        assert (a - b).norm() < tolerance * (1 + b.norm())
    with torch.no_grad():
        y, ours = exact.eval()(x), fast.eval()(x.to(dtype))
        assert (ours - y).norm() < tolerance * y.norm()


LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "batch innermost": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    "every second image of more": lambda x: x.repeat_interleave(2, 0)[::2],
    "one image many times": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_any_layout_of_the_images_and_of_the_gradient(layout):
    plain, fast = block()
    x, found = layout(images(17)), []
    for network in (plain, fast):
        y = network.train()(x)
        y.backward(layout(torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)))
        found.append([y.detach(), *(parameter.grad for parameter in network.parameters())])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-11)


def test_the_same_bits_on_any_number_of_threads(monkeypatch):
    monkeypatch.setattr(tiles, "WORTH_SHARING", 0)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y, gradients = learn(block(dtype=torch.float32)[1], images(100, dtype=torch.float32))
            found.append([y, *gradients])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("mean", [0, 3, 100])
@pytest.mark.parametrize("size", [(32, 32), (120, 90)])
def test_long_sums_and_means_far_from_zero(mean, size):
    """Where a long sum in fp32 would drift, and squares of the values would eat the variance."""
    plain, fast = block(bias=False)
    x = mean + images(8, size=size)
    exact, found = learn(plain, x), []
    for network in (plain.float(), fast.float()):
        network.zero_grad()
        found.append(learn(network, x.float()))
    (theirs, their_gradients), (ours, our_gradients) = found
    assert (ours - exact[0]).norm() < 4 * (theirs - exact[0]).norm() + 1e-6 * exact[0].norm()
    for a, b, c in zip(our_gradients, their_gradients, exact[1], strict=True):
        assert (a - c).norm() < 4 * (b - c).norm() + 1e-5 * c.norm()


def test_two_backward_passes_and_what_changed_meanwhile():
    _, fast = block()
    x = images().requires_grad_()
    y = fast.train()(x).sum()
    first = torch.autograd.grad(y, [x, *fast.parameters()], retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(y, [x, *fast.parameters()]), first, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y, x)
    changing = images()
    for change in (changing, fast[0].weight, fast[1].weight):
        y = fast(changing).sum()
        with torch.no_grad():
            change.mul_(-1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()


def test_memory_is_free_after_the_backward_pass(monkeypatch):
    large, release = [], fused_kernel.Kernel.release

    def watched(kernel, *names):
        given = release(kernel, *names)
        large.extend(map(weakref.ref, given))
        return given

    monkeypatch.setattr(fused_kernel.Kernel, "release", watched)
    _, fast = block()
    y = fast.train()(images())
    assert len(large) == 2
    y.sum().backward()
    assert [each() for each in large] == [None, None]


@pytest.mark.parametrize("frozen", ["0.weight", "0.bias", "1.weight", "1.bias"])
def test_frozen_parameters_and_images_without_a_gradient(frozen):
    found = []
    for network in block():
        network.get_parameter(frozen).requires_grad_(False)
        network.train()(images()).square().sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-10)


def test_the_output_may_be_changed_in_place():
    plain, fast = block()
    found = []
    for network in (plain, fast):
        network.train()(images()).add_(0.5).square().sum().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)


def test_a_norm_in_another_mode_than_its_block():
    for mode in (True, False):
        plain, fast = block()
        for network in (plain, fast):
            network.train(mode)[1].train(not mode)
        with torch.set_grad_enabled(mode):
            torch.testing.assert_close(fast(images()), plain(images()), rtol=0, atol=0)
        torch.testing.assert_close(fast.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("part", ["0", "1"])
def test_another_precision_or_device_is_left_to_pytorch(part):
    plain, fast = block(dtype=torch.float32)
    for network in (plain, fast):
        network.train().get_submodule(part).double()
        with pytest.raises(RuntimeError):
            network(images())
    with pytest.raises(RuntimeError, match="device"):
        block()[1].train()(images().to("meta"))


def test_parameters_that_are_views():
    plain, fast = block()
    for network in (plain, fast):
        for module in (network[0], network[1]):
            module.bias = nn.Parameter(torch.linspace(-1, 1, 16, dtype=torch.float64).view(8, 2)[:, 1])
    (y, gradients), (ours, our_gradients) = learn(plain, images()), learn(fast, images())
    torch.testing.assert_close([ours, *our_gradients], [y, *gradients], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("where", [(0, 0), (4, 4), (7, 10), (13, 10)])
def test_what_is_no_number_goes_where_pytorch_sends_it(where):
    plain, fast = block()
    x = images()
    x[3, 1, *where] = float("nan")
    with torch.no_grad():
        assert torch.equal(fast.eval()(x).isnan(), plain.eval()(x).isnan())
    y, gradients = learn(fast, x)
    assert y.isnan().all()
    assert all(gradient.isnan().any() for gradient in gradients[:2])


@pytest.mark.parametrize("convs", [None, "cl"])
def test_smallnet_as_it_is_and_expanded(convs):
    torch.manual_seed(0)
    plain = SmallNetOptions().build((3, 32, 32), 10)
    if convs:
        expand(plain, convs=convs, linear=True, image=False)
    fast = accelerate(copy.deepcopy(plain.double()))
    assert sum(type(module) is FusedBlock for module in fast.modules()) == 3
    labels = torch.arange(6)
    for network in (plain, fast):
        F.cross_entropy(network.train()(images(size=(32, 32))), labels).backward()
    for (name, theirs), ours in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_threads_are_shared_only_where_every_convolution_is_served():
    def shares(network):
        with fast_path.sharing(network):
            return bool(tiles._shared.get())

    plain, fast = block()
    assert shares(fast)
    assert not shares(plain)
    assert not shares(nn.Linear(2, 2))
    assert shares(accelerate(SmallNetOptions().build((3, 32, 32), 10)))
    assert not shares(nn.Sequential(fast, nn.Conv2d(8, 8, 3)))
    fast[0].register_forward_hook(lambda *_: None)
    assert not shares(fast)


def sequential(**changed):
    parts = {"conv": nn.Conv2d(3, 8, 3), "norm": nn.BatchNorm2d(8), "relu": nn.ReLU(), "pool": nn.MaxPool2d(2)}
    return nn.Sequential(*(parts | changed).values())


OTHERS = {
    "stride": {"conv": nn.Conv2d(3, 8, 3, stride=2)},
    "groups": {"conv": nn.Conv2d(4, 8, 3, groups=2)},
    "dilation": {"conv": nn.Conv2d(3, 8, 3, dilation=2)},
    "circular padding": {"conv": nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")},
    "same padding": {"conv": nn.Conv2d(3, 8, 3, padding="same")},
    "linear layer": {"conv": nn.Linear(3, 8)},
    "norm without affine map": {"norm": nn.BatchNorm2d(8, affine=False)},
    "norm without statistics": {"norm": nn.BatchNorm2d(8, track_running_stats=False)},
    "norm that averages all batches": {"norm": nn.BatchNorm2d(8, momentum=None)},
    "group norm": {"norm": nn.GroupNorm(2, 8)},
    "another activation": {"relu": nn.LeakyReLU()},
    "overlapping pool": {"pool": nn.MaxPool2d(3, 2)},
    "many channels that come in": {"conv": nn.Conv2d(32, 8, 3)},
    "pool that rounds up": {"pool": nn.MaxPool2d(2, ceil_mode=True)},
    "average pool": {"pool": nn.AvgPool2d(2)},
}


@pytest.mark.parametrize("changed", OTHERS.values(), ids=OTHERS)
def test_other_blocks_keep_the_plain_forward(changed):
    assert type(accelerate(sequential())) is FusedBlock
    assert type(accelerate(sequential(**changed))) is nn.Sequential


def test_long_overparameterised_blocks_are_left_to_pytorch():
    for kernel, served in ((7, True), (9, False)):
        network = expand(SmallNetOptions(kernel=kernel).build((3, 32, 32), 10), convs="ck")
        assert bool(fast_path.describe(accelerate(network))) == served


def test_plain_where_the_fast_path_does_not_apply():
    plain, fast = block(dtype=torch.float32)
    assert type(accelerate(copy.deepcopy(plain), "bf16")) is nn.Sequential
    x = images(dtype=torch.float32)
    with torch.no_grad():  # training mode without gradients: statistics move as in the plain modules
        torch.testing.assert_close(fast.train()(x), plain.train()(x))
        torch.testing.assert_close(fast[1].running_var, plain[1].running_var)
    one = images(1, dtype=torch.float32)
    torch.testing.assert_close(fast(one), plain(one))
