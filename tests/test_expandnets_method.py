"""ExpandNets' way to train, in the engine: momentum, resuming, confusion, what is kept, runs that start from others."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from stepping import advance, trainer_of

from thriftylib.datasets.load import load
from thriftylib.errors import RecordError, SpecError
from thriftylib.papers.expandnets_expansion import Expanded
from thriftylib.papers.expandnets_method import QUANTILES
from thriftylib.running.execute import verify_weights
from thriftylib.spec import Run
from thriftylib.training.checkpoint import load_checkpoint, save_checkpoint
from thriftylib.training.engine import train
from thriftylib.training.streams import stream, stream_seed

SMALL = {"padding": 1, "widths": [4, 6], "hidden": 8}
LARGE = {"kernel": 7, "widths": [4, 6], "hidden": 8}
RECIPE = {"learning_rate": 0.02, "weight_decay": 0.0, "schedule": {"kind": "constant"}}


@pytest.fixture
def run_of(make_run):
    """SmallNet on the digits with the method's options; None: without the method."""

    def make(method, options=None, *, parent=None, **more):
        method = None if method is None else {"name": "expandnets", "options": method}
        run = make_run("smallnet", options or SMALL, method=method, **{**RECIPE, **more})
        return Run.model_validate({**run.model_dump(), "parent": parent})

    return make


def assert_same_bits(found, expected):
    first, second = found.state()[0], expected.state()[0]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def without_times(series):
    return {name: values for name, values in series.items() if name not in ("seconds", *QUANTILES)}


def test_resetting_momentum_is_a_new_optimiser_each_epoch(make_run):
    recipe = {"augment": {}, "schedule": {"kind": "constant"}, "weight_decay": 1e-3}
    method = {"name": "expandnets", "options": {"reset_momentum": True}}
    for nesterov in (False, True):
        run = make_run(epochs=3, method=method, nesterov=nesterov, **recipe)
        found = advance(trainer_of(run)).network
        dataset = load(run.data)
        torch.manual_seed(stream_seed(0, "weights"))
        network = run.options.build(dataset.info.image_shape, 10)
        for epoch in range(3):
            optimizer = torch.optim.SGD(network.parameters(), 0.1, 0.9, nesterov=nesterov, weight_decay=1e-3)
            for index in torch.randperm(400, generator=stream("cpu", 0, "order", epoch)).split(128):
                optimizer.zero_grad()
                logits = network.train()(dataset.scaled(dataset.train.images[index]))
                F.cross_entropy(logits, dataset.train.labels[index]).backward()
                optimizer.step()
        kept = advance(trainer_of(make_run(epochs=3, nesterov=nesterov, **recipe))).network
        for a, b, c in zip(found.parameters(), network.parameters(), kept.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
            assert not torch.allclose(a, c, rtol=1e-3, atol=1e-4)


def test_momentum_of_zero_has_nothing_to_reset(run_of):
    runs = [run_of(method, momentum=0.0) for method in (None, {"reset_momentum": True})]
    assert_same_bits(*(advance(trainer_of(run)) for run in runs))


def test_a_method_that_expands_nothing_trains_as_without(run_of, tmp_path):
    bare, idle, reset = (run_of(method) for method in (None, {}, {"reset_momentum": True}))
    assert_same_bits(advance(trainer_of(bare)), advance(trainer_of(idle)))
    folders = {"results": tmp_path, "weights": tmp_path, "threads": 1, "progress": False}
    first, second, third = (load_file(tmp_path / train(r, **folders).record.weights.file) for r in (bare, idle, reset))
    assert first.keys() == second.keys() == third.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_batch_norms_are_initialised_as_in_pytorch_0_4(run_of):
    """gamma between 0 and 1, and nothing else: the other layers are initialised as usual."""
    usual, old = (trainer_of(run_of({"norm_start": start})).network for start in ("network", "uniform"))
    gammas = [module.weight for module in old.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    drawn = torch.cat([gamma.detach() for gamma in gammas])
    assert 0 <= drawn.min() < 0.3
    assert 0.7 < drawn.max() < 1
    same = [
        torch.equal(a, b)
        for a, b in zip(usual.parameters(), old.parameters(), strict=True)
        if not any(b is gamma for gamma in gammas)
    ]
    assert all(same)
    assert len(same) > len(gammas)


def test_a_run_says_nothing_of_the_usual_initialisation(run_of):
    """So the ids of the runs that were recorded before there was another stay as they are."""
    assert "norm_start" not in run_of({"norm_start": "network"}).method.options
    assert run_of({"norm_start": "network"}) == run_of({})
    assert run_of({"norm_start": "uniform"}).id != run_of({}).id


METHODS = {
    "plain": ({"reset_momentum": True}, SMALL),
    "CL+FC": ({"convs": "cl", "linear": True, "reset_momentum": True}, SMALL),
    "CK": ({"convs": "ck", "image": True, "rate": 2.0}, LARGE),
    "FC": ({"linear": True}, LARGE),
}


@pytest.mark.parametrize(("method", "options"), METHODS.values(), ids=METHODS)
def test_the_weights_kept_are_the_compact_networks_and_as_accurate_as_the_record(run_of, tmp_path, method, options):
    run = run_of(method, options, epochs=6, batch_size=20, learning_rate=0.05, augment={})
    record = train(run, results=tmp_path, weights=tmp_path / "weights", threads=1, progress=False).record
    assert record.status == "complete"
    assert record.final.test_accuracy > 30  # it has learnt something: chance is 10
    kept = load_file(tmp_path / "weights" / record.weights.file)
    assert kept.keys() == run.options.build((1, 8, 8), 10).state_dict().keys()
    assert record.cost.parameters == sum(
        tensor.numel() for name, tensor in kept.items() if "running" not in name and "tracked" not in name
    )
    accuracy = verify_weights(record, tmp_path / "weights", device="cpu")
    assert accuracy == pytest.approx(record.final.test_accuracy)


@pytest.mark.parametrize("kills", [(1,), (4,), (5, 2), (8,)])
def test_a_run_of_chains_killed_at_any_step_ends_with_the_same_bits(run_of, tmp_path, kills):
    method = {"convs": "cl", "linear": True, "reset_momentum": True, "confusion": 1}
    run = run_of(method, epochs=3)
    whole, trainer = advance(trainer_of(run)), trainer_of(run)
    assert any(isinstance(module, Expanded) for module in trainer.network.modules())
    for steps in kills:
        advance(trainer, steps)
        save_checkpoint(tmp_path / "c", run.id, *trainer.state())
        trainer = trainer_of(run)
        trainer.restore(*load_checkpoint(tmp_path / "c", run.id))
    assert_same_bits(whole, advance(trainer))
    assert {n: v for n, v in trainer.series.items() if n != "seconds"} == {
        n: v for n, v in whole.series.items() if n != "seconds"
    }


@pytest.mark.parametrize("method", [{}, {"convs": "cl", "linear": True}], ids=["plain", "chains"])
def test_confusion_is_observed_and_changes_nothing(run_of, method):
    augment = {"augment": {"crop": 1, "mixup": 0.5}}
    blind, seeing = (advance(trainer_of(run_of({**method, "confusion": count}, **augment))) for count in (0, 3))
    assert_same_bits(blind, seeing)
    assert without_times(blind.series) == without_times(seeing.series)
    assert not set(QUANTILES) & set(blind.series)
    for epoch in range(2):
        cosines = [seeing.series[name][epoch] for name in QUANTILES]
        assert cosines == sorted(cosines)
        assert -1 - 1e-6 <= cosines[0] < cosines[-1] <= 1 + 1e-6


def test_confusion_is_the_cosine_of_two_mini_batches_gradients(run_of):
    trainer = advance(trainer_of(run_of({"convs": "cl", "confusion": 1})), 4)  # one epoch
    assert trainer.epoch == 1
    trainer.epoch = 0  # its samples are drawn again
    gradients = []
    for number in (0, 1):
        trainer.network.zero_grad()
        trainer._sample(number).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in trainer.network.parameters()]).double())
    cosine = (gradients[0] @ gradients[1] / gradients[0].norm() / gradients[1].norm()).item()
    assert not torch.allclose(*gradients)
    assert [trainer.series[name][0] for name in QUANTILES] == pytest.approx([cosine] * len(QUANTILES), abs=1e-5)


