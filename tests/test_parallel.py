"""Trainings in parallel: the same weights, in an order that parents allow, stopped together."""

import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from thriftylib.cli import run as cli_run
from thriftylib.errors import BusyError, CheckpointError, ThriftyError
from thriftylib.experiments import experiment
from thriftylib.running import execute, notebooks, processes
from thriftylib.running.execute import train_missing
from thriftylib.running.folders import OutputFolders
from thriftylib.running.queue import Queue
from thriftylib.training import engine
from thriftylib.training.device import all_devices, choose_device
from thriftylib.training.engine import Trained

INIT = [
    configuration
    for configuration in experiment("expandnets-init").configurations("smoke")
    if configuration.labels["kernel"] == 3
]


NOWHERE = OutputFolders.below("nowhere")


def run_of(model, start="scratch", seed=0, epochs=None):
    run = next(
        configuration.run
        for configuration in INIT
        if (configuration.labels["model"], configuration.labels["start"]) == (model, start)
    )
    if epochs:
        run = run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": epochs})})
    return run.with_seed(seed)


def train(runs, folder, **more):
    return train_missing(runs, OutputFolders.below(folder), device="cpu", progress=False, **more)


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


def test_on_several_gpus_each_has_a_run_at_a_time(tmp_path, monkeypatch):
    """Two devices that are both this CPU, and four runs on them."""
    monkeypatch.setattr("thriftylib.training.device.all_devices", lambda name: ["cpu", "cpu:0"])
    started = []
    start = processes.Pool.start

    def watched(pool, run, work, words, arguments, deadline):
        started.append((arguments["device"], len(pool)))
        start(pool, run, work, words, arguments | {"device": "cpu"}, deadline)

    monkeypatch.setattr(processes.Pool, "start", watched)
    runs = [run_of("SmallNet", seed=seed) for seed in range(4)]
    done = train(runs, tmp_path)
    assert not done.missing
    assert started[:2] == [("cpu", 0), ("cpu:0", 1)]
    assert all(beside < 2 for _, beside in started)
    assert len(started) == 4


