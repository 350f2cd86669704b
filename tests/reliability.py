"""How a training bears kills, full disks, several writers, budgets, signals and odd files: tried and counted.

``python tests/reliability.py`` takes about ten minutes on one core and writes ``data/results/reliability.json``, which
a page of the book shows; ``python tests/reliability.py --quick OUT.json`` does a little of each, as the tests do. Linux
only. A fault is written to standard error, and ends the program with 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import pytest
import torch
from test_data import WRITERS, part_of
from test_untrusted import crafted

from thriftylib.datasets import arrays, releases
from thriftylib.datasets.facts import DATASETS
from thriftylib.datasets.load import load
from thriftylib.errors import DataError, ThriftyError
from thriftylib.evidence.records import load_record, load_records, write_json
from thriftylib.paths import project_root, results_dir
from thriftylib.spec import Data, Run
from thriftylib.training import engine
from thriftylib.training.progress import Progress
from thriftylib.training.trainer import Trainer

FILE = "reliability.json"
FAULT = 99  # exit code of a process that ended by an error of its own
EPOCHS, QUICK_EPOCHS = 2000, 60  # of a run that is stopped again and again: half a minute, and one second


def run_of(epochs: int, seed: int = 0) -> Run:
    """A ThriftyNet of 8 filters on 400 digits."""
    recipe = fuzzing.SMALL.recipe.model_copy(update={"epochs": epochs})
    return fuzzing.SMALL.model_copy(update={"recipe": recipe, "seed": seed})


def training(run: Run, folder: Path, **more: Any) -> int:
    """Train in a process of its own and return its id; it exits with 0, 3 where it was stopped, 2 or ``FAULT``."""
    if child := os.fork():
        return child
    code = FAULT
    try:
        places = {"results": folder, "weights": folder / "weights", "checkpoints": folder / "checkpoints"}
        options = {"threads": 1, "progress": False, "checkpoint_every": 0.05, "device": "cpu", **more}
        code = 3 if engine.train(run, **places, **options).stopped else 0
    except (ThriftyError, OSError) as error:  # the command line makes one line of both
        code = 2
        _say(folder, error)
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def _say(folder: Path, error: Exception) -> None:
    with contextlib.suppress(OSError):  # the disk may be full
        (folder / "said").write_text(str(error), "utf-8")


def ended(process: int) -> int:
    """The exit code of a process, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def same(one: Path, other: Path, run: Run) -> bool:
    """Whether two folders hold the same weights, byte for byte, and the same curves."""
    files = [folder / "weights" / f"{run.id}.safetensors" for folder in (one, other)]
    records = [load_record(folder / "runs" / f"{run.id}.json") for folder in (one, other)]
    curves = [{name: series for name, series in each.series.items() if name != "seconds"} for each in records]
    return files[0].read_bytes() == files[1].read_bytes() and curves[0] == curves[1]


def whole(run: Run, folder: Path) -> Path:
    """A folder beside ``folder`` with the training that nothing stopped."""
    there = folder.parent / f"whole-{run.id}"
    if not there.exists():
        there.mkdir()
        if code := ended(training(run, there)):
            raise RuntimeError(f"a training that nothing stopped ended with {code}")
    return there


def kills(folder: Path, count: int) -> dict[str, Any]:
    """SIGKILL at random moments until ``count`` of them hit; then to the end, and compared with a run in one go."""
    run, rng, there = run_of(EPOCHS if count > 10 else QUICK_EPOCHS), random.Random(0), folder / "killed"
    reference, began = whole(run, folder), time.monotonic()
    seconds = sum(each.seconds for each in load_record(reference / "runs" / f"{run.id}.json").sessions)
    there.mkdir()
    hit = 0
    while hit < count:
        process = training(run, there)
        time.sleep(rng.uniform(0, 1.5 * seconds / count))
        os.kill(process, signal.SIGKILL)
        code = ended(process)
        hit += code == -signal.SIGKILL
        if code not in (-signal.SIGKILL, 0):
            return row("kills, each followed by the same call again", hit, [f"ended with {code}"])
        if code == 0:  # it was faster than the kills
            break
    faults = [f"ended with {code}"] if (code := ended(training(run, there))) else []
    faults += ["other weights than in one go"] if not faults and not same(reference, there, run) else []
    left = [path.name for path in there.rglob(".*") if path.is_file()]
    faults += [f"left behind: {left}"] if left else []
    note = f"one run of {run.recipe.epochs:,} epochs, in {time.monotonic() - began:.0f} s"
    return row("kills, each followed by the same call again", hit, faults, note)


