"""Claims files: all that we read of a paper, one YAML file each under ``data/claims``. No torch.

A file holds the paper's ``title``, its ``groups`` of claims, the numbers that only we ``counted`` (checks of our own
arithmetic, never shown as claims), what others measured (``replications``: beside the claims, never one and never
judged), what is ``unavailable`` to us and the ``quantities`` that it declares itself (rows of
:class:`thriftylib.evidence.quantities.Quantity`, such as ``{name: neurons, unit: "", source: measured, better: lower,
close: {relative: 0.05}}``). A group gives the fields that its claims
share; each of its ``claims`` adds its own, and ``columns`` with ``rows`` does the same as a table, where a column named
``options.x`` is the setting's option x. ``{...}`` in a statement stands for a field or an option of the claim. A number
that is not in the file is not a claim.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field

from thriftylib.errors import RecordError, SpecError
from thriftylib.evidence import quantities
from thriftylib.evidence.claims import Claim, Setting, Spread, Text
from thriftylib.evidence.quantities import Quantity
from thriftylib.options import Strict, suggest

Item = TypeVar("Item")

_OWN = set(Claim.model_fields) - {"paper", "declared", "side_spreads"}
"""The fields of a claim that a file gives."""


class Unavailable(Strict):
    """Something that the paper shows and that we could not read: named, so that its absence is not taken for a zero."""

    paper: Text
    figure: Text
    what: Text
    why: Text
    known: str = ""


class Result(Strict):
    """One number of a replication; ``start`` says how the weights were drawn or where they came from."""

    network: Text
    start: str = ""
    value: float
    spread: Annotated[float, Field(ge=0)] | None = None


class Replication(Strict):
    """What a third party measured with a paper's networks: shown as theirs, never a claim of the paper."""

    paper: Text
    by: Text
    what: Text
    recipe: Text
    remark: str = ""
    unit: str
    results: Annotated[tuple[Result, ...], Field(strict=False, min_length=1)]


class ClaimsFile(Strict):
    """All that one paper's file says; ``lines``: the line, from 1, on which each claim begins."""

    paper: Text
    title: Text
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


def load_claims(folder: str | os.PathLike[str]) -> Loaded[Claim]:
    """Every claim of every paper by its id, in the order of the files.

    Raises:
        RecordError: the folder holds no claims file.
    """
    files = load_claims_files(folder)
    return Loaded({key: claim for file in files.values() for key, claim in file.claims.items()}, files.faults)


def load_claims_files(folder: str | os.PathLike[str]) -> Loaded[ClaimsFile]:
    """Each paper's file ``folder/<paper>.yaml`` by the paper's name; a file that is refused is among the ``faults``.

    Raises:
        RecordError: the folder holds no claims file.
    """
    files: dict[str, ClaimsFile] = {}
    faults: dict[str, str] = {}
    for path in sorted(Path(folder).glob("*.yaml")):
        try:
            files[path.stem] = load_claims_file(path)
        except RecordError as error:
            faults[path.stem] = str(error)
    if not files and not faults:
        raise RecordError(f"{folder}: holds no claims (no *.yaml)")
    return Loaded(files, faults)


def locate(path: str | os.PathLike[str]) -> dict[str, int]:
    """The line, from 1, on which each claim of a file begins, by the claim's id.

    Raises:
        RecordError: as :func:`load_claims_file`.
    """
    return load_claims_file(path).lines


def load_claims_file(path: str | os.PathLike[str]) -> ClaimsFile:
    """One paper's file.

    Raises:
        RecordError: one line that names the file, the line, the claim and the field.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text("utf-8"), _Loader)
        with _at(content):
            return _read(path.stem, content)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    except _Fault as fault:
        raise RecordError(f"{path}:{fault.line}: {fault}") from None


class _Fault(Exception):
    """What is wrong in a line of the file."""

    def __init__(self, line: int, text: object) -> None:
        super().__init__(text)
        self.line = line


@contextmanager
def _at(value: Any) -> Iterator[None]:
    """Say of a fault that it is in this mapping or list; the innermost one is named."""
    try:
        yield
    except (RecordError, SpecError) as error:
        raise _Fault(getattr(value, "line", 1), error) from None


class _Mapping(dict[str, Any]):
    line = 1


class _List(list[Any]):
    line = 1


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """YAML without a key given twice, whose mappings and lists know their line."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise _Fault(node.start_mark.line + 1, f"the key {key!r} is there twice")
        return super().construct_mapping(node, deep)

    def construct_lined(self, node: yaml.CollectionNode) -> Iterator[_Mapping | _List]:
        value = _Mapping() if isinstance(node, yaml.MappingNode) else _List()
        value.line = node.start_mark.line + 1
        yield value
        if isinstance(value, _Mapping):
            value.update(self.construct_mapping(node))
        else:
            value.extend(self.construct_sequence(node))


for _tag in ("map", "seq"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_lined)


