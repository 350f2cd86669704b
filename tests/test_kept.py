"""What a run leaves: narrowed networks, kept counts and accuracies, measured numbers, runs that only measure."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ToyOptions
from safetensors.torch import load_file
from stepping import CPU, advance, trainer_of
from torch import nn

from thriftylib.cost import Cost
from thriftylib.datasets.load import load
from thriftylib.errors import RecordError, SpecError
from thriftylib.evidence.records import load_record
from thriftylib.method import Method
from thriftylib.narrowing import fit, narrow
from thriftylib.options import MethodOptions
from thriftylib.running.execute import verify_weights
from thriftylib.spec import Run
from thriftylib.training.checkpoint import load_checkpoint, save_checkpoint
from thriftylib.training.engine import train
from thriftylib.training.evaluation import evaluate, right


class Remover(Method):
    """Removes outputs of the first convolution (of a toy or a SmallNet) as the second epoch starts."""

    def __init__(self, options):
        self.options = options

    def epoch_starts(self, network, optimizer, epoch):
        if epoch == 1:
            _halve(network, optimizer)

    def epoch_ends(self, network, optimizer, epoch, sample):
        return {"widths": float(_convs(network)[0].out_channels)}

    def finish(self, network, dataset):
        assert len(dataset.test) > 0
        if self.options.at_the_end == "zero":
            for parameter in network.parameters():
                nn.init.zeros_(parameter)
        return nn.Sequential(network, nn.Identity()) if self.options.at_the_end == "wrap" else network

    def measure(self, network, dataset):
        widths = [float(conv.out_channels) for conv in _convs(network)]
        return {"widths": widths, "images": len(dataset.train), "nothing": math.nan}


class RemoverOptions(MethodOptions, method="remover"):
    at_the_end: str = ""

    def start(self):
        return Remover(self)


def _convs(network):
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def _halve(network, optimizer):
    convs = _convs(network)
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    reader = convs[1] if len(convs) > 1 else network[-1]
    narrow(optimizer, convs[0], "outputs", range(0, convs[0].out_channels, 2), readers=[norm, reader])


NETWORKS = [("toy", {}), ("smallnet", {"kernel": 3, "widths": [6, 4, 8], "hidden": 16, "padding": 1})]


def remover(make_run, network, options, **at_the_end):
    return make_run(network, options, method={"name": "remover", "options": at_the_end}, epochs=3)


@pytest.fixture(params=NETWORKS, ids=["toy", "smallnet"])
def removed(request, make_run, tmp_path):
    run = remover(make_run, *request.param)
    record = train(run, results=tmp_path, weights=tmp_path / "weights", threads=1, progress=False).record
    return run, record, tmp_path


def test_the_record_says_what_was_kept(removed):
    run, record, folder = removed
    dense = run.build()
    first = _convs(dense)[0].out_channels
    halved = run.build()
    _halve(halved, None)
    assert record.cost.parameters == sum(p.numel() for p in dense.parameters())
    assert record.kept.parameters == sum(p.numel() for p in halved.parameters()) < record.cost.parameters
    assert record.kept.macs < record.cost.macs
    assert record.counted == record.kept
    assert record.kept.test_accuracy == record.final.test_accuracy == record.final_accuracy
    assert record.best_accuracy == record.best.test_accuracy
    assert record.measured["widths"][0] == record.series["widths"][-1] == first / 2
    assert record.measured["images"] == 400
    assert record.measured["nothing"] is None
    assert load_record(folder / "runs" / f"{run.id}.json") == record
    kept = load_file(folder / "weights" / record.weights.file)
    assert {name: tuple(x.shape) for name, x in kept.items()} == {
        name: tuple(x.shape) for name, x in halved.state_dict().items()
    }


def test_verify_builds_the_kept_network_from_the_record_alone(removed):
    run, record, folder = removed
    assert verify_weights(record, folder / "weights", device="cpu") == record.kept.test_accuracy
    shapes = record.kept.shapes
    tampered = [
        ({**shapes, "nowhere": [1]}, "kept.shapes says .* of nowhere, its weight file the run's own shape"),
        ({name: [1] * len(shape) for name, shape in shapes.items()}, "its weight file"),
        (dict.fromkeys(shapes, [1] * 5), "its weight file"),
        ({}, "its weight file"),
    ]
    for other, message in tampered:
        kept = record.kept.model_copy(update={"shapes": other})
        with pytest.raises(RecordError, match=message) as caught:
            verify_weights(record.model_copy(update={"kept": kept}), folder / "weights", device="cpu")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("network", "options"), NETWORKS, ids=["toy", "smallnet"])
@pytest.mark.parametrize("kills", [(2,), (5,), (4, 3)])
def test_a_narrowed_training_that_is_killed_ends_with_the_same_bits(make_run, tmp_path, network, options, kills):
    run = remover(make_run, network, options)
    whole, trainer = advance(trainer_of(run)), trainer_of(run)
    for steps in kills:
        advance(trainer, steps)
        save_checkpoint(tmp_path / "c", run.id, *trainer.state())
        trainer = trainer_of(run)
        trainer.restore(*load_checkpoint(tmp_path / "c", run.id))
    expected, found = whole.state()[0], advance(trainer).state()[0]
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_network_that_finish_ruins_is_not_recorded_as_good(make_run, tmp_path):
    run = make_run(*NETWORKS[1], method={"name": "remover", "options": {"at_the_end": "zero"}}, epochs=4, batch_size=32)
    record = train(run, results=tmp_path, weights=tmp_path, progress=False).record
    dataset = load(run.data)
    chance = 100 * (dataset.test.labels == 0).double().mean().item()  # equal logits: the first class
    assert record.kept.test_accuracy == record.final_accuracy == record.best_accuracy == pytest.approx(chance)
    assert record.best.test_accuracy > 2 * chance
    assert verify_weights(record, tmp_path, device="cpu") == record.final_accuracy


def test_a_kept_network_of_other_layers_is_counted_and_not_rebuilt(make_run, tmp_path):
    record = train(
        remover(make_run, "toy", {}, at_the_end="wrap"), results=tmp_path, weights=tmp_path, progress=False
    ).record
    assert record.kept.shapes is None
    assert record.kept.parameters < record.cost.parameters
    with pytest.raises(RecordError, match="has other layers than the run's own: not rebuilt"):
        verify_weights(record, tmp_path, device="cpu")


def test_a_child_starts_from_its_parents_narrow_network(removed):
    run, record, folder = removed
    child = run.model_copy(update={"method": None, "parent": run.configuration})
    kept = train(child, results=folder, weights=folder / "weights", threads=1, progress=False).record.kept
    assert (kept.parameters, kept.shapes) == (record.kept.parameters, record.kept.shapes)


def test_a_run_without_a_recipe_only_measures(make_run, removed):
    run, record, folder = removed
    measured = Run.model_validate({**run.model_dump(), "recipe": None, "parent": run.configuration})
    assert measured.id != run.id
    found = train(measured, results=folder, weights=folder / "weights", progress=False).record
    assert load_record(folder / "runs" / f"{measured.id}.json") == found
    assert (found.status, found.epochs, found.best, found.kept, found.weights) == ("complete", 0, None, None, None)
    assert found.measured == record.measured
    alone = Run(network={"name": "none"}, data=run.data, recipe=None, method={"name": "remover"})
    numbers = train(alone, results=folder, progress=False).record
    assert numbers.measured["images"] == 400
    assert numbers.cost.parameters == 0
    content = json.loads((folder / "runs" / f"{alone.id}.json").read_text())
    del content["measured"]
    (folder / "runs" / f"{alone.id}.json").write_text(json.dumps(content))
    with pytest.raises(RecordError, match="measured: is empty, and the run has no recipe"):
        load_record(folder / "runs" / f"{alone.id}.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": None, "method": None}, "needs a method"),
        ({"network": {"name": "none"}}, "network = 'none': cannot be trained"),
    ],
)
def test_runs_that_cannot_be(make_run, change, message):
    with pytest.raises(SpecError, match=message):
        Run.model_validate({**make_run().model_dump(), **change})


class WrongMacsOptions(ToyOptions, network="wrong macs"):
    def cost(self, image_shape, classes):
        first, *others = super().cost(image_shape, classes).terms
        return Cost((replace(first, macs=first.macs + 1), *others))


class WrongOptions(ToyOptions, network="wrong cost"):
    def cost(self, image_shape, classes):
        cost = super().cost(image_shape, classes)
        return type(cost)(cost.terms[:1] + cost.terms[2:])  # the norm is forgotten


def test_a_wrong_closed_form_stops_the_run_before_its_first_step(make_run, tmp_path):
    with pytest.raises(SpecError, match=r"cost\(\) says 86 parameters, the built network has 94") as caught:
        train(make_run("wrong cost"), results=tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(SpecError, match=r"cost\(\) says 2,345 macs, the built network has 2,344"):
        train(make_run("wrong macs"), results=tmp_path, progress=False)


def test_a_wrong_cost_in_a_record_is_refused(make_run, tmp_path):
    record = train(make_run(epochs=1), results=tmp_path, progress=False).record
    for name in ("cost", "kept"):
        content = record.model_dump(mode="json")
        content[name]["macs"] += 1
        (tmp_path / f"{record.id}.json").write_text(json.dumps(content))
        with pytest.raises(RecordError, match="macs"):
            load_record(tmp_path / f"{record.id}.json")


def test_nan_logits_are_no_answer(make_run):
    run = make_run()
    dataset = load(run.data)

    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 10), math.nan)

    assert evaluate(Broken(), dataset.test, dataset, CPU)[1] == 0.0
    logits = torch.tensor([[math.nan, 1.0], [2.0, 1.0], [math.inf, 0.0]])
    assert right(logits, torch.tensor([0, 0, 0])).tolist() == [False, True, True]


def test_a_test_loss_that_is_never_finite_is_divergence(make_run, tmp_path):
    class Ruined(Method):
        """Trains well and evaluates to nothing: the running variance is ruined after each step."""

        def after_step(self, network, optimizer, learning_rate):
            network[1].running_var.fill_(math.nan)

    class RuinedOptions(MethodOptions, method="ruined"):
        def start(self):
            return Ruined()

    record = train(make_run(method={"name": "ruined"}), results=tmp_path, progress=False).record
    assert all(math.isfinite(loss) for loss in record.series["train_loss"])
    assert record.series["test_loss"] == [None, None]
    assert (record.status, record.epochs, record.final_accuracy) == ("diverged", 2, 0.0)


# ------------------------------------------------------------------------------------------------------- narrow itself


def grouped():
    """A convolution, its norm, a depthwise and a pointwise one, a flattened linear layer."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 5, 1),
        nn.Flatten(),
        nn.Linear(5 * 4 * 4, 7),
    ).to(memory_format=torch.channels_last)


