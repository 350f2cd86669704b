"""What ``thrifty doctor`` checks passes here, and fails where something is wrong."""

import json
import math

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from thriftylib.cli import app
from thriftylib.experiments import EXPERIMENTS
from thriftylib.running import doctor
from thriftylib.running.doctor import Finding
from thriftylib.training import fast_path

CPU = torch.device("cpu")


@pytest.fixture
def one_patient(monkeypatch):
    """One with a fast path alone, and nothing compiled, which takes a minute."""
    run = next(run for run in doctor.patients() if run.network.name == "thriftynet")
    monkeypatch.setattr(doctor, "patients", lambda: [run])
    monkeypatch.setattr(doctor, "_compiled", lambda run, device: Finding("compiled in fp32", run.network.name, True))
    return run


def test_there_is_one_network_of_each_paper():
    runs = doctor.patients()
    assert len(runs) == len({experiment.paper for experiment in EXPERIMENTS.values()})
    assert all(run.recipe.epochs == 1 and run.data.name == "digits" for run in runs)
    assert {"thriftynet", "densenet"} <= {run.network.name for run in runs}


def test_a_healthy_machine(one_patient):
    found = list(doctor.examine(CPU))
    assert all(each.ok for each in found), found
    names = [each.what for each in found]
    assert {"forward in fp32", "gradients in fp32", "epoch in fp32", "compiled in fp32"} < set(names)
    assert (names[-1], found[-1].error) == ("kill and resume", 0.0)


def test_a_machine_that_computes_something_else(one_patient, monkeypatch):
    def wrong(network, *_):
        with torch.no_grad():
            next(m for m in network.modules() if isinstance(m, nn.Linear)).weight.mul_(-1)

    monkeypatch.setattr(doctor, "_killed", lambda run, device: Finding("kill and resume", run.network.name, True))
    monkeypatch.setattr(fast_path, "accelerate", wrong)
    done = CliRunner().invoke(app, ["doctor", "--device", "cpu", "--json"])
    assert done.exit_code == 1
    checks = {each["what"]: each for each in json.loads(done.stdout)["checks"]}
    assert not checks["forward in fp32"]["ok"]
    assert checks["forward in fp32"]["error"] > 0.5
    assert "the first: forward in fp32, " in done.stderr


def test_an_error_that_is_no_number_is_not_ok():
    assert not Finding.of("x", "y", math.nan, 0.1).ok
    assert Finding.of("x", "y", 0.0, 0.0).ok
    assert doctor._apart([torch.tensor([3.0, 4.5])], [torch.tensor([3.0, 4.0])]) == pytest.approx(0.1)


def test_what_this_machine_is(tmp_path):
    done = CliRunner().invoke(app, ["doctor", "--device", "cpu", "--machine", "--data", str(tmp_path)])
    assert done.exit_code == 0
    shown = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
    assert "(CPU)" in shown["device"]
    assert torch.__version__.partition("+")[0] in shown["versions"]
    assert f"none in {tmp_path}" in shown["data sets"]
    assert "check" not in shown
