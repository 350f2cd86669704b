"""Estimates: what scales them, how wide their range is, and a calibration of this machine."""

from __future__ import annotations

import math

import pytest
import torch
from made_up import from_series

from thriftylib.errors import RecordError
from thriftylib.evidence.records import load_records
from thriftylib.experiments import experiment
from thriftylib.paths import results_dir
from thriftylib.running.calibrate import (
    calibrate,
    calibrate_all,
    load_calibrations,
    representatives,
    save_calibrations,
)
from thriftylib.running.estimates import CPU, ENOUGH, STATED, Conditions, Estimator, Measured, modelled_epoch
from thriftylib.spec import Run

H200, EPYC = "NVIDIA H200", "AMD EPYC (CPU)"
TWO_CORES = Conditions(EPYC, threads=2, precision="fp32", cores=2)


def one(name: str, preset: str = "paper", **labels) -> Run:
    configurations = experiment(name).configurations(preset)
    return next(configuration.run for configuration in configurations if labels.items() <= configuration.labels.items())


def thriftynet(filters: int) -> Run:
    return one("thriftynet-size-cifar10", filters=filters, iterations=20, code="fixed")


SMALLNET = one("expandnets-table-b", model="SmallNet", dataset="cifar10")
CL = one("expandnets-table-b", model="CL", dataset="cifar10")


def trained(run: Run, seconds: float, device: str = EPYC, **more):
    """A record of ``run`` that took so long."""
    epochs = run.recipe.epochs
    series = {"seconds": [seconds / epochs] * epochs}
    speed = epochs * run.data.training_images / seconds
    fields = {"threads": 2, "precision": "fp32", "images_per_second": speed, **more}
    return from_series(run, [90.0] * epochs, series=series, seconds=seconds, device=device, **fields)


BASE = [
    trained(run.with_seed(seed), (1000 + 100 * seed) * modelled_epoch(run, CPU), "another (CPU)")
    for run in (thriftynet(32), thriftynet(64))
    for seed in range(4)
]
"""Records that give every kind of prediction but the model's a narrow range, and scale nothing on other devices."""


def test_larger_networks_and_longer_recipes_take_longer():
    estimate = Estimator(Conditions(H200))
    run = thriftynet(32)
    assert estimate(run).seconds < estimate(thriftynet(256)).seconds
    longer = run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": 2 * run.recipe.epochs})})
    assert estimate(longer).seconds == pytest.approx(2 * estimate(run).seconds)
    assert Estimator(TWO_CORES)(run).seconds > estimate(run).seconds


def test_without_a_measurement_the_range_is_the_stated_one():
    found = Estimator(Conditions(H200))(thriftynet(32))
    assert (found.basis, found.source) == ("model", "")
    assert found.high / found.seconds == pytest.approx(math.exp(STATED))
    assert found.seconds / found.low == pytest.approx(math.exp(STATED))


def test_another_seed_takes_as_long_as_the_recorded_ones():
    records = [trained(SMALLNET.with_seed(seed), seconds) for seed, seconds in ((1, 1000.0), (2, 1440.0))]
    found = Estimator(TWO_CORES, records)(SMALLNET)
    assert found.seconds == pytest.approx(1200.0)
    assert (found.basis, found.source) == ("other seeds", "2 records")
    assert found.low < 1000 < 1440 < found.high
    narrower = Estimator(TWO_CORES, [*records, *BASE])(SMALLNET)
    assert found.low < narrower.low < 1000 < 1440 < narrower.high < found.high


def test_a_record_of_another_network_scales_nothing():
    """Seen: a DACNN record made a ThriftyNet estimate seven times too low."""
    run = one("thriftynet-size-cifar10", "fast", filters=32, iterations=20)
    dacnn = one("dacnn-scatter", net="DACNN14")
    short = trained(dacnn, 0.2 * dacnn.epochs * modelled_epoch(dacnn, CPU))
    assert Estimator(TWO_CORES, [short])(run) == Estimator(TWO_CORES)(run)
    own = trained(run, 7.0 * run.epochs * modelled_epoch(run, CPU))
    assert Estimator(TWO_CORES, [short, own])(run.with_seed(1)).seconds == pytest.approx(own.seconds)


