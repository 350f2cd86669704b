"""What is around the project changes nothing: start-up files, settings, kernels, locale, home folder, names of folders.

A personal matplotlibrc is in test_figures.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from checkout import ROOT
from nbclient import NotebookClient

from thriftylib.errors import ThriftyError
from thriftylib.running import parameters
from thriftylib.running.notebooks import bare_kernels
from thriftylib.running.report import PARAMETERS
from thriftylib.training.progress import Progress

CALLS = (
    *("list papers", "show thriftynet-size-cifar10 --preset smoke", "cost thriftynet filters=64", "show ucp"),
    *("plan --preset smoke --device H200", "status --paper expandnets", "train --preset smok", "run --device mps"),
)
CODE = f"""
import sys
from thriftylib.cli import app
for stream in (sys.stdout, sys.stderr):
    stream.reconfigure(errors="backslashreplace")
for words in {CALLS!r}:
    try:
        app(words.split(), prog_name="thrifty")
    except SystemExit as end:
        print("ended with", end.code, flush=True)  # a command may write through a stream of its own
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
SETTINGS = {
    "ASCII, warnings are errors, no home": {**ASCII, "PYTHONWARNINGS": "error", "HOME": None, "XDG_CACHE_HOME": None},
    "Latin-1, a home that cannot be written, a time zone": {
        **{"PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1", "LC_ALL": "xx_XX.ISO-8859-1"},
        **{"HOME": "/proc", "MPLCONFIGDIR": "/proc/none", "TZ": "Asia/Kathmandu"},
    },
    "colours": {"FORCE_COLOR": "1", "CLICOLOR_FORCE": "1", "COLUMNS": "20", "TERM": "dumb"},
    "no colours": {"NO_COLOR": "1", "COLUMNS": "1000", "LINES": "1"},
}


def said(environment: dict[str, str | None], folder: Path = ROOT) -> tuple[str, str]:
    """What a few commands print and tell, in one process with this environment; all of Unicode spelled in ASCII."""
    words = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(folder), **environment}
    words = {name: value for name, value in words.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", CODE], cwd=folder, env=words, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    out, err = (text.decode(words.get("PYTHONIOENCODING", "utf-8")) for text in (done.stdout, done.stderr))
    return tuple(text.encode("ascii", "backslashreplace").decode() for text in (out, err))


@pytest.fixture(scope="module")
def plain():
    out, err = said({})
    assert out.count("ended with 0") == len(CALLS) - 2
    assert out.count("ended with 2") == 2
    assert "unknown preset 'smok'" in err
    assert "device = 'mps': must be auto, cpu, cuda or cuda:N" in err
    return out, err


@pytest.mark.parametrize("name", SETTINGS)
def test_no_setting_changes_what_is_printed(plain, name):
    assert said(SETTINGS[name]) == plain


def test_a_folder_with_spaces_and_accents(plain, tmp_path):
    folder = tmp_path / "Müller's papers (2024) 100 %"
    folder.mkdir()
    for name in ("thriftylib", "data", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    assert said(ASCII, folder) == plain


def test_names_of_files_are_utf8_in_every_locale(tmp_path):
    """A notebook could not hold the half characters that names become in ASCII."""
    words = ["train", "Müller.json"]
    environment = {**os.environ, **ASCII, "PYTHONPATH": str(ROOT)}
    del environment["PYTHONIOENCODING"]
    for start in (["-m", "thriftylib.cli"], ["-c", "from thriftylib.cli import main; main()"]):
        done = subprocess.run([sys.executable, *start, *words], cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == 2
        assert done.stderr == b"thrifty: M\\xfcller.json: cannot be read (No such file or directory)\n"


def test_colours_that_are_forced_draw_nothing_into_a_file(make_run, monkeypatch):
    """rich takes FORCE_COLOR for a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(make_run(), 10, 0) as progress:
        progress.step(1)
        progress.say("a line")
    assert sys.stderr.getvalue().endswith(": a line\n")
    assert "\x1b" not in sys.stderr.getvalue()


START_UP = """
import sys, warnings
import pandas, numpy
pandas.set_option("display.precision", 1)
pandas.set_option("display.html.border", 7)
numpy.seterr(all="raise")
warnings.simplefilter("error")
print("hello")
foreign = True
"""
CELL = """
from thriftylib import figures
import os, sys
import pandas
print(sys.executable, "foreign" in globals(), pandas.get_option("display.precision"), os.environ["HOME"])
"""


def test_a_kernel_is_ours_and_starts_bare(tmp_path, monkeypatch):
    """Whatever kernels, start-up files and settings the user has, and without a cache folder for matplotlib."""
    start_up, kernel = tmp_path / ".ipython/profile_default/startup", tmp_path / ".local/share/jupyter/kernels/python3"
    start_up.mkdir(parents=True)
    (start_up / "00.py").write_text(START_UP)
    kernel.mkdir(parents=True)
    foreign = {"argv": ["/bin/false"], "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(foreign))
    surroundings = {"HOME": tmp_path, "JUPYTER_PATH": tmp_path / ".local/share/jupyter", "PYTHONWARNINGS": "error"}
    surroundings |= {"PYTHONSTARTUP": start_up / "00.py", "IPYTHONDIR": tmp_path / ".ipython"}
    surroundings |= {"MPLCONFIGDIR": "/proc/none", "PYTHONPATH": ROOT}
    for name, value in surroundings.items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    before = dict(os.environ)
    with bare_kernels():
        NotebookClient(notebook, kernel_name="python3").execute(stderr=subprocess.DEVNULL)
    assert dict(os.environ) == before
    (shown,) = notebook.cells[0].outputs  # and no warning of matplotlib's, which would turn a comparison red
    assert shown.text.split() == [sys.executable, "False", "6", str(tmp_path)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"device": "mps"}, "device = 'mps': must be auto, cpu, cuda or cuda:N"),
        ({"device": "cuda:-1"}, "device = 'cuda:-1'"),
        ({"seeds": "0-"}, "seeds = '0-'"),
        ({"budget": "soon"}, "budget = 'soon'"),
        ({"epochs": -1}, "epochs = -1"),
        ({"preset": "recorded", "results": "no/such/folder"}, "is no folder"),
    ],
)
def test_a_parameter_of_another_form_is_refused_where_nothing_is_trained_too(given, words):
    with pytest.raises(ThriftyError, match=words):
        parameters.check(parameters.parse(PARAMETERS), given)
