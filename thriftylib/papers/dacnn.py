"""Deep Anchored CNNs (Huang, Dwivedi, Roig, 2019; arXiv 1904.09764): one kernel used in many layers.

::

    stem     x <- relu(BN(W_0 * image))                        W_0 is the stem's own
    VGG      x <- relu(BN(W * x))
    ResNet   x <- relu(x + R(BN_b(W * relu(BN_a(W * x)))))     R: a regulator, dense 1x1 without bias, or nothing

W is one 3x3 kernel wherever its shape recurs. At one width throughout that is the whole trunk (*plain*); where the
widths grow from stage to stage it is each width's own, and the convolutions between widths are used once (*mix*).
Every stage ends in a 2x2 max-pool; a global average pool and one linear layer make the logits. The paper's body was not
available to us: the structure follows the authors' code and figures, and what we infer from them is marked so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from thriftylib import cost
from thriftylib.cost import Cost, Size
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape
from thriftylib.papers.networks import Counts, NormInitOptions, check_size, conv_norm_terms
from thriftylib.schedules import Count

if TYPE_CHECKING:
    from torch import nn

Norm = Literal["free", "affine", "shared"]
"""Batch norms: one for each use ("free"); statistics for each use, one affine map per kernel; one per kernel."""
VGG_CONVS = (2, 2, 3, 3, 3)  # in each stage
RESNET_BLOCKS = {18: (2, 2, 2, 2), 24: (2, 3, 4, 2), 34: (3, 4, 6, 3)}  # 24: inferred, 11 blocks by its depth
STAGES = {"vgg": 5, "resnet": 4}
REGULATED: dict[str, Callable[[int], bool]] = {  # which uses of a convolution, from the stem's, 0, on
    "none": lambda i: False,
    "per-block": lambda i: i > 0 and i % 2 == 0,
    "two-per-block": lambda i: i > 0,
    "per-layer": lambda i: True,
    "depth": lambda i: True,  # and one in the head
}
POOLS = {3: (1, 2), 5: (1, 2, 3, 4), 7: (1, 2, 4, 6), 9: (2, 4, 6, 8), 11: (2, 4, 7, 10)}
"""For each number of layers of the small nets, the uses (the stem is use 0) after which the maps are halved."""


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
    check_size(f"pools = {len(pools)}", len(pools), image_shape)
    channels, height, width = image_shape
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


class TrunkOptions(NormInitOptions):
    """Networks built on a :class:`~thriftylib.papers.dacnn_trunk.Trunk`: what its subclasses have in common."""

    def uses(self, image_shape: ImageShape) -> list[Layer]:
        """Every use of a 3x3 convolution for images (C, H, W), in order.

        Raises:
            SpecError: the image is too small.
        """
        raise NotImplementedError

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """Kernels once, batch norms as ``norm`` says; all 3x3 convolutions but the stem's are "trunk conv ..."."""
        layers = self.uses(image_shape)
        affine, terms = self.norm != "affine", []
        for k, uses in enumerate(by_kernel(layers)):
            first, sizes = uses[0], [layer.size for layer in uses]
            part = "trunk" if k else "stem"
            terms += [cost.conv(f"{part} conv {k}", first.inputs, first.outputs, 3, sizes, bias=first.bias)]
            if normed := [layer.size for layer in uses if not layer.bare]:
                shared = self.norm == "shared"
                terms += [cost.batch_norm(f"{part} norm {k}", first.outputs, normed, affine=affine, shared=shared)]
                terms += [] if affine else [cost.free(f"{part} affine {k}", 2 * first.outputs)]
        for i, layer in enumerate(layers):
            if layer.regulator:
                terms += [cost.conv(f"regulator {i}", layer.outputs, layer.outputs, 1, [layer.size])]
            if layer.shortcut:
                terms += conv_norm_terms(f"shortcut {i}", layer.inputs, layer.outputs, layer.size, kernel=1)
        return Cost((*terms, cost.linear("head", layers[-1].outputs, classes)))


