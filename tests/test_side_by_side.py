"""Trainings side by side: the same weights, in an order that parents allow, stopped together."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from thriftylib.errors import ThriftyError
from thriftylib.experiments import execute, experiment
from thriftylib.experiments.execute import Places, train_missing
from thriftylib.training.engine import Outcome

INIT = [cell for cell in experiment("expandnets-init").cells("smoke") if cell.labels["kernel"] == 3]


def run_of(model, start="scratch", seed=0, epochs=None):
    run = next(cell.run for cell in INIT if (cell.labels["model"], cell.labels["start"]) == (model, start))
    if epochs:
        run = run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": epochs})})
    return run.with_seed(seed)


def train(runs, folder, **more):
    return train_missing(runs, Places.below(folder), device="cpu", progress=False, **more)


def checkpoints(folder):
    return list(folder.glob("checkpoints/[!.]*.safetensors"))


def test_the_weights_of_runs_one_after_the_other_and_parents_first(tmp_path):
    parent, child, other = run_of("CL+FC"), run_of("SmallNet", "CL+FC"), run_of("SmallNet", seed=1)
    order = []
    done = train(
        [child, parent, other], tmp_path / "two", jobs=2, announce=lambda run, *of: order.append((run.id, *of))
    )
    assert order == [(parent.id, 1, 3), (other.id, 2, 3), (child.id, 3, 3)]
    assert (done.missing, done.stopped) == ([], None)
    alone = train([parent, child, other], tmp_path / "one")
    for run in (parent, child, other):
        assert done.records[run.id].weights == alone.records[run.id].weights  # with their SHA-256
        assert done.records[run.id].threads == 1


def test_the_last_run_goes_on_with_the_threads_of_its_first_sitting(tmp_path, monkeypatch):
    asked = []

    def train_none(run, **arguments):
        asked.append(arguments["threads"])
        return Outcome(None, "signal")

    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr("thriftylib.training.engine.train", train_none)
    for more in ({"jobs": 2}, {"jobs": 2, "threads": 5}, {"jobs": 20}, {}):
        train([run_of("SmallNet")], tmp_path, **more)
    assert asked == [3, 5, 1, None]


def test_a_budget_that_ends_while_processes_start_is_theirs_too(tmp_path):
    runs = [run_of("CL+FC"), run_of("SmallNet")]
    done = train(runs, tmp_path, jobs=2, budget=1.0)  # torch alone takes longer
    assert (done.missing, done.stopped) == (runs, "budget")
    assert len(checkpoints(tmp_path)) == 2


def test_a_budget_that_is_used_up_starts_nothing(tmp_path):
    runs = [run_of("CL+FC"), run_of("SmallNet")]
    done = train(runs, tmp_path, jobs=2, budget=1e-9)
    assert (done.missing, done.stopped) == (runs, "budget")


def test_what_stopped_a_call_is_not_told_where_nothing_is_missing(tmp_path, monkeypatch):
    runs = [run_of("SmallNet", seed=seed) for seed in (0, 1)]

    def train_all(todo, *_):
        for run in todo:
            train([run], tmp_path)
        return "budget"

    monkeypatch.setattr(execute, "train_side_by_side", train_all)
    done = train(runs, tmp_path, jobs=2)
    assert (set(done.records), done.missing, done.stopped) == ({run.id for run in runs}, [], None)


def test_what_one_training_finds_wrong_is_told_and_the_others_stop(tmp_path):
    long = run_of("SmallNet", epochs=10_000)
    wrong = run_of("SmallNet").model_copy(update={"data": long.data.model_copy(update={"name": "cifar10"})})
    with pytest.raises(ThriftyError, match="cifar10") as error:
        train([long, wrong], tmp_path, jobs=2, data=tmp_path / "nothing")
    assert "\n" not in str(error.value)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes in /proc")
@pytest.mark.parametrize("ended", ["first", "all", "first killed", "a training killed"])
def test_what_is_ended_from_outside_leaves_checkpoints(tmp_path, ended):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(run_of("SmallNet", epochs=10_000).model_dump(mode="json")))
    command = [sys.executable, "-m", "thriftylib.cli", "train", file, "--seeds", "0-2", "--jobs", "2"]
    command += ["--out", tmp_path, "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    seeds = set()
    for line in process.stderr:
        seeds |= {seed for seed in "012" if f"seed {seed} epoch 1/" in line}
        if len(seeds) == 2:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    trainings = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    match ended:
        case "first":
            process.terminate()
        case "all":  # as a batch system does; the first process then asks its trainings once more
            os.killpg(process.pid, signal.SIGTERM)
        case "first killed":
            process.kill()
        case "a training killed":
            os.kill(trainings[0], signal.SIGKILL)
    rest = process.stderr.read()  # until the last process has closed it
    code, left = {"first killed": (-signal.SIGKILL, 2), "a training killed": (1, 1)}.get(ended, (3, 2))
    assert process.wait(60) == code
    assert rest.count("stopped by signal") == left
    assert len(checkpoints(tmp_path)) == left
    assert "Traceback" not in rest
    if code == 3:
        assert "stopped by the signal: 3 runs are left; the same command goes on" in rest
    if code == 1:
        assert "its process was killed by signal 9; the same command goes on from its checkpoint" in rest
