"""Committed weights against the real test images: the recorded accuracy is what anybody gets from them."""

import os
from collections import defaultdict
from pathlib import Path

import pytest

from thriftylib.datasets.releases import present
from thriftylib.evidence.consistency import same_accuracy
from thriftylib.evidence.records import load_records
from thriftylib.experiments import EXPERIMENTS
from thriftylib.paths import results_dir, weights_dir
from thriftylib.running.execute import verify_weights


def cheapest():
    """Two records of each paper, of different configurations, whose weights are the cheapest to evaluate."""
    papers = {
        configuration.run.id: experiment.paper
        for experiment in EXPERIMENTS.values()
        for configuration in experiment.configurations("recorded")
    }
    found = defaultdict(list)
    for record in sorted(load_records(results_dir()), key=lambda record: (record.counted.macs, record.id)):
        if (weights_dir() / f"{record.id}.safetensors").is_file() and (paper := papers.get(record.run.configuration)):
            found[paper].append(record)
    for paper, records in sorted(found.items()):
        first = records[0]
        other = next((record for record in records if record.run.configuration != first.run.configuration), None)
        for record in filter(None, (first, other)):
            yield pytest.param(record, id=f"{paper}-{record.id}")


@pytest.mark.parametrize("record", list(cheapest()))
def test_committed_weights_give_the_recorded_accuracy(record):
    root = os.environ.get("THRIFTY_DATA")
    if root is None or not present(record.run.data.name, Path(root)):
        pytest.skip(f"THRIFTY_DATA holds no {record.run.data.name}")
    accuracy = verify_weights(record, weights_dir(), device="cpu")
    assert abs(accuracy - record.final_accuracy) <= same_accuracy(record.run)
