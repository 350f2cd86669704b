"""The reliability page's program: a little of each part now, and what the committed record says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import reliability

from thriftylib.paths import results_dir

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
