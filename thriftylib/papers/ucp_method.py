"""UCP's ways to train: a network whose channels are scored, and a narrow one whose widths come from those scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from thriftylib.errors import SpecError
from thriftylib.method import Method, Parent
from thriftylib.narrowing import different_shapes, narrow
from thriftylib.papers.ucp import PrunableOptions, ScoringOptions, UcpOptions
from thriftylib.papers.ucp_networks import Excitation, Layer, PrunableNetwork

if TYPE_CHECKING:
    from thriftylib.datasets.load import Dataset

Scores = dict[str, Tensor]
"""By the name of a layer, the scores of its channels, (C,) in double precision."""
PREFIX = "scores "
"""How the names of a record's scores begin, before the layer's."""


class Scoring(Method):
    """Measures the scores of a trained network with excitation blocks.

    ``measured``: "scores <layer>", one number a channel, and ``tied_layers``, the percentage of those layers all of
    whose scores are exactly equal.
    """

    def __init__(self, options: ScoringOptions) -> None:
        self.options = options

    def prepare(self, network: nn.Module, parent: Parent | None = None) -> nn.Module:
        scored_layers(network)
        for _ in range(self.options.redraws):
            network.draw()
        return super().prepare(network, parent)

    def measure(self, network: nn.Module, dataset: Dataset) -> Mapping[str, float | Sequence[float]]:
        scores = measure_scores(network, dataset, self.options.split, training=self.options.mode == "training")
        tied = sum(is_tied(each) for each in scores.values())
        return {PREFIX + name: each.tolist() for name, each in scores.items()} | {
            "tied_layers": 100 * tied / len(scores)
        }


class Ucp(Method):
    """Narrows the network before it is trained; ``measured``: ``widths`` of its layers, and the ``tied_layers`` (%)."""

    def __init__(self, options: UcpOptions) -> None:
        self.options = options

    def prepare(self, network: nn.Module, parent: Parent | None = None) -> nn.Module:
        options, layers = self.options, layers_of(network)
        if parent is None:
            raise SpecError("method ucp: needs a parent, a run of the method ucp-scores that measured the scores")
        scores = read_scores(parent, layers)
        self.tied = 100 * sum(map(is_tied, scores.values())) / len(scores)
        norms = kernel_norms(parent, layers)
        widths = choose_widths(options, scores, norms, parent)
        ranked = {"scores": scores, "magnitude": norms, "random": _random_scores(scores, parent.record.run.seed)}
        kept = [top(each, width) for each, width in zip(ranked[options.channels].values(), widths, strict=True)]
        if options.weights == "parent":
            _load_without_blocks(network, parent)
            fold(layers, scores)
        for layer, keep in zip(layers, kept, strict=True):
            narrow(None, layer.conv, "outputs", keep, readers=layer.readers)
        if options.weights == "fresh":
            network.draw()
        return network

    def measure(self, network: nn.Module, dataset: Dataset) -> Mapping[str, float | Sequence[float]]:
        return {"widths": [layer.conv.out_channels for layer in layers_of(network)], "tied_layers": self.tied}


def layers_of(network: nn.Module) -> list[Layer]:
    """The layers that may be narrowed.

    Raises:
        SpecError: it is none of UCP's networks.
    """
    if not isinstance(network, PrunableNetwork):
        raise SpecError(f"{type(network).__name__}: UCP narrows the networks ucp-vgg and ucp-resnet only")
    return network.layers()


def scored_layers(network: nn.Module) -> dict[str, Excitation]:
    """The excitation blocks by the names of their layers.

    Raises:
        SpecError: there is none.
    """
    found = {layer.name: layer.excitation for layer in layers_of(network) if isinstance(layer.excitation, Excitation)}
    found = found or {name: module for name, module in network.named_modules() if isinstance(module, Excitation)}
    if not found:
        raise SpecError("method ucp-scores: the network has no excitation block; set its option excited")
    return found


@torch.no_grad()
def measure_scores(network: nn.Module, dataset: Dataset, split: str = "train", *, training: bool = False) -> Scores:
    """The mean excitation of each channel over the images of a split, as they are, in batches of 500.

    Args:
        training: whether batch norms use each batch's own statistics; the running ones stay as they are in any case.
    """
    from thriftylib.training.evaluation import BATCH, as_input  # training imports papers, not the other way round

    sums: Scores = {}

    def add(name: str, gate: Tensor) -> None:
        sums[name] = sums.get(name, 0) + gate.double().sum(0).cpu()

    hooks = [
        block.sigmoid.register_forward_hook(lambda module, inputs, gate, name=name: add(name, gate))
        for name, block in scored_layers(network).items()
    ]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    images = getattr(dataset, split).images
    try:
        network.train(training)
        for batch in images.split(BATCH):
            network(as_input(batch, dataset, "fp32"))
    finally:
        for hook in hooks:
            hook.remove()
        network.load_state_dict(buffers, strict=False)
        network.eval()
    return {name: each / len(images) for name, each in sums.items()}


def is_tied(scores: Tensor) -> bool:
    """Whether all channels have exactly the same score."""
    return bool((scores == scores[0]).all())


def read_scores(parent: Parent, layers: Sequence[Layer]) -> Scores:
    """The scores that the parent's run measured, of just these layers.

    Raises:
        SpecError: it measured none, or those of other layers.
    """
    measured = parent.record.measured
    scores = {name.removeprefix(PREFIX): value for name, value in measured.items() if name.startswith(PREFIX)}
    where = f"the parent {parent.record.run.configuration}"
    if not scores:
        raise SpecError(f"{where} measured no scores: it must be a run of the method ucp-scores")
    for layer in layers:
        found = len(scores.get(layer.name, ()))
        if found != layer.conv.out_channels:
            raise SpecError(
                f"{where} has the scores of another network: {found} for {layer.name}, which has "
                f"{layer.conv.out_channels} channels"
            )
    if unknown := scores.keys() - {layer.name for layer in layers}:
        raise SpecError(f"{where} has the scores of another network: there is no layer {min(unknown)} here")
    return {layer.name: torch.tensor(scores[layer.name], dtype=torch.float64) for layer in layers}


def kernel_norms(parent: Parent, layers: Sequence[Layer]) -> Scores:
    """The Euclidean norm of each channel's kernel in the parent's weights."""
    return {layer.name: parent.tensors[f"{layer.name}.weight"].double().flatten(1).norm(dim=1) for layer in layers}


def threshold_widths(options: UcpOptions, scores: Scores) -> list[int]:
    """How many channels of each layer have a score above ``multiplier`` x the layer's mean; one stays in any case.

    Raises:
        SpecError: ``skip`` names a layer that is not there, or ``keep`` does not fit the layers.
    """
    channels = list(map(len, scores.values()))
    if wrong := [layer for layer in options.skip if layer >= len(channels)]:
        raise SpecError(f"skip = {wrong[0]}: there is no such layer; must be from 0 to {len(channels) - 1}")
    if options.keep:
        if len(options.keep) != len(channels):
            raise SpecError(f"keep: {len(options.keep)} widths; must be {len(channels)}, one for each layer")
        if wide := [(x, of) for x, of in zip(options.keep, channels, strict=True) if x > of]:
            raise SpecError(f"keep = {wide[0][0]}: the layer has {wide[0][1]} channels")
        return list(options.keep)
    widths = []
    for i, each in enumerate(scores.values()):
        if i in options.skip:
            widths.append(len(each))
        elif is_tied(each):
            widths.append(len(each) if options.ties == "keep" else len(each) // 2)
        else:
            widths.append(max(1, int((each > options.multiplier * each.mean()).sum())))
    return widths


def choose_widths(options: UcpOptions, scores: Scores, norms: Scores, parent: Parent) -> list[int]:
    """The width of each layer, as ``options.widths`` says: see :class:`thriftylib.papers.ucp.UcpOptions`."""
    own = threshold_widths(options, scores)
    if options.widths == "scores":
        return own
    channels = torch.tensor([len(each) for each in scores.values()], dtype=torch.float64)
    shares = torch.tensor(own, dtype=torch.float64) / channels
    order = shares.argsort(stable=True)
    if options.widths == "uniform":
        shares = torch.ones_like(shares)
    elif options.widths == "shuffled":
        shares = shares[torch.randperm(len(shares), generator=_generator(parent.record.run.seed, "widths"))]
    elif options.widths == "reversed":
        shares = shares.clone().index_copy_(0, order, shares[order.flip(0)])
    else:
        shares = torch.tensor(threshold_widths(options, norms), dtype=torch.float64) / channels
    network, run = parent.record.run.options, parent.record.run

    def price(widths: Sequence[int]) -> int:
        assert isinstance(network, PrunableOptions)  # its scores fit
        cost = network.narrowed(widths).cost(run.data.info.image_shape, len(run.data.info.classes))
        return getattr(cost, options.budget)

    return match(shares, channels, price, price(own))


def match(shares: Tensor, channels: Tensor, price: Callable[[Sequence[int]], int], target: int) -> list[int]:
    """Widths in the proportion of ``shares`` of ``channels``, (layers,) each, whose price is as near to ``target``.

    No single channel more or less would bring it nearer.
    """

    def scaled(factor: float) -> list[int]:
        return (factor * shares * channels).round().clamp(min=1).minimum(channels).int().tolist()

    low, high = 0.0, float(1 / shares.min())
    for _ in range(50):  # as near as rounding all layers together comes
        middle = (low + high) / 2
        low, high = (middle, high) if price(scaled(middle)) <= target else (low, middle)
    widths = scaled(low)
    while True:
        near = [[w + step * (i == j) for j, w in enumerate(widths)] for i in range(len(widths)) for step in (1, -1)]
        possible = [each for each in near if all(1 <= w <= c for w, c in zip(each, channels.tolist(), strict=True))]
        nearest = min(possible, key=lambda each: abs(price(each) - target))
        if abs(price(nearest) - target) >= abs(price(widths) - target):
            return widths
        widths = nearest


def top(scores: Tensor, width: int) -> Tensor:
    """The indices of the ``width`` channels of highest score, rising; of equal scores the first ones."""
    return scores.argsort(descending=True, stable=True)[:width].sort().values


def fold(layers: Sequence[Layer], scores: Scores) -> None:
    """Multiply each channel by its score, which is what its excitation block did on average."""
    with torch.no_grad():
        for layer in layers:
            layer.conv.weight.mul_(scores[layer.name].to(layer.conv.weight.dtype)[:, None, None, None])


def _load_without_blocks(network: nn.Module, parent: Parent) -> None:
    blocks = (".inner.", ".output.", "excitations.")
    tensors = {name: x for name, x in parent.tensors.items() if not any(part in name for part in blocks)}
    different = different_shapes(network, tensors)
    if different is None or different:
        raise SpecError(f"the parent {parent.record.run.configuration} is another network: its weights do not fit")
    network.load_state_dict(tensors)


def _random_scores(scores: Scores, seed: int) -> Scores:
    generator = _generator(seed, "channels")
    return {name: torch.rand(len(each), generator=generator, dtype=torch.float64) for name, each in scores.items()}


def _generator(seed: int, use: str) -> torch.Generator:
    from thriftylib.training.streams import stream  # training imports papers, not the other way round

    return stream("cpu", seed, "ucp", use)
