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
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from thriftylib import cost
from thriftylib.cost import Cost, Size, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, MethodOptions, NetworkOptions
from thriftylib.papers.networks import Counts, check_size, conv_norm_terms
from thriftylib.schedules import Count
from thriftylib.spec import Positive, Run

if TYPE_CHECKING:
    from torch import nn

    from thriftylib.papers.ucp_method import Scoring, Ucp

STAGES = (64, 128, 256, 512, 512)  # channels of each stage of a VGG
CONVS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}  # convolutions of each
HIDDEN = 512  # units of its hidden linear layer


def hidden_units(channels: int) -> tuple[int, bool]:
    """The hidden units of an excitation block, and whether its linear layers have biases."""
    return (1, True) if channels <= 16 else (channels // 16, False)


def _stagewise(layers: Sequence[int], widths: Sequence[int]) -> tuple[int, ...]:
    """The width of a stage for each of its layers."""
    return tuple(width for count, width in zip(layers, widths, strict=False) for _ in range(count))


def layer_terms(name: str, inputs: int, outputs: int, size: Size, *, excited: bool) -> list[Term]:
    """The cost of a 3x3 convolution with its batch norm and perhaps an excitation block."""
    terms = conv_norm_terms(name, inputs, outputs, size)
    if excited:
        hidden, bias = hidden_units(outputs)
        terms += [cost.linear(f"{name} excitation in", outputs, hidden, bias=bias)]
        terms += [cost.linear(f"{name} excitation out", hidden, outputs, bias=bias)]
    return terms


class PrunableOptions(NetworkOptions):
    """A network that UCP narrows; its option ``prunable`` has the width of each of its ``layers`` in a pass' order."""

    prunable: ClassVar[str]
    layers: ClassVar[property]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (given := len(getattr(self, self.prunable))) != self.layers:
            raise SpecError(f"{self.prunable}: {given} widths; must be {self.layers}, one for each layer")
        return self

    def narrowed(self, widths: list[int]) -> Self:
        """The same network with other widths and without excitation blocks."""
        return self.model_validate({**self.model_dump(exclude={"excited"}), self.prunable: widths})


class UcpVggOptions(PrunableOptions, network="ucp-vgg"):
    """VGG-16 or 19 with batch norm: max-pools between stages, a mean over the map, a hidden linear layer."""

    prunable = "convs"

    depth: Literal[16, 19] = 16
    convs: Counts = Field(default_factory=lambda given: _stagewise(CONVS[given.get("depth", 16)], STAGES))
    head: Literal["hidden", "linear"] = "hidden"  # linear: one linear layer
    pools: Annotated[int, Field(ge=1, le=5)] = 5  # fewer: the last stages do not pool (for images under 32x32)
    excited: bool = False  # an excitation block behind each convolution, before its batch norm

    @property
    def layers(self) -> int:
        return sum(CONVS[self.depth])

    def pooled(self) -> list[bool]:
        """Whether a max-pool follows each convolution; behind the last stage is a mean over the map."""
        ends = [stage < min(self.pools, 4) for stage in range(5)]
        return [
            i == convs - 1 and end for convs, end in zip(CONVS[self.depth], ends, strict=True) for i in range(convs)
        ]

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """14,987,722 parameters for VGG-16, RGB images and 10 classes."""
        check_size(f"pools = {self.pools}", self.pools, image_shape)
        terms, size, pooled = [], image_shape[1:], self.pooled()
        for i, (inputs, outputs) in enumerate(pairwise((image_shape[0], *self.convs))):
            terms += layer_terms(f"layer {i}", inputs, outputs, size, excited=self.excited)
            size = (size[0] >> pooled[i], size[1] >> pooled[i])
        if self.head == "linear":
            return Cost((*terms, cost.linear("head", self.convs[-1], classes)))
        terms += [cost.linear("hidden", self.convs[-1], HIDDEN), cost.batch_norm("hidden norm", HIDDEN, [(1, 1)])]
        return Cost((*terms, cost.linear("head", HIDDEN, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """Convolutions He-normal by fan-out, linear layers N(0, 0.01), batch norms of weight 0.5, as in their code."""
        from thriftylib.papers.networks_narrowable import Vgg, no_gate
        from thriftylib.papers.ucp_method import Excitation

        self.cost(image_shape, classes)
        hidden, gate = HIDDEN * (self.head == "hidden"), Excitation if self.excited else no_gate
        return Vgg(image_shape[0], self.convs, self.pooled(), hidden, classes, gate)


class UcpResNetOptions(PrunableOptions, network="ucp-resnet"):
    """ResNet of 6 ``blocks`` + 2 layers for small images; average pool and zero channels as shortcut between stages.

    ``outer`` are the channels of the three stages at the blocks' inputs and outputs, where the additions are; ``inner``
    those between the two convolutions of each block. Uniform pruning sets one number a stage.
    """

    prunable = "inner"

    blocks: Count = 9  # in each of the three stages
    outer: Annotated[Counts, Field(min_length=3, max_length=3)] = (16, 32, 64)
    inner: Counts = Field(default_factory=lambda of: _stagewise([of.get("blocks", 1)] * 3, of.get("outer", ())))
    # Where the excitation block is. inner: behind the first convolution, before its batch norm (their last code);
    # output: behind the second batch norm (their first code, as in the standard block).
    excited: Literal["no", "inner", "output"] = "no"
    shortcut_gradient: bool = True  # False: none through the two shortcuts between stages, as the authors' .data has it

    @property
    def layers(self) -> int:
        return 3 * self.blocks

    def shapes(self) -> list[tuple[int, int, int, int]]:
        """Of each block: inputs, inner channels, outputs and stride.

        Raises:
            SpecError: a stage is narrower than the one before.
        """
        if list(self.outer) != sorted(self.outer):
            raise SpecError(f"outer = {list(self.outer)}: must not fall, since shortcuts only add zero channels")
        outputs = _stagewise([self.blocks] * 3, self.outer)
        strides = [2 if i and not i % self.blocks else 1 for i in range(self.layers)]
        return list(zip((self.outer[0], *outputs[:-1]), self.inner, outputs, strides, strict=True))

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """853,018 parameters for ResNet-56, RGB images and 10 classes."""
        check_size("stages = 3", 2, image_shape)
        size = image_shape[1:]
        terms = layer_terms("stem", image_shape[0], self.outer[0], size, excited=False)
        for i, (inputs, inner, outputs, stride) in enumerate(self.shapes()):
            size = (-(-size[0] // stride), -(-size[1] // stride))
            terms += layer_terms(f"block {i} first", inputs, inner, size, excited=self.excited == "inner")
            terms += layer_terms(f"block {i} second", inner, outputs, size, excited=self.excited == "output")
        return Cost((*terms, cost.linear("head", self.outer[-1], classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """Convolutions He-normal by fan-out; the rest as PyTorch has it (inferred for the linear layers)."""
        from thriftylib.papers.networks_narrowable import ResNet, no_gate
        from thriftylib.papers.ucp_method import Excitation

        self.cost(image_shape, classes)
        gates = tuple(Excitation if self.excited == place else no_gate for place in ("inner", "output"))
        return ResNet(image_shape[0], self.shapes(), classes, gates, self.shortcut_gradient)


class ScoringOptions(MethodOptions, method="ucp-scores"):
    """Train, or take a trained parent, and measure the scores of its channels."""

    split: Literal["train", "test"] = "train"  # test: as the authors' code seems to have it
    mode: Literal["evaluation", "training"] = "evaluation"  # training: batch norms by each batch of 500 images
    redraws: Annotated[int, Field(ge=0)] = 0  # first weights are drawn so often anew: another network of the same seed

    def check(self, run: Run) -> None:
        if self.redraws and run.parent is not None:
            raise SpecError(f"redraws = {self.redraws}: must be 0 with a parent, whose weights replace every draw")

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
    keep: Annotated[tuple[Count, ...], Field(strict=False)] = ()  # widths in place of threshold and skip
    # Layers, from 0, that stay whole.
    skip: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)] = ()
    ties: Literal["keep", "halve"] = "keep"  # what becomes of a layer whose scores are all equal
    budget: Literal["macs", "parameters"] = "macs"
    channels: Literal["scores", "magnitude", "random"] = "scores"
    weights: Literal["fresh", "parent"] = "fresh"  # fresh: from scratch, drawn for the narrow network

    def start(self) -> Ucp:
        """The hooks of one run."""
        from thriftylib.papers.ucp_method import Ucp

        return Ucp(self)
