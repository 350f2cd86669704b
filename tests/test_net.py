"""One net under the command line: whatever goes wrong is one line, with an exit code that loops can trust."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from thriftylib.cli import app
from thriftylib.cli.app import explain
from thriftylib.errors import SpecError, ThriftyError
from thriftylib.options import NetworkOptions, find
from thriftylib.paths import user_path, write_atomically
from thriftylib.running.notebooks import check_parameters, notebooks
from thriftylib.spec import parse_seeds

SIZE = "thriftynet-size-cifar10"


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def one_line(result, code=2):
    assert result.exit_code == code, result.output + repr(result.exception)
    line = result.stderr.strip()
    assert "\n" not in line, line
    assert line.startswith("thrifty: ")
    return line


ERRORS = {
    PermissionError(13, "Permission denied", "/x/y"): ("/x/y: Permission denied", 2),
    FileNotFoundError(2, "No such file or directory"): ("the system refuses something: No such file", 1),
    MemoryError(): ("there is not enough memory", 2),
    RecursionError("too deep"): ("failed by RecursionError: too deep; --debug shows where", 1),
    ValueError("two\nlines \x1b[31m"): (r"failed by ValueError: two\nlines \x1b[31m", 1),
    ThriftyError("a\nb"): (r"a\nb", 2),
    KeyError("x"): ("failed by KeyError", 1),
}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_is_one_line(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("thriftylib.evidence.claims_files.load_claims_files", fail)
    said, code = ERRORS[error]
    assert said in one_line(call("list"), code)
    told = call("list", "--debug")
    assert told.exit_code == code
    assert "Traceback" in told.stderr
    assert "Traceback" not in call("list").stderr


def test_ctrl_c_stops(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("thriftylib.evidence.claims_files.load_claims_files", interrupted)
    assert one_line(call("list"), 3) == "thrifty: stopped"


HOSTILE = (
    "file",
    "long",
    "null",
    "closed",
    "loop",
    "~nobody-of-this-name/x",
    "",
    "line\nbreak",
    "file/below",
    "\udcff",
)


def offline(root, download):
    raise OSError(5, "offline")


COMMANDS = (
    ("status", "--results"),
    ("verify", "--results"),
    ("verify", "--weights"),
    ("train", SIZE, "--preset", "smoke", "--out"),
    ("train", SIZE, "--preset", "fast", "-w", "filters=64", "--out", "OUT", "--data"),
    ("train", "PLACE.json"),
    ("plan", SIZE, "--preset", "smoke", "--device", "cpu", "--out"),
    ("run", "thriftynet-size", "--preset", "recorded", "--results"),
    ("run", "thriftynet-size", "--out"),
    ("data", "mnist", "--data"),
    ("cost", "thriftynet", "filters=8"),
)


@pytest.mark.parametrize("place", HOSTILE)
def test_no_hostile_place_ends_in_a_traceback(tmp_path, monkeypatch, place):
    """The whole command line with each: a line that says what is wrong, or nothing to complain of."""
    (tmp_path / "file").write_text("{")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "closed").mkdir(mode=0)
    path = {"long": "x" * 300, "null": "a\0b"}.get(place, place)
    path = path if path.startswith("~") or not path else os.path.join(tmp_path, path)
    monkeypatch.setattr("thriftylib.running.execute._train", lambda *_: None)
    monkeypatch.setattr("thriftylib.running.notebooks.Pool.start", lambda *_: pytest.fail("a notebook began"))
    monkeypatch.setattr("torchvision.datasets.MNIST", offline)
    for command in COMMANDS:
        words = [{"OUT": str(tmp_path / "out"), "PLACE.json": f"{path}.json"}.get(word, word) for word in command]
        if "PLACE.json" not in command and "cost" not in command:
            words.append(path)
        try:
            result = call(*words)
        except pytest.fail.Exception:
            continue  # a folder that can be made
        assert result.exit_code in (0, 1, 2, 3)
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit), (words, result.exception)
        assert "Error" not in result.stderr or result.exit_code == 2
    (tmp_path / "closed").chmod(stat.S_IRWXU)


def test_what_cannot_be_written_is_not_begun(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    told = one_line(call("book", "--out", str(file)), 2)
    assert f"{file}/_build/html/index.html: cannot be written (" in told
    monkeypatch.setattr("thriftylib.cli.plan.local_dir", lambda: file)
    monkeypatch.setattr("thriftylib.cli.bench.results_dir", lambda: file)
    words = ("plan", SIZE, "--preset", "smoke", "--device", "cpu", "--out", str(tmp_path / "out"), "--calibrate")
    assert f"{file}/calibrations.json: cannot be written (" in one_line(call(*words), 2)
    assert f"{file}/bench/entropy.json: cannot be written (" in one_line(call("bench", "entropy", "--record"), 2)


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path, monkeypatch):
    """Of another user: root may look everywhere."""

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    known = notebooks()
    monkeypatch.setattr("pathlib.Path.is_dir", refuse)
    with pytest.raises(ThriftyError, match=f"{tmp_path}: cannot be read .Permission denied"):
        check_parameters(known["ucp"], {"preset": "recorded", "results": str(tmp_path)})
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.mkstemp", lambda dir, prefix: refuse(dir / f"{prefix}x"))
    with pytest.raises(PermissionError) as caught:
        write_atomically(tmp_path / "counts.json", b"")
    assert explain(caught.value)[0] == f"{tmp_path}/counts.json: Permission denied"


@pytest.mark.parametrize(
    "text", ["0-4294967295", "0-99999999999999999999", "9" * 5000, "4294967296", "0-1000", "0,0", "5-4", "-1"]
)
def test_seeds_that_cannot_be_meant(text):
    began = time.process_time()
    with pytest.raises(SpecError) as caught:
        parse_seeds(text)
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--threads", "1000000"),
        ("train", SIZE, "--preset", "smoke", "--jobs", "100000"),
        ("cost", "thriftynet", "filters=8", f"iterations={10**9}"),
        ("cost", "thriftynet", f"filters={10**12}"),
        ("cost", "thriftynet", "filters=" + "9" * 5000),
        ("cost", "thriftynet", "filters=" + "[" * 100_000),
        ("cost", "thriftynet", "filters=8", "image=" + "9" * 5000 + "x1x1"),
        ("cost", "smallnet", "widths=[" + "1," * 100_000 + "1]"),
        ("train", SIZE, "--preset", "smoke", "--budget", "9" * 5000 + "h"),
    ],
    ids=range(9),
)
def test_sizes_that_cannot_be_meant_are_refused_at_once(words):
    began = time.process_time()
    result = call(*words)
    assert result.exit_code in (1, 2), result.output
    assert "Traceback" not in result.output
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--seeds", "0", "--seeds", "1"),
        ("train", SIZE, "--preset", "smoke", "--device", "cpu", "--device", "cuda"),
        ("train", SIZE, "-w", "filters=8", "-w", "filters=16", "--preset", "smoke"),
        ("run", "thriftynet-size", "--seeds", "0", "-p", "seeds=1"),
        ("cost", "thriftynet", "filters=8", "filters=9"),
    ],
)
def test_what_is_given_twice_is_refused(words):
    assert "twice" in one_line(call(*words))


def test_a_home_that_is_not_there():
    with pytest.raises(ThriftyError, match="there is no such home folder"):
        user_path("~nobody-of-this-name/x")


def test_standard_output_that_is_full():
    command = [sys.executable, "-m", "thriftylib.cli", "list", "datasets"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_options_are_bounded():
    for values in ({"filters": 10**12}, {"filters": 8, "iterations": 10**9}):
        with pytest.raises(SpecError, match="must be at most"):
            find(NetworkOptions, "thriftynet").model_validate(values)
