"""Less Is More: its networks, the proximal operators, and neurons that leave while a network is trained."""

import math

import pytest
import torch
import torch_pruning as pruning
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import advance, trainer_of
from torch import nn

from thriftylib.datasets.load import load
from thriftylib.errors import RunError, SpecError
from thriftylib.options import MethodOptions, NetworkOptions, find
from thriftylib.papers.less_is_more_method import group_sparsity, low_rank
from thriftylib.running.execute import train_missing
from thriftylib.running.folders import OutputFolders
from thriftylib.training.counting import count
from thriftylib.training.engine import train
from thriftylib.training.evaluation import as_input
from thriftylib.training.finishing import rebuild

SMALL = {
    "caffe-lenet": {"padding": 2, "widths": [4, 6], "hidden": 20},
    "cifar10-quick": {"widths": [4, 4, 6], "hidden": 20},
}
STEADY = {"schedule": {"kind": "constant"}, "augment": {}, "learning_rate": 0.05, "batch_size": 50}


def options(network, **changes):
    return find(NetworkOptions, network)(**changes)


def method(**changes):
    return find(MethodOptions, "less-is-more")(**changes)


# ------------------------------------------------------------------------------------------------------- networks
@pytest.mark.parametrize(
    ("network", "shape", "classes", "parameters"),
    [
        ("caffe-lenet", (1, 28, 28), 10, 431_080),
        ("cifar10-quick", (3, 32, 32), 10, 145_578),
        ("caffe-alexnet", (3, 227, 227), 1000, 60_965_224),
        ("vgg13", (3, 224, 224), 1000, 133_047_848),
    ],
)
def test_the_networks_have_the_parameters_of_the_sheet(network, shape, classes, parameters):
    assert options(network).cost(shape, classes).parameters == parameters


@pytest.mark.parametrize(
    ("network", "hidden", "removed", "mebibytes"),
    [
        ("caffe-lenet", 11, 92.00, 1.513),
        ("cifar10-quick", 17, 33.42, 0.186),
        ("caffe-alexnet", (1100, 4096), 65.42, 152.15),
        ("caffe-alexnet", (1076, 4096), 65.95, 153.37),
        ("vgg13", (1302, 4096), 61.29, 311.06),
        ("vgg13", (974, 4096), 68.48, 347.58),
    ],
)
def test_the_arithmetic_of_table_1(network, hidden, removed, mebibytes):
    shape, classes = {"caffe-lenet": ((1, 28, 28), 10), "cifar10-quick": ((3, 32, 32), 10)}.get(network, (None, 1000))
    shape = shape or ((3, 227, 227) if network == "caffe-alexnet" else (3, 224, 224))
    whole, small = (options(network, **kept).cost(shape, classes).parameters for kept in ({}, {"hidden": hidden}))
    assert 100 * (whole - small) / whole == pytest.approx(removed, abs=0.005)
    assert 4 * (whole - small) / 2**20 == pytest.approx(mebibytes, abs=0.005)


@pytest.mark.parametrize(
    ("network", "changes", "shape", "classes"),
    [
        ("caffe-lenet", {}, (1, 28, 28), 10),
        ("caffe-lenet", {"relu": True, "padding": 2}, (1, 8, 8), 10),
        ("cifar10-quick", {}, (3, 32, 32), 10),
        ("cifar10-quick", {"relu": True}, (1, 8, 8), 10),
        ("caffe-alexnet", {"hidden": (8, 8)}, (3, 227, 227), 1000),
        ("caffe-alexnet", {"hidden": (8, 8), "small": True}, (3, 32, 32), 10),
        ("vgg13", {"hidden": (8, 8)}, (3, 64, 64), 1000),
    ],
)
def test_the_closed_form_is_what_the_built_network_counts(network, changes, shape, classes):
    made = options(network, **changes)
    built = made.build(shape, classes)
    cost, counted = made.cost(shape, classes), count(built, shape)
    assert (counted.parameters, counted.macs) == (cost.parameters, cost.macs)
    assert (counted.weight_bytes, counted.activation_bytes) == (cost.weight_bytes(), cost.activation_bytes())
    logits = built(torch.rand(2, *shape))
    assert logits.shape == (2, classes)
    logits.logsumexp(1).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in built.parameters())