def test_a_method_makes_another_family():
    plain = SMALLNET.model_copy(update={"method": None})
    assert Estimator(TWO_CORES, [trained(plain, 99.0)])(SMALLNET).basis == "model"
    found = Estimator(TWO_CORES, [trained(CL, 1000.0)])(SMALLNET)
    assert (found.basis, found.seconds) == ("family", pytest.approx(1000.0))


def test_the_record_with_the_most_equal_options_counts_among_those_of_equal_size():
    kernel_7 = one("expandnets-table-a", model="CL", dataset="cifar10")
    near, far = trained(CL, 1000.0), trained(SMALLNET, 10.0)
    assert Estimator(TWO_CORES, [far, near])(kernel_7).source == f"record {near.id}"


def test_other_devices_and_precisions_do_not_count():
    run = SMALLNET.with_seed(1)
    for other in (trained(SMALLNET, 9.0, H200), trained(SMALLNET, 9.0, precision="bf16")):
        assert Estimator(TWO_CORES, [other])(run).basis == "model"


def test_a_record_of_other_threads_spans_no_gain_and_full_gain():
    record = trained(SMALLNET, 1000.0)  # two threads
    found = Estimator(Conditions(EPYC, threads=1, precision="fp32"), [record, *BASE])(SMALLNET.with_seed(1))
    assert found.low < 1000 < found.seconds < 2000 < found.high
    assert found.seconds == pytest.approx(1000 * math.sqrt(2))


def test_jobs_that_share_the_device_lengthen_a_run():
    run = SMALLNET.with_seed(1)
    gpu, cpu = (trained(SMALLNET, 1000.0, device) for device in (H200, EPYC))
    alone, shared = (Estimator(Conditions(H200, jobs=jobs), [gpu, *BASE])(run) for jobs in (1, 4))
    assert shared.seconds == pytest.approx(2 * alone.seconds)
    assert (shared.low, shared.high) == (pytest.approx(alone.low), pytest.approx(4 * alone.high))
    fits = Conditions(EPYC, threads=2, jobs=2, cores=4)
    assert Estimator(fits, [cpu, *BASE])(run).seconds == pytest.approx(1000.0)
    crowded = Conditions(EPYC, threads=2, jobs=2, cores=2)
    assert Estimator(crowded, [cpu, *BASE])(run).high > 2000


def test_a_run_that_only_measures_costs_a_pass_over_the_data():
    measure = SMALLNET.model_copy(update={"recipe": None})
    estimate = Estimator(TWO_CORES)
    assert 0 < estimate(measure).seconds < estimate(SMALLNET).seconds / SMALLNET.epochs


def test_ranges_are_the_errors_of_the_committed_records():
    records = load_records(results_dir() / "runs")
    estimate = Estimator(TWO_CORES, records)
    errors, ranges = estimate.errors, estimate.ranges
    assert len(errors["other seeds"]) >= ENOUGH
    for kind in ("other seeds", "family"):
        assert sum(error <= ranges[kind] for error in errors[kind]) >= 0.9 * len(errors[kind])
        assert ranges[kind] in errors["other seeds"] + errors["family"]
    assert ranges["other seeds"] <= ranges["family"] <= ranges["model"]
    families = {
        (record.run.network.name, record.run.method and record.run.method.name) for record in records if record.epochs
    }
    assert len(errors["model"]) == len(families)
    if len(families) < ENOUGH:
        assert ranges["model"] == STATED


