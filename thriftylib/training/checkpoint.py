"""What a killed training needs to go on as if it had never stopped: one safetensors file per run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from thriftylib.errors import CheckpointError
from thriftylib.paths import write_atomically

FORMAT = "thrifty checkpoint 3"


def checkpoint_path(folder: Path, run_id: str) -> Path:
    """Where the checkpoint of a run is."""
    return folder / f"{run_id}.safetensors"


def save_checkpoint(path: Path, run_id: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values of a run in one file; JSON keeps Python's floats exactly."""
    metadata = {"format": FORMAT, "run": run_id, "values": json.dumps(values)}
    # safetensors keeps no strides: the engine's networks get their memory format back when they are restored.
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    write_atomically(path, content)


def load_checkpoint(path: Path, run_id: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint back.

    Raises:
        CheckpointError: the file cannot be read, is no checkpoint of this version, or belongs to another run.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path}: is not a checkpoint of this version ({FORMAT!r}); go on with the version that wrote it, "
                    "or delete it to start this run anew"
                )
            if metadata["run"] != run_id:
                raise CheckpointError(f"{path}: belongs to run {metadata['run']}, not to {run_id}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return tensors, dict(json.loads(metadata["values"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete it to start this run anew") from None
