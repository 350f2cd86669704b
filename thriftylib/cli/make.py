"""Commands that make something: train, run, verify, bench, book, data."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from thriftylib.cli.app import (
    FAILED,
    STOPPED,
    Budget,
    DataFolder,
    Device,
    Json,
    Where,
    out,
    parse_pairs,
    parse_where,
    print_json,
    print_table,
    say,
)
from thriftylib.datasets import dataset_info
from thriftylib.errors import ThriftyError
from thriftylib.evidence.bench import save_bench
from thriftylib.evidence.records import load_records
from thriftylib.experiments import EXPERIMENTS, PRESETS, experiment
from thriftylib.experiments.execute import Places, known_records, parse_budget, train_missing, verify_weights
from thriftylib.options import suggest
from thriftylib.paths import claims_dir, local_dir, results_dir, weights_dir
from thriftylib.spec import Data, Run, parse_seeds
from thriftylib.training.progress import duration

VERIFIED = 0.1  # points: ten images of ten thousand; another device or precision rounds a few logits the other way


class Precision(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def train(
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[EXPERIMENT|RUN.json]...", help="None: every experiment.")
    ] = None,
    preset: Annotated[list[str] | None, typer.Option(help="smoke, fast or paper; may be given twice.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds such as 0, 0,3 or 0-4; else 0, or a run file's own.")] = None,
    only: Annotated[str | None, typer.Option(help="Only the runs that answer this claim.")] = None,
    where: Where = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of records, weights and checkpoints; else local/.")
    ] = None,
    device: Device = "auto",
    budget: Budget = None,
    data: DataFolder = None,
    precision: Annotated[Precision, typer.Option(help="auto: bf16 on a GPU, fp32 on a CPU.")] = Precision.auto,
    threads: Annotated[int | None, typer.Option(min=1, help="Of a CPU; the last digits depend on it.")] = None,
) -> None:
    """Train the runs that have no record yet, most valuable first; the same command goes on where it stopped.

    Example: thrifty train thriftynet-size-cifar10 --preset fast --seeds 0-4 --budget 25m --out results
    """
    limit = parse_budget(budget)
    places = Places.below(to)
    files = [target for target in targets or () if target.endswith(".json")]
    names = [experiment(target).name for target in targets or () if target not in files]
    if files and (names or preset or only or where):
        raise ThriftyError("a run file is one run: --preset, --only, --where and experiments do not go with it")
    if files:
        runs = [_read_run(Path(file)) for file in files]
        runs = [run.with_seed(seed) for run in runs for seed in parse_seeds(seeds)] if seeds else runs
    else:
        runs = _missing(names or list(EXPERIMENTS), preset or [], seeds or "0", only, where, device, places)
    sitting = train_missing(
        runs,
        places,
        data=data,
        device=device,
        budget=limit,
        precision=precision.value,
        threads=threads,
        announce=lambda run, number, of: say(
            f"[{number}/{of}] {run.network.name} on {run.data.name}, {run.recipe.name}, seed {run.seed}: run {run.id}"
        ),
    )
    for record in sitting.records.values():
        best = f"best {record.best.test_accuracy:.2f} %" if record.best else "no accuracy"
        final = f", last {record.final.test_accuracy:.2f} %" if record.final else ""
        say(f"run {record.id} {record.status}: {best}{final} after {record.epochs} epochs")
    if sitting.stopped:
        say(f"stopped by the {sitting.stopped}: {len(sitting.missing)} runs are left; the same command goes on")
        raise typer.Exit(STOPPED)
    say(f"no run is missing; records are in {places.results}")


def _read_run(path: Path) -> Run:
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ThriftyError(f"{path}: cannot be read ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ThriftyError(f"{path}: is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ThriftyError(f"{path}: must hold a run, an object with network, data and recipe")
    return Run.model_validate(content.get("run", content))  # a record holds its run


def _missing(
    names: Sequence[str],
    presets: Sequence[str],
    seeds: str,
    only: str | None,
    where: Sequence[str] | None,
    device: str,
    places: Places,
) -> list[Run]:
    if not presets:
        raise ThriftyError("which preset? --preset smoke (seconds), fast (minutes on a GPU) or paper (the authors')")
    if "recorded" in presets:
        raise ThriftyError("preset recorded trains nothing; --preset smoke, fast or paper do")
    for preset in presets:
        if preset not in PRESETS:
            raise ThriftyError(f"unknown preset {preset!r}" + suggest(preset, PRESETS))
    from thriftylib.evidence.claims import load_claims
    from thriftylib.experiments.plan import plan
    from thriftylib.training.device import choose_device, device_name

    claims = load_claims(claims_dir())
    if only is not None and only not in claims:
        close = get_close_matches(only, claims, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ThriftyError(f"unknown claim {only!r}{hint}; thrifty status lists them")
    machine = device_name(choose_device(device))
    steps = plan(
        names,
        presets,
        parse_seeds(seeds),
        device=machine,
        records=known_records(places.results),
        claims=claims,
        where=parse_where(where),
    )
    steps = [step for step in steps if only is None or only in step.claims]
    seconds = sum(step.estimate.seconds for step in steps)
    say(f"{len(steps)} runs are missing: ~{duration(seconds)} on {machine} (estimate)")
    return [step.run for step in steps]


def run(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NOTEBOOK|EXPERIMENT]...", help="None: all.")] = None,
    preset: Annotated[str, typer.Option(help="recorded, smoke, fast or paper.")] = "recorded",
    seeds: Annotated[str | None, typer.Option(help="Seeds such as 0, 0,3 or 0-4; else the notebook's own.")] = None,
    device: Device = "auto",
    budget: Budget = None,
    data: DataFolder = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the records; else the notebook's own choice.")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="KEY=VALUE", help="Of the notebook; repeatable.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", help="Folder of executed notebooks; else local/notebooks.")
    ] = None,
) -> None:
    """Execute notebooks through papermill: one per GPU at the same time, else one by one; a failure stops no other.

    Example: thrifty run thriftynet-size --preset smoke -p epochs=1
    """
    from thriftylib.experiments.notebooks import check_parameters, choose, run_notebooks

    if preset not in PRESETS:
        raise ThriftyError(f"unknown preset {preset!r}" + suggest(preset, PRESETS))
    limit = parse_budget(budget)
    if seeds is not None:
        parse_seeds(seeds)
    own = {"seeds": seeds, "budget": budget, "data": data and str(data.resolve())}
    own |= {"results": results and str(results.resolve()), "device": device if device != "auto" else None}
    given = {"preset": preset, **{key: value for key, value in own.items() if value is not None}}
    given |= parse_pairs(parameter or (), "-p")
    chosen = choose(names or [])
    parameters = {path.stem: check_parameters(path, given) for path in chosen}  # all, before the first starts
    failed = stopped = 0
    for done in run_notebooks(chosen, parameters, to or local_dir() / "notebooks", gpus=_gpus(device), budget=limit):
        if done.error is None:
            say(f"{done.name}: done in {duration(done.seconds)}, {done.output}")
        elif done.seconds:
            failed += 1
            say(f"{done.name}: FAILED, {done.error}; as far as it came: {done.output}")
        else:
            stopped += 1
            say(f"{done.name}: {done.error}")
    if failed or stopped:
        raise typer.Exit(FAILED if failed else STOPPED)


def _gpus(device: str) -> list[str]:
    """The GPUs that notebooks may share out among themselves, as CUDA_VISIBLE_DEVICES names them."""
    if device != "auto":
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]


def verify(
    runs: Annotated[list[str] | None, typer.Argument(help="Run ids; none: all committed weights.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of the weights; else data/weights.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the records; else data/results.")] = None,
    device: Device = "auto",
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Evaluate committed weights on the real test set in fp32: the last epoch's accuracy must be the record's.

    Within 0.1 points, since other devices and precisions round a few logits the other way; the file's SHA-256 exactly.

    Example: thrifty verify --data ~/data
    """
    folder = weights or weights_dir()
    wanted = runs or sorted(path.stem for path in folder.glob("*.safetensors"))
    if not wanted:
        raise ThriftyError(f"{folder}: holds no weights (*.safetensors)")
    records = {record.id: record for record in load_records(results or results_dir())}
    rows = []
    for name in wanted:
        if name not in records:
            raise ThriftyError(f"run {name!r}: no record of it in {results or results_dir()}" + suggest(name, records))
        if records[name].final is None:
            raise ThriftyError(f"run {name}: {records[name].status}, so there is no accuracy to confirm")
    for name in wanted:
        record = records[name]
        accuracy = verify_weights(record, folder, device=device, data=data)
        rows.append(
            {
                "run": name,
                "data": record.run.data.name,
                "recorded": record.final.test_accuracy,
                "now": accuracy,
                "agrees": abs(accuracy - record.final.test_accuracy) <= VERIFIED,
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    if not all(row["agrees"] for row in rows):
        raise typer.Exit(FAILED)


class Bench(StrEnum):
    train = "train"


def bench(
    what: Annotated[Bench, typer.Argument(help="train: our engine beside the authors' formulation, on the CPU.")],
    filters: Annotated[int, typer.Option(min=3)] = 172,
    iterations: Annotated[int, typer.Option(min=5)] = 20,
    batch_size: Annotated[int, typer.Option(min=2, help="Images of a step.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Counted steps of each variant; they take turns.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Keep it as data/results/bench/train.json.")] = False,
    as_json: Json = False,
) -> None:
    """Measure speed and memory as ratios within one process.

    Example: thrifty bench train --rounds 3
    """
    from thriftylib.training.bench import bench_train

    measured = bench_train(
        filters=filters, iterations=iterations, batch_size=batch_size, rounds=rounds, threads=threads, report=say
    )
    if record:
        say(f"recorded in {save_bench(measured, results_dir())}")
    if as_json:
        print_json(measured.model_dump(mode="json"))
        return
    out().print(f"{measured.what}, {measured.device}, {measured.threads} threads", markup=False)
    rows = [
        [
            name,
            variant.what,
            variant.precision,
            statistics.median(variant.images_per_second),
            measured.ratio(name),
            variant.peak_bytes and variant.peak_bytes / 2**20,
            measured.memory_ratio(name),
        ]
        for name, variant in measured.variants.items()
    ]
    print_table(("variant", "what", "precision", "images/s", "x as fast", "peak MiB", "x memory"), rows)


def book(
    check: Annotated[bool, typer.Option("--check", help="Follow every internal link of what was built.")] = False,
    to: Annotated[Path | None, typer.Option("--out", help="Where _build goes; else the book folder.")] = None,
) -> None:
    """Build the site strictly from what is committed; nothing is executed.

    Example: thrifty book --check
    """
    from thriftylib.book import build, check_links

    pages = build(to)
    say(f"built {pages / 'index.html'}")
    if check and (faults := check_links(pages)):
        for fault in faults:
            say(fault)
        raise typer.Exit(FAILED)


def data(
    name: Annotated[str, typer.Argument(help="A data set; see thrifty list datasets.")],
    folder: DataFolder = None,
) -> None:
    """Download a data set with torchvision and check it, or say that it is there.

    Example: thrifty data cifar10 --data ~/data
    """
    from thriftylib.paths import data_root
    from thriftylib.training.data import load

    info = dataset_info(name)
    loaded = load(Data(name=info.name), root=folder, download=True)
    where = "bundled with scikit-learn" if name == "digits" else data_root(folder)
    say(f"{info.title}: {len(loaded.train):,} training and {len(loaded.test):,} test images, {where}")
