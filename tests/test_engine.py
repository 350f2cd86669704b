"""The engine: exact resuming, stopping, and agreement with a plain PyTorch loop."""

import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from stepping import CPU, advance, trainer_of
from torch import nn

from thriftylib.datasets.load import load
from thriftylib.errors import CheckpointError, ThriftyError
from thriftylib.evidence.records import load_record
from thriftylib.method import Method
from thriftylib.options import MethodOptions
from thriftylib.training.augment import augment
from thriftylib.training.checkpoint import load_checkpoint, save_checkpoint
from thriftylib.training.device import choose_device
from thriftylib.training.engine import train
from thriftylib.training.evaluation import evaluate
from thriftylib.training.progress import duration
from thriftylib.training.signals import collect_signals
from thriftylib.training.streams import stream, stream_seed
from thriftylib.training.trainer import Trainer, make_optimizer


def bits(trainer):
    return {name: tensor.clone() for name, tensor in trainer.state()[0].items()}


def without_times(series):
    return {name: values for name, values in series.items() if name != "seconds"}


NETWORKS = [
    ("toy", {}),
    ("thriftynet", {"filters": 6, "iterations": 3, "history": 2, "pool": 2, "activation": "rrelu"}),
]


@pytest.mark.parametrize(("network", "options"), NETWORKS, ids=["toy", "thriftynet-rrelu"])
@settings(max_examples=8, deadline=None)
@given(kills=st.lists(st.integers(1, 7), min_size=1, max_size=2))
def test_a_run_killed_at_any_step_ends_with_the_same_bits(tmp_path_factory, network, options, kills):
    run = _run(network, options)
    whole = advance(trainer_of(run))
    trainer = trainer_of(run)
    path = tmp_path_factory.mktemp("checkpoints") / "run.safetensors"
    for steps in kills:
        advance(trainer, steps)
        save_checkpoint(path, run.id, *trainer.state())
        trainer = trainer_of(run)
        trainer.restore(*load_checkpoint(path, run.id))
    advance(trainer)
    first, second = bits(whole), bits(trainer)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert without_times(whole.series) == without_times(trainer.series)


def _run(network, options, **recipe):
    from thriftylib.spec import Run

    values = {
        "name": "test",
        "epochs": 2,
        "batch_size": 128,
        "learning_rate": 0.1,
        "schedule": {"kind": "plateau", "patience": 0},
    }
    values |= {"augment": {"crop": 1, "flip": True, "mixup": 0.5}} | recipe
    data = {"name": "digits", "train_images": 400, "test_images": 100}
    return Run(network={"name": network, "options": options}, data=data, recipe=values)


