"""Claims files: all that we read of a paper, one YAML file each under ``data/claims``. No torch.

A file holds the paper's ``title``, the ``references`` that it is found by (``doi:...``, ``arxiv:...``), its ``groups``
of claims, the numbers that only we ``counted`` (checks of our own arithmetic, never shown as claims), what others
measured (``replications``: beside the claims, never judged), what is ``unavailable`` to us and the ``quantities`` that
it declares itself (:class:`thriftylib.evidence.quantities.Quantity`,
such as ``{name: neurons, unit: "", source: measured, better: lower, close: {relative: 0.05}}``). A group gives the
fields that its claims share; each of its ``claims`` adds its own, and ``columns`` with ``rows`` does the same as a
table, where a column named ``options.x`` is the setting's option x. ``{...}`` in a statement stands for a field or an
option of the claim. A number that is not in the file is not a claim.
"""

from __future__ import annotations

import copy
import os
import string
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import ConfigDict, Field, model_validator

from thriftylib.errors import RecordError, SpecError
from thriftylib.evidence import quantities
from thriftylib.evidence.claims import Amount, Claim, Setting, Spread, Text
from thriftylib.evidence.quantities import Quantity
from thriftylib.evidence.yaml_loader import Loader
from thriftylib.options import Strict, suggest
from thriftylib.paths import read_text, reading

_OWN = set(Claim.model_fields) - {"paper", "declared", "side_spreads"}
"""The fields of a claim that a file gives."""
Item = TypeVar("Item")
# What a paper is found by.
Reference = Annotated[str, Field(pattern=r"^(doi:10\.\d{4,9}/\S+|arxiv:\d{4}\.\d{4,5})$")]


class Unavailable(Strict):
    """Something that the paper shows and that we could not read: named, so that its absence is not taken for a zero."""

    paper: Text
    figure: Text
    what: Text
    why: Text
    known: str = ""


class Table(Strict):
    """``rows`` of values in named ``columns``."""

    columns: list[str] = []
    rows: list[Any] = []

    def named(self, row: Any) -> dict[str, Any]:
        """The values of a row by their columns."""
        if not isinstance(row, list) or len(row) != len(self.columns):
            raise RecordError(f"a row must be a list of {len(self.columns)} values, one for each column: {row!r}")
        return dict(zip(self.columns, row, strict=True))


class Group(Table):
    """Claims that share all further fields."""

    model_config = ConfigDict(extra="allow")

    group: str
    claims: list[dict[str, Any]] = []


class Result(Strict):
    """One number of a replication."""

    network: Text
    start: str = ""  # how the weights were drawn, or where they came from
    value: float
    spread: Amount | None = None


class Replication(Strict):
    """What a third party measured with a paper's networks: shown as theirs, never a claim of the paper."""

    paper: Text
    by: Text
    what: Text
    recipe: Text
    remark: str = ""
    unit: str
    results: Annotated[tuple[Result, ...], Field(strict=False, min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _from_table(cls, data: dict[str, Any]) -> dict[str, Any]:
        if not (parts := {key: data[key] for key in ("columns", "rows") if key in data}):
            return data
        table = Table.model_validate(parts)
        rest = {key: value for key, value in data.items() if key not in parts}
        return {**rest, "results": [table.named(row) for row in table.rows]}


class File(Strict):
    """A claims file as it is written."""

    title: Text
    references: list[Reference] = []
    groups: list[dict[str, Any]] = []
    counted: list[dict[str, Any]] = []
    unavailable: list[dict[str, Any]] = []
    quantities: list[dict[str, Any]] = []
    replications: list[dict[str, Any]] = []


class ClaimsFile(Strict):
    """All that one paper's file says; ``lines``: the line, from 1, on which each claim begins."""

    paper: Text
    title: Text
    references: tuple[Reference, ...] = ()
    claims: dict[str, Claim]
    counted: dict[str, Claim]
    unavailable: tuple[Unavailable, ...]
    replications: tuple[Replication, ...] = ()
    lines: dict[str, int] = {}


class Loaded(dict[str, Item]):
    """What the good files of a folder hold; ``faults``: by the paper's name, one line for each file that is refused."""

    def __init__(self, items: Mapping[str, Item], faults: Mapping[str, str]) -> None:
        super().__init__(items)
        self.faults = dict(faults)

    def __missing__(self, key: str) -> Item:
        if fault := self.faults.get(key.split("/")[0]):
            raise RecordError(fault)
        raise KeyError(key)

    def sound(self) -> Self:
        """The same.

        Raises:
            RecordError: a file was refused; names every fault.
        """
        if self.faults:
            raise RecordError("; ".join(self.faults.values()))
        return self


def load_claims(folder: str | os.PathLike[str]) -> Loaded[Claim]:
    """Every claim of every paper by its id, in the order of the files; otherwise as :func:`load_claims_files`."""
    files = load_claims_files(folder)
    return Loaded({key: claim for file in files.values() for key, claim in file.claims.items()}, files.faults)


def load_claims_files(folder: str | os.PathLike[str]) -> Loaded[ClaimsFile]:
    """Each paper's file ``folder/<paper>.yaml`` by its name; a file that is refused is among the ``faults``.

    Raises:
        RecordError: the folder holds no claims file.
    """
    files, faults = {}, {}
    for path in sorted(Path(folder).glob("*.yaml")):
        try:
            files[path.stem] = load_claims_file(path)
        except RecordError as error:
            faults[path.stem] = str(error)
    if not files and not faults:
        raise RecordError(f"{folder}: holds no claims (no *.yaml)")
    return Loaded(files, faults)


def locate(path: str | os.PathLike[str]) -> dict[str, int]:
    """The line, from 1, on which each claim of a file begins, by the claim's id; raises as the file's reading does."""
    return load_claims_file(path).lines


def load_claims_file(path: str | os.PathLike[str]) -> ClaimsFile:
    """One paper's file.

    Raises:
        RecordError: one line that names the file, the line, the claim and the field.
    """
    path, root, place = Path(path), None, []
    with reading(path):
        try:
            text = read_text(path)
            loader = Loader(text)
            root = loader.get_single_node()
            return _read(path.stem, loader.construct_document(root) if root else {}, root, place)
        except yaml.MarkedYAMLError as error:
            raise RecordError(f"{path}:{error.problem_mark.line + 1}: is not YAML ({error.problem})") from None
        except yaml.YAMLError as error:
            raise RecordError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
        except (SpecError, RecordError) as error:
            raise RecordError(f"{path}:{_line(root, place)}: {error}") from None


def _line(node: yaml.Node | None, place: list[str | int]) -> int:
    """The line, from 1, of what is at a place, or of the nearest thing around it."""
    for step in place:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == step), node)
        elif isinstance(node, yaml.SequenceNode):
            node = node.value[step]
    return node.start_mark.line + 1 if node else 1


