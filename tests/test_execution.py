"""Ways to execute a training's steps: what a CUDA graph would capture is run from its static buffers, without capture.

While it runs, all that the host decides anew for each step is poisoned: a step that read it would differ.
"""

import json
import math

import pytest
import torch
from stepping import CPU, advance
from typer.testing import CliRunner

from thriftylib.cli import app
from thriftylib.cli.app import Execution as ExecutionOption
from thriftylib.datasets.load import load
from thriftylib.errors import SpecError
from thriftylib.evidence.records import Session, load_record, save_record
from thriftylib.experiments import EXPERIMENTS
from thriftylib.method import Method
from thriftylib.options import MethodOptions
from thriftylib.training import execution
from thriftylib.training.engine import train
from thriftylib.training.execution import Executor, Replayed, difference
from thriftylib.training.trainer import Trainer

SMALL = {"name": "digits", "train_images": 40, "test_images": 20}  # two batches of 16 and a short one


def smoke_runs():
    """One of each network and method that the smoke grids train from the start, on a few images."""
    found = {}
    for experiment in EXPERIMENTS.values():
        for configuration in experiment.configurations("smoke"):
            run = configuration.run
            if run.recipe and not run.parent:
                found.setdefault((run.network.name, run.method and run.method.name), run)
    for (network, method), run in sorted(found.items(), key=str):
        recipe = run.recipe.model_copy(update={"batch_size": 16, "epochs": 3})
        name = f"{network}-{method}" if method else network
        yield pytest.param(run.model_copy(update={"data": type(run.data)(**SMALL), "recipe": recipe}), id=name)


@pytest.fixture
def without_capture(monkeypatch):
    """A CPU passes for a GPU; a replay is the captured function, and ``replays`` counts them."""
    replays = []

    def capture(step, device, generator):
        for _ in range(execution.WARM_UP + 1):  # as a capture does
            step()
        trainer = step.__self__.trainer

        def replay():
            groups = trainer.optimizer.param_groups
            decided = trainer.epoch, trainer.batch, trainer.order, [group["lr"] for group in groups]
            trainer.epoch = trainer.batch = trainer.order = None
            for group in groups:
                group["lr"] = math.nan
            step()
            trainer.epoch, trainer.batch, trainer.order, rates = decided
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate
            replays.append(step.__self__)

        return replay

    monkeypatch.setattr(execution, "capture", capture)
    monkeypatch.setattr(execution, "obstacle", execution.varies)
    return replays


def trainer_by(run, asked, precision="fp32"):
    return Trainer(run, load(run.data, seed=run.seed), CPU, precision, execution=asked)


def outcome(trainer):
    """Weights, momentum, series: all that a checkpoint holds, but times."""
    tensors, values = trainer.state()
    series = {name: numbers for name, numbers in values["series"].items() if name != "seconds"}
    return tensors, (series, values["groups"], values["method"])


def check_equal(one, other):
    (tensors, values), (tensors_too, values_too) = outcome(one), outcome(other)
    assert values == values_too
    assert tensors.keys() == tensors_too.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, tensors_too[name]), name


def check_graph_is_eager(run, replays):
    eager, graph = advance(trainer_by(run, "eager")), advance(trainer_by(run, "graph"))
    check_equal(eager, graph)
    assert (eager.executor.describe(), graph.executor.describe(), graph.executor.why) == ("eager", "graph", "")
    full = run.data.training_images // run.recipe.batch_size
    assert len(replays) == full * run.recipe.epochs
    return replays


@pytest.mark.parametrize("run", list(smoke_runs()))
def test_a_whole_training_from_static_buffers_is_the_eager_one(run, without_capture):
    check_graph_is_eager(run, without_capture)


