"""Figures: claimed and ours never alike, what is missing is said, nothing leaves the picture, data go with it."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from made_up import claim, from_series, record, run
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from PIL import Image

from thriftylib import figures
from thriftylib.evidence.claims_files import Replication
from thriftylib.figures import display
from thriftylib.figures import style as look

SERIES = {"T = 20": [(3042, 75.07), (8002, 84.45), (80770, 91.58)], "T = 30": [(3742, 78.64), (85950, 92.19)]}


def points(seeds: int, recipes=("paper", "fast"), claims=True, x="parameters", **more) -> pd.DataFrame:
    """Claimed points, and around each ``seeds`` runs of each recipe, or one that is still wanted."""
    noise = np.random.default_rng(0)
    rows = []
    for series, places in SERIES.items():
        for number, (place, accuracy) in enumerate(places):
            same = {"series": series, x: place if x == "parameters" else number + 1, **more}
            if claims:
                rows.append({**same, "source": "claimed", "accuracy": accuracy, "error": 0.03})
            for recipe in recipes:
                runs = [
                    {
                        **same,
                        "source": "ours",
                        "accuracy": accuracy + noise.normal(0, 0.3),
                        "recipe": recipe,
                        "seed": seed,
                    }
                    for seed in range(seeds)
                ]
                rows += runs or [{**same, "source": "wanted", "recipe": recipe, "seed": 0}]
    return pd.DataFrame(rows).reindex(
        columns=list(dict.fromkeys([*rows[0], "source", "accuracy", "error", "recipe", "seed"]))
    )


def downsamplings(seeds: int, failed: float | None = None) -> pd.DataFrame:
    labels = [(0, 40, 0, None), (1, 15, 1, 89.1), (3, 7, 4, 90.54)]
    rows = []
    for label, period, poolings, accuracy in labels:
        same = {"series": "40K", "paper_label": label, "period": period, "poolings": poolings}
        if accuracy:
            rows.append({**same, "source": "claimed", "accuracy": accuracy, "error": 0.01})
        reached = accuracy or failed
        if reached:
            rows += [
                {**same, "source": "ours", "accuracy": reached, "recipe": "paper", "seed": s} for s in range(seeds)
            ]
    columns = ["series", "paper_label", "period", "poolings", "source", "accuracy", "error", "recipe", "seed"]
    return pd.DataFrame(rows, columns=columns)


def audit(*changes: tuple[str, list[float]]) -> pd.DataFrame:
    rows = [
        {"change": name, "seed": seed, "difference": value}
        for name, values in changes
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows, columns=["change", "seed", "difference"])


def front(*ours: tuple[int, float]) -> pd.DataFrame:
    rows = [("claimed", "thriftynet", 3042, 75.07, None), ("claimed", "thriftynet", 80770, 91.58, None)]
    rows += [("ours", "tiny-resnet" if size % 2 else "thriftynet", size, accuracy, 2) for size, accuracy in ours]
    return pd.DataFrame(rows, columns=["source", "family", "parameters", "accuracy", "n"])


def curve(epochs: int = 30) -> pd.DataFrame:
    made = from_series(run(epochs=epochs), [float(10 + epoch) for epoch in range(epochs - 1)] + [30.0], seconds=1000.0)
    return figures.curves(made)


MACS = {"x": "mmacs", "iterations": 20}
PICTURES = {
    "size, nothing run": lambda: figures.accuracy_against_parameters(points(0), title="A title"),
    "size, one seed": lambda: figures.accuracy_against_parameters(points(1), title="A title"),
    "size, many": lambda: figures.accuracy_against_parameters(
        points(5, ("paper", "fixed code", "fast")),
        title="A long title that needs more than one line to be told in full",
    ),
    "size, nothing at all": lambda: figures.accuracy_against_parameters(points(0, claims=False), title="A title"),
    "macs": lambda: figures.accuracy_against_macs(points(3, **MACS), title="A title"),
    "macs, nothing run": lambda: figures.accuracy_against_macs(points(0, **MACS), title="A title"),
    "macs, no depths": lambda: figures.accuracy_against_macs(points(1, x="mmacs", iterations=np.nan), title="A title"),
    "depth": lambda: figures.accuracy_against_depth(points(2, x="iterations", claims=False), title="A title"),
    "history": lambda: figures.accuracy_against_history(points(1, x="history", claims=False), title="A title"),
    "history, nothing": lambda: figures.accuracy_against_history(points(0, x="history", claims=False), title="A title"),
    "downsamplings": lambda: figures.accuracy_against_downsamplings(downsamplings(2, 46.0), title="A title"),
    "downsamplings, nothing run": lambda: figures.accuracy_against_downsamplings(downsamplings(0), title="A title"),
    "audit": lambda: figures.protocol_audit(
        audit(("a change with quite a long name, of three lines", [0.5, -0.2]), ("b", [-70.0]), ("c", [np.nan])),
        title="T",
    ),
    "audit, nothing run": lambda: figures.protocol_audit(
        audit(*((f"change {n}", [np.nan]) for n in range(20))), title="T"
    ),
    "pareto": lambda: figures.pareto(front((4000, 80.0), (5001, 40.0), (90000, 92.0)), title="A title"),
    "pareto, nothing run": lambda: figures.pareto(front(), title="A title"),
    "pareto, nothing at all": lambda: figures.pareto(front().iloc[:0], title="A title"),
    "training": lambda: figures.training_curves(curve(), title="A title", note="A note."),
}
every = pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)


def panels_of(drawn) -> list[Axes]:
    return [drawn] if isinstance(drawn, Axes) else list(drawn)


def texts(drawn) -> str:
    figure = panels_of(drawn)[0].figure
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


@every
@pytest.mark.filterwarnings("error")
def test_all_text_lies_inside_the_picture(picture):
    figure = panels_of(picture())[0].figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    frame = figure.bbox.padded(1)
    for text in figure.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_visible()):
        if text.get_text().strip() and not _is_hidden_tick(text, figure):
            box = text.get_window_extent(renderer)
            assert frame.containsx(box.x0), text
            assert frame.containsx(box.x1), text
            assert frame.containsy(box.y0), text
            assert frame.containsy(box.y1), text


def _is_hidden_tick(text, figure) -> bool:
    """A tick beyond the limits keeps its label, but nobody sees it."""
    ticks = [tick for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()]
    return any(text in (tick.label1, tick.label2) and not _in_view(tick) for tick in ticks)


def _in_view(tick) -> bool:
    low, high = sorted(tick.axes.get_xlim() if tick.__name__ == "xtick" else tick.axes.get_ylim())
    return low <= tick.get_loc() <= high


@every
def test_type_is_large_enough_for_a_phone(picture):
    drawn = panels_of(picture())[0].figure
    shown = 350 / drawn.get_figwidth() / 72  # CSS pixels per point on a phone
    assert all(
        text.get_fontsize() * shown > 7 for text in drawn.findobj(lambda artist: hasattr(artist, "get_fontsize"))
    )


def marker_lines(drawn):
    lines = (line for axes in panels_of(drawn) for line in axes.lines)
    return [line for line in lines if line.get_marker() not in ("None", "", None, "|", "_")]


@pytest.mark.parametrize("name", ["size, many", "macs", "downsamplings", "pareto"])
def test_claimed_is_hollow_and_grey_and_ours_is_filled(name):
    drawn = PICTURES[name]()
    hollow = [line for line in marker_lines(drawn) if line.get_markerfacecolor() == "none"]
    filled = [line for line in marker_lines(drawn) if line.get_markerfacecolor() != "none" and len(line.get_xdata())]
    assert hollow
    assert filled
    for line in hollow:
        red, green, blue = (int(to_hex(line.get_markeredgecolor())[at : at + 2], 16) for at in (1, 3, 5))
        assert red == green == blue
    for line in filled:
        assert to_hex(line.get_markerfacecolor()).upper() in look.COLOURS


def test_what_is_recorded_is_said():
    assert "Ours: not run yet." in texts(PICTURES["size, nothing run"]())
    one = texts(PICTURES["size, one seed"]())
    assert "Points recorded: ours 5 of 5, fast 5 of 5." in one
    assert "ours: one seed" in one
    assert "ours, fast: one seed" in one
    many = texts(PICTURES["size, many"]())
    assert "ours: mean ± sd, n = 5" in many
    assert "ours, fixed code: mean ± sd, n = 5" in many
    assert "claimed, as read (±0.03)" in many
    assert "nothing claimed, nothing run yet" in texts(PICTURES["history, nothing"]())


def test_seeds_become_mean_and_sample_deviation():
    frame = points(1, ("paper",), claims=False, x="history").iloc[[0, 0, 0]].assign(accuracy=[90.0, 91.0, 95.0])
    axes = figures.accuracy_against_history(frame, title="A title")
    (bar,) = axes.containers
    assert bar.lines[0].get_ydata() == [92.0]
    assert [cap.get_ydata()[0] for cap in bar.lines[1]] == pytest.approx([92 - 7**0.5, 92 + 7**0.5])


def test_one_seed_has_no_bar_and_a_smaller_marker():
    one = PICTURES["history"]().containers
    assert not any(bar.has_yerr for bar in one)
    two = PICTURES["depth"]().containers
    assert all(bar.has_yerr for bar in two)
    assert max(bar.lines[0].get_markersize() for bar in one) < max(bar.lines[0].get_markersize() for bar in two)


def test_no_line_crosses_what_is_not_recorded():
    frame = points(1, ("paper",), claims=False, x="history")
    frame = frame[frame["series"] == "T = 20"]
    frame.loc[frame["history"] == 2, ["source", "accuracy"]] = ["wanted", np.nan]
    axes = figures.accuracy_against_history(frame, title="A title")
    (line,) = (line for line in axes.lines if len(line.get_xdata()) == 3)
    assert np.isnan(line.get_ydata()[1])


def test_labels_of_downsamplings_say_what_really_happens():
    axes = PICTURES["downsamplings"]()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [
        "0\n$p$ = 40\n0×",
        "1\n$p$ = 15\n1×",
        "3\n$p$ = 7\n4×",
    ]
    assert "↓ 46.0 ± 0.0" in texts(axes)  # far below the claims: written, not drawn
    assert axes.get_ylim()[0] > 80


def test_audit_writes_what_is_beyond_its_axis_and_names_what_is_missing():
    axes = PICTURES["audit"]()
    assert "−70.00 ←  n = 1" in texts(axes)
    assert "+0.15  n = 2" in texts(axes)
    assert "Not run yet: c." in texts(axes)
    assert axes.get_xlim()[1] < 2
    assert len(axes.get_yticks()) == 2


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 100)), max_size=20))
def test_the_front_is_what_nothing_beats(sizes):
    frame = pd.DataFrame(sizes, columns=["parameters", "accuracy"])
    chosen = figures.pareto_front(frame)
    beaten = {
        (size, accuracy)
        for size, accuracy in sizes
        if any(n <= size and a >= accuracy and (n, a) != (size, accuracy) for n, a in sizes)
    }
    assert set(chosen.itertuples(index=False, name=None)) == set(sizes) - beaten
    assert chosen["parameters"].is_monotonic_increasing


def test_pareto_counts_what_lies_below_its_axis():
    axes = PICTURES["pareto"]()
    assert "Ours: 3 points from 6 records; 1 below the axis." in texts(axes)
    assert axes.get_ylim()[0] > 60


def test_training_marks_best_and_last():
    drawn = texts(PICTURES["training"]())
    assert "best epoch: 38.00 %" in drawn
    assert "last epoch: 30.00 %" in drawn


@given(st.floats(1, 99.9))
def test_log_error_scale_is_its_own_inverse(accuracy):
    assert look._from_log_error(look._to_log_error(accuracy)) == pytest.approx(accuracy)


# ------------------------------------------------------------------------------------------ from tables to points
FIGURE = claim(
    id="made-up/group/two", mark="FIGURE", error=0.02, value=90.7, runs=2, values=[90.6, 90.8],
    statistic="mean over runs of the best epoch",
)  # fmt: skip
PLACE = claim(
    id="made-up/group/cost", quantity="ptflops_macs", unit="MMAC", statistic="count", value=172, error=0.5,
    mark="FIGURE", experiment=None,
)  # fmt: skip
CLAIMS = {each.id: each for each in (FIGURE, PLACE, claim(mark="AUTHORS' LOG"))}


def table(*rows: dict) -> pd.DataFrame:
    """Rows as ``experiments.collect`` gives them."""
    same = {
        "experiment": "made-up-experiment", "preset": "paper", "recipe": "r", "claim": None, "run": "0", "seed": 0,
        "iterations": 20, "code": "released", "parameters": 39862, "ptflops_macs": 171734776, "best_accuracy": 90.0,
        "final_accuracy": 89.0, "status": "complete",
    }  # fmt: skip
    return pd.DataFrame([{**same, **row} for row in rows])


def test_points_keep_claimed_and_ours_apart():
    frame = figures.points(
        table(
            {"claim": FIGURE.id},
            {"claim": FIGURE.id, "seed": 1},
            {"code": "fixed", "status": "missing", "best_accuracy": np.nan},
            {"preset": "fast", "recipe": "r-fast"},
            {"claim": "made-up/group/one", "code": "fixed"},
            {"recipe": "r-2-epochs"},
        ),
        CLAIMS,
        x="mmacs",
        series="T = {iterations}",
        variant="code",
        single_runs=True,
    )
    claimed = frame[frame["source"] == "claimed"]
    assert claimed[["mmacs", "x_error", "accuracy", "error"]].values.tolist() == [
        [172, 0.5, 90.6, 0.02],
        [172, 0.5, 90.8, 0.02],
    ]
    ours = frame[frame["source"] != "claimed"]
    assert list(ours["recipe"]) == ["paper", "paper", "fixed code", "fast", "fixed code", "paper, 2 epochs"]
    assert list(ours["source"]) == ["ours", "ours", "wanted", "ours", "ours", "ours"]
    assert set(ours["mmacs"]) == {171.734776}
    assert set(frame["series"]) == {"T = 20"}


def test_points_draw_the_epoch_that_is_asked_for():
    rows = table({"claim": FIGURE.id})
    for protocol, accuracy in (("best", 90.0), ("final", 89.0)):
        frame = figures.points(rows, CLAIMS, x="parameters", series="s", protocol=protocol)
        assert list(frame["accuracy"]) == [90.7, accuracy]  # a claim is what it is; its x is our count here
        assert set(frame["parameters"]) == {39862}


def test_differences_pair_runs_of_one_seed_and_preset():
    rows = table(
        {"aspect": "reference", "variant": "40K"},
        {"aspect": "reference", "variant": "40K", "seed": 1, "best_accuracy": 80.0},
        {"aspect": "norm", "variant": "shared", "seed": 1, "best_accuracy": 85.0},
        {"aspect": "norm", "variant": "shared", "seed": 2},
        {"aspect": "norm", "variant": "shared", "seed": 0, "preset": "fast"},
    )
    found = figures.differences(rows, aspect="aspect", variant="variant", reference="reference")
    by = found.set_index(["change", "preset", "seed"])["difference"]
    assert by["last epoch, not best", "paper", 0] == -1
    assert by["norm: shared", "paper", 1] == 5
    assert by[["norm: shared"]].notna().sum() == 1


def test_front_points_average_seeds_and_leave_parts_of_a_data_set_out():
    part = record(run(data={"name": "cifar10", "train_images": 500}), 99.0, 99.0)
    records = [record(run(0), 90.0, 89.0), record(run(1), 92.0, 88.0), part, record(run(data={"name": "svhn"}))]
    frame = figures.front_points(records, table({"claim": FIGURE.id}), CLAIMS, "cifar10")
    assert frame[["source", "parameters", "accuracy", "n"]].values.tolist() == [
        ["claimed", 39862, 90.7, 2],
        ["ours", 3042, 91.0, 2],
    ]
    assert list(frame["final"].dropna()) == [88.5]


def test_longest_training():
    short, long = record(run(epochs=3)), record(run(epochs=5))
    assert figures.longest([short, long], [short.id, long.id]) is long
    assert figures.longest([short, long], [short.id]) is short
    assert figures.longest([short], ["nothing"]) is None
    assert short.id in figures.run_in_words(short)


# ---------------------------------------------------------------------------------------------------- in a notebook
def shown(frame: pd.DataFrame) -> tuple[bytes, str]:
    InteractiveShell.instance()  # collects what is displayed
    with capture_output() as seen:
        figures.show(figures.accuracy_against_parameters(frame, title="A title"), frame, "name", alt="In words.")
    picture, link = seen.outputs
    assert picture.metadata["image/png"] == {"width": display.SHOWN_WIDTH, "alt": "In words."}
    return base64.b64decode(picture.data["image/png"]), link.data["text/html"]


def test_a_picture_carries_its_data():
    frame = points(2)
    picture, link = shown(frame)
    assert (picture, link) == shown(frame)  # the same bytes each time
    assert 'download="name.csv"' in link
    csv = base64.b64decode(re.search('base64,([^"]*)', link)[1]).decode()
    pd.testing.assert_frame_equal(pd.read_csv(BytesIO(csv.encode())), frame.round(4), check_dtype=False)
    image = Image.open(BytesIO(picture))
    assert image.info["Data-SHA256"] == display.checksum(csv)
    assert image.width == 2 * display.SHOWN_WIDTH
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)  # an opaque card


def test_the_palette_changes_no_colour_that_one_could_see():
    figure = figures.accuracy_against_parameters(points(2), title="A title")[0].figure
    drawn = BytesIO()
    with look.style():
        figure.savefig(drawn, format="png", dpi=2 * display.SHOWN_WIDTH / figure.get_figwidth())
    small = display.as_png(figure, {})
    pictures = [np.asarray(Image.open(BytesIO(png)).convert("RGB"), int) for png in (drawn.getvalue(), small)]
    assert abs(pictures[0] - pictures[1]).max() <= 12  # of 255
    assert len(small) < len(drawn.getvalue()) / 2


def test_data_do_not_differ_in_a_last_bit():
    assert display.as_csv(pd.DataFrame({"a": [0.1 + 0.2]})) == display.as_csv(pd.DataFrame({"a": [0.3]}))


def test_verdicts_show_claimed_ours_and_how_it_was_read():
    row = {
        "statement": "More <than> 91 %.", "claimed": 91.0, "error": 0.02, "bound": "more than", "unit": "%",
        "mark": "FIGURE", "ours": 90.5, "spread": 0.31, "n": 3, "final": 90.2, "recipe": "r", "verdict": "at odds",
    }  # fmt: skip
    text = figures.verdicts(pd.DataFrame([row])).data
    cells = re.findall("<td[^>]*>(.*?)</td>", text)
    assert cells == [
        "More &lt;than&gt; 91 %.", "&gt; 91 ± 0.02 % (read from the figure)", "90.50 ± 0.31 (r)", "3",
        "90.20", "at odds",
    ]  # fmt: skip
    assert "<summary>1 claim: 1 at odds</summary>" in text
    assert "<details open>" in text
    assert "<details>" in figures.verdicts(pd.DataFrame([row] * 9)).data
    missing = {**row, "ours": np.nan, "spread": np.nan, "n": 0, "final": np.nan, "recipe": None}
    assert re.findall("<td[^>]*>(.*?)</td>", figures.verdicts(pd.DataFrame([missing])).data)[2:5] == ["", "", ""]


def test_verdicts_tell_of_a_reading_that_was_changed():
    row = {
        "statement": "A claim.", "claimed": 91.0, "error": 0.0, "bound": "equals", "unit": "%", "mark": "FIGURE",
        "ours": 90.5, "spread": 0.31, "n": 3, "final": 90.2, "recipe": "r", "verdict": "at odds", "reading_changed": "",
    }  # fmt: skip
    text = figures.verdicts(pd.DataFrame([row, {**row, "reading_changed": "first <this>, then that"}] * 2)).data
    assert re.findall("<td[^>]*>(.*?)</td>", text)[5::6] == ["at odds", "at odds*"] * 2
    assert text.count("<p>* first &lt;this&gt;, then that.</p>") == 1
    assert "4 at odds" in text
    assert "first" not in figures.verdicts(pd.DataFrame([{**row, "ours": np.nan, "reading_changed": "first"}])).data


def test_status_says_what_is_missing_and_how_to_train_it():
    rows = table(
        {"run": "a"},
        {"run": "b", "status": "missing"},
        {"run": "c", "status": "diverged"},
        {"run": "d", "preset": "fast"},
    )
    others = rows.assign(experiment="other", status="missing", run=[f"other {run}" for run in rows["run"]])
    text = figures.status(rows, others).data
    assert text.startswith("<details><summary>3 of 8 runs recorded</summary>")
    cells = re.findall("<td[^>]*>(.*?)</td>", text)
    train = "<code>thrifty train {} --preset {}</code>"
    assert cells == [
        "made-up-experiment", "paper", "2 of 3, 1 diverged", train.format("made-up-experiment", "paper"),
        "made-up-experiment", "fast", "1 of 1", "",
        "other", "paper", "0 of 3", train.format("other", "paper"),
        "other", "fast", "0 of 1", train.format("other", "fast"),
    ]  # fmt: skip


def test_a_run_that_two_experiments_share_is_counted_once():
    rows = table({"run": "a"}, {"run": "b", "seed": 1}, {"run": "c", "status": "missing"})
    again = rows.assign(experiment="other")
    assert "<summary>2 of 3 runs recorded</summary>" in figures.status(rows, again, again).data


def test_replications_are_shown_as_somebody_elses():
    other = Replication(
        paper="p", by="Others", what="A network", recipe="theirs", remark="A remark.", unit="%",
        results=[{"network": "N <1>", "start": "drawn", "value": 43.8, "spread": 0.67}, {"network": "M", "value": 1.0}],
    )  # fmt: skip
    text = figures.replications([other]).data
    assert text.startswith("<p>A network, by Others; theirs. A remark.</p>")
    cells = ["N &lt;1&gt;", "drawn", "43.80 ± 0.67 %", "M", "", "1.00 %"]
    assert re.findall("<td[^>]*>(.*?)</td>", text) == cells


def test_figures_import_neither_torch_nor_experiments():
    code = "import sys, thriftylib.figures; print(*(m for m in sys.modules if m.startswith(('torch', 'thriftylib.'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "thriftylib.figures" in modules
    assert not [m for m in modules if re.match(r"torch|thriftylib\.(experiments|training|papers|cli)", m)]
