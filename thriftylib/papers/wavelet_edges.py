"""Wavelet edges: a fixed layer before any network feeds it an image's edges, found by wavelets.

"Wavelet based edge feature enhancement for convolutional neural networks" (De Silva, Fernando, Piyatilake &
Karunarathne, 2018; arXiv 1809.00982), known to us by its abstract alone. Two methods, each a preprocessing layer::

    method 1   x_e = reconstruct(decompose(x), in a limited way)
    method 2   x_e = M where M is a local maximum along its gradient, else 0      M = sqrt(W_h^2 + W_v^2)

What "limited" is, and all else, is inferred. Reading 1a: the approximation is left out. 1b: fewer inverse than forward
steps. 1c: x + g x_e. Method 2 is Mallat and Zhong's: W_h and W_v are the details of an undecimated transform across
and down the image, and the gradient has one of four directions.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple, Self, get_args

from pydantic import Field, JsonValue, model_validator

from thriftylib import cost
from thriftylib.cost import Cost, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, NetworkOptions, find, suggest
from thriftylib.schedules import Count
from thriftylib.spec import NO_NETWORK

if TYPE_CHECKING:
    from torch import nn

Feature = Literal["details", "maxima", "sobel", "random", "image"]
"""Method 1, method 2; and controls: the gradient's modulus by Sobel, the same by two random 3x3 filters, no change."""
Mode = Literal["symmetric", "reflect", "periodic", "constant", "zero"]
"""What is beyond the image, by PyWavelets' names."""
Band = Literal["A", "H", "V", "D"]
"""Approximation; details: horizontal edges, vertical ones, diagonal ones, as PyWavelets orders them."""
SPLINE = "spline"
_FOR: dict[str, tuple[Feature, ...]] = {  # the features that read an option; others need its default
    "level": ("details", "maxima"),
    "inverse": ("details",),
    "keep": ("details",),
    "mode": ("details", "maxima", "sobel", "random"),
    "threshold": ("maxima",),
    "mask": ("maxima",),
    "filter_seed": ("random",),
}


