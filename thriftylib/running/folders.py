"""Where a training writes, and what is there already. No torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

from thriftylib.errors import RecordError, SpecError
from thriftylib.evidence.records import Record, load_records
from thriftylib.paths import local_dir, reading, results_dir, user_path
from thriftylib.spec import Run


@dataclass(frozen=True)
class OutputFolders:
    """Where a training writes: records (``results/runs``), final weights and checkpoints."""

    results: Path
    weights: Path
    checkpoints: Path

    @classmethod
    def below(cls, out: str | Path | None) -> OutputFolders:
        """Everything below ``out``, or in the checkout's ``local`` folder where none is given."""
        folder = user_path(out) if out else local_dir()
        return cls(folder if out else folder / "results", folder / "weights", folder / "checkpoints")

    def checkpoint(self, run: Run) -> Path:
        """The file from which a run goes on, where it was begun."""
        return self.checkpoints / f"{run.id}.safetensors"


def known_records(*folders: Path) -> dict[str, Record]:
    """The committed records and those below ``folders`` (``runs/<id>.json``), by run id.

    Raises:
        RecordError: a file is corrupt or foreign.
    """
    return {record.id: record for folder in (results_dir(), *folders) for record in load_records(folder / "runs")}


def given_folder(results: str | Path) -> Path:
    """A folder of records that is to be read.

    Raises:
        RecordError: there is none.
    """
    folder = user_path(results)
    with reading(folder):
        is_there = folder.is_dir()
    if not is_there:
        raise RecordError(f"results = {str(results)!r}: is no folder; without it the committed records are read")
    return folder


def parse_budget(text: str | float | None) -> float | None:
    """``"9m"``, ``"90s"``, ``"1h30m"`` or a number of seconds -> seconds; nothing -> None.

    Raises:
        SpecError: not of that form, or not above 0.
    """
    if text is None or text == "":
        return None
    seconds = text
    if isinstance(text, str):
        parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip())
        numbers = parts.groups("0") if parts else ()
        seconds = sum(float(number) * unit for number, unit in zip(numbers, (3600, 60, 1), strict=False))
    if not 0 < seconds < math.inf:
        raise SpecError(f"budget = {text!r}: must be a time above 0 such as '90s', '9m' or '1h30m'")
    return seconds
