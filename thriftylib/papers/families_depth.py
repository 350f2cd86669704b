"""What the units of a network do, by depth: how much their maps hold, and how near to the identity they are.

Of EBCLE's analysis by depth we know the abstract's words alone: beyond the bound identity transformations are
prevalent. How they were found is unavailable to us; every measure here, with its conventions, is inferred.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from thriftylib.errors import SpecError
from thriftylib.histograms import histogram_entropy, row_counts
from thriftylib.method import Method, Parent
from thriftylib.options import NetworkOptions
from thriftylib.papers.families import DepthMeasuresOptions, StagedOptions

if TYPE_CHECKING:
    from thriftylib.datasets.load import Dataset
    from thriftylib.papers.families_networks import Unit

BINS = 256  # of a map's histogram


class DepthMeasures(Method):
    """Measures each unit of a network on test images, in evaluation mode, and changes nothing of the network.

    ``measured``, lists in the order of a forward pass, with NaN (null in a record) where a measure does not apply:

    - ``map_entropy``, nats: :func:`map_entropy` of the images (for 8-bit values the entropy of a channel's), of the
      stem's maps, then of each unit's (a dense one's new channels alone). Few pixels cannot fill a histogram, so beside
      it are ``map_pixels``, the maximum ``map_entropy_ceiling``, and :func:`random_entropy` as ``map_entropy_uniform``
      (ln 256 but for the estimator's bias) and ``map_entropy_gaussian``.
    - ``residual_norm``: ||F(x)|| / ||x|| of a unit that adds F(x) to its input x; ``cosine``: of x and what the unit
      gives, behind any activation. Means over images; NaN where the shortcut is not the identity.
    - ``cka``: :func:`linear_cka` of each unit's output and that of the one before it, at first the stem's. Features are
      the means of maps over pixels, since sizes differ. CKA is biased upwards unless images far outnumber channels.
    - ``skip_loss``: the points of accuracy lost when a unit gives its input (a dense one: zeros) in place of its
      output; ``unskipped_accuracy``, percent: the accuracy when none is skipped.
    - ``unit_stage``: the stage of each unit, from 0.
    """

    def __init__(self, options: DepthMeasuresOptions) -> None:
        self.options = options

    def prepare(self, network: nn.Module, parent: Parent | None = None) -> nn.Module:
        if not hasattr(network, "units"):
            names = sorted(name for name, kind in NetworkOptions.known.items() if issubclass(kind, StagedOptions))
            raise SpecError(f"method depth-measures: the network has no units; those that have: {', '.join(names)}")
        return super().prepare(network, parent)

    def measure(self, network: nn.Module, dataset: Dataset) -> Mapping[str, float | Sequence[float]]:
        from thriftylib.datasets.load import Split  # training imports papers, not the other way round
        from thriftylib.training.evaluation import BATCH, as_input, evaluate

        units, count, training = network.units(), self.options.images or len(dataset.test), network.training
        if count > len(dataset.test):
            raise SpecError(f"method depth-measures: images = {count}: the test set has {len(dataset.test)}")
        test = Split(dataset.test.images[:count], dataset.test.labels[:count])

        def accuracy(unit: Unit | None = None) -> float:
            with skipped(unit) if unit else nullcontext():
                return evaluate(network, test, dataset, test.images.device)[1]

        unskipped, batches = accuracy(), test.images.split(BATCH)
        skip_loss = [unskipped - accuracy(unit) if unit.skippable else math.nan for unit in units]
        places = observe(network.eval(), units, (as_input(batch, dataset, "fp32") for batch in batches))
        network.train(training)
        features = [torch.cat(place.features) for place in places]
        pixels = [batches[0][0, 0].numel(), *(place.pixels for place in places)]
        entropies = [[map_entropy(batch) for batch in batches], *(place.entropy for place in places)]
        return {
            "map_entropy": [_mean(each) for each in entropies],
            "map_pixels": pixels,
            "map_entropy_ceiling": [math.log(min(each, BINS)) for each in pixels],
            "map_entropy_uniform": [random_entropy("uniform", each) for each in pixels],
            "map_entropy_gaussian": [random_entropy("gaussian", each) for each in pixels],
            "unit_stage": [unit.stage for unit in units],
            "residual_norm": [_mean(place.residual_norm) for place in places[1:]],
            "cosine": [_mean(place.cosine) for place in places[1:]],
            "cka": [linear_cka(*pair) for pair in zip(features, features[1:], strict=False)],
            "skip_loss": skip_loss,
            "unskipped_accuracy": unskipped,
        }


class Place:
    """What is measured where the stem or a unit ends: of each batch a tensor that begins with its images."""

    def __init__(self) -> None:
        self.entropy, self.features, self.residual_norm, self.cosine = ([] for _ in range(4))
        self.residual: Tensor | None = None

    def see(self, maps: Tensor) -> None:
        """Note what maps (N, C, H, W) hold."""
        self.pixels = maps[0, 0].numel()
        self.entropy.append(map_entropy(maps))
        self.features.append(maps.mean((2, 3)))

    def note_residual(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        """Hook of what computes F(x); its norm is taken at once, since the block may then add x in place."""
        self.residual = output.flatten(1).norm(dim=1)

    def note_output(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """Hook of a unit, which leaves its input as it is."""
        self.see(output)
        if self.residual is not None:
            x, output, norm = inputs[0].flatten(1), output.flatten(1), inputs[0].flatten(1).norm(dim=1)
            self.residual_norm.append(self.residual / norm)
            self.cosine.append((x * output).sum(1) / (norm * output.norm(dim=1)))


@torch.no_grad()
def observe(network: nn.Module, units: Sequence[Unit], batches: Iterable[Tensor]) -> list[Place]:
    """What forward passes over batches (N, C, H, W) show where the stem ends, and where each unit does."""
    stem, *places = [Place() for _ in range(len(units) + 1)]
    with ExitStack() as hooks:
        hooks.enter_context(units[0].module.register_forward_pre_hook(lambda module, inputs: stem.see(inputs[0])))
        for unit, place in zip(units, places, strict=True):
            hooks.enter_context(unit.module.register_forward_hook(place.note_output))
            if unit.branch is not None and unit.skippable:
                hooks.enter_context(unit.branch.register_forward_hook(place.note_residual))
        for batch in batches:
            network(batch)
    return [stem, *places]


def skipped(unit: Unit) -> RemovableHandle:
    """While it is open, the unit gives its input as its output, a dense one zeros as its new channels."""
    zeros = unit.branch is None
    return unit.module.register_forward_hook(lambda _, inputs, output: torch.zeros_like(output) if zeros else inputs[0])


def map_entropy(maps: Tensor) -> Tensor:
    """The entropy in nats of each map's histogram, mean over the maps of an image: (N, C, H, W) to (N,) in fp64.

    The histogram has 256 equal bins between the map's own minimum and maximum (in the last bin), so scale and shift
    change nothing. A constant map has entropy 0; one with a number that is not finite has none (NaN).
    """
    rows, entropies = maps.flatten(2).flatten(0, 1), []
    for piece in rows.split(max(1, 2**18 // max(BINS, rows.shape[1]))):  # as many as a CPU's cache holds
        low, high = piece.double().aminmax(dim=1, keepdim=True)
        bins = ((piece - low) / (high - low) * BINS).nan_to_num_(0).clamp_(0, BINS - 1).long()  # of a constant map: 0
        finite = (high - low).isfinite().squeeze(1)
        entropies.append(histogram_entropy(row_counts(bins, BINS)).where(finite, math.nan))
    return torch.cat(entropies).view(len(maps), -1).mean(1)


@cache
def random_entropy(kind: Literal["uniform", "gaussian"], pixels: int, draws: int = 256) -> float:
    """:func:`map_entropy` of maps of so many independent values: the mean of so many draws by a fixed seed."""
    draw = {"uniform": torch.rand, "gaussian": torch.randn}[kind]
    return map_entropy(draw(1, draws, 1, pixels, generator=torch.Generator().manual_seed(0))).item()


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA (Kornblith et al., 2019) of features (N, C) and (N, D) of the same N inputs: from 0 to 1."""
    x, y = (each.double() - each.double().mean(0) for each in (x, y))
    return ((x.T @ y).norm().square() / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def _mean(batches: Sequence[Tensor]) -> float:
    return torch.cat(list(batches)).double().mean().item() if batches else math.nan