def test_removed_outputs_that_were_zero_change_nothing_and_state_follows():
    torch.manual_seed(0)
    network, x = grouped().double(), torch.randn(4, 3, 4, 4, dtype=torch.float64)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    network(x).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(network[2], name)[[1, 4]] = 0
            getattr(network[3], name)[2] = 0
    network.eval()
    before = network(x)
    momentum = optimizer.state[network[0].weight]["momentum_buffer"].clone()
    order = [id(module) for module in network]
    narrow(optimizer, network[0], "outputs", [0, 2, 3, 5], readers=[network[1], network[2], network[3]])
    narrow(optimizer, network[3], "outputs", torch.tensor([1, 1, 0, 1, 1], dtype=torch.bool), readers=[network[5]])
    torch.testing.assert_close(network(x), before)
    assert (network[2].groups, network[2].in_channels, network[3].in_channels) == (4, 4, 4)
    assert (network[5].in_features, network[1].num_features, network[3].out_channels) == (4 * 16, 4, 4)
    assert torch.equal(optimizer.state[network[0].weight]["momentum_buffer"], momentum[[0, 2, 3, 5]])
    assert [id(module) for module in network] == order
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert [id(p) for p in trained] == [id(p) for p in network.parameters()]
    assert {id(p) for p in optimizer.state} == {id(p) for p in trained}
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last)
    network.train()(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, "outputs", []), "would remove all 6 outputs"),
        ((0, "outputs", [6]), "from 0 to 5"),
        ((0, "outputs", [1, 1]), "different numbers"),
        ((0, "outputs", torch.ones(5, dtype=torch.bool)), r"a mask of \(5,\) does not fit the 6 outputs"),
        ((0, "width", [1]), "must be 'outputs' or 'inputs'"),
        ((4, "outputs", [1]), "Flatten: only Conv2d, Linear and batch norms"),
    ],
)
def test_wrong_narrowing_is_named(arguments, message):
    network = grouped()
    with pytest.raises(SpecError, match=message):
        narrow(None, network[arguments[0]], *arguments[1:])
    with pytest.raises(SpecError, match="they do not read 6 outputs"):
        narrow(None, network[0], "outputs", [0], readers=[network[5]])
    with pytest.raises(SpecError, match="only depthwise"):
        narrow(None, nn.Conv2d(4, 4, 3, groups=2), "outputs", [0])


