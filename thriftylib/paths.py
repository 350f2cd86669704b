"""Where the project's files are and how they are written. No torch."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from thriftylib.errors import ThriftyError


def project_root() -> Path:
    """The checkout: the nearest folder above the working directory, or above this package, that holds ``data/claims``.

    Raises:
        ThriftyError: neither is in a checkout.
    """
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / "data" / "claims").is_dir():
                return folder
    raise ThriftyError("no checkout here: run this inside a clone of the project (a folder that holds data/claims)")


def claims_dir() -> Path:
    """One YAML file of claims per paper."""
    return project_root() / "data" / "claims"


def results_dir() -> Path:
    """Committed results: ``runs/`` (a record per run), ``bench/``, ``counts.json``."""
    return project_root() / "data" / "results"


def weights_dir() -> Path:
    """Committed weights, each under 1 MB, named after its run."""
    return project_root() / "data" / "weights"


def local_dir() -> Path:
    """What this machine makes for itself, never committed: results, weights, checkpoints, executed notebooks."""
    return project_root() / "local"


def data_root(explicit: str | os.PathLike[str] | None = None) -> Path:
    """The folder of the data sets: ``explicit``, else ``THRIFTY_DATA``, else the per-user cache folder."""
    chosen = explicit or os.environ.get("THRIFTY_DATA")
    return Path(chosen).expanduser() if chosen else cache_dir()


def cache_dir() -> Path:
    """The user's cache folder of this package: data sets, compiled code."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "thriftylib"


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` always holds either the old or the new whole file, even if power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are for their owner alone
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
