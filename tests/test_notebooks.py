"""The committed notebooks: executed in order, explained, small, compared with what they show; and each one runs.

What they show is made again by ``make nbval``. To make it anew after a change of records or of figures:
``make notebooks``, which executes them in place with ``jupyter execute``.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import resource
import subprocess
import sys

import made_up
import nbformat
import pandas as pd
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbclient import NotebookClient
from PIL import Image

from thriftylib.errors import SpecError
from thriftylib.evidence.records import load_records, save_record
from thriftylib.experiments import EXPERIMENTS
from thriftylib.paths import project_root
from thriftylib.running.notebooks import notebooks, showing
from thriftylib.running.report import PARAMETERS, Report

AGAIN = "make it anew with `make notebooks`"
NOTEBOOKS = notebooks()
SMALLEST = min(NOTEBOOKS, key=lambda name: NOTEBOOKS[name].stat().st_size)
LINK = re.compile(r'href="data:text/csv;base64,([^"]*)"')
SHOWS = ("display(", "figures.show(", "figures.verdicts(", "HTML(", "report.training(", "report.ending(")
DEFAULTS = {"preset": "recorded", "device": "cpu", "seeds": "0", "budget": "", "data": "", "results": "", "epochs": 0}

each = pytest.mark.parametrize("name", sorted(NOTEBOOKS))


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook, kind):
    return [o["data"][kind] for cell in code(notebook) for o in cell.outputs if kind in o.get("data", {})]


def faults(notebook):
    """Why a notebook may not be committed as it is; a comparison by nbval sees none of this."""
    cells, found = code(notebook), []
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        found.append("was not executed from the first to the last cell, in order")
    found += [
        f"cell {number} shows nothing"
        for number, cell in enumerate(cells, 1)
        if any(call in cell.source for call in SHOWS) and not cell.outputs
    ]
    for number, cell in enumerate(cells, 1):
        if any(o.output_type == "error" or o.get("name") == "stderr" for o in cell.outputs):
            found.append(f"cell {number} has an error, or text on standard error")
        pictures = [o["data"]["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
        links = [LINK.search(o["data"]["text/html"]) for o in cell.outputs if "text/html" in o.get("data", {})]
        data = [hashlib.sha256(base64.b64decode(link[1])).hexdigest() for link in links if link]
        drawn_from = [Image.open(io.BytesIO(base64.b64decode(p))).info.get("Data-SHA256") for p in pictures]
        if drawn_from != data:
            found.append(f"cell {number} has a picture that was not drawn from the data below it")
    if re.search(r"nbval-|NBVAL_", nbformat.writes(notebook)):
        found.append("tells nbval to look away")
    return found


def read(name):
    return nbformat.read(NOTEBOOKS[name], as_version=4)


def test_every_experiment_has_its_notebook():
    assert [name for name in EXPERIMENTS if not showing(name)] == []


@each
def test_is_executed_and_whole(name):
    assert faults(read(name)) == [], f"notebooks/{name}.ipynb: {AGAIN}"


def test_faults_are_seen():
    """What a comparison by nbval lets pass."""
    fresh = read(SMALLEST)
    for cell in code(fresh):
        cell.execution_count = None
    assert "was not executed from the first to the last cell, in order" in faults(fresh)

    bare = read(SMALLEST)
    last = max(number for number, cell in enumerate(code(bare)) if any(call in cell.source for call in SHOWS))
    code(bare)[last].outputs = []
    assert faults(bare) == [f"cell {last + 1} shows nothing"]

    loud = read(SMALLEST)
    code(loud)[1].outputs = [nbformat.v4.new_output("stream", name="stderr", text="a warning")]
    assert faults(loud) == ["cell 2 has an error, or text on standard error"]

    other = read(SMALLEST)
    picture = next(o for cell in code(other) for o in cell.outputs if "image/png" in o.get("data", {}))
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "png")
    picture["data"]["image/png"] = base64.b64encode(pixel.getvalue()).decode()
    assert [fault.split(" ", 2)[2] for fault in faults(other)] == [
        "has a picture that was not drawn from the data below it"
    ]

    blind = read(SMALLEST)
    code(blind)[-1].metadata["tags"] = ["nbval-ignore-output"]
    assert faults(blind) == ["tells nbval to look away"]


@each
def test_holds_no_trace_of_a_machine(name):
    notebook = read(name)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "papermill" not in notebook.metadata
    text = NOTEBOOKS[name].read_text("utf-8")
    assert str(project_root()) not in text
    assert not re.search(r"(?<![\w.~])/(home|root|tmp|Users|work|mnt)/|(?<![\w+/])0x[0-9a-f]{6,}", text)


@each
def test_cells_are_short_and_train_nothing_themselves(name):
    for cell in code(read(name)):
        assert len(cell.source.splitlines()) <= 11, cell.source
        assert "torch" not in cell.source


@each
def test_parameters_are_typed_and_explained(name):
    (cell,) = (cell for cell in read(name).cells if "parameters" in cell.metadata.get("tags", []))
    assert cell.source.startswith(PARAMETERS.rstrip())
    own = cell.source.removeprefix(PARAMETERS.rstrip()).splitlines()[1:]
    assert [line for line in own if not re.fullmatch(r"\w+: (str|int|float|bool) = \S.*  # \S.*", line)] == []
    assert len(papermill.inspect_notebook(str(NOTEBOOKS[name]))) == len(cell.source.splitlines())


@each
def test_links_hold_the_data_of_the_figures(name):
    links = [link[1] for text in outputs(read(name), "text/html") if (link := LINK.search(text))]
    assert links
    for link in links:
        frame = pd.read_csv(io.BytesIO(base64.b64decode(link)))
        assert len(frame)
        assert {"source", "change", "epoch"} & set(frame.columns) or {"x", "y"} <= set(frame.columns)  # of a picture


def test_tampering_with_an_output_is_a_red_build(tmp_path):
    """One digit of a figure's data in one cell, a number of a table in another: both are found, and nothing else."""
    sources = (
        "import pandas as pd\nfrom IPython.display import HTML\nfrom thriftylib import figures",
        'data = pd.DataFrame({"x": [1, 2], "y": [75.07, 80.5]})',
        'figures.show(figures.points(data, x="x", y="y", title="A title"), data, "name", alt="Two points.")',
        "HTML(data.to_html(index=False))",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    NotebookClient(notebook, kernel_name="python3").execute()
    assert faults(notebook) == []
    shown, table = notebook.cells[2].outputs[1]["data"], notebook.cells[3].outputs[0]["data"]
    csv = base64.b64decode(LINK.search(shown["text/html"])[1]).decode()
    assert ",75.07\n" in csv
    changed = base64.b64encode(csv.replace(",75.07\n", ",75.08\n").encode()).decode()
    shown["text/html"] = LINK.sub(f'href="data:text/csv;base64,{changed}"', shown["text/html"])
    table["text/html"] = table["text/html"].replace("<td>2</td>", "<td>7777</td>")
    path = tmp_path / "tampered.ipynb"
    nbformat.write(notebook, path)
    words = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=project_root(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.findall(r"^FAILED .*::Cell (\d+)\b", done.stdout, re.MULTILINE) == ["2", "3"], done.stdout


def papermill_command(*words):
    return subprocess.run(
        [sys.executable, "-m", "papermill", *words], cwd=project_root(), capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@each
def test_smoke(name, tmp_path):
    """Plain papermill from the root, as the read-me says it: trains one epoch on digits and draws what came out.

    A notebook that draws what is there anyway, and trains only what its parameter ``train`` names, finds records.
    """
    results, output = tmp_path / "results", tmp_path / "out.ipynb"
    there = {run.id: made_up.record(run) for run in next(iter(EXPERIMENTS.values())).runs("smoke", [0])}
    for record in there.values():
        save_record(record, results)
    given = {"preset": "smoke", "device": "cpu", "results": results, "epochs": 1}
    words = [str(word) for key, value in given.items() for word in ("-p", key, value)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    folder = "notebooks" if name == SMALLEST else "."  # where Jupyter starts it, and where papermill does
    done = papermill_command(str(NOTEBOOKS[name]), str(output), *words, "--cwd", folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60
    trained = [record for record in load_records(results) if record.id not in there]
    assert trained or "train" in papermill.inspect_notebook(str(NOTEBOOKS[name]))
    assert {record.run.data.name for record in trained} <= {"digits"}
    assert all("smoke" in record.run.recipe.name for record in trained if record.run.recipe)
    executed = nbformat.read(output, 4)
    texts = outputs(executed, "text/html")
    drawn = [base64.b64decode(link[1]).decode() for text in texts if (link := LINK.search(text))]
    ids = [run.id for run in (*trained, *there.values())]
    assert any(name in text or "\nreproduced," in text for text in (*texts, *drawn) for name in ids)
    assert all(o.output_type != "error" for cell in code(executed) for o in cell.outputs)


def test_a_report_trains_what_is_chosen(tmp_path):
    """Under a name that answers no claim when it is shortened."""
    asked = {**DEFAULTS, "preset": "smoke", "results": str(tmp_path), "epochs": 1}
    name, labels = next(
        (name, configuration.labels)
        for name, each in EXPERIMENTS.items()
        for configuration in each.configurations("smoke")
        if any(isinstance(value, int) for value in configuration.labels.values())
    )
    where = {label: str(value) for label, value in labels.items() if isinstance(value, int)}
    table = Report.of({**asked, "of the notebook": 1}).table(name, **where)
    assert {str(value) for label, value in where.items() for value in table[label]} == set(where.values())
    assert set(table["status"]) == {"complete"}
    assert all(record.run.recipe.name.endswith("-smoke-1-epochs") for record in load_records(tmp_path))
    assert set(Report.of(asked).table(name, train=False)["status"]) >= {"missing"}


def test_a_report_refuses_what_cannot_be():
    with pytest.raises(SpecError, match="parameters lack device, epochs"):
        Report.of({key: value for key, value in DEFAULTS.items() if key not in ("device", "epochs")})
    with pytest.raises(SpecError, match="unknown preset 'papr'.*paper"):
        Report(**{**DEFAULTS, "preset": "papr"})
    report = Report(**{**DEFAULTS, "preset": "smoke"})
    with pytest.raises(SpecError, match="layers = 'a': must be whole numbers"):
        report.table(next(iter(EXPERIMENTS)), layers="a")


def test_a_report_ends_with_what_its_experiments_cost(tmp_path):
    InteractiveShell.instance()  # collects what is displayed
    report = Report(**{**DEFAULTS, "results": str(tmp_path)})
    name = next(iter(EXPERIMENTS))
    report.table(name)
    with capture_output() as seen:
        report.training("A title")
        report.ending()
    nothing, words, costs = (output.data for output in seen.outputs)
    assert "No such training is recorded yet" in nothing["text/markdown"]
    assert "estimates" in words["text/markdown"]
    assert costs["text/html"].count(f"<td>{name}</td>") == 2  # fast and paper


def test_papermill_explains_the_parameters():
    done = papermill_command("--help-notebook", str(NOTEBOOKS[SMALLEST]))
    assert done.returncode == 0, done.stderr
    assert re.search(r"preset: str[\s\S]*recorded: train nothing", done.stdout)


def test_an_unknown_parameter_is_refused():
    command = [sys.executable, "-m", "thriftylib.cli", "run", SMALLEST, "-p", "nosuch=3"]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"notebook {SMALLEST} has no parameter 'nosuch'" in done.stderr
