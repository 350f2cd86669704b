"""What a claim is: a number that a paper states, where, how it was read, and which runs answer it. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from thriftylib.errors import RecordError, SpecError
from thriftylib.evidence import quantities
from thriftylib.evidence.quantities import Finite, Quantity
from thriftylib.options import Strict
from thriftylib.schedules import Fraction
from thriftylib.spec import Data, Pixels, Run, Scaling

Relation = Literal["value", "greater", "equal", "no gain"]
Mark = Literal["ABSTRACT", "PAPER TEXT", "FIGURE", "AUTHORS' LOG", "AUTHORS' CODE", "SECOND-HAND", "COUNTED"]
"""Where a number was read; SECOND-HAND: only in somebody else's account of the paper."""
SEEDS = 3
"""Runs on each reproduced side from which on a strong word may be said."""
BEST_OF = 5
"""Runs that "the best run" is taken over where the claim does not state them: as many as the papers repeat."""

Text = Annotated[str, Field(min_length=1)]
Amount = Annotated[float, Field(ge=0)]


class Setting(Strict):
    """Which runs answer a claim: all that it says must agree, and options that it leaves out may be anything.

    Noisy labels, a method and another run's weights to start from answer a claim that says so, and no other.
    """

    network: Text
    dataset: Text
    recipes: dict[str, Annotated[int, Field(ge=1)]] = {}  # the claim's own, with epochs; none: counts, measure only
    options: dict[str, JsonValue] = {}
    any_of: Annotated[list[dict[str, JsonValue]] | None, Field(min_length=1)] = None  # one of these must agree too
    label_noise: Fraction = 0.0  # of wrong labels
    scaling: Scaling = "normalised"  # of pixels
    pixels: Pixels = Pixels()  # as they are
    method: Text | None = None
    method_options: dict[str, JsonValue] = {}
    derived: bool = False  # starts from another run's weights

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.method_options and self.method is None:
            raise SpecError(f"setting.method_options = {self.method_options}: needs setting.method")
        return self

    def has_options(self, options: dict[str, JsonValue]) -> bool:
        """Whether a network's options agree with this setting's."""
        return _agree(self.options, options) and any(_agree(choice, options) for choice in self.any_of or [{}])

    def fits(self, run: Run) -> bool:
        """Whether a run agrees in network, data, method and origin; its recipe may be another."""
        return (
            run.network.name == self.network
            and run.data
            == Data(name=self.dataset, label_noise=self.label_noise, scaling=self.scaling, pixels=self.pixels)
            and (run.method.name if run.method else None) == self.method
            and (run.parent is not None) == self.derived
            and self.has_options(run.network.options)
            and _agree(self.method_options, run.method.options if run.method else {})
        )

    def alternative(self, run: Run) -> int:
        """The place of the first of ``any_of`` that a run's options agree with; 0 where there are none."""
        options = run.network.options
        return next((place for place, choice in enumerate(self.any_of or []) if _agree(choice, options)), 0)

    def has_recipe(self, run: Run) -> bool:
        """Whether a run follows the recipe, to its last epoch: a shortened recipe of the same name is another one."""
        return self.recipes.get(run.recipe_name) == run.epochs if run.recipe else not self.recipes

    def answers(self, run: Run) -> bool:
        """Whether a run agrees in everything, its recipe included."""
        return self.fits(run) and self.has_recipe(run)


def _agree(asked: dict[str, JsonValue], options: dict[str, JsonValue]) -> bool:
    return all(
        name in options and options[name] == value and isinstance(options[name], bool) == isinstance(value, bool)
        for name, value in asked.items()
    )


class Spread(Strict):
    """A sample deviation over so many runs."""

    deviation: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    runs: Annotated[int, Field(ge=2)]