def _read(paper: str, content: Any) -> ClaimsFile:
    _check_keys(content, {"title", "groups", "counted", "unavailable", "quantities", "replications"}, "the file")
    declared = quantities.declare(_items(content, "quantities", "the file"))
    found: dict[str, dict[str, Claim]] = {"groups": {}, "counted": {}}
    lines: dict[str, int] = {}
    for part, claims in found.items():
        for group in _items(content, part, "the file"):
            for own in _entries(group):
                with _at(own):
                    claim = _claim(paper, group, own, declared)
                    if claim.id in lines:
                        raise RecordError(f"claim {claim.id}: is there twice")
                    if claim.mark == "COUNTED" and part == "groups":
                        raise RecordError(
                            f"claim {claim.id}: mark = 'COUNTED': our own arithmetic belongs under counted"
                        )
                claims[claim.id], lines[claim.id] = claim, own.line
    return ClaimsFile(
        paper=paper,
        title=content.get("title"),
        claims=_with_side_spreads(found["groups"]),
        counted=found["counted"],
        unavailable=tuple(_unavailable(paper, item) for item in _items(content, "unavailable", "the file")),
        replications=tuple(_replication(paper, item) for item in _items(content, "replications", "the file")),
        lines=lines,
    )


def _check_keys(content: Any, known: set[str], where: str) -> None:
    if not isinstance(content, dict):
        raise RecordError(f"{where} must be a mapping of {', '.join(sorted(known))}")
    for key in content:
        if key not in known and not (isinstance(key, str) and key.startswith("options.") and "id" in known):
            raise RecordError(f"unknown key {key!r} in {where}" + suggest(key, known))


def _items(content: dict[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(items := content.get(key, []), list):
        raise RecordError(f"{key} of {where} must be a list")
    return items


def _rows(table: dict[str, Any], known: set[str], where: str) -> Iterator[_Mapping]:
    """The ``rows`` of a table, each a mapping from its ``columns``."""
    columns = _items(table, "columns", where)
    _check_keys(dict.fromkeys(columns), known, f"columns of {where}")
    for row in _items(table, "rows", where):
        with _at(row if isinstance(row, list) else table):
            if not isinstance(row, list) or len(row) != len(columns):
                raise RecordError(f"a row of {where} must be a list of {len(columns)} values: {row!r}")
        named = _Mapping(zip(columns, row, strict=True))
        named.line = row.line
        yield named


def _entries(group: Any) -> Iterator[_Mapping]:
    """What each claim of a group says itself."""
    where = f"group {group.get('group')!r}" if isinstance(group, dict) else "group None"
    with _at(group):
        _check_keys(group, _OWN - {"id"} | {"group", "columns", "rows", "claims"}, where)
        yield from _rows(group, _OWN, where)
        for own in _items(group, "claims", where):
            with _at(own if isinstance(own, dict) else group):
                _check_keys(own, _OWN, f"a claim of {where}")
            yield own


def _claim(paper: str, group: _Mapping, own: _Mapping, declared: Mapping[str, Quantity]) -> Claim:
    shared = {key: value for key, value in group.items() if key in _OWN}
    values = copy.deepcopy({**shared, **own, "id": f"{paper}/{group.get('group')}/{own.get('id')}", "paper": paper})
    if declared and (name := str(values.get("quantity"))) not in quantities.QUANTITIES:
        try:
            values["declared"] = quantities.find(name, declared)
        except RecordError as error:
            raise RecordError(f"claim {values['id']}: {error}") from None
    inline = {key.removeprefix("options."): values.pop(key) for key in list(values) if key.startswith("options.")}
    setting = values.get("setting") or {}
    if not isinstance(setting, dict) or not isinstance(setting.setdefault("options", {}), dict):
        raise RecordError(f"claim {values['id']}: setting and its options must be mappings")
    setting["options"] |= inline
    if inline:
        values["setting"] = setting
    try:
        values["statement"] = str(values.get("statement", "")).format_map({**values, **setting["options"]})
        return Claim.model_validate(values)
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise RecordError(f"claim {values['id']}: statement: {error} is no field or option of it") from None
    except SpecError as error:
        raise RecordError(f"claim {values['id']}: {error}") from None


def _with_side_spreads(claims: dict[str, Claim]) -> dict[str, Claim]:
    """The same, differences with the spreads of the claims about each side."""
    known = [(claim, claim.known_spread) for claim in claims.values() if claim.known_spread]

    def spread(claim: Claim, side: Setting) -> Spread | None:
        about = (claim.definition.of, claim.statistic, side)
        return next((found for one, found in known if (one.quantity, one.statistic, one.setting) == about), None)

    def completed(claim: Claim) -> Claim:
        if not claim.is_difference or len(claim.sides) != 2:
            return claim
        return claim.model_copy(update={"side_spreads": tuple(spread(claim, side) for side in claim.sides)})

    return {key: completed(claim) for key, claim in claims.items()}


def _unavailable(paper: str, item: Any) -> Unavailable:
    with _at(item):
        _check_keys(item, set(Unavailable.model_fields) - {"paper"}, "an entry of unavailable")
        return Unavailable.model_validate({"paper": paper, **item})


def _replication(paper: str, item: Any) -> Replication:
    """From an entry of replications, whose ``columns`` and ``rows`` are its results."""
    where = "an entry of replications"
    with _at(item):
        _check_keys(item, set(Replication.model_fields) - {"paper", "results"} | {"columns", "rows"}, where)
        results = list(map(dict, _rows(item, set(Result.model_fields), where)))
        fields = {key: value for key, value in item.items() if key not in ("columns", "rows")}
        return Replication.model_validate({"paper": paper, "results": results, **fields})
