"""Sheets: all that we read of a paper, one YAML file each under ``data/claims``. No torch.

A file holds the paper's ``title``, its ``groups`` of claims, the numbers that only we ``counted`` (checks of our own
arithmetic, never shown as claims), what others measured (``replications``: beside the claims, never one and never
judged), what could not be read (``unread``) and the ``quantities`` that it declares itself (rows of
:class:`thriftylib.evidence.quantities.Quantity`, such as ``{name: neurons, unit: "", source: measured, better: lower,
close: {relative: 0.05}}``). A group gives the fields that its claims
share; each of its ``claims`` adds its own, and ``columns`` with ``rows`` does the same as a table, where a column named
``options.x`` is the setting's option x. ``{...}`` in a statement stands for a field or an option of the claim. A number
that is not in the file is not a claim.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field

from thriftylib.errors import RecordError, SpecError
from thriftylib.evidence import quantities
from thriftylib.evidence.claims import Claim, Setting, Spread, Text
from thriftylib.evidence.quantities import Quantity
from thriftylib.options import Strict, suggest

_MADE_HERE = {"paper", "declared", "side_spreads"}
"""Fields of a claim that no file gives."""


class Unread(Strict):
    """Something that the paper shows and that could not be read: named, so that its absence is not taken for a zero."""

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
    """All that one paper's file says."""

    paper: Text
    title: Text
    claims: dict[str, Claim]
    counted: dict[str, Claim]
    unread: tuple[Unread, ...]
    replications: tuple[Replication, ...] = ()


def load_claims(folder: str | os.PathLike[str]) -> dict[str, Claim]:
    """Every claim of every paper by its id, in the order of the files.

    Raises:
        RecordError: a file is corrupt; names it, the claim and the field.
    """
    return {key: claim for sheet in load_claims_files(folder).values() for key, claim in sheet.claims.items()}


def load_claims_files(folder: str | os.PathLike[str]) -> dict[str, ClaimsFile]:
    """Each paper's file ``folder/<paper>.yaml`` by the paper's name.

    Raises:
        RecordError: a file is corrupt, or there is none; names it, the claim and the field.
    """
    paths = sorted(Path(folder).glob("*.yaml"))
    if not paths:
        raise RecordError(f"{folder}: holds no claims (no *.yaml)")
    return {path.stem: load_claims_file(path) for path in paths}


def load_claims_file(path: str | os.PathLike[str]) -> ClaimsFile:
    """One paper's file.

    Raises:
        RecordError: names the file, the claim and the field.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text("utf-8"), _Loader)
        _known(content, {"title", "groups", "counted", "unread", "quantities", "replications"}, "the file")
        declared = quantities.declare(_items(content, "quantities", "the file"))
        claims, counted = (list(_expand(path.stem, content, part, declared)) for part in ("groups", "counted"))
        claims = _with_side_spreads(claims)
        unread = _items(content, "unread", "the file")
        for item in unread:
            _known(item, set(Unread.model_fields) - {"paper"}, "an entry of unread")
        seen: set[str] = set()
        for claim in (*claims, *counted):
            if claim.id in seen:
                raise RecordError(f"claim {claim.id}: is there twice")
            seen.add(claim.id)
        for claim in claims:
            if claim.mark == "COUNTED":
                raise RecordError(f"claim {claim.id}: mark = 'COUNTED': our own arithmetic belongs under counted")
        return ClaimsFile(
            paper=path.stem,
            title=content.get("title"),
            claims={claim.id: claim for claim in claims},
            counted={claim.id: claim for claim in counted},
            unread=tuple(Unread.model_validate({"paper": path.stem, **item}) for item in unread),
            replications=tuple(_replication(path.stem, item) for item in _items(content, "replications", "the file")),
        )
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: is not YAML ({' '.join(str(error).split())})") from None
    except (SpecError, RecordError) as error:
        raise RecordError(f"{path}: {error}") from None


class _Loader(yaml.SafeLoader):
    """YAML without a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for key in keys:
            if keys.count(key) > 1:
                raise RecordError(f"line {node.start_mark.line + 1}: the key {key!r} is there twice")
        return super().construct_mapping(node, deep)


def _known(content: Any, known: set[str], where: str) -> None:
    if not isinstance(content, dict):
        raise RecordError(f"{where} must be a mapping of {', '.join(sorted(known))}")
    for key in content:
        if key not in known and not (isinstance(key, str) and key.startswith("options.") and "id" in known):
            raise RecordError(f"unknown key {key!r} in {where}" + suggest(key, known))


def _items(content: dict[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(items := content.get(key, []), list):
        raise RecordError(f"{key} of {where} must be a list")
    return items


def _with_side_spreads(claims: Sequence[Claim]) -> list[Claim]:
    """Differences with the spreads of the claims about each side."""
    known = [(claim, claim.known_spread) for claim in claims if claim.known_spread]

    def spread(claim: Claim, side: Setting) -> Spread | None:
        about = (claim.definition.of, claim.statistic, side)
        return next((found for one, found in known if (one.quantity, one.statistic, one.setting) == about), None)

    def completed(claim: Claim) -> Claim:
        if not claim.is_difference or len(claim.sides) != 2:
            return claim
        return claim.model_copy(update={"side_spreads": tuple(spread(claim, side) for side in claim.sides)})

    return list(map(completed, claims))


def _expand(paper: str, content: dict[str, Any], part: str, declared: Mapping[str, Quantity]) -> Iterator[Claim]:
    own = set(Claim.model_fields) - _MADE_HERE
    for group in _items(content, part, "the file"):
        name = group.get("group") if isinstance(group, dict) else None
        where = f"group {name!r}"
        _known(group, own - {"id"} | {"group", "columns", "rows", "claims"}, where)
        shared = {key: value for key, value in group.items() if key in own}
        columns = _items(group, "columns", where)
        _known(dict.fromkeys(columns), own, f"columns of {where}")
        for row in _items(group, "rows", where):
            if not isinstance(row, list) or len(row) != len(columns):
                raise RecordError(f"a row of {where} must be a list of {len(columns)} values: {row!r}")
            yield _claim(paper, name, shared, dict(zip(columns, row, strict=True)), declared)
        for values in _items(group, "claims", where):
            _known(values, own, f"a claim of {where}")
            yield _claim(paper, name, shared, values, declared)


def _replication(paper: str, item: Any) -> Replication:
    """From an entry of replications, whose ``columns`` and ``rows`` are its results."""
    where = "an entry of replications"
    _known(item, set(Replication.model_fields) - {"paper", "results"} | {"columns", "rows"}, where)
    columns, rows = (_items(item, key, where) for key in ("columns", "rows"))
    _known(dict.fromkeys(columns), set(Result.model_fields), f"columns of {where}")
    if wrong := [row for row in rows if not isinstance(row, list) or len(row) != len(columns)]:
        raise RecordError(f"a row of {where} must be a list of {len(columns)} values: {wrong[0]!r}")
    fields = {key: value for key, value in item.items() if key not in ("columns", "rows")}
    results = [dict(zip(columns, row, strict=True)) for row in rows]
    return Replication.model_validate({"paper": paper, "results": results, **fields})


def _claim(
    paper: str, group: str, shared: dict[str, Any], own: dict[str, Any], declared: Mapping[str, Quantity]
) -> Claim:
    values = copy.deepcopy({**shared, **own, "id": f"{paper}/{group}/{own.get('id')}", "paper": paper})
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
