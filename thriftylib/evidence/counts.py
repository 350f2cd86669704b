"""Counts: what a network costs in closed form, kept so that claims about counts are judged without torch.

``thrifty cost --record`` writes ``counts.json``, a row for each network whose parameters, filters or MACs are claimed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from thriftylib.datasets.facts import dataset_info
from thriftylib.errors import RecordError
from thriftylib.evidence.claims import Claim, Setting, Text
from thriftylib.evidence.records import read_model, write_json
from thriftylib.evidence.series import Whole
from thriftylib.options import NetworkOptions, Strict, find

FILE = "counts.json"


class NetworkCount(Strict):
    """One network's cost for one image of a data set, as :mod:`thriftylib.cost` counts it."""

    network: Text
    dataset: Text
    asked: dict[str, JsonValue]  # what the claim says of the network: a parameter budget, say
    options: dict[str, JsonValue]  # everything that it came to
    parameters: Whole
    kernel_parameters: Whole
    macs: Whole
    ptflops_macs: Whole
    weight_bytes: Whole


class _File(Strict):
    format: Literal[1] = 1
    counts: list[NetworkCount]


def count_claims(claims: Iterable[Claim]) -> list[NetworkCount]:
    """A count for each network that a claim about a count names, each once; imports its paper, and so torch.

    Raises:
        SpecError: no such network or data set, or options that cannot be.
    """
    counts: list[NetworkCount] = []
    for claim in claims:
        for side in claim.sides if claim.is_counted and claim.not_testable is None else ():
            if (row := _count(side)) not in counts:
                counts.append(row)
    return counts


def _count(side: Setting) -> NetworkCount:
    info = dataset_info(side.dataset, to_count=True)
    shape, classes = info.image_shape, len(info.classes)
    options = find(NetworkOptions, side.network).model_validate(side.options).resolve(shape, classes)
    cost = options.cost(shape, classes)
    return NetworkCount(
        network=side.network,
        dataset=side.dataset,
        asked=side.options,
        options=options.model_dump(mode="json"),
        weight_bytes=cost.weight_bytes(),
        **{name: getattr(cost, name) for name in ("parameters", "kernel_parameters", "macs", "ptflops_macs")},
    )


def answer(claim: Claim, counts: Iterable[NetworkCount]) -> float | None:
    """Our number for a claim about a count, in the claim's unit; None where nothing was counted.

    Raises:
        RecordError: networks of different counts fit the claim's setting.
    """
    row, counts = claim.definition, list(counts)
    found = [_find(claim, side, row.of or row.name, counts) for side in claim.sides]
    if None in found:
        return None
    if row.compares == "share":
        return 100 * (1 - found[0] / found[1])
    if row.compares == "bytes":
        return (found[1] - found[0]) / 2**20
    return found[0] / 1e6 if row.unit == "MMAC" else found[0]


def _find(claim: Claim, side: Setting, quantity: str, counts: Sequence[NetworkCount]) -> float | None:
    found = {
        row.options.get("filters") if quantity == "filters" else getattr(row, quantity)
        for row in counts
        if (row.network, row.dataset) == (side.network, side.dataset) and side.has_options({**row.options, **row.asked})
    }
    if len(found) > 1:
        raise RecordError(f"claim {claim.id}: its setting fits networks of different {quantity}: {sorted(found)}")
    return next((float(number) for number in found), None)


def load_counts(folder: str | os.PathLike[str]) -> list[NetworkCount]:
    """The rows of ``folder/counts.json``; none where there is no such file.

    Raises:
        RecordError: the file is corrupt or foreign.
    """
    path = Path(folder) / FILE
    return read_model(path, _File).counts if path.exists() else []


def save_counts(counts: Iterable[NetworkCount], folder: str | os.PathLike[str]) -> Path:
    """Write ``folder/counts.json`` atomically; the same counts are always the same text."""
    return write_json(_File(counts=list(counts)).model_dump(mode="json"), Path(folder) / FILE)