def test_first_weights_are_caffes():
    lenet, quick = (
        options(name).build(shape, 10) for name, shape in (("caffe-lenet", (1, 28, 28)), ("cifar10-quick", (3, 32, 32)))
    )
    for name, fan_in in (("conv1", 25), ("conv2", 500), ("ip1", 800), ("ip2", 500)):
        weight, bound = lenet.get_submodule(name).weight, math.sqrt(3 / fan_in)
        assert 0.9 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    for name, deviation in (("conv1", 1e-4), ("conv2", 0.01), ("conv3", 0.01), ("ip1", 0.1), ("ip2", 0.1)):
        assert quick.get_submodule(name).weight.std().item() == pytest.approx(deviation, rel=0.1)
    alexnet = options("caffe-alexnet", hidden=(4, 4), small=True).build((3, 32, 32), 10)
    biases = {name: module.bias[0].item() for name, module in alexnet.named_children() if hasattr(module, "bias")}
    assert {name for name, bias in biases.items() if bias} == {"conv2", "conv4", "conv5", "fc6", "fc7"}


def test_pools_round_up_and_average_over_the_pixels_that_are_there():
    quick = options("cifar10-quick").build((3, 32, 32), 10)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    averaged = quick.pool2(x)  # windows of 3 at 0 and 2; the second sees two rows or columns
    expected = [[x[..., :3, :3].mean(), x[..., :3, 2:].mean()], [x[..., 2:, :3].mean(), x[..., 2:, 2:].mean()]]
    assert torch.equal(averaged[0, 0], torch.tensor(expected))


def test_images_that_are_too_small_are_refused():
    with pytest.raises(SpecError, match=r"caffe-lenet: images of 8x8 are too small; nothing is left of them at conv2"):
        options("caffe-lenet").cost((1, 8, 8), 10)


# ------------------------------------------------------------------------------------------------ proximal operators
shapes = st.sampled_from([(5, 7), (3, 2, 3, 3), (4, 3, 5, 5), (2, 1, 3, 3)])
steps = st.floats(0.01, 3.0)
seeds = st.integers(0, 10**6)


def drawn(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator, dtype=torch.float64) for size in (shape, shape[:1])]


def applied(operator, weight, bias, step):
    weight, bias = weight.clone(), None if bias is None else bias.clone()
    operator(weight, bias, step)
    return torch.cat([weight.flatten(1), (bias if bias is not None else weight.new_zeros(len(weight)))[:, None]], 1)