def test_the_engine_is_a_plain_pytorch_loop(make_run):
    run = make_run(epochs=3, schedule={"kind": "steps", "milestones": [2]}, nesterov=True, label_smoothing=0.1)
    ours = advance(trainer_of(run))

    dataset = load(run.data)
    torch.manual_seed(stream_seed(0, "weights"))
    network = run.options.build(dataset.info.image_shape, 10)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2])
    for epoch in range(3):
        network.train()
        order = torch.randperm(400, generator=stream("cpu", 0, "order", epoch))
        for batch, index in enumerate(order.split(128)):
            pixels = dataset.train.images[index]
            pixels = augment(pixels, run.recipe.augment, stream("cpu", 0, "augment", epoch, batch), [78])
            loss = F.cross_entropy(network(dataset.scaled(pixels)), dataset.train.labels[index], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(ours.network.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    network.eval()
    with torch.no_grad():
        logits = network(dataset.scaled(dataset.test.images))
    assert ours.series["test_accuracy"][-1] == pytest.approx(
        100 * (logits.argmax(1) == dataset.test.labels).double().mean().item()
    )
    assert ours.series["test_loss"][-1] == pytest.approx(F.cross_entropy(logits, dataset.test.labels).item(), rel=1e-5)
    assert ours.series["learning_rate"] == pytest.approx([0.1, 0.1, 0.01])


def test_weights_only_decay_spares_norms_biases_and_coefficients():
    network = _run("thriftynet", {"filters": 6, "iterations": 2, "history": 1, "pool": None}).options.build(
        (1, 8, 8), 10
    )
    recipe = _run("toy", {}, weight_decay=0.5, weight_decay_on="weights").recipe
    groups = make_optimizer(network, recipe).param_groups
    decayed = {id(p) for p in groups[0]["params"]}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in decayed}
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert names
    assert all(name.endswith("weight") for name in names)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_the_record_says_what_happened(make_run, tmp_path):
    run = make_run(epochs=3)
    trained = train(run, results=tmp_path, weights=tmp_path / "weights", threads=1, progress=False)
    record = load_record(tmp_path / "runs" / f"{run.id}.json")
    assert record == trained.record
    assert trained.stopped is None
    assert record.status == "complete"
    assert record.epochs == 3
    assert record.sittings == 1
    accuracies = record.series["test_accuracy"]
    assert record.best.test_accuracy == max(accuracies)
    assert record.best.epoch == accuracies.index(max(accuracies))
    assert record.final.test_accuracy == accuracies[-1]
    assert record.cost.parameters == 4 * 9 + 2 * 4 + 50
    assert (record.precision, record.threads) == ("fp32", 1)
    network = run.options.build((1, 8, 8), 10)
    network.load_state_dict(load_file(tmp_path / "weights" / record.weights.file))
    dataset = load(run.data)
    assert evaluate(network, dataset.test, dataset, CPU)[1] == pytest.approx(record.final.test_accuracy)


def test_a_loss_that_is_no_number_ends_the_run_as_diverged(make_run, tmp_path):
    run = make_run(epochs=5, learning_rate=1e30, schedule={"kind": "constant"})
    record = train(run, results=tmp_path, progress=False).record
    assert record.status == "diverged"
    assert record.epochs < 5
    assert None in record.series["train_loss"]


def test_the_budget_stops_cleanly_and_the_next_call_goes_on(make_run, tmp_path):
    run = make_run(epochs=3)
    places = {"results": tmp_path / "cut", "checkpoints": tmp_path / "checkpoints", "progress": False, "threads": 1}
    sessions = 0
    while (trained := train(run, budget=0.0, **places)).record is None:
        assert trained.stopped == "budget"
        assert list((tmp_path / "checkpoints").iterdir())
        sessions += 1
        assert sessions < 50
    whole = train(run, results=tmp_path / "whole", progress=False, threads=1).record
    assert sessions >= 3
    assert trained.record.sittings == sessions + 1
    assert without_times(trained.record.series) == without_times(whole.series)
    assert not list((tmp_path / "checkpoints").iterdir())


PROGRAM = """
import json, sys
from pathlib import Path
import conftest
from thriftylib.spec import Run
from thriftylib.training.engine import train
where = Path(sys.argv[1])
trained = train(
    Run.recorded(json.loads((where / "run.json").read_text())),
    results=where, weights=where, checkpoints=where / "checkpoints", threads=1, checkpoint_every=0.0,
)
sys.exit(0 if trained.record else 3)
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A run of some hundred steps, and the checksum of its weights."""
    run, folder = _run("toy", {"width": 16}, epochs=30), tmp_path_factory.mktemp("whole")
    return run, train(run, results=folder, weights=folder, threads=1, progress=False).record.weights.sha256


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 3), (signal.SIGINT, 3), (signal.SIGKILL, -9)])
def test_a_killed_process_goes_on_to_the_same_weights(uninterrupted, tmp_path, number, code):
    run, sha256 = uninterrupted
    (tmp_path / "run.json").write_text(run.canonical())
    environment = {**os.environ, "PYTHONPATH": _with_tests(), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("checkpoints/[!.]*.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    said = process.communicate()[1]
    assert process.returncode == code, said
    if code == 3:
        assert "stopped by signal" in said
        assert "the same command goes on" in said
    places = {"results": tmp_path, "weights": tmp_path, "checkpoints": tmp_path / "checkpoints"}
    record = train(run, **places, threads=1, progress=False).record
    assert record.sittings == 2
    assert record.weights.sha256 == sha256


def _with_tests():
    """The path of a process that imports what this one does, and conftest."""
    return os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])


def test_a_foreign_or_broken_checkpoint_is_refused(make_run, tmp_path):
    run, other = make_run(), make_run(seed=1)
    path = tmp_path / f"{run.id}.safetensors"
    save_checkpoint(path, other.id, *trainer_of(other).state())
    with pytest.raises(CheckpointError, match=f"belongs to run {other.id}, not to {run.id}"):
        train(run, results=tmp_path, checkpoints=tmp_path, progress=False)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(run, results=tmp_path, checkpoints=tmp_path, progress=False)


class Notebook(Method):
    """A method that writes down which hook was called, remembers it over a kill, and halves the weights at the end."""

    def __init__(self):
        self.calls = []

    def prepare(self, network, parent):
        self.calls.append("prepare")
        return network

    def epoch_starts(self, network, optimizer, epoch):
        self.calls.append(f"start {epoch}")
        for state in optimizer.state.values():
            state["momentum_buffer"].zero_()

    def after_step(self, network, optimizer, learning_rate):
        self.calls.append("step")

    def epoch_ends(self, network, optimizer, epoch, sample):
        return {"steps": float(self.calls.count("step"))}

    def finish(self, network, dataset):
        return nn.Sequential(network)

    def state(self):
        return {"marks": torch.tensor([len(self.calls)])}, {"calls": self.calls}

    def restore(self, network, tensors, values):
        assert tensors["marks"].item() == len(values["calls"])
        self.calls = values["calls"]
        return network


class NotebookOptions(MethodOptions, method="notebook"):
    def start(self):
        return Notebook()


