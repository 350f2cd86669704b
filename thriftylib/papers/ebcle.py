"""EBCLE: does a data set's entropy bound the useful depth of a network? Entropies, bounds, networks of that depth.

"Mitigating severe over-parameterization in deep convolutional neural networks through forced feature abstraction and
compression with an entropy-based heuristic" (Gowdra, Sinha, MacDonell & Yan, 2021; arXiv 2106.14190). We know its
abstract and the first author's script for the entropy (NidhiGowdra/EBCLE, ``Shannon_Entropy_Calc.py``)::

    H(image) = -sum_v p_v ln p_v      over the 8-bit values v of all channels together, in nats
    H(data set)                       the mean over its training images

The formula is reconstructed: how the paper turns H into a depth, and how it widens what becomes shallower, is not
available to us. ``READINGS``, :func:`bound` and :func:`shaped` are inferred, all of them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self, get_args

from pydantic import Field, model_validator

from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, MethodOptions

if TYPE_CHECKING:
    from thriftylib.papers.ebcle_entropy import ImageEntropy
    from thriftylib.papers.families import StagedOptions


Unit = Literal["nats", "bits"]
Rounding = Literal["nearest", "floor", "ceiling"]
Counted = Literal["per stage", "blocks", "convolutions"]
Match = Literal["none", "parameters", "macs"]
Channels = Literal["pooled", "red", "mean", "grey", "triples"]
"""What of a colour image is counted: the values of all channels in one histogram; those of the first channel; the mean
of the channels' entropies; BT.601 luma; or (R, G, B) triples. A grey image is its own first channel, mean and luma."""
IN_NATS = {"nats": 1.0, "bits": math.log(2)}
TOLERANCE = 0.02  # of the matched quantity


class Reading(NamedTuple):
    """How the entropy may bound the depth: what is counted, and the unit of the entropy. Inferred, each of them."""

    count: Counted
    unit: Unit


READINGS = {
    "R1": Reading("per stage", "nats"),  # the default: layers of a dense block, residual blocks of a stage
    "R2": Reading("blocks", "nats"),  # of the whole network
    "R3": Reading("convolutions", "nats"),  # 3x3 or larger ones of the whole network, the stem's included
    "R4 as R1": Reading("per stage", "bits"),
    "R4 as R2": Reading("blocks", "bits"),
    "R4 as R3": Reading("convolutions", "bits"),
}


def bound(entropy_nats: float, *, unit: Unit = "nats", rounding: Rounding = "nearest") -> int:
    """The bound on the depth: the entropy in ``unit``, rounded; a half goes up.

    Raises:
        SpecError: no entropy, an unknown unit or rounding, or a bound of 0, with which no network could be.
    """
    round_by = {"nearest": lambda x: math.floor(x + 0.5), "floor": math.floor, "ceiling": math.ceil}
    check_known("unit", unit, IN_NATS)
    check_known("rounding", rounding, round_by)
    if not isinstance(entropy_nats, Real) or not 0 <= entropy_nats < math.inf:
        raise SpecError(f"entropy = {entropy_nats!r}: must be a number of nats from 0 on")
    entropy = entropy_nats / IN_NATS[unit]
    if not (depth := round_by[rounding](entropy)):
        raise SpecError(f"bound = 0: {entropy:.3f} {unit}, {rounding}; must be 1 or more, a network has a unit a stage")
    return depth


