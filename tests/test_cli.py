"""The command line: what it prints, and how each mistake of a new user ends."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from typer.testing import CliRunner

import thriftylib
from thriftylib.bench import measure
from thriftylib.bench.record import BenchRecord, Variant
from thriftylib.cli import app
from thriftylib.cli.train import parse_where
from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.records import load_records
from thriftylib.experiments import EXPERIMENTS
from thriftylib.paths import claims_dir, results_dir
from thriftylib.running import notebooks
from thriftylib.running.calibrate import load_calibrations

SIZE = "thriftynet-size-cifar10"
ONE = ("-w", "filters=8", "-w", "iterations=4")  # one configuration of the smoke grid
COMMANDS = (
    "list",
    "show",
    "status",
    "plan",
    "cost",
    "train",
    "run",
    "verify",
    "bench",
    "book",
    "data",
    "doctor",
    "adopt",
)


def call(*arguments: object, code: int = 0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return result


def mistake(*arguments: object) -> str:
    """The one line on standard error with which a mistake ends, exit code 2."""
    result = call(*arguments, code=2)
    line = result.stderr.strip()
    assert line.startswith("thrifty: ")
    assert "\n" not in line
    assert result.stdout == ""
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_that_names_it(command):
    assert f"Example: thrifty {command}" in " ".join(call(command, "--help").stdout.split())


def test_help_lists_every_command():
    for arguments, code in ((("--help",), 0), ((), 2)):
        shown = call(*arguments, code=code)
        assert all(f" {command} " in shown.output for command in COMMANDS)


def test_list():
    found = json.loads(call("list", "--json").stdout)
    assert [row["experiment"] for row in found["experiments"]] == list(EXPERIMENTS)
    assert "thriftynet" in {row["paper"] for row in found["papers"]}
    assert {"digits", "cifar10"} <= {row["data set"] for row in found["datasets"]}
    assert {"thriftynet", "tiny-resnet"} <= {row["network"] for row in found["networks"]}
    assert "cifar100" not in call("list", "networks").stdout


def test_show_an_experiment():
    found = json.loads(call("show", SIZE, "--json").stdout)
    assert {row["preset"] for row in found["presets"]} == {"smoke", "fast", "paper"}
    configurations = json.loads(call("show", SIZE, "--preset", "paper", "--json").stdout)["configurations"]
    assert len(configurations) == len(EXPERIMENTS[SIZE].configurations("paper"))
    assert configurations[0]["claimed %"] == load_claims(claims_dir())["thriftynet/size-cifar10/t20-f32"].value
    assert EXPERIMENTS[SIZE].title in call("show", SIZE).stdout


def test_show_a_claim():
    found = json.loads(call("show", "thriftynet/abstract/cifar10-under-40k", "--json").stdout)
    assert found["mark"] == "ABSTRACT"


def test_show_a_run_that_can_be_trained_from_what_it_prints(tmp_path):
    run = EXPERIMENTS[SIZE].configurations("smoke")[0].run.with_seed(2)
    shown = call("show", run.id)
    file = tmp_path / "run.json"
    file.write_text(shown.stdout)
    call("train", file, "--out", tmp_path, "--device", "cpu", "--threads", 1)
    assert [record.id for record in load_records(tmp_path)] == [run.id]


def test_status_tells_of_a_reading_that_was_changed():
    rows = json.loads(call("status", "--paper", "expandnets", "--json").stdout)
    assert all(row["reason"].endswith("all rows are trained so.") for row in rows if row["reading_changed"])
    text = call("status", "--paper", "expandnets").stdout
    assert text.count("* The reading of how batch norms start was changed after results were seen") == 1
    assert re.search(r"expandnets/table-b/cifar10-smallnet .* reproduced\*", text)
    assert "results were seen" not in call("status", "--paper", "dacnn").stdout


def test_status_prints_every_claim():
    rows = json.loads(call("status", "--json").stdout)
    assert [row["id"] for row in rows] == list(load_claims(claims_dir()))
    table = call("status").stdout
    assert all(row["id"] in table for row in rows)
    some = json.loads(call("status", "--verdict", "not testable", "--json").stdout)
    assert 0 < len(some) < len(rows)
    assert {row["verdict"] for row in some} == {"not testable"}


def test_plan():
    arguments = ("plan", SIZE, "--preset", "paper", "--device", "NVIDIA H200", "--seeds", "0")
    found = json.loads(call(*arguments, "--json").stdout)
    assert found["missing"] == len(found["runs"])
    assert found["command"] == f"thrifty train {SIZE} --preset paper --seeds 0"
    for row in found["runs"]:
        low, high = row["seconds_range"]
        assert 0 < low < row["seconds_estimated"] < high
    shortest = min(row["seconds_estimated"] for row in found["runs"])
    few = json.loads(call(*arguments, "--budget", f"{1.01 * shortest:.0f}s", "--json").stdout)
    assert len(few["runs"]) == 1
    assert few["missing"] == found["missing"]
    assert few["too_long"] == sum(row["seconds_estimated"] > few["budget_seconds"] for row in found["runs"])
    assert few["too_long_shortest_seconds_estimated"] > few["budget_seconds"] > few["runs"][0]["end"]
    assert few["command"].startswith(f"thrifty train {SIZE} --plan --preset paper --seeds 0 --budget ")
    shown = call(*arguments, "--budget", f"{1.01 * shortest:.0f}s").stdout
    assert few["runs"][0]["run"] in shown
    assert "estimate" in shown


def test_plan_says_what_is_left_out():
    arguments = ("plan", SIZE, "--preset", "paper", "--device", "NVIDIA H200")
    nothing = call(*arguments, "--budget", "1s").stdout
    configurations = {configuration.run.id for configuration in EXPERIMENTS[SIZE].configurations("paper")}
    assert f"Nothing fits into 1s on NVIDIA H200. {5 * len(configurations)} take longer" in nothing
    assert "the shortest " in nothing
    assert "estimated end" not in nothing
    assert "To train them" not in nothing
    assert "no record of such a network is of it" in nothing


def test_plan_names_an_unknown_device_and_plans_for_it():
    known = {record.device for record in load_records(results_dir() / "runs")}
    result = call("plan", SIZE, "--preset", "paper", "--seeds", "0", "--device", "AMD EPIC (CPU)")
    assert "no record is of the device 'AMD EPIC (CPU)'; did you mean 'AMD EPYC (CPU)'? known: " in result.stderr
    assert all(device in result.stderr for device in known)
    assert len(result.stderr.splitlines()) == 1
    assert "To train them in this order" in result.stdout
    assert call("plan", SIZE, "--preset", "paper", "--seeds", "0", "--device", "AMD EPYC (CPU)").stderr == ""


def test_plan_counts_the_jobs():
    arguments = ("plan", SIZE, "--preset", "paper", "--device", "NVIDIA H200", "--json")
    alone, shared = (json.loads(call(*arguments, "--jobs", jobs).stdout) for jobs in (1, 4))
    assert sum(row["seconds_estimated"] for row in shared["runs"]) == pytest.approx(
        2 * sum(row["seconds_estimated"] for row in alone["runs"])  # the middle between no loss and four times
    )
    assert max(row["end"] for row in shared["runs"]) < max(row["end"] for row in alone["runs"])


@pytest.fixture
def own_local(monkeypatch, tmp_path):
    """A local folder of this test's own."""
    monkeypatch.setattr("thriftylib.cli.plan.local_dir", lambda: tmp_path / "local")
    return tmp_path / "local"


