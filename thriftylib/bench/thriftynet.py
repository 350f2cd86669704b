"""How fast our engine trains a ThriftyNet beside the authors' formulation of the same network and training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from thriftylib.bench.interleaved import Way, check_same, measure, our_training, plain_training, trainer
from thriftylib.bench.record import BenchRecord
from thriftylib.spec import Augment, Recipe, Run

AUTHORS = "authors"


class AuthorsFormulation(nn.Module):
    """The mb1, tanh network written plainly after the authors' code, operation by operation: (N, 3, H, W) to (N, 10).

    Its state_dict is that of :class:`thriftylib.papers.thriftynet_recursion.ThriftyNet`.
    """

    def __init__(self, filters: int, iterations: int, history: int, pool: int, classes: int = 10) -> None:
        super().__init__()
        self.filters, self.history, self.pool = filters, history, pool
        depthwise = nn.Conv2d(filters, filters, 3, padding=1, groups=filters, bias=False)
        self.convs = nn.ModuleList([nn.Sequential(depthwise, nn.Conv2d(filters, filters, 1, bias=False))])
        self.norms = nn.ModuleList(nn.BatchNorm2d(filters) for _ in range(iterations))
        self.alpha = nn.Parameter(torch.zeros(iterations, history + 1))
        self.activation = nn.Tanh()
        self.downsample = nn.MaxPool2d(2)
        self.head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Linear(filters, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes)."""
        padded = torch.zeros(x.shape[0], self.filters - x.shape[1], *x.shape[2:])
        states: list[Tensor | None] = [None] * (self.history - 1) + [torch.cat([x, padded], dim=1)]
        for t, norm in enumerate(self.norms):
            a = self.alpha[t, 0] * self.activation(self.convs[0](states[-1]))
            for i, state in enumerate(states):
                if state is not None:
                    a = a + self.alpha[t, i + 1] * state
            states = [*states[1:], norm(a)]
            if t % self.pool == self.pool - 1:
                states = [None if state is None else self.downsample(state) for state in states]
        pooled = self.head[0](states[-1])
        return self.head[1](pooled.view(pooled.shape[0], -1))


def bench_train(
    *,
    filters: int = 172,
    iterations: int = 20,
    batch_size: int = 100,
    rounds: int = 5,
    threads: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> BenchRecord:
    """Training steps of the authors' formulation, of our engine in fp32 and, where the CPU computes in it, in bf16.

    The network is the mb1, tanh ThriftyNet with history 5 and a pool each ``iterations // 5``, on 32x32 images; the
    defaults are the 40K network of 20 iterations. A step is augmentation, forward, backward and SGD.

    Args:
        rounds: counted steps of each variant.
        threads: of the CPU; None: as PyTorch is set.
        report: receives a line of progress now and then.

    Raises:
        SpecError: a size that no network or recipe has.
        ThriftyError: the variants do not compute the same.
    """
    recipe = Recipe(
        name="bench",
        epochs=1,
        batch_size=batch_size,
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule={"kind": "constant"},
        augment=Augment(crop=4, flip=True),
    )
    network = {"name": "thriftynet", "options": {"filters": filters, "iterations": iterations}}
    images = (rounds + 2) * batch_size  # an epoch must not end
    run = Run(network=network, data={"name": "cifar10", "train_images": images}, recipe=recipe)
    check_same(run, authors_network(run), trainer(run).network, "the authors' formulation")
    ways = {AUTHORS: Way("the authors' formulation", authors_training), "fp32": Way("our engine", our_training)}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        ways["bf16"] = Way("our engine", partial(our_training, precision="bf16"), "bf16")
    what = f"training steps, ThriftyNet mb1, {filters} filters, {iterations} iterations, batch {batch_size}, 32x32"
    return measure("train", what, run, ways, rounds=rounds, threads=threads, report=report)


def authors_training(run: Run) -> Iterator[None]:
    """The authors' formulation in PyTorch's usual loop."""
    return plain_training(run, authors_network(run))


def authors_network(run: Run) -> AuthorsFormulation:
    """With the weights that our engine starts from."""
    options = run.options
    network = AuthorsFormulation(options.filters, options.iterations, options.history, options.pool)
    network.load_state_dict(trainer(run).network.state_dict())
    return network
