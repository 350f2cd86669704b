"""ThriftyNets (Coiffier, Boukli Hacene, Gripon, 2020; arXiv 2007.10106): one convolution W used at every depth.

::

    x_0     = PAD(image)                                       zero channels appended up to f filters; no learned stem
    x_{t+1} = D_t(BN_t(sigma(W * x_t) + x_t))                                           plain, figure 1 left
    x_{t+1} = D_t(BN_t(a[t,0] sigma(W * x_t) + sum_{i=1..h} a[t,i] x_{t-h+i}))          augmented, figure 1 right
    logits  = Linear(max over the map of x_T)

W is shared by all T iterations; the batch norms and the mixing coefficients are not. D_t is a 2x2 max-pool at the
iterations that ``pool`` names, of the new state and of every state in the history, and nothing elsewhere. What the
figure leaves open (order of the coefficients, their initial values, the history's length) follows the authors' code.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from thriftylib import cost
from thriftylib.cost import Cost, Size, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, NetworkOptions
from thriftylib.papers.networks import resnet_terms
from thriftylib.schedules import Count

if TYPE_CHECKING:
    from torch import nn

Pool = int | Annotated[tuple[int, ...], Field(strict=False)] | None
Activation = Literal["tanh", "relu", "leaky", "softplus", "rrelu", "celu", "tanhshrink", "swish", "hswish", "retanh"]


class RecursionOptions(NetworkOptions):
    """What the recursion is, whatever its size; the defaults are the authors' last code (3 July 2020)."""

    fast = ("recursion",)

    recursion: Literal["augmented", "plain"] = "augmented"
    shared: bool = True  # False: the un-factorised control, a convolution of its own for each iteration
    history: Count = Field(  # h, x_t included; left out: 5, but 1 for the plain recursion and the control
        default_factory=lambda given: 5 if given.get("shared") and given.get("recursion") == "augmented" else 1
    )
    alpha_main: Literal["oldest", "newest"] = "oldest"  # whose coefficient is 0.9 at first; authors: the oldest's
    alpha_init: Literal["main", "half", "one"] = "main"  # 0.1, 0.9 and else 0; 0.5 everywhere; 1.0 everywhere
    history_bug: bool = False  # True: the oldest slot of a history >= 2 stays empty, as before 19 June 2020
    conv: Literal["classic", "mb1", "mb2", "mb4"] = "mb1"
    activation: Activation = "tanh"
    norm: Literal["separate", "shared"] = "separate"  # shared: one batch norm for all iterations
    norm_affine: bool = True
    head: Literal["max", "flatten"] = "max"

    @model_validator(mode="after")
    def _plain_has_no_coefficients(self) -> Self:
        only = {"history": 1, "alpha_main": "oldest", "alpha_init": "main", "history_bug": False}
        for field, value in only.items():
            if self.recursion == "plain" and getattr(self, field) != value:
                raise SpecError(f"{field} = {getattr(self, field)!r}: must be {value!r} for recursion = 'plain'")
        return self

    @property
    def reduction(self) -> int:
        """k of mb_k, of which ``filters`` must be a multiple; 1 for classic."""
        return 1 if self.conv == "classic" else int(self.conv[2:])

    def features(self, shape: ImageShape) -> int:
        """Inputs of the linear layer after an x_T of ``shape`` (C, H, W)."""
        return shape[0] if self.head == "max" else math.prod(shape)

    def trunk(self, image_shape: ImageShape) -> tuple[list[Term], ImageShape]:
        """The cost of all but the head, and the shape (f, H', W') of x_T.

        Raises:
            SpecError: fewer filters than channels, or a pool that meets a map smaller than 2x2.
        """
        raise NotImplementedError

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """N = conv + 2fT + T(h+1) + Cf + C parameters where nothing else is asked for; MACs at every use of W."""
        terms, shape = self.trunk(image_shape)
        return Cost((*terms, cost.linear("head", self.features(shape), classes)))


