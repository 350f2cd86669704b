"""UCP: channels scored by squeeze-and-excitation blocks, removed at once, and the narrow network trained from scratch.

"UCP: Uniform Channel Pruning" (Chang, Lu, Xue, Wei, Wei; 2020; arXiv 2010.01251), rebuilt from a description of the
authors' public code (JingfeiChang/UCP, history of 2020 and 2021), which has no licence: no line of it is used. The
paper's text was not available to us. For a layer with C channels::

    g   = sigmoid(W_2 relu(W_1 mean over the map))     the excitation of an image; C//16 hidden units without biases, or
                                                       one with biases where C <= 16; it multiplies the layer's maps
    s_c = mean over images of g_c                      the score of channel c
    keep c if s_c > (1 +- lambda) * mean over the layer's channels of s

Inferred: scores are of the training images in evaluation mode (the authors' code seems to read the test images); the
excitation blocks are left out of the narrow network; zero channels of a shortcut come after the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from thriftylib import cost
from thriftylib.cost import Cost, Size, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, MethodOptions, NetworkOptions
from thriftylib.papers.networks import Counts, check_size, conv_norm_terms
from thriftylib.spec import Count, Positive

if TYPE_CHECKING:
    from torch import nn

    from thriftylib.papers.ucp_method import Scoring, Ucp

CONVS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # of each stage of a VGG
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # of each stage of an ImageNet ResNet


@dataclass(frozen=True)
class Elementwise(Term):
    """What costs nothing in our counting, and one operation an element in the authors': ReLUs and pooled inputs."""

    elements: int = 0


def elementwise(name: str, channels: int, size: Size) -> Elementwise:
    """A ReLU over maps of ``size`` (H, W), or a pooling layer that reads them."""
    return Elementwise(name, 0, elements=channels * size[0] * size[1])


def authors_flops(counted: Cost) -> int:
    """The authors' "FLOPs": MACs, 2 an element of a batch norm, 1 an element of a ReLU, 1 an input of a pooling."""
    return counted.ptflops_macs + sum(term.elements for term in counted.terms if isinstance(term, Elementwise))


