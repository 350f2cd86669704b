"""UCP's ways to train: a network whose channels are scored, and a narrow one whose widths come from those scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from thriftylib.errors import SpecError
from thriftylib.method import Method, Parent
from thriftylib.narrowing import different_shapes, match_cost, narrow
from thriftylib.papers.networks_narrowable import Layer, NarrowableNetwork
from thriftylib.papers.ucp import ScoringOptions, UcpOptions, hidden_units

if TYPE_CHECKING:
    from thriftylib.datasets.load import Dataset

Scores = dict[str, Tensor]
"""By the name of a layer, a number for each of its channels, (C,) in double precision."""
PREFIX = "scores "
"""How the names of a record's scores begin, before the layer's."""
_BLOCKS = (".inner.", ".output.", "gates.")  # within the names of an excitation block's weights


class Excitation(nn.Module):
    """The modified squeeze-and-excitation block: maps (N, C, H, W), each channel times a number from 0 to 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden, bias = hidden_units(channels)
        self.squeeze = nn.Linear(channels, hidden, bias)
        self.excite = nn.Linear(hidden, channels, bias)
        self.sigmoid = nn.Sigmoid()  # a module: its outputs are the scores, and a hook reads them

    def forward(self, x: Tensor) -> Tensor:
        gate = self.sigmoid(self.excite(torch.relu(self.squeeze(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class Scoring(Method):
    """Measures the scores of a trained network with excitation blocks.

    ``measured``: "scores <layer>", a number for each channel, and ``tied_layers``, the percentage of those layers all
    of whose scores are exactly equal.
    """

    def __init__(self, options: ScoringOptions) -> None:
        self.options = options

    def prepare(self, network: nn.Module, parent: Parent | None = None) -> nn.Module:
        excitations(network)
        for _ in range(self.options.redraws):
            network.draw()
        return super().prepare(network, parent)

    def measure(self, network: nn.Module, dataset: Dataset) -> Mapping[str, float | Sequence[float]]:
        from thriftylib.training.evaluation import mean_outputs  # training imports papers, not the other way round

        gates = {name: block.sigmoid for name, block in excitations(network).items()}
        images, training = getattr(dataset, self.options.split).images, self.options.mode == "training"
        scores = mean_outputs(network, gates, images, dataset, training=training)
        return {PREFIX + name: each.tolist() for name, each in scores.items()} | {"tied_layers": tied_share(scores)}


class Ucp(Method):
    """Narrows the network before it is trained; ``measured``: ``widths`` of its layers, and the ``tied_layers`` (%)."""

    def __init__(self, options: UcpOptions) -> None:
        self.options = options

    def prepare(self, network: nn.Module, parent: Parent | None = None) -> nn.Module:
        options, layers = self.options, layers_of(network)
        if parent is None:
            raise SpecError("method ucp: needs a parent, a run of the method ucp-scores that measured the scores")
        if any(isinstance(layer.gate, Excitation) for layer in layers):
            raise SpecError("method ucp: the narrow network has no excitation blocks; its option excited must be off")
        scores = read_scores(parent, layers)
        self.tied = tied_share(scores)
        norms = {each.name: parent.tensors[f"{each.name}.weight"].double().flatten(1).norm(dim=1) for each in layers}
        generator = _generator(parent, "channels")
        drawn = {name: torch.rand(len(x), generator=generator, dtype=torch.float64) for name, x in scores.items()}
        ranks = {"scores": scores, "magnitude": norms, "random": drawn}[options.channels]
        widths = choose_widths(options, scores, norms, parent)
        if options.weights == "parent":
            _load_without_blocks(network, parent, layers, scores)
        for layer, width in zip(layers, widths, strict=True):
            narrow(None, layer.conv, "outputs", top(ranks[layer.name], width), readers=layer.readers)
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
    if not isinstance(network, NarrowableNetwork):
        raise SpecError(f"{type(network).__name__}: UCP scores and narrows the networks ucp-vgg and ucp-resnet alone")
    return network.layers()


def excitations(network: nn.Module) -> dict[str, Excitation]:
    """The excitation blocks by the names of the layers that they score; by their own where those are not narrowed.

    Raises:
        SpecError: there is none.
    """
    found = {layer.name: layer.gate for layer in layers_of(network) if isinstance(layer.gate, Excitation)}
    found = found or {name: module for name, module in network.named_modules() if isinstance(module, Excitation)}
    if not found:
        raise SpecError("method ucp-scores: the network has no excitation block; set its option excited")
    return found


def is_tied(scores: Tensor) -> bool:
    """Whether all channels have exactly the same score."""
    return bool((scores == scores[0]).all())


def tied_share(scores: Scores) -> float:
    """The percentage of layers whose scores are all tied."""
    return 100 * sum(map(is_tied, scores.values())) / len(scores)


def read_scores(parent: Parent, layers: Sequence[Layer]) -> Scores:
    """The scores that the parent's run measured, of just these layers.

    Raises:
        SpecError: it measured none, or those of another network.
    """
    measured, where = parent.record.measured, f"the parent {parent.record.run.configuration}"
    scores = {name.removeprefix(PREFIX): each for name, each in measured.items() if name.startswith(PREFIX)}
    if not scores:
        raise SpecError(f"{where} measured no scores: it must be a run of the method ucp-scores")
    channels = {layer.name: layer.conv.out_channels for layer in layers}
    for name in sorted(scores.keys() | channels.keys()):
        if len(scores.get(name, ())) != channels.get(name):
            found, own = f"{len(scores.get(name, ()))} of {name}", f"{channels.get(name, 'no')} such channels"
            raise SpecError(f"{where} has the scores of another network: {found}, while this one has {own}")
    return {name: torch.tensor(scores[name], dtype=torch.float64) for name in channels}


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

    def width(layer: int, each: Tensor) -> int:
        if layer in options.skip or is_tied(each):
            return len(each) // 2 if layer not in options.skip and options.ties == "halve" else len(each)
        return max(1, int((each > options.multiplier * each.mean()).sum()))

    return [width(layer, each) for layer, each in enumerate(scores.values())]


def choose_widths(options: UcpOptions, scores: Scores, norms: Scores, parent: Parent) -> list[int]:
    """The width of each layer, as ``options.widths`` says: see :class:`thriftylib.papers.ucp.UcpOptions`."""
    own = threshold_widths(options, scores)
    if options.widths == "scores":
        return own
    channels = torch.tensor([len(each) for each in scores.values()], dtype=torch.float64)
    shares = torch.tensor(own, dtype=torch.float64) / channels
    if options.widths == "uniform":
        shares = torch.ones_like(shares)
    elif options.widths == "shuffled":
        shares = shares[torch.randperm(len(shares), generator=_generator(parent, "widths"))]
    elif options.widths == "reversed":
        order = shares.argsort(stable=True)
        shares = shares.clone().index_copy_(0, order, shares[order.flip(0)])
    else:
        shares = torch.tensor(threshold_widths(options, norms), dtype=torch.float64) / channels
    run = parent.record.run

    def price(widths: list[int]) -> int:
        cost = run.options.narrowed(widths).cost(run.data.info.image_shape, len(run.data.info.classes))
        return getattr(cost, options.budget)

    return match_cost(shares, channels, price, price(own))


def top(scores: Tensor, width: int) -> Tensor:
    """The indices of the ``width`` channels of highest score, rising; of equal scores the first ones."""
    return scores.argsort(descending=True, stable=True)[:width].sort().values


def _load_without_blocks(network: nn.Module, parent: Parent, layers: Sequence[Layer], scores: Scores) -> None:
    """The parent's weights, each channel times its score: what its excitation block did on average."""
    tensors = {name: x for name, x in parent.tensors.items() if not any(part in name for part in _BLOCKS)}
    if different_shapes(network, tensors) != {}:
        raise SpecError(f"the parent {parent.record.run.configuration} is another network: its weights do not fit")
    network.load_state_dict(tensors)
    with torch.no_grad():
        for layer in layers:
            layer.conv.weight.mul_(scores[layer.name].to(layer.conv.weight.dtype)[:, None, None, None])


def _generator(parent: Parent, use: str) -> torch.Generator:
    from thriftylib.training.streams import stream  # training imports papers, not the other way round

    return stream("cpu", parent.record.run.seed, "ucp", use)