def full_disks(folder: Path, count: int) -> dict[str, Any]:
    """A disk that is full at a random moment, on a small file system in memory; then there is space again."""
    what = "disks full at a random moment of a training"
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        return row(what, 0, [], "not tried: this user may not mount")
    command = ["unshare", "-rm", sys.executable, __file__, "--inside", str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return row(what, count, [done.stderr[-500:]])
    return row(what, count, json.loads(done.stdout.splitlines()[-1]), "a file system of 300 KiB in memory")


def _on_a_full_disk(folder: Path, count: int) -> list[str]:
    """Within a name space of mounts."""
    run, rng, faults = run_of(QUICK_EPOCHS), random.Random(1), []
    reference = whole(run, folder)
    for number in range(count):
        disk = folder / f"disk{number}"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=True)
        process = training(run, disk)
        time.sleep(rng.uniform(0, 2.0))
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(bytes(400 * 1024))
        code = ended(process)
        (disk / "filler").unlink(missing_ok=True)
        if code not in (0, 2):
            faults.append(f"disk {number}: ended with {code}")
        if again := ended(training(run, disk)):
            faults.append(f"disk {number}: with space again it ended with {again}")
        elif not same(reference, disk, run):
            faults.append(f"disk {number}: other weights")
        subprocess.run(["umount", str(disk)], check=True)
    return faults


def writers(folder: Path, count: int) -> dict[str, Any]:
    """Four processes that train the same runs into one folder at once, ``count`` times."""
    faults = []
    runs = [run_of(20, seed) for seed in range(3)]
    references = {run.id: whole(run, folder) for run in runs}
    for number in range(count):
        there = folder / f"four{number}"
        there.mkdir()
        processes = [training(run, there) for run in runs for _ in range(4)]
        codes = Counter(ended(process) for process in processes)  # 2: another process trains it
        faults += [f"codes {dict(codes)}"] if set(codes) - {0, 2} or codes[0] < len(runs) else []
        found = load_records(there)
        is_right = len(found) == len(runs) and all(same(references[run.id], there, run) for run in runs)
        faults += [] if is_right else ["other records or weights"]
    return row("times that four processes at once train three runs into one folder", count, faults)


def budgets(folder: Path, count: int) -> dict[str, Any]:
    """The call ends with 3 and a checkpoint; no step begins after the budget's end, or one where none was before."""
    run, rng, faults, step = run_of(EPOCHS), random.Random(2), [], Trainer.step
    for number in range(count):
        there, budget = folder / f"budget{number}", rng.uniform(0.2, 1.0)
        there.mkdir()
        end = time.monotonic() + budget

        def timed(self: Trainer, progress: Progress, end: float = end, there: Path = there) -> None:
            with (there / "steps").open("a") as file:
                file.write("+" if time.monotonic() > end + 1e-2 else "-")
            step(self, progress)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "step", timed)
            code = ended(training(run, there, budget=budget))
        steps = (there / "steps").read_text()
        faults += [f"ended with {code}"] if code != 3 or not list(there.glob("checkpoints/*.safetensors")) else []
        faults += [f"{steps.count('+')} steps too many"] if "+" in steps and steps != "+" else []
    return row("budgets that end inside a training", count, faults, "no step began after one was used up")


