"""When a fast path serves: whatever differs from what its kernel computes takes the plain forward, to the last bit."""

import copy
import io
import pickle

import pytest
import torch
from stepping import advance, trainer_of
from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrizations, parametrize, weight_norm
from torch.utils.flop_counter import FlopCounterMode

from thriftylib.fast import recursion_kernel, tiles
from thriftylib.fast.fused_blocks import FusedBlock
from thriftylib.fast.recursion import FastThriftyNet
from thriftylib.papers.expandnets_expansion import ExpandedConv2d
from thriftylib.papers.expandnets_method import expand
from thriftylib.papers.thriftynet import ThriftyNetOptions
from thriftylib.papers.thriftynet_recursion import ThriftyNet
from thriftylib.training import fast_path

pytestmark = [pytest.mark.fast, pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles in every batch."""
    monkeypatch.setattr(recursion_kernel, "TILES", 4)
    monkeypatch.setattr(tiles, "WORTH_SHARING", 0)


def recursion(**options):
    torch.manual_seed(0)
    options = ThriftyNetOptions(**{"filters": 6, "iterations": 4, "pool": 2, "conv": "mb2", **options})
    return options.build((3, 12, 10), 10)


def block():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))


def accelerate(network):
    return fast_path.accelerate(network, ("recursion", "fused_blocks"))


def both(make):
    """A network, and an accelerated one of the same weights."""
    plain, fast = make(), accelerate(make())
    assert type(fast) in (FastThriftyNet, FusedBlock)
    assert fast_path.describe(fast)
    return plain, fast


def images(count=8, dtype=torch.float32):
    return torch.randn(count, 3, 12, 10, generator=torch.Generator().manual_seed(1)).to(dtype)


def learn(network, x=None):
    """What a training step leaves, by name."""
    x = (images() if x is None else x).clone().requires_grad_()
    y = network(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    gradients = {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"output": y.detach(), "gradient of the images": x.grad} | gradients | dict(network.named_buffers())


def predict(network):
    with torch.no_grad():
        return network.eval()(images())


def assert_identical(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.equal(mine[name], value), name


def assert_close(mine, theirs):
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=2e-4)


def conv_of(network):
    return network.convs[0][0] if isinstance(network, ThriftyNet) else network[0]


def norm_of(network):
    return network.norms[1] if isinstance(network, ThriftyNet) else network[1]


def norms_of(network):
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]


def put_conv(network, **changed):
    """Another convolution in the place of the first one."""
    old = conv_of(network)
    names = ("in_channels", "out_channels", "kernel_size", "padding", "groups")
    torch.manual_seed(2)
    arguments = {name: getattr(old, name) for name in names} | {"bias": old.bias is not None} | changed
    (network.convs[0] if isinstance(network, ThriftyNet) else network)[0] = nn.Conv2d(**arguments)


def put_norm(network, norm):
    (network.norms if isinstance(network, ThriftyNet) else network)[1] = norm


def put_activation(network, activation):
    if isinstance(network, ThriftyNet):
        network.activation = activation
    else:
        network[2] = activation


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


class AsBatchNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) / 2


class Cut(nn.Tanh):
    def forward(self, x):
        return super().forward(x).clamp(max=0.3)


def double(module):
    forward = module.forward
    module.forward = lambda x: 2 * forward(x)


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def make_buffer(conv):
    weight = conv.weight.detach()
    del conv.weight
    conv.register_buffer("weight", weight)


EITHER = {
    "a batch norm is frozen": lambda network: norm_of(network).eval(),
    "all batch norms are frozen": lambda network: [norm.eval() for norm in norms_of(network)],
    "dilation": lambda network: put_conv(network, dilation=2, padding=2),
    "reflect padding": lambda network: put_conv(network, padding=1, padding_mode="reflect"),
    "circular padding": lambda network: put_conv(network, padding=1, padding_mode="circular"),
    "same padding": lambda network: put_conv(network, padding="same"),
    "dilation by attribute": lambda network: vars(conv_of(network)).update(dilation=(2, 2), padding=(2, 2)),
    "an attribute of another type": lambda network: setattr(conv_of(network), "padding", [1, 1]),
    "a convolution's own forward": lambda network: double(conv_of(network)),
    "a convolution's subclass": lambda network: setattr(conv_of(network), "__class__", Doubled),
    "parametrized convolution": lambda network: parametrize.register_parametrization(
        conv_of(network), "weight", Halved()
    ),
    "parametrized norm": lambda network: parametrize.register_parametrization(norm_of(network), "bias", Halved()),
    "weight norm": lambda network: parametrizations.weight_norm(conv_of(network)),
    "weight norm by hooks": lambda network: weight_norm(conv_of(network)),
    "a weight that is a buffer": lambda network: make_buffer(conv_of(network)),
    "another buffer": lambda network: norm_of(network).register_buffer("mask", torch.ones(1)),
    "InstanceNorm": lambda network: put_norm(network, nn.InstanceNorm2d(6, affine=True, track_running_stats=True)),
    "GroupNorm": lambda network: put_norm(network, nn.GroupNorm(2, 6)),
    "a norm's subclass": lambda network: put_norm(network, AsBatchNorm(6)),
    "momentum None": lambda network: setattr(norm_of(network), "momentum", None),
    "no running statistics": lambda network: put_norm(network, nn.BatchNorm2d(6, track_running_stats=False)),
    "norm with weight alone": lambda network: setattr(norm_of(network), "bias", None),
    "another activation": lambda network: put_activation(network, nn.Softsign()),
    "an activation's subclass": lambda network: put_activation(network, Cut()),
    "an activation in place": lambda network: put_activation(network, nn.ReLU(inplace=True)),
}
RECURSION = {
    "bias": lambda network: put_conv(network, bias=True),
    "another kernel": lambda network: put_conv(network, kernel_size=5, padding=2),
    "other groups": lambda network: put_conv(network, groups=1),
    "a step of its own": lambda network: setattr(network, "step", lambda t, states: states[-1] / 2),
    "a convolution more": lambda network: network.convs[0].append(nn.Conv2d(6, 6, 1)),
    "one coefficient for all channels": lambda network: setattr(network, "alpha", None),
    "a history longer than the coefficients": lambda network: setattr(network, "kept_states", 7),
}
BLOCK = {
    "stride": lambda network: put_conv(network, stride=2),
    "groups": lambda network: put_conv(network, groups=3),
    "a norm that is not affine": lambda network: put_norm(network, nn.BatchNorm2d(6, affine=False)),
    "overlapping pool": lambda network: network.__setitem__(3, nn.MaxPool2d(3, 2)),
    "average pool": lambda network: network.__setitem__(3, nn.AvgPool2d(2)),
    "a pool that rounds up": lambda network: setattr(network[3], "ceil_mode", True),
    "a module more": lambda network: network.append(nn.Tanh()),
    "a module less": lambda network: network.pop(3),
    "one name for two": lambda network: network.__setitem__(3, network[2]),
}
CASES = [
    *((make, name, change) for make in (recursion, block) for name, change in EITHER.items()),
    *((recursion, name, change) for name, change in RECURSION.items()),
    *((block, name, change) for name, change in BLOCK.items()),
]


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    ("make", "change"),
    [(make, change) for make, _, change in CASES],
    ids=[f"{make.__name__}: {name}" for make, name, _ in CASES],
)
def test_a_change_after_acceleration_takes_the_plain_path(make, change):
    plain, fast = both(make)
    for network in (plain, fast):
        torch.manual_seed(2)
        change(network)
    assert fast_path.describe(fast) is None
    assert_identical(learn(fast), learn(plain))
    if not any(norm.training is False for norm in norms_of(plain)):  # awake again, a frozen norm is served
        assert torch.equal(predict(fast), predict(plain))


def test_a_norm_that_is_awake_in_evaluation():
    for make in (recursion, block):
        plain, fast = both(make)
        for network in (plain, fast):
            norm_of(network.eval()).train()
        with torch.no_grad():
            assert torch.equal(fast(images()), plain(images()))
        assert_identical(dict(fast.named_buffers()), dict(plain.named_buffers()))


def test_subclasses_are_not_served():
    class Other(ThriftyNet):
        def step(self, t, states):
            return super().step(t, states) / 2

    for network, cls in ((recursion(), Other), (block(), type("Block", (nn.Sequential,), {}))):
        network.__class__ = cls
        assert type(accelerate(network)) is cls
        assert fast_path.describe(network) is None


def test_nothing_is_served_that_does_not_ask():
    for make in (recursion, block):
        network = make()
        assert type(fast_path.accelerate(network, ())) is type(make())
    assert type(fast_path.accelerate(block(), ("recursion",))) is nn.Sequential


def test_a_forward_of_the_users():
    for make in (recursion, block):
        plain, fast = both(make)
        for network in (plain, fast):
            network.forward = lambda x: x.sum((2, 3))
        assert torch.equal(fast(images()), images().sum((2, 3)))


@pytest.mark.parametrize(("cls", "name"), [(ThriftyNet, "step"), (nn.BatchNorm2d, "forward"), (nn.Conv2d, "forward")])
def test_a_class_that_was_patched(cls, name, monkeypatch):
    plain, fast = both(recursion)
    before = getattr(cls, name)
    monkeypatch.setattr(cls, name, lambda *arguments: before(*arguments) / 2)
    assert_identical(learn(fast), learn(plain))


def test_what_the_recursion_reads_at_each_call():
    """Depth, pools, history and a norm's numbers may change: the kernel follows."""
    plain, fast = both(recursion)
    for network in (plain, fast):
        network.iterations, network.pools, network.kept_states = 3, (0,), 2
        norm_of(network).eps, norm_of(network).momentum = 0.5, 0.9
    assert fast_path.describe(fast)
    assert_close(learn(fast), learn(plain))


def test_a_convolution_at_two_places():
    def make():
        network = recursion(shared=False)
        network.convs[1] = network.convs[0]
        return network

    plain, fast = both(make)
    assert_close(learn(fast), learn(plain))


REGISTER = {
    "before": lambda module, hook: module.register_forward_pre_hook(hook),
    "after": lambda module, hook: module.register_forward_hook(hook),
    "after, with keywords, always": lambda module, hook: module.register_forward_hook(
        hook, with_kwargs=True, always_call=True
    ),
    "before backward": lambda module, hook: module.register_full_backward_pre_hook(hook),
    "full backward": lambda module, hook: module.register_full_backward_hook(hook),
    "backward": lambda module, hook: module.register_backward_hook(hook),
}


@pytest.mark.filterwarnings("ignore:.*non-full backward hook:FutureWarning", "ignore:Full backward hook is firing")
@pytest.mark.parametrize("register", REGISTER.values(), ids=REGISTER)
@pytest.mark.parametrize("make", [recursion, block])
def test_hooks_are_called_as_often_as_in_the_plain_path(make, register):
    plain, fast = both(make)
    counted = []
    for network in (plain, fast):
        calls = {}
        for name, module in network.named_modules():
            handle = register(module, lambda *_, name=name, calls=calls: calls.update({name: calls.get(name, 0) + 1}))
            found = learn(network)
            predict(network)
            network.train().zero_grad()
            handle.remove()
        counted.append((calls, found))
    (calls, _), (ours, _) = counted
    assert ours == calls
    assert len(calls) >= 3
    assert fast_path.describe(fast)  # served again once the hooks are gone


GLOBAL = ["forward_pre_hook", "forward_hook", "full_backward_pre_hook", "full_backward_hook"]


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("kind", GLOBAL)
def test_global_hooks(kind):
    for make in (recursion, block):
        plain, fast = both(make)
        counted = []
        for network in (plain, fast):
            calls = []
            handle = getattr(torch_module, f"register_module_{kind}")(lambda *_, calls=calls: calls.append(1) or None)
            try:
                found = learn(network)
            finally:
                handle.remove()
            counted.append((len(calls), found))
        assert counted[0][0] == counted[1][0] > 0
        assert_identical(counted[1][1], counted[0][1])


def test_whoever_looks_at_single_operations_sees_them():
    for make in (recursion, block):
        counted = []
        for network in both(make):
            with FlopCounterMode(display=False) as counter:
                network(images())
            counted.append(counter.get_total_flops())
        assert counted[0] == counted[1] > 0
        plain, fast = both(make)
        traced = torch.jit.trace(fast.eval(), images())
        with torch.no_grad():
            assert_close(traced(2 * images()), plain.eval()(2 * images()))


def test_a_compiled_network():
    plain, fast = both(block)
    assert torch.equal(torch.compile(fast, backend="eager", fullgraph=True)(images()), plain(images()))


def test_a_hook_on_a_list_of_one_convolution():
    plain, fast = both(lambda: recursion(conv="classic"))
    calls = []
    for network in (plain, fast):
        network.convs[0] = nn.Sequential(network.convs[0])
        network.convs[0].register_forward_hook(lambda *_: calls.append(1))
    assert_identical(learn(fast), learn(plain))
    assert len(calls) == 2 * 4


def test_hooks_of_a_method_see_the_layers(make_run):
    """Registered at an epoch's end, say: the next step and evaluation call them at every use of the layer."""
    trainer = trainer_of(make_run("thriftynet", {"filters": 8, "iterations": 5, "pool": 2}))
    network, calls = trainer.network, []
    assert type(network) is FastThriftyNet
    handle = network.convs[0][1].register_forward_hook(lambda *_: calls.append(1))
    advance(trainer, 1)
    assert len(calls) == 5
    trainer.evaluate(trainer.dataset.test)  # 100 images, one batch
    assert len(calls) == 10
    handle.remove()
    assert fast_path.describe(network)


def test_transforms():
    for make in (recursion, block):
        found = []
        for network in both(make):
            parameters = {name: 1.5 * p.detach() for name, p in network.named_parameters()}

            def loss(parameters, network=network):
                return torch.func.functional_call(network, parameters, (images(),)).square().sum()

            tangent = torch.func.jvp(network.eval(), (images(),), (images(),))[1]
            found.append({"tangent": tangent} | torch.func.grad(loss)(parameters))
        assert_identical(*found[::-1])


def test_a_second_derivative_is_refused():
    for make in (recursion, block):
        _, fast = both(make)
        x = images().requires_grad_()
        (gradient,) = torch.autograd.grad(fast(x).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="once_differentiable"):
            gradient.sum().backward()


def through_a_file(network):
    file = io.BytesIO()
    torch.save(network, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def replica(network, factor=2.0):
    """A shallow copy with tensors of its own, as ``torch.nn.parallel.replicate`` makes it."""
    copied = network._replicate_for_data_parallel()
    for name, child in network._modules.items():
        copied._modules[name] = replica(child, factor)
    for name, parameter in network._parameters.items():
        if parameter is None:
            copied._parameters[name] = None
        else:
            setattr(copied, name, factor * parameter)
    for name, buffer in network._buffers.items():
        copied._buffers[name] = buffer.clone()
    return copied


COPIES = {
    "deep": copy.deepcopy,
    "shallow": copy.copy,
    "pickle": lambda network: pickle.loads(pickle.dumps(network)),
    "old pickle": lambda network: pickle.loads(pickle.dumps(network, 0)),
    "file": through_a_file,
    "replica": lambda network: replica(network, 1.0),
    "of the class": lambda network: nn.Sequential(*network) if isinstance(network, nn.Sequential) else network,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("make", [recursion, block])
def test_a_copy_computes_with_its_own_parameters(make, copied):
    plain, fast = both(make)
    theirs, mine = copied(plain), copied(fast)
    for network, other in ((plain, theirs), (fast, mine)):
        if other is not network and all(map(torch.Tensor.is_leaf.__get__, other.parameters())):
            with torch.no_grad():
                for parameter in other.parameters():
                    parameter.mul_(1.1)
    assert_close(learn(mine), learn(theirs))
    assert repr(mine) == repr(theirs)
    assert type(copy.deepcopy(fast)) is type(plain)


def test_replicas_learn_for_their_original():
    for make in (recursion, block):
        found = []
        for network in both(make):
            replica(network)(images()).square().sum().backward()
            found.append({name: p.grad for name, p in network.named_parameters()})
        assert_identical(*found[::-1])


def test_another_precision():
    for make in (recursion, block):
        plain, fast = both(make)
        mine, theirs = (learn(network.to(torch.float64), images(dtype=torch.float64)) for network in (fast, plain))
        assert fast_path.describe(fast)
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-11)
        for network in (plain, fast):
            norm_of(network).float()
        assert fast_path.describe(fast) is None
        for network in (plain, fast):
            network.to(torch.bfloat16)
        assert torch.equal(fast(images().bfloat16()), plain(images().bfloat16()))


@pytest.mark.parametrize("kept", ["", "conv", "norm", "nothing"])
def test_frozen_parameters(kept):
    for make in (recursion, block):
        found = []
        for network in both(make):
            network.requires_grad_(not kept)
            if kept != "nothing":
                (conv_of if kept == "conv" else norm_of)(network).requires_grad_(True)
            found.append(learn(network))
        assert found[0].keys() == found[1].keys()
        assert_close(found[1], found[0])


def test_an_overparameterised_block_that_was_changed():
    def make():
        return expand(block(), convs="cl", rate=2.0)

    plain, fast = both(make)
    assert type(fast[0]) is ExpandedConv2d
    assert_close(learn(fast), learn(plain))
    for change in (
        lambda chain: setattr(chain[0], "dilation", (2, 2)),
        lambda chain: chain.append(nn.Conv2d(6, 6, 1, bias=False)),
        lambda chain: setattr(chain[2], "padding", (1, 1)),
        lambda chain: chain[1].register_forward_hook(lambda *_: None),
    ):
        plain, fast = both(make)
        for network in (plain, fast):
            torch.manual_seed(2)
            change(network[0].chain)
        assert fast_path.describe(fast) is None


def test_restored():
    for make in (recursion, block):
        plain, fast = both(make)
        parameters = list(fast.parameters())
        assert type(fast_path.restore(fast)) is type(plain)
        assert all(a is b for a, b in zip(parameters, fast.parameters(), strict=True))
        assert_identical(learn(fast), learn(plain))


# --- activations near zero


def test_the_recursions_tanh_is_as_exact_as_pytorchs():
    """In a network that computes nothing else."""
    network = ThriftyNetOptions(filters=1, iterations=1, pool=None).build((1, 100, 200), 10).eval()
    accelerate(network)
    with torch.no_grad():
        network.head = nn.Identity()
        network.convs[0][0].weight.zero_()[..., 1, 1] = 1
        network.convs[0][1].weight.fill_(1)
        network.alpha.zero_()[:, 0] = 1
        network.norms[0].eps = 0.0
        assert fast_path.describe(network)
        tiny = torch.logspace(-44.8, 1.5, 20_000, dtype=torch.float64).float()
        for x in (tiny, -tiny):
            found, exact = network(x.view(1, 1, 100, 200).repeat(2, 1, 1, 1))[0].flatten(), torch.tanh(x.double())
            spacing = torch.nextafter(exact.float().abs(), torch.tensor(2.0)).double() - exact.float().abs().double()
            assert ((found.double() - exact).abs() <= 4 * spacing).all()
            assert (found.abs() <= 1).all()


def test_gradients_of_small_activations():
    """Where tanh(x) is of the size of fp32's spacing at 1, a convolution's gradient needs its relative accuracy."""
    exact, fast = recursion(iterations=1, pool=None).double(), accelerate(recursion(iterations=1, pool=None))
    found = []
    for network in (exact, fast):
        with torch.no_grad():
            conv_of(network).weight.mul_(1e-7)
            network.alpha[:, 1:] = 0  # nothing but the activations is left
            norm_of_one = network.norms[0]
            norm_of_one.eps = 1e-20
        found.append(learn(network, images(dtype=network.alpha.dtype)))
    for name in ("gradient of convs.0.0.weight", "gradient of convs.0.1.weight"):
        theirs, mine = found[0][name], found[1][name].double()
        assert (mine - theirs).norm() < 1e-4 * theirs.norm(), name
