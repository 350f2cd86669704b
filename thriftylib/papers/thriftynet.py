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
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib import cost
from thriftylib.cost import Cost, Size, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, NetworkOptions
from thriftylib.spec import Count

Pool = int | Annotated[tuple[int, ...], Field(strict=False)] | None
Activation = Literal["tanh", "relu", "leaky", "softplus", "rrelu", "celu", "tanhshrink", "swish", "hswish", "retanh"]


class ReTanh(nn.Module):
    """x tanh(x), elementwise (authors' code)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.tanh()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "softplus": nn.Softplus,
    "rrelu": nn.RReLU,  # draws from the global generator while training
    "celu": nn.CELU,
    "tanhshrink": nn.Tanhshrink,
    "swish": nn.SiLU,
    "hswish": nn.Hardswish,
    "retanh": ReTanh,
}


class ThriftyNet(nn.Module):
    """Images (N, C, H, W) to whatever ``head`` makes of x_T, (N, filters, H', W').

    Args:
        options: with ``filters`` given (``options.resolve`` turns a parameter budget into it).
        head: from x_T to logits; ``nn.Identity()`` where another network takes x_T.
    """

    def __init__(self, options: ThriftyNetOptions, head: nn.Module) -> None:
        super().__init__()
        filters, iterations, history = options.filters, options.iterations, options.history
        self.iterations, self.pools = iterations, options.pools
        # Until 19 June 2020 the authors' code shifted its history from index 1 on: the oldest slot stayed empty.
        self.kept_states = history - 1 if options.history_bug and history > 1 else history
        self.convs = nn.ModuleList(_conv(options) for _ in range(1 if options.shared else iterations))
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(filters, affine=options.norm_affine)
            for _ in range(1 if options.norm == "shared" else iterations)
        )
        self.activation = ACTIVATIONS[options.activation]()
        self.register_parameter("alpha", nn.Parameter(_alpha(options)) if options.recursion == "augmented" else None)
        self.head = head

    @property
    def filters(self) -> int:
        """Channels of every state, as the norms have them: a method may narrow them."""
        return self.norms[0].num_features

    def forward(self, images: Tensor) -> Tensor:
        """The recursion: (N, C, H, W) floats with C <= filters in, the head's output out."""
        states = [F.pad(images, (0, 0, 0, 0, 0, self.filters - images.shape[1]))]  # x_0 = PAD(image)
        for t in range(self.iterations):
            states = [*states, self.step(t, states)][-self.kept_states :]
            if t in self.pools:  # D_t
                states = [F.max_pool2d(state, 2) for state in states]
        return self.head(states[-1])

    def step(self, t: int, states: Sequence[Tensor]) -> Tensor:
        """x_{t+1} before pooling, (N, f, H, W), from the live states, oldest first: ``states[-1]`` is x_t.

        States that do not exist yet are not in ``states``, so its length grows from 1 to at most h.
        """
        activated = self.activation(self.convs[t % len(self.convs)](states[-1]))  # sigma(W * x_t)
        if self.alpha is None:
            mixed = activated + states[-1]
        else:
            mixed = self.alpha[t, 0] * activated
            oldest = self.alpha.shape[1] - len(states)  # a[t,h], the last coefficient, belongs to x_t
            for i, state in enumerate(states, start=oldest):
                mixed = mixed + self.alpha[t, i] * state
        return self.norms[t % len(self.norms)](mixed)


class GlobalMaxPool(nn.Module):
    """(N, f, H, W) to (N, f); unlike ``AdaptiveMaxPool2d``'s, the backward pass is deterministic on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


def make_head(kind: Literal["max", "flatten"], shape: ImageShape, classes: int) -> nn.Module:
    """Global max-pool or flatten, then a linear layer with bias: (N, C, H, W) to (N, classes)."""
    pool = GlobalMaxPool() if kind == "max" else nn.Flatten()
    return nn.Sequential(pool, nn.Linear(shape[0] if kind == "max" else math.prod(shape), classes))


def head_term(kind: Literal["max", "flatten"], shape: ImageShape, classes: int) -> Term:
    """The cost of :func:`make_head`."""
    return cost.linear("head", shape[0] if kind == "max" else math.prod(shape), classes)


def _conv(options: ThriftyNetOptions) -> nn.Module:
    """W: 3x3 (classic), or grouped 3x3 from f to f/k channels and then 1x1 back to f (mb_k), nothing between."""
    filters, narrow = options.filters, options.filters // options.reduction
    if options.conv == "classic":
        return nn.Conv2d(filters, filters, 3, padding=1, bias=False)
    return nn.Sequential(
        nn.Conv2d(filters, narrow, 3, padding=1, groups=narrow, bias=False),
        nn.Conv2d(narrow, filters, 1, bias=False),
    )


def _alpha(options: ThriftyNetOptions) -> Tensor:
    """a (T, h+1) at its start: column 0 is the activation's, column 1 the oldest state's, column h that of x_t."""
    alpha = torch.zeros(options.iterations, options.history + 1)
    if options.alpha_init == "main":
        alpha[:, 0] = 0.1
        alpha[:, 1 if options.alpha_main == "oldest" else -1] = 0.9
    else:
        alpha.fill_({"half": 0.5, "one": 1.0}[options.alpha_init])
    return alpha


class RecursionOptions(NetworkOptions):
    """What the recursion is, whatever its size; the defaults are the authors' last code (3 July 2020)."""

    fast = ("recursion",)

    recursion: Literal["augmented", "plain"] = "augmented"
    shared: bool = True  # False: the un-factorised control, a convolution of its own for each iteration
    history: Count = Field(  # h, x_t included; left out: 5, but 1 for the plain recursion and the control
        default_factory=lambda given: 5 if given.get("shared") and given.get("recursion") == "augmented" else 1
    )
    alpha_main: Literal["oldest", "newest"] = "oldest"  # which state's coefficient starts at 0.9; authors: the oldest
    alpha_init: Literal["main", "half", "one"] = "main"  # 0.1, 0.9 and else 0; 0.5 everywhere; 1.0 everywhere
    history_bug: bool = False  # True: the oldest slot of a history >= 2 stays empty, as before 19 June 2020
    conv: Literal["classic", "mb1", "mb2", "mb4"] = "mb1"
    activation: Activation = "tanh"
    norm: Literal["separate", "shared"] = "separate"  # shared: one batch norm for all iterations
    norm_affine: bool = True
    head: Literal["max", "flatten"] = "max"

    @model_validator(mode="after")
    def _plain_has_no_coefficients(self) -> Self:
        if self.recursion == "plain":
            only = {"history": 1, "alpha_main": "oldest", "alpha_init": "main", "history_bug": False}
            for field, value in only.items():
                if getattr(self, field) != value:
                    raise SpecError(f"{field} = {getattr(self, field)!r}: must be {value!r} for recursion = 'plain'")
        return self

    @property
    def reduction(self) -> int:
        """k of mb_k, of which ``filters`` must be a multiple; 1 for classic."""
        return 1 if self.conv == "classic" else int(self.conv[2:])


