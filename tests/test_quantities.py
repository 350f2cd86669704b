"""The table of quantities, rows that a claims file declares, and the simulated error rates of the rule."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from thriftylib.errors import RecordError, ThriftyError
from thriftylib.evidence import quantities
from thriftylib.evidence.claims_files import load_claims_file
from thriftylib.evidence.quantities import QUANTITIES, declare, find
from thriftylib.evidence.simulation import DEVIATION, DIFFERENCES, OURS, THEIRS, TRIALS, load_error_rates, simulate
from thriftylib.paths import results_dir

LIBRARY = Path(quantities.__file__).parent.parent
NEURONS = {"name": "neurons", "unit": "", "source": "measured", "better": "lower", "close": {"relative": 0.05}}


# --- the table


@pytest.mark.parametrize(
    ("name", "value", "close"),
    [
        ("test_accuracy", 90.0, 1.0),
        ("test_accuracy", 99.37, 0.126),
        ("train_accuracy", 97.7, 0.46),
        ("kept_parameters", 2000.0, 100.0),
        ("parameters", 2000.0, 0.0),
    ],
)
def test_what_counts_as_close(name, value, close):
    assert QUANTITIES[name].closeness(value) == pytest.approx(close)


def test_chance_level():
    assert QUANTITIES["test_accuracy"].guessing(100) == 1.0
    assert QUANTITIES["kept_parameters"].guessing(100) is None


def test_a_difference_needs_no_row():
    row = find("test_accuracy_difference")
    assert (row.unit, row.source, row.of, row.key) == ("points", "series", "test_accuracy", "test_accuracy")
    declared = declare([NEURONS])
    row = find("neurons_difference", declared)
    assert (row.unit, row.source, row.of, row.key, row.is_difference) == ("", "measured", "neurons", "neurons", True)
    assert find("kept_macs_difference").key == "macs"
    for name in ("neurons_difference", "prune_ratio_difference", "_difference", "test_accuracy_difference_difference"):
        with pytest.raises(RecordError, match=f"unknown quantity '{name}'"):
            find(name)


def test_every_source_has_its_statistics():
    assert {row.source for row in QUANTITIES.values()} <= quantities.STATISTICS.keys()


def test_no_quantity_is_named_where_the_table_could_be_asked():
    """Those who read the engine's own series may: what trains, and what a record is."""
    own = {"quantities.py", "records.py", "series.py", "consistency.py"}
    files = [path for path in LIBRARY.rglob("*.py") if "training" not in path.parts and path.name not in own]
    literal = re.compile(r"""["'](test_accuracy|train_accuracy|ptflops_macs_difference|test_accuracy_difference)["']""")
    found = {path.name for path in files if literal.search(path.read_text("utf-8"))}
    assert not found


# --- declared by a claims file

PAPER = """
title: A paper
quantities:
  - {name: neurons, unit: "", source: measured, better: lower, close: {relative: 0.05}}
groups:
  - group: a
    figure: a table
    statement: "{value} neurons are left."
    quantity: neurons
    unit: ""
    value: 100
    error: 0.5
    statistic: mean over runs
    runs: 3
    spread: 2.0
    mark: AUTHORS' LOG
    source: a log
    how: read
    confidence: high
    experiment: e
    claims:
      - id: few
        setting: &few {network: n, dataset: cifar10, method: m, options: {budget: 1}}
      - id: many
        value: 120
        setting: &many {network: n, dataset: cifar10, method: m, options: {budget: 2}}
      - id: gap
        quantity: neurons_difference
        value: -20
        relation: value
        spread: null
        setting: *few
        against: *many
"""


def load(tmp_path, text: str):
    path = tmp_path / "paper.yaml"
    path.write_text(text)
    return load_claims_file(path)


def test_a_file_declares_its_own(tmp_path):
    claims = load(tmp_path, PAPER).claims
    few, gap = claims["paper/a/few"], claims["paper/a/gap"]
    assert (few.definition.source, few.definition.closeness(100.0), few.is_counted) == ("measured", 5.0, False)
    assert gap.is_difference
    assert [spread.deviation for spread in gap.reported_spreads] == [2.0, 2.0]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("quantity: neurons\n", "quantity: neuron\n", "unknown quantity 'neuron'; did you mean 'neurons'?"),
        ("  - {name: neurons,", "  - {name: test_accuracy,", "quantity 'test_accuracy': the name is taken"),
        ("  - {name: neurons,", "  - {name: a_difference,", "quantity 'a_difference': the name is taken"),
        ("  - {name: neurons,", "  - {name: Neurons,", "Quantity.name = 'Neurons'"),
        ("source: measured", "source: count", "source must be 'series', 'measured' or 'none'"),
        ("source: measured", "source: guess", "Quantity.source = 'guess'"),
        (", close: {relative: 0.05}", "", "close: must say what counts as close"),
        ("{relative: 0.05}", "{}", "close: must give absolute, relative or both"),
        ("{relative: 0.05}", "{relative: 5}", "Close.relative = 5"),
        ("better: lower", "best: lower", "unknown key 'best'; did you mean 'better'?"),
        ("quantities:\n  - ", "quantities:\n  ", "File.quantities = "),
        ("statistic: mean over runs", "statistic: best epoch of one run", "does not go with neurons"),
        ("    experiment: e\n", "", "lacks experiment"),
        ("spread: null", "side_spreads: [3.0, 4.0]", "unknown key 'side_spreads'"),
    ],
)
def test_a_wrong_declaration(tmp_path, old, new, fault):
    assert old in PAPER
    with pytest.raises(ThriftyError) as caught:
        load(tmp_path, PAPER.replace(old, new, 1))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


# --- how often the rule is wrong


def test_the_committed_error_rates_are_those_of_the_rule():
    """A small simulation from another seed agrees with the committed one, within what so few trials can tell."""
    committed, trials = load_error_rates(results_dir()), 400
    assert (committed.trials, committed.deviation) == (TRIALS, DEVIATION)
    small = simulate(trials, seed=1)
    assert len(small.rows) == len(committed.rows) == len(DIFFERENCES) * len(OURS) * len(THEIRS)
    for row, stated in zip(small.rows, committed.rows, strict=True):
        assert (row.difference, row.ours, row.theirs) == (stated.difference, stated.ours, stated.theirs)
        assert sum(row.words.values()) == pytest.approx(1)
        for word in row.words.keys() | stated.words.keys():
            share = stated.words.get(word, 0.0)
            noise = math.sqrt((share * (1 - share) + 0.5 / trials) / trials)
            assert abs(row.words.get(word, 0.0) - share) < 4.5 * noise, (stated, word)


def test_a_strong_word_is_wrong_in_one_case_of_twenty():
    """By the two one-sided tests."""
    for row in load_error_rates(results_dir()).rows:
        if row.difference >= 1.0:
            assert row.words.get("reproduced", 0.0) < 0.055, row
        if row.difference <= 1.0:
            assert row.words.get("not reproduced", 0.0) < 0.055, row