def test_fit_gives_shapes_and_nothing_else():
    network = grouped()
    fit(network, {"0.weight": (2, 3, 3, 3), "0.bias": (2,), "2.weight": (2, 1, 3, 3)})
    assert (network[0].out_channels, network[2].groups, network[2].out_channels) == (2, 2, 2)
    with pytest.raises(SpecError, match="no tensor 'x.weight'"):
        fit(network, {"x.weight": (1,)})


class Careless(Method):
    """Fails at its end, as long as it shall."""

    failing = True

    def measure(self, network, dataset):
        if Careless.failing:
            raise SpecError("measure: failed")
        return {}


class CarelessOptions(MethodOptions, method="careless"):
    def start(self):
        return Careless()


def test_a_method_that_fails_at_its_end_loses_no_training(make_run, tmp_path):
    run = make_run(method={"name": "careless"}, epochs=3)
    places = {"results": tmp_path, "checkpoints": tmp_path / "c", "progress": False, "threads": 1}
    with pytest.raises(SpecError, match="measure: failed"):
        train(run, **places)
    Careless.failing = False
    record = train(run, **places).record
    assert len(record.sessions) == 2
    assert record.sessions[1].seconds < record.sessions[0].seconds
    assert record.epochs == 3
    assert record.series == {
        **record.series,
        **{
            "test_accuracy": train(run, results=tmp_path / "whole", progress=False, threads=1).record.series[
                "test_accuracy"
            ]
        },
    }


