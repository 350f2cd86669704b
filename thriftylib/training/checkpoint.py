"""What a killed training needs to go on as if it had never stopped: one safetensors file per run. No torch here.

Its SHA-256, over every byte but the sum itself, is among its metadata. So what is cut or changed is never trained on.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thriftylib.errors import CheckpointError
from thriftylib.paths import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "thrifty checkpoint 4"
_SUM = re.compile(rb'"sha256":"([0-9a-f]{64})"')  # within a JSON text its quotation marks would have backslashes
_NO_SUM = "0" * 64
_HEADER = 2**27  # bytes, at most: series of years
ANEW = "delete it to start this run anew, or give --anew, which sets it aside"


def checkpoint_path(folder: Path, run_id: str) -> Path:
    """Where the checkpoint of a run is."""
    return folder / f"{run_id}.safetensors"


def save_checkpoint(path: Path, run_id: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors and JSON values of a run in one file; JSON keeps Python's floats exactly."""
    from safetensors.torch import save

    metadata = {"format": FORMAT, "run": run_id, "values": json.dumps(values), "sha256": _NO_SUM}
    # safetensors keeps no strides: the engine's networks get their memory format back when they are restored.
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    start, end = _SUM.search(content).span(1)
    write_atomically(path, content[:start] + hashlib.sha256(content).hexdigest().encode() + content[end:])


def load_checkpoint(path: Path, run_id: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint back.

    Raises:
        CheckpointError: the file cannot be read, was changed, is no checkpoint of this version, or is another run's.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        metadata, length = _metadata(content)
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"{path}: is not a checkpoint of this version ({FORMAT!r}); "
                f"go on with the version that wrote it, {ANEW}"
            )
        found = _SUM.search(content, 8, 8 + length)
        start, end = found.span(1) if found else (0, 0)
        summed = hashlib.sha256(memoryview(content)[:start])
        summed.update(_NO_SUM.encode())
        summed.update(memoryview(content)[end:])
        if not found or summed.hexdigest() != metadata["sha256"]:
            raise ValueError(f"changed or cut: its SHA-256 is {summed.hexdigest()}, not {metadata.get('sha256')}")
        if metadata["run"] != run_id:
            raise CheckpointError(f"{path}: belongs to run {metadata['run']}, not to {run_id}; {ANEW}")
        return load(content), dict(json.loads(metadata["values"]))
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise CheckpointError(f"{path}: cannot be read ({why}); {ANEW}") from None


def saved_values(path: Path) -> dict[str, Any] | None:
    """The JSON values of a checkpoint, whose sum is not looked at; None: there is none that this version reads."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
            metadata, _ = _metadata(start + file.read(min(int.from_bytes(start, "little"), _HEADER)))
        return dict(json.loads(metadata["values"])) if metadata["format"] == FORMAT else None
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def set_aside(path: Path) -> Path:
    """Rename a checkpoint that is not gone on from, so that nothing is lost."""
    aside = path.with_name(f"{path.name}.refused-{time.time_ns()}")
    return path.rename(aside)


def _metadata(content: bytes) -> tuple[dict[str, str], int]:
    """The texts beside the tensors, and the header's length."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"], length