def test_plan_calibrates_and_later_plans_use_it(own_local):
    arguments = ("plan", SIZE, "--preset", "smoke", "--device", "cpu", "--threads", 1, "--json")
    assert {row["basis"] for row in json.loads(call(*arguments).stdout)["runs"]} == {"model"}
    told = call(*arguments, "--calibrate").stderr
    assert "calibrating network families" in told
    assert "thriftynet on digits: an epoch takes ~" in told
    rows = json.loads(call(*arguments).stdout)["runs"]
    assert {row["source"].split(" of ")[0] for row in rows} == {"calibration"}
    assert [one.threads for one in load_calibrations(own_local / "calibrations.json")] == [1]


def test_train_the_plan_but_for_an_unreadable_checkpoint(own_local, tmp_path):
    out = tmp_path / "out"
    arguments = ("train", "thriftynet-abstract", "--plan", "--preset", "smoke", "--seeds", "0", "--out", out)
    arguments += ("--device", "cpu", "--threads", 1)
    stopped = call(*arguments, "--budget", "0.01s", code=3).stderr
    assert "Nothing fits into 0s" in stopped
    assert load_records(out) == []
    first = EXPERIMENTS["thriftynet-abstract"].configurations("smoke")[0].run.id
    unreadable = out / "checkpoints" / f"{first}.safetensors"
    unreadable.parent.mkdir(parents=True)
    unreadable.write_bytes(b"cut short")
    told = call(*arguments, "--budget", "30m", code=1).stderr
    assert "3 of 3 missing runs fit into 30m" in told
    assert f"run {first} is left out: {unreadable}: cannot be read" in told
    assert "stopped: 1 run is left: left out as said above" in told
    assert len(load_records(out)) == 2
    unreadable.unlink()
    done = call(*arguments, "--budget", "30m").stderr
    assert "1 of 1 missing run fits into 30m" in done
    assert "no run is missing" in done
    assert len(load_records(out)) == 3
    assert "No run is missing." in call(*arguments, "--budget", "30m").stderr


