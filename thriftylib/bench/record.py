"""Bench records: how fast variants of one thing ran, interleaved. No torch."""

from __future__ import annotations

import os
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from thriftylib.errors import RecordError
from thriftylib.evidence.consistency import check_utc
from thriftylib.evidence.records import Commit, Text, read_model, write_json
from thriftylib.options import Strict, suggest

PRODUCT = "product"
"""What the names of variants begin with that are a matrix product and no network."""


class Variant(Strict):
    """One way of doing it: a speed for each round, and the most memory it held."""

    what: Text
    precision: Literal["fp32", "bf16", "fp64"]
    after: str | None = None  # the variant that it adds one thing to
    images_per_second: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    peak_bytes: Annotated[int, Field(ge=1)] | None = None
    # Of a training step, an image's part, as counted in closed form; left out of the text where it is None.
    bytes_an_image: Annotated[float, Field(gt=0)] | None = Field(None, exclude_if=lambda value: value is None)


class BenchRecord(Strict):
    """Variants measured interleaved, round by round, so that a slow moment of the machine hits all of them.

    Raises:
        SpecError: a field is missing, unknown, of the wrong type or impossible.
        RecordError: the record is inconsistent.
    """

    format: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    what: Text
    baseline: str
    variants: dict[str, Variant]
    device: Text
    threads: Annotated[int, Field(ge=1)]
    versions: dict[str, Text]
    commit: Commit | None
    date: str
    # Of a copy on the device in each round, bytes read and written a second; and images of a step. Left out where None.
    copied_a_second: list[Annotated[float, Field(gt=0)]] | None = Field(None, exclude_if=lambda value: value is None)
    batch_size: Annotated[int, Field(ge=1)] | None = Field(None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.baseline not in self.variants:
            raise RecordError(f"baseline = {self.baseline!r}: no such variant" + suggest(self.baseline, self.variants))
        for name, variant in self.variants.items():
            if variant.after not in (None, *self.variants):
                raise RecordError(
                    f"{name}: after = {variant.after!r}: no such variant" + suggest(variant.after, self.variants)
                )
        rounds = {len(variant.images_per_second) for variant in self.variants.values()}
        if len(rounds) > 1:
            raise RecordError(f"variants: have {sorted(rounds)} rounds; each must have the same number")
        if self.copied_a_second and len(self.copied_a_second) not in rounds:
            raise RecordError(f"copied_a_second: has {len(self.copied_a_second)} rounds, the variants {sorted(rounds)}")
        check_utc("date", self.date)
        return self

    def ratio(self, variant: str, to: str | None = None) -> float:
        """How many times as fast as ``to``, else the baseline: the median over the rounds of a round's ratio."""
        rounds = zip(self._of(variant).images_per_second, self._of(to or self.baseline).images_per_second, strict=True)
        return statistics.median(ours / theirs for ours, theirs in rounds)

    def gain(self, variant: str) -> float | None:
        """What the variant's one addition gives: its ratio to the variant that it comes after; None: it has none."""
        after = self._of(variant).after
        return self.ratio(variant, after) if after else None

    def share(self, variant: str) -> float | None:
        """Of the speed of a matrix product of as many multiply-adds in the same precision; None: not measured."""
        precision = self._of(variant).precision
        products = [name for name, each in self.variants.items() if name.startswith(PRODUCT)]
        same = [name for name in products if self.variants[name].precision == precision]
        return self.ratio(variant, same[0]) if same and variant not in products else None

    def milliseconds(self, variant: str) -> float | None:
        """Of a step, the median over the rounds; None: the record does not say how many images it has."""
        speed = statistics.median(self._of(variant).images_per_second)
        return 1000 * self.batch_size / speed if self.batch_size else None

    def bandwidth(self, variant: str) -> float | None:
        """Bytes counted a second over those of a copy, the median over the rounds; None where one is unknown."""
        counted = self._of(variant).bytes_an_image
        if not (counted and self.copied_a_second):
            return None
        rounds = zip(self._of(variant).images_per_second, self.copied_a_second, strict=True)
        return statistics.median(speed * counted / copied for speed, copied in rounds)

    def memory_ratio(self, variant: str) -> float | None:
        """The variant's peak memory over the baseline's; None where one of them was not measured."""
        ours, theirs = self._of(variant).peak_bytes, self._of(self.baseline).peak_bytes
        return ours / theirs if ours and theirs else None

    def _of(self, variant: str) -> Variant:
        if variant not in self.variants:
            raise RecordError(f"bench {self.name}: no variant {variant!r}" + suggest(variant, self.variants))
        return self.variants[variant]


def record_of(
    name: str, what: str, variants: dict[str, Variant], threads: int, device: str = "cpu", **more: Any
) -> BenchRecord:
    """The record of variants measured here and now, on the CPU if nothing else is said; the first is the baseline."""
    import torch

    from thriftylib.training.device import device_name
    from thriftylib.training.provenance import provenance, versions

    return BenchRecord(
        name=name,
        what=what,
        baseline=next(iter(variants)),
        variants=variants,
        device=device_name(torch.device(device)),
        threads=threads,
        versions=versions(),
        commit=provenance().commit,
        date=datetime.now(UTC).date().isoformat(),
        **more,
    )


def load_bench(folder: str | os.PathLike[str]) -> dict[str, BenchRecord]:
    """Every ``folder/bench/<name>.json`` by its name.

    Raises:
        RecordError: a file is corrupt or foreign.
    """
    found = {}
    for path in sorted((Path(folder) / "bench").glob("*.json")):
        record = read_model(path, BenchRecord)
        if record.name != path.stem:
            raise RecordError(f"{path}: holds the bench {record.name!r}, so its name must be '{record.name}.json'")
        found[record.name] = record
    return found


def save_bench(record: BenchRecord, folder: str | os.PathLike[str]) -> Path:
    """Write ``folder/bench/<name>.json`` atomically."""
    return write_json(record.model_dump(mode="json"), Path(folder) / "bench" / f"{record.name}.json")
