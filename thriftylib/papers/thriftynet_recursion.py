"""The modules of ThriftyNets: the recursion and its head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from thriftylib.papers.thriftynet import ThriftyNetOptions


class ReTanh(nn.Module):
    """x tanh(x), elementwise (authors' code)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.tanh()


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky": lambda: nn.LeakyReLU(0.1),
    "softplus": nn.Softplus,
    "rrelu": nn.RReLU,  # draws from the global generator while training
    "celu": nn.CELU,
    "tanhshrink": nn.Tanhshrink,
    "swish": nn.SiLU,
    "hswish": nn.Hardswish,
    "retanh": ReTanh,
}


class ThriftyNet(nn.Module):
    """Images (N, C, H, W) to whatever ``head`` makes of x_T, (N, filters, H', W').

    Args:
        options: with ``filters`` given (``options.resolve`` turns a parameter budget into it).
        head: from x_T to logits; ``nn.Identity()`` where another network takes x_T.
    """

    def __init__(self, options: ThriftyNetOptions, head: nn.Module) -> None:
        super().__init__()
        filters, iterations, history = options.filters, options.iterations, options.history
        self.iterations, self.pools = iterations, options.pools
        # Until 19 June 2020 the authors' code shifted its history from index 1 on: the oldest slot stayed empty.
        self.kept_states = history - 1 if options.history_bug and history > 1 else history
        self.convs = nn.ModuleList(_conv(options) for _ in range(1 if options.shared else iterations))
        self.norms = nn.ModuleList(
            nn.BatchNorm2d(filters, affine=options.norm_affine)
            for _ in range(1 if options.norm == "shared" else iterations)
        )
        self.activation = ACTIVATIONS[options.activation]()
        self.register_parameter("alpha", nn.Parameter(_alpha(options)) if options.recursion == "augmented" else None)
        self.head = head

    @property
    def filters(self) -> int:
        """Channels of every state, as the norms have them: a method may narrow them."""
        return self.norms[0].num_features

    def forward(self, images: Tensor) -> Tensor:
        """The recursion: (N, C, H, W) floats with C <= filters in, the head's output out."""
        states = [F.pad(images, (0, 0, 0, 0, 0, self.filters - images.shape[1]))]  # x_0 = PAD(image)
        for t in range(self.iterations):
            states = [*states, self.step(t, states)][-self.kept_states :]
            if t in self.pools:  # D_t
                states = [F.max_pool2d(state, 2) for state in states]
        return self.head(states[-1])

    def step(self, t: int, states: Sequence[Tensor]) -> Tensor:
        """x_{t+1} before pooling, (N, f, H, W), from the live states, oldest first: ``states[-1]`` is x_t.

        States that do not exist yet are not in ``states``, so its length grows from 1 to at most h.
        """
        activated = self.activation(self.convs[t % len(self.convs)](states[-1]))  # sigma(W * x_t)
        if self.alpha is None:
            mixed = activated + states[-1]
        else:
            mixed = self.alpha[t, 0] * activated
            oldest = self.alpha.shape[1] - len(states)  # a[t,h], the last coefficient, belongs to x_t
            for i, state in enumerate(states, start=oldest):
                mixed = mixed + self.alpha[t, i] * state
        return self.norms[t % len(self.norms)](mixed)


def _conv(options: ThriftyNetOptions) -> nn.Module:
    """W: 3x3 (classic), or grouped 3x3 from f to f/k channels and then 1x1 back to f (mb_k), nothing between."""
    filters, narrow = options.filters, options.filters // options.reduction
    if options.conv == "classic":
        return nn.Conv2d(filters, filters, 3, padding=1, bias=False)
    return nn.Sequential(
        nn.Conv2d(filters, narrow, 3, padding=1, groups=narrow, bias=False),
        nn.Conv2d(narrow, filters, 1, bias=False),
    )


def _alpha(options: ThriftyNetOptions) -> Tensor:
    """The initial a (T, h+1): column 0 is the activation's, column 1 the oldest state's, column h that of x_t."""
    value = {"main": 0.0, "half": 0.5, "one": 1.0}[options.alpha_init]
    alpha = torch.full((options.iterations, options.history + 1), value)
    if options.alpha_init == "main":
        alpha[:, 0], alpha[:, 1 if options.alpha_main == "oldest" else -1] = 0.1, 0.9
    return alpha


class GlobalMaxPool(nn.Module):
    """(N, f, H, W) to (N, f); unlike ``AdaptiveMaxPool2d``'s, the backward pass is deterministic on CUDA."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((2, 3))


def make_head(kind: str, features: int, classes: int) -> nn.Module:
    """Global max-pool ("max") or flatten, then a linear layer with bias: (N, C, H, W) to (N, classes)."""
    return nn.Sequential(GlobalMaxPool() if kind == "max" else nn.Flatten(), nn.Linear(features, classes))