class Claim(Strict):
    """One number that a paper states; of two networks, ``setting`` is compared with ``against``.

    Raises:
        RecordError: the claim is inconsistent; names it and the field.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9_-]+(/[a-z0-9-]+){2}$")]
    paper: Text
    figure: Text
    statement: Text
    quantity: Text
    value: Finite
    unit: str
    bound: Literal["equals", "at least", "more than", "at most"] = "equals"
    error: Annotated[float, Field(gt=0)] | Literal["exact"]  # how far the reading, or the rounding, may be off
    statistic: Text  # what of the runs is stated, one of thriftylib.evidence.quantities.STATISTICS
    runs: Annotated[int, Field(ge=1)] | None = None  # the paper's
    spread: Amount | None = None  # the paper's standard deviation over them, as printed
    population_spread: bool = False  # it is the population's (squares divided by the runs), not the sample's
    values: Annotated[tuple[float, ...], Field(strict=False)] = ()  # of the single runs, where they are known
    paired: Text | None = None  # what two runs of one seed share beyond the order of their images: judged pair by pair
    at: float | None = None  # the place on the figure's x axis, where no setting gives it
    mark: Mark
    source: Text
    how: Text
    confidence: Literal["certain", "high", "medium", "low"]
    reading: str = ""  # what of the setting is inferred by us
    reading_changed: Text | None = None  # how it came to be, in order, where it was changed after results were seen
    inferred_from_itself: bool = False  # of a count: its setting was inferred from the claimed number
    build_unknown: bool = False  # of a count: how the authors built a network of it is not known
    setting: Setting | None = None
    against: Setting | None = None
    relation: Relation | None = None  # what of a difference is claimed
    margin: Annotated[float, Field(gt=0)] | None = None  # of equality and no gain
    experiment: Text | None = None
    not_testable: Text | None = None  # why no run of ours can decide it
    declared: Quantity | None = None  # the row of a quantity that the claims file declares itself
    side_spreads: tuple[Spread | None, Spread | None] = (None, None)  # of the claims about each side

    @property
    def definition(self) -> Quantity:
        """The row of what is claimed."""
        return self.declared or quantities.find(self.quantity)

    @property
    def is_counted(self) -> bool:
        """Whether a closed-form count answers it, and no run."""
        return self.definition.source == "count"

    @property
    def is_difference(self) -> bool:
        """Whether it is about the difference of two networks."""
        return self.definition.is_difference

    @property
    def is_best_of(self) -> bool:
        """Whether the best of several runs is stated, whose number our rule fixes in advance."""
        return self.statistic == "best epoch of the best run"

    @property
    def seeds_needed(self) -> int:
        """Reproduced runs of each side from which on a strong word may be said; of the best of several all of them."""
        return max(SEEDS, self.runs or BEST_OF) if self.is_best_of else SEEDS

    @property
    def reading_error(self) -> float:
        """``error`` as a number."""
        return 0.0 if self.error == "exact" else self.error

    @property
    def stated_spread(self) -> float | None:
        """The paper's spread as printed, else the sample deviation of ``values``; None where neither is known."""
        return statistics.stdev(self.values) if self.spread is None and len(self.values) > 1 else self.spread

    @property
    def known_spread(self) -> Spread | None:
        """The paper's sample deviation with its runs; None where it is not known."""
        if self.stated_spread is None:
            return None
        correction = math.sqrt(self.runs / (self.runs - 1)) if self.population_spread else 1.0
        return Spread(deviation=self.stated_spread * correction, runs=self.runs)

    @property
    def reported_spreads(self) -> tuple[Spread | None, ...]:
        """The paper's spread of each side."""
        return self.side_spreads if self.is_difference else (self.known_spread,)

    @property
    def sides(self) -> tuple[Setting, ...]:
        """The settings whose runs or counts answer the claim: one, two for a comparison, none where none is known."""
        return tuple(side for side in (self.setting, self.against) if side is not None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            fault = next((fault for is_so, fault in self._faults() if is_so), None)
        except RecordError as error:
            fault = str(error)
        if fault is not None:
            raise RecordError(f"claim {self.id}: {fault}")
        return self

    def _faults(self) -> Iterator[tuple[object, str]]:
        """What may be wrong, in order: whether it is, and what to say then."""
        row, mark, margin, values = self.definition, self.mark, self.margin, self.values
        low, high = row.limits or (-math.inf, math.inf)
        has_spread, about_counts = self.spread is not None, self.inferred_from_itself or self.build_unknown
        yield self.id.split("/")[0] != self.paper, f"must begin with its paper, {self.paper!r}"
        yield self.unit != row.unit, f"unit = {self.unit!r}: must be {row.unit!r}"
        yield not low <= self.value <= high, f"value = {self.value}: must be from {low:g} to {high:g} {row.unit}"
        known = quantities.STATISTICS[row.source]
        yield self.statistic not in known, f"statistic = {self.statistic!r}: does not go with {self.quantity}"
        yield (
            mark == "FIGURE" and self.error == "exact",
            "error = 'exact': a number read from a figure has a reading error",
        )
        of_others = mark == "SECOND-HAND" and self.confidence != "low"
        yield of_others, f"confidence = {self.confidence!r}: of a SECOND-HAND number it is 'low'"
        yield about_counts and not self.is_counted, "inferred_from_itself and build_unknown: are said of counts alone"
        # the paper's runs
        yield has_spread and (self.runs or 0) < 2, f"spread = {self.spread}: needs runs >= 2"
        yield self.population_spread and not has_spread, "population_spread = True: needs spread"
        yield values and len(values) != self.runs, f"values has {len(values)} runs: runs = {self.runs}"
        room = self.reading_error + 0.006  # two decimals
        off = values and abs(statistics.fmean(values) - self.value) > room
        yield off, f"value = {self.value}: the mean of values is another"
        off = values and has_spread and abs(statistics.stdev(values) - self.known_spread.deviation) > room
        yield off, f"spread = {self.spread}: the deviation of values is another"
        # comparisons
        alone = self.against is not None and (not row.compares or self.against == self.setting)
        yield alone, "against: must be another setting, of a difference or a share that is saved"
        more = self.bound != "equals" or has_spread or values
        yield row.is_difference and more, f"bound, spread and values: do not go with {self.quantity}"
        for name in () if row.is_difference else ("relation", "paired"):
            stated = getattr(self, name)
            yield stated is not None, f"{name} = {stated!r}: needs a difference as its quantity"
        needs_margin = self.relation in ("equal", "no gain")
        yield (margin is not None) != needs_margin, f"margin = {margin}: 'equal' and 'no gain' need one, no other does"
        # what a test needs
        if self.not_testable is not None:
            return
        yield row.source == "none", f"{self.quantity} cannot be tested; not_testable must say why"
        needed = {
            "setting": self.setting,
            "against": self.against or not row.compares,
            "relation": self.relation or not row.is_difference,
            "setting.recipes": row.source != "series" or (self.sides and all(side.recipes for side in self.sides)),
            "experiment": self.experiment or not row.needs_runs,
        }
        missing = [name for name, given in needed.items() if not given]
        yield missing, f"lacks {', '.join(missing)}, or not_testable with the reason"


def matches(claim: Claim, run: Run) -> bool:
    """Whether a run answers a claim, of a comparison one side: network, data, method, every named option, recipe."""
    return any(side.answers(run) for side in claim.sides)