def shaped(
    options: StagedOptions,
    bound: int,
    *,
    count: Counted = "per stage",
    match: Match = "none",
    image_shape: ImageShape = (3, 32, 32),
    classes: int = 10,
) -> StagedOptions:
    """The shallower network, broader where ``match`` says so.

    - ``per stage``: no stage keeps more units than the bound. ``blocks``: no more in all; the stages share them in
      proportion to what they have, each at least one. ``convolutions``: likewise of 3x3 or larger convolutions in all,
      one of which is the stem's.
    - ``match``: of the widths the one whose parameters or MACs (which depend on ``image_shape`` and ``classes``) are
      nearest to those of ``options``. Where its steps miss them by more than 2 %, a DenseNet's stem is broadened too.
      A network that the bound leaves as it is keeps its width.

    Raises:
        SpecError: a bound that is no whole number, or too low for a unit in each stage; an unknown count or match;
            no width within 2 % (names the two nearest).
    """
    check_known("count", count, get_args(Counted))
    check_known("match", match, get_args(Match))
    if not isinstance(bound, Integral) or isinstance(bound, bool):
        raise SpecError(f"bound = {bound!r}: must be a whole number; bound() rounds an entropy")
    stages = len(options.repeats)
    bound = int(bound)  # numpy's too, as a table has them
    units = (bound - 1) // options.convolutions_3x3 if count == "convolutions" else bound
    if units < (1 if count == "per stage" else stages):
        least = {"per stage": 1, "blocks": stages, "convolutions": 1 + stages * options.convolutions_3x3}[count]
        raise SpecError(f"bound = {bound} ({count}): must be {least} or more, {stages} stages have a unit each")
    if count == "per stage":
        shallow = options.with_repeats(tuple(min(repeats, units) for repeats in options.repeats))
    else:
        shallow = options.with_repeats(_dealt(options.repeats, units))
    return shallow if match == "none" or shallow == options else _matched(shallow, options, match, image_shape, classes)


def _dealt(repeats: tuple[int, ...], units: int) -> tuple[int, ...]:
    """So many units over the stages, in proportion (Webster's method) from one each on; of equals the earlier first."""
    dealt = [1] * len(repeats)
    for _ in range(min(units, sum(repeats)) - len(repeats)):
        dealt[max(range(len(repeats)), key=lambda stage: repeats[stage] / (2 * dealt[stage] + 1))] += 1
    return tuple(dealt)


def _matched(
    shallow: StagedOptions, baseline: StagedOptions, match: Match, image_shape: ImageShape, classes: int
) -> StagedOptions:
    def quantity(options: StagedOptions) -> int:
        return getattr(options.cost(image_shape, classes), match)

    def around_target(widths: Iterable[StagedOptions]) -> list[tuple[int, StagedOptions]]:
        """The last width below the target and the first that reaches it."""
        near: list[tuple[int, StagedOptions]] = []
        for wide in widths:
            near = [*near[-1:], (quantity(wide), wide)]
            if near[-1][0] >= target:
                break
        return near

    target = quantity(baseline)
    near = around_target(shallow.widths())
    for steps in (near, around_target(near[0][1].finer_widths())):
        found, nearest = min(steps, key=lambda each: abs(each[0] - target), default=near[0])
        if abs(found - target) <= TOLERANCE * target:
            return nearest
    tried = " and ".join(f"{have:,} with {wide.knob} = {getattr(wide, wide.knob)}" for have, wide in near)
    raise SpecError(f"match = {match!r}: must be within {TOLERANCE:.0%} of {target:,}; the nearest are {tried}")


def check_known(name: str, value: str, known: Collection[str]) -> None:
    """Raise a SpecError if ``value`` is none of the ``known``."""
    if value not in known:
        raise SpecError(f"{name} = {value!r}: must be one of {', '.join(known)}")


class ImageEntropyOptions(MethodOptions, method="image-entropy"):
    """Measure only, without a network: the entropy of a data set's images. The defaults are the author's script."""

    channels: Channels = "pooled"
    histogram: Literal["image", "set"] = "image"  # set: one for all images
    unit: Unit = "nats"
    # both: of a set that we split ourselves, such as stl10-split, all images that its authors train on
    split: Literal["train", "test", "both"] = "train"
    # Pixels, of a disk. Above 0: the entropy of each pixel's neighbourhood (scikit-image's rank filter), a mean over
    # the image; the author's script imports it and does not use it.
    radius: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.radius and (self.channels, self.histogram) != ("grey", "image"):
            raise SpecError(f"radius = {self.radius}: needs channels = 'grey' and histogram = 'image'")
        return self

    def start(self) -> ImageEntropy:
        """The hooks of one run."""
        from thriftylib.papers.ebcle_entropy import ImageEntropy

        return ImageEntropy(self)
