"""What a claim is: a number that a paper states, where, how it was read, and which runs answer it. No torch."""

from __future__ import annotations

import math
import statistics
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, model_validator

from thriftylib.errors import RecordError, SpecError
from thriftylib.evidence import quantities
from thriftylib.evidence.quantities import Finite, Quantity
from thriftylib.options import Strict
from thriftylib.spec import Data, Run, Share

Relation = Literal["value", "greater", "equal", "no gain"]
Mark = Literal["ABSTRACT", "PAPER TEXT", "FIGURE", "AUTHORS' LOG", "AUTHORS' CODE", "SECOND-HAND", "COUNTED"]
"""Where a number was read; SECOND-HAND: only in somebody else's account of the paper."""
Statistic = Literal[
    "mean over runs of the best epoch",
    "mean over runs of the last epoch",
    "best epoch of one run",
    "best epoch of the best run",
    "last epoch of one run",
    "mean over runs",
    "one run",
    "count",
    "duration",
]
"""What of the runs is stated; "mean over runs" and "one run" go with what has no epochs."""
SEEDS = 3
"""Runs on each side of ours from which on a strong word may be said."""
BEST_OF = 5
"""Runs that "the best run" is taken over where the claim does not state them: as many as the papers repeat."""

Text = Annotated[str, Field(min_length=1)]
Values = Annotated[tuple[float, ...], Field(strict=False)]


