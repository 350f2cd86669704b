"""Recipe and Run: what is trained and how, frozen, strict and hashed. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, ValidationInfo, model_validator

from thriftylib.datasets.facts import DatasetInfo, dataset_info
from thriftylib.errors import SpecError
from thriftylib.options import MethodOptions, NetworkOptions, Strict, find
from thriftylib.schedules import Count, Fraction, Schedule, Steps

if TYPE_CHECKING:
    from torch import nn

    from thriftylib.cost import Cost

Positive = Annotated[float, Field(gt=0)]


Scaling = Literal["normalised", "1/256", "minus mean image"]
"""How a network reads pixels of 0 to 255: by the data set's mean and deviation of each channel; or as in Caffe's
examples, times 1/256, or minus the mean of the training images at each pixel."""


class Pixels(Strict):
    """Changes to the raw images of a data set, training and test alike; see :func:`thriftylib.datasets.pixels.change`.

    The data set's own constants still normalise what comes out.
    """

    histogram: Literal["as it is", "equalised", "stretched"] = "as it is"  # of each image and channel
    bits: Annotated[int, Field(ge=1, le=8)] = 8  # of each channel
    shuffled: bool = False  # positions, by one permutation for all images


class Augment(Strict):
    """What is done to a training image, in this order: crop, flip, AutoAugment, cutout; then mixup or cutmix."""

    crop: Annotated[int, Field(ge=0)] = 0  # pixels of padding on each side before a random crop; 0: no crop
    crop_padding: Literal["zero", "reflect"] = "zero"
    flip: bool = False  # horizontal, with probability 1/2
    autoaugment: bool = False  # the CIFAR-10 policy of AutoAugment
    # True: as the ThriftyNet authors' code performs it. Left out of a run's text where it is False: it came later.
    autoaugment_released: bool = Field(False, exclude_if=lambda value: not value)
    cutout: Annotated[int, Field(ge=0)] = 0  # side of the square in pixels; 0: none
    cutout_defect: bool = False  # the authors' code: squares on the diagonal or the left edge only
    mixup: Annotated[float, Field(ge=0)] = 0.0  # alpha of the Beta distribution; 0: none
    cutmix: Annotated[float, Field(ge=0)] = 0.0  # alpha of the Beta distribution; 0: none

    @model_validator(mode="after")
    def _one_mixing(self) -> Self:
        if self.mixup and self.cutmix:
            raise SpecError(f"mixup = {self.mixup} and cutmix = {self.cutmix}: only one of them may be above 0")
        if self.cutout_defect and not self.cutout:
            raise SpecError("cutout_defect = True needs cutout >= 1")
        if self.autoaugment_released and not self.autoaugment:
            raise SpecError("autoaugment_released = True needs autoaugment = True")
        return self


class Recipe(Strict):
    """How to train: SGD with momentum, a schedule, augmentation and a loss; named after its paper."""

    name: str
    epochs: Count
    batch_size: Count
    learning_rate: Positive  # the peak, where the schedule warms up
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    weight_decay_on: Literal["all", "weights"] = "all"  # "weights": convolutions and linear layers, no 1-d parameter
    bias_rate: Positive = Field(1.0, exclude_if=lambda value: value == 1)  # learning rate of biases over the weights'
    label_smoothing: Fraction = 0.0
    schedule: Schedule
    augment: Augment = Augment()

    @model_validator(mode="after")
    def _possible(self) -> Self:
        last = self.schedule.milestones[-1] if isinstance(self.schedule, Steps) else 0
        if last >= self.epochs:
            raise SpecError(f"schedule.milestones end at {last}: must be below epochs = {self.epochs}")
        if self.nesterov and not self.momentum:
            raise SpecError("nesterov = True needs momentum > 0")
        return self


class Data(Strict):
    """Which images: a data set, perhaps its first part, perhaps with a validation split or noisy labels."""

    name: str
    train_images: Count | None = None  # the first N of a fixed class-balanced order; None: all
    test_images: Count | None = None  # likewise of the test set
    validation_images: Annotated[int, Field(ge=0)] = 0  # carved from the training images by a fixed seed
    label_noise: Fraction = 0.0  # of training labels replaced by a uniformly drawn class, by the run's seed
    scaling: Scaling = Field("normalised", exclude_if=lambda value: value == "normalised")  # left out: it came later
    pixels: Pixels = Field(Pixels(), exclude_if=lambda value: value == Pixels())  # likewise

    @property
    def label(self) -> str:
        """The data set's name, and what is changed of its pixels."""
        changed = [f"{self.pixels.histogram} histograms"] * (self.pixels.histogram != "as it is")
        changed += [f"{self.pixels.bits} bits a channel"] * (self.pixels.bits != 8)
        changed += ["shuffled pixels"] * self.pixels.shuffled
        return f"{self.name} ({', '.join(changed)})" if changed else self.name

    @property
    def info(self) -> DatasetInfo:
        """The data set's fixed facts."""
        return dataset_info(self.name)

    @property
    def training_images(self) -> int:
        """Images that an epoch visits."""
        return (self.train_images or self.info.train) - self.validation_images

    @model_validator(mode="after")
    def _fits(self) -> Self:
        info = self.info
        for field, asked, there in (("train", self.train_images, info.train), ("test", self.test_images, info.test)):
            if asked is not None and asked > there:
                raise SpecError(f"{field}_images = {asked}: {self.name} has {there}")
        if self.training_images < 1:
            raise SpecError(f"validation_images = {self.validation_images}: leaves no training image of {self.name}")
        return self


