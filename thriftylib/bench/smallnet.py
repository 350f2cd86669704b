"""How fast our engine trains a SmallNet, plain or as a chain, beside PyTorch's usual loop over the same layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

from thriftylib.bench.interleaved import Way, check_same, measure, our_training, plain_training, trainer
from thriftylib.bench.record import BenchRecord
from thriftylib.fast.kernels import hint
from thriftylib.papers.expandnets_expansion import Expanded
from thriftylib.spec import Augment, Recipe, Run

PLAIN = "plain"
STEPS = 20  # in a round: one step is a few milliseconds


def bench_smallnet(
    *,
    kernel: int = 3,
    convs: str = "plain",
    linear: bool = False,
    batch_size: int = 128,
    rounds: int = 5,
    threads: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> BenchRecord:
    """Training steps of a SmallNet, perhaps expanded with rate 4, in PyTorch's usual loop and in our engine, fp32.

    The usual loop walks through each chain, layer by layer, and reads its images from a ``DataLoader`` with its default
    settings. A step is augmentation, forward, backward and SGD. With several threads, both are also measured as two
    trainings side by side, with half of the threads each.

    Args:
        convs: plain, cl or ck.
        linear: whether the hidden linear layer is expanded.
        rounds: counted rounds of ``STEPS`` steps each.
        threads: of the CPU; None: as PyTorch is set.
        report: receives a line of progress now and then.

    Raises:
        SpecError: a size or an expansion that cannot be.
        ThriftyError: the variants do not compute the same.
    """
    run = smallnet_run(kernel, convs, linear, batch_size, images=(STEPS * (rounds + 1) + 2) * batch_size)
    # In float64: where a chain's rounding turns a max-pool round, fp32 gradients differ by a hundredth of their norm.
    ours = trainer(run).network
    if missing := hint(ours):
        report(missing)
    check_same(run, plain_network(run).double(), ours.double(), "the plain layers")
    expanded = [name for name, there in ((convs.upper(), convs != "plain"), ("FC", linear)) if there]
    name = "-".join(["smallnet", str(kernel), *expanded]).lower()
    what = f"training steps, SmallNet {kernel}x{kernel}, batch {batch_size}, 32x32"
    if expanded:
        what += f", trained as {'+'.join(expanded)} of rate 4"
    ways = {
        PLAIN: Way("PyTorch's usual loop, layer by layer, with a DataLoader", usual_training),
        "fp32": Way("our engine", our_training),
    }
    if (threads or torch.get_num_threads()) > 1:
        ways |= {
            f"{key}-side-by-side": replace(way, what=f"{way.what}; two trainings side by side", at_once=2)
            for key, way in ways.items()
        }
    return measure(name, what, run, ways, rounds=rounds, steps=STEPS, threads=threads, report=report)


def smallnet_run(kernel: int, convs: str, linear: bool, batch_size: int, images: int) -> Run:
    """What is trained; ``images`` are more than the bench needs, for an epoch must not end."""
    recipe = Recipe(
        name="bench",
        epochs=1,
        batch_size=batch_size,
        learning_rate=0.01,
        schedule={"kind": "constant"},
        augment=Augment(crop=4, flip=True),
    )
    return Run(
        network={"name": "smallnet", "options": {"kernel": kernel}},
        data={"name": "cifar10", "train_images": images},
        recipe=recipe,
        method={"name": "expandnets", "options": {"convs": convs, "linear": linear}},
    )


def usual_training(run: Run) -> Iterator[None]:
    """The plain layers in PyTorch's usual loop."""
    return plain_training(run, plain_network(run))


def plain_network(run: Run) -> nn.Module:
    """With the weights that our engine starts from, but every operation as PyTorch's modules do it."""
    network = trainer(run).network.to(memory_format=torch.contiguous_format)
    for module in network.modules():
        vars(module).pop("forward", None)  # our fast path
        if isinstance(module, Expanded):
            module.forward = module.chain.forward
    return network