# --------------------------------------------------------------------------------- what a method may do, and what not


class Free(Method):
    """Does at its hooks what a test puts there."""

    hooks = {}

    def finish(self, network, dataset):
        return Free.hooks.get("finish", lambda n, d: n)(network, dataset)

    def measure(self, network, dataset):
        return Free.hooks.get("measure", lambda n, d: {})(network, dataset)

    def epoch_ends(self, network, optimizer, epoch, sample):
        return Free.hooks.get("epoch_ends", lambda epoch: {})(epoch)


class FreeOptions(MethodOptions, method="free"):
    def start(self):
        return Free()


@pytest.fixture
def trained(make_run, tmp_path, monkeypatch):
    """Train a run whose method has these hooks; its record and the folder."""

    def make(network="toy", options=None, **hooks):
        monkeypatch.setattr(Free, "hooks", hooks)
        run = make_run(network, options, method={"name": "free"})
        return train(run, results=tmp_path, weights=tmp_path, threads=1, progress=False).record

    return make


def test_what_measure_does_to_the_network_is_not_kept(trained, tmp_path):
    def ruin(network, dataset):
        for parameter in network.parameters():
            nn.init.zeros_(parameter)
        return {}

    record = trained(*NETWORKS[1], measure=ruin)
    assert verify_weights(record, tmp_path, device="cpu") == record.kept.test_accuracy


@pytest.mark.parametrize("network", ["smallnet", "thriftynet"])
def test_hooks_see_every_layer_of_a_kept_network(trained, network):
    def count_calls(network, dataset):
        seen = []
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.register_forward_hook(lambda *_: seen.append(1))
        evaluate(network, dataset.test, dataset, CPU)
        return {"training": float(network.training), "calls": len(seen)}

    options = dict(NETWORKS)["smallnet"] if network == "smallnet" else {"filters": 8, "iterations": 3, "pool": 2}
    record = trained(network, options, measure=count_calls)
    assert record.measured == {"training": 0.0, "calls": 6.0 if network == "smallnet" else 9.0}


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (3, 3.0),
        (np.float32(0.5), 0.5),
        (np.int64(2), 2.0),
        (torch.tensor(1.5), 1.5),
        (torch.arange(3), [0.0, 1.0, 2.0]),
        ((1, math.inf), [1.0, None]),
        ([], []),
    ],
)
def test_what_measure_may_return(trained, value, stored):
    assert trained(measure=lambda *_: {"x": value}).measured["x"] == stored


