"""Runs as the jobs of a cluster: the Snakefile, and SLURM's time limit with a signal before it."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from thriftylib.evidence.records import load_records
from thriftylib.experiments import experiment

ROOT = Path(__file__).parents[1]
NAME = "ebcle-identity"  # its runs start from the weights of others
SNAKEMAKE = pytest.mark.skipif(not importlib.util.find_spec("snakemake"), reason="no snakemake: .[cluster] has it")


def snakemake(out, *config, thrifty=None, cwd=ROOT):
    """Run the workflow on this machine's CPU, three jobs at once; ``thrifty`` stands for the command line."""
    programs = out.parent / "programs"
    programs.mkdir(exist_ok=True)
    command = programs / "thrifty"
    command.write_text(thrifty or f'#!/bin/sh\nexec {sys.executable} -m thriftylib.cli "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    profile = ["--profile", str(ROOT / "workflow/profiles/local"), "--cores", "3", "--nocolor"]
    arguments = [f"experiments={NAME}", "preset=smoke", f"out={out}", *config]
    called = [sys.executable, "-m", "snakemake", "-s", str(ROOT / "workflow/Snakefile"), *profile, "--config"]
    return subprocess.run([*called, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "mes résultats"


def smoke_runs():
    return {configuration.run.id: configuration.run for configuration in experiment(NAME).configurations("smoke")}


@SNAKEMAKE
def test_every_run_gets_a_record_parents_first_and_then_nothing_is_left(out):
    done = snakemake(out, "device=cpu")
    assert done.returncode == 0, done.stderr[-3000:]
    assert {record.id for record in load_records(out / "runs")} == set(smoke_runs())
    again = snakemake(out, "device=cpu", thrifty="#!/bin/sh\nexit 1\n")
    assert again.returncode == 0, again.stderr[-3000:]
    assert "rule train" not in again.stderr


@SNAKEMAKE
def test_a_stopped_run_is_continued_and_a_failed_one_is_named_at_the_end(out):
    """The stand-in is stopped at its first two calls for a run; one run fails."""
    runs = smoke_runs()
    fails = next(run for run in runs if runs[run].parent is None)
    calls = out.parent / "calls"
    calls.mkdir()
    stand_in = f"""#!/bin/sh
run=$(basename "$2" .json)
echo "$@" >> '{calls}'/$run
[ $(wc -l < '{calls}'/$run) -gt 2 ] || exit 3
[ $run != {fails} ] || exit 1
"""
    done = snakemake(out, "minutes=20", thrifty=stand_in)
    assert done.returncode == 1
    assert f"1 of {len(runs)} runs failed: {fails}" in done.stderr + done.stdout
    assert {path.name: len(path.read_text().splitlines()) for path in calls.iterdir()} == dict.fromkeys(runs, 3)
    line = (calls / fails).read_text().splitlines()[0]
    assert re.fullmatch(rf"train {out}/pending/{fails}.json --out {out} --device cuda --budget \d+s", line)


@SNAKEMAKE
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("preset=recorded", "preset recorded trains nothing"),
        ("experiments=ebcle-identiti", "did you mean 'ebcle-identity'?"),
        ("seeds=a-b", "seeds"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(out, config, said):
    done = snakemake(out, config)
    assert done.returncode != 0
    assert any(line.startswith("thrifty: ") and said in line for line in done.stderr.splitlines())
    assert "Traceback" not in done.stderr
    assert not out.exists()


def test_a_run_that_slurm_stops_before_its_time_limit_goes_on_in_the_next_job(tmp_path):
    """SLURM looks at limits every half minute, so its signal comes about then: the run must take longer."""
    run = next(iter(experiment("thriftynet-size-cifar10").configurations("smoke"))).run.model_dump(mode="json")
    run["recipe"]["epochs"] = 400
    (tmp_path / "run.json").write_text(json.dumps(run))
    options = f"--out {tmp_path}/out --device cpu --threads 1"
    train = f"exec {sys.executable} -m thriftylib.cli train {tmp_path}/run.json {options}"
    first = ["sbatch", "-W", "-o", "first.txt", "--time=1", "--signal=B:USR1@30", "--wrap", train]
    second = ["sbatch", "-W", "-o", "second.txt", "--time=20", "--wrap", train]
    script = tmp_path / "jobs.sh"
    quoted = [" ".join(f"'{part}'" for part in job) for job in (first, second)]
    script.write_text(f"cd {tmp_path}\n{quoted[0]}\necho first $?\n{quoted[1]}\necho second $?\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    called = [str(ROOT / "tests/slurm.sh"), str(tmp_path / "slurm"), "bash", str(script)]
    done = subprocess.run(called, env=environment, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip().splitlines()[-1])
    assert "first 3" in done.stdout, done.stdout + (tmp_path / "first.txt").read_text()[-2000:]
    assert "second 0" in done.stdout, done.stdout + (tmp_path / "second.txt").read_text()[-2000:]
    (record,) = load_records(tmp_path / "out" / "runs")
    assert record.epochs == 400
    assert len(record.sessions) == 2


def test_profiles_are_what_snakemake_reads():
    names = {path.parent.name for path in (ROOT / "workflow/profiles").glob("*/config.yaml")}
    assert names == {"local", "slurm", "kubernetes"}