def test_a_run_starts_from_its_parents_weights_of_the_same_seed(run_of, tmp_path):
    folders = {"results": tmp_path, "weights": tmp_path / "weights", "threads": 1, "progress": False}
    parent = run_of({"convs": "cl", "linear": True})
    records = [train(parent.with_seed(seed), **folders).record for seed in (0, 1)]
    still = {"epochs": 1, "learning_rate": 1e-30}  # too small to move a weight
    child = run_of(None, parent=parent.configuration, **still).with_seed(1)
    ended = load_file(tmp_path / "weights" / train(child, **folders).record.weights.file)
    first, second = (load_file(tmp_path / "weights" / record.weights.file) for record in records)
    learnt = [name for name in ended if "running" not in name and "tracked" not in name]
    assert all(torch.equal(ended[name], second[name]) for name in learnt)
    assert not any(torch.equal(ended[name], first[name]) for name in learnt)
    with pytest.raises(RecordError, match=f"{parent.configuration} with seed 2.*train that run first") as caught:
        train(child.with_seed(2), **folders)
    assert "\n" not in str(caught.value)
    other = Run.model_validate({**child.model_dump(), "network": {"name": "smallnet", "options": {"kernel": 7}}})
    with pytest.raises(RecordError, match=f"{parent.configuration} is another network; first difference: ") as caught:
        train(other, **folders)
    assert "\n" not in str(caught.value)
    with pytest.raises(SpecError, match="method expandnets replaces layers, and with them the weights of its parent"):
        train(run_of({"convs": "cl"}, parent=parent.configuration).with_seed(1), **folders)
    (tmp_path / "weights" / records[1].weights.file).unlink()
    (tmp_path / "runs" / f"{child.id}.json").unlink()
    with pytest.raises(RecordError, match="missing, though record"):
        train(child, **folders)