def test_train_the_plan_leaves_out_what_has_no_data(own_local, tmp_path):
    arguments = ("train", SIZE, "--plan", "--preset", "fast", "--seeds", "0", "--budget", "100000h")
    told = call(*arguments, "--data", tmp_path, "--out", tmp_path / "out", "--device", "cpu", code=3).stderr
    assert f"cifar10 is not in {tmp_path}; thrifty data cifar10" in told
    assert "that this call could not train" in told


def test_cost_of_the_readme_example():
    arguments = ("filters=64", "iterations=20", "history=5", "conv=mb1", "classes=10")
    found = json.loads(call("cost", "thriftynet", *arguments, "--json").stdout)
    assert found["parameters"] == 9 * 64 + 64**2 + 2 * 64 * 20 + 20 * 6 + 10 * 64 + 10
    assert f"{found['macs']:,}" in call("cost", "thriftynet", *arguments).stdout


def test_none_is_a_word_where_an_option_or_a_label_has_it():
    found = json.loads(call("cost", "dacnn", "depth=18", "regulators=none", "blocks=[2,2,2,2]", "--json").stdout)
    assert (found["options"]["regulators"], found["kernel_parameters"]) == ("none", 152_202)
    assert parse_where(["regulators=none,depth"]) == {"regulators": ("none", "depth")}


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (("n_params=40000",), {"filters": 172}),
        (("filters=32", "pool=3,7"), {"pool": [3, 7]}),
        (("filters=32", "pool=3,"), {"pool": [3]}),
        (("filters=32", "pool=[3, 7]"), {"pool": [3, 7]}),
        (("filters=32", "pool=none", "history_bug=true"), {"pool": None, "history_bug": True}),
        (("filters=32", "activation=relu"), {"activation": "relu"}),
    ],
)
def test_cost_reads_options_as_their_type(arguments, options):
    found = json.loads(call("cost", "thriftynet", *arguments, "--json").stdout)
    assert options.items() <= found["options"].items()


def test_cost_of_a_data_set():
    digits = json.loads(call("cost", "tiny-resnet", "dataset=digits", "--json").stdout)
    given = json.loads(call("cost", "tiny-resnet", "image=1x8x8", "classes=10", "--json").stdout)
    assert digits == given