def test_all_gpus_are_meant_by_auto_and_cuda(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert all_devices("auto") == all_devices("cuda") == ["cuda:0", "cuda:1", "cuda:2"]
    assert all_devices("cuda:1") == ["cuda:1"]
    assert all_devices("cpu") == ["cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert all_devices("cuda") == ["cuda"]


def test_on_a_terminal_a_table_shows_every_run(tmp_path, monkeypatch):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    monkeypatch.setattr("thriftylib.running.board.on_terminal", lambda: True)
    runs = [run_of("SmallNet", seed=seed) for seed in range(2)]
    arguments = {"device": "cpu", "jobs": 2, "progress": True}
    train_missing(runs, OutputFolders.below(tmp_path), **arguments)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).split("run  ")[-1]
    rows = {line.split()[0]: line.split() for line in last.splitlines()[1:] if line.strip()}
    assert {run.id for run in runs} == rows.keys()
    for run in runs:
        best = json.loads((tmp_path / "runs" / f"{run.id}.json").read_text())["series"]["test_accuracy"][-1]
        assert rows[run.id][4:8] == ["cpu", "complete", f"{run.epochs}/{run.epochs}", f"{best:.2f}"]


def test_the_last_run_goes_on_with_the_threads_of_its_first_session(tmp_path, monkeypatch):
    asked = []

    def train_none(run, **arguments):
        asked.append(arguments["threads"])
        return Trained(None, "signal")

    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    monkeypatch.setattr("thriftylib.training.engine.train", train_none)
    for more in ({"jobs": 2}, {"jobs": 2, "threads": 5}, {"jobs": 20}, {}):
        train([run_of("SmallNet")], tmp_path, **more)
    assert asked == [3, 5, 1, None]


def test_a_budget_that_ends_while_processes_start_is_theirs_too(tmp_path):
    runs = [run_of("CL+FC"), run_of("SmallNet")]
    train(runs[1:], tmp_path / "before")  # so that this process has imported what it needs
    done = train(runs, tmp_path, jobs=2, budget=1.0)  # in theirs torch alone takes longer
    assert (done.missing, done.stopped) == (runs, "budget")
    assert len(checkpoints(tmp_path)) == 2


def test_a_budget_that_is_used_up_starts_nothing(tmp_path):
    runs = [run_of("CL+FC"), run_of("SmallNet")]
    done = train(runs, tmp_path, jobs=2, budget=1e-9)
    assert (done.missing, done.stopped) == (runs, "budget")


def test_what_stopped_a_call_is_not_told_where_nothing_is_missing(tmp_path, monkeypatch):
    runs = [run_of("SmallNet", seed=seed) for seed in (0, 1)]

    def train_all(queue, *_):
        for run in queue.waiting:
            train([run], tmp_path)
        return "budget"

    monkeypatch.setattr(execute, "_in_parallel", train_all)
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
    command += ["--out", tmp_path, "--device", "cpu", "--threads", "1"]  # so that the first process needs no torch
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
            for line in process.stderr:  # the others go on, and the next begins
                if "is left out" in line:
                    assert "its process was killed by signal 9; the same command goes on from its checkpoint" in line
                    break
            process.terminate()
    rest = process.stderr.read()  # until the last process has closed it
    code, left = {"first killed": (-signal.SIGKILL, 2), "a training killed": (1, 1)}.get(ended, (3, 2))
    assert process.wait(60) == code
    assert rest.count("stopped by signal") >= left
    assert len(checkpoints(tmp_path)) >= left
    assert "Traceback" not in rest
    if code == 3:
        assert "stopped by the signal: 3 runs are left; the same command goes on" in rest
    if code == 1:
        assert "stopped by the signal: 3 runs are left" in rest


def test_with_expected_times_the_next_run_is_the_first_that_ends_in_time():
    long, short, shorter = (run_of("SmallNet", seed=seed) for seed in range(3))
    queue = Queue([long, short, shorter], NOWHERE, {long.id: 90.0, short.id: 30.0, shorter.id: 10.0})
    assert [queue.next(left) for left in (60.0, 25.0)] == [short, shorter]
    assert queue.next(20.0) == long  # nothing shorter is left: until the time is up
    assert queue.next(10.0) is None


def test_where_none_ends_in_time_one_with_a_checkpoint_goes_on(tmp_path):
    runs = [run_of("SmallNet", seed=seed) for seed in range(3)]
    folders = OutputFolders.below(tmp_path)
    queue = Queue(list(runs), folders, {run.id: 90.0 for run in runs})
    folders.checkpoints.mkdir()
    folders.checkpoint(runs[1]).touch()
    assert [queue.next(20.0) for _ in runs] == [runs[1], runs[0], runs[2]]


def test_a_child_waits_however_short_it_is():
    parent, child = run_of("CL+FC"), run_of("SmallNet", "CL+FC")
    queue = Queue([parent, child], NOWHERE, {parent.id: 90.0, child.id: 1.0})
    assert queue.next(100.0) == parent
    assert queue.next(100.0) is None
    queue.ended(parent)
    assert queue.next(100.0) == child


@pytest.fixture
def busy(monkeypatch):
    """The ids of runs that another process trains."""
    ids = set()
    real = engine.train

    def train_unless_busy(run, **arguments):
        if run.id in ids:
            raise BusyError(f"run {run.id} is being trained by process 42")
        return real(run, **arguments)

    monkeypatch.setattr("thriftylib.training.engine.train", train_unless_busy)
    return ids


def test_a_busy_run_is_left_out_and_the_following_ones_go_on(tmp_path, busy, capsys):
    parent, child, other = run_of("CL+FC"), run_of("SmallNet", "CL+FC"), run_of("SmallNet", seed=1)
    busy.add(parent.id)
    done = train([parent, child, other], tmp_path)
    assert list(done.records) == [other.id]
    assert (done.missing, done.stopped, done.failed) == ([parent, child], "left out", [])
    assert f"run {parent.id} is left out: run {parent.id} is being trained by process 42" in capsys.readouterr().err
    busy.clear()
    assert train([parent, child, other], tmp_path).stopped is None


def test_a_process_sends_that_its_run_cannot_be_trained_now(busy, monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "follow_parent", lambda: None)
    run, wrong = run_of("SmallNet"), run_of("CL+FC")
    busy.add(run.id)
    folders = OutputFolders.below(tmp_path)
    folders.checkpoints.mkdir()
    folders.checkpoint(wrong).write_bytes(b"cut short")
    arguments = {"results": tmp_path, "checkpoints": folders.checkpoints, "device": "cpu", "progress": False}
    answer, end = multiprocessing.Pipe(duplex=False)
    for each, kind, message in ((run, BusyError, "process 42"), (wrong, CheckpointError, "cannot be read")):
        processes._work_here(end, execute._train, (each.model_dump(mode="json"), arguments, None))
        with pytest.raises(kind, match=message):
            raise answer.recv()


def test_a_run_that_dies_ends_no_other(tmp_path, monkeypatch, capsys):
    real, (broken, other) = engine.train, (run_of("SmallNet", seed=seed) for seed in (0, 1))

    def train_but(run, **arguments):
        if run.id == broken.id:
            raise RuntimeError("two\nlines")
        return real(run, **arguments)

    monkeypatch.setattr("thriftylib.training.engine.train", train_but)
    done = train([broken, other], tmp_path)
    assert list(done.records) == [other.id]
    assert (done.missing, done.stopped, done.failed) == ([broken], "left out", [broken])
    said = capsys.readouterr().err
    assert f"run {broken.id} is left out: it ended by RuntimeError: two lines" in said
    assert "Traceback" not in said
    monkeypatch.setenv("THRIFTY_DEBUG", "1")
    train([broken, other], tmp_path)
    assert "Traceback" in capsys.readouterr().err


def test_a_signal_between_two_runs_starts_no_other(tmp_path, monkeypatch):
    def train_none(run, **arguments):
        os.kill(os.getpid(), signal.SIGUSR1)
        return Trained(None)

    monkeypatch.setattr("thriftylib.training.engine.train", train_none)
    runs = [run_of("SmallNet", seed=seed) for seed in (0, 1)]
    done = train(runs, tmp_path)
    assert (done.missing, done.stopped, done.failed) == (runs, "signal", [])


def test_an_unreadable_checkpoint_stops_no_other_run(tmp_path, capsys):
    wrong, child, other = run_of("CL+FC"), run_of("SmallNet", "CL+FC"), run_of("SmallNet", seed=1)
    folders = OutputFolders.below(tmp_path)
    folders.checkpoints.mkdir()
    folders.checkpoint(wrong).write_bytes(b"cut short")
    done = train([wrong, child, other], tmp_path)
    assert list(done.records) == [other.id]
    assert (done.missing, done.stopped, done.failed) == ([wrong, child], "left out", [wrong])
    assert f"run {wrong.id} is left out: {folders.checkpoint(wrong)}: cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("visible", "seen", "gpus"),
    [
        (None, 0, []),
        ("", 0, []),
        ("-1", 0, []),
        (None, 2, ["0", "1"]),
        ("2,3", 2, ["2", "3"]),
        ("3, 1", 2, ["3", "1"]),
        ("2,3,99", 2, ["2", "3"]),  # the third is not there
        ("GPU-8f6e,GPU-11aa", 2, ["GPU-8f6e", "GPU-11aa"]),
    ],
)
def test_the_gpus_of_notebooks_are_those_that_are_visible(monkeypatch, visible, seen, gpus):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    assert cli_run._gpus("auto") == gpus
    assert [cli_run._gpus(device) for device in ("cpu", "cuda:1")] == [[], []]


def test_each_gpu_has_one_notebook_at_a_time(tmp_path, monkeypatch):
    started, most = [], []

    class Slots(dict):
        """A pool whose oldest work ends first."""

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def start(self, path, work, *arguments):
            self[path] = arguments[-1]
            started.append(arguments[-1])
            most.append(len(set(self.values())) == len(self) <= 2)

        def ended(self):
            path = next(iter(self))
            del self[path]
            return [(path, (None, 0))]

    monkeypatch.setattr(notebooks, "Pool", Slots)
    paths = [tmp_path / f"{name}.ipynb" for name in "abc"]
    for path in paths:
        path.touch()
    done = list(notebooks.run_notebooks(paths, {path.stem: {} for path in paths}, tmp_path / "out", gpus=["2", "3"]))
    assert started == ["2", "3", "2"]
    assert all(most)
    assert [(each.name, each.code) for each in done] == [("a", 0), ("b", 0), ("c", 0)]


def test_cuda_with_a_number_is_one_of_those_that_are_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [str(choose_device(name)) for name in ("auto", "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(ThriftyError, match="this machine has 2 CUDA devices"):
        choose_device("cuda:2")
