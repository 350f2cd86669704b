"""Strict, frozen options: what networks and training methods are made from. No torch.

A paper's module subclasses :class:`NetworkOptions` (and :class:`MethodOptions` where it changes how a network is
trained) and thereby registers itself: nothing else in the library has to learn its name.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable
from functools import wraps
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from thriftylib.errors import SpecError

if TYPE_CHECKING:
    from torch import nn

    from thriftylib.cost import Cost
    from thriftylib.method import Method
    from thriftylib.spec import Run

LARGEST, DEEPEST, LONGEST = 10**8, 10_000, 1_000
"""Of any whole number in the options of a network or a method, of a number of layers, and of a list."""
_DEPTHS = ("iterations", "depth", "units", "layers", "blocks")
ImageShape = tuple[int, int, int]
"""(C, H, W) of one image."""


def suggest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'? known: a, b, x"``, the tail of every message about an unknown name."""
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    return (f"; did you mean {close[0]!r}?" if close else ";") + f" known: {', '.join(known)}"


def _one_line(cls: type[BaseModel], error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])  # a typo lacks a field too
    place = ".".join(map(str, first["loc"]))
    subject = f"{cls.__name__}.{place}" if place else cls.__name__
    if first["type"] == "extra_forbidden":
        return f"{cls.__name__}: unknown key {place!r}" + suggest(place, cls.model_fields)
    if first["type"] == "missing":
        return f"{subject}: is required"
    reason = first["msg"].removeprefix("Value error, ").replace("Input should", "should").replace("valid tuple", "list")
    reason = reason.replace("Tuple should", "should").replace(" after validation", "")
    if isinstance(first["input"], dict) and first["type"] == "value_error":
        return f"{cls.__name__}: {reason}"
    return f"{subject} = {first['input']!r}: {reason}"


class Strict(BaseModel):
    """Frozen, typed without coercion, closed to unknown keys.

    Raises:
        SpecError: one line naming the field, the value and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, data: Any, handler) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise SpecError(_one_line(cls, error)) from None


def _check_sizes(name: str, value: Any) -> None:
    """Refuse what cannot be meant before anything is computed from it."""
    most = DEEPEST if name in _DEPTHS else LARGEST
    if isinstance(value, int) and abs(value) > most:
        raise SpecError(f"{name} = {str(value)[:20]}: must be at most {most:,}")
    if isinstance(value, list | tuple):
        if len(value) > LONGEST:
            raise SpecError(f"{name}: has {len(value):,} values: must be at most {LONGEST:,}")
        for each in value:
            _check_sizes(name, each)


class Options(Strict):
    """Options, of sizes that can be meant."""

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, data: Any) -> Any:
        for name, value in data.items() if isinstance(data, dict) else ():
            _check_sizes(name, value)
        return data


def _is_count(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= 1


def _of_images(function: Callable) -> Callable:
    """``function`` of a network's class, which first says what is wrong with its images or classes."""

    @wraps(function)
    def checked(self: NetworkOptions, image_shape: ImageShape, classes: int) -> Any:
        shape = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
        if len(shape) != 3 or not all(map(_is_count, shape)):
            raise SpecError(f"image_shape = {image_shape!r}: must be (C, H, W), whole numbers >= 1")
        if not _is_count(classes):
            raise SpecError(f"classes = {classes!r}: must be a whole number >= 1")
        return function(self, image_shape, classes)

    return checked


class NetworkOptions(Options):
    """The options of one kind of network; subclass with ``class X(NetworkOptions, network="name")`` to register it.

    What a subclass has of ``resolve``, ``cost`` and ``build`` raises a SpecError for images or classes that cannot be.
    """

    network: ClassVar[str]
    fast: ClassVar[tuple[str, ...]] = ()  # the modules of thriftylib.fast that may serve it
    known: ClassVar[dict[str, type[NetworkOptions]]] = {}

    def __init_subclass__(cls, network: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in {"resolve", "cost", "build"} & vars(cls).keys():
            setattr(cls, name, _of_images(vars(cls)[name]))
        if network is not None:
            cls.network = network
            cls.known[network] = cls

    def resolve(self, image_shape: ImageShape, classes: int) -> Self:
        """These options with everything derived filled in (a parameter budget turned into a width, say).

        Raises:
            SpecError: the network cannot be built for such images.
        """
        self.cost(image_shape, classes)
        return self

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """Parameters, MACs and bytes in closed form, for one image of ``image_shape`` (C, H, W)."""
        raise NotImplementedError

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """The network: (N, C, H, W) floats in, (N, classes) logits out."""
        raise NotImplementedError


class MethodOptions(Options):
    """How a paper changes training; subclass with ``class X(MethodOptions, method="name")`` to register it."""

    method: ClassVar[str]
    known: ClassVar[dict[str, type[MethodOptions]]] = {}

    def __init_subclass__(cls, method: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if method is not None:
            cls.method = method
            cls.known[method] = cls

    def check(self, run: Run) -> None:
        """Nothing; a method that cannot change every run raises a SpecError here, when the run is made."""

    def start(self) -> Method:
        """The object whose hooks the engine calls, made afresh for one run."""
        raise NotImplementedError


def find(kind: type[NetworkOptions] | type[MethodOptions], name: str) -> type:
    """The options class registered under ``name``; imports the papers first, so that every one is known.

    Raises:
        SpecError: no such network or method; names the known ones.
    """
    if name not in kind.known:
        for paper in importlib.import_module("thriftylib.papers").names():
            importlib.import_module(f"thriftylib.papers.{paper}")
    if name not in kind.known:
        noun = "network" if kind is NetworkOptions else "method"
        raise SpecError(f"unknown {noun} {name!r}" + suggest(name, kind.known))
    return kind.known[name]