def signals(folder: Path, count: int) -> dict[str, Any]:
    """Signals that ask a process to stop, in turn: a checkpoint, exit code 3, and the same weights in the end."""
    names = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGXCPU", "SIGINT", "SIGUSR2")
    run, rng, faults = run_of(QUICK_EPOCHS), random.Random(3), []
    reference = whole(run, folder)
    for number in range(count):
        name, there = names[number % len(names)], folder / f"signal{number}"
        there.mkdir()
        process = training(run, there)
        deadline = time.monotonic() + 20
        while not list(there.glob("checkpoints/*.safetensors")) and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.5))
        os.kill(process, getattr(signal, name))
        code = ended(process)
        faults += [f"{name}: ended with {code}"] if code not in (0, 3) else []
        code = ended(training(run, there))
        faults += [f"{name}: other weights"] if code or not same(reference, there, run) else []
    return row("signals that ask to stop, of six kinds", count, faults)


def untrusted(folder: Path, count: int) -> dict[str, Any]:
    """Crafted pickles in the place of a data set's batch: refused in one line, and nothing is called."""
    name, files = WRITERS["imagenet32-pickle-2"]
    info = DATASETS[name]
    faults, mark, called = [], folder / "ran", []
    train, test = part_of(info, 40, 1), part_of(info, 20, 2)
    for path, content in files(folder, train, test):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    releases.MD5.clear()
    plain = arrays.Symbol.__call__
    arrays.Symbol.__call__ = lambda self, *words: called.append(self.name) or plain(self, *words)
    kinds = crafted(mark)
    for kind, content in kinds.items():
        (folder / "Imagenet32_val/val_data").write_bytes(content)
        try:
            load(Data(name=name), root=folder)
            faults.append(f"{kind}: accepted")
        except DataError as error:
            faults += [f"{kind}: two lines"] if "\n" in str(error) else []
        except Exception as error:
            faults.append(f"{kind}: {type(error).__name__}")
        faults += [f"{kind}: it ran"] if mark.exists() else []
    return row("crafted pickles in the place of data", len(kinds), faults)


def odd_inputs(folder: Path, count: int) -> list[dict[str, Any]]:
    """``count`` inputs of each kind of :mod:`fuzzing`."""
    rows = []
    for kind in fuzzing.KINDS:
        outcomes, faults = fuzzing.fuzz(kind, count, folder / kind.replace(" ", "-"))
        note = f"{outcomes['refused']:,} refused, {outcomes['accepted']:,} accepted"
        rows.append(row(f"odd {kind}", count, faults, note) | {key: outcomes[key] for key in fuzzing.FAULTS})
    return rows


def row(what: str, tried: int, faults: list[str], note: str = "") -> dict[str, Any]:
    """A line of the record; faults go to standard error."""
    for fault in faults:
        print(f"{what}: {fault}", file=sys.stderr)
    return {"what": what, "tried": tried, "faults": len(faults), "note": note}


PARTS: Mapping[str, tuple[Callable[[Path, int], Any], int, int]] = {
    "kills": (kills, 50, 3),
    "full disks": (full_disks, 10, 1),
    "writers": (writers, 5, 1),
    "budgets": (budgets, 20, 2),
    "signals": (signals, 30, 2),
    "untrusted": (untrusted, 1, 1),
    "odd inputs": (odd_inputs, 1250, 25),
}
"""What is tried, how often for the book, and how often in the tests."""


def measure(folder: Path, *, quick: bool) -> dict[str, Any]:
    """The record of all parts."""
    rows = []
    for name, (part, often, seldom) in PARTS.items():
        there = folder / name.replace(" ", "-")
        there.mkdir()
        began = time.monotonic()
        found = part(there, seldom if quick else often)
        print(f"{name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
        rows += found if isinstance(found, list) else [found]
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    return {"system": f"{platform.system()} {platform.machine()}", "versions": versions, "rows": rows}


def main(words: list[str]) -> int:
    """Measure, and write the record."""
    torch.set_num_threads(1)
    if words[:1] == ["--inside"]:
        print(json.dumps(_on_a_full_disk(Path(words[1]), int(words[2]))))
        return 0
    quick = words[:1] == ["--quick"]
    folder = Path(tempfile.mkdtemp())
    try:
        record = measure(folder, quick=quick)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    write_json(record, Path(words[1]) if quick else results_dir() / FILE)
    return int(any(each["faults"] for each in record["rows"]))


if __name__ == "__main__":
    sys.path.insert(0, str(project_root()))
    sys.exit(main(sys.argv[1:]))
