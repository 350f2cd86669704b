"""Checkpoints: whatever was changed in one is found, nothing is trained on it, and nothing is lost."""

import random

import pytest
from safetensors.torch import load_file, save_file
from stepping import trainer_of

from thriftylib.errors import CheckpointError
from thriftylib.training.checkpoint import load_checkpoint, save_checkpoint, saved_values
from thriftylib.training.engine import train


@pytest.fixture
def begun(make_run, tmp_path):
    """A run, where it trains, and its checkpoint after the first step."""
    run = make_run(epochs=1)
    places = {"results": tmp_path, "checkpoints": tmp_path / "c", "threads": 1, "progress": False}
    assert train(run, budget=0.0, **places).stopped == "budget"
    (path,) = tmp_path.glob("c/*.safetensors")
    return run, places, path


def test_every_changed_byte_is_found(begun):
    run, _, path = begun
    whole = path.read_bytes()
    assert load_checkpoint(path, run.id)[1]["batch"] == 1
    places = random.Random(0).sample(range(len(whole)), 250)
    for place in [*range(33), *places]:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path, run.id)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    for content in (whole[:-1], whole + b"\0", whole[: len(whole) // 2], b"", b"\xff" * 8, b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load_checkpoint(path, run.id)


def test_what_is_refused_stays_and_is_set_aside_only_when_asked(begun):
    run, places, path = begun
    cut = path.read_bytes()[:-1]
    path.write_bytes(cut)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="cannot be read.*delete it to start this run anew, or give --anew"):
            train(run, **places)
    assert path.read_bytes() == cut
    assert train(run, anew=True, **places).record
    (aside,) = path.parent.iterdir()
    assert aside.read_bytes() == cut
    assert not saved_values(path)


def test_a_good_checkpoint_goes_on_though_anew_is_allowed(begun):
    run, places, path = begun
    assert train(run, anew=True, budget=0.0, **places).stopped == "budget"
    assert saved_values(path)["batch"] == 2


def test_one_of_an_earlier_version_is_named(begun):
    run, places, path = begun
    save_file(load_file(path), path, {"format": "thrifty checkpoint 3", "run": run.id, "values": "{}"})
    with pytest.raises(
        CheckpointError, match="is not a checkpoint of this version .*go on with the version that wrote"
    ):
        train(run, **places)
    assert saved_values(path) is None


@pytest.mark.parametrize("name", ["network/0.weight", "sums", "series", "groups", "precision", "batch"])
def test_one_that_lacks_something_is_refused_though_its_sum_is_right(begun, name):
    run, places, path = begun
    tensors, values = load_checkpoint(path, run.id)
    tensors.pop(name, None)
    values.pop(name, None)
    save_checkpoint(path, run.id, tensors, values)
    with pytest.raises(CheckpointError, match=run.id):
        train(run, **places)


def test_the_sum_may_stand_in_the_values_too(make_run, tmp_path):
    run = make_run()
    tensors, values = trainer_of(run).state()
    values["series"] = {'"sha256":"' + "0" * 64 + '"': []}
    save_checkpoint(tmp_path / "c", run.id, tensors, values)
    assert load_checkpoint(tmp_path / "c", run.id)[1]["series"] == values["series"]