class Filters(NamedTuple):
    """Equally long filters, by PyWavelets' conventions: convolutions, not correlations."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    inverse_low: tuple[float, ...]
    inverse_high: tuple[float, ...]
    across: tuple[float, ...]  # of the undecimated transform: along the other axis than the high-pass


@cache
def filters(wavelet: str) -> Filters:
    """The filters of one of PyWavelets' discrete wavelets, or of Mallat and Zhong's quadratic spline, without inverse.

    The spline's low-pass is (1, 3, 3, 1) / 8, its high-pass the difference of two neighbours times 2, without smoothing
    along the other axis.

    Raises:
        SpecError: no such wavelet; names the known ones.
    """
    import pywt  # a tenth of a second

    if wavelet == SPLINE:
        low, high, one = (1 / 8, 3 / 8, 3 / 8, 1 / 8), (0.0, 2.0, -2.0, 0.0), (0.0, 0.0, 1.0, 0.0)
        return Filters(low, high, (), (), one)
    if wavelet not in (known := pywt.wavelist(kind="discrete")):
        raise SpecError(f"wavelet = {wavelet!r}" + suggest(wavelet, [SPLINE, *known]))
    bank = [tuple(map(float, each)) for each in pywt.Wavelet(wavelet).filter_bank]
    return Filters(*bank, bank[0])


class WaveletEdgesOptions(NetworkOptions, network="wavelet-edges"):
    """Any network of the book, ``inner``, behind a fixed layer without parameters; the defaults are reading 1a.

    The edges replace the image, are added to it, or are further channels beside it. What the inner network then reads
    is standardised by a batch norm without parameters, as images are by their data set's constants (inferred).
    """

    fast = ("fused_blocks", "recursion")  # of inner networks

    inner: str = "smallnet"
    inner_options: dict[str, JsonValue] = {}
    feature: Feature = "details"
    wavelet: str | None = Field(
        default_factory=lambda given: {"details": "haar", "maxima": SPLINE}.get(given.get("feature"))
    )
    level: Count = 1  # J: details of the transform's levels 1 to J, maxima of level J alone
    inverse: Count | None = None  # steps; fewer than level (1b) give images smaller by 2^(level - inverse). None: level
    keep: Annotated[tuple[Band, ...], Field(strict=False, min_length=1)] = ("H", "V", "D")  # for the reconstruction
    mode: Mode = "symmetric"
    threshold: Annotated[float, Field(ge=0)] = 0.0  # of the modulus; what is not above it is 0
    mask: bool = False  # 1 in place of the modulus
    combine: Literal["replace", "add", "concatenate"] = "replace"
    gain: float = 1.0  # g, of what is added
    per_channel: bool = True  # False: of the luma (BT.601 weights of the channels as the network gets them)
    standardise: bool = True
    filter_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0  # of random filters

    @model_validator(mode="after")
    def _possible(self) -> Self:
        defaults = {name: type(self).model_fields[name].default for name in (*_FOR, "gain")}
        for name, features in _FOR.items():
            if self.feature not in features and (value := getattr(self, name)) != defaults[name]:
                raise SpecError(f"{name} = {value!r}: needs feature = {' or '.join(map(repr, features))}")
        if self.gain != 1 and self.combine != "add":
            raise SpecError(f"gain = {self.gain}: needs combine = 'add'; else standardising undoes it")
        if (self.wavelet is not None) != (self.feature in _FOR["level"]):
            needed = "a wavelet" if self.wavelet is None else "None"
            raise SpecError(f"wavelet = {self.wavelet!r}: must be {needed} for feature = {self.feature!r}")
        if self.wavelet is not None and not filters(self.wavelet).inverse_low and self.feature == "details":
            raise SpecError(
                f"wavelet = {self.wavelet!r}: has no inverse; feature = 'details' needs one, such as 'haar'"
            )
        if list(self.keep) != [band for band in get_args(Band) if band in self.keep]:
            raise SpecError(f"keep = {list(self.keep)}: must name each band once, in the order A, H, V, D")
        if self.steps > self.level:
            raise SpecError(f"inverse = {self.inverse}: must be at most level = {self.level}")
        if self.steps < self.level and self.combine != "replace":
            raise SpecError(f"inverse = {self.inverse}: gives smaller images, which need combine = 'replace'")
        if self.inner in (NO_NETWORK, self.network):
            raise SpecError(f"inner = {self.inner!r}: must be another network")
        self._inner()
        return self

    @property
    def steps(self) -> int:
        """Inverse steps of method 1."""
        return self.inverse or self.level

    @property
    def is_complement(self) -> bool:
        """Whether the edges are the image less its approximation, which takes one map and not two: reading 1a."""
        return self.feature == "details" and self.keep == ("H", "V", "D") and self.steps == self.level

    def _inner(self) -> NetworkOptions:
        return find(NetworkOptions, self.inner).model_validate(self.inner_options)

    def inner_shape(self, image_shape: ImageShape) -> ImageShape:
        """What the inner network reads of images (C, H, W).

        Raises:
            SpecError: luma of neither 1 nor 3 channels, or images too small for so many levels.
        """
        channels, *size = image_shape
        if not self.per_channel and channels not in (1, 3):
            raise SpecError(f"per_channel = False: needs images of 1 or 3 channels, not {channels}")
        if self.wavelet is not None:
            import pywt

            taps = len(filters(self.wavelet).low)
            if self.level > (most := pywt.dwt_max_level(min(size), taps)):
                images = f"images of {size[0]}x{size[1]}"
                raise SpecError(f"level = {self.level}: must be at most {most} for {images} and {self.wavelet}")
            for _ in range(self.level - self.steps):
                size = [(pixels + taps - 1) // 2 for pixels in size]
        edges = channels if self.per_channel else 1
        return {"replace": edges, "add": channels, "concatenate": channels + edges}[self.combine], *size

    def _maps(self) -> int:
        """How many maps L X R^T of each channel the layer sums, or takes the modulus of."""
        if self.feature != "details":
            return 2
        details = set(self.keep) - {"A"}
        if len(details) == 3:
            return 2 - ("A" in self.keep or self.is_complement)
        return ("A" in self.keep) + self.steps * len(details)

    def resolve(self, image_shape: ImageShape, classes: int) -> Self:
        """These options with the inner network's complete ones."""
        inner = self._inner().resolve(self.inner_shape(image_shape), classes)
        return self.model_copy(update={"inner_options": inner.model_dump(mode="json")})

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """The inner network's, and two products with fixed matrices for each map of each channel."""
        channels, height, width = image_shape
        shape = outputs, rows, columns = self.inner_shape(image_shape)
        maps = self._maps() * (channels if self.per_channel else 1)
        sizes = {"across": (height * columns, width), "down": (rows * columns, height)}
        terms = [
            Term(f"edges {axis}", 0, macs=maps * pixels * length, activations=maps * pixels)
            for axis, (pixels, length) in sizes.items()
            if self.feature != "image"
        ]
        terms += [cost.batch_norm("edges norm", outputs, [(rows, columns)], affine=False)] * self.standardise
        return Cost((*terms, *self._inner().cost(shape, classes).terms))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """A chain of two: the layer, ``edges``, and the inner ``network``."""
        from thriftylib.papers.wavelet_edges_layer import behind_edges

        network = self._inner().build(self.inner_shape(image_shape), classes)
        return behind_edges(self, image_shape, network)
