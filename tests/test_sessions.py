"""Where a run was trained, by which sessions, and that no other process trains it meanwhile."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest
import torch
from stepping import CPU

from thriftylib.errors import BusyError, CheckpointError, ThriftyError
from thriftylib.evidence.records import load_record
from thriftylib.training import sessions
from thriftylib.training.engine import train
from thriftylib.training.provenance import Provenance, provenance

GIT = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
GIT |= dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "A")
GIT |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "a@example.org")
GIT |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


def git(folder, *words):
    return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True, env=GIT).stdout


@pytest.fixture
def repository(tmp_path):
    """A repository that tracks a package in a folder of its own."""
    package = tmp_path / "project" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package.parent / ".gitignore").write_text("*.pyc\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "first")
    return package


@pytest.fixture(autouse=True)
def _fresh():
    provenance.cache_clear()
    yield
    provenance.cache_clear()


def head(folder):
    return git(folder, "rev-parse", "HEAD").strip()


def test_the_commit_is_the_packages_own(repository, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    (other / "f").write_text("")
    git(other, "add", ".")
    git(other, "commit", "-qm", "another project")
    monkeypatch.chdir(other)
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    assert provenance(repository) == Provenance(head(repository), "")


@pytest.mark.parametrize(
    ("name", "content", "marked"),
    [("__init__.py", "changed = 1", True), ("new.py", "", True), ("deep/new.py", "", True), ("new.pyc", "", False)],
)
def test_changed_and_untracked_code_is_marked(repository, name, content, marked):
    (repository / name).parent.mkdir(exist_ok=True)
    (repository / name).write_text(content)
    assert provenance(repository).commit == head(repository) + "+" * marked


def test_what_is_outside_the_package_does_not_count(repository):
    (repository.parent / "record.json").write_text("{}")
    assert provenance(repository).commit == head(repository)


def test_an_installed_package_inside_another_project_has_no_commit(repository):
    (repository.parent / ".gitignore").write_text("venv\n")
    installed = repository.parent / "venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert provenance(installed) == Provenance(None, "no git repository tracks the package")


def test_without_a_repository_or_without_git_the_reason_is_told(tmp_path, monkeypatch):
    (tmp_path / "__init__.py").write_text("")
    assert provenance(tmp_path) == Provenance(None, "no git repository tracks the package")
    provenance.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance(tmp_path) == Provenance(None, "git is not installed")


def test_a_commit_made_while_it_trains_is_not_the_runs(repository):
    before = provenance(repository)
    (repository / "new.py").write_text("")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "second")
    assert provenance(repository) == before != Provenance(head(repository), "")


def test_every_session_stands_in_the_record(make_run, tmp_path, capsys):
    run = make_run(epochs=3)
    places = {"results": tmp_path, "checkpoints": tmp_path / "c"}
    while train(run, budget=0.0, threads=1, progress=False, **places).record is None:
        if len(list(tmp_path.glob("c/*"))):
            break
    torch.set_num_threads(2)
    try:
        record = train(run, threads=2, **places).record
    finally:
        torch.set_num_threads(1)
    assert [session.threads for session in record.sessions] == [1, 2]
    assert record.sittings == 2
    assert "goes on elsewhere than it stopped: threads was 1, is 2" in capsys.readouterr().err
    assert sum(session.seconds for session in record.sessions) == pytest.approx(record.seconds, abs=0.11)
    assert all(session.lost_seconds == 0 for session in record.sessions)
    assert {(s.commit, s.no_commit) for s in record.sessions} == {tuple(provenance())}
    assert not list(tmp_path.glob("locks/*.json"))


def test_another_precision_is_refused_and_nothing_is_lost(make_run, tmp_path):
    run = make_run("thriftynet", {"filters": 8, "iterations": 3, "pool": 2}, epochs=1)
    places = {"results": tmp_path, "checkpoints": tmp_path, "threads": 1, "progress": False}
    assert train(run, budget=0.0, precision="bf16", **places).stopped == "budget"
    with pytest.raises(CheckpointError, match="begun in bf16, this call uses fp32.*go on with --precision bf16"):
        train(run, precision="fp32", **places)
    record = train(run, precision="bf16", **places).record
    assert record.precision == "bf16"
    content = record.model_dump(mode="json")
    content["sessions"][0]["precision"] = "fp32"
    path = tmp_path / "x" / f"{run.id}.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    with pytest.raises(Exception, match=r"sessions\.precision = 'fp32': the record's is 'bf16'"):
        load_record(path)


PROGRAM = """
import json, sys
from pathlib import Path
import conftest
from thriftylib.spec import Run
from thriftylib.training.engine import train
from thriftylib.training import sessions
sessions._BEAT = 0.05
where = Path(sys.argv[1])
run = Run.recorded(json.loads((where / "run.json").read_text()))
train(run, results=where, weights=where, checkpoints=where / "c", threads=1, checkpoint_every=float(sys.argv[2]))
"""


@pytest.mark.parametrize("checkpoint_every", [0.0, 1e9])
def test_a_kill_leaves_what_it_threw_away(make_run, tmp_path, monkeypatch, checkpoint_every):
    """With checkpoints little is lost, and the session is the same; without, all of a session of its own."""
    run = make_run(epochs=400, options={"width": 32})
    (tmp_path / "run.json").write_text(json.dumps(run.model_dump(mode="json")))
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(checkpoint_every)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    trace = tmp_path / "locks" / f"{run.id}.json"
    try:
        for line in process.stderr:
            if "epoch 2/" in line:
                break
        began = time.monotonic()
        while time.monotonic() < began + 1.0 and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        with pytest.raises(BusyError, match=rf"run {run.id}: process {process.pid} on .* is training it in"):
            train(run, results=tmp_path, progress=False)
    finally:
        process.kill()
        process.communicate()
    assert trace.exists()
    stopped = train(run, results=tmp_path, checkpoints=tmp_path / "c", threads=1, progress=False, budget=0.0).stopped
    assert stopped == "budget"
    from thriftylib.training.checkpoint import load_checkpoint

    first, second = load_checkpoint(next(tmp_path.glob("c/*.safetensors")), run.id)[1]["sessions"]
    assert first["started"] < second["started"]
    if checkpoint_every:
        assert first["seconds"] == 0.0
        assert first["lost_seconds"] > 0.8
    else:
        assert first["seconds"] > 0.0
        assert first["lost_seconds"] < 0.8


def test_two_at_once_cannot_mix_weights_and_record(make_run, tmp_path):
    run = make_run(epochs=4)
    ends = []

    def one():
        try:
            ends.append(train(run, results=tmp_path, weights=tmp_path, threads=1, progress=False).record)
        except BusyError as error:
            ends.append(error)

    with sessions.alone(tmp_path, run.id) as trace:
        trace.describe([sessions.begin(CPU, "fp32")])
        thread = threading.Thread(target=one)
        thread.start()
        thread.join()
    assert isinstance(ends[0], BusyError)
    assert "\n" not in str(ends[0])
    assert str(os.getpid()) in str(ends[0])
    one()
    assert ends[1].weights.sha256


def test_a_broken_trace_is_no_hindrance(make_run, tmp_path):
    run = make_run(epochs=1)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks" / f"{run.id}.json").write_text("{")
    assert len(train(run, results=tmp_path, progress=False).record.sessions) == 1


@pytest.mark.fast
def test_the_record_names_the_fast_path(make_run, tmp_path):
    plain = train(make_run(epochs=1), results=tmp_path, progress=False).record
    assert plain.sessions[0].fast is None
    recursion = make_run("thriftynet", {"filters": 8, "iterations": 3, "pool": 2}, epochs=1)
    assert train(recursion, results=tmp_path, progress=False).record.sessions[0].fast == "tiled recursion"
    if shutil.which("gcc"):
        small = make_run("smallnet", {"kernel": 3, "padding": 1, "widths": [4, 4, 8], "hidden": 16}, epochs=1)
        fast = train(small, results=tmp_path, progress=False).record.sessions[0].fast
        assert fast.startswith("fused conv-BN-ReLU-pool (gcc")
    assert Path(tmp_path / "runs").is_dir()


def session(started, seconds=0.0, lost=0.0, precision="fp32"):
    made = sessions.begin(CPU, precision)
    return made.model_copy(update={"started": started, "seconds": seconds, "lost_seconds": lost})


def test_no_kill_is_forgotten():
    """Killed with a checkpoint, then twice before the next one."""
    first, second, third = (session(f"2026-01-31T12:0{minute}:00+00:00") for minute in range(3))
    saved = datetime.fromisoformat(first.started).timestamp() + 20
    trace = sessions.Trace(Path("x"), [first], saved + 5)
    held = [first.model_copy(update={"seconds": 20.0})]
    once = sessions.with_lost_work(held, saved, trace)
    assert [(one.seconds, one.lost_seconds) for one in once] == [(20.0, 5.0)]
    trace = sessions.Trace(Path("x"), [*once, second], datetime.fromisoformat(second.started).timestamp() + 7)
    twice = sessions.with_lost_work(held, saved, trace)
    assert [(one.seconds, one.lost_seconds) for one in twice] == [(20.0, 5.0), (0.0, 7.0)]
    trace = sessions.Trace(Path("x"), [*twice, third], datetime.fromisoformat(third.started).timestamp() + 9)
    thrice = sessions.with_lost_work(held, saved, trace)
    assert [(one.seconds, one.lost_seconds) for one in thrice] == [(20.0, 5.0), (0.0, 7.0), (0.0, 9.0)]
    gone = sessions.with_lost_work([], 0.0, trace)  # the checkpoint was deleted
    assert [(one.seconds, one.lost_seconds) for one in gone] == [(0.0, 25.0), (0.0, 7.0), (0.0, 9.0)]


def test_a_session_that_gave_nothing_may_have_had_another_precision(make_run, tmp_path):
    """Killed before its first checkpoint in bf16, and begun anew in fp32: a record, and it says so."""
    run = make_run(epochs=1)
    with sessions.alone(tmp_path, run.id) as trace:
        trace.describe([sessions.begin(CPU, "bf16")])
        trace.lost = True
    record = train(run, results=tmp_path, threads=1, progress=False).record
    assert [one.precision for one in record.sessions] == ["bf16", "fp32"]
    assert load_record(tmp_path / "runs" / f"{run.id}.json") == record


def test_a_run_that_another_process_has_just_finished_is_not_trained_again(make_run, tmp_path):
    run = make_run(epochs=1)
    first = train(run, results=tmp_path, weights=tmp_path, threads=1, progress=False).record
    assert train(run, results=tmp_path, weights=tmp_path, threads=1, progress=False).record == first


def test_a_folder_that_cannot_be_written_is_named(make_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ThriftyError, match="locks: cannot be written") as caught:
        train(make_run(), results=tmp_path / "file", progress=False)
    assert "\n" not in str(caught.value)


def test_who_tidies_up_the_locks_ends_no_training(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "_BEAT", -1.0)
    monkeypatch.setattr(sessions.Trace, "describe", lambda self, sessions: None)
    assert train(make_run(epochs=1), results=tmp_path, progress=False).record.status == "complete"


@pytest.mark.parametrize("values", ["{", "[]", "{}"])
def test_a_checkpoint_with_broken_values_is_named(make_run, tmp_path, values):
    from safetensors.torch import load_file, save_file

    from thriftylib.training.checkpoint import FORMAT

    run = make_run()
    places = {"results": tmp_path, "checkpoints": tmp_path / "c", "progress": False, "threads": 1}
    train(run, budget=0.0, **places)
    path = next(tmp_path.glob("c/*.safetensors"))
    save_file(load_file(path), path, {"format": FORMAT, "run": run.id, "values": values})
    with pytest.raises(CheckpointError, match="delete it to start this run anew") as caught:
        train(run, **places)
    assert "\n" not in str(caught.value)
