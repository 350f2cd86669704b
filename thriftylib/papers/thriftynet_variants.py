"""Networks around the ThriftyNet recursion, from the authors' code: blocks in series, and a learned stem."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import nn
from torchvision.models.resnet import BasicBlock, conv3x3

from thriftylib import cost
from thriftylib.cost import Cost, Term
from thriftylib.errors import SpecError
from thriftylib.options import ImageShape
from thriftylib.papers.networks import basic_block_terms, conv_shortcut
from thriftylib.papers.thriftynet import (
    Pool,
    RecursionOptions,
    ThriftyNet,
    ThriftyNetOptions,
    head_term,
    make_head,
)
from thriftylib.spec import Count


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
        _ = self.blocks  # each checks itself
        return self

    @property
    def blocks(self) -> list[ThriftyNetOptions]:
        """The options of each block."""
        common = {field: getattr(self, field) for field in RecursionOptions.model_fields}
        blocks = []
        for i, (filters, iterations, pool) in enumerate(zip(self.filters, self.iterations, self.pool, strict=True)):
            try:
                blocks.append(ThriftyNetOptions(filters=filters, iterations=iterations, pool=pool, **common))
            except SpecError as error:
                raise SpecError(f"block {i}: {error}") from None
        return blocks

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """Each block's conv + 2fT + T(h+1) parameters and the head's."""
        terms: list[Term] = []
        shape = image_shape
        for i, block in enumerate(self.blocks):
            try:
                terms += [replace(term, name=f"block {i} {term.name}") for term in block.recursion_terms(shape)]
            except SpecError as error:
                raise SpecError(f"block {i}: {error}") from None
            shape = block.output_shape(shape)
        return Cost((*terms, head_term(self.head, shape, classes)))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """One :class:`~thriftylib.papers.thriftynet.ThriftyNet` without a head for each block, then the head."""
        self.cost(image_shape, classes)
        shape = image_shape
        for block in self.blocks:
            shape = block.output_shape(shape)
        return nn.Sequential(
            *(ThriftyNet(block, head=nn.Identity()) for block in self.blocks), make_head(self.head, shape, classes)
        )


class EmbeddedThriftyNetOptions(ThriftyNetOptions, network="embedded-thriftynet"):
    """A ThriftyNet that sees, in place of the image, the 128 channels at half size which a ResNet's first blocks make.

    The stem, which counts in ``n_params``: 3x3 convolution to 64 channels, ``BasicBlock(64)``, ``BasicBlock(128)`` with
    stride 2. T = 18 and p = 6 are the authors' ImageNet script's (July 2020); left out, ``pool`` is T / 3 rounded up.
    """

    iterations: Count = 18
    pool: Pool = Field(default_factory=lambda given: -(-given.get("iterations", 1) // 3))

    @property
    def recursion_options(self) -> ThriftyNetOptions:
        """The part behind the stem."""
        return ThriftyNetOptions.model_validate(self.model_dump())

    def _stem(self, image_shape: ImageShape) -> tuple[list[Term], ImageShape]:
        channels, *pixels = image_shape
        size = (pixels[0], pixels[1])
        stem = [cost.conv("stem conv", channels, 64, 3, [size]), cost.batch_norm("stem norm", 64, [size])]
        first, size = basic_block_terms("stem block 0", 64, 64, size)
        second, size = basic_block_terms("stem block 1", 64, 128, size, stride=2, shortcut=True)
        return [*stem, *first, *second], (128, *size)

    def least_filters(self, image_shape: ImageShape) -> int:
        """The stem's 128 channels, which every conv mode divides."""
        return 128

    def cost(self, image_shape: ImageShape, classes: int) -> Cost:
        """The stem's and the ThriftyNet's behind it."""
        if self.n_params is not None:
            return self.resolve(image_shape, classes).cost(image_shape, classes)
        terms, shape = self._stem(image_shape)
        return Cost((*terms, *self.recursion_options.cost(shape, classes).terms))

    def build(self, image_shape: ImageShape, classes: int) -> nn.Module:
        """The stem with torchvision's blocks, then a :class:`~thriftylib.papers.thriftynet.ThriftyNet`."""
        options = self.resolve(image_shape, classes)
        _, shape = self._stem(image_shape)
        return nn.Sequential(
            conv3x3(image_shape[0], 64),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            BasicBlock(64, 64),
            BasicBlock(64, 128, stride=2, downsample=conv_shortcut(64, 128, 2)),
            options.recursion_options.build(shape, classes),
        )
