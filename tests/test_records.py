"""Records, counts and bench records: what is written is read back, and whatever was touched is refused by name."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from made_up import from_series, record, run

from thriftylib.bench.record import BenchRecord, load_bench, save_bench
from thriftylib.errors import RecordError, ThriftyError
from thriftylib.evidence import records
from thriftylib.evidence.counts import NetworkCount, load_counts, save_counts
from thriftylib.evidence.records import Record, load_record, load_records, save_record
from thriftylib.evidence.series import points
from thriftylib.paths import results_dir, weights_dir
from thriftylib.spec import Run


@pytest.fixture
def saved(tmp_path):
    """(path, content) of a record on disk."""
    path = save_record(record(run()), tmp_path)
    return path, json.loads(path.read_text())


def refuse(path, content) -> str:
    """The message with which a changed file is refused; it is one line and names the file."""
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(RecordError) as caught:
        load_record(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


def test_evidence_is_imported_without_torch_and_in_an_instant():
    """Nor with the libraries that take tenths of a second: the command line starts with it."""
    modules = sorted(path.stem for path in Path(records.__file__).parent.glob("[a-z]*.py"))
    assert "verdicts" in modules
    lines = [f"import thriftylib.evidence.{name}" for name in modules]
    code = "\n".join([*lines, "import sys", "print({'torch', 'numpy', 'scipy', 'pandas'} & sys.modules.keys())"])
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_round_trip(tmp_path):
    written = record(run(seed=3), series={"alive": [1.0, 2.0, None]})
    path = save_record(written, tmp_path)
    assert path == tmp_path / "runs" / f"{written.id}.json"
    assert load_record(path) == written
    text = path.read_text()
    assert save_record(load_record(path), tmp_path / "again").read_text() == text
    assert '    "test_accuracy": [0.0, 90.0, 89.0],\n' in text  # a line per series
    assert not [other for other in path.parent.iterdir() if other != path]


def test_text_does_not_depend_on_the_order_of_keys(tmp_path):
    written = record(run())
    series = dict(reversed(written.series.items())) | {"b": [1.0] * 3, "a": [1.0] * 3}
    one = written.model_copy(update={"series": series, "versions": dict(reversed(written.versions.items()))})
    other = written.model_copy(update={"series": dict(reversed(series.items()))})
    assert save_record(one, tmp_path / "1").read_text() == save_record(other, tmp_path / "2").read_text()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = save_record(record(run()), tmp_path)
    before = path.read_text()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_record(record(run(), best=95.0), tmp_path)
    assert path.read_text() == before
    assert len(list(path.parent.iterdir())) == 1


def test_folders(tmp_path):
    assert load_records(tmp_path / "nowhere") == []
    made = sorted((record(run(seed)) for seed in range(3)), key=lambda one: one.id)
    for one in made:
        save_record(one, tmp_path)
    save_counts([], tmp_path)
    assert load_records(tmp_path) == load_records(tmp_path / "runs") == made


def test_committed_results_are_sound():
    for one in load_records(results_dir()):
        info = one.run.data.info
        cost = one.run.options.cost(info.image_shape, len(info.classes))
        assert (one.cost.parameters, one.cost.macs) == (cost.parameters, cost.macs), one.id
    load_counts(results_dir())
    load_bench(results_dir())


def test_weights_that_a_committed_record_names_are_committed():
    for made in load_records(results_dir()):
        if made.weights:
            content = (weights_dir() / made.weights.file).read_bytes()
            assert (len(content), sha256(content).hexdigest()) == (made.weights.bytes, made.weights.sha256), made.id


def test_one_corrupt_file_stops_the_reading(tmp_path):
    save_record(record(run()), tmp_path)
    (tmp_path / "runs" / "zzz.json").write_text("{}")
    with pytest.raises(RecordError, match=r"zzz\.json: Record\.id: is required"):
        load_records(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_truncated(saved, share):
    path, _ = saved
    text = path.read_text()
    assert "is not JSON, perhaps cut short" in refuse(path, text[: int(share * (len(text) - 3))])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "valid dictionary"),
        ("null", "valid dictionary"),
        ('"text"', "valid dictionary"),
        ('{"loss": 1.0}', "unknown key|is required"),
        ('{"id": NaN}', "holds NaN"),
        ('{"id": -Infinity}', "holds -Infinity"),
        ('{"id": "a", "id": "b"}', "'id' twice"),
        ("[" * 100_000, "recursion|not JSON"),
    ],
)
def test_foreign(tmp_path, text, fault):
    assert re.search(fault, refuse(tmp_path / "a.json", text))


def test_unreadable(tmp_path):
    with pytest.raises(RecordError, match=r"a\.json: cannot be read \(No such file"):
        load_record(tmp_path / "a.json")
    (tmp_path / "a.json").mkdir()
    with pytest.raises(RecordError, match="cannot be read"):
        load_record(tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(RecordError, match="is not JSON"):
        load_record(tmp_path / "b.json")


def test_another_name(saved):
    path, _ = saved
    moved = path.rename(path.with_name("0123456789ab.json"))
    with pytest.raises(RecordError, match=r"so its name must be '[0-9a-f]{12}\.json'"):
        load_record(moved)


def test_every_field_is_required_but_those_with_a_stated_default(saved):
    path, content = saved
    for field in content.keys() - {"format", "weights", "kept", "measured", "sessions"}:
        assert field in refuse(path, {key: value for key, value in content.items() if key != field})
    refuse(path, {**content, "note": "hand-made"})


TAMPERED = [
    ("format", 2),
    ("format", None),
    ("id", "0123456789ab"),
    ("id", 7),
    ("run.seed", 1),
    ("run.seed", -1),
    ("run.seed", True),
    ("run.network.options.filters", 33),
    ("run.network.name", "other"),
    ("run.data.name", "svhn"),
    ("run.data.name", "cifar11"),
    ("run.data.train_images", 100),
    ("run.recipe.epochs", 4),
    ("run.recipe.learning_rate", 0.2),
    ("run.recipe.unknown", 1),
    ("run.recipe.schedule.kind", "steps"),
    ("run.parent", "0123456789ab"),
    ("status", "done"),
    ("status", "Complete"),
    ("epochs", 2),
    ("epochs", 4),
    ("epochs", 3.5),
    ("epochs", "3"),
    ("series.test_accuracy", [10.0, 90.0]),
    ("series.test_accuracy", [10.0, 91.0, 89.0]),
    ("series.test_accuracy", [10.0, 90.0, 89.5]),
    ("series.test_accuracy", [90.0, 90.0, 89.0]),
    ("series.test_accuracy", [10.0, 101.0, 89.0]),
    ("series.test_accuracy", [10.0, "90.0", 89.0]),
    ("series.test_accuracy", [10.0, 90.0, None]),
    ("series.test_accuracy", None),
    ("series.test_loss", [1.5, 1.4, 1.5]),
    ("series.train_accuracy", [10.0, -1.0, 89.0]),
    ("series.train_loss", [1.0] * 4),
    ("series.learning_rate", [0.1, None, 0.1]),
    ("series.learning_rate", [0.1, -0.1, 0.1]),
    ("series.learning_rate", [1.0, 1.0, 1.0]),  # ten times the recipe's
    ("series.learning_rate", [0.1, 0.1, 0.01]),
    ("series.train_loss", [1.0, -1.0, 1.0]),
    ("series.test_loss", [None, None, None]),  # diverged, then
    ("series.seconds", [10.0, 10.0, 100.0]),
    ("series.own", [1.0]),
    ("best", None),
    ("best.epoch", 0),
    ("best.epoch", -1),
    ("best.test_accuracy", 91.0),
    ("best.test_loss", 0.1),
    ("best.test_loss", None),
    ("final", None),
    ("final.epoch", 1),
    ("final.test_accuracy", 90.0),
    ("cost.parameters", -1),
    ("cost.parameters", 3042.5),
    ("cost.macs", None),
    ("cost.unknown", 1),
    ("images_per_second", -1.0),
    ("images_per_second", "fast"),
    ("seconds", -1.0),
    ("seconds", 20.0),
    ("device", ""),
    ("device", None),
    ("precision", "fp16"),
    ("threads", 0),
    ("versions", {"torch": "2.11"}),
    ("versions.torch", ""),
    ("versions.torch", 2.11),
    ("commit", "HEAD"),
    ("commit", "0123"),
    ("finished", "yesterday"),
    ("finished", "2026-01-31T12:00:00"),
    ("finished", "2026-01-31T12:00:00+02:00"),
    ("finished", "2026-02-30"),
    ("sittings", 0),
    ("weights", {"file": "../x.safetensors", "sha256": "0" * 64, "bytes": 1}),
    ("weights", {"file": "other.safetensors", "sha256": "0" * 64, "bytes": 1}),
    ("weights", {"file": "x.pt", "sha256": "0" * 64, "bytes": 1}),
    ("weights", {"file": "x.safetensors", "sha256": "0" * 63, "bytes": 1}),
    ("weights", {"file": "x.safetensors", "sha256": "0" * 64, "bytes": 0}),
]


@pytest.mark.parametrize(("place", "value"), TAMPERED, ids=[f"{place}={value}"[:40] for place, value in TAMPERED])
def test_tampered(saved, place, value):
    path, content = saved
    changed = copy.deepcopy(content)
    *parents, last = place.split(".")
    target = changed
    for parent in parents:
        target = target[parent]
    target[last] = value
    assert changed != content
    refuse(path, changed)


def test_every_series_is_required(saved):
    path, content = saved
    for name in content["series"]:
        changed = copy.deepcopy(content)
        del changed["series"][name]
        assert name in refuse(path, changed)


@pytest.mark.parametrize("commit", [None, "0123456", "0123456789abcdef+"])
@pytest.mark.parametrize("finished", ["2026-01-31", "2026-01-31T12:00:00Z"])
def test_allowed_forms(commit, finished):
    assert record(run(), commit=commit, finished=finished).commit == commit


def test_best_is_the_earliest_of_equals_and_final_the_last():
    best, final = points({"test_accuracy": [10.0, 90.0, 90.0, 80.0], "test_loss": [1.0, 2.0, 3.0, None]})
    assert (best.epoch, best.test_loss, final.epoch, final.test_loss) == (1, 2.0, 3, None)
    assert points({"test_accuracy": [10.0, None], "test_loss": [1.0, None]})[1] is None
    assert points({"test_accuracy": [], "test_loss": []}) == (None, None)


def test_diverged(tmp_path):
    made = from_series(run(), [10.0, None], status="diverged", series={"train_loss": [2.0, None]})
    assert load_record(save_record(made, tmp_path)) == made
    never = from_series(run(seed=1), [], status="diverged")
    assert load_record(save_record(never, tmp_path)).best is None


def test_complete_needs_every_epoch_of_the_recipe():
    with pytest.raises(RecordError, match="status = 'complete' with 2 epochs"):
        from_series(run(), [10.0, 20.0])
    with pytest.raises(RecordError, match="epochs = 4: the recipe has 3"):
        from_series(run(), [10.0] * 4, status="diverged")


def test_a_record_does_not_need_its_network_but_a_new_run_does():
    content = record(run()).model_dump(mode="json")
    assert Record.model_validate(content, context={"recorded": True}).run.network.name == "made-up"
    with pytest.raises(ThriftyError, match="unknown network 'made-up'"):
        Run.model_validate(content["run"])


COUNT = {
    "network": "n",
    "dataset": "cifar10",
    "asked": {"n_params": 10},
    "options": {"filters": 3},
    "parameters": 9,
    "kernel_parameters": 9,
    "macs": 1,
    "ptflops_macs": 2,
    "weight_bytes": 36,
}


def test_counts(tmp_path):
    assert load_counts(tmp_path) == []
    count = NetworkCount(**COUNT)
    path = save_counts([count], tmp_path)
    assert load_counts(tmp_path) == [count]
    path.write_text(path.read_text().replace('"parameters": 9', '"parameters": 9.5'))
    with pytest.raises(RecordError, match=r"counts\.json: NetworkCount\.parameters = 9\.5"):
        load_counts(tmp_path)


def variant(*speeds: float, peak: int | None = None) -> dict:
    return {"what": "a way", "precision": "fp32", "images_per_second": list(speeds), "peak_bytes": peak}


BENCH = {
    "name": "train",
    "what": "training",
    "baseline": "authors",
    "variants": {"authors": variant(10.0, 20.0, 10.0, peak=200), "fp32": variant(30.0, 30.0, 25.0, peak=100)},
    "device": "a CPU",
    "threads": 2,
    "versions": {"torch": "2.11"},
    "commit": None,
    "date": "2026-01-31",
}


def test_bench(tmp_path):
    bench = BenchRecord(**BENCH)
    path = save_bench(bench, tmp_path)
    assert load_bench(tmp_path) == {"train": bench}
    assert bench.ratio("fp32") == 2.5  # the median of 3, 1.5 and 2.5
    assert bench.ratio("authors") == 1.0
    assert bench.memory_ratio("fp32") == 0.5
    with pytest.raises(RecordError, match="no variant 'bf16'"):
        bench.ratio("bf16")
    path.rename(tmp_path / "bench" / "other.json")
    with pytest.raises(RecordError, match=r"other\.json: holds the bench 'train'"):
        load_bench(tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"baseline": "author"}, "did you mean 'authors'"),
        ({"variants": {"authors": variant(1.0), "x": variant(1.0, 2.0)}}, "same number"),
        ({"variants": {"authors": variant(0.0)}}, "greater than 0"),
        ({"variants": {"authors": variant()}}, "at least 1"),
        ({"date": "today"}, "ISO date"),
        ({"name": "Train it"}, "name"),
    ],
)
def test_bench_faults(change, fault):
    with pytest.raises(ThriftyError, match=fault):
        BenchRecord(**{**BENCH, **change})