def test_every_command_of_the_scoreboard_is_understood():
    for row in json.loads(call("status", "--json").stdout):
        for command in row["command"].split(" && "):
            match command.split():
                case ["thrifty", "cost", *arguments]:
                    assert json.loads(call("cost", *arguments, "--json").stdout)["parameters"] > 0
                case ["thrifty", "train", name, "--preset", preset, "--only", claim]:
                    assert any(
                        claim in configuration.claims for configuration in EXPERIMENTS[name].configurations(preset)
                    )
                case other:
                    assert other == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "thriftynet-size-cifar"), ("'thriftynet-size-cifar'", "did you mean", SIZE)),
        (("show", "thriftynet-abstract", "--preset", "papers"), ("'papers'", "did you mean 'paper'")),
        (("plan", "thriftynet-dept"), ("'thriftynet-dept'", "did you mean 'thriftynet-depth'")),
        (("plan", "--preset", "recorded"), ("preset", "paper")),
        (("plan", "--seeds", "4-0"), ("seeds = '4-0'", "'0-4'")),
        (("plan", "--budget", "soon"), ("budget = 'soon'", "'9m'")),
        (("plan", "--device", "cuda:99"), ("cuda:99", "cpu")),
        (("status", "--verdict", "reproducd"), ("did you mean 'reproduced'",)),
        (("status", "--paper", "thrifty"), ("unknown paper 'thrifty'", "thriftynet")),
        (("cost",), ("thrifty list networks",)),
        (("cost", "thriftnet"), ("did you mean 'thriftynet'",)),
        (("cost", "thriftynet", "fliters=3"), ("did you mean 'filters'",)),
        (("cost", "thriftynet", "clases=3"), ("did you mean 'classes'",)),
        (("cost", "thriftynet", "64"), ("'64'", "key=value")),
        (("cost", "thriftynet", "filters=64", "filters=32"), ("filters", "twice")),
        (("cost", "thriftynet", "filters=sixty"), ("filters", "'sixty'", "integer")),
        (("cost", "thriftynet", "filters=32", "pool=3,70"), ("pool", "70", "19")),
        (("cost", "thriftynet", "filters=32", "image=32x32"), ("image", "3x32x32")),
        (("cost", "thriftynet", "filters=32", "classes=0"), ("classes", ">= 1")),
        (("cost", "thriftynet", "dataset=cifar"), ("data set", "cifar10")),
        (("cost", "thriftynet", "dataset=cifar10", "classes=3"), ("dataset",)),
        (("train",), ("--preset smoke", "fast", "paper")),
        (("train", SIZE), ("--preset smoke", "fast", "paper")),
        (("train", SIZE, "--preset", "recorded"), ("recorded", "--preset smoke")),
        (("train", SIZE, "--preset", "smok"), ("did you mean 'smoke'",)),
        (("train", "thriftynet", "--preset", "smoke"), ("unknown experiment 'thriftynet'",)),
        (("train", SIZE, "--preset", "smoke", "--seeds", "a"), ("seeds = 'a'",)),
        (("train", SIZE, "--preset", "smoke", "--budget", "0m"), ("budget = '0m'",)),
        (("train", SIZE, "--preset", "smoke", "--device", "gpu"), ("device = 'gpu'", "cuda")),
        (("train", SIZE, "--preset", "paper", "--only", "thriftynet/size-cifar10/t20-f3"), ("t20-f32", "status")),
        (("train", SIZE, "--preset", "fast", "--only", "thriftynet/size-cifar10/t20-f32"), ("no run of preset fast",)),
        (("train", SIZE, "--preset", "smoke", "-w", "width=3"), ("'width'", "filters")),
        (("train", SIZE, "--preset", "smoke", "-w", "filters=3"), ("filters", "[8, 12, 16]")),
        (("train", SIZE, "--preset", "smoke", "-w", "filters"), ("'filters'", "key=value")),
        (("train", "--plan", "--preset", "paper"), ("--plan needs --budget",)),
        (("train", "run.json", "--plan", "--budget", "9m"), ("--plan chooses the runs",)),
        (("train", "--plan", "--preset", "paper", "--budget", "9m", "-w", "filters=8"), ("--where",)),
        (("train", "--plan", "--preset", "paper", "--budget", "9m", "--only", "a/b/c"), ("--only",)),
        (("train", "--plan", "--budget", "9m"), ("which preset?",)),
        (("plan", "--calibrate", "--device", "NVIDIA H200"), ("--calibrate measures this machine", "'NVIDIA H200'")),
        (("train", "missing.json"), ("missing.json", "cannot be read")),
        (("run", "thriftynet-sise"), ("did you mean 'thriftynet-size'",)),
        (("run", "--preset", "smok"), ("did you mean 'smoke'",)),
        (("run", "--seeds", "x"), ("seeds = 'x'",)),
        (("run", "thriftynet-size", "-p", "sizes=3"), ("no parameter 'sizes'", "epochs")),
        (("run", "thriftynet-size", "-p", "epochs=many"), ("epochs = 'many'", "int")),
        (("verify", "0123456789ab"), ("no record", "'0123456789ab'")),
        (("data", "cifar"), ("cifar10",)),
    ],
)
def test_a_mistake_is_one_line_that_names_what_is_wrong_and_what_is_right(arguments, words):
    line = mistake(*arguments)
    assert all(word in line for word in words), line