@pytest.mark.parametrize("value", ["text", None, {}, [[1.0]], torch.zeros(2, 2), 1j, ["x"], 10**400])
def test_what_measure_may_not_return(trained, value):
    with pytest.raises(SpecError, match="measure: x = .*: must be a number or a flat list of numbers") as caught:
        trained(measure=lambda *_: {"x": value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"measure": lambda *_: None}, "measure = None: must be numbers by name"),
        ({"measure": lambda *_: {1: 2.0}}, "must be numbers by name"),
        ({"epoch_ends": lambda epoch: {"test_accuracy": 100.0}}, "'test_accuracy' is a series of the engine's own"),
        ({"epoch_ends": lambda epoch: {"seconds": 1.0}}, "'seconds' is a series of the engine's own"),
        ({"epoch_ends": lambda epoch: {"x": [1.0]}}, "epoch_ends: x = .*: must be a number"),
        ({"epoch_ends": lambda epoch: {"x": 1.0} if epoch else {}}, "'x' is not there in every epoch"),
        ({"epoch_ends": lambda epoch: {} if epoch else {"x": 1.0}}, "'x' is not there in every epoch"),
        ({"finish": lambda *_: None}, "finish = NoneType: must return a network"),
        (
            {"finish": lambda *_: nn.Flatten()},
            r"finish: the network answers an image by \(64,\) .* 10 logits",
        ),
    ],
)
def test_what_hooks_may_not_do(trained, hooks, message):
    with pytest.raises(SpecError, match=message) as caught:
        trained(**hooks)
    assert "\n" not in str(caught.value)


def test_a_narrowed_thriftynet_is_kept_and_verified(trained, tmp_path):
    def halve(network, dataset):
        conv, kept = network.convs[0], range(0, 8, 2)
        depthwise, pointwise = conv[0], conv[1]
        narrow(None, depthwise, "outputs", kept, readers=[pointwise])
        narrow(None, pointwise, "outputs", kept, readers=[*network.norms, network.head[-1]])
        return network

    record = trained("thriftynet", {"filters": 8, "iterations": 3, "pool": 2}, finish=halve)
    assert record.kept.parameters < record.cost.parameters
    assert verify_weights(record, tmp_path, device="cpu") == record.kept.test_accuracy


def test_a_diverged_run_that_is_resumed_at_its_end_trains_no_further(make_run, tmp_path):
    run = make_run(epochs=5, learning_rate=1e30, schedule={"kind": "constant"})
    whole = advance(trainer_of(run))
    assert whole.diverged
    save_checkpoint(tmp_path / "c", run.id, *whole.state())
    resumed = trainer_of(run)
    resumed.restore(*load_checkpoint(tmp_path / "c", run.id))
    assert resumed.finished
    assert resumed.epoch == whole.epoch


def test_a_reader_that_does_not_fit_leaves_everything_as_it_was():
    network = grouped()
    before = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    with pytest.raises(SpecError, match="they do not read 6 outputs"):
        narrow(None, network[0], "outputs", [0], readers=[network[1], network[5]])
    for keep in ([0.5, 1.7], "01", [[0, 1]], 3):
        with pytest.raises(SpecError, match="must be indices or a mask"):
            narrow(None, network[0], "outputs", keep)
    assert {name: tuple(x.shape) for name, x in network.state_dict().items()} == before
    norm = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
    narrow(None, nn.Conv2d(3, 4, 3), "outputs", [0, 1], readers=[norm])


TAMPERED = [
    ("kept.test_loss", -1.0, "a cross-entropy is 0 or more"),
    ("kept.test_accuracy", 100.0, "no method changed the network"),
    ("kept.activation_bytes", 1, "nothing was narrowed"),
    ("kept.validation_accuracy", 50.0, "the run has no validation images"),
    ("kept.shapes", {"0.weight": [2, 1, 3, 3]}, "a run without a method keeps"),
    ("kept.shapes", None, "a run without a method keeps"),
    ("kept", None, "is missing, though the record has sessions"),
    ("measured", {"x": 1.0}, "a run without a method measures nothing"),
    ("status", "diverged", "all train losses are finite"),
    ("finished", "2020-01-31T12:00:00+00:00", "took longer"),
    ("sessions.0.no_commit", "none", "must say why where there is no commit"),
    ("sessions.0.seconds", 1000.0, "took longer|its sessions together have"),
    ("sessions.0.started", "yesterday", "must be an ISO date"),
    ("sessions.0.device", "another", "the last session's is 'another'"),
]


@pytest.fixture(scope="module")
def plain_record(tmp_path_factory):
    from test_engine import _run

    folder = tmp_path_factory.mktemp("plain")
    run = _run("toy", {}, schedule={"kind": "constant"})
    record = train(run, results=folder, threads=1, progress=False).record
    content = record.model_dump(mode="json")
    content["commit"] = content["sessions"][0]["commit"] = "0123456789abcdef0123456789abcdef01234567"
    content["sessions"][0]["no_commit"] = ""
    return content


