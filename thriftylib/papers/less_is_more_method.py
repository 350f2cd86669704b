"""Less Is More's way to train: the proximal step on each neuron after each optimiser step, and the removal of zeros."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from thriftylib.errors import RunError, SpecError
from thriftylib.method import Method, Parent
from thriftylib.narrowing import narrow
from thriftylib.papers.less_is_more import LessIsMoreOptions
from thriftylib.training import fast_path

if TYPE_CHECKING:
    from thriftylib.datasets.load import Dataset
    from thriftylib.method import Sample

Neurons = nn.Conv2d | nn.Linear
_group_sparsity_in_c, _low_rank_in_c = (fast_path.function("proximal", name) for name in ("group_sparsity", "low_rank"))
_WITHIN_A_CHANNEL = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Dropout, nn.Flatten)
"""What may follow a neuron that is removed: it makes zeros of its zeros, and nothing else depends on them."""


class LessIsMore(Method):
    """Proximal steps on the neurons of some layers; at the end, or before the free epochs, zero neurons are removed.

    Series: ``neurons_<layer>``, neurons with a weight that is not zero, for each layer but the classifier.
    Measured: the same of the kept network; ``neurons_removed``, percent of the first linear layer's;
    ``parameters_removed``, percent of all; ``memory_removed``, in MiB at 4 bytes a parameter; ``constant_neurons``,
    those that stay for their bias alone.
    """

    def __init__(self, options: LessIsMoreOptions) -> None:
        self.options = options
        self.is_free = False

    def prepare(self, network: nn.Module, parent: Parent | None) -> nn.Module:
        """The network as it is.

        Raises:
            SpecError: it is no chain of layers, or neurons of a layer cannot be removed from it.
        """
        network = super().prepare(network, parent)
        self.hidden = [name for name, _ in _layers(network)][:-1]
        self.constrained = _constrained(network, self.options)
        self.first_linear = next(name for name, layer in _layers(network) if isinstance(layer, nn.Linear))
        self.before = _parameters(network), len(network.get_submodule(self.first_linear).weight)
        return network

    def epoch_starts(self, network: nn.Module, optimizer: Optimizer, epoch: int) -> None:
        """Remove what is zero when the free epochs begin: without constraint it might come back."""
        if epoch == self.options.constrained_epochs:
            self.is_free = True
            self._remove(network, optimizer)

    def after_step(self, network: nn.Module, optimizer: Optimizer, learning_rate: float) -> None:
        """The backward half-step of forward-backward splitting, with the learning rate of the forward one."""
        if self.is_free:
            return
        for name in self.constrained:
            layer = network.get_submodule(name)
            neurons = layer.weight, layer.bias if self.options.bias == "within" else None
            state = optimizer.state if self.options.clear_momentum else {}
            momenta = [state.get(parameter, {}).get("momentum_buffer") for parameter in neurons]
            with torch.no_grad():
                if self.options.low_rank:
                    low_rank(*neurons, learning_rate * self.options.low_rank, momenta)
                if self.options.group_sparsity:
                    group_sparsity(*neurons, learning_rate * self.options.group_sparsity, momenta)

    def epoch_ends(self, network: nn.Module, optimizer: Optimizer, epoch: int, sample: Sample) -> Mapping[str, float]:
        """Count the neurons with weights.

        Raises:
            RunError: a layer has none left.
        """
        counts = [_with_weights(network.get_submodule(name).weight).sum() for name in self.hidden]
        left = dict(zip(self.hidden, torch.stack(counts).tolist() if counts else [], strict=True))  # one wait for a GPU
        self._check(left)
        return {f"neurons_{name}": count for name, count in left.items()}

    def finish(self, network: nn.Module, dataset: Dataset) -> nn.Module:
        return self._remove(network, None)

    def measure(self, network: nn.Module, dataset: Dataset) -> Mapping[str, float | Sequence[float]]:
        parameters, width = self.before
        layers = {name: network.get_submodule(name) for name in self.hidden}
        removed = parameters - _parameters(network)
        return {
            **{f"neurons_{name}": len(layer.weight) for name, layer in layers.items()},
            "neurons_removed": 100 * (1 - len(layers[self.first_linear].weight) / width),
            "parameters_removed": 100 * removed / parameters,
            "memory_removed": 4 * removed / 2**20,
            "constant_neurons": sum(int((~_with_weights(layer.weight)).sum()) for layer in layers.values()),
        }

    def state(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        return {}, {"is_free": self.is_free}

    def restore(self, network: nn.Module, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> nn.Module:
        self.is_free = values["is_free"]
        return network

    def _remove(self, network: nn.Module, optimizer: Optimizer | None) -> nn.Module:
        """Remove zero neurons with what reads them; the network computes what it did."""
        readers = {name: reader for (name, _), (_, reader) in pairwise(_layers(network))}
        for name in self.constrained:
            layer = network.get_submodule(name)
            alive = _with_weights(layer.weight) | (layer.bias != 0)
            self._check({name: int(alive.sum())})
            narrow(optimizer, layer, "outputs", alive, readers=[readers[name]])
        return network

    def _check(self, left: Mapping[str, int]) -> None:
        if dead := [name for name, count in left.items() if not count]:
            said = self.options.model_dump(include={"group_sparsity", "low_rank"})
            strength = ", ".join(f"{name} = {value:g}" for name, value in said.items() if value)
            raise RunError(f"method less-is-more: no neuron of {dead[0]} is left; {strength} is too strong")


def group_sparsity(weight: Tensor, bias: Tensor | None, step: float, momenta: Sequence = (None, None)) -> None:
    """The proximal operator of ``step`` times the sum of the neurons' Euclidean norms, in place.

    Args:
        weight: (neurons, ...).
        bias: (neurons,), a part of each neuron; None: not of it.
        step: learning rate times strength; 0 changes nothing.
        momenta: of weight and bias, set to 0 for neurons that are 0; None: left.
    """
    if _group_sparsity_in_c(weight, bias, step, momenta):
        return
    norms = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.dim())))
    norms = norms if bias is None else torch.hypot(norms, bias)
    factors = torch.where(norms <= step, 0, 1 - step / norms)  # compared: of equals, rounding may leave a rest
    _scale((weight, bias), factors)
    _scale(momenta, factors != 0)


def low_rank(weight: Tensor, bias: Tensor | None, step: float, momenta: Sequence = (None, None)) -> None:
    """Approximates the proximal operator of ``step`` times the mean nuclear norm of the filters' unfoldings, in place.

    The exact operator has no closed form, since the unfoldings share their entries. This is the mean of the three
    operators of a single unfolding, a proximal average (READING). A linear neuron's unfoldings have its norm as their
    one singular value: there it is group sparsity. A filter's bias is no part of the tensor: a block of its own, of
    rank one, so that its absolute value is thresholded (READING). The arguments are those of :func:`group_sparsity`.
    """
    if weight.dim() == 2:
        return group_sparsity(weight, bias, step, momenta)
    if _low_rank_in_c(weight, bias, step, momenta):
        return
    total = torch.zeros_like(weight)
    for axis in (1, 2, 3):
        unfolded = weight.movedim(axis, 1)
        total += _soft_threshold(unfolded.flatten(2), step).view(unfolded.shape).movedim(1, axis)
    weight.copy_(total / 3)
    alive = _with_weights(weight)
    if bias is not None:
        alive |= bias.copy_(bias.sign() * (bias.abs() - step).clamp_(min=0)) != 0
    _scale(momenta, alive)


def _scale(tensors: Sequence[Tensor | None], factors: Tensor) -> None:
    for tensor in filter(torch.is_tensor, tensors):
        tensor.mul_(factors.view(-1, *[1] * (tensor.dim() - 1)))


def _soft_threshold(matrices: Tensor, step: float) -> Tensor:
    """Matrices (N, rows, columns) with ``step`` taken from their singular values, none below 0.

    By the eigenvectors of the smaller Gram matrix, in fp64 since its eigenvalues are squares.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return _soft_threshold(matrices.mT, step).mT
    wide = matrices.double()
    squares, vectors = torch.linalg.eigh(wide @ wide.mT)
    factors = (1 - step / squares.clamp_(min=1e-300).sqrt_()).clamp_(min=0)  # of 0 too, whatever the step
    return ((vectors * factors[:, None]) @ vectors.mT @ wide).to(matrices.dtype)


