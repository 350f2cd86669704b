"""Notebooks that stop early: exit code 3, a checkpoint, and nothing left running, whoever executes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from thriftylib.errors import ThriftyError
from thriftylib.paths import project_root
from thriftylib.running import parameters
from thriftylib.running.notebooks import check_parameters, choose, notebooks
from thriftylib.running.report import PARAMETERS

CELLS = (
    "from thriftylib.running.report import Report\nreport = Report.of(globals())",
    'table = report.table("thriftynet-size-cifar10", filters="8", iterations="4")',
    "report.ending()",
)
LONG = {"preset": "smoke", "device": "cpu", "epochs": 100_000}


@pytest.fixture
def execute(tmp_path):
    """A function that starts papermill on a small notebook of ours, with the package's plug-in."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in (PARAMETERS, *CELLS)])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    info = tmp_path / "site" / "plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    plugin = "[papermill.engine]\nthrifty = thriftylib.running.papermill_engine\n"
    (info / "entry_points.txt").write_text(plugin)
    places = [str(tmp_path / "site"), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"}
    started = []

    def start(**given):
        words = [
            str(word) for key, value in {"results": tmp_path / "r", **given}.items() for word in ("-p", key, value)
        ]
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", "in.ipynb", "out.ipynb", *words]
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


def checkpoints(folder):
    return list(folder.glob("r/checkpoints/[!.]*.safetensors"))


def wait_for(what, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def kernels(folder):
    """Processes of this user that work in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").resolve() == folder and b"ipykernel" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_a_budget_that_ends_inside_ends_papermill_with_3(execute, tmp_path):
    process = execute(**LONG, budget="1s")
    said = process.communicate(timeout=40)[0]
    assert process.returncode == 3, said
    assert "stopped by the budget, with 1 of the runs left; the same command goes on" in said
    assert checkpoints(tmp_path)
    executed = nbformat.read(tmp_path / "out.ipynb", 4)
    assert "estimates" in str(executed.cells[-1].outputs)  # what there is was shown


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prest": "smoke"}, "there is no parameter 'prest'; did you mean 'preset'?"),
        ({"preset": "smok"}, "preset = 'smok'; did you mean 'smoke'?"),
        ({"results": 2024}, "results = '2024': is no folder"),
        ({"epochs": "many"}, "epochs = 'many': must be of type int"),
    ],
)
def test_a_mistake_ends_papermill_with_2(execute, given, said):
    process = execute(**given)
    told = process.communicate(timeout=40)[0]
    assert process.returncode == 2, told
    assert said in told


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 3), (signal.SIGKILL, -9)])
def test_a_signal_to_papermill_leaves_a_checkpoint_and_no_kernel(execute, tmp_path, number, code):
    process = execute(**LONG)
    wait_for(lambda: list(tmp_path.glob("r/locks/*.json")))
    (kernel,) = kernels(tmp_path)
    time.sleep(0.5)
    process.send_signal(number)
    said = process.communicate(timeout=40)[0]
    assert process.returncode == code, said
    wait_for(lambda: not kernels(tmp_path))
    assert checkpoints(tmp_path)


def test_choices_are_those_of_the_comments():
    known = {name: parameters.parse(cell_of(path)) for name, path in notebooks().items()}
    assert known["thriftynet-size"]["preset"].choices == ("recorded", "smoke", "fast", "paper")
    assert known["thriftynet-size"]["dataset"].choices == ("cifar10", "svhn", "abstract", "both")
    assert known["ucp"]["figure"].choices == ("all", "vgg", "resnet", "threshold", "control")
    assert not any(each["device"].choices for each in known.values())
    for name, path in notebooks().items():
        check_parameters(path, {key: each.default for key, each in known[name].items()})
        for key, each in known[name].items():
            assert each.choices or key not in ("figure", "dataset", "table", "protocol")
            if each.choices:
                with pytest.raises(ThriftyError, match="did you mean|; known: ") as caught:
                    check_parameters(path, {key: f"{each.default}x"})
                assert "\n" not in str(caught.value)


def cell_of(path):
    return next(cell.source for cell in nbformat.read(path, 4).cells if "parameters" in cell.metadata.get("tags", ()))


def test_a_folder_named_as_a_number_and_one_at_home():
    known = parameters.parse(PARAMETERS)
    assert parameters.check(known, {"results": 2024})["results"] == "2024"
    assert parameters.check(known, {"data": "~/x"})["data"] == str(Path.home() / "x")
    assert parameters.check(known, {"epochs": "3"})["epochs"] == 3
    with pytest.raises(ThriftyError, match="results = 1000.0: must be of type str"):
        parameters.check(known, {"results": 1e3})


def test_run_ends_with_3_where_the_budget_ends_inside(tmp_path):
    command = [sys.executable, "-m", "thriftylib.cli", "run", "thriftynet-size", "--preset", "smoke", "--device", "cpu"]
    command += ["-p", "epochs=100000", "--results", tmp_path / "r", "--out", tmp_path / "n", "--budget", "6s"]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 3, done.stderr
    assert "thriftynet-size: stopped early; the same command goes on" in done.stderr
    assert "done in" not in done.stderr
    assert checkpoints(tmp_path)


def test_one_scratch_notebook_does_not_block_the_others(tmp_path, monkeypatch, capsys):
    (tmp_path / "notebooks").mkdir()
    path = notebooks()["thriftynet-size"]
    (tmp_path / "notebooks" / path.name).write_bytes(path.read_bytes())
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks" / "Untitled.ipynb")
    (tmp_path / "notebooks" / "Cut.ipynb").write_text("{")
    monkeypatch.setattr("thriftylib.running.notebooks.project_root", lambda: tmp_path)
    assert [each.name for each in choose([])] == [path.name]
    assert capsys.readouterr().err.count("is left out: it has no cell of our parameters") == 2
    assert [each.name for each in choose(["thriftynet-size-cifar10"])] == [path.name]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the processes in /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 3), (signal.SIGKILL, -9)])
def test_a_run_that_is_killed_takes_its_kernels_with_it(tmp_path, number, code):
    command = [sys.executable, "-m", "thriftylib.cli", "run", "thriftynet-size", "--preset", "smoke", "--device", "cpu"]
    command += ["-p", "epochs=100000", "--results", tmp_path / "r", "--out", tmp_path / "n"]
    process = subprocess.Popen(command, cwd=project_root(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("r/locks/*.json")))
    started = below(process.pid)
    assert len(started) >= 2  # a worker and its kernel
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]  # until the last of them has closed it
    assert process.returncode == code, said
    wait_for(lambda: not any(is_running(pid) for pid in started))
    assert checkpoints(tmp_path)


def below(pid):
    """The processes that one has started, and theirs."""
    children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [each for child in children for each in below(child)]


def is_running(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