SEEDS = 2**32  # of a random number generator
_MOST_SEEDS = 1000  # of one call
NO_NETWORK = "none"
"""The network of runs that measure a data set alone."""


class Named(Strict):
    """A registered network or training method with its options."""

    name: str
    options: dict[str, JsonValue] = {}


class Run(Strict):
    """One training: network + data + recipe + seed (and a method, where a paper changes training itself).

    Without a recipe it is *measure only*: nothing is trained, and what its method measures is its outcome. Options are
    checked by the class that the network's paper registers, and stored complete, so the id says everything.

    Raises:
        SpecError: names the field, the value and what is allowed.
    """

    network: Named
    data: Data
    recipe: Recipe | None  # None: measure only
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] = 0
    method: Named | None = None
    parent: str | None = None  # configuration of the run, of the same seed, whose trained weights this one starts from

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any, info: ValidationInfo) -> Any:
        """Fill in every option, so that equal runs are equal text."""
        if (info.context or {}).get("recorded") or not isinstance(values, dict):
            return values
        values = dict(values)
        if values.get("network") is not None and values.get("data") is not None:
            data = Data.model_validate(values["data"])
            values["network"] = _named(NetworkOptions, values["network"], data.info)
        if values.get("method") is not None:
            values["method"] = _named(MethodOptions, values["method"])
        return values

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> Self:
        if self.method is not None and not (info.context or {}).get("recorded"):
            find(MethodOptions, self.method.name).model_validate(self.method.options).check(self)
        if self.recipe is None:
            if self.method is None:
                raise SpecError("recipe = None (measure only): needs a method, whose measure() is the outcome")
            return self
        if self.network.name == NO_NETWORK:
            raise SpecError(f"network = {NO_NETWORK!r}: cannot be trained; it goes with recipe = None (measure only)")
        batch, images = self.recipe.batch_size, self.data.training_images
        if batch > images:
            raise SpecError(f"recipe.batch_size = {batch}: {self.data.name} has {images} training images")
        monitor = getattr(self.recipe.schedule, "monitor", None)
        if monitor == "validation_loss" and not self.data.validation_images:
            raise SpecError("recipe.schedule.monitor = 'validation_loss': needs data.validation_images >= 1")
        return self

    @classmethod
    def recorded(cls, data: dict[str, Any]) -> Self:
        """The run of a record, as it was written; no paper is imported, since the id proves that nothing changed."""
        return cls.model_validate(data, context={"recorded": True})

    def canonical(self) -> str:
        """The JSON text whose hash is the id: sorted keys, no spaces, shortest exact floats."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def id(self) -> str:
        """The first 12 hexadecimal digits of the canonical JSON's SHA-256: the same on every machine."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()[:12]

    @cached_property
    def configuration(self) -> str:
        """The id that all seeds of this run share."""
        return self.model_copy(update={"seed": 0}).id

    @property
    def options(self) -> NetworkOptions:
        """The network's options as their own class (imports its paper, and so torch)."""
        return find(NetworkOptions, self.network.name).model_validate(self.network.options)

    @property
    def cost(self) -> Cost:
        """What the network costs for one image of the data, in closed form (imports its paper, and so torch)."""
        return self.options.cost(self.data.info.image_shape, len(self.data.info.classes))

    def build(self) -> nn.Module:
        """The network for the data's images and classes, with weights drawn by PyTorch's own generator."""
        return self.options.build(self.data.info.image_shape, len(self.data.info.classes))

    @property
    def epochs(self) -> int:
        """Epochs of the recipe; 0 where nothing is trained."""
        return self.recipe.epochs if self.recipe else 0

    @property
    def recipe_name(self) -> str:
        """The recipe's name; ``measure only`` where nothing is trained."""
        return self.recipe.name if self.recipe else "measure only"

    def with_seed(self, seed: int) -> Self:
        """The same run from another seed."""
        if not 0 <= seed < SEEDS:
            raise SpecError(f"Run.seed = {seed}: must be from 0 to {SEEDS - 1}")
        other = self.model_copy(update={"seed": seed})  # all else is checked already
        other.__dict__["configuration"] = self.configuration
        return other

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """pydantic's, without the ids that this run has computed: the copy's are others."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("id", "configuration"):
            copied.__dict__.pop(name, None)
        return copied

    def __hash__(self) -> int:
        return hash(self.id)


def _named(kind: type[NetworkOptions] | type[MethodOptions], value: Any, info: DatasetInfo | None = None) -> Named:
    """A network or method with all of its options; those of a network are resolved for the images of ``info``."""
    named = Named.model_validate(value)
    options = find(kind, named.name).model_validate(named.options)
    if info is not None:
        options = options.resolve(info.image_shape, len(info.classes))
    return Named(name=named.name, options=options.model_dump(mode="json"))


def parse_seeds(text: str | int) -> list[int]:
    """``"0"`` -> [0]; ``"0,3"`` -> [0, 3]; ``"0-4"`` -> [0, 1, 2, 3, 4].

    Raises:
        SpecError: not of that form, or a seed twice.
    """
    seeds: list[int] = []
    for part in str(text).split(","):
        if not (match := re.fullmatch(r"\s*([0-9]{1,10})(?:-([0-9]{1,10}))?\s*", part)):
            raise SpecError(f"seeds = {text!r}: must be numbers and ranges such as '0', '0,3' or '0-4'")
        first, last = int(match[1]), int(match[2] or match[1])
        if last >= SEEDS or len(seeds) + last - first >= _MOST_SEEDS:
            raise SpecError(f"seeds = {text!r}: must be at most {_MOST_SEEDS}, each below {SEEDS}")
        seeds += range(first, last + 1) or [-1]
    if len(set(seeds)) != len(seeds) or -1 in seeds:
        raise SpecError(f"seeds = {text!r}: names a seed twice, or an empty range; must be such as '0', '0,3' or '0-4'")
    return seeds


def parse_device(text: str) -> str:
    """A device's name, as it is given; whether this machine has it is only known with torch.

    Raises:
        SpecError: no such name.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", text, re.ASCII):
        raise SpecError(f"device = {text!r}: must be auto, cpu, cuda or cuda:N")
    return text