class Setting(Strict):
    """Which runs answer a claim: all that it says must agree, and the options that it leaves out may be anything.

    ``recipes`` gives each recipe that counts as the claim's own, with its epochs; counts need none, and without any a
    run that is measure only answers. ``any_of`` lists alternatives, sets of options of which one must agree.
    ``label_noise`` is the share of wrong training labels, ``method_options`` are to the method what ``options`` are to
    the network, and ``derived`` says whether the run starts from another run's weights. A run with noisy labels, of a
    method or derived answers a claim that says so and no other.

    Raises:
        SpecError: a field is missing, unknown, of the wrong type or impossible.
    """

    network: Text
    dataset: Text
    recipes: dict[str, Annotated[int, Field(ge=1)]] = {}
    options: dict[str, JsonValue] = {}
    any_of: Annotated[list[dict[str, JsonValue]] | None, Field(min_length=1)] = None
    label_noise: Share = 0.0
    method: Text | None = None
    method_options: dict[str, JsonValue] = {}
    derived: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.method_options and self.method is None:
            raise SpecError(f"setting.method_options = {self.method_options}: needs setting.method")
        return self

    def has_options(self, options: dict[str, JsonValue]) -> bool:
        """Whether a network's options agree with this setting's."""
        alternatives = self.any_of or [{}]
        return _agree(self.options, options) and any(_agree(choice, options) for choice in alternatives)

    def fits(self, run: Run) -> bool:
        """Whether a run agrees in network, data, method and origin; its recipe may be another."""
        return (
            run.network.name == self.network
            and run.data == Data(name=self.dataset, label_noise=self.label_noise)
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
        """Whether a run follows the recipe, to its last epoch: a shortened recipe of the same name is another one.

        A run that is measure only follows a setting without recipes.
        """
        if run.recipe is None:
            return not self.recipes
        return self.recipes.get(run.recipe_name) == run.epochs


def _agree(wanted: dict[str, JsonValue], options: dict[str, JsonValue]) -> bool:
    return all(name in options and _same(value, options[name]) for name, value in wanted.items())


def _same(wanted: JsonValue, value: JsonValue) -> bool:
    return wanted == value and isinstance(wanted, bool) == isinstance(value, bool)


class Spread(Strict):
    """A sample deviation over so many runs."""

    deviation: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    runs: Annotated[int, Field(ge=2)]


class Claim(Strict):
    """One number that a paper states.

    ``value`` and ``spread`` (the paper's own standard deviation over its ``runs``, as it stands there) are in ``unit``;
    ``population_spread`` says that it is the population's deviation (squares divided by the runs) and not the sample's
    (by the runs less one). ``values`` are the single runs where they are known. ``at`` is the place on the figure's x
    axis, where no setting gives it. ``error`` is how far the reading, or the rounding, may be off. ``reading`` says
    what of the setting is our inference, ``reading_changed`` in which order it came to be where it was changed after
    results were seen. ``not_testable`` says why no run of ours can decide it.

    Of a count, ``inferred_from_itself`` says that the setting was inferred from the claimed number, and
    ``build_unknown`` that how the authors built a network of it is not known.

    Two networks are compared by ``setting`` and ``against``. The ``prune_ratio`` is the share of the kernel parameters
    of ``against`` that ``setting`` does without. A difference is that of ``setting`` less that of ``against``;
    ``relation`` says what of it is claimed (see :mod:`thriftylib.evidence.differences`), with a ``margin`` where it is
    equality or no gain. ``spreads`` are the paper's deviations of both sides over its ``runs``; where they are not
    given, those of the claims about each side are taken. ``paired`` says what two runs of one seed share beyond the
    order of their images, where they do: their differences are then judged pair by pair.

    Raises:
        SpecError: a field is missing, unknown, of the wrong type or impossible.
        RecordError: the claim is at odds with itself.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9_-]+(/[a-z0-9-]+){2}$")]
    paper: Text
    figure: Text
    statement: Text
    quantity: Text
    value: Finite
    unit: str
    bound: Literal["equals", "at least", "more than", "at most"] = "equals"
    error: Annotated[float, Field(gt=0)] | Literal["exact"]
    statistic: Statistic
    runs: Annotated[int, Field(ge=1)] | None = None
    spread: Annotated[float, Field(ge=0)] | None = None
    population_spread: bool = False
    values: Values = ()
    spreads: (
        Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(strict=False, min_length=2, max_length=2)] | None
    ) = None
    paired: Text | None = None
    at: float | None = None
    mark: Mark
    source: Text
    how: Text
    confidence: Literal["certain", "high", "medium", "low"]
    reading: str = ""
    reading_changed: Text | None = None
    inferred_from_itself: bool = False
    build_unknown: bool = False
    setting: Setting | None = None
    against: Setting | None = None
    relation: Relation | None = None
    margin: Annotated[float, Field(gt=0)] | None = None
    experiment: Text | None = None
    not_testable: Text | None = None
    declared: Quantity | None = None
    """The row of a quantity that the claims file declares itself."""
    side_spreads: tuple[Spread | None, Spread | None] = (None, None)
    """The spreads of the claims about each side of a comparison, as far as they are known."""

    @property
    def known_side_spreads(self) -> tuple[Spread | None, Spread | None]:
        """The paper's spreads of both sides of a comparison: the claim's own ``spreads``, else those of the sides."""
        if self.spreads is None:
            return self.side_spreads
        return tuple(Spread(deviation=self.as_sample(each), runs=self.runs) for each in self.spreads)

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
        """Runs on each side of ours from which on a strong word may be said; of the best of several all that count."""
        return max(SEEDS, self.runs or BEST_OF) if self.is_best_of else SEEDS

    @property
    def reading_error(self) -> float:
        """``error`` as a number."""
        return 0.0 if self.error == "exact" else self.error

    @property
    def deviation(self) -> float | None:
        """The paper's sample deviation over its runs, from ``spread`` or ``values``; None where it is not known."""
        if self.spread is None:
            return statistics.stdev(self.values) if len(self.values) > 1 else None
        return self.as_sample(self.spread)

    def as_sample(self, spread: float) -> float:
        """A deviation as the paper states it, as the sample's."""
        return spread * math.sqrt(self.runs / (self.runs - 1)) if self.population_spread else spread

    @property
    def known_spread(self) -> Spread | None:
        """The paper's sample deviation with its runs; None where one of them is not known."""
        return None if self.deviation is None else Spread(deviation=self.deviation, runs=self.runs)

    @property
    def stated_spread(self) -> float | None:
        """What to show as the paper's spread: its own number, else the sample deviation of ``values``."""
        return self.deviation if self.spread is None else self.spread

    @property
    def sides(self) -> tuple[Setting, ...]:
        """The settings whose runs or counts answer the claim: one, two for a comparison, none where none is known."""
        return tuple(side for side in (self.setting, self.against) if side is not None)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.id.split("/")[0] != self.paper:
            raise RecordError(f"claim {self.id}: must begin with its paper, {self.paper!r}")
        try:
            row = self.definition
        except RecordError as error:
            raise RecordError(f"claim {self.id}: {error}") from None
        if self.unit != row.unit:
            raise RecordError(f"claim {self.id}: unit = {self.unit!r}: must be {row.unit!r}")
        if row.limits and not row.limits[0] <= self.value <= row.limits[1]:
            what = "percent, " if row.unit == "%" else ""
            reach = f"{row.limits[0]:g} to {row.limits[1]:g}"
            raise RecordError(f"claim {self.id}: value = {self.value}: must be {what}{reach}")
        if self.statistic not in quantities.STATISTICS[row.source]:
            raise RecordError(f"claim {self.id}: statistic = {self.statistic!r}: does not go with {self.quantity}")
        if self.mark == "FIGURE" and self.error == "exact":
            raise RecordError(f"claim {self.id}: error = 'exact': a number read from a figure has a reading error")
        if self.mark == "SECOND-HAND" and self.confidence != "low":
            raise RecordError(f"claim {self.id}: confidence = {self.confidence!r}: of a SECOND-HAND number it is 'low'")
        if (self.inferred_from_itself or self.build_unknown) and not self.is_counted:
            raise RecordError(f"claim {self.id}: inferred_from_itself and build_unknown: are said of counts alone")
        self._check_runs()
        self._check_comparison()
        self._check_testable()
        return self

    def _check_testable(self) -> None:
        if self.not_testable is not None:
            return
        row = self.definition
        if row.source == "none":
            raise RecordError(f"claim {self.id}: {self.quantity} cannot be tested; not_testable must say why")
        needed: dict[str, Any] = {"setting": self.setting}
        if row.compares:
            needed |= {"against": self.against}
        if row.is_difference:
            needed |= {"relation": self.relation}
        if row.source == "series":
            needed |= {"setting.recipes": bool(self.sides) and all(side.recipes for side in self.sides)}
        if row.needs_runs:
            needed |= {"experiment": self.experiment}
        if missing := [name for name, value in needed.items() if not value]:
            raise RecordError(f"claim {self.id}: lacks {', '.join(missing)}, or not_testable with the reason")

    def _check_comparison(self) -> None:
        row = self.definition
        if self.against is not None and (not row.compares or self.against == self.setting):
            raise RecordError(f"claim {self.id}: against: must be another setting, of a difference or a prune_ratio")
        if row.is_difference and (self.bound != "equals" or self.spread is not None or self.values):
            raise RecordError(f"claim {self.id}: bound, spread and values: do not go with {self.quantity}")
        if self.relation is not None and not row.is_difference:
            raise RecordError(f"claim {self.id}: relation = {self.relation!r}: needs a difference as its quantity")
        if (self.margin is not None) != (self.relation in ("equal", "no gain")):
            raise RecordError(f"claim {self.id}: margin = {self.margin}: 'equal' and 'no gain' need one, no other does")
        if self.paired is not None and not row.is_difference:
            raise RecordError(f"claim {self.id}: paired: needs a difference as its quantity")
        if self.spreads is not None and (not row.is_difference or (self.runs or 0) < 2):
            raise RecordError(f"claim {self.id}: spreads: need a difference as its quantity, and runs >= 2")

    def _check_runs(self) -> None:
        if self.spread is not None and (self.runs or 0) < 2:
            raise RecordError(f"claim {self.id}: spread = {self.spread}: needs runs >= 2")
        if self.spread is None and self.spreads is None and self.population_spread:
            raise RecordError(f"claim {self.id}: population_spread = True: needs spread or spreads")
        if not self.values:
            return
        if len(self.values) != self.runs:
            raise RecordError(f"claim {self.id}: values has {len(self.values)} runs: runs = {self.runs}")
        room = self.reading_error + 0.006  # two decimals
        if abs(statistics.fmean(self.values) - self.value) > room:
            raise RecordError(f"claim {self.id}: value = {self.value}: the mean of values is another")
        if self.spread is not None and abs(statistics.stdev(self.values) - self.deviation) > room:
            raise RecordError(f"claim {self.id}: spread = {self.spread}: the deviation of values is another")


def matches(claim: Claim, run: Run) -> bool:
    """Whether a run answers a claim: network, whole data set, method, every option that the claim names, and recipe.

    Of a comparison it answers one side.
    """
    return any(side.fits(run) and side.has_recipe(run) for side in claim.sides)
