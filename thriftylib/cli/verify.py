"""The command verify."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thriftylib.cli.app import FAILED, DataFolder, Device, Json, Results, print_json, print_rows, say
from thriftylib.errors import RecordError, ThriftyError
from thriftylib.paths import results_dir, user_path, weights_dir

if TYPE_CHECKING:
    from thriftylib.evidence.records import Record


def verify(
    runs: Annotated[list[str] | None, typer.Argument(help="Run ids; none: all committed weights.")] = None,
    weights: Annotated[
        Path | None, typer.Option(parser=user_path, metavar="PATH", help="Folder of the weights; else data/weights.")
    ] = None,
    results: Results = None,
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
    from thriftylib.evidence.consistency import same_accuracy
    from thriftylib.evidence.records import load_records
    from thriftylib.options import suggest
    from thriftylib.running.execute import verify_weights
    from thriftylib.running.folders import given_folder

    folder = weights or weights_dir()
    where = given_folder(results) if results else results_dir()
    names = runs or sorted(path.stem for path in folder.glob("*.safetensors"))
    if not names:
        raise ThriftyError(f"{folder}: holds no weights (*.safetensors)")
    records = {record.id: record for record in load_records(where)}
    for name in names:
        if name not in records:
            raise ThriftyError(f"run {name!r}: no record of it in {where}" + suggest(name, records))
        if records[name].final_accuracy is None:
            why = records[name].status if records[name].run.recipe else "measured only"
            raise ThriftyError(f"run {name}: {why}, so there is no accuracy to confirm")

    def row(record: Record) -> dict[str, Any]:
        accuracy = None
        try:
            accuracy = verify_weights(record, folder, device=device, data=data)
        except RecordError as error:
            if len(names) == 1:
                raise
            say(str(error))
        return {
            "run": record.id,
            "data": record.run.data.label,
            "parameters": record.counted.parameters,
            "recorded": record.final_accuracy,
            "now": accuracy,
            "agrees": accuracy is not None and abs(accuracy - record.final_accuracy) <= same_accuracy(record.run),
            "confirms": None if accuracy is None else _confirmed(record),
        }

    rows = [row(records[name]) for name in names]
    print_json(rows) if as_json else print_rows(rows)
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
