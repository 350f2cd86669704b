"""Trained networks evaluated with other batch-norm statistics than the running ones: what a shared batch norm costs.

A batch norm that serves several depths has one running mean and variance for maps of all of them. Whether *that* is
what fails in evaluation, and not the weights, shows when the same weights are evaluated with other statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import count
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thriftylib.method import Method

if TYPE_CHECKING:
    from thriftylib.datasets.load import Dataset

Normalise = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]
"""Number of the use in a forward pass, maps (N, C, H, W), weight (C,), bias (C,) and epsilon, to normalised maps."""


class NormStatistics(Method):
    """Evaluates the network that it is given, and changes nothing of it.

    ``measured``, accuracies in percent of the test set, evaluated in batches of 500 images in the test set's order:

    - ``running_statistics_accuracy``: the ordinary one, by the running mean and variance of each batch norm.
    - ``batch_statistics_accuracy``: by the mean and variance of each test batch, at each use of a batch norm. The
      answer for an image then depends a little on the images beside it: a diagnosis, and no way to use a network.
    - ``own_statistics_accuracy``: by a mean and variance for each *use* of a batch norm, re-estimated over all training
      images as they are, without augmentation: the mean over batches of 500 of what each batch has at that use (the
      variance unbiased), while the maps are normalised by the batch's own. No label enters.
    """

    def measure(self, network: nn.Module, dataset: Dataset) -> Mapping[str, float | Sequence[float]]:
        from thriftylib.training.evaluation import evaluate  # training imports papers, not the other way round

        def accuracy(normalise: Normalise | None = None, split: str = "test") -> float:
            with replaced_norms(network, normalise) if normalise else nullcontext():
                return evaluate(network, getattr(dataset, split), dataset, next(network.parameters()).device)[1]

        own = UseStatistics()
        accuracy(own.collect, "train")
        return {
            "running_statistics_accuracy": accuracy(),
            "batch_statistics_accuracy": accuracy(of_the_batch),
            "own_statistics_accuracy": accuracy(own.apply),
        }


@contextmanager
def replaced_norms(network: nn.Module, normalise: Normalise) -> Iterator[None]:
    """Within, each use of a batch norm in a forward pass of ``network`` gives what ``normalise`` makes of its input.

    Uses are numbered from 0 in the order of a forward pass. Weights and running statistics stay as they are.
    """
    uses = count()

    def begin(module: nn.Module, inputs: object) -> None:
        nonlocal uses
        uses = count()

    def replace(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        maps, *affine = inputs  # an affine map that several batch norms share is handed to each
        return normalise(next(uses), maps, *(affine or (norm.weight, norm.bias)), norm.eps)

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [network.register_forward_pre_hook(begin), *(norm.register_forward_hook(replace) for norm in norms)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def of_the_batch(use: int, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalised by the batch's own mean and variance."""
    return F.batch_norm(maps, None, None, weight, bias, training=True, eps=eps)


class UseStatistics:
    """For each use of a batch norm the mean over batches, weighted by their images, of its mean and variance."""

    def __init__(self) -> None:
        self.images: dict[int, int] = {}
        self.sums: dict[int, Tensor] = {}  # (2, C) of mean and variance, in fp64: sums over many batches

    def collect(self, use: int, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Note the batch's mean and variance, and normalise by them."""
        variance, mean = torch.var_mean(maps.float(), (0, 2, 3))
        self.images[use] = self.images.get(use, 0) + len(maps)
        self.sums[use] = self.sums.get(use, 0) + len(maps) * torch.stack((mean, variance)).double()
        return of_the_batch(use, maps, weight, bias, eps)

    def apply(self, use: int, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        """Normalise by what was noted."""
        mean, variance = (self.sums[use] / self.images[use]).to(maps.dtype)
        return F.batch_norm(maps, mean, variance, weight, bias, training=False, eps=eps)
