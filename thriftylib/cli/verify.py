"""Commands around the records: verify, book, data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thriftylib.cli.app import FAILED, DataFolder, Device, Json, print_json, print_table, say
from thriftylib.datasets.facts import dataset_info
from thriftylib.errors import RecordError, ThriftyError
from thriftylib.evidence.consistency import same_accuracy
from thriftylib.evidence.records import Record, load_records
from thriftylib.options import suggest
from thriftylib.paths import results_dir, weights_dir
from thriftylib.running.execute import verify_weights
from thriftylib.spec import Data


def verify(
    runs: Annotated[list[str] | None, typer.Argument(help="Run ids; none: all committed weights.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of the weights; else data/weights.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder of the records; else data/results.")] = None,
    device: Device = "auto",
    data: DataFolder = None,
    as_json: Json = False,
) -> None:
    """Evaluate committed weights on the real test set in fp32: the accuracy must be that of the record's kept network.

    Within 0.1 points or three images, since other devices and precisions round a few logits the other way; the file's
    SHA-256 exactly.
    Only the last epoch's weights are kept, so a best epoch before it is not confirmed.

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
        if records[name].final_accuracy is None:
            why = records[name].status if records[name].run.recipe else "measured only"
            raise ThriftyError(f"run {name}: {why}, so there is no accuracy to confirm")
    for name in wanted:
        record, accuracy, confirms = records[name], None, None
        try:
            accuracy = verify_weights(record, folder, device=device, data=data)
            confirms = _confirmed(record)
        except RecordError as error:
            if len(wanted) == 1:
                raise
            say(str(error))
        rows.append(
            {
                "run": name,
                "data": record.run.data.name,
                "parameters": record.counted.parameters,
                "recorded": record.final_accuracy,
                "now": accuracy,
                "agrees": accuracy is not None and abs(accuracy - record.final_accuracy) <= same_accuracy(record.run),
                "confirms": confirms,
            }
        )
    if as_json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [list(row.values()) for row in rows])
    if not all(row["agrees"] for row in rows):
        raise typer.Exit(FAILED)


def _confirmed(record: Record) -> str:
    """Which epochs' accuracies the kept weights can speak for."""
    last = f"epoch {record.epochs} of {record.run.epochs}"
    if record.final is None or not record.keeps_last_epoch:
        return "the kept network, no epoch"
    if record.best is None:
        return last
    best = record.best.epoch + 1
    return f"{last}, also the best" if best == record.epochs else f"{last}, not the best ({best})"


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
    from thriftylib.datasets.load import load
    from thriftylib.paths import data_root

    info = dataset_info(name)
    loaded = load(Data(name=info.name), root=folder, download=True)
    where = "bundled with scikit-learn" if name == "digits" else data_root(folder)
    say(f"{info.title}: {len(loaded.train):,} training and {len(loaded.test):,} test images, {where}")