class ThriftyNetOptions(RecursionOptions, network="thriftynet"):
    """A ThriftyNet of width ``filters``, or the widest that fits ``n_params`` parameters (neither: 128 filters).

    ``pool``: an integer p pools after each iteration t with t % p == p - 1; a list names the iterations, from 0 on;
    ``None`` never pools. Left out, it is ``iterations / 5`` rounded up: at most 5 pools, as in the authors' benches.
    """

    stem: ClassVar[tuple[int, ...]] = ()  # channels of a ResNet's first layers; the recursion is after them

    n_params: Count | None = None
    filters: Annotated[Count | None, Field(validate_default=True)] = None
    iterations: Count = 20
    pool: Pool = Field(default_factory=lambda given: -(-given.get("iterations", 1) // 5))

    @field_validator("filters")
    @classmethod
    def _one_of_two(cls, filters: int | None, info: ValidationInfo) -> int | None:
        n_params = info.data.get("n_params")
        if filters is not None and n_params is not None:
            raise SpecError(f"filters = {filters} and n_params = {n_params}: give only one of them")
        return filters or (None if n_params else 128)

    @field_validator("pool", mode="before")
    @classmethod
    def _pool_is_possible(cls, pool: Any, info: ValidationInfo) -> Any:
        if "iterations" not in info.data:
            return None  # they are wrong themselves, and that error comes first
        iterations = info.data["iterations"]
        if pool is None or (type(pool) is int and pool >= 1):
            return pool
        if isinstance(pool, list | tuple) and pool and list(pool) == [t for t in range(iterations) if t in pool]:
            return pool
        raise SpecError(
            f"pool = {pool!r}: must be a period >= 1, a rising list of iterations from 0 to {iterations - 1}, or None"
        )

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if self.filters is not None and self.filters % self.reduction:
            raise SpecError(f"filters = {self.filters}: must be a multiple of {self.reduction} for conv {self.conv}")
        return self

    @property
    def pools(self) -> tuple[int, ...]:
        """The iterations (from 0) after which the maps are halved."""
        if isinstance(self.pool, int):
            return tuple(range(self.pool - 1, self.iterations, self.pool))
        return self.pool or ()

    def sizes(self, shape: ImageShape) -> list[Size]:
        """(H, W) of x_0, ..., x_T for a recursion on maps of ``shape``; halves are rounded down."""
        sizes = [shape[1:]]
        for t in range(self.iterations):
            height, width = sizes[-1]
            if t in self.pools and min(height, width) < 2:
                raise SpecError(f"pool = {self.pool}: iteration {t} meets a {height}x{width} map, needs 2x2 or more")
            sizes.append((height // 2, width // 2) if t in self.pools else (height, width))
        return sizes

    def trunk(self, image_shape: ImageShape) -> tuple[list[Term], ImageShape]:
        terms, shape = resnet_terms(image_shape, self.stem, conv_shortcuts=True)
        f, narrow = self.filters, self.filters // self.reduction
        if f < shape[0]:
            raise SpecError(f"filters = {f}: must be at least {shape[0]}, the channels of the input")
        *sizes, last = self.sizes(shape)
        terms += [cost.batch_norm("norms", f, sizes, affine=self.norm_affine, shared=self.norm == "shared")]
        for t, uses in enumerate([sizes] if self.shared else [[size] for size in sizes]):
            if self.conv == "classic":
                terms += [cost.conv(f"conv {t}", f, f, 3, uses)]
            else:
                terms += [cost.conv(f"conv {t} 3x3", f, narrow, 3, uses, groups=narrow)]
                terms += [cost.conv(f"conv {t} 1x1", narrow, f, 1, uses)]
        if self.recursion == "augmented":
            terms += [cost.free("alpha", self.iterations * (self.history + 1))]
        return terms, (f, *last)

    def resolve(self, image_shape: ImageShape, classes: int) -> Self:
        """With ``n_params`` replaced by the largest ``filters`` whose count does not exceed it.

        Raises:
            SpecError: not even the smallest width fits, or the network cannot be built for such images.
        """
        if self.n_params is None:
            return super().resolve(image_shape, classes)

        def count(filters: int) -> int:
            return self.model_copy(update={"filters": filters, "n_params": None}).cost(image_shape, classes).parameters

        channels = (image_shape[0], *self.stem)[-1]
        low = -(-channels // self.reduction) * self.reduction
        widths = range(low, max(low, self.n_params) + 1, self.reduction)  # each filter costs at least one parameter
        fitting = bisect_right(widths, self.n_params, key=count)
        if not fitting:
            raise SpecError(f"n_params = {self.n_params}: must be at least {count(low)}, the count with {low} filters")
        return self.model_copy(update={"filters": widths[fitting - 1], "n_params": None})

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        if self.n_params is not None:
            return self.resolve(image_shape, classes).cost(image_shape, classes)
        return super().cost(image_shape, classes)

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """A :class:`~thriftylib.papers.thriftynet_recursion.ThriftyNet` with PyTorch's default initialisation."""
        from torch import nn

        from thriftylib.papers.networks_parts import basic_blocks, conv_shortcut
        from thriftylib.papers.thriftynet_recursion import ThriftyNet, make_head

        options = self.resolve(image_shape, classes)
        _, shape = options.trunk(image_shape)
        stem = basic_blocks(image_shape[0], self.stem, conv_shortcut) if self.stem else []
        network = ThriftyNet(options, make_head(options.head, options.features(shape), classes))
        return nn.Sequential(*stem, network) if stem else network


class BlockThriftyNetOptions(RecursionOptions, network="block-thriftynet"):
    """Thrifty blocks in series, each with a W, width, iterations and pools of its own; zero channels pad between them.

    The defaults are the authors' network of April 2020: 548,820 parameters for 32x32 images and 100 classes.
    """

    filters: Annotated[tuple[int, ...], Field(strict=False, min_length=1)] = (200, 500)
    iterations: Annotated[tuple[int, ...], Field(strict=False)] = (30, 40)
    pool: Annotated[tuple[Pool, ...], Field(strict=False)] = ((14, 29), (14, 29))  # each as in ThriftyNetOptions
    head: Literal["max", "flatten"] = "flatten"

    @model_validator(mode="after")
    def _blocks_are_possible(self) -> Self:
        if not len(self.filters) == len(self.iterations) == len(self.pool):
            raise SpecError(
                f"iterations = {self.iterations} and pool = {self.pool}: "
                f"must each have {len(self.filters)} entries, as filters = {self.filters} has"
            )
        list(self._blocks())  # each checks itself
        return self

    def _blocks(self, shape: ImageShape | None = None) -> Iterator[tuple[ThriftyNetOptions, list[Term], ImageShape]]:
        """Each block's options and, for images of ``shape``, its cost and the shape that it hands over."""
        common = {field: getattr(self, field) for field in RecursionOptions.model_fields}
        for i, (filters, iterations, pool) in enumerate(zip(self.filters, self.iterations, self.pool, strict=True)):
            try:
                block = ThriftyNetOptions(filters=filters, iterations=iterations, pool=pool, **common)
                terms, shape = block.trunk(shape) if shape else ([], None)
            except SpecError as error:
                raise SpecError(f"block {i}: {error}") from None
            yield block, [replace(term, name=f"block {i} {term.name}") for term in terms], shape

    def trunk(self, image_shape: ImageShape) -> tuple[list[Term], ImageShape]:
        _, terms, shapes = zip(*self._blocks(image_shape), strict=True)
        return list(chain(*terms)), shapes[-1]

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """A :class:`~thriftylib.papers.thriftynet_recursion.ThriftyNet` without a head for each block, then a head."""
        from torch import nn

        from thriftylib.papers.thriftynet_recursion import ThriftyNet, make_head

        options, _, shapes = zip(*self._blocks(image_shape), strict=True)
        blocks = [ThriftyNet(block, head=nn.Identity()) for block in options]
        return nn.Sequential(*blocks, make_head(self.head, self.features(shapes[-1]), classes))


class EmbeddedThriftyNetOptions(ThriftyNetOptions, network="embedded-thriftynet"):
    """A ThriftyNet that sees, in place of the image, the 128 channels at half size which a ResNet's first blocks make.

    The stem, which counts in ``n_params``: 3x3 convolution to 64 channels, ``BasicBlock(64)``, ``BasicBlock(128)`` with
    stride 2. T = 18 and p = 6 are the authors' ImageNet script's (July 2020); left out, ``pool`` is T / 3 rounded up.
    """

    stem = (64, 64, 128)
    iterations: Count = 18
    pool: Pool = Field(default_factory=lambda given: -(-given.get("iterations", 1) // 3))
