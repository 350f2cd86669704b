"""Ordinary networks in stages, with a depth knob and a width knob: DenseNet, ResNet, ResNeXt and EfficientNet.

They are for papers that change the shape of a network and keep its kind. The depth is the number of units in each
stage, a unit being a dense layer or a residual block; the width is one number of each family. The definitions are the
families' own (Huang et al., 2017; He et al., 2015; Xie et al., 2017; Tan & Le, 2019). Inferred: the stems for small
images, and ResNeXt's knob. Weights are drawn He-normal by fan-out, EfficientNet's as torchvision draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, groupby
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field

from thriftylib import cost
from thriftylib.cost import Cost, Size, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape, MethodOptions, NetworkOptions
from thriftylib.papers.networks import Counts, check_size, conv_norm_terms
from thriftylib.schedules import Count, Fraction
from thriftylib.spec import Positive

if TYPE_CHECKING:
    from thriftylib.papers.families_depth import DepthMeasures
    from thriftylib.papers.families_networks import StagedNetwork


def _strided(size: Size, stride: int) -> Size:
    """(H, W) behind a padded convolution or pooling layer of that stride: a map of 1x1 stays one."""
    return -(-size[0] // stride), -(-size[1] // stride)


class StagedOptions(NetworkOptions):
    """A network in stages: its depth is its option ``layers``, its width the option named by ``knob``."""

    knob: ClassVar[str]
    convolutions_3x3: ClassVar[int] = 1  # 3x3 or larger ones in a unit

    if TYPE_CHECKING:  # at run time it would come first of the fields, before what its default depends on
        layers: tuple[int, ...]  # units of each stage

    @property
    def repeats(self) -> tuple[int, ...]:
        """Units of each stage."""
        return self.layers

    def _with(self, **options: Any) -> Self:
        return self.model_validate({**self.model_dump(), **options})

    def with_repeats(self, repeats: tuple[int, ...]) -> Self:
        """The same network with that many units in each stage.

        Raises:
            SpecError: not one number for each stage, or a number below 1.
        """
        if len(repeats) != len(self.layers):
            raise SpecError(f"repeats = {tuple(repeats)}: must be {len(self.layers)} numbers, one for each stage")
        return self._with(layers=tuple(repeats))

    def widths(self) -> Iterator[Self]:
        """The same network, ever wider from the narrowest on, without end; each costs more than the one before."""
        return (self._with(**{self.knob: width}) for width in self._knob_values())

    def finer_widths(self) -> Iterator[Self]:
        """Steps from this width to the next, each of which costs more than the one before; perhaps none."""
        return iter(())

    def _knob_values(self) -> Iterator[float]:
        return count(1)


class DenseNetOptions(StagedOptions, network="densenet"):
    """DenseNet (Huang et al., 2017) without bottlenecks: a layer is batch norm, ReLU and 3x3 convolution.

    The defaults are DenseNet-40: 3 blocks of 12 layers that add 12 channels each, no compression. Between blocks: batch
    norm, ReLU, 1x1 convolution, average pool. (``tiny-densenet`` is the kind with bottlenecks.)
    """

    knob = "growth"

    growth: Count = 12  # k, the channels that each layer adds
    layers: Counts = (12, 12, 12)  # of each dense block
    stem: Count = 16  # channels
    stem_stride: Literal[1, 2] = 1  # 2: ours, a quarter of the computation, for sweeps on a CPU
    compression: Annotated[float, Field(gt=0, le=1)] = 1.0  # of the channels between blocks; 0.5: halved, rounded down

    def finer_widths(self) -> Iterator[Self]:
        """The stem, ever broader, without end: at few layers one more channel of growth is several percent of all."""
        return (self._with(stem=stem) for stem in count(self.stem))

    def _blocks(self) -> list[tuple[int, int]]:
        """Channels before and behind each dense block."""
        blocks: list[tuple[int, int]] = []
        for layers in self.layers:
            inputs = max(1, int(blocks[-1][1] * self.compression)) if blocks else self.stem
            blocks.append((inputs, inputs + layers * self.growth))
        return blocks

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """1,019,722 parameters for the defaults, RGB images and 10 classes; 578,090 with half the channels."""
        halvings = len(self.layers) - 1 + (self.stem_stride == 2)
        check_size(f"layers = {self.layers}, stem_stride = {self.stem_stride}", halvings, image_shape)
        size = _strided(image_shape[1:], self.stem_stride)
        terms, blocks = [cost.conv("stem", image_shape[0], self.stem, 3, [size])], self._blocks()
        for block, (inputs, outputs) in enumerate(blocks):
            if block:
                terms += [cost.conv(f"transition {block}", blocks[block - 1][1], inputs, 1, [size])]
                size = (size[0] // 2, size[1] // 2)
            for layer, features in enumerate(range(inputs, outputs, self.growth)):
                name = f"block {block} layer {layer}"
                terms += [cost.batch_norm(f"{name} norm", features, [size])]
                terms += [cost.conv(f"{name} conv", features, self.growth, 3, [size])]
            terms += [cost.batch_norm(f"block {block} norm", outputs, [size])]  # the transition's, or the head's
        return Cost((*terms, cost.linear("head", blocks[-1][1], classes)))

    def build(self, image_shape: ImageShape, classes: int) -> StagedNetwork:
        """Its units are the dense layers; each returns its new channels alone."""
        from thriftylib.papers.families_networks import densenet

        self.cost(image_shape, classes)
        return densenet(image_shape[0], self.stem, self.stem_stride, self._blocks(), self.growth, classes)


class BottleneckOptions(StagedOptions):
    """Stages of torchvision's ``Bottleneck``, its stride in the 3x3 convolution; widths double from stage to stage.

    ``stem``: a 3x3 convolution of stride 1 and no pooling; or as for ImageNet, 7x7 of stride 2 and a max-pool.
    """

    stem: Literal["3x3", "7x7"] = "3x3"

    def _block(self) -> tuple[int, int, int]:
        """Planes, groups and base width of the first stage, as torchvision names them.

        Planes are the stem's channels and a quarter of the blocks'; a group has planes x base width / 64 channels.
        """
        raise NotImplementedError

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        planes, groups, base_width = self._block()
        terms, size = self._stem_terms(image_shape, planes)
        inputs = planes
        for stage, blocks in enumerate(self.layers):
            inner, outputs = planes * base_width // 64 * groups << stage, 4 * planes << stage
            for block in range(blocks):
                name = f"stage {stage} block {block}"
                terms += conv_norm_terms(f"{name} first", inputs, inner, size, kernel=1)
                size = _strided(size, 2 if stage and not block else 1)
                terms += conv_norm_terms(f"{name} second", inner, inner, size, groups=groups)
                terms += conv_norm_terms(f"{name} third", inner, outputs, size, kernel=1)
                if not block:
                    terms += conv_norm_terms(f"{name} shortcut", inputs, outputs, size, kernel=1)
                inputs = outputs
        return Cost((*terms, cost.linear("head", inputs, classes)))

    def _stem_terms(self, image_shape: ImageShape, width: int) -> tuple[list[Term], Size]:
        channels, *size = image_shape
        if self.stem == "3x3":
            return conv_norm_terms("stem", channels, width, size), size
        size = _strided(size, 2)
        return conv_norm_terms("stem", channels, width, size, kernel=7), _strided(size, 2)

    def build(self, image_shape: ImageShape, classes: int) -> StagedNetwork:
        """Its units are the bottleneck blocks."""
        from thriftylib.papers.families_networks import bottleneck_network

        return bottleneck_network(image_shape[0], self.stem, *self._block(), self.layers, classes)


class BottleneckResNetOptions(BottleneckOptions, network="bottleneck-resnet"):
    """ResNet-50 (He et al., 2015), in any number of stages: 23,520,842 parameters for RGB images and 10 classes."""

    knob = "width"

    layers: Counts = (3, 4, 6, 3)  # blocks of each stage
    width: Count = 64  # channels of the stem and of the first stage's 3x3 convolutions; its blocks' are four times that

    def _block(self) -> tuple[int, int, int]:
        return self.width, 1, 64


class ResNeXtOptions(BottleneckOptions, network="resnext"):
    """ResNeXt (Xie et al., 2017); the defaults are ResNeXt-56 32x2d: 3 stages of 6 blocks, 64 channels in the stem.

    4,817,482 parameters for the defaults, RGB images and 10 classes. The width knob is the cardinality, the number of
    groups (inferred: one step of the group width would widen 32x2d by half).
    """

    knob = "cardinality"

    layers: Counts = (6, 6, 6)  # blocks of each stage
    cardinality: Count = 32  # groups of each 3x3 convolution
    group_width: Count = 2  # channels of a group in the first stage

    def _block(self) -> tuple[int, int, int]:
        return 64, self.cardinality, self.group_width


class _Stage(NamedTuple):
    """A stage of EfficientNet-B0 (Tan & Le, 2019, table 1)."""

    expansion: int
    kernel: int
    stride: int  # of its first block
    outputs: int


_STEM = 32
_STAGES = (
    _Stage(1, 3, 1, 16),
    _Stage(6, 3, 2, 24),
    _Stage(6, 5, 2, 40),
    _Stage(6, 3, 2, 80),
    _Stage(6, 5, 1, 112),
    _Stage(6, 5, 2, 192),
    _Stage(6, 3, 1, 320),
)
_VERSIONS = {  # blocks of each stage, width multiplier, dropout
    "B0": ((1, 2, 2, 3, 3, 4, 1), 1.0, 0.2),
    "B1": ((2, 3, 3, 4, 4, 5, 2), 1.0, 0.2),
    "B2": ((2, 3, 3, 4, 4, 5, 2), 1.1, 0.3),
}


def _channels(multiplier: float) -> list[int]:
    """Channels of the stem and of each stage, by torchvision's rule: no more than a tenth is lost by rounding."""
    exact = [channels * multiplier for channels in (_STEM, *(stage.outputs for stage in _STAGES))]
    nearest = [max(8, int(channels + 4) // 8 * 8) for channels in exact]
    return [near + 8 * (near < 0.9 * channels) for near, channels in zip(nearest, exact, strict=True)]


def _default(of: int) -> Any:
    """A field whose default is part of the version that was given."""
    return Field(default_factory=lambda given: _VERSIONS[given.get("version", "B0")][of])


class EfficientNetOptions(StagedOptions, network="efficientnet"):
    """torchvision's EfficientNet (Tan & Le, 2019) of 7 stages; ``version`` gives the other options their defaults.

    4,020,358 parameters for B0, RGB images and 10 classes. Channels are multiples of 8, as torchvision rounds them.
    Stochastic depth is torchvision's default: it rises from 0 at the first block towards 0.2 at the last.
    """

    knob = "width"

    version: Literal["B0", "B1", "B2"] = "B0"
    layers: Annotated[Counts, Field(min_length=7, max_length=7)] = _default(0)  # blocks of each stage
    width: Positive = _default(1)  # multiplier of all channels
    dropout: Fraction = _default(2)  # before the linear layer
    stem_stride: Literal[1, 2] = 1  # 2: as for ImageNet; 1: for small images (inferred)

    def _knob_values(self) -> Iterator[float]:
        """Hundredths, where they change the channels of any layer."""
        widths = (hundredths / 100 for hundredths in count(1))
        return (min(same, key=lambda width: len(str(width))) for _, same in groupby(widths, _channels))

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        inputs, *channels = _channels(self.width)
        size = _strided(image_shape[1:], self.stem_stride)
        terms = conv_norm_terms("stem", image_shape[0], inputs, size)
        for i, (stage, blocks, outputs) in enumerate(zip(_STAGES, self.layers, channels, strict=True)):
            for block in range(blocks):
                name, inner = f"stage {i} block {block}", stage.expansion * inputs
                if stage.expansion > 1:
                    terms += conv_norm_terms(f"{name} expansion", inputs, inner, size, kernel=1)
                size = _strided(size, 1 if block else stage.stride)
                terms += conv_norm_terms(f"{name} depthwise", inner, inner, size, kernel=stage.kernel, groups=inner)
                terms += [cost.conv(f"{name} squeeze", inner, inputs // 4, 1, [(1, 1)], bias=True)]
                terms += [cost.conv(f"{name} excitation", inputs // 4, inner, 1, [(1, 1)], bias=True)]
                terms += conv_norm_terms(f"{name} projection", inner, outputs, size, kernel=1)
                inputs = outputs
        terms += conv_norm_terms("last", inputs, 4 * inputs, size, kernel=1)
        return Cost((*terms, cost.linear("head", 4 * inputs, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> StagedNetwork:
        """Its units are the MBConv blocks."""
        from thriftylib.papers.families_networks import efficientnet

        inputs, *channels = _channels(self.width)
        stages = [
            (stage.expansion, stage.kernel, stage.stride, before, after, blocks)
            for stage, before, after, blocks in zip(_STAGES, (inputs, *channels), channels, self.layers, strict=False)
        ]
        return efficientnet(image_shape[0], self.stem_stride, stages, self.dropout, classes)


class DepthMeasuresOptions(MethodOptions, method="depth-measures"):
    """Measure only: what each unit of a trained network in stages does to test images, and what skipping it costs."""

    images: Annotated[int, Field(ge=0)] = 0  # the first so many of the test set; 0: all

    def start(self) -> DepthMeasures:
        """The hooks of one run."""
        from thriftylib.papers.families_depth import DepthMeasures

        return DepthMeasures(self)
