"""Deep Anchored CNNs (Huang, Dwivedi, Roig, 2019; arXiv 1904.09764): one kernel used in many layers.

::

    stem     x <- relu(BN(W_0 * image))                        W_0 is the stem's own
    VGG      x <- relu(BN(W * x))
    ResNet   x <- relu(x + R(BN_b(W * relu(BN_a(W * x)))))     R: a regulator, dense 1x1 without bias, or nothing

W is one 3x3 kernel wherever its shape recurs. At one width throughout that is the whole trunk (*plain*); where the
widths grow from stage to stage it is each width's own, and the convolutions between widths are used once (*mix*).
Every stage ends in a 2x2 max-pool; a global average pool and one linear layer make the logits. The paper's body is not
publicly readable: the structure follows the authors' code and figures. READING marks what we infer from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from thriftylib import cost
from thriftylib.cost import Cost, Size, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, MethodOptions
from thriftylib.papers.networks import Counts, NormInitOptions
from thriftylib.spec import Count

if TYPE_CHECKING:
    from torch import nn

    from thriftylib.papers.dacnn_statistics import NormStatistics


Norm = Literal["free", "affine", "shared"]
"""Batch norms: one for each use ("free"); statistics for each use, one affine map per kernel; one per kernel."""


@dataclass(frozen=True)
class Layer:
    """One use of a 3x3 convolution, on maps of ``size`` (H, W), and what goes with it."""

    inputs: int
    outputs: int
    size: Size
    kernel: int  # which of the network's, in the order of their first use
    pool: bool  # a 2x2 max-pool follows
    bias: bool = False
    regulator: bool = False  # a 1x1 convolution after the batch norm
    shortcut: bool = False  # a 1x1 convolution and batch norm around the residual block that begins here
    bare: bool = False  # neither batch norm nor ReLU follows


def make_layers(image_shape: ImageShape, outputs: Sequence[int], pools: Sequence[int], *, shared: bool) -> list[Layer]:
    """The layers with ``outputs`` channels and pools after the uses ``pools``; a shape that recurs has one kernel.

    Raises:
        SpecError: the image is too small for so many pools.
    """
    channels, height, width = image_shape
    if min(height, width) < 2 ** len(pools):
        raise SpecError(
            f"pools = {len(pools)}: needs images of at least {2 ** len(pools)}x{2 ** len(pools)}, not {height}x{width}"
        )
    kernels: dict[object, int] = {}
    layers = []
    for i, shape in enumerate(pairwise((channels, *outputs))):
        kernel = kernels.setdefault(shape if shared and i else i, len(kernels))  # the stem's is its own, come what may
        layers.append(Layer(*shape, (height, width), kernel, pool=i in pools))
        if i in pools:
            height, width = height // 2, width // 2
    return layers


def by_kernel(layers: Sequence[Layer]) -> list[list[Layer]]:
    """The layers that use each kernel."""
    return [[layer for layer in layers if layer.kernel == k] for k in range(1 + max(x.kernel for x in layers))]


def trunk_terms(layers: Sequence[Layer], norm: Norm) -> list[Term]:
    """The cost of a :class:`Trunk` without its head; all 3x3 convolutions but the stem's are named "trunk conv ..."."""
    terms = []
    for k, uses in enumerate(by_kernel(layers)):
        first, sizes = uses[0], [layer.size for layer in uses]
        conv, name = (f"trunk conv {k}", f"trunk norm {k}") if k else ("stem conv", "stem norm")
        terms += [cost.conv(conv, first.inputs, first.outputs, 3, sizes, bias=first.bias)]
        if not (normed := [layer.size for layer in uses if not layer.bare]):
            continue
        own = norm != "affine"
        terms += [cost.batch_norm(name, first.outputs, normed, affine=own, shared=norm == "shared")]
        if not own:
            terms += [cost.free(f"{name} affine", 2 * first.outputs)]
    for i, layer in enumerate(layers):
        if layer.regulator:
            terms += [cost.conv(f"regulator {i}", layer.outputs, layer.outputs, 1, [layer.size])]
        if layer.shortcut:
            terms += [
                cost.conv(f"shortcut conv {i}", layer.inputs, layer.outputs, 1, [layer.size]),
                cost.batch_norm(f"shortcut norm {i}", layer.outputs, [layer.size]),
            ]
    return terms


def check_norm(norm: Norm, shared: bool) -> None:
    """A kernel that is used once has but one batch norm: another ``norm`` would be another name for the same network.

    Raises:
        SpecError: it is not "free", though no kernel is shared.
    """
    if not shared and norm != "free":
        raise SpecError(f"norm = {norm!r}: must be 'free' for shared = False")


VGG_CONVS = (2, 2, 3, 3, 3)  # in each stage
RESNET_BLOCKS = {18: (2, 2, 2, 2), 24: (2, 3, 4, 2), 34: (3, 4, 6, 3)}  # 24: READING, 11 blocks by its depth
STAGES = {"vgg": 5, "resnet": 4}
REGULATED: dict[str, Callable[[int], bool]] = {  # which uses of a convolution, from the stem's, 0, on
    "none": lambda i: False,
    "per-block": lambda i: i > 0 and i % 2 == 0,
    "two-per-block": lambda i: i > 0,
    "per-layer": lambda i: True,
    "depth": lambda i: True,  # and one in the head
}


