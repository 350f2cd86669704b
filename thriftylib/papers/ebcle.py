"""EBCLE (Gowdra, Sinha, MacDonell & Yan, 2021; arXiv 2106.14190): a bound on depth from the entropy of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from thriftylib.options import MethodOptions

if TYPE_CHECKING:
    from thriftylib.papers.ebcle_depth import DepthMeasures


class DepthMeasuresOptions(MethodOptions, method="depth-measures"):
    """Measure only: what each unit of a trained network in stages does to test images, and what skipping it costs."""

    images: Annotated[int, Field(ge=0)] = 0  # the first so many of the test set; 0: all

    def start(self) -> DepthMeasures:
        """The hooks of one run."""
        from thriftylib.papers.ebcle_depth import DepthMeasures

        return DepthMeasures(self)