RECIPES = {
    "plateau": {"schedule": {"kind": "plateau", "patience": 0, "monitor": "train_loss"}},
    "inverse, biases faster": {"schedule": {"kind": "inverse", "gamma": 0.1}, "bias_rate": 2.0},
    "no momentum, no decay": {"momentum": 0.0, "weight_decay": 0.0},
    "decay of weights alone, Nesterov": {"weight_decay_on": "weights", "nesterov": True},
    "mixup, cutout, smoothing": {"augment": {"mixup": 0.5, "cutout": 3}, "label_smoothing": 0.1},
    "cutmix": {"augment": {"cutmix": 0.5, "crop": 1, "crop_padding": "reflect"}},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe(recipe, without_capture, make_run):
    check_graph_is_eager(make_run(data=SMALL, batch_size=16, epochs=4, **recipe), without_capture)


def test_random_layers_draw_what_they_would(without_capture, make_run):
    options = {"filters": 8, "iterations": 3, "activation": "rrelu"}
    check_graph_is_eager(make_run("thriftynet", options, data=SMALL, batch_size=16), without_capture)


def less_is_more(make_run, **options):
    """Twelve full batches and a short one in each of three epochs: some neurons become zero."""
    network = {"padding": 2, "widths": [4, 6], "hidden": 20}
    method = {"name": "less-is-more", "options": options}
    steady = {"learning_rate": 0.05, "schedule": {"kind": "constant"}, "augment": {}, "batch_size": 32, "epochs": 3}
    return make_run("caffe-lenet", network, method=method, **steady)


def test_a_network_that_is_narrowed_is_captured_anew(without_capture, make_run):
    run = less_is_more(make_run, group_sparsity=0.95, constrained_epochs=2)
    replays = check_graph_is_eager(run, without_capture)
    assert len(set(replays)) == 2  # as it is, and without the neurons that are zero


def test_low_rank_steps(without_capture, make_run):
    check_graph_is_eager(less_is_more(make_run, low_rank=0.3), without_capture)


def test_resumed_in_the_middle_of_an_epoch(without_capture, make_run):
    run = make_run(data=SMALL, batch_size=16)
    begun = advance(trainer_by(run, "graph"), 4)
    tensors, values = begun.state()
    resumed = trainer_by(run, "graph")
    resumed.restore({name: x.clone() for name, x in tensors.items()}, json.loads(json.dumps(values)))
    check_equal(advance(resumed), advance(trainer_by(run, "eager")))
    assert resumed.executor.describe() == "graph"


class Counting(Method):
    varies = True


class CountingOptions(MethodOptions, method="counting"):
    def start(self):
        return Counting()


def test_what_cannot_be_replayed_is_eager_and_says_why(without_capture, make_run):
    run = make_run(augment={"autoaugment": True})
    assert trainer_by(run, "graph").executor.why == (
        "no CUDA graph, since AutoAugment decides on the CPU which operation comes"
    )
    counting = trainer_by(make_run(method={"name": "counting", "options": {}}), "graph").executor
    assert (counting.mode, counting.why.partition("method ")[2]) == (
        "eager",
        "counting changes what the network computes from step to step",
    )
    trainer = trainer_by(make_run(), "eager")
    trainer.optimizer.param_groups[0]["dampening"] = 0.5
    assert Executor(trainer, "graph").why == "no CUDA graph, since its optimiser is not plain SGD"


def test_on_a_cpu_auto_is_eager_without_a_word_and_a_graph_says_why(make_run):
    assert [(e.mode, e.why) for e in (trainer_by(make_run(), each).executor for each in ("auto", "graph"))] == [
        ("eager", ""),
        ("eager", "no CUDA graph, which needs a GPU"),
    ]
    with pytest.raises(SpecError, match="execution = 'fast': must be one of auto, eager, compiled, graph"):
        trainer_by(make_run(), "fast")


WRONG = {
    "old images": lambda replayed, index: Replayed.__call__(replayed, replayed.index.clone()),
    "an old learning rate": lambda replayed, index: (
        Replayed.__call__(replayed, index),
        [
            p.data.add_(replayed.trainer.optimizer.state[p]["momentum_buffer"], alpha=0.01)
            for p in replayed.trainer.network.parameters()
        ],
    ),
    "no finite numbers": lambda replayed, index: [
        p.data.fill_(math.nan) for p in replayed.trainer.network.parameters()
    ],
    "a failure": lambda replayed, index: [].pop(),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_first_step_that_is_wrong_ends_the_graph_and_loses_nothing(wrong, without_capture, make_run, monkeypatch):
    run, said = make_run(data=SMALL, batch_size=16), []

    class Wrong(Replayed):
        __call__ = wrong

    monkeypatch.setattr(execution, "Replayed", Wrong)
    trainer = trainer_by(run, "graph")
    trainer.executor.step(trainer.order[:16], said.append)
    assert (len(said), trainer.executor.mode, trainer.executor.why) == (1, "eager", said[0])
    assert said[0].startswith("goes on eagerly, since graph does not work here (")
    eager = trainer_by(run, "eager")
    eager.executor.step(eager.order[:16], said.append)
    check_equal(trainer, eager)
    assert trainer.executor.describe() == "eager"


def test_how_far_two_steps_are_apart():
    before, expected = ({"weights": [torch.tensor(x)], "correct": [torch.ones(1)]} for x in ([0.0, 0.0], [3.0, 4.0]))
    found = {"weights": [torch.tensor([3.0, 4.5])], "correct": [torch.zeros(1)]}
    assert difference(before, expected, found) == pytest.approx(0.1)
    assert difference(before, expected, expected) == 0
    assert math.isnan(difference(before, expected, {**found, "weights": [torch.tensor([math.nan, 0.0])]}))


def test_compiled_networks_are_the_eager_ones_up_to_rounding(make_run, monkeypatch):
    """Traced as for Inductor, whose own work takes long: ``thrifty doctor`` does that."""
    compile, seen = torch.compile, []
    monkeypatch.setattr(
        torch, "compile", lambda x, **how: seen.append(how) or compile(x, backend="aot_eager", dynamic=False)
    )
    run = make_run("thriftynet", {"filters": 8, "iterations": 3}, data=SMALL, batch_size=16)
    compiled = advance(trainer_by(run, "compiled"))
    assert (compiled.executor.describe(), compiled.executor.why) == ("compiled", "")
    assert seen == [{"dynamic": False, "options": {"force_layout_optimization": True}}]


def test_a_record_says_how_steps_were_executed(tmp_path, without_capture, make_run):
    run = make_run(data=SMALL, batch_size=16, epochs=1)
    folders = {"results": tmp_path, "checkpoints": tmp_path / "checkpoints"}
    assert train(run, **folders, budget=1e-9, execution="graph", progress=False).stopped == "budget"
    record = train(run, **folders, execution="eager", progress=False).record
    assert [session.execution for session in record.sessions] == ["graph", "eager"]
    path = tmp_path / "runs" / f"{run.id}.json"
    assert path.read_text().count('"execution"') == 1
    assert load_record(save_record(load_record(path), tmp_path / "again")) == record


def test_old_sessions_were_eager():
    assert Session.model_fields["execution"].default == "eager"


def test_the_command_refuses_another_way():
    assert [each.value for each in ExecutionOption] == list(execution.EXECUTIONS)
    result = CliRunner().invoke(app, ["train", "--preset", "smoke", "--execution", "quick"])
    assert result.exit_code == 2
    assert "'graph'" in result.output
