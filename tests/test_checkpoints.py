"""Checkpoints: whatever was changed in one is found, nothing is trained on it, and nothing is lost."""

import os
import random

import pytest
from safetensors.torch import load_file, save_file
from stepping import trainer_of

from thriftylib import paths
from thriftylib.errors import CheckpointError, ThriftyError
from thriftylib.training import engine
from thriftylib.training.checkpoint import load_checkpoint, save_checkpoint, saved_values
from thriftylib.training.engine import train
from thriftylib.training.trainer import Trainer


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


class Full:
    """Refuses to write checkpoints as long as ``full``."""

    def __init__(self, monkeypatch):
        self.full, self.tried = True, 0
        self.real = engine.save_checkpoint
        monkeypatch.setattr(engine, "save_checkpoint", self)

    def __call__(self, *arguments):
        self.tried += 1
        if self.full:
            raise OSError(28, "No space left on device")
        self.real(*arguments)


def test_a_checkpoint_that_fails_ends_no_training_and_the_next_is_tried(make_run, tmp_path, monkeypatch, capsys):
    run, disk = make_run(epochs=1), Full(monkeypatch)
    places = {"results": tmp_path, "checkpoints": tmp_path / "c", "threads": 1, "checkpoint_every": 0.0}
    stopped = train(run, budget=0.0, **places)
    assert stopped.stopped == "budget"
    said = capsys.readouterr().err
    assert "its checkpoint could not be written (No space left on device)" in said
    assert "or starts anew where there is none" in said
    assert train(run, **places).record
    assert disk.tried == 1 + 4
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("place", ["results", "weights", "checkpoints"])
@pytest.mark.parametrize("how", ["a file", "a folder", "a long name", "full"])
def test_what_cannot_be_written_is_found_before_the_first_step(make_run, tmp_path, monkeypatch, place, how):
    run = make_run(epochs=1)
    places = {name: tmp_path / name for name in ("results", "weights", "checkpoints")}
    if how == "a file":
        places[place].write_text("")
    if how == "a long name":
        places[place] /= "x" * 300
    if how == "a folder":
        end = f"runs/{run.id}.json" if place == "results" else f"{run.id}.safetensors"
        (places[place] / end).mkdir(parents=True)
    if how == "full":
        real = paths._temporary
        monkeypatch.setattr(
            paths,
            "_temporary",
            lambda path: (
                (os.open("/dev/full", os.O_WRONLY), real(path)[1])
                if places[place] in path.parents and "locks" not in path.parts
                else real(path)
            ),
        )
    monkeypatch.setattr(Trainer, "step", None)
    with pytest.raises(ThriftyError) as caught:
        train(run, threads=1, progress=False, **places)
    assert str(places[place]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_killed_writes_left_is_cleared(make_run, tmp_path):
    run = make_run(epochs=1)
    folders = tmp_path / "runs", tmp_path / "w", tmp_path / "c"
    for folder, end in zip(folders, ("json", "safetensors", "safetensors"), strict=True):
        folder.mkdir()
        (folder / f".{run.id}.{end}.abcd1234").write_bytes(b"cut")
    (tmp_path / "w" / ".mine").write_text("")
    train(run, results=tmp_path, weights=tmp_path / "w", checkpoints=tmp_path / "c", threads=1, progress=False)
    assert sorted(path.name for folder in folders for path in folder.iterdir()) == sorted(
        [f"{run.id}.json", f"{run.id}.safetensors", ".mine"]
    )
