"""Counts: what a network costs in closed form, kept so that claims about counts are judged without torch.

``counts.json`` has a row for each claim about a parameter, filter or MAC count;
``python -m thriftylib.evidence.counts`` makes it anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from thriftylib.datasets.facts import dataset_info
from thriftylib.errors import RecordError
from thriftylib.evidence.claims import Claim, Setting
from thriftylib.evidence.claims_files import load_claims
from thriftylib.evidence.records import Text, read_model, write_json
from thriftylib.evidence.series import Whole
from thriftylib.options import NetworkOptions, Strict, find
from thriftylib.paths import claims_dir, results_dir

FILE = "counts.json"


class NetworkCount(Strict):
    """One network's cost for one image of a data set, as :mod:`thriftylib.cost` counts it.

    ``asked`` is what the claim says of the network (a parameter budget, say), ``options`` everything it came to.
    """

    network: Text
    dataset: Text
    asked: dict[str, JsonValue]
    options: dict[str, JsonValue]
    parameters: Whole
    kernel_parameters: Whole
    macs: Whole
    ptflops_macs: Whole
    weight_bytes: Whole


class _File(Strict):
    format: Literal[1] = 1
    counts: list[NetworkCount]


def count(network: str, options: dict[str, JsonValue], dataset: str) -> NetworkCount:
    """NetworkCount one network in closed form; imports its paper, and so torch.

    Raises:
        SpecError: no such network or data set, or options that cannot be.
    """
    info = dataset_info(dataset)
    shape, classes = info.image_shape, len(info.classes)
    resolved = find(NetworkOptions, network).model_validate(options).resolve(shape, classes)
    cost = resolved.cost(shape, classes)
    return NetworkCount(
        network=network,
        dataset=dataset,
        asked=options,
        options=resolved.model_dump(mode="json"),
        parameters=cost.parameters,
        kernel_parameters=cost.kernel_parameters,
        macs=cost.macs,
        ptflops_macs=cost.ptflops_macs,
        weight_bytes=cost.weight_bytes(),
    )


def count_claims(claims: Iterable[Claim]) -> list[NetworkCount]:
    """A count for each network that a claim about a count names, each once; imports torch."""
    counts: list[NetworkCount] = []
    for claim in claims:
        for side in claim.sides if claim.is_counted and claim.not_testable is None else ():
            row = count(side.network, side.options, side.dataset)
            if row not in counts:
                counts.append(row)
    return counts


def answer(claim: Claim, counts: Iterable[NetworkCount]) -> float | None:
    """Our number for a claim about a count, in the claim's unit; None where nothing was counted.

    Raises:
        RecordError: networks of different counts fit the claim's setting.
    """
    counts = list(counts)
    row = claim.definition
    if row.compares == "share":
        left, whole = (_number(claim, side, row.of, counts) for side in claim.sides)
        return None if left is None or whole is None else 100 * (1 - left / whole)
    number = _number(claim, claim.setting, row.name, counts)
    return number / 1e6 if number is not None and row.unit == "MMAC" else number


def _number(claim: Claim, side: Setting, quantity: str, counts: Iterable[NetworkCount]) -> float | None:
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


if __name__ == "__main__":
    save_counts(count_claims(load_claims(claims_dir()).values()), results_dir())