def test_a_method_sees_every_hook_also_over_a_kill(make_run, tmp_path):
    run = make_run(method={"name": "notebook"}, batch_size=200)
    trainer = advance(trainer_of(run), 3)
    save_checkpoint(tmp_path / "c", run.id, *trainer.state())
    trainer = trainer_of(run)
    trainer.restore(*load_checkpoint(tmp_path / "c", run.id))
    advance(trainer)
    assert trainer.method.calls == ["prepare", "start 0", "step", "step", "start 1", "step", "step"]
    assert trainer.series["steps"] == [2.0, 4.0]
    record = train(run, results=tmp_path, weights=tmp_path, progress=False).record
    assert record.series["steps"] == [2.0, 4.0]
    assert all(name.startswith("0.") for name in load_file(tmp_path / record.weights.file))


class Looker(Method):
    """Looks at the gradient of a sample as each epoch ends."""

    def epoch_ends(self, network, optimizer, epoch, sample):
        before = [buffer.clone() for buffer in network.buffers()]
        first, again, other = (sample(number) for number in (0, 0, 1))
        assert first == again != other
        gradient = torch.autograd.grad(first, network[0].weight)[0]
        assert all(map(torch.equal, before, network.buffers()))
        return {"norm": gradient.norm()}


class LookerOptions(MethodOptions, method="looker"):
    def start(self):
        return Looker()


def test_a_sample_leaves_no_trace(make_run):
    plain, looked = advance(trainer_of(make_run())), advance(trainer_of(make_run(method={"name": "looker"})))
    first, second = bits(plain), bits(looked)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(norm > 0 for norm in looked.series["norm"])


def test_a_validation_split_can_steer_the_plateau(make_run):
    schedule = {"kind": "plateau", "monitor": "validation_loss", "patience": 0, "factor": 0.5, "min_learning_rate": 0.0}
    run = make_run(epochs=8, schedule=schedule, data={"validation_images": 50}, learning_rate=0.5)
    series = advance(trainer_of(run)).series
    losses, rate, best = series["validation_loss"], 0.5, math.inf
    for loss, given_rate in zip(losses, series["learning_rate"], strict=True):
        assert given_rate == pytest.approx(rate)
        rate, best = (rate, loss) if loss < best * (1 - 1e-4) else (rate / 2, best)
    assert "validation_accuracy" in series
    assert series["learning_rate"][-1] < 0.5


def test_bf16_keeps_weights_and_statistics_in_fp32(make_run):
    run = make_run("thriftynet", {"filters": 8, "iterations": 3, "pool": 2}, epochs=1)
    trainer = Trainer(run, load(run.data), CPU, "bf16")
    advance(trainer)
    assert {tensor.dtype for tensor in trainer.network.state_dict().values()} <= {torch.float32, torch.int64}
    assert math.isfinite(trainer.series["test_loss"][0])


def test_first_weights_depend_on_the_seed_alone(make_run):
    def first(seed):
        torch.rand(3)  # whatever was drawn before
        return trainer_of(make_run(seed=seed)).network[0].weight

    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


def test_the_callers_random_numbers_are_left_alone(make_run, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    train(make_run(epochs=1), results=tmp_path, progress=False)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"device": "gpu"}, "device = 'gpu': must be auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:99"}, "cpu works"),
        ({"precision": "fp16"}, "precision = 'fp16': must be auto, fp32 or bf16"),
    ],
)
def test_a_wrong_device_or_precision_is_named(make_run, tmp_path, keywords, message):
    with pytest.raises(ThriftyError, match=message):
        train(make_run(), results=tmp_path, progress=False, **keywords)


def test_progress_is_one_plain_line_per_epoch_off_a_terminal(make_run, tmp_path, capsys):
    train(make_run(epochs=3), results=tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(word in lines[1] for word in ("epoch 2/3", "loss", "test", "images/s", "left"))


def test_durations_read_well():
    assert [duration(seconds) for seconds in (4.4, 65, 7500)] == ["4s", "1m05s", "2h05m"]


ODD_DEVICES = ("mps", "xpu", "meta", "cpu:7", "cuda:9999", "cuda:-1", "CPU", "", "cuda:1:2", "cu\nda", "a\0")


@pytest.mark.parametrize("name", ODD_DEVICES)
def test_a_device_that_cannot_be_is_one_line(name):
    with pytest.raises(ThriftyError, match="device = ") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def test_memory_that_will_not_do_is_found_before_the_first_step(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "step", None)
    run = make_run(options={"width": 10_000_000})
    with pytest.raises(ThriftyError, match="needs more than [0-9]+ GiB of memory, cpu has [0-9]+ GiB"):
        train(run, results=tmp_path, progress=False)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_every_signal_of_a_batch_system_stops_a_training_in_order(make_run, tmp_path, name):
    """Sent twice, as some do."""
    run, places = make_run(epochs=1), {"results": tmp_path, "checkpoints": tmp_path, "progress": False, "threads": 1}
    with collect_signals() as received:
        for _ in range(2):
            os.kill(os.getpid(), getattr(signal, name))
        assert received == [getattr(signal, name)] * 2
        assert train(run, **places).stopped == "signal"
    assert list(tmp_path.glob("*.safetensors"))


def test_a_hang_up_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with collect_signals() as received:
            os.kill(os.getpid(), signal.SIGHUP)
            assert received == []
    finally:
        signal.signal(signal.SIGHUP, before)
