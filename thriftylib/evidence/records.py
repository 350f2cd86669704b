"""Records: what came out of one run, one JSON file each. No torch.

A record that is not JSON, is not of this form, or states what its run does not imply
(:mod:`thriftylib.evidence.consistency`) is refused, with its file and its fault named; nothing is skipped in silence.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, model_validator

from thriftylib.cost import Cost
from thriftylib.errors import RecordError
from thriftylib.evidence.consistency import check, same_accuracy
from thriftylib.evidence.series import SERIES, Percent, Point, Series, Whole
from thriftylib.options import Strict
from thriftylib.paths import read_json, reading, write_atomically
from thriftylib.spec import Run

Amount = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}\+?$")]  # +: the code differed from that commit
Model = TypeVar("Model", bound=Strict)


class Counted(Strict):
    """What the trained network costs, as :mod:`thriftylib.cost` counts it, for one image."""

    parameters: Whole
    macs: Whole
    ptflops_macs: Whole
    weight_bytes: Whole
    activation_bytes: Whole

    @classmethod
    def of(cls, cost: Cost) -> Counted:
        """The totals of a closed form."""
        totals = {name: getattr(cost, name) for name in ("parameters", "macs", "ptflops_macs")}
        return Counted(**totals, weight_bytes=cost.weight_bytes(), activation_bytes=cost.activation_bytes())


class Kept(Counted):
    """The network that a run leaves, which a method may have narrowed: its cost, and one evaluation after training."""

    test_accuracy: Percent
    test_loss: float | None
    validation_accuracy: Percent | None = None
    # Of each tensor, by its name in state_dict, that differs from the run's own network; None: of other layers.
    shapes: dict[str, Annotated[tuple[Whole, ...], Field(strict=False)]] | None = {}


class Session(Strict):
    """One call that a run was trained by, from its start or a checkpoint to a stop or the end."""

    started: str
    commit: Commit | None
    no_commit: str = ""  # why there is none
    device: Text
    precision: Literal["fp32", "bf16"]
    threads: Annotated[int, Field(ge=1)]
    versions: dict[str, Text]
    fast: Text | None = None  # the fast path that ran, with its compiler; None: PyTorch's operators alone
    # How steps were executed (thriftylib.training.execution); left out of the text where it is "eager": it came later.
    execution: Text = Field("eager", exclude_if=lambda value: value == "eager")
    seconds: Amount  # training and evaluation that the result holds
    lost_seconds: Amount = 0.0  # what it did after its last checkpoint, until it was killed


class Weights(Strict):
    """The file of the trained weights, beside its checksum."""

    file: Annotated[str, Field(pattern=r"^[^/\\]+\.safetensors$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=1)]


class Record(Strict):
    """What came out of one run: the run, its series, and where, when and with what it was trained.

    ``complete`` means that every epoch of the recipe was done; ``diverged`` that the training loss was not finite and
    training ended there, or that no epoch had a finite test loss. Commit, device, threads and versions are the last
    session's. Records from before sessions and kept networks were recorded have none.

    Raises:
        RecordError: the record is inconsistent; names the field and both values.
    """

    format: Literal[1] = 1
    id: str
    run: Run
    status: Literal["complete", "diverged"]
    epochs: Whole
    series: Series
    best: Point | None
    final: Point | None
    cost: Counted  # of the run's own network
    images_per_second: Amount
    seconds: Amount  # all training and evaluation that the result holds, over all sessions
    device: Text
    precision: Literal["fp32", "bf16"]
    threads: Annotated[int, Field(ge=1)]
    versions: dict[str, Text]
    commit: Commit | None
    finished: str
    sittings: Annotated[int, Field(ge=1)]  # the number of sessions
    weights: Weights | None = None
    kept: Kept | None = None
    measured: dict[str, float | None | Annotated[list[float | None], Field(strict=False)]] = {}  # by the run's method
    sessions: Annotated[tuple[Session, ...], Field(strict=False)] = ()

    @property
    def counted(self) -> Counted:
        """What the kept network costs; of a record from before that was counted, the run's own."""
        return self.kept or self.cost

    @property
    def final_accuracy(self) -> float | None:
        """Test accuracy (percent) of the kept network; of a record without one, of the last epoch."""
        last = self.kept or self.final
        return last and last.test_accuracy

    @property
    def best_accuracy(self) -> float | None:
        """Test accuracy (percent) of the best epoch; of the kept network, where the epochs were another's."""
        return self.best.test_accuracy if self.best and self.keeps_last_epoch else self.final_accuracy

    @property
    def keeps_last_epoch(self) -> bool:
        """Whether the kept network answers as the last epoch's did, as far as its accuracy tells."""
        if self.kept is None or self.final is None:
            return True
        return abs(self.kept.test_accuracy - self.final.test_accuracy) <= same_accuracy(self.run)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check(self)
        return self


def load_record(path: str | os.PathLike[str]) -> Record:
    """The record in one file.

    Raises:
        RecordError: names the file and what is wrong with it.
    """
    path = Path(path)
    record = read_model(path, Record, context={"recorded": True})
    if record.id != path.stem:
        raise RecordError(f"{path}: holds the record {record.id!r}, so its name must be '{record.id}.json'")
    return record


def load_records(folder: str | os.PathLike[str]) -> list[Record]:
    """Every record of ``folder/runs/*.json`` (or of ``folder/*.json`` where there is no ``runs``), sorted by id.

    A folder that does not exist holds none.

    Raises:
        RecordError: one of the files is corrupt or foreign.
    """
    folder = Path(folder)
    paths = (folder / "runs").glob("*.json") if (folder / "runs").is_dir() else folder.glob("*.json")
    return [load_record(path) for path in sorted(paths) if path.name != "counts.json"]


def save_record(record: Record, folder: str | os.PathLike[str]) -> Path:
    """Write ``folder/runs/<id>.json`` atomically; the same record is always the same text."""
    content = record.model_dump(mode="json")
    names = [*SERIES, *sorted(content["series"].keys() - SERIES)]
    content["series"] = {name: content["series"][name] for name in names}
    content["versions"] = dict(sorted(content["versions"].items()))
    for name in ("kept", "measured", "sessions"):
        if not content[name]:  # as in records from before there was any
            del content[name]
    return write_json(content, record_path(folder, record.id))


def record_path(folder: str | os.PathLike[str], run_id: str) -> Path:
    """Where the record of a run is, below a folder of results."""
    return Path(folder) / "runs" / f"{run_id}.json"


def read_model(path: Path, model: type[Model], context: dict[str, Any] | None = None) -> Model:
    """A strict model from a JSON file without NaN, infinities or a key given twice.

    Raises:
        RecordError: names the file and what is wrong with it.
    """
    with reading(path):
        return model.model_validate(read_json(path), context=context)


def write_json(content: Any, path: Path) -> Path:
    """Write atomically, one line per value and per list of elements, so that diffs stay readable."""
    write_atomically(path, (_layout(content) + "\n").encode())
    return path


def _layout(value: Any, indent: str = "") -> str:
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        lines = (f"{deeper}{json.dumps(key)}: {_layout(item, deeper)}" for key, item in value.items())
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(deeper + _layout(item, deeper) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