def test_errors_are_those_of_each_pair_under_equal_conditions():
    seeds = [trained(SMALLNET.with_seed(seed), seconds) for seed, seconds in ((0, 1000.0), (1, 2000.0))]
    elsewhere = trained(SMALLNET.with_seed(2), 5000.0, threads=1)
    chain = trained(CL, 1000.0)
    errors = Estimator(TWO_CORES, [*seeds, elsewhere, chain]).errors
    assert errors["other seeds"] == [pytest.approx(math.log(2))]
    assert errors["family"] == [pytest.approx(0.0), pytest.approx(math.log(2))]
    assert len(errors["model"]) == 1


def test_the_range_grows_beyond_the_sizes_that_records_span():
    sizes = [32, 64]
    records = [trained(thriftynet(f), (1 + 0.1 * seed) * 1000.0 * f).model_copy() for seed, f in enumerate(sizes)]
    records += [trained(thriftynet(f).with_seed(seed), 1000.0 * f) for f in sizes for seed in (1, 2)]
    estimate = Estimator(TWO_CORES, records)
    near, far = estimate(thriftynet(128)), estimate(thriftynet(256))
    assert near.basis == far.basis == "family"
    assert near.high / near.low < far.high / far.low


def calibration(run: Run, seconds=50.0, day="31", **more) -> Measured:
    fields = {"device": EPYC, "threads": 2, "precision": "fp32", "scatter": 0.1}
    return Measured(run=run, seconds=seconds, source=f"calibration of 2026-01-{day}", **fields | more)


def test_a_calibration_scales_its_family_where_no_record_does():
    found = calibration(SMALLNET)
    estimate = Estimator(TWO_CORES, [], [found])
    assert estimate(SMALLNET).seconds == pytest.approx(150 * found.seconds)
    assert (estimate(CL).basis, estimate(CL).source) == ("family", "calibration of 2026-01-31")
    assert estimate(thriftynet(32)).basis == "model"
    record = trained(SMALLNET, 1000.0)
    assert Estimator(TWO_CORES, [record], [found])(SMALLNET.with_seed(1)).source == f"record {record.id}"
    crowded = Conditions(EPYC, threads=2, jobs=4, precision="fp32", cores=4)
    assert Estimator(crowded, [], [found])(SMALLNET).seconds == pytest.approx(150 * found.seconds * math.sqrt(2))


def test_calibrations_are_kept_and_renewed(tmp_path):
    path = tmp_path / "calibrations.json"
    assert load_calibrations(path) == []
    save_calibrations([calibration(SMALLNET), calibration(thriftynet(32))], path)
    save_calibrations([newer := calibration(CL, day="32"), calibration(SMALLNET, threads=1)], path)
    assert load_calibrations(path) == [newer, calibration(thriftynet(32)), calibration(SMALLNET, threads=1)]
    path.write_text("{")
    with pytest.raises(RecordError, match=r"calibrations\.json"):
        load_calibrations(path)


def test_the_shortest_run_stands_for_a_family():
    found = representatives([thriftynet(256), CL, thriftynet(32), SMALLNET], TWO_CORES)
    assert [run.network.name for run, _ in found] == ["smallnet", "thriftynet"]
    assert found[1][0] == thriftynet(32)
    assert 0 < found[0][1] < found[1][1]


def test_a_calibration_times_steps_and_leaves_no_trace():
    run = one("expandnets-table-b", "smoke")
    before = torch.get_rng_state()
    asked = Conditions(EPYC, threads=1, precision="fp32")
    found = calibrate(run, torch.device("cpu"), asked, seconds=0.01)
    assert (found.run, found.threads, found.device) == (run, 1, EPYC)
    assert found.seconds > 0
    assert found.scatter > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_calibration_ends_in_time():
    runs = [one("expandnets-table-b", "smoke"), thriftynet(256)]
    found = calibrate_all(runs, torch.device("cpu"), TWO_CORES, total=0.0)
    assert [measured for _, measured in found] == [None, None]
