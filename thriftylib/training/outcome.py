"""From a finished training to what is kept of it: the record and the weights."""

from __future__ import annotations

import hashlib
import math
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from thriftylib.errors import RecordError
from thriftylib.evidence.records import Counted, Record, Weights, load_records, points
from thriftylib.paths import project_root, write_atomically
from thriftylib.spec import Run
from thriftylib.training.device import Precision, device_name


def make_record(
    run: Run,
    series: Mapping[str, Sequence[float]],
    *,
    diverged: bool,
    images_per_second: float,
    seconds: float,
    device: torch.device,
    precision: Precision,
    sittings: int,
    weights: Weights | None,
) -> Record:
    """The record of a finished training: all that a verdict, a figure or a doubter may ask."""
    cost = run.cost
    finite = {name: [x if math.isfinite(x) else None for x in values] for name, values in series.items()}
    best, final = points(finite)
    return Record(
        format=1,
        id=run.id,
        run=run,
        status="diverged" if diverged else "complete",
        epochs=len(finite["test_accuracy"]),
        series=finite,
        best=best,
        final=final,
        cost=Counted(
            parameters=cost.parameters,
            macs=cost.macs,
            ptflops_macs=cost.ptflops_macs,
            weight_bytes=cost.weight_bytes(),
            activation_bytes=cost.activation_bytes(),
        ),
        images_per_second=round(images_per_second, 1),
        seconds=round(seconds, 1),
        device=device_name(device),
        precision=precision,
        threads=torch.get_num_threads(),
        versions=versions(),
        commit=commit(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        sittings=sittings,
        weights=weights,
    )


def save_weights(network: nn.Module, folder: Path, run_id: str) -> Weights:
    """Write the network's weights and statistics as ``<run id>.safetensors``."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content = save(tensors, {"run": run_id})  # one key only: safetensors writes several in random order
    path = folder / f"{run_id}.safetensors"
    write_atomically(path, content)
    return Weights(file=path.name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def load_weights(network: nn.Module, record: Record, folder: Path) -> None:
    """Load a record's weights into its network, checked against the record's SHA-256.

    Raises:
        RecordError: the record names no weights, or the file is missing or not the one that the record names.
    """
    network.load_state_dict(_read_weights(record, folder))


def parent_weights(run: Run, places: Iterable[tuple[Path, Path]]) -> dict[str, Tensor]:
    """The final weights that ``run`` starts from: its parent's, of the same seed.

    Args:
        places: folders of records (``runs/<id>.json``), each with its folder of weights.

    Raises:
        RecordError: no such record has weights, or they are not those that it names.
    """
    for results, weights in places:
        for record in load_records(results / "runs"):
            if (record.run.configuration, record.run.seed) == (run.parent, run.seed) and record.weights:
                return _read_weights(record, weights)
    raise RecordError(
        f"run {run.id} starts from the trained weights of {run.parent} with seed {run.seed}, which has no record with "
        "weights here: train that run first"
    )


def load_start(network: nn.Module, start: Mapping[str, Tensor], run: Run) -> None:
    """Load its parent's final weights into the network of ``run``.

    Raises:
        RecordError: they are those of another network.
    """
    own = {name: tensor.shape for name, tensor in network.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in start.items()}
    if different := sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name)):
        raise RecordError(
            f"run {run.id}: its parent {run.parent} is another network than {run.network.name} with these options; "
            f"first difference: {different[0]}"
        )
    network.load_state_dict(dict(start))


def _read_weights(record: Record, folder: Path) -> dict[str, Tensor]:
    if record.weights is None:
        raise RecordError(f"record {record.id}: names no weight file")
    path = folder / record.weights.file
    if not path.is_file():
        raise RecordError(f"{path}: missing, though record {record.id} names it")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != record.weights.sha256:
        raise RecordError(f"{path}: SHA-256 is {found}, record {record.id} says {record.weights.sha256}")
    return load_file(path)


def versions() -> dict[str, str]:
    """What the numbers were made with."""
    packages = {name: version(name) for name in ("torch", "torchvision", "thriftylib")}
    return {"python": platform.python_version(), **packages}


def commit() -> str | None:
    """The checkout's commit, with ``+`` where the library differs from it; None outside a git checkout."""
    try:
        git = ["git", "-C", str(project_root())]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        # Only the code counts: records that this very call writes do not make it another one.
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "thriftylib"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")