@pytest.mark.parametrize(("place", "value", "message"), TAMPERED, ids=lambda value: str(value)[:24])
def test_a_record_cannot_say_what_did_not_happen(plain_record, tmp_path, place, value, message):
    content = json.loads(json.dumps(plain_record))
    path = tmp_path / f"{content['id']}.json"
    path.write_text(json.dumps(content))
    load_record(path)
    *parents, last = [int(part) if part.isdecimal() else part for part in place.split(".")]
    target = content
    for part in parents:
        target = target[part]
    target[last] = value
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=message) as caught:
        load_record(path)
    assert "\n" not in str(caught.value)


class Freezer(Method):
    """Freezes the convolution and takes weight decay from everything as the second epoch starts."""

    def epoch_starts(self, network, optimizer, epoch):
        if epoch == 1:
            network[0].weight.requires_grad_(False)
            for group in optimizer.param_groups:
                group["weight_decay"] = 0.0


class FreezerOptions(MethodOptions, method="freezer"):
    def start(self):
        return Freezer()


def test_how_parameters_are_trained_is_kept_over_a_kill(make_run, tmp_path):
    run = make_run(method={"name": "freezer"}, epochs=3, weight_decay=0.1)
    whole, trainer = advance(trainer_of(run)), advance(trainer_of(run), 6)
    save_checkpoint(tmp_path / "c", run.id, *trainer.state())
    trainer = trainer_of(run)
    trainer.restore(*load_checkpoint(tmp_path / "c", run.id))
    expected, found = whole.state()[0], advance(trainer).state()[0]
    assert all(torch.equal(expected[name], found[name]) for name in expected)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.by = nn.Parameter(torch.ones(10))

    def forward(self, x):
        return x * self.by


class Adder(Method):
    """Adds a layer as the second epoch starts, and trains it in a group of its own."""

    added, hidden = False, False

    def epoch_starts(self, network, optimizer, epoch):
        if epoch == 1:
            scale = Scale()
            if not Adder.hidden:
                network.append(scale)
            optimizer.add_param_group({"params": scale.parameters(), "weight_decay": 0.3, "momentum": 0.5})
            self.added = True

    def state(self):
        return {}, {"added": self.added}

    def restore(self, network, tensors, values):
        self.added = values["added"]
        return network.append(Scale()) if self.added else network


class AdderOptions(MethodOptions, method="adder"):
    def start(self):
        return Adder()


@pytest.mark.parametrize("kills", [(2,), (5,), (6, 2)])
def test_a_group_that_a_method_adds_to_the_optimiser_survives_a_kill(make_run, tmp_path, kills):
    run = make_run(method={"name": "adder"}, epochs=3, weight_decay_on="weights")
    whole, trainer = advance(trainer_of(run)), trainer_of(run)
    for steps in kills:
        advance(trainer, steps)
        save_checkpoint(tmp_path / "c", run.id, *trainer.state())
        trainer = trainer_of(run)
        trainer.restore(*load_checkpoint(tmp_path / "c", run.id))
    expected, found = whole.state(), advance(trainer).state()
    assert expected[1]["groups"] == found[1]["groups"]
    assert expected[1]["groups"][-1]["params"] == ["6.by"]
    assert (expected[0]["network/6.by"] != 1).all()
    assert expected[0].keys() == found[0].keys()
    assert all(torch.equal(expected[0][name], found[0][name]) for name in expected[0])


def test_a_trained_parameter_that_is_not_the_networks_is_named(make_run, monkeypatch):
    monkeypatch.setattr(Adder, "hidden", True)
    trainer = advance(trainer_of(make_run(method={"name": "adder"})), 5)
    with pytest.raises(SpecError, match="register it in the network"):
        trainer.state()


def test_one_network_that_is_not_rebuilt_does_not_hide_the_others(trained, make_run, tmp_path, capsys):
    from thriftylib.cli import app

    trained(finish=lambda network, dataset: nn.Sequential(network))
    train(make_run(seed=1), results=tmp_path, weights=tmp_path, threads=1, progress=False)
    with pytest.raises(SystemExit) as ended:
        app(["verify", "--weights", str(tmp_path), "--results", str(tmp_path), "--device", "cpu", "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert sorted(row["agrees"] for row in json.loads(said.out)) == [False, True]
    assert "not rebuilt" in said.err
