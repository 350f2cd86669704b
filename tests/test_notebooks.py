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

import nbformat
import pandas as pd
import papermill
import pytest
from PIL import Image

from thriftylib.evidence.records import load_records
from thriftylib.experiments import EXPERIMENTS
from thriftylib.paths import project_root
from thriftylib.running.notebooks import notebooks, showing

AGAIN = "make it anew with `make notebooks`"
NOTEBOOKS = notebooks()
COMMON = {
    "preset": "str",
    "device": "str",
    "seeds": "str",
    "budget": "str",
    "data": "str",
    "results": "str",
    "epochs": "int",
}
OWN = {
    "thriftynet-size": {"dataset", "filters", "budgets", "depths"},
    "thriftynet-depth": {"figure", "depths", "periods", "histories"},
    "thriftynet-protocol": {"table", "protocol"},
    "dacnn": {"figure", "layers", "widths"},
    "expandnets": {"figure"},
    "pareto": {"dataset", "train"},
}
LINK = re.compile(r'href="data:text/csv;base64,([^"]*)"')
SHOWS = ("display(", "figures.show(", "figures.verdicts(", "HTML(")

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
    assert set(NOTEBOOKS) == set(OWN)
    assert [name for name in EXPERIMENTS if not showing(name)] == []


@each
def test_is_executed_and_whole(name):
    assert faults(read(name)) == [], f"notebooks/{name}.ipynb: {AGAIN}"


def test_faults_are_seen():
    """What a comparison by nbval lets pass."""
    fresh = read("pareto")
    for cell in code(fresh):
        cell.execution_count = None
    assert "was not executed from the first to the last cell, in order" in faults(fresh)

    bare = read("pareto")
    code(bare)[-1].outputs = []
    assert faults(bare) == [f"cell {len(code(bare))} shows nothing"]

    loud = read("pareto")
    code(loud)[1].outputs = [nbformat.v4.new_output("stream", name="stderr", text="a warning")]
    assert faults(loud) == ["cell 2 has an error, or text on standard error"]

    other = read("pareto")
    picture = next(o for cell in code(other) for o in cell.outputs if "image/png" in o.get("data", {}))
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "png")
    picture["data"]["image/png"] = base64.b64encode(pixel.getvalue()).decode()
    assert [fault.split(" ", 2)[2] for fault in faults(other)] == [
        "has a picture that was not drawn from the data below it"
    ]

    blind = read("pareto")
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
    tagged = [cell for cell in read(name).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    known = papermill.inspect_notebook(str(NOTEBOOKS[name]))
    assert {key: each["inferred_type_name"] for key, each in known.items()} == COMMON | dict.fromkeys(OWN[name], "str")
    assert all(each["help"] for each in known.values())
    assert known["preset"]["default"] == '"recorded"'


@each
def test_links_hold_the_data_of_the_figures(name):
    links = [link[1] for text in outputs(read(name), "text/html") if (link := LINK.search(text))]
    assert links
    for link in links:
        frame = pd.read_csv(io.BytesIO(base64.b64decode(link)))
        assert len(frame)
        assert {"source", "change", "epoch"} & set(frame.columns)


def test_tampering_with_an_output_is_a_red_build(tmp_path):
    """One digit of a figure's data in one cell, a number of a table in another: both are found, and nothing else."""
    notebook = read("pareto")
    cells = code(notebook)
    at, shown = next(
        (number, o["data"])
        for number, cell in enumerate(cells)
        for o in cell.outputs
        if LINK.search(o.get("data", {}).get("text/html", ""))
    )
    csv = base64.b64decode(LINK.search(shown["text/html"])[1]).decode()
    changed = base64.b64encode(csv.replace(",75.07,", ",75.08,").encode()).decode()
    shown["text/html"] = LINK.sub(f'href="data:text/csv;base64,{changed}"', shown["text/html"])
    shown = cells[-1].outputs[0]["data"]
    shown["text/html"] = re.sub(r"<td>\d+</td>", "<td>7777</td>", shown["text/html"], count=1)
    path = tmp_path / "tampered.ipynb"
    nbformat.write(notebook, path)
    words = ["--nbval", "--nbval-current-env", "-p", "no:cacheprovider", "-q", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words], cwd=project_root(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.findall(r"^FAILED .*::Configuration (\d+)\b", done.stdout, re.MULTILINE) == [str(at), str(len(cells) - 1)]


@each
def test_smoke(name, tmp_path):
    """Trains on digits and draws what came out, in under a minute of one core; started where Jupyter starts it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    parameters = {"preset": "smoke", "device": "cpu", "results": str(tmp_path / "results")}
    executed = papermill.execute_notebook(
        NOTEBOOKS[name], tmp_path / "out.ipynb", parameters, cwd=project_root() / "notebooks", progress_bar=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60
    trained = load_records(tmp_path / "results")
    assert {record.run.data.name for record in trained} == {"digits"}
    texts = outputs(executed, "text/html")
    drawn = [base64.b64decode(link[1]).decode() for text in texts if (link := LINK.search(text))]
    assert any(run.id in text or "\nours," in text for text in (*texts, *drawn) for run in trained)
    assert all(o.output_type != "error" for cell in code(executed) for o in cell.outputs)


def papermill_command(*words, **more):
    return subprocess.run(
        [sys.executable, "-m", "papermill", *words],
        cwd=project_root(),
        capture_output=True,
        text=True,
        check=False,
        **more,
    )


def test_plain_papermill_from_the_root(tmp_path):
    """As the read-me says it; what is chosen is trained, under a name that answers no claim when it is shortened."""
    words = [
        "notebooks/thriftynet-size.ipynb",
        str(tmp_path / "out.ipynb"),
        "-p",
        "preset",
        "smoke",
        "-p",
        "epochs",
        "1",
    ]
    words += ["-p", "dataset", "cifar10", "-p", "filters", "8", "-p", "depths", "4,5", "-p", "results", str(tmp_path)]
    done = papermill_command(*words, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    trained = load_records(tmp_path)
    assert {record.run.recipe.name for record in trained} == {"thriftynet-smoke-1-epochs"}
    assert {record.run.network.options["iterations"] for record in trained} == {4, 5}
    assert {record.run.network.options["filters"] for record in trained} == {8}


def test_papermill_explains_the_parameters():
    done = papermill_command("--help-notebook", "notebooks/thriftynet-size.ipynb")
    assert done.returncode == 0, done.stderr
    assert re.search(r"preset: str[\s\S]*recorded: train nothing", done.stdout)


def test_an_unknown_parameter_is_refused():
    command = [sys.executable, "-m", "thriftylib.cli", "run", "pareto", "-p", "sizes=3"]
    done = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "notebook pareto has no parameter 'sizes'" in done.stderr
