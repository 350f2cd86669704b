"""Quantities: what a claim may be about, one row each. No torch.

A row says in which unit a quantity is stated, where our number comes from, which way is better, how far off still
counts as close, and what guessing reaches. A claims file may declare rows of its own under ``quantities``. The
difference of two networks in any of them needs no row: it is called ``<quantity>_difference``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from thriftylib.errors import RecordError, SpecError
from thriftylib.options import Strict, suggest

Finite = Annotated[float, Field(allow_inf_nan=False)]
Source = Literal["series", "measured", "cost", "count", "none"]
"""Where our number comes from: the record's series, what the run's method measured, the cost of the network that the
run left, a closed-form count of the options alone; or nowhere, and then a claim is quoted and cannot be tested."""
TEST_ACCURACY = "test_accuracy"
TRAIN_ACCURACY = "train_accuracy"
DIFFERENCE = "_difference"
"""How the name of a difference of two networks ends, after the name of what is compared."""
_BEST = ("mean over runs of the best epoch", "best epoch of one run", "best epoch of the best run")
_ANY = ("mean over runs", "one run")
STATISTICS: Mapping[str, tuple[str, ...]] = {
    "series": (*_BEST, "last epoch of one run", "mean over runs of the last epoch"),
    "measured": _ANY,
    "cost": _ANY,
    "count": ("count",),
    "none": (*_BEST, "last epoch of one run", *_ANY, "duration"),
}
"""What of the runs may be stated, by the source."""


class Close(Strict):
    """How far off still counts as close; where both are given the smaller one holds."""

    absolute: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # in the unit
    relative: Annotated[float, Field(gt=0, lt=1)] | None = None  # of the distance to perfection

    @model_validator(mode="after")
    def _given(self) -> Self:
        if self.absolute is None and self.relative is None:
            raise SpecError("close: must give absolute, relative or both")
        return self


class Quantity(Strict):
    """One row of the table."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]  # of the series or measurement too, where one is read
    unit: str  # of claims and verdicts; "" for plain numbers
    source: Source
    better: Literal["higher", "lower"] | None = None
    close: Close | None = None  # None: exactly equal
    perfect: Finite = 0.0  # the value that nothing can better
    chance: Finite | Literal["classes"] | None = None  # what a diverged run counts with at least; 100 / classes percent
    limits: Annotated[tuple[float, float], Field(strict=False)] | None = None  # of what a claim may state
    reads: str | None = None  # what is read of the record or count, where that has another name
    of: str | None = None  # the quantity of two networks that is compared
    # How: share: the percentage that the first does without; bytes: those that it does without, in units of 2^20.
    compares: Literal["difference", "share", "bytes"] | None = None

    @property
    def key(self) -> str:
        """The name of what is read: a series, a measurement, or a field of a count."""
        return self.reads or self.name

    @property
    def needs_runs(self) -> bool:
        """Whether a training or a measurement decides."""
        return self.source in ("series", "measured", "cost")

    @property
    def is_difference(self) -> bool:
        """Whether it is the difference of two networks."""
        return self.compares == "difference"

    def closeness(self, value: float) -> float:
        """How far from a claimed ``value`` still counts as close, in the unit."""
        if self.close is None:
            return 0.0
        relative = self.close.relative and self.close.relative * abs(self.perfect - value)
        return min(room for room in (self.close.absolute, relative) if room is not None)

    def best(self, values: Iterable[float]) -> float | None:
        """The best of some values; None of none."""
        return (min if self.better == "lower" else max)(values, default=None)

    def guessing(self, classes: int) -> float | None:
        """What guessing among so many classes reaches; None where guessing reaches nothing."""
        return 100 / classes if self.chance == "classes" else self.chance


_ACCURACY = {
    "unit": "%",
    "better": "higher",
    "close": Close(absolute=1.0, relative=0.2),
    "perfect": 100.0,
    "chance": "classes",
    "limits": (0.0, 100.0),
}
_COUNT = {"source": "count", "better": "lower"}
_KEPT = {"source": "cost", "better": "lower", "close": Close(relative=0.05)}

QUANTITIES: Mapping[str, Quantity] = {
    row.name: row
    for row in (
        Quantity(name=TEST_ACCURACY, source="series", **_ACCURACY),
        Quantity(name=TRAIN_ACCURACY, source="series", **_ACCURACY),
        Quantity(name="mean_average_precision", unit="%", source="none", better="higher"),
        Quantity(name="mean_iou", unit="%", source="none", better="higher"),
        Quantity(name="parameters", unit="", **_COUNT),
        Quantity(name="kernel_parameters", unit="", **_COUNT),
        Quantity(name="prune_ratio", unit="%", source="count", of="kernel_parameters", compares="share"),
        Quantity(name="parameters_saved", unit="%", source="count", of="parameters", compares="share"),
        Quantity(name="ptflops_macs_saved", unit="%", source="count", of="ptflops_macs", compares="share"),
        Quantity(name="filters", unit="", source="count"),
        Quantity(name="ptflops_macs", unit="MMAC", **_COUNT),
        Quantity(name="macs", unit="MMAC", **_COUNT),
        Quantity(name="kept_parameters", unit="", reads="parameters", **_KEPT),
        Quantity(name="kept_macs", unit="MMAC", reads="macs", **_KEPT),
        Quantity(name="minutes_per_epoch", unit="min", source="none", better="lower"),
        Quantity(name="memory_saved", unit="MiB", source="count", of="weight_bytes", compares="bytes"),
    )
}
"""Every quantity that needs no declaration, by name."""


def find(name: str, declared: Mapping[str, Quantity] | None = None) -> Quantity:
    """The row of a quantity, ``declared`` ones of a claims file included; a difference's is made from what it compares.

    Raises:
        RecordError: no such quantity; names the known ones.
    """
    if name in QUANTITIES:
        return QUANTITIES[name]
    known = {**QUANTITIES, **(declared or {})}
    if name in known:
        return known[name]
    base = known.get(name.removesuffix(DIFFERENCE)) if is_difference(name) else None
    if base is None or base.compares:
        raise RecordError(f"unknown quantity {name!r}" + suggest(name, known))
    changes = {"name": name, "reads": base.key, "of": base.name, "compares": "difference", "limits": None}
    return base.model_copy(update={**changes, "unit": "points" if base.unit == "%" else base.unit})


def is_difference(name: str) -> bool:
    """Whether a quantity of this name is the difference of two networks."""
    return name.endswith(DIFFERENCE)


def declare(rows: Iterable[object]) -> dict[str, Quantity]:
    """The rows that a claims file declares, by name.

    Raises:
        SpecError: a row cannot be.
        RecordError: a name is taken, or what a row needs is missing.
    """
    declared: dict[str, Quantity] = {}
    for quantity in map(Quantity.model_validate, rows):
        fault = None
        if quantity.name in {**QUANTITIES, **declared} or is_difference(quantity.name):
            fault = "the name is taken; a difference needs no declaration"
        elif quantity.source in ("count", "cost") or quantity.compares or quantity.of or quantity.reads:
            fault = "source must be 'series', 'measured' or 'none', and reads, of and compares left out"
        elif quantity.needs_runs and quantity.close is None:
            fault = "close: must say what counts as close, such as {relative: 0.05}"
        if fault:
            raise RecordError(f"quantity {quantity.name!r}: {fault}")
        declared[quantity.name] = quantity
    return declared
