"""What others wrote leaves as text: no script, formula, escape or command. And its size is bounded."""

import csv
import io
import re
import resource
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from thriftylib import figures
from thriftylib.cli.app import print_table
from thriftylib.errors import RecordError
from thriftylib.escaping import for_shell, for_spreadsheet, for_terminal, tell
from thriftylib.evidence.claims_files import load_claims_files
from thriftylib.evidence.records import load_record
from thriftylib.evidence.tables import command
from thriftylib.figures.display import as_csv, as_png
from thriftylib.paths import claims_dir, read_json
from thriftylib.training.progress import Progress

sys.path.append(str(Path(__file__).parents[1] / "book" / "_ext"))
SCRIPT = "<img src=x onerror=alert(1)>"
ESCAPE = "\x1b]0;title\x07\x9b2J\u202e"


@given(st.text())
def test_a_terminal_gets_no_control_character(text):
    shown = for_terminal(text, lines=False)
    assert all(character.isprintable() or character in "\t " or ord(character) > 127 for character in shown)
    assert not {"\x1b", "\x9b", "\r", "\n", "\x07", "\u202e"} & set(shown)
    shown.encode("utf-8")


def test_tables_and_lines_are_plain(capsys):
    print_table(["a", "b"], [[ESCAPE, 1], ["two\nlines", None]])
    tell(f"thrifty: {ESCAPE}")
    seen = capsys.readouterr()
    assert "\x1b" not in seen.out + seen.err
    assert len(seen.out.splitlines()) == 3
    assert r"\x1b]0;title\x07\x9b2J\u202e" in seen.err


class Closed(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("terminal", [False, True])
def test_no_line_of_progress_ends_a_training(make_run, monkeypatch, terminal):
    stream = Closed()
    stream.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    numbers = dict.fromkeys(("train_loss", "train_accuracy", "test_accuracy", "learning_rate"), 1.0)
    with Progress(make_run(), 10, 0) as progress:
        progress.step(1)
        progress.epoch(5, numbers, 1.0)
        progress.say("[/red] is no markup")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\tx", "\r=1", "\n=1"])
def test_a_spreadsheet_gets_no_formula(text):
    frame = pd.DataFrame({"recipe": [text, "fine"], "value": [-1.5, 2.0], text: ["a", "b"]})
    rows = list(csv.reader(io.StringIO(as_csv(frame))))
    assert rows[1] == ["'" + for_terminal(text), "-1.5", "a"]
    assert rows[0][2] == "'" + for_terminal(text)
    assert for_spreadsheet(-1.5) == -1.5


def test_pages_and_notebooks_get_no_markup():
    InteractiveShell.instance()
    axes = figures.points(
        pd.DataFrame({"x": [1, 2], "y": [1.0, 2.0], "s": [SCRIPT, "$_{"]}), x="x", y="y", hue="s", title="$"
    )
    with capture_output() as seen:
        figures.show(axes, pd.DataFrame({"a": [1]}), f'"{SCRIPT}', alt=SCRIPT)
    assert "<img" not in seen.outputs[1].data["text/html"]
    frame = pd.DataFrame({"experiment": [SCRIPT], "preset": [SCRIPT], "status": ["missing"], "run": ["1"]})
    assert "<img" not in figures.status(frame).data
    assert "<img" not in figures.table(pd.DataFrame({SCRIPT: [SCRIPT]})).data


def test_the_start_page_runs_nothing_of_a_claims_file(tmp_path):
    import thrifty_tables

    text = (claims_dir() / "ucp.yaml").read_text("utf-8")
    (tmp_path / "ucp.yaml").write_text(re.sub(r"(?m)^title: .*$", f"title: {SCRIPT}", text))
    (tmp_path / f"{SCRIPT}.yaml").write_text(f"title: {SCRIPT}")
    files = load_claims_files(tmp_path).sound()
    assert SCRIPT in files
    page = thrifty_tables.scoreboard(files, [], [])
    assert "&lt;img" in page
    assert "<img" not in page


@pytest.mark.parametrize("name", ["$x_{$", "$\\undefined$", "a$b"])
def test_a_name_in_a_figure_is_no_formula(name):
    frame = pd.DataFrame({"x": [name, "b"], "y": [1.0, 2.0], "s": [name, "t"]})
    for plot in (figures.bars, figures.lines):
        as_png(plot(frame, x="x", y="y", hue="s", facet="s", title=name, caption=name)[0].figure, {})
    as_png(figures.points(frame, x="y", y="x", hue="s", label="s", title=name)[0].figure, {})


def test_a_printed_command_is_one_command():
    for word in ("a; rm -rf ~", "$(x)", "`x`", "a b", "a&b", "a'b"):
        assert for_shell(word)[0] in "'\""
    assert for_shell("widths=[4,4,8]") == "widths=[4,4,8]"
    claim = next(iter(load_claims_files(claims_dir()).values())).claims
    claim = next(each for each in claim.values() if not each.is_counted and each.not_testable is None)
    assert "'x/$(reboot)'" in command(claim.model_copy(update={"id": "x/$(reboot)"}))


def nested(levels, width=10):
    lines = ["title: T", "a0: &a0 [lol]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"groups: [{{group: g, id: *a{levels - 1}}}]"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (nested(12), "too large"),
        ("title: T\ngroups: &a [*a]", "too large"),
        ("title: " + "[" * 300_000, "too deep"),
        ("title: T\n" + "".join(f"k{n}: 1\n" for n in range(20_000)) + "k7: 2", "'k7' is there twice"),
        ("title: T\ngroups: [{group: g, claims: [{id: a, value: " + "9" * 5000 + "}]}]", "5000 digits|4300"),
        ("title: T\ngroups: [{group: g, claims: [{id: a, statement: '{value:>999999999}', value: 1.0}]}]", "braces"),
        ("title: !!python/object/apply:os.system [true]", "not YAML"),
        ("title: \x00", "not YAML"),
    ],
    ids=["laughs", "itself", "deep", "twice", "digits", "width", "tag", "null"],
)
def test_a_claims_file_is_bounded(tmp_path, text, said):
    (tmp_path / "p.yaml").write_text(text)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    (fault,) = load_claims_files(tmp_path).faults.values()
    assert "\n" not in fault
    assert str(tmp_path / "p.yaml") in fault
    assert re.search(said, fault), fault
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"id": ' + "9" * 5000 + "}", '{"a": 1, "a": 2}', "NaN", "\xff", "", '"\ud800"', "[]"]
)
def test_an_odd_record_is_one_line(tmp_path, text):
    path = tmp_path / "0123456789ab.json"
    path.write_bytes(
        text.encode("latin1", "surrogatepass") if "\xff" in text else text.encode("utf-8", "surrogatepass")
    )
    with pytest.raises(RecordError) as caught:
        load_record(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_of_ours_is_not_read_whole(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RecordError, match="holds more than"):
        read_json(tmp_path / "x.json")
    for odd in (tmp_path, tmp_path / ("x" * 300), tmp_path / "a\0b"):
        with pytest.raises(RecordError, match="cannot be"):
            read_json(odd)