def _with_weights(weight: Tensor) -> Tensor:
    """Which neurons have a weight that is not zero, (neurons,) bool."""
    return weight.flatten(1).abs().amax(1) != 0


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _layers(network: nn.Module) -> Iterator[tuple[str, Neurons]]:
    return ((name, module) for name, module in network.named_children() if isinstance(module, Neurons))


def _constrained(network: nn.Module, options: LessIsMoreOptions) -> list[str]:
    """The names of the layers that ``options`` constrains.

    Raises:
        SpecError: the network is no chain, there is no such layer, or its neurons cannot be removed.
    """
    if not isinstance(network, nn.Sequential) or any(list(module.children()) for module in network.children()):
        raise SpecError(f"method less-is-more: {type(network).__name__} is no plain sequence of layers, as it needs")
    layers = [name for name, _ in _layers(network)]
    removable = [name for name in layers[:-1] if _is_removable(network, name)]
    for name in options.layers:
        if name not in removable:
            reason = "is no layer of the network"
            if name in layers:
                reason = "is the classifier" if name == layers[-1] else "cannot lose neurons without other effects"
            raise SpecError(f"layers: {name!r} {reason}; must be of: {', '.join(removable)}")
    if not options.layers and removable != layers[:-1]:
        raise SpecError(f"layers: must be named, since not all can lose neurons; of: {', '.join(removable)}")
    return list(dict.fromkeys(options.layers)) or removable


def _is_removable(network: nn.Sequential, name: str) -> bool:
    """Whether a layer and its reader have no groups, and all that is between them acts within a channel."""
    modules = dict(network.named_children())
    following = list(modules)[list(modules).index(name) + 1 :]
    reader = next(each for each in following if isinstance(modules[each], Neurons))
    between = [modules[each] for each in following[: following.index(reader)]]
    grouped = any(getattr(modules[each], "groups", 1) > 1 for each in (name, reader))
    return not grouped and all(isinstance(module, _WITHIN_A_CHANNEL) for module in between)