def hidden_units(channels: int) -> tuple[int, bool]:
    """The hidden units of an excitation block, and whether its linear layers have biases."""
    return (1, True) if channels <= 16 else (channels // 16, False)


def layer_terms(
    name: str, inputs: int, outputs: int, size: Size, *, kernel: int = 3, excited: bool = False, relu: bool = True
) -> list[Term]:
    """The cost of a convolution with its batch norm, perhaps a ReLU, and perhaps an excitation block on its outputs."""
    terms = conv_norm_terms(name, inputs, outputs, size, kernel=kernel)
    if relu:
        terms += [elementwise(f"{name} relu", outputs, size)]
    if excited:
        hidden, bias = hidden_units(outputs)
        terms += [elementwise(f"{name} squeeze", outputs, size), elementwise(f"{name} hidden relu", hidden, (1, 1))]
        terms += [cost.linear(f"{name} excitation in", outputs, hidden, bias=bias)]
        terms += [cost.linear(f"{name} excitation out", hidden, outputs, bias=bias)]
    return terms


def _check_widths(option: str, widths: Sequence[int], layers: int, of: str) -> None:
    if len(widths) != layers:
        raise SpecError(f"{option}: {len(widths)} widths; must be {layers}, one for each {of}")


class PrunableOptions(NetworkOptions):
    """A network some of whose layers UCP may narrow."""

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each layer that may be narrowed, in the order of a forward pass."""
        raise NotImplementedError

    def narrowed(self, widths: Sequence[int]) -> Self:
        """The same network without excitation blocks, its layers as wide as given."""
        raise NotImplementedError


class UcpVggOptions(PrunableOptions, network="ucp-vgg"):
    """VGG-16 or 19 with batch norm: 2x2 max-pools, an average pool at the end, a hidden linear layer of 512 units."""

    depth: Literal[16, 19] = 16
    convs: Counts = Field(  # channels of each convolution
        default_factory=lambda given: tuple(
            width
            for width, convs in zip((64, 128, 256, 512, 512), CONVS[given.get("depth", 16)], strict=True)
            for _ in range(convs)
        )
    )
    head: Literal["hidden", "linear"] = "hidden"  # linear: one linear layer
    hidden: Count = 512  # units of the hidden layer, if there is one
    pools: Annotated[int, Field(ge=1, le=5)] = 5  # fewer: the last stages do not pool (for images under 32x32)
    excited: bool = False  # an excitation block behind each convolution, before its batch norm

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _check_widths("convs", self.convs, sum(CONVS[self.depth]), f"convolution of VGG-{self.depth}")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        return self.convs

    def narrowed(self, widths: Sequence[int]) -> Self:
        return self.model_validate({**self.model_dump(), "convs": widths, "excited": False})

    def pooled(self) -> list[str]:
        """What follows each convolution: "" or "max", and "mean" over the whole map after the last."""
        after = [
            "max" if i == convs - 1 and stage < self.pools and stage < 4 else ""
            for stage, convs in enumerate(CONVS[self.depth])
            for i in range(convs)
        ]
        return [*after[:-1], "mean"]

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """14,987,722 parameters for VGG-16, RGB images and 10 classes."""
        check_size(f"pools = {self.pools}", self.pools, image_shape)
        terms, (_, *size) = [], image_shape
        for i, ((inputs, outputs), pool) in enumerate(
            zip(pairwise((image_shape[0], *self.convs)), self.pooled(), strict=True)
        ):
            terms += layer_terms(f"layer {i}", inputs, outputs, size, excited=self.excited)
            if pool:
                terms += [elementwise(f"layer {i} pool", outputs, size)]
                size = [pixels // 2 for pixels in size]
        outputs = self.convs[-1]
        if self.head == "hidden":
            terms += [
                cost.linear("hidden", outputs, self.hidden),
                cost.batch_norm("hidden norm", self.hidden, [(1, 1)]),
            ]
            terms += [elementwise("hidden relu", self.hidden, (1, 1))]
            outputs = self.hidden
        return Cost((*terms, cost.linear("head", outputs, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """Convolutions He-normal by fan-out, linear layers N(0, 0.01), batch norms of weight 0.5, as in their code."""
        from thriftylib.papers.ucp_networks import Vgg

        self.cost(image_shape, classes)
        return Vgg(self, image_shape[0], classes)


class UcpResNetOptions(PrunableOptions, network="ucp-resnet"):
    """ResNet of 6 ``blocks`` + 2 layers for small images; average pool and zero channels as shortcut between stages.

    ``outer`` are the channels of the three stages at the blocks' inputs and outputs, where the additions are; ``inner``
    those between the two convolutions of each block. Uniform pruning sets one number a stage.
    """

    blocks: Count = 9  # in each of the three stages
    outer: Annotated[Counts, Field(min_length=3, max_length=3)] = (16, 32, 64)
    inner: Counts = Field(
        default_factory=lambda given: tuple(
            width for width in given.get("outer", ()) for _ in range(given.get("blocks", 1))
        )
    )
    # Where the excitation block is. inner: behind the first convolution, before its batch norm (their last code);
    # output: behind the second batch norm (their first code, as in the standard block).
    excited: Literal["no", "inner", "output"] = "no"
    shortcut_gradient: bool = True  # False: none through the two shortcuts between stages, as the authors' .data has it

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _check_widths("inner", self.inner, 3 * self.blocks, f"of 3 x {self.blocks} blocks")
        if list(self.outer) != sorted(self.outer):
            raise SpecError(f"outer = {list(self.outer)}: must not fall, since shortcuts only add zero channels")
        return self

    @property
    def widths(self) -> tuple[int, ...]:
        return self.inner

    def narrowed(self, widths: Sequence[int]) -> Self:
        return self.model_validate({**self.model_dump(), "inner": widths, "excited": "no"})

    def shapes(self) -> list[tuple[int, int, int, int]]:
        """Of each block: inputs, inner channels, outputs and stride."""
        outputs = [width for width in self.outer for _ in range(self.blocks)]
        inputs = [self.outer[0], *outputs[:-1]]
        strides = [2 if i and not i % self.blocks else 1 for i in range(3 * self.blocks)]
        return list(zip(inputs, self.inner, outputs, strides, strict=True))

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """853,018 parameters for ResNet-56, RGB images and 10 classes."""
        check_size("stages = 3", 2, image_shape)
        channels, *size = image_shape
        terms = layer_terms("stem", channels, self.outer[0], size)
        for i, (inputs, inner, outputs, stride) in enumerate(self.shapes()):
            size = [-(-pixels // stride) for pixels in size]
            terms += layer_terms(f"block {i} first", inputs, inner, size, excited=self.excited == "inner")
            terms += layer_terms(f"block {i} second", inner, outputs, size, excited=self.excited == "output")
        terms += [elementwise("pool", self.outer[-1], size)]
        return Cost((*terms, cost.linear("head", self.outer[-1], classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """Convolutions He-normal by fan-out; the rest as PyTorch has it (inferred for the linear layers)."""
        from thriftylib.papers.ucp_networks import ResNet

        self.cost(image_shape, classes)
        return ResNet(self, image_shape[0], classes)


class ScoringOptions(MethodOptions, method="ucp-scores"):
    """Train, or take a trained parent, and measure the scores of its channels."""

    split: Literal["train", "test"] = "train"  # test: as the authors' code seems to have it
    mode: Literal["evaluation", "training"] = "evaluation"  # training: batch norms by each batch of 500 images
    # Another network of the same run's seed: its first weights are drawn so many times, and the last draw is used.
    redraws: Annotated[int, Field(ge=0)] = 0

    def start(self) -> Scoring:
        """The hooks of one run."""
        from thriftylib.papers.ucp_method import Scoring

        return Scoring(self)


class UcpOptions(MethodOptions, method="ucp"):
    """Narrow a network by the scores that its parent's run measured, then train it.

    ``widths`` says how wide each layer becomes. scores: by the threshold. The others are controls at the same
    ``budget``, to within one channel: the kept shares of the layers dealt to other layers at random (shuffled) or in
    the opposite order (reversed), the same share in each layer (uniform), or the threshold on the norms of the parent's
    kernels (magnitude). ``channels`` says which ones stay, which matters to the weights of a parent alone.
    """

    widths: Literal["scores", "magnitude", "shuffled", "reversed", "uniform"] = "scores"
    multiplier: Positive = 0.99999999  # (1 +- lambda): a channel stays whose score is above so many times the mean
    keep: Annotated[tuple[Count, ...], Field(strict=False)] = ()  # widths in place of the threshold, for each layer
    skip: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)
    ] = ()  # layers, from 0, that stay whole
    ties: Literal["keep", "halve"] = "keep"  # what becomes of a layer whose scores are all equal
    budget: Literal["macs", "parameters"] = "macs"
    channels: Literal["scores", "magnitude", "random"] = "scores"
    weights: Literal["fresh", "parent"] = "fresh"  # fresh: from scratch, drawn for the narrow network

    def start(self) -> Ucp:
        """The hooks of one run."""
        from thriftylib.papers.ucp_method import Ucp

        return Ucp(self)
