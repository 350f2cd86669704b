"""The bench of a GPU, its parts on the CPU at tiny sizes. Nothing here is timed."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from thriftylib.bench import gpu
from thriftylib.bench.measure import recursion_run
from thriftylib.bench.record import BenchRecord, load_bench, save_bench
from thriftylib.bench.ways import AuthorsFormulation, Way
from thriftylib.cli import app
from thriftylib.errors import RecordError, ThriftyError


def measured(lines, rounds=2, steps=2, **changes):
    """On the CPU, where no graph can be captured, and without a compiler's minute."""
    run, what = recursion_run(4, 5, 4, (rounds + 1) * steps + 1)
    ways = {name: replace(way, precision="fp32") for name, way in gpu.ways_on("cpu").items() if name != "compiled"}
    return gpu.measure(run, what, ways | changes, rounds=rounds, steps=steps, copied=2**16, report=lines.append)


def test_ways_take_turns_and_one_that_does_not_work_is_left_out(tmp_path):
    lines = []
    record = measured(lines)
    assert (record.name, record.batch_size, record.baseline) == ("gpu-4", 4, "authors")
    assert {name: variant.after for name, variant in record.variants.items()} == {"authors": None, "eager": "authors"}
    assert "left out: graph: no CUDA graph, which needs a GPU" in lines
    assert lines[-1].startswith("round 2/2, images/s: authors ")
    assert len(record.copied_a_second) == 2
    save_bench(record, tmp_path)
    assert load_bench(tmp_path) == {"gpu-4": record}


def test_the_first_way_must_work():
    with pytest.raises(ThriftyError, match="graph: no CUDA graph, which needs a GPU"):
        measured([], authors=Way("ours", ("engine",), execution="graph"))


def test_a_formulation_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setattr(
        AuthorsFormulation, "forward", lambda self, x, before=AuthorsFormulation.forward: before(self, 1.01 * x)
    )
    with pytest.raises(ThriftyError, match="plain: logits differ from those of authors by"):
        measured([])


def test_what_a_step_moves_is_a_fraction_of_what_a_copy_does():
    run, _ = recursion_run(4, 5, 4, 3)
    assert gpu.counted_bytes(run, "fp32") == 2 * gpu.counted_bytes(run, "bf16") == 4 * run.cost.activation_bytes()
    fields = measured([]).model_dump()
    fields["variants"]["eager"] |= {"images_per_second": [100.0, 300.0], "bytes_an_image": 1000.0}
    fields["copied_a_second"] = [1e6, 2e6]
    record = BenchRecord.model_validate(fields)
    assert record.bandwidth("eager") == pytest.approx((0.1 + 0.15) / 2)
    assert record.milliseconds("eager") == pytest.approx(1000 * 4 / 200)
    with pytest.raises(RecordError, match=r"copied_a_second: has 3 rounds, the variants \[2\]"):
        BenchRecord.model_validate(fields | {"copied_a_second": [1.0, 1.0, 1.0]})


def test_without_a_gpu_it_says_so_in_one_line():
    done = CliRunner().invoke(app, ["bench", "gpu"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert (
        done.stderr == "thrifty: bench gpu needs a GPU, and torch sees none here; bench thriftynet measures the CPU\n"
    )