@given(shapes, seeds, steps)
@settings(max_examples=40, deadline=None)
def test_group_sparsity_is_the_block_soft_threshold(shape, seed, step):
    weight, bias = drawn(shape, seed)
    whole = torch.cat([weight.flatten(1), bias[:, None]], 1)
    norms = whole.norm(dim=1, keepdim=True)
    found = applied(group_sparsity, weight, bias, step)
    torch.testing.assert_close(found, whole * (1 - step / norms).clamp(min=0))
    assert torch.equal((found == 0).all(1), norms[:, 0] <= step)
    alone = applied(group_sparsity, weight, None, step)[:, :-1]
    assert torch.equal((alone == 0).all(1), weight.flatten(1).norm(dim=1) <= step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("operator", [group_sparsity, low_rank])
@pytest.mark.parametrize("shape", [(3, 4), (3, 2, 3, 3)])
def test_a_step_of_zero_changes_nothing_not_even_a_zero_neuron(operator, shape, dtype):
    weight, bias = (tensor.to(dtype) for tensor in drawn(shape, 0))
    weight[0], bias[0] = 0, 0
    before = torch.cat([weight.flatten(1), bias[:, None]], 1)
    torch.testing.assert_close(applied(operator, weight, bias, 0.0), before)


def test_a_neuron_as_long_as_the_step_becomes_exactly_zero():
    lengths = torch.arange(1, 500) / 997
    for length in lengths:
        assert applied(group_sparsity, length.view(1, 1), None, length.item()).eq(0).all()


@given(shapes, seeds, seeds, steps, st.sampled_from([group_sparsity, low_rank]))
@settings(max_examples=40, deadline=None)
def test_the_operators_are_non_expansive_and_shrink(shape, one, other, step, operator):
    x, y = drawn(shape, one), drawn(shape, other)
    apart = applied(operator, *x, step) - applied(operator, *y, step)
    before = torch.cat([(x[0] - y[0]).flatten(), x[1] - y[1]])
    assert apart.norm() <= before.norm() * (1 + 1e-9)
    assert applied(operator, *x, step).norm() <= torch.cat([x[0].flatten(), x[1]]).norm()


@pytest.mark.parametrize("step", [0.1, 0.8, 2.5])
def test_group_sparsity_minimises_what_it_claims(step):
    weight, bias = drawn((1, 3), 3)
    v = torch.cat([weight[0], bias])
    w = torch.zeros_like(v, requires_grad=True)
    with torch.no_grad():
        w.copy_(v)
    optimizer = torch.optim.LBFGS(
        [w], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-14
    )

    def objective():
        optimizer.zero_grad()
        value = 0.5 * (w - v).square().sum() + step * w.norm()
        value.backward()
        return value

    optimizer.step(objective)
    found = applied(group_sparsity, weight, bias, step)[0]
    torch.testing.assert_close(found, w.detach(), rtol=0, atol=2e-3)
    mine = 0.5 * (found - v).square().sum() + step * found.norm()
    assert mine <= objective().item() + 1e-9
    for _ in range(200):  # no neighbour is better
        near = found + 0.01 * torch.randn(4, dtype=torch.float64)
        assert mine <= 0.5 * (near - v).square().sum() + step * near.norm()


@given(seeds, steps)
@settings(max_examples=25, deadline=None)
def test_low_rank_is_the_mean_of_three_thresholded_unfoldings(seed, step):
    weight, bias = drawn((3, 4, 5, 5), seed)
    parts = []
    for axis in (1, 2, 3):
        unfolded = weight.movedim(axis, 1).reshape(3, weight.shape[axis], -1)
        u, s, vh = torch.linalg.svd(unfolded, full_matrices=False)
        part = u @ torch.diag_embed((s - step).clamp(min=0)) @ vh
        parts.append(part.reshape(weight.movedim(axis, 1).shape).movedim(1, axis))
    found = applied(low_rank, weight, bias, step)
    torch.testing.assert_close(found[:, :-1], (sum(parts) / 3).flatten(1), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found[:, -1], bias.sign() * (bias.abs() - step).clamp(min=0))


def test_low_rank_kills_a_filter_whose_unfoldings_are_all_below_the_step():
    weight = torch.full((1, 3, 5, 5), 0.01)  # rank one: each unfolding has one singular value, the norm
    norm = weight.norm().item()
    assert (applied(low_rank, weight, torch.zeros(1), 1.001 * norm) == 0).all()
    assert (applied(low_rank, weight, torch.zeros(1), 0.999 * norm)[:, :-1] != 0).all()


@given(seeds, steps)
@settings(max_examples=20, deadline=None)
def test_both_are_the_same_on_linear_layers(seed, step):
    weight, bias = drawn((5, 9), seed)
    assert torch.equal(applied(low_rank, weight, bias, step), applied(group_sparsity, weight, bias, step))
    single = weight[:, :, None, None]  # and, without bias, on filters of one pixel: vectors too
    torch.testing.assert_close(applied(low_rank, single, None, step), applied(group_sparsity, weight, None, step))


# ------------------------------------------------------------------------------------------------- training, removal
def pruned_run(make_run, network="caffe-lenet", data=None, recipe=None, **constraint):
    constraint = {"group_sparsity": 0.95} | constraint
    chosen = {"name": "less-is-more", "options": constraint}
    return make_run(network, SMALL[network], method=chosen, data=data, **(STEADY | (recipe or {})))


def test_a_step_is_the_optimisers_and_then_the_operator(make_run):
    constrained = trainer_of(pruned_run(make_run, recipe={"bias_rate": 2.0}))
    plain = trainer_of(pruned_run(make_run, group_sparsity=0.0, recipe={"bias_rate": 2.0}))
    advance(constrained, 1)
    advance(plain, 1)
    for name in ("conv1", "conv2", "ip1", "ip2"):
        ours, expected = (trainer.network.get_submodule(name) for trainer in (constrained, plain))
        with torch.no_grad():
            if name != "ip2":  # the classifier is never constrained
                group_sparsity(expected.weight, expected.bias, 0.05 * 0.95)
        assert torch.equal(ours.weight, expected.weight)
        assert torch.equal(ours.bias, expected.bias)


def test_biases_learn_at_their_own_rate(make_run):
    single, double = (
        trainer_of(
            pruned_run(make_run, group_sparsity=0.0, recipe={"bias_rate": r, "momentum": 0.0, "weight_decay": 0.0})
        )
        for r in (1.0, 2.0)
    )
    before = {name: parameter.detach().clone() for name, parameter in single.network.named_parameters()}
    for trainer in (single, double):
        advance(trainer, 1)
    for name, start in before.items():
        once, twice = (dict(trainer.network.named_parameters())[name] - start for trainer in (single, double))
        torch.testing.assert_close(twice, (2 if name.endswith("bias") else 1) * once, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("clear", [True, False])
def test_the_momentum_of_a_zero_neuron_is_cleared(make_run, clear):
    trainer = trainer_of(pruned_run(make_run, clear_momentum=clear, recipe={"epochs": 3}))
    advance(trainer, 24)
    layer = trainer.network.ip1
    dead = (layer.weight == 0).all(1) & (layer.bias == 0)
    assert 0 < dead.sum() < len(dead)
    momentum = trainer.optimizer.state[layer.weight]["momentum_buffer"][dead]
    assert (momentum == 0).all() if clear else (momentum != 0).any()


@pytest.mark.parametrize(
    ("network", "constraint"),
    [
        ("caffe-lenet", {}),
        ("caffe-lenet", {"group_sparsity": 0.0, "low_rank": 0.7}),
        ("caffe-lenet", {"group_sparsity": 0.4, "low_rank": 0.4}),
        ("cifar10-quick", {"group_sparsity": 0.25, "layers": ["ip1"]}),
    ],
)
def test_what_is_kept_computes_what_was_trained(make_run, tmp_path, network, constraint):
    run = pruned_run(make_run, network, recipe={"epochs": 3}, **constraint)
    trainer = trainer_of(run)
    advance(trainer)
    images = as_input(trainer.dataset.test.images, trainer.dataset, "fp32")
    with torch.no_grad():
        before = trainer.network.eval()(images)
    record = train(run, results=tmp_path, weights=tmp_path, threads=1, progress=False).record
    kept = rebuild(record, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(kept.eval()(images), before, rtol=1e-4, atol=1e-5)
    hidden = [name for name in ("conv1", "conv2", "conv3", "ip1") if hasattr(kept, name)]
    widths = {name: len(kept.get_submodule(name).weight) for name in hidden}
    assert sum(widths.values()) < sum(len(trainer.network.get_submodule(name).weight) for name in hidden)
    for name, width in widths.items():
        assert record.measured[f"neurons_{name}"] == width == record.series[f"neurons_{name}"][-1]
    first = len(trainer.network.ip1.weight)
    assert record.measured["neurons_removed"] == pytest.approx(100 * (first - widths["ip1"]) / first)
    left = sum(parameter.numel() for parameter in kept.parameters())
    assert record.kept.parameters == left
    whole = record.cost.parameters
    assert record.measured["parameters_removed"] == pytest.approx(100 * (whole - left) / whole)
    assert record.measured["memory_removed"] == pytest.approx(4 * (whole - left) / 2**20)
    assert record.kept.test_accuracy == pytest.approx(record.final.test_accuracy, abs=1)


def test_torch_pruning_removes_the_same(make_run):
    """An independent implementation of removal, over its own dependency graph."""

    trainer = trainer_of(pruned_run(make_run, recipe={"epochs": 3}))
    advance(trainer)
    network = trainer.network.to(memory_format=torch.contiguous_format).eval()
    images = as_input(trainer.dataset.test.images, trainer.dataset, "fp32").contiguous()
    graph = pruning.DependencyGraph().build_dependency(network, images[:1])
    for name, prune in (
        ("conv1", "prune_conv_out_channels"),
        ("conv2", "prune_conv_out_channels"),
        ("ip1", "prune_linear_out_channels"),
    ):
        layer = network.get_submodule(name)
        dead = ((layer.weight.flatten(1) == 0).all(1) & (layer.bias == 0)).nonzero().flatten().tolist()
        group = graph.get_pruning_group(layer, getattr(pruning, prune), idxs=dead)
        assert graph.check_pruning_group(group)
        group.prune()
    other = trainer_of(pruned_run(make_run, recipe={"epochs": 3}))
    advance(other)
    ours = other.method.finish(other.network, other.dataset).eval()
    assert {name: x.shape for name, x in ours.state_dict().items()} == {
        name: x.shape for name, x in network.state_dict().items()
    }
    for name, x in ours.state_dict().items():
        assert torch.equal(x, network.state_dict()[name])


def test_a_bias_outside_the_neuron_keeps_it_as_a_constant(make_run, tmp_path):
    run = pruned_run(make_run, recipe={"epochs": 3}, bias="outside", layers=["ip1"], group_sparsity=1.0)
    record = train(run, results=tmp_path, weights=tmp_path, threads=1, progress=False).record
    assert record.measured["constant_neurons"] > 0
    kept = rebuild(record, tmp_path)
    without = sum(int(((layer.weight.flatten(1) == 0).all(1)).sum()) for layer in (kept.conv1, kept.conv2, kept.ip1))
    assert record.measured["constant_neurons"] == without


def test_free_epochs_train_what_is_left_and_nothing_comes_back(make_run):
    trainer = trainer_of(
        pruned_run(make_run, constrained_epochs=2, group_sparsity=1.4, layers=["ip1"], recipe={"epochs": 3})
    )
    advance(trainer, 2 * trainer.steps)
    constrained = {name: trainer.series[f"neurons_{name}"][-1] for name in ("conv1", "conv2", "ip1")}
    assert constrained["ip1"] < 20
    advance(trainer, 1)
    assert {name: len(trainer.network.get_submodule(name).weight) for name in constrained} == constrained
    advance(trainer)
    assert {name: trainer.series[f"neurons_{name}"][-1] for name in constrained} == constrained


@pytest.mark.parametrize("epochs", [3, 99])
def test_free_epochs_must_be_within_the_recipe(make_run, epochs):
    words = f"^constrained_epochs = {epochs}: must be below the recipe's 3$"
    with pytest.raises(SpecError, match=words):
        pruned_run(make_run, constrained_epochs=epochs, recipe={"epochs": 3})


def test_killed_while_neurons_leave_it_goes_on_bit_identically(make_run, tmp_path):
    run = pruned_run(make_run, constrained_epochs=2, group_sparsity=1.4, layers=["ip1"], recipe={"epochs": 3})
    places = {"results": tmp_path / "cut", "weights": tmp_path / "cut", "threads": 1, "progress": False}
    calls = 0
    while train(run, checkpoints=tmp_path / "c", budget=0.0, **places).record is None:
        calls += 1
    whole = train(run, results=tmp_path, weights=tmp_path, threads=1, progress=False).record
    assert calls >= 20  # a step each
    cut = train(run, **places).record
    assert cut.weights.sha256 == whole.weights.sha256
    assert cut.measured == whole.measured
    assert cut.measured["neurons_ip1"] < 20


@pytest.mark.parametrize(
    ("network", "changes", "message"),
    [
        (
            "caffe-lenet",
            {"group_sparsity": -1.0},
            r"LessIsMoreOptions.group_sparsity = -1.0: should be greater than or equal to 0",
        ),
        ("caffe-lenet", {"layers": "ip1"}, r"LessIsMoreOptions.layers = 'ip1': should be a list$"),
        ("caffe-lenet", {"layers": ("ip2",)}, r"layers: 'ip2' is the classifier; must be of: conv1, conv2, ip1"),
        (
            "caffe-lenet",
            {"layers": ("fc6",)},
            r"layers: 'fc6' is no layer of the network; must be of: conv1, conv2, ip1",
        ),
        ("caffe-alexnet", {}, r"layers: must be named, since not all can lose neurons; of: fc6, fc7"),
        (
            "caffe-alexnet",
            {"layers": ("conv1",)},
            r"layers: 'conv1' cannot lose neurons without other effects; must be of: fc6, fc7",
        ),
        ("tiny-resnet", {}, r"method less-is-more: Sequential is no plain sequence of layers"),
    ],
)
def test_wrong_input_is_named(network, changes, message):
    small = {"caffe-alexnet": {"hidden": (4, 4), "small": True}}.get(network, {})
    with pytest.raises(SpecError, match=message):
        method(**changes).start().prepare(options(network, **small).build((3, 32, 32), 10), None)


def test_a_layer_without_neurons_ends_the_training(make_run, tmp_path):
    run = pruned_run(make_run, group_sparsity=5.0, layers=["ip1"])
    with pytest.raises(RunError, match=r"no neuron of ip1 is left; group_sparsity = 5 is too strong"):
        train(run, results=tmp_path, progress=False)


def test_a_run_that_cannot_go_on_leaves_the_others(make_run, tmp_path, capsys):
    runs = [pruned_run(make_run, group_sparsity=strength, layers=["ip1"]) for strength in (5.0, 0.1)]
    done = train_missing(runs, OutputFolders.below(tmp_path), threads=1, progress=False)
    assert list(done.records) == [runs[1].id]
    assert (done.missing, done.failed, done.stopped) == ([runs[0]], [runs[0]], "left out")
    assert "no neuron of ip1 is left; group_sparsity = 5 is too strong" in capsys.readouterr().err


def test_the_pools_mean_image_and_method_fit_together(make_run):
    run = pruned_run(make_run, "cifar10-quick", data={"scaling": "minus mean image"}, recipe={"learning_rate": 1e-3})
    trainer = advance(trainer_of(run), 3)
    assert all(parameter.isfinite().all() for parameter in trainer.network.parameters())
    dataset = load(run.data)
    assert as_input(dataset.train.images, dataset, "fp32").mean(0).abs().max() < 1e-3
    assert isinstance(trainer.network.pool1, nn.MaxPool2d)