def test_a_mistyped_command_is_corrected():
    assert "train" in call("trian", code=2).stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", ("is not JSON",)),
        ("[]", ("network, data and recipe",)),
        ('{"netwrk": 1}', ("unknown key 'netwrk'", "'network'")),
    ],
)
def test_a_file_that_is_no_run(content, words, tmp_path):
    (tmp_path / "run.json").write_text(content)
    line = mistake("train", tmp_path / "run.json", "--out", tmp_path)
    assert all(word in line for word in words), line


def test_missing_data_is_one_line(tmp_path):
    arguments = ("--preset", "fast", "-w", "filters=32", "-w", "iterations=20", "--device", "cpu")
    result = call("train", SIZE, *arguments, "--data", tmp_path, "--out", tmp_path / "out", code=2)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("thrifty: cifar10: missing")
    assert str(tmp_path) in last


def test_train_goes_on_and_writes_records_and_weights_that_verify_confirms(tmp_path):
    arguments = ("train", SIZE, "--preset", "smoke", *ONE, "--out", tmp_path, "--device", "cpu", "--threads", 1)
    assert "the same command goes on" in call(*arguments, "--budget", "0.001s", code=3).stderr
    assert load_records(tmp_path) == []
    assert "1 run is missing" in call(*arguments, "--seeds", "0").stderr
    assert "0 runs are missing" in call(*arguments, "--seeds", "0").stderr
    assert "1 run is missing" in call(*arguments, "--seeds", "0-1").stderr
    folders = ("--weights", tmp_path / "weights", "--results", tmp_path, "--device", "cpu")
    rows = json.loads(call("verify", *folders, "--json").stdout)
    assert {row["run"] for row in rows} == {record.id for record in load_records(tmp_path)}
    assert all(row["agrees"] for row in rows)
    record = json.loads((tmp_path / "runs" / f"{rows[0]['run']}.json").read_text())
    wrong = 100 * 324 / 360  # of the digits' test images; far from what so short a training reaches
    record["series"]["test_accuracy"][-1] = record["final"]["test_accuracy"] = record["kept"]["test_accuracy"] = wrong
    changed = tmp_path / "changed" / "runs" / f"{record['id']}.json"
    changed.parent.mkdir(parents=True)
    best = max(range(len(record["series"]["test_accuracy"])), key=record["series"]["test_accuracy"].__getitem__)
    record["best"] = {"epoch": best, **{k: record["series"][k][best] for k in ("test_accuracy", "test_loss")}}
    changed.write_text(json.dumps(record))
    call("verify", record["id"], *folders[:2], "--results", tmp_path / "changed", "--device", "cpu", code=1)


