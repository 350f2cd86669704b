"""Figures: claimed and reproduced never alike, what is missing is said, nothing leaves the picture, data go with it."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawing import assert_all_text_can_be_read, marks, texts
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from made_up import claim, from_series, record, run
from matplotlib.colors import to_hex
from PIL import Image

from thriftylib import figures
from thriftylib.errors import ThriftyError
from thriftylib.evidence.claims_files import Replication
from thriftylib.figures import display, frames
from thriftylib.figures import style as house

SERIES = {"T = 20": [(3042, 75.07), (8002, 84.45), (80770, 91.58)], "T = 30": [(3742, 78.64), (85950, 92.19)]}
CAPTION = "A caption that names the recipe for what it is."


def frame(seeds: int, recipes=("paper", "fast"), claims=True) -> pd.DataFrame:
    """Claimed points, and around each ``seeds`` runs of each recipe, or one that is pending."""
    noise = np.random.default_rng(0)
    rows = []
    for series, places in SERIES.items():
        for number, (size, accuracy) in enumerate(places):
            same = {"series": series, "parameters": size, "depth": number + 1, "row": f"network {number}"}
            if claims:
                rows.append({**same, "source": "claimed", "accuracy": accuracy, "error": 0.03})
            for recipe in recipes:
                found = [(seed, accuracy + noise.normal(0, 0.3)) for seed in range(seeds)] or [(0, np.nan)]
                source = "reproduced" if seeds else "pending"
                rows += [{**same, "source": source, "accuracy": a, "recipe": recipe, "seed": s} for s, a in found]
    columns = ["series", "parameters", "depth", "row", "source", "accuracy", "error", "recipe", "seed"]
    return pd.DataFrame(rows, columns=columns).astype({"accuracy": float})


def depths(of: pd.DataFrame, **more):
    look = {"x": "depth", "y": "accuracy", "hue": "series", "style": "recipe", "joined": True, "title": "A title"}
    return figures.points(of, **look, caption=CAPTION, **more)


def sizes(of: pd.DataFrame, **more):
    look = {"x": "parameters", "y": "accuracy", "facet": "series", "style": "recipe", "joined": True}
    scales = {"xscale": "parameters", "yscale": "accuracy"}
    return figures.points(of, **look, **scales, title="A long title that needs more than one line to be told in full")


def rows(of: pd.DataFrame, **more):
    look = {"x": "accuracy", "y": "row", "hue": "recipe", "facet": "series", "span": 2, "title": "A title"}
    return figures.points(of, **look, caption=CAPTION, **more)


def curve(epochs: int = 30) -> pd.DataFrame:
    made = from_series(run(epochs=epochs), [float(10 + epoch) for epoch in range(epochs - 1)] + [30.0], seconds=1000.0)
    return figures.curves(made)


def plain() -> pd.DataFrame:
    """A frame that knows neither claims nor records."""
    places = [(network, step, kind) for network in "abc" for step in range(4) for kind in ("one", "other")]
    made = pd.DataFrame(places, columns=["network", "step", "kind"])
    made = pd.concat([made.assign(loss=made["step"] + shift) for shift in (0.0, 1.0)], ignore_index=True)
    return made.assign(low=made["loss"] - 1, high=made["loss"] + 1)


PIXELS = pd.DataFrame([(row, column) for row in range(3) for column in range(4)], columns=["row", "column"]).assign(
    one=range(12), other=lambda pixels: pixels["row"] - 5.0, third=lambda pixels: pixels["column"]
)
LINES = {"x": "step", "y": "loss", "hue": "network", "facet": "kind", "title": "A title", "caption": CAPTION}
PICTURES = {
    "sizes, nothing run": lambda: sizes(frame(0)),
    "sizes, one seed": lambda: sizes(frame(1)),
    "sizes, many": lambda: sizes(frame(5, ("paper", "fixed code", "fast"))),
    "sizes, nothing at all": lambda: sizes(frame(0, claims=False)),
    "depths": lambda: depths(frame(2), dodge=0.02, span=2),
    "depths, nothing run": lambda: depths(frame(0)),
    "depths, nothing at all": lambda: depths(frame(0, claims=False)),
    "rows": lambda: rows(frame(3), share=False),
    "rows, one seed": lambda: rows(frame(1)),
    "rows, nothing run": lambda: rows(frame(0), zero=True),
    "rows, nothing at all": lambda: rows(frame(0, claims=False), zero=True),
    "rows, one panel of them": lambda: rows(frame(2).query("series == 'T = 20' or source == 'pending'")),
    "labels": lambda: depths(frame(1), label="row", yscale="log"),
    "points of a plain frame": lambda: figures.points(plain().drop(columns=["low", "high"]), **LINES),
    "lines": lambda: figures.lines(plain(), **LINES, markers=True),
    "lines with bands": lambda: figures.lines(plain().query("network == 'a'"), **LINES, bands=[("low", "high")]),
    "lines, nothing run": lambda: figures.lines(plain().assign(loss=np.nan), **LINES),
    "bars": lambda: figures.bars(plain(), **LINES),
    "heat map": lambda: figures.heatmap(plain(), x="step", y="network", value="loss", facet="kind", title="A title"),
    "pictures": lambda: figures.pictures(
        PIXELS, x="column", y="row", of=["one", "other", "third"], columns=2, title="A"
    ),
    "training": lambda: figures.training_curves(curve(), title="A title", caption="A caption."),
}
every = pytest.mark.parametrize("name", PICTURES)


@cache
def picture(name: str):
    """A picture that several tests look at and none changes."""
    return PICTURES[name]()


@every
@pytest.mark.filterwarnings("error")
def test_all_text_can_be_read(name):
    assert_all_text_can_be_read(picture(name))


@pytest.mark.parametrize("name", ["sizes, many", "depths", "rows"])
def test_claimed_is_hollow_and_grey_and_reproduced_is_filled(name):
    panels = picture(name)
    hollow, filled = marks(panels, hollow=True), marks(panels, hollow=False)
    assert hollow
    assert filled
    for line in hollow:
        red, green, blue = (int(to_hex(line.get_markeredgecolor())[at : at + 2], 16) for at in (1, 3, 5))
        assert red == green == blue
    for line in filled:
        assert to_hex(line.get_markerfacecolor()).upper() in house.COLOURS


def test_no_two_looks_are_told_by_colour_alone():
    for name in ("depths", "rows", "sizes, many"):
        looks = {(line.get_marker(), to_hex(line.get_markerfacecolor())) for line in marks(picture(name), hollow=False)}
        if name == "depths":
            assert len(looks) == 4
        assert len({marker for marker, _ in looks}) >= 2


def test_what_is_recorded_is_said():
    assert "Not run yet." in texts(picture("sizes, nothing run"))
    one = texts(picture("sizes, one seed"))
    assert "Recorded: the paper’s recipe 5 of 5, fast 5 of 5." in one
    assert "ours: one seed" in one
    assert "ours, fast: one seed" in one
    many = texts(picture("sizes, many"))
    assert "ours: mean ± sd, n = 5" in many
    assert "ours, fixed code: mean ± sd, n = 5" in many
    assert "claimed: as read, ±0.03" in many
    assert "nothing claimed, nothing run yet" in texts(picture("depths, nothing at all"))
    assert "claimed, T = 20: as read, ±0.03" in texts(picture("depths"))


def test_a_frame_of_its_own_says_nothing_of_claims():
    written = texts(picture("points of a plain frame"))
    assert "a: mean ± sd, n = 2" in written
    assert not re.search("claimed|reproduced|Recorded|run yet|seed", written)


def test_seeds_become_mean_and_sample_deviation():
    one = frame(1, ("paper",), claims=False).iloc[[0, 0, 0]].assign(accuracy=[90.0, 91.0, 95.0])
    (axes,) = depths(one)
    mean, bar = (line for line in axes.lines if len(line.get_ydata()))
    assert list(mean.get_ydata()) == [92.0]
    assert list(bar.get_ydata()) == pytest.approx([92 - 7**0.5, 92 + 7**0.5])


def test_a_given_interval_is_drawn_as_it_is():
    one = pd.DataFrame(
        {"row": ["a"], "gain": [1.0], "low": [-1.5], "high": [2.0], "n": [3.0], "source": ["reproduced"]}
    )
    (axes,) = panels = figures.points(one, x="gain", y="row", title="A title", interval="90 % interval")
    mean, bar = (line for line in axes.lines if len(line.get_xdata()))
    assert list(mean.get_xdata()) == [1.0]
    assert list(bar.get_xdata()) == [-1.5, 2.0]
    assert "ours: 90 % interval, n = 3" in texts(panels)


def test_one_seed_has_no_bar_and_a_smaller_marker():
    one, two = depths(frame(1, claims=False)), depths(frame(2, claims=False))
    bars = [
        [line for line in axes.lines if len(line.get_ydata()) == 2 and np.ptp(line.get_xdata()) == 0]
        for axes in (*one, *two)
    ]
    assert not any(np.isfinite(bar.get_ydata()).all() for bar in bars[0])
    assert sum(np.isfinite(bar.get_ydata()).all() for bar in bars[1]) == 10
    smaller, usual = ({line.get_markersize() for line in marks(panels)} for panels in (one, two))
    assert max(smaller) < min(usual)


def test_no_line_crosses_what_is_not_recorded():
    made = frame(1, ("paper",), claims=False).query("series == 'T = 20'").copy()
    made.loc[made["depth"] == 2, ["source", "accuracy"]] = ["pending", np.nan]
    (line,) = marks(depths(made))
    assert np.isnan(line.get_ydata()[1])
    assert np.isfinite(line.get_ydata()[[0, 2]]).all()


def test_panels_that_would_be_empty_are_named():
    made = frame(2, claims=False)
    gone = made["series"].eq("T = 30")
    made.loc[gone, ["source", "accuracy"]] = ["pending", np.nan]
    panels = sizes(made)
    assert [axes.get_title(loc="left") for axes in panels] == ["T = 20"]
    assert "Nothing claimed, nothing run yet: T = 30." in texts(panels)
    assert "the paper’s recipe 3 of 5" in texts(panels)
    assert len(picture("rows, nothing at all")) == 1


def test_a_line_takes_means_of_one_place_in_the_order_of_the_frame():
    made = pd.DataFrame({"x": [5.0, 3.0, 3.0, 1.0], "y": [1.0, 4.0, 2.0, 3.0], "n": 1, "source": "reproduced"})
    (axes,) = figures.points(made, x="x", y="y", joined=True, title="A title")
    (line,) = (line for line in axes.lines if len(line.get_xdata()) == 4)
    assert list(line.get_xdata()) == [5, 3, 3, 1]
    assert list(line.get_ydata()) == [1, 4, 2, 3]
    assert sorted(y for line in marks([axes]) for y in line.get_ydata()) == [1, 2, 3, 4]


def test_a_short_log_axis_has_three_ticks():
    made = pd.DataFrame({"x": [86_000.0, 145_000.0], "y": [1.0, 2.0]})
    (axes,) = figures.points(made, x="x", y="y", xscale="parameters", title="A title")
    assert [house.short(tick) for tick in axes.get_xticks()] == ["100K", "120K", "140K"]


def test_what_is_far_beyond_is_told_and_not_drawn():
    made = frame(2, ("paper",)).query("series == 'T = 20'")
    made.loc[made["source"].eq("reproduced") & made["depth"].eq(1), "accuracy"] = [-60.0, -80.0]
    (axes,) = panels = depths(made, within=(70, 100))
    assert "Beyond the axis: 1 T = 20 −70.0." in texts(panels)
    assert axes.get_ylim()[0] > 60
    assert "the paper’s recipe 3 of 3" in texts(panels)


def test_a_limit_that_is_not_known_hides_nothing():
    assert len(marks(depths(frame(2, claims=False), within=(np.nan, 100)))) == len(
        marks(depths(frame(2, claims=False)))
    )
    assert "nothing claimed, nothing run yet" in texts(depths(frame(0).iloc[:0]))


def test_networks_of_one_size_are_not_seeds_of_one_network():
    made = frame(3, ("paper",), claims=False).assign(depth=1)
    lines = marks(depths(made, label="row"))
    assert len(lines) == 5  # each network once
    assert sorted(y for line in lines for y in line.get_ydata()) == pytest.approx(
        sorted(made.groupby(["series", "row"])["accuracy"].mean())
    )


def test_claimed_values_of_one_place_stay_single():
    made = frame(0, ("paper",)).query("series == 'T = 20' and source == 'claimed'").assign(depth=1)
    assert sorted(y for line in marks(depths(made)) for y in line.get_ydata()) == [75.07, 84.45, 91.58]


def test_points_that_lie_on_each_other_have_one_label():
    made = pd.DataFrame({"x": [1.0, 1.0, 2.0], "y": [5.0, 5.01, 9.0], "label": ["18", "34", "24"]})
    panels = figures.points(made, x="x", y="y", label="label", title="A title")
    assert [text.get_text() for text in panels[0].texts] == ["18, 34", "24"]


def test_rows_stand_in_the_order_of_the_runs():
    made = pd.concat([frame(1).query("depth == 3"), frame(1)])
    panels = rows(made, share=False)
    assert [axes.get_title(loc="left") for axes in panels] == ["T = 20", "T = 30"]
    labels = [label.get_text() for label in panels[0].get_yticklabels()]
    assert labels == ["network 2", "network 0", "network 1"]
    assert panels[0].get_ylim()[0] > panels[0].get_ylim()[1]  # the first is at the top


def test_an_axis_shows_two_points_at_least_and_zero_where_it_matters():
    low, high = rows(frame(1, ("paper",), claims=False).query("depth == 3"))[0].get_xlim()
    assert high - low >= 2
    low, high = rows(frame(1), zero=True)[0].get_xlim()
    assert low < 0 < high


def test_each_run_can_be_seen():
    panels = rows(frame(4, ("paper",), claims=False), each=True)
    small = [line for line in marks(panels) if line.get_markersize() == 4]
    assert sum(len(line.get_xdata()) for line in small) == 4 * 5


def test_a_heat_map_holds_the_means():
    panels = picture("heat map")
    assert [text.get_text() for text in panels[0].texts][:4] == ["0.5", "1.5", "2.5", "3.5"]


def test_pictures_hold_the_pixels_at_their_places_each_in_its_own_range():
    figure = picture("pictures")[0].figure
    drawn = {axes.get_title("left"): axes.images[0] for axes in figure.axes if axes.images}
    assert [*drawn] == ["one", "other", "third"]
    assert len(figure.axes) == 4  # a place is left over
    assert drawn["one"].get_array().tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [image.get_clim() for image in drawn.values()] == [(0, 11), (-5, -3), (0, 3)]
    sizes = [axes.get_position() for axes in figure.axes]
    wide, high = figure.get_size_inches()
    assert all(abs(each.width * wide / (each.height * high) - 1) < 0.05 for each in sizes)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("plot", [figures.lines, figures.bars, figures.points])
def test_more_hues_than_colours_are_drawn(plot):
    made = pd.concat([plain().query("kind == 'one'").assign(network=f"network {n}") for n in range(9)])
    panels = plot(made.drop(columns=["low", "high"]), x="step", y="loss", hue="network", title="A title")
    assert "network 8" in texts(panels)


def test_a_line_and_its_entry_in_the_legend_have_one_dash():
    panels = picture("lines")
    drawn = [line for line in panels[0].lines if len(line.get_xdata())]
    (legend,) = panels[0].figure.legends
    assert [line.get_linestyle() for line in legend.get_lines()] == [line.get_linestyle() for line in drawn]
    assert {line.get_marker() for line in legend.get_lines()} == {"o", "s", "^"}


def test_bars_start_at_zero():
    panels = picture("bars")
    assert all(bar.get_y() == 0 for axes in panels for bar in axes.patches)
    assert sorted({bar.get_height() for bar in panels[0].patches}) == [0.5, 1.5, 2.5, 3.5]


def test_training_marks_best_and_last():
    drawn = texts(panels := picture("training"))
    ends = {line.get_marker(): line.get_xdata()[0] for line in panels[0].lines if line.get_marker() in "*D"}
    assert ends == {"*": 28, "D": 29}
    assert "best epoch: 38.00 %" in drawn
    assert "last epoch: 30.00 %" in drawn


@given(st.floats(1, 99.9))
def test_log_error_scale_is_its_own_inverse(accuracy):
    assert house._from_log_error(house._to_log_error(accuracy)) == pytest.approx(accuracy)


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


def test_accuracies_keep_claimed_and_reproduced_apart():
    found = figures.accuracies(
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
    claimed = found[found["source"] == "claimed"]
    assert claimed[["mmacs", "accuracy", "error"]].values.tolist() == [
        [172, 90.6, 0.02],
        [172, 90.8, 0.02],
    ]
    ours = found[found["source"] != "claimed"]
    assert list(ours["recipe"]) == ["paper", "paper", "fixed code", "fast", "fixed code", "paper, 2 epochs"]
    assert list(ours["source"]) == ["reproduced", "reproduced", "pending", "reproduced", "reproduced", "reproduced"]
    assert set(ours["mmacs"]) == {171.734776}
    assert set(found["series"]) == {"T = 20"}


def test_accuracies_are_those_of_the_epoch_that_is_asked_for():
    rows = table({"claim": FIGURE.id})
    for protocol, accuracy in (("best", 90.0), ("final", 89.0)):
        found = figures.accuracies(rows, CLAIMS, x="parameters", series="s", protocol=protocol)
        assert list(found["accuracy"]) == [90.7, accuracy]  # a claim is what it is; its x is our count here
        assert set(found["parameters"]) == {39862}


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


def test_longest_training():
    short, long = record(run(epochs=3)), record(run(epochs=5))
    assert figures.longest([short, long], [short.id, long.id]) is long
    assert figures.longest([short, long], [short.id]) is short
    assert figures.longest([short], ["nothing"]) is None
    assert short.id in figures.describe(short)


# ---------------------------------------------------------------------------------------------------- in a notebook
def shown(data: pd.DataFrame) -> tuple[bytes, str]:
    InteractiveShell.instance()  # collects what is displayed
    with capture_output() as seen:
        figures.show(sizes(data), data, "name", alt="What is drawn.")
    picture, link = seen.outputs
    words = picture.metadata["image/png"].pop("alt")
    assert picture.metadata["image/png"] == {"width": display.SHOWN_WIDTH}
    assert re.fullmatch(r"What is drawn\. Highest of ours: [\d.]+ \(.*\); lowest: [\d.]+ \(.*\)\.", words)
    return base64.b64decode(picture.data["image/png"]), link.data["text/html"]


HOSTILE = """
backend: pdf
text.usetex: True
savefig.bbox: tight
savefig.format: svg
savefig.transparent: True
figure.dpi: 300
figure.autolayout: True
font.size: 30
lines.linewidth: 9
lines.markeredgewidth: 5
axes.grid.which: both
axes.prop_cycle: cycler(color=["red"])
axes.unicode_minus: False
xtick.direction: in
xtick.minor.visible: True
legend.frameon: True
path.sketch: 1, 100, 2
"""


def digests() -> list[str]:
    """A checksum of the picture that each kind of plot makes."""
    drawn = [depths(frame(1)), figures.training_curves(curve(), title="A title", caption=CAPTION)]
    drawn += [figures.heatmap(plain(), x="step", y="network", value="loss", title="A title")]
    return [display.checksum(display.as_png(panels[0].figure, {}).hex()) for panels in drawn]


def test_nobodys_matplotlibrc_changes_a_figure(tmp_path):
    (tmp_path / "matplotlibrc").write_text(HOSTILE, "utf-8")
    code = "import matplotlib, test_figures; print(matplotlib.rcParams['font.size'], *test_figures.digests())"
    here = str(Path(__file__).parent)
    environment = os.environ | {"MATPLOTLIBRC": str(tmp_path), "PYTHONPATH": os.pathsep.join([here, *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    size, *found = done.stdout.split()
    assert size == "30.0"  # the file was read
    assert found == digests()


def test_a_figure_without_a_point_of_ours_is_small_and_says_what_to_run():
    InteractiveShell.instance()
    pending = frames.from_experiments(frame(0), pd.DataFrame({"experiment": ["made-up-size", "made-up-size"]}))
    with capture_output() as seen:
        figures.show(sizes(pending), pending, "name", alt="What it shows.")
    picture, text = seen.outputs
    assert picture.metadata["image/png"]["width"] == display.SMALL_WIDTH < display.SHOWN_WIDTH
    assert Image.open(BytesIO(base64.b64decode(picture.data["image/png"]))).width == 2 * display.SMALL_WIDTH
    said = text.data["text/html"]
    assert "5 points of the paper, and none of ours yet" in said
    assert said.count("<code>thrifty train made-up-size --preset paper</code>") == 1
    assert 'download="name.csv"' in said


def test_one_point_of_ours_is_enough_and_a_figure_without_claims_says_so():
    assert display.still_to_run(frame(1)) == ""
    assert display.still_to_run(plain()) == ""
    assert "Nothing of this is run yet" in display.still_to_run(frame(0, claims=False))
    for source in ("counted", "recursion-32-20"):  # a closed form, a bench: nothing is to be run
        assert display.still_to_run(plain().assign(source=source)) == ""


@pytest.mark.parametrize(("draw", "axis"), [(depths, "y"), (rows, "x")])
def test_a_picture_says_where_points_with_a_claim_are(draw, axis):
    data = frame(2)
    data = data[data["series"] == data["series"][0]].assign(claim=lambda some: "paper/group/" + some["row"])
    panel = draw(data)[0]
    picture = Image.open(BytesIO(display.as_png(panel.figure, {})))
    found = {}
    for left, top, key in json.loads(picture.info["Points"]):
        place = panel.transData.inverted().transform(panel.figure.bbox.size * (left, 100 - top) / 100)
        found.setdefault(key, []).append(place["xy".index(axis)])
    for key, some in data.groupby("claim"):
        drawn = some.groupby(["source", "recipe"], dropna=False)["accuracy"].mean()
        assert (
            np.abs(np.subtract.outer(drawn.to_numpy(), found.pop(key))).min(1).max() < 0.05
        )  # two of one place are one link
    assert not found
    plain = Image.open(BytesIO(display.as_png(draw(frame(2))[0].figure, {})))
    assert plain.info["Points"] == "[]"


def test_a_plot_says_its_highest_and_lowest_mean():
    data = plain()
    means = data.groupby(["network", "step"])["loss"].mean()
    said = figures.heatmap(data, x="step", y="network", value="loss", title="A title")[0].figure.get_label()
    ends = [f"{means[of]:.4g} ({of[0]}, {of[1]:g})" for of in (means.idxmax(), means.idxmin())]
    assert said == f"Highest: {ends[0]}; lowest: {ends[1]}."
    assert sizes(frame(0))[0].figure.get_label() == ""  # nothing of ours
    assert "lowest" in figures.lines(data, x="step", y="loss", hue="network", title="A title")[0].figure.get_label()


def test_a_stack_knows_the_experiments_of_its_frames():
    one, other = (
        frames.from_experiments(frame(0), pd.DataFrame({"experiment": [name]})) for name in ("made-up-a", "made-up-b")
    )
    assert figures.stack(one, other, one).attrs["experiments"] == ("made-up-a", "made-up-b")


def test_a_picture_carries_its_data():
    data = frame(2)
    picture, link = shown(data)
    assert (picture, link) == shown(data)  # the same bytes each time
    assert 'download="name.csv"' in link
    csv = base64.b64decode(re.search('base64,([^"]*)', link)[1]).decode()
    pd.testing.assert_frame_equal(pd.read_csv(BytesIO(csv.encode())), data.round(4), check_dtype=False)
    image = Image.open(BytesIO(picture))
    assert image.info["Data-SHA256"] == display.checksum(csv)
    assert image.width == 2 * display.SHOWN_WIDTH
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)  # an opaque card


def test_the_palette_changes_no_colour_that_one_could_see():
    figure = sizes(frame(2))[0].figure
    drawn = BytesIO()
    with house.house_style():
        figure.savefig(drawn, format="png", dpi=2 * display.SHOWN_WIDTH / figure.get_figwidth())
    small = display.as_png(figure, {})
    pictures = [np.asarray(Image.open(BytesIO(png)).convert("RGB"), int) for png in (drawn.getvalue(), small)]
    assert abs(pictures[0] - pictures[1]).max() <= 12  # of 255
    assert len(small) < len(drawn.getvalue()) / 2
    greys = (pictures[0] == 230).all(axis=2)  # the grid
    assert greys.any()
    assert (pictures[1][greys] == 230).all()


def test_marks_of_many_hues_are_within_their_panel():
    made = pd.DataFrame({"row": "a", "gain": [1.0, 2.0, 3.0, 4.0], "hue": ["", "b", "c", "d"]})
    made["source"] = ["claimed", *["reproduced"] * 3]
    (axes,) = figures.points(made, x="gain", y="row", hue="hue", title="A title")
    places = [y for line in marks([axes]) for y in line.get_ydata()]
    assert len(set(places)) == 4
    assert axes.get_ylim()[0] > max(places) + 0.3
    assert axes.get_ylim()[1] < min(places) - 0.3


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


def test_verdicts_of_no_claim_are_refused():
    """Else a filter by a name that has changed would leave an empty table on a page, and compare equal for ever."""
    with pytest.raises(ThriftyError, match="no claim is chosen"):
        figures.verdicts(pd.DataFrame({"verdict": []}))


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
    assert text.startswith("<p>A network, by Others. Their recipe: theirs. A remark.</p>")
    assert "measured by them, %" in text
    cells = ["N &lt;1&gt;", "drawn", "43.80 ± 0.67", "M", "", "1.00"]
    assert re.findall("<td[^>]*>(.*?)</td>", text) == cells
    results = [result.model_copy(update={"start": ""}) for result in other.results]
    unsaid = figures.replications([other.model_copy(update={"results": results})]).data
    assert "first weights" not in unsaid
    assert re.findall("<td[^>]*>(.*?)</td>", unsaid) == ["N &lt;1&gt;", "43.80 ± 0.67", "M", "1.00"]


def test_a_table_without_rows_says_so():
    text = figures.table(pd.DataFrame(columns=["network", "accuracy"])).data
    assert "not enough is recorded" in text
    assert "<table" not in text
    assert "<table" in figures.table(pd.DataFrame({"network": ["N"]})).data


def test_a_count_has_no_recipe_and_no_decimals():
    count = {
        "statement": "So many.", "claimed": 160000.0, "error": 7000.0, "bound": "equal", "unit": "", "mark": "COUNTED",
        "ours": 163812.0, "spread": np.nan, "n": 0, "final": np.nan, "recipe": np.nan, "verdict": "reproduced",
    }  # fmt: skip
    assert ">163812<" in figures.verdicts(pd.DataFrame([count])).data


def test_figures_import_neither_torch_nor_experiments():
    code = "import sys, thriftylib.figures; print(*(m for m in sys.modules if m.startswith(('torch', 'thriftylib.'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = done.stdout.split()
    assert "thriftylib.figures" in modules
    assert not [m for m in modules if re.match(r"torch|thriftylib\.(experiments|training|papers|cli)", m)]
