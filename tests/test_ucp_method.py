"""UCP's ways to train, in the engine: scores in records, narrow networks from them, resuming, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file
from stepping import advance, trainer_of

from thriftylib.datasets.load import load
from thriftylib.errors import SpecError
from thriftylib.method import Parent
from thriftylib.papers.ucp import UcpOptions
from thriftylib.papers.ucp_method import Ucp, top
from thriftylib.running.execute import verify_weights
from thriftylib.spec import Run
from thriftylib.training.checkpoint import load_checkpoint, save_checkpoint
from thriftylib.training.engine import train
from thriftylib.training.trainer import Trainer

SMALL = {"blocks": 1, "outer": [4, 8, 20]}
RECIPE = {"learning_rate": 0.05, "weight_decay": 1e-4, "schedule": {"kind": "constant"}, "epochs": 1}


def changed(run, **values):
    return Run.model_validate({**run.model_dump(), **values})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ucp")


def trained(run, folder):
    options = {"results": folder, "weights": folder / "weights", "threads": 1, "progress": False, "device": "cpu"}
    return train(run, **options).record


@pytest.fixture
def scored(make_run, folder):
    """A run of a small network with excitation blocks, trained and scored, and its record."""
    run = make_run("ucp-resnet", {**SMALL, "excited": "inner"}, method={"name": "ucp-scores", "options": {}}, **RECIPE)
    return run, trained(run, folder)


def child(scored, **options):
    run, _ = scored
    return changed(
        run,
        network={"name": "ucp-resnet", "options": SMALL},
        method={"name": "ucp", "options": options},
        parent=run.configuration,
    )


def parent_of(scored, folder):
    _, record = scored
    return Parent(record, load_file(folder / "weights" / record.weights.file))


def test_a_record_has_the_scores_of_the_kept_network(scored, folder):
    run, record = scored
    names = [f"scores blocks.{i}.conv1" for i in range(3)]
    assert [name for name in record.measured if name.startswith("scores ")] == names
    assert [len(record.measured[name]) for name in names] == [4, 8, 20]
    assert record.measured["tied_layers"] in (0.0, pytest.approx(100 / 3))  # the layer of 20 has no biases
    again = changed(run, recipe=None, parent=run.configuration)
    found = trained(again, folder).measured
    assert found == record.measured
    of_test = changed(again, method={"name": "ucp-scores", "options": {"split": "test", "mode": "training"}})
    assert trained(of_test, folder).measured != record.measured


def test_a_redraw_is_another_network_of_the_same_seed(scored):
    run, _ = scored
    other = changed(run, method={"name": "ucp-scores", "options": {"redraws": 1}})
    one, two = (trainer_of(each).network.state_dict() for each in (run, other))
    assert not torch.equal(one["conv.weight"], two["conv.weight"])
    assert torch.equal(trainer_of(other).network.conv.weight, two["conv.weight"])


def test_a_redraw_of_what_a_parent_replaces_is_refused(scored):
    run, _ = scored
    with pytest.raises(SpecError, match="^redraws = 1: must be 0 with a parent, whose weights replace every draw$"):
        changed(run, method={"name": "ucp-scores", "options": {"redraws": 1}}, parent=run.configuration)


@pytest.mark.parametrize("widths", ["scores", "uniform", "shuffled", "reversed", "magnitude"])
def test_a_narrow_network_is_kept_and_verified(scored, folder, widths):
    run = child(scored, widths=widths)
    record = trained(run, folder)
    kept = record.measured["widths"]
    assert record.kept.parameters < run.cost.parameters
    assert record.kept.shapes["blocks.2.conv1.weight"][0] == kept[2]
    cost = run.options.narrowed([int(width) for width in kept]).cost((1, 8, 8), 10)
    assert (record.kept.parameters, record.kept.macs) == (cost.parameters, cost.macs)
    assert verify_weights(record, folder / "weights", device="cpu") == pytest.approx(record.kept.test_accuracy)
    own = trained(child(scored), folder).kept
    channel = max(9 * 64 * 8, 9 * 16 * 28, 9 * 4 * 28)  # the dearest: first, second and third block
    assert abs(record.kept.macs - own.macs) <= channel


def test_equal_parameters_are_matched_too(scored, folder):
    record = trained(child(scored, widths="uniform", budget="parameters"), folder)
    own = trained(child(scored), folder).kept
    assert abs(record.kept.parameters - own.parameters) <= 9 * 28 + 2


def test_from_scratch_at_given_widths_no_score_has_any_part(scored, folder):
    """The uniform widths of ResNets: whichever channels the scores choose, the training is the same to the last bit."""
    runs = [child(scored, keep=[2, 4, 10], channels=channels) for channels in ("scores", "magnitude", "random")]
    first, *others = (load_file(folder / "weights" / trained(run, folder).weights.file) for run in runs)
    assert all(torch.equal(first[name], other[name]) for other in others for name in first)


def test_fine_tuning_starts_from_the_chosen_channels_times_their_scores(scored, folder):
    parent, (_, record) = parent_of(scored, folder), scored
    network = child(scored).build()
    Ucp(UcpOptions(keep=[2, 4, 10], weights="parent")).prepare(network, parent)
    for i, width in enumerate((2, 4, 10)):
        scores = torch.tensor(record.measured[f"scores blocks.{i}.conv1"], dtype=torch.float64)
        keep = top(scores, width)
        own = parent.tensors[f"blocks.{i}.conv1.weight"][keep]
        expected = own * scores[keep].float()[:, None, None, None]
        torch.testing.assert_close(network.blocks[i].conv1.weight.detach(), expected)
        assert torch.equal(network.blocks[i].conv2.weight, parent.tensors[f"blocks.{i}.conv2.weight"][:, keep])
        assert torch.equal(network.blocks[i].norm1.weight, parent.tensors[f"blocks.{i}.norm1.weight"][keep])
    assert torch.equal(network.head.weight, parent.tensors["head.weight"])


def test_fresh_weights_are_those_of_no_parent(scored, folder):
    parent = parent_of(scored, folder)
    network = Ucp(UcpOptions(keep=[4, 8, 20])).prepare(child(scored).build(), parent)
    assert not torch.equal(network.conv.weight, parent.tensors["conv.weight"])


@pytest.mark.parametrize("weights", ["fresh", "parent"])
def test_a_narrow_training_resumes_bit_identically(scored, folder, tmp_path, weights):
    run, parent = child(scored, weights=weights, widths="shuffled"), parent_of(scored, folder)

    def begin():
        return Trainer(run, load(run.data, seed=run.seed), torch.device("cpu"), "fp32", parent)

    whole = advance(begin())
    killed = advance(begin(), 2)
    save_checkpoint(tmp_path / "checkpoint", run.id, *killed.state())
    resumed = begin()
    resumed.restore(*load_checkpoint(tmp_path / "checkpoint", run.id))
    found, expected = advance(resumed).state()[0], whole.state()[0]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert found["network/blocks.0.conv1.weight"].shape[0] < 4 or found["network/blocks.1.conv1.weight"].shape[0] < 8


def test_what_is_no_parent_is_refused(scored, folder):
    parent = parent_of(scored, folder)
    record = parent.record
    method = Ucp(UcpOptions())
    with pytest.raises(SpecError, match="method ucp: needs a parent, a run of the method ucp-scores"):
        method.prepare(child(scored).build(), None)
    without = Parent(record.model_copy(update={"measured": {}}), parent.tensors)
    with pytest.raises(SpecError, match="measured no scores: it must be a run of the method ucp-scores"):
        method.prepare(child(scored).build(), without)
    wider = changed(child(scored), network={"name": "ucp-resnet", "options": {"blocks": 1, "outer": [4, 9, 20]}})
    with pytest.raises(SpecError, match=r"another network: 8 of blocks\.1\.conv1, while this one has 9 such channels"):
        method.prepare(wider.build(), parent)
    deeper = changed(child(scored), network={"name": "ucp-resnet", "options": {**SMALL, "blocks": 2}})
    with pytest.raises(SpecError, match=r"another network"):
        method.prepare(deeper.build(), parent)
    vgg = changed(child(scored), network={"name": "ucp-vgg", "options": {"convs": [4] * 13, "pools": 1}})
    with pytest.raises(SpecError, match=r"another network: 4 of blocks\.0\.conv1, while this one has no such channels"):
        method.prepare(vgg.build(), parent)
    excited = changed(child(scored), network=scored[0].network)
    with pytest.raises(SpecError, match="the narrow network has no excitation blocks; its option excited must be off"):
        method.prepare(excited.build(), parent)
    toy = changed(child(scored), network={"name": "toy", "options": {}})
    with pytest.raises(SpecError, match="UCP scores and narrows the networks ucp-vgg and ucp-resnet alone"):
        method.prepare(toy.build(), parent)