def _read(paper: str, content: Any, root: yaml.Node | None, place: list[str | int]) -> ClaimsFile:
    """The file's content; ``place`` is where the reading is."""
    file = File.model_validate(content)
    declared = quantities.declare(file.quantities)
    found: dict[str, dict[str, Claim]] = {"groups": {}, "counted": {}}
    lines: dict[str, int] = {}
    for part, claims in found.items():
        for index, entry in enumerate(getattr(file, part)):
            place[:] = part, index
            group = Group.model_validate(entry)
            _check_keys(group.model_extra, f"group {group.group!r}")
            for kind in ("rows", "claims"):
                for number, own in enumerate(getattr(group, kind)):
                    place[2:] = kind, number
                    claim = _claim(paper, group, group.named(own) if kind == "rows" else own, declared)
                    if claim.id in lines:
                        raise RecordError(f"claim {claim.id}: is there twice, first in line {lines[claim.id]}")
                    if claim.mark == "COUNTED" and part == "groups":
                        raise RecordError(f"claim {claim.id}: mark = 'COUNTED': our arithmetic belongs under counted")
                    claims[claim.id], lines[claim.id] = claim, _line(root, place)

    def entries(part: str, model: type[Strict]) -> Iterator[Strict]:
        for index, entry in enumerate(getattr(file, part)):
            place[:] = part, index
            yield model.model_validate({"paper": paper, **entry})

    return ClaimsFile(
        paper=paper,
        title=file.title,
        references=tuple(file.references),
        claims=_with_side_spreads(found["groups"]),
        counted=found["counted"],
        unavailable=tuple(entries("unavailable", Unavailable)),
        replications=tuple(entries("replications", Replication)),
        lines=lines,
    )


def _check_keys(given: Iterable[str], where: str) -> None:
    for key in given:
        if key not in _OWN and not key.startswith("options."):
            raise RecordError(f"unknown key {key!r} in {where}" + suggest(key, _OWN))


def _claim(paper: str, group: Group, own: dict[str, Any], declared: Mapping[str, Quantity]) -> Claim:
    name = f"{paper}/{group.group}/{own.get('id')}"
    _check_keys(own, f"claim {name}")
    values = copy.deepcopy({**group.model_extra, **own, "id": name, "paper": paper})
    inline = {key.removeprefix("options."): values.pop(key) for key in list(values) if key.startswith("options.")}
    try:
        if declared and values.get("quantity") not in quantities.QUANTITIES:
            values["declared"] = quantities.find(str(values.get("quantity")), declared)
        setting = values.get("setting") or {}
        if not isinstance(setting, dict) or not isinstance(setting.setdefault("options", {}), dict):
            raise RecordError("setting and its options must be mappings")
        setting["options"] |= inline
        if inline:
            values["setting"] = setting
        statement = str(values.get("statement", ""))
        if any(form or how for _, _, form, how in string.Formatter().parse(statement)):
            raise ValueError("a form after the name in braces")
        values["statement"] = statement.format_map({**values, **setting["options"]})
        return Claim.model_validate(values)
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise RecordError(f"claim {name}: statement: {error} is no field or option of it") from None
    except (RecordError, SpecError) as error:
        raise RecordError(f"claim {name}: {str(error).removeprefix(f'claim {name}: ')}") from None


def _with_side_spreads(claims: dict[str, Claim]) -> dict[str, Claim]:
    """The same, differences with the spreads of the claims about each side."""
    known = [(claim.quantity, claim.statistic, claim.setting, claim.known_spread) for claim in claims.values()]

    def spread(difference: Claim, side: Setting) -> Spread | None:
        about = (difference.definition.of, difference.statistic, side)
        return next((spread for *what, spread in known if spread and tuple(what) == about), None)

    return {
        key: claim.model_copy(update={"side_spreads": tuple(spread(claim, side) for side in claim.sides)})
        if claim.is_difference and len(claim.sides) == 2
        else claim
        for key, claim in claims.items()
    }