class TrunkOptions(NormInitOptions):
    """Networks built on a :class:`~thriftylib.papers.dacnn_trunk.Trunk`."""

    def with_norms(self, network: nn.Module) -> nn.Module:
        """``network`` with its batch norms as ``norm_init`` says, also where an affine map serves several of them."""
        from torch import nn

        if self.norm_init == "uniform":
            for weight, _ in network.affine:
                nn.init.uniform_(weight)
        return super().with_norms(network)


class DacnnOptions(TrunkOptions, network="dacnn"):
    """DACNN14 in the VGG layout, DACNN18, 24 and 34 in the ResNet layout; the defaults are the plain DACNN14.

    ``regulators`` lie after a batch norm: of each block's second convolution ("per-block": the authors' diagram), of
    both ("two-per-block"), of every convolution with the stem ("per-layer": L - 1 of them), and one more between the
    average pool and the linear layer ("depth": L, the number that the plotted counts of the plain nets fit). The
    places of the last two are our READING: no code or diagram of a plain net with regulators is public.
    ``swap`` is what the released code does in their place: each block's convolutions rotate their output by one
    channel, and the shortcut is rotated by two (READING: upwards, before the batch norm; so is the stem's output).
    ``shared`` = False gives every use a kernel of its own: the unshared counterpart of equal width.

    DACNN14's released files differ from the other three: the plain one has ``order`` "conv-relu-bn", and in the mixed
    one neither batch norm nor ReLU follows the fifth stage's first convolution (``bare_fifth``), which the diagram does
    not show. Neither changes the plotted count, which leaves out batch norms and biases of convolutions.
    """

    depth: Literal[14, 18, 24, 34] = 14  # weight layers
    layout: Literal["vgg", "resnet"] = Field(
        default_factory=lambda given: "vgg" if given.get("depth") == 14 else "resnet"
    )
    sharing: Literal["plain", "mix"] = "plain"
    width: int | Annotated[tuple[int, ...], Field(strict=False)] = Field(  # plain: a number; mix: one for each stage
        default_factory=lambda given: (
            128 if given.get("sharing") == "plain" else (64, 128, 256, 512, 512)[: STAGES[given.get("layout", "vgg")]]
        )
    )
    blocks: Counts | None = Field(  # of each stage of the ResNet layout
        default_factory=lambda given: RESNET_BLOCKS.get(given.get("depth")) if given.get("layout") == "resnet" else None
    )
    regulators: Literal["none", "per-block", "two-per-block", "per-layer", "depth"] = "none"
    swap: bool = False
    norm: Norm = "free"
    order: Literal["conv-bn-relu", "conv-relu-bn"] = "conv-bn-relu"  # DACNN14's file has the latter, alone of all
    bias: bool = Field(  # of the 3x3 convolutions, in the ResNet layout without the stem's; as in the authors' code
        default_factory=lambda given: given.get("sharing") == "mix" or given.get("order") == "conv-relu-bn"
    )
    shared: bool = True
    # True: as in DACNN14(MIX)'s file. Left out of a run's text where it is False: it came after the first records.
    bare_fifth: bool = Field(False, exclude_if=lambda value: not value)
    pools: Count = Field(  # fewer: the last stages do not pool (ours, for images smaller than 32x32)
        default_factory=lambda given: STAGES[given.get("layout", "vgg")]
    )

    @field_validator("width", mode="before")
    @classmethod
    def _width_fits_the_sharing(cls, width: Any, info: ValidationInfo) -> Any:
        if not {"layout", "sharing"} <= info.data.keys():
            return 1  # they are wrong themselves, and that error comes first
        if info.data["sharing"] == "plain":
            if type(width) is int and width >= 1:
                return width
            raise SpecError(
                f"width = {width!r}: must be one number >= 1 for sharing = 'plain': "
                "one kernel cannot be shared across unequal widths"
            )
        stages = STAGES[info.data["layout"]]
        numbers = isinstance(width, list | tuple) and all(type(number) is int and number >= 1 for number in width)
        if numbers and len(width) == stages and list(width) == sorted(width):
            return width
        raise SpecError(
            f"width = {width!r}: must be a list of {stages} numbers that do not fall, one for each stage, "
            "for sharing = 'mix'"
        )

    @model_validator(mode="after")
    def _layout_allows_it(self) -> Self:
        if (self.layout == "vgg") != (self.depth == 14):
            raise SpecError(f"depth = {self.depth}: layout 'vgg' has 14, layout 'resnet' 18, 24 or 34")
        check_norm(self.norm, self.shared)
        if self.pools > STAGES[self.layout]:
            raise SpecError(f"pools = {self.pools}: must be at most {STAGES[self.layout]} for layout {self.layout!r}")
        if self.bare_fifth and (self.layout, self.sharing, self.order) != ("vgg", "mix", "conv-bn-relu"):
            raise SpecError("bare_fifth = True: needs depth = 14, sharing = 'mix' and order = 'conv-bn-relu'")
        if self.layout == "vgg":
            for field, value in {"regulators": "none", "swap": False, "blocks": None}.items():
                if getattr(self, field) != value:
                    raise SpecError(
                        f"{field} = {getattr(self, field)!r}: must be {value!r} for layout 'vgg', "
                        "which has no residual branches"
                    )
        else:
            if self.order != "conv-bn-relu":
                raise SpecError(f"order = {self.order!r}: must be 'conv-bn-relu' for layout 'resnet'")
            blocks = (self.depth - 2) // 2
            if self.blocks is None or len(self.blocks) != 4 or sum(self.blocks) != blocks:
                raise SpecError(f"blocks = {self.blocks}: must be 4 numbers of sum {blocks} for depth = {self.depth}")
        return self

    def layers(self, image_shape: ImageShape) -> list[Layer]:
        """Every use of a 3x3 convolution for images (C, H, W), in order.

        Raises:
            SpecError: the image is too small.
        """
        regulated = REGULATED[self.regulators]
        convs = VGG_CONVS if self.blocks is None else [2 * blocks for blocks in self.blocks]
        widths = (self.width,) * len(convs) if isinstance(self.width, int) else self.width
        stem = [] if self.blocks is None else [widths[0]]  # VGG's is its first stage's first convolution
        ends = [len(stem) + sum(convs[: stage + 1]) - 1 for stage in range(len(convs))]
        outputs = stem + [width for width, count in zip(widths, convs, strict=True) for _ in range(count)]
        return [
            replace(
                layer,
                bias=self.bias and (i > 0 or self.layout == "vgg"),
                regulator=regulated(i),
                shortcut=self.layout == "resnet" and i > 0 and layer.inputs != layer.outputs,
                bare=self.bare_fifth and i == sum(convs[:4]),
            )
            for i, layer in enumerate(make_layers(image_shape, outputs, ends[: self.pools], shared=self.shared))
        ]

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """27C + 9C^2 + 2C per use + Cn + n parameters for a plain net, and C^2 for each regulator."""
        layers = self.layers(image_shape)
        terms, width = trunk_terms(layers, self.norm), layers[-1].outputs
        if self.regulators == "depth":
            terms += [cost.conv("regulator head", width, width, 1, [(1, 1)])]
        return Cost((*terms, cost.linear("head", width, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """A :class:`~thriftylib.papers.dacnn_trunk.Chain` or a :class:`~thriftylib.papers.dacnn_trunk.Residual`."""
        from thriftylib.papers.dacnn_trunk import Chain, Residual

        network = (Chain if self.layout == "vgg" else Residual)(
            self.layers(image_shape),
            classes,
            self.norm,
            head_regulator=self.regulators == "depth",
            relu_first=self.order == "conv-relu-bn",
            rotation=int(self.swap),
        )
        return self.with_norms(network)


POOLS = {3: (1, 2), 5: (1, 2, 3, 4), 7: (1, 2, 4, 6), 9: (2, 4, 6, 8), 11: (2, 4, 7, 10)}
"""For each number of layers, the uses (the stem is use 0) after which the maps are halved."""


class DacnnSmallOptions(TrunkOptions, network="dacnn-small"):
    """A stem of its own, then ``layers`` - 1 uses of one 3x3 convolution, or as many convolutions; conv-BN-ReLU.

    The authors share the batch norm together with the kernel (their "fixed" mode), and so does the default.
    """

    layers: Literal[3, 5, 7, 9, 11] = 7  # convolutions; the linear layer is not counted
    width: Count = 128
    shared: bool = True
    norm: Norm = Field(default_factory=lambda given: "shared" if given.get("shared") else "free")  # as in DacnnOptions
    pools: Count = Field(  # fewer: the last are left out (ours, for images smaller than 16x16)
        default_factory=lambda given: len(POOLS[given.get("layers", 3)])
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        check_norm(self.norm, self.shared)
        most = len(POOLS[self.layers])
        if self.pools > most:
            raise SpecError(f"pools = {self.pools}: must be at most {most} for layers = {self.layers}")
        return self

    def _layers(self, image_shape: ImageShape) -> list[Layer]:
        pools = POOLS[self.layers][: self.pools]
        return make_layers(image_shape, [self.width] * self.layers, pools, shared=self.shared)

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """The trunk's 9C^2 once, or ``layers`` - 1 times, beside stem, batch norms and head."""
        terms = trunk_terms(self._layers(image_shape), self.norm)
        return Cost((*terms, cost.linear("head", self.width, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """A :class:`~thriftylib.papers.dacnn_trunk.Chain`."""
        from thriftylib.papers.dacnn_trunk import Chain

        return self.with_norms(Chain(self._layers(image_shape), classes, self.norm))


class NormStatisticsOptions(MethodOptions, method="norm-statistics"):
    """Measure only: a trained network's test accuracy with three kinds of batch-norm statistics."""

    def start(self) -> NormStatistics:
        """The hooks of one run."""
        from thriftylib.papers.dacnn_statistics import NormStatistics

        return NormStatistics()
