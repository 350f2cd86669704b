"""Trainings side by side: the same records, in an order that parents allow, stopped together."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from thriftylib.errors import ThriftyError
from thriftylib.experiments import experiment
from thriftylib.experiments.execute import Places, train_missing

INIT = [cell for cell in experiment("expandnets-init").cells("smoke") if cell.labels["kernel"] == 3]


def run_of(model, start="scratch", seed=0, epochs=None):
    run = next(cell.run for cell in INIT if (cell.labels["model"], cell.labels["start"]) == (model, start))
    if epochs:
        run = run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": epochs})})
    return run.with_seed(seed)


def train(runs, folder, **more):
    return train_missing(runs, Places.below(folder), device="cpu", progress=False, **more)


def test_the_records_of_runs_one_after_the_other_and_parents_first(tmp_path):
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


def test_a_budget_that_is_used_up_starts_nothing(tmp_path):
    runs = [run_of("CL+FC"), run_of("SmallNet")]
    assert train(runs, tmp_path, jobs=2, budget=1e-9).missing == runs
    assert train(runs, tmp_path, jobs=2, budget=1e-9).stopped == "budget"


def test_what_one_training_finds_wrong_is_told_and_the_others_stop(tmp_path):
    long = run_of("SmallNet", epochs=10_000)
    wrong = run_of("SmallNet").model_copy(update={"data": long.data.model_copy(update={"name": "cifar10"})})
    with pytest.raises(ThriftyError, match="cifar10") as error:
        train([long, wrong], tmp_path, jobs=2, data=tmp_path / "nothing")
    assert "\n" not in str(error.value)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes in /proc")
@pytest.mark.parametrize("killed", ["the first process", "one training"])
def test_what_is_stopped_from_outside_leaves_checkpoints(tmp_path, killed):
    file = tmp_path / "run.json"
    file.write_text(json.dumps(run_of("SmallNet", epochs=10_000).model_dump(mode="json")))
    command = [sys.executable, "-m", "thriftylib.cli", "train", file, "--seeds", "0-2", "--jobs", "2"]
    process = subprocess.Popen([*command, "--out", tmp_path, "--device", "cpu"], stderr=subprocess.PIPE, text=True)
    seeds = set()
    for line in process.stderr:
        seeds |= {seed for seed in "012" if f"seed {seed} epoch 1/" in line}
        if len(seeds) == 2:
            break
    if killed == "one training":
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        training = next(pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(int(training), signal.SIGKILL)
    else:
        process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    assert process.wait(60) == (2 if killed == "one training" else 3)
    stopped = 1 if killed == "one training" else 2
    assert rest.count("stopped by signal") == stopped
    assert len(list(tmp_path.glob("checkpoints/[!.]*.safetensors"))) == stopped
    if killed == "one training":
        assert "its process was killed by signal 9; the same command goes on from its checkpoint" in rest
    else:
        assert "stopped by the signal: 3 runs are left; the same command goes on" in rest
    assert "Traceback" not in rest
