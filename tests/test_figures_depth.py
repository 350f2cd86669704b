"""Figures of depth: each network a point of its own, no recipe taken for the paper's, and the factor L exact."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from drawing import assert_texts_lie_inside
from matplotlib.axes import Axes

from thriftylib import figures
from thriftylib.experiments.dacnn import depth_costs

NOTE = "A note that names the recipe for what it is."
NETS = {  # family, label, parameters, accuracy
    "plain": [("14", 163812, 57.7), ("18", 163812, 61.4), ("34", 163812, 61.1)],
    "MIX": [("14", 4734756, 69.5), ("18", 4906788, 72.2), ("34", 4906788, 72.3)],
    "MIX,REG": [("18", 5603108, 72.5), ("34", 6164260, 73.3)],
    "baseline": [("ResNet34", 21328292, 73.9)],
}


def scatter(seeds: int, claims: bool = True) -> pd.DataFrame:
    rows = []
    for series, nets in NETS.items():
        for label, size, accuracy in nets:
            same = {"series": series, "label": label, "size": size, "accuracy": accuracy}
            rows += [{**same, "source": "claimed", "error": 0.02}] if claims else []
            for recipe in ("reading", "fast"):
                more = [{"source": "ours", "seed": seed, "accuracy": accuracy + seed} for seed in range(seeds)]
                more = more or [{"source": "wanted", "accuracy": np.nan}]
                rows += [{**same, "recipe": recipe, **each} for each in more]
    return pd.DataFrame(rows).reindex(
        columns=["source", "series", "label", "size", "accuracy", "error", "recipe", "seed"]
    )


def sweep(accuracy: float = np.nan) -> pd.DataFrame:
    source = "wanted" if np.isnan(accuracy) else "ours"
    rows = [(source, f"{k}, {r}", n, accuracy + n, r, 0) for k in "ab" for r in ("one", "other") for n in (3, 5, 7)]
    frame = pd.DataFrame(rows, columns=["source", "series", "layers", "accuracy", "recipe", "seed"])
    return frame.assign(error=np.nan)


def error(frame: pd.DataFrame) -> Axes:
    return figures.error_against_parameters(frame, "size", title="A title", note=NOTE, rule="reading")


def layers(frame: pd.DataFrame) -> Axes:
    return figures.accuracy_against_layers(frame, "layers", title="A title", note=NOTE, xlabel="layers")


PICTURES = {
    "error, nothing run": lambda: error(scatter(0)),
    "error, nothing at all": lambda: error(scatter(0, claims=False)),
    "error, one seed": lambda: error(scatter(1)),
    "error, ours alone": lambda: error(scatter(3, claims=False)),
    "layers, nothing": lambda: layers(sweep()),
    "layers": lambda: layers(sweep(60.0)),
    "memory": lambda: figures.memory_against_depth(depth_costs(), title="A title", note=NOTE)[0],
}
every = pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)


def texts(axes: Axes) -> str:
    return "\n".join(text.get_text() for text in axes.figure.findobj(lambda artist: hasattr(artist, "get_text")))


@every
@pytest.mark.filterwarnings("error")
def test_key_labels_and_note_lie_inside_the_picture(picture):
    figure = picture().figure
    labels = [text for axes in figure.axes for text in axes.texts]
    assert_texts_lie_inside(figure, labels)
    assert NOTE in texts(figure.axes[0])


def test_networks_of_one_size_are_not_seeds_of_one_network():
    axes = error(scatter(3, claims=False))
    bars = [bar.lines[0].get_ydata()[0] for bar in axes.containers]
    assert len(bars) == 2 * sum(map(len, NETS.values()))  # each network once for each recipe
    expected = [100 - accuracy - 1 for nets in NETS.values() for _, _, accuracy in nets]
    assert sorted(bars) == pytest.approx(sorted(expected * 2))
    assert "reading 9 of 9, fast 9 of 9" in texts(axes)
    assert "Ours of one size stand side by side." in texts(axes)


def test_claims_stay_where_they_are_and_are_errors():
    axes = error(scatter(1))
    claimed = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    at = [place for line in claimed for place in zip(line.get_xdata(), line.get_ydata(), strict=True)]
    expected = [(size, 100 - accuracy) for nets in NETS.values() for _, size, accuracy in nets]
    assert np.array(sorted(at)) == pytest.approx(np.array(sorted(expected)))
    written = [text.get_text() for text in axes.texts]
    assert "18, 34" in written  # two points on each other have one label
    assert "ResNet34" in written


def test_a_recipe_is_named_and_never_the_papers():
    key = texts(error(scatter(1)))
    assert "ours, reading: one seed" in key
    assert "ours, fast: one seed" in key
    assert "Recipes: one, other." in texts(layers(sweep()))
    assert "Points recorded: one 6 of 6, other 6 of 6." in texts(layers(sweep(60.0)))


def test_the_recipes_of_a_sweep_have_shapes_of_their_own():
    axes = layers(sweep(60.0))
    shapes = {bar.lines[0].get_marker() for bar in axes.containers}
    assert len(shapes) == 4
    assert "a, one" in texts(axes)


def test_a_count_has_no_recipe_and_no_decimals():
    count = {
        "statement": "So many.", "claimed": 160000.0, "error": 7000.0, "bound": "equal", "unit": "", "mark": "COUNTED",
        "ours": 163812.0, "spread": np.nan, "n": 0, "final": np.nan, "recipe": np.nan, "verdict": "reproduced",
    }  # fmt: skip
    assert ">163812<" in figures.verdicts(pd.DataFrame([count])).data


def test_the_shared_kernel_is_smaller_by_exactly_the_layers_that_use_it():
    frame = depth_costs()
    shared, unshared = (frame[frame["kernels"] == name].set_index("net") for name in ("shared", "unshared"))
    assert (unshared["kernel"] == shared["uses"] * shared["kernel"]).all()
    assert list(shared["uses"]) == [2, 4, 6, 8, 10, 12, 16, 22, 32]
    assert (shared["kernel"] == 9 * 128**2).all()
    assert (unshared["body"] < shared["uses"] * shared["body"]).all()  # stem and batch norms stay
    assert (unshared["activation_bytes"] == shared["activation_bytes"]).all()
    stored, saved = figures.memory_against_depth(frame, title="A title", note=NOTE)
    drawn = next(line for line in saved.lines if line.get_marker() == "D")
    assert list(drawn.get_ydata()) == list(drawn.get_xdata())
    assert stored.get_ylim()[0] == 0
