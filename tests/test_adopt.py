"""Records from another machine: what is sound is adopted as it is, what is not is refused by name."""

import json
import shutil

import pytest
from made_up import record as made_up_record
from made_up import run as made_up_run
from typer.testing import CliRunner

from thriftylib.cli import app
from thriftylib.errors import ThriftyError
from thriftylib.evidence.records import load_record, load_records, save_record
from thriftylib.experiments import EXPERIMENTS
from thriftylib.paths import results_dir, weights_dir
from thriftylib.running import adopt as adoption
from thriftylib.running.adopt import adopt

RECORDS = {record.id: record for record in load_records(results_dir())}
IN_GRIDS = {
    configuration.run.configuration
    for experiment in EXPERIMENTS.values()
    for configuration in experiment.configurations("recorded")
}


def committed(**wanted):
    """The committed record with the smallest weights that is of an experiment, and as wanted."""
    found = [
        record
        for record in RECORDS.values()
        if record.run.configuration in IN_GRIDS
        and record.sessions
        and bool(record.weights) == wanted.get("weights", True)
        and bool(record.run.parent) == wanted.get("parent", False)
    ]
    return min(found, key=lambda record: (record.weights.bytes if record.weights else 0, record.id))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Empty folders in place of the committed ones, and no data set; what was to be checked there passes."""
    places = {"results": tmp_path / "data" / "results", "weights": tmp_path / "data" / "weights"}
    monkeypatch.setattr(adoption, "results_dir", lambda: places["results"])
    monkeypatch.setattr(adoption, "weights_dir", lambda: places["weights"])
    monkeypatch.setenv("THRIFTY_DATA", str(tmp_path / "nothing"))
    return places


def brought(folder, *records):
    """A folder as ``thrifty train --out`` leaves it."""
    for record in records:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        shutil.copy(results_dir() / "runs" / f"{record.id}.json", folder / "runs")
        if record.weights:
            (folder / "weights").mkdir(exist_ok=True)
            shutil.copy(weights_dir() / record.weights.file, folder / "weights")
    return folder


def words(folder, **how):
    return [(outcome.path.stem, outcome.done) for outcome in adopt(folder, **how)]


def refusal(folder):
    """Why the only file is refused; nothing is written."""
    (outcome,) = adopt(folder)
    assert outcome.done == "refused"
    assert "\n" not in outcome.why
    return outcome.why


def test_what_is_sound_is_adopted_byte_by_byte_and_once(tmp_path, checkout):
    record = committed()
    folder = brought(tmp_path / "out", record)
    assert words(folder, check_only=True) == [(record.id, "adopted")]
    assert not checkout["results"].exists()
    assert words(folder) == [(record.id, "adopted")]
    assert load_records(checkout["results"]) == [record]
    assert (checkout["weights"] / record.weights.file).read_bytes() == (
        weights_dir() / record.weights.file
    ).read_bytes()
    assert words(folder) == [(record.id, "there already")]


def test_the_local_folder_of_a_checkout_and_records_without_weights(tmp_path, checkout):
    record = committed(weights=False)
    brought(tmp_path / "local" / "results", record)
    assert words(tmp_path / "local") == [(record.id, "adopted")]


def test_large_weights_stay_behind(tmp_path, checkout, monkeypatch):
    record = committed()
    monkeypatch.setattr(adoption, "MAX_WEIGHTS", record.weights.bytes - 1)
    folder = brought(tmp_path, record)
    (outcome,) = adopt(folder)
    assert "without its weights: " in outcome.why
    assert load_record(checkout["results"] / "runs" / f"{record.id}.json") == record.model_copy(
        update={"weights": None}
    )
    assert not checkout["weights"].exists()
    assert words(folder) == [(record.id, "there already")]


def test_a_parent_comes_before_its_child_and_must_be_there(tmp_path, checkout):
    child = committed(parent=True, weights=False)
    family = [r for r in RECORDS.values() if (r.run.configuration, r.run.seed) == (child.run.parent, child.run.seed)]
    assert "of which there is no record" in refusal(brought(tmp_path / "alone", child))
    folder = brought(tmp_path / "both", child, *family)
    assert words(folder) == [(family[0].id, "adopted"), (child.id, "adopted")]


def test_changed_weights_are_refused(tmp_path, checkout):
    record = committed()
    folder = brought(tmp_path, record)
    path = folder / "weights" / record.weights.file
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    assert "not the file that record" in refusal(folder)
    path.unlink()
    assert "missing, though record" in refusal(folder)
    assert not checkout["results"].exists()


def test_weights_that_nobody_names_are_refused(tmp_path, checkout):
    record = committed()
    folder = brought(tmp_path, record)
    shutil.copy(folder / "weights" / record.weights.file, folder / "weights" / "ffffffffffff.safetensors")
    assert words(folder) == [(record.id, "adopted"), ("ffffffffffff", "refused")]


def test_weights_that_give_another_accuracy_are_refused(tmp_path, checkout, monkeypatch):
    record = committed()
    monkeypatch.setattr(adoption, "present", lambda *_: True)
    monkeypatch.setattr(adoption, "verify_weights", lambda *_, **__: record.final_accuracy - 2)
    assert "its weights reach" in refusal(brought(tmp_path, record))
    monkeypatch.setattr(adoption, "verify_weights", lambda *_, **__: record.final_accuracy)
    assert words(tmp_path) == [(record.id, "adopted")]


def test_a_changed_record_is_refused(tmp_path, checkout):
    record = committed()
    folder = brought(tmp_path, record)
    path = folder / "runs" / f"{record.id}.json"
    content = json.loads(path.read_text())
    content["final"]["test_accuracy"] += 1
    path.write_text(json.dumps(content))
    first, second = adopt(folder)
    assert first.why.startswith(f"{path}: final = ")
    assert (second.path.name, second.why) == (record.weights.file, "no sound record names these weights")


def test_another_record_of_the_same_run_is_refused(tmp_path, checkout):
    record = committed(weights=False)
    save_record(record.model_copy(update={"finished": "2099-01-31T12:00:00+00:00"}), checkout["results"])
    assert "another record of this run is there already" in refusal(brought(tmp_path / "out", record))


def test_runs_of_no_experiment_are_refused(tmp_path, checkout):
    save_record(made_up_record(made_up_run()), tmp_path / "foreign")
    assert "made-up" in refusal(tmp_path / "foreign")
    smoke = EXPERIMENTS["thriftynet-size-cifar10"].configurations("smoke")[0].run
    save_record(made_up_record(smoke), tmp_path / "smoke")
    assert "a smoke test on digits, which answers no claim" in refusal(tmp_path / "smoke")
    other = smoke.model_copy(update={"recipe": smoke.recipe.model_copy(update={"name": "other"})})
    save_record(made_up_record(other), tmp_path / "other")
    assert "no experiment has this configuration" in refusal(tmp_path / "other")


def test_the_command(tmp_path, checkout):
    record = committed()
    folder = brought(tmp_path / "out", record)
    done = CliRunner().invoke(app, ["adopt", str(folder)])
    assert (done.exit_code, "1 adopted, 0 there already, 0 refused" in done.stdout) == (0, True), done.output
    (folder / "runs" / "aaaaaaaaaaaa.json").write_text("{")
    done = CliRunner().invoke(app, ["adopt", str(folder), "--json"])
    assert done.exit_code == 1
    assert [each["file"] for each in json.loads(done.stdout)["refused"]] == ["aaaaaaaaaaaa.json"]
    assert done.stderr.startswith("refused aaaaaaaaaaaa.json: ")


def test_an_empty_folder(tmp_path, checkout):
    with pytest.raises(ThriftyError, match=r"holds no records \(runs/\*\.json\)"):
        words(tmp_path)
