"""Where the project's files are, how they are read and how they are written. No torch."""

from __future__ import annotations

import errno
import glob
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thriftylib.errors import OutputError, RecordError, ThriftyError

_MOST = 2**27
"""Bytes of a text file that is read: no record of years of training has as many."""


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
    return user_path(chosen) if chosen else cache_dir()


def cache_dir() -> Path:
    """The user's cache folder of this package: data sets, compiled code."""
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "thriftylib"


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path as a user gives it: ``~`` is the home folder.

    Raises:
        ThriftyError: there is no such home folder.
    """
    if "\0" in str(text):
        raise ThriftyError(f"{text}: no path has a null character")
    try:
        return Path(text).expanduser()
    except (RuntimeError, KeyError):
        raise ThriftyError(f"{text}: there is no such home folder; give a whole path") from None


@contextmanager
def reading(path: Path, kind: type[ThriftyError] = RecordError) -> Iterator[None]:
    """Whatever goes wrong while ``path`` is read and understood is one line of ``kind`` that names it."""
    try:
        yield
    except ThriftyError as error:
        text = str(error)
        raise kind(text if str(path) in text else f"{path}: {text}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise kind(f"{path}: is not JSON, perhaps cut short ({error})") from None
    except OSError as error:
        raise kind(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, MemoryError) as error:
        raise kind(f"{path}: cannot be understood ({type(error).__name__}: {' '.join(str(error).split())})") from None


def read_text(path: Path) -> str:
    """A file's text, UTF-8.

    Raises:
        RecordError: it is no file, or longer than any of ours.
    """
    with reading(path), path.open("rb") as file:
        content = file.read(_MOST + 1)
        if len(content) > _MOST:
            raise RecordError(f"holds more than {_MOST:,} bytes")
        return content.decode("utf-8")


def read_json(path: Path, kind: type[ThriftyError] = RecordError) -> Any:
    """What a JSON file holds, without NaN, infinities or a key given twice.

    Raises:
        ThriftyError: of this ``kind``; names the file and what is wrong with it.
    """
    with reading(path, kind):
        return json.loads(read_text(path), parse_constant=_refuse_constant, object_pairs_hook=_object)


def _refuse_constant(name: str) -> None:
    raise RecordError(f"holds {name}; numbers must be finite")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise RecordError(f"holds the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def check_writable(path: Path, size: int = 0) -> None:
    """Make sure, before any work, that a file of so many bytes can be written; removes what killed writes of it left.

    Raises:
        OutputError: it cannot; names the place and why.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        for left in path.parent.glob(f".{glob.escape(path.name)}.????????"):
            left.unlink()
        handle, temporary = _temporary(path)
        try:
            with os.fdopen(handle, "wb") as file:
                for _ in range(size // 2**20 + 1):
                    file.write(bytes(min(size, 2**20)))
        finally:
            Path(temporary).unlink()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: cannot be written ({why}); give another folder") from None


def _temporary(path: Path) -> tuple[int, str]:
    return tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` so that ``path`` always holds either the old or the new whole file, even if power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, temporary = _temporary(path)
    except OSError as error:
        error.filename = str(path)  # the file that is meant
        raise
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