class ThriftyNetOptions(RecursionOptions, network="thriftynet"):
    """A ThriftyNet of width ``filters``, or the widest that fits ``n_params`` parameters (neither: 128 filters).

    ``pool``: an integer p pools after each iteration t with t % p == p - 1; a list names the iterations, from 0 on;
    ``None`` never pools. Left out, it is ``iterations / 5`` rounded up: at most 5 pools, as in the authors' benches.
    """

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

    def sizes(self, image_shape: ImageShape) -> list[Size]:
        """(H, W) of x_0, ..., x_T; halves are rounded down.

        Raises:
            SpecError: a pool would meet a map smaller than 2x2.
        """
        _, height, width = image_shape
        sizes = [(height, width)]
        for t in range(self.iterations):
            if t in self.pools:
                if min(height, width) < 2:
                    raise SpecError(
                        f"pool = {self.pool}: iteration {t} meets a {height}x{width} map, needs 2x2 or more"
                    )
                height, width = height // 2, width // 2
            sizes.append((height, width))
        return sizes

    def output_shape(self, image_shape: ImageShape) -> ImageShape:
        """(f, H', W') of x_T."""
        return (self.filters, *self.sizes(image_shape)[-1])

    def recursion_terms(self, image_shape: ImageShape) -> list[Term]:
        """The cost of the iterations, without a head: conv + 2fT + T(h+1) parameters where nothing else is asked for.

        Raises:
            SpecError: fewer filters than channels, or a pool that meets a map smaller than 2x2.
        """
        f, narrow = self.filters, self.filters // self.reduction
        if f < image_shape[0]:
            raise SpecError(f"filters = {f}: must be at least {image_shape[0]}, the channels of the input")
        *sizes, _ = self.sizes(image_shape)
        terms = []
        for t, uses in enumerate([sizes] if self.shared else [[size] for size in sizes]):
            name = "conv" if self.shared else f"conv {t}"
            if self.conv == "classic":
                terms += [cost.conv(name, f, f, 3, uses)]
            else:
                terms += [
                    cost.conv(f"{name} 3x3", f, narrow, 3, uses, groups=narrow),
                    cost.conv(f"{name} 1x1", narrow, f, 1, uses),
                ]
        terms += [cost.batch_norm("norms", f, sizes, affine=self.norm_affine, shared=self.norm == "shared")]
        if self.recursion == "augmented":
            terms += [cost.free("alpha", self.iterations * (self.history + 1))]
        return terms

    def least_filters(self, image_shape: ImageShape) -> int:
        """The smallest width that the input and the conv mode allow."""
        return -(-image_shape[0] // self.reduction) * self.reduction

    def resolve(self, image_shape: ImageShape, classes: int) -> Self:
        """With ``n_params`` replaced by the largest ``filters`` whose count does not exceed it.

        Raises:
            SpecError: not even the smallest width fits, or the network cannot be built for such images.
        """
        if self.n_params is None:
            return super().resolve(image_shape, classes)

        def at(filters: int) -> Self:
            return self.model_copy(update={"filters": filters, "n_params": None})

        least = self.least_filters(image_shape)
        widths = range(least, max(least, self.n_params) + 1, self.reduction)  # each filter costs at least one parameter
        fitting = bisect_right(widths, self.n_params, key=lambda f: at(f).cost(image_shape, classes).parameters)
        if not fitting:
            needed = at(least).cost(image_shape, classes).parameters
            raise SpecError(f"n_params = {self.n_params}: must be at least {needed}, the count with {least} filters")
        return at(widths[fitting - 1])

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """N = conv + 2fT + T(h+1) + Cf + C parameters where nothing else is asked for; MACs at every use of W."""
        if self.n_params is not None:
            return self.resolve(image_shape, classes).cost(image_shape, classes)
        terms = self.recursion_terms(image_shape)
        return Cost((*terms, head_term(self.head, self.output_shape(image_shape), classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """A :class:`ThriftyNet` with PyTorch's default initial weights."""
        options = self.resolve(image_shape, classes)
        return ThriftyNet(options, make_head(options.head, options.output_shape(image_shape), classes))