def test_bench_prints_ratios(monkeypatch):
    def measured(*, rounds: int, **_: object) -> BenchRecord:
        sides = {"authors": (10.0, 400), "ours": (20.0, 100)}
        variants = {
            name: Variant(what=name, precision="fp32", images_per_second=[speed] * rounds, peak_bytes=peak)
            for name, (speed, peak) in sides.items()
        }
        return BenchRecord(
            name="train",
            what="steps",
            baseline="authors",
            variants=variants,
            device="a CPU",
            threads=1,
            versions={},
            commit=None,
            date="2026-01-31",
        )

    monkeypatch.setattr(measure, "bench_thriftynet", measured)
    found = json.loads(call("bench", "train", "--rounds", 3, "--json").stdout)
    assert found["variants"]["ours"]["images_per_second"] == [20.0] * 3
    shown = next(line.split() for line in call("bench", "train").stdout.splitlines() if line.startswith("ours"))
    assert [shown[3], shown[4], shown[6]] == ["20.00", "2.00", "0.25"]
    assert "did you mean 'thriftynet'" in call("bench", "thriftnet", code=2).stderr


def test_a_terminated_training_leaves_a_checkpoint(tmp_path):
    run = EXPERIMENTS[SIZE].configurations("smoke")[0].run
    long = run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": 10_000})})
    file = tmp_path / "run.json"
    file.write_text(json.dumps(long.model_dump(mode="json")))
    command = [*COMMAND, "train", str(file), "--out", str(tmp_path), "--device", "cpu", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 1/" in line:
            break
    process.send_signal(signal.SIGTERM)
    rest = process.stderr.read()
    assert process.wait(60) == 3
    assert "the same command goes on" in rest
    assert (tmp_path / "checkpoints" / f"{long.id}.safetensors").exists()


COMMAND = (sys.executable, "-m", "thriftylib.cli")


HEAVY = (
    "torch",
    "torchvision",
    "pandas",
    "scipy",
    "sklearn",
    "matplotlib",
    "seaborn",
    "papermill",
    "IPython",
    "nbformat",
)


def test_what_computes_nothing_imports_nothing_heavy():
    """Every help, every list, and every mistake: each in under half a second, which torch alone would take thrice."""
    calls = [["--help"], [], ["trian"], ["status"], ["status", "--json"], ["list"], ["show", "xyz"], ["show", SIZE]]
    calls += [[command, "--help"] for command in COMMANDS]
    calls += [[command, "--no-such-option"] for command in COMMANDS]
    calls += [["show", SIZE, "--preset", "paper"], ["show", "thriftynet/abstract/cifar10-under-40k"]]
    calls += [["plan", SIZE, "--device", "NVIDIA H200"], ["plan", "--preset", "smok"], ["plan", "thriftynet-dept"]]
    calls += [["cost", "thriftynet", "filters=64"], ["cost", "thriftnet"], ["cost", "dacnn", "dept=18"]]
    calls += [["train", "thriftynet-dept", "--preset", "paper"], ["train", SIZE, "--preset", "smok"]]
    calls += [["train", SIZE, "--preset", "smoke", "-w", "width=3"], ["train", "--preset", "paper", "--only", "a/b/c"]]
    calls += [["run", "thriftynet-sise"], ["run", "--preset", "smok"], ["data", "cifar"], ["verify", "0123456789ab"]]
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom thriftylib.cli import app\n"
        f"for arguments in {calls!r}:\n"
        "    code = CliRunner().invoke(app, arguments).exit_code\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    assert code in (0, 2) and not heavy, (arguments, code, heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_help_takes_less_than_half_a_second_of_cpu_time():
    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*COMMAND, "--help"], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_seconds() for _ in range(3)) < 0.5


