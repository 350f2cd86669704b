"""The reliability page's program: a little of each part now, and what the committed record says."""

import json
import subprocess
import sys
from pathlib import Path

import agreement
import pytest
import reliability

from thriftylib.experiments.thriftynet_recipes import SMOKE
from thriftylib.paths import results_dir
from thriftylib.spec import Data

COMMITTED = json.loads((results_dir() / reliability.FILE).read_text("utf-8"))


@pytest.mark.skipif(sys.platform != "linux", reason="forks, and mounts in a name space of its own")
def test_a_little_of_each(tmp_path):
    command = [sys.executable, reliability.__file__, "--quick", tmp_path / "record.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "record.json").read_text("utf-8"))["rows"]
    assert [row["what"] for row in rows] == [row["what"] for row in COMMITTED["rows"]]
    assert all(row["tried"] or "not tried" in row["note"] for row in rows)


def test_a_fault_is_counted_told_and_ends_the_program_with_1(tmp_path, monkeypatch, capsys):
    silent = {"odd records": (lambda folder, count: reliability.row("odd records", count, ["silent"]), 1, 1)}
    monkeypatch.setattr(reliability, "PARTS", silent)
    assert reliability.main(["--quick", str(tmp_path / "record.json")]) == 1
    assert "odd records: silent" in capsys.readouterr().err
    assert json.loads(Path(tmp_path / "record.json").read_text("utf-8"))["rows"][0]["faults"] == 1


def test_the_committed_record_is_whole_and_without_a_fault():
    tried = {row["what"]: row["tried"] for row in COMMITTED["rows"]}
    assert sum(number for what, number in tried.items() if what.startswith("odd ")) >= 10_000
    assert tried["kills, each followed by the same call again"] >= 50
    assert all(tried.values())
    assert not any(row["faults"] for row in COMMITTED["rows"])


def test_trainings_with_and_without_kernels_are_compared(tmp_path):
    small = {"filters": 8, "iterations": 4, "pool": 2, "history": 3}
    runs = [agreement.run_of(SMOKE, seed, Data(name="digits"), **small) for seed in range(2)]
    record = agreement.compare(runs, tmp_path)
    committed = json.loads((results_dir() / agreement.FILE).read_text("utf-8"))
    for made, seeds in ((record, len(runs)), (committed, len(agreement.SEEDS))):
        assert [row["what"] for row in made["rows"]] == list(agreement.WAYS.values())
        assert all(len(row[which]) == seeds for row in made["rows"] for which in ("best", "last"))
    plain, kernels = (train.series for train in (agreement.train(runs[0], way, tmp_path) for way in agreement.WAYS))
    assert plain["train_loss"] != kernels["train_loss"]  # they really ran on different code
    assert plain["train_loss"][0] == pytest.approx(kernels["train_loss"][0], rel=0.01)