class DacnnOptions(TrunkOptions, network="dacnn"):
    """DACNN14 in the VGG layout, DACNN18, 24 and 34 in the ResNet layout; the defaults are the plain DACNN14.

    ``regulators`` are after a batch norm: of each block's second convolution ("per-block": the authors' diagram), of
    both ("two-per-block"), of every convolution with the stem ("per-layer": L - 1 of them), and one more between the
    average pool and the linear layer ("depth": L, the number that the plotted counts of the plain nets fit). The
    places of the last two are inferred: no code or diagram of a plain net with regulators is public.
    ``swap`` is what the released code does in their place: each block's convolutions rotate their output by one
    channel, and the shortcut is rotated by two (inferred: upwards, before the batch norm; so is the stem's output).
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
        stages, plain = STAGES[info.data["layout"]], info.data["sharing"] == "plain"
        numbers = list(width) if isinstance(width, list | tuple) and not plain else [width]
        positive = all(type(number) is int and number >= 1 for number in numbers)
        if positive and len(numbers) == (1 if plain else stages) and numbers == sorted(numbers):
            return width
        if plain:
            needed = "one number >= 1 for sharing = 'plain': one kernel cannot be shared across unequal widths"
        else:
            needed = f"a list of {stages} numbers that do not fall, one for each stage, for sharing = 'mix'"
        raise SpecError(f"width = {width!r}: must be {needed}")

    @model_validator(mode="after")
    def _layout_allows_it(self) -> Self:
        vgg, stages, blocks = self.layout == "vgg", STAGES[self.layout], (self.depth - 2) // 2
        fitting = self.blocks is not None and len(self.blocks) == 4 and sum(self.blocks) == blocks
        mix = (self.layout, self.sharing, self.order) == ("vgg", "mix", "conv-bn-relu")
        mixed = "depth = 14, sharing = 'mix' and order = 'conv-bn-relu'"
        only = "layout 'vgg', which has no residual branches"
        order = f"order = {self.order!r}: must be 'conv-bn-relu' for layout 'resnet'"
        _check(
            (vgg == (self.depth == 14), f"depth = {self.depth}: layout 'vgg' has 14, layout 'resnet' 18, 24 or 34"),
            (self.shared or self.norm == "free", f"norm = {self.norm!r}: must be 'free' for shared = False"),
            (self.pools <= stages, f"pools = {self.pools}: must be at most {stages} for layout {self.layout!r}"),
            (mix or not self.bare_fifth, f"bare_fifth = True: needs {mixed}"),
            (not vgg or self.regulators == "none", f"regulators = {self.regulators!r}: must be 'none' for {only}"),
            (not vgg or not self.swap, f"swap = True: must be False for {only}"),
            (not vgg or self.blocks is None, f"blocks = {self.blocks}: must be None for {only}"),
            (vgg or self.order == "conv-bn-relu", order),
            (vgg or fitting, f"blocks = {self.blocks}: must be 4 numbers of sum {blocks} for depth = {self.depth}"),
        )
        return self

    def uses(self, image_shape: ImageShape) -> list[Layer]:
        regulated, residual = REGULATED[self.regulators], self.blocks is not None
        convs = [2 * blocks for blocks in self.blocks] if residual else VGG_CONVS
        widths = (self.width,) * len(convs) if isinstance(self.width, int) else self.width
        stem = [widths[0]] if residual else []  # VGG's is its first stage's first convolution
        ends = [len(stem) + sum(convs[: stage + 1]) - 1 for stage in range(len(convs))]
        outputs = stem + [width for width, count in zip(widths, convs, strict=True) for _ in range(count)]
        return [
            replace(
                layer,
                bias=self.bias and (i > 0 or not residual),
                regulator=regulated(i),
                shortcut=residual and i > 0 and layer.inputs != layer.outputs,
                bare=self.bare_fifth and i == sum(convs[:4]),
            )
            for i, layer in enumerate(make_layers(image_shape, outputs, ends[: self.pools], shared=self.shared))
        ]

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """27C + 9C^2 + 2C per use + Cn + n parameters for a plain net, and C^2 for each regulator."""
        width, terms = self.uses(image_shape)[-1].outputs, super().cost(image_shape, classes).terms
        head = [cost.conv("regulator head", width, width, 1, [(1, 1)])] if self.regulators == "depth" else []
        return Cost((*terms, *head))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """A :class:`~thriftylib.papers.dacnn_trunk.Chain` or a :class:`~thriftylib.papers.dacnn_trunk.Residual`."""
        from thriftylib.papers.dacnn_trunk import Chain, Residual

        network = (Chain if self.layout == "vgg" else Residual)(
            self.uses(image_shape),
            classes,
            self.norm,
            head_regulator=self.regulators == "depth",
            relu_first=self.order == "conv-relu-bn",
            rotation=int(self.swap),
        )
        return self.with_norms(network)


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
        pools = len(POOLS[self.layers])
        _check(
            (self.shared or self.norm == "free", f"norm = {self.norm!r}: must be 'free' for shared = False"),
            (self.pools <= pools, f"pools = {self.pools}: must be at most {pools} for layers = {self.layers}"),
        )
        return self

    def uses(self, image_shape: ImageShape) -> list[Layer]:
        pools = POOLS[self.layers][: self.pools]
        return make_layers(image_shape, [self.width] * self.layers, pools, shared=self.shared)

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """A :class:`~thriftylib.papers.dacnn_trunk.Chain`."""
        from thriftylib.papers.dacnn_trunk import Chain

        return self.with_norms(Chain(self.uses(image_shape), classes, self.norm))


def _check(*conditions: tuple[bool, str]) -> None:
    """Raise the message of the first condition that does not hold."""
    for holds, message in conditions:
        if not holds:
            raise SpecError(message)