def test_a_bad_claims_file_is_named_and_blocks_no_other(tmp_path):
    for folder in ("data", "notebooks"):
        shutil.copytree(claims_dir().parents[1] / folder, tmp_path / folder, ignore=shutil.ignore_patterns("weights"))
    (tmp_path / "data" / "claims" / "dacnn.yaml").write_text("title: [")
    calls = [["list", "papers"], ["show", SIZE], ["status"], ["plan", SIZE, "--device", "NVIDIA H200"]]
    code = (
        "import json\nfrom typer.testing import CliRunner\nfrom thriftylib.cli import app\n"
        f"results = [CliRunner().invoke(app, arguments) for arguments in {calls!r}]\n"
        "print(json.dumps([[result.exit_code, result.stdout, result.stderr] for result in results]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    for (number, out, err), shown in zip(
        json.loads(done.stdout), ("expandnets", SIZE, "expandnets/", SIZE), strict=True
    ):
        assert (number, err.count("dacnn.yaml")) == (1, 1), err
        assert shown in out


def test_train_needs_nothing_of_jupyter(tmp_path):
    """A bare GPU box has neither; of the digits' own needs, scikit-learn with scipy, our code imports nothing else."""
    absent = ("papermill", "IPython", "jupyter_client", "nbformat", "matplotlib", "pandas", "jupyter_book")
    arguments = ["train", SIZE, "--preset", "smoke", *ONE, "--out", str(tmp_path), "--device", "cpu", "--threads", "1"]
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent!r}))\nfrom thriftylib.cli import app\n"
        f"app({arguments!r}, standalone_mode=False)\n"
        "sys.exit('thriftylib.evidence.verdicts' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(load_records(tmp_path)) == 1


def test_outside_a_checkout(tmp_path):
    shutil.copytree(
        Path(thriftylib.__file__).parent, tmp_path / "thriftylib", ignore=shutil.ignore_patterns("__pycache__")
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*COMMAND, "status"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("thrifty: no checkout here")
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def own_notebooks(tmp_path, monkeypatch):
    """Two notebooks of our own, one of which fails when ``fails`` is true."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("first", "second"):
        parameters = nbformat.v4.new_code_cell(
            'preset: str = "recorded"\nfails: bool = False\ntimes: int = 1\nbudget: str = ""',
            metadata={"tags": ["parameters"]},
        )
        work = nbformat.v4.new_code_cell(
            f'experiment = "{SIZE}"\nassert not fails, "as told"\nprint(preset, times, budget)'
        )
        notebook = nbformat.v4.new_notebook(
            cells=[parameters, work],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        )
        nbformat.write(notebook, folder / f"{name}.ipynb")
    monkeypatch.setattr(notebooks, "notebooks", lambda: {path.stem: path for path in sorted(folder.glob("*.ipynb"))})
    return folder


def test_run_executes_the_notebooks_that_show_an_experiment(own_notebooks, tmp_path):
    out = tmp_path / "out"
    result = call("run", SIZE, "--preset", "smoke", "--device", "cpu", "--out", out, "-p", "times=3", code=2)
    assert "device" in result.stderr  # these notebooks have no such parameter
    result = call("run", SIZE, "--preset", "smoke", "--budget", "1h", "--out", out, "-p", "times=3")
    assert result.stderr.count(": done in ") == 2
    for name in ("first", "second"):
        text = nbformat.read(out / f"{name}.ipynb", as_version=4).cells[-1].outputs[0].text
        preset, times, budget = text.split()
        assert (preset, times) == ("smoke", "3")
        assert 3000 < float(budget.rstrip("s")) <= 3600


def test_run_keeps_a_failed_notebook_and_goes_on(own_notebooks, tmp_path):
    broken = nbformat.read(own_notebooks / "first.ipynb", as_version=4)
    broken.cells[1].source = 'raise ValueError("as told")'
    nbformat.write(broken, own_notebooks / "first.ipynb")
    result = call("run", "--out", tmp_path / "out", code=1)
    assert "first: FAILED" in result.stderr
    assert "ValueError: as told" in result.stderr
    assert str(tmp_path / "out" / "first.ipynb") in result.stderr
    assert "second: done" in result.stderr
    assert "as told" in (tmp_path / "out" / "first.ipynb").read_text()
