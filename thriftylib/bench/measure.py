"""Speed and memory of several ways to train one network on the CPU.

The ways take turns in one process, round by round, so a slow moment of the machine hits all of them, and each round
gives one ratio. Peak memory is that of a fresh process for each way, and trainings in parallel have a process each.
Nothing is timed before all are seen to compute the same.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn import functional as F

from thriftylib.bench.record import PRODUCT, BenchRecord, Variant, record_of
from thriftylib.bench.ways import Way, bench_run, random_images
from thriftylib.errors import SpecError, ThriftyError
from thriftylib.papers.ebcle import shaped
from thriftylib.papers.families import StagedOptions
from thriftylib.running.processes import follow_parent
from thriftylib.spec import Augment, Run
from thriftylib.training.device import keep_freed_memory

SAME = 1e-6  # of the norm of float64 logits and gradients
SMALLNET_STEPS = 20  # in a round: one step is a few milliseconds
PARALLEL, BF16 = "-in-parallel", "-bf16"
ENGINE = {
    "usual": Way("PyTorch's usual loop with a DataLoader"),
    "plain": Way("our plain path: data in batches", ("engine",)),
    "merged": Way("over-parameterised blocks trained through their product", ("engine", "merged")),
    "kernels": Way("fast paths", ("engine", "merged", "kernels")),
}
"""Each adds one part to the one before."""


def bench_smallnet(
    *, kernel: int = 3, convs: str = "plain", linear: bool = False, batch_size: int = 128, rounds: int = 5, **settings
) -> BenchRecord:
    """Training steps of a SmallNet, perhaps over-parameterised (``convs``: cl, ck; ``linear``) with rate 4.

    With two processors or more, the first way and the last are also measured as two trainings in parallel.
    ``settings`` and what it raises are those of :func:`measure`.
    """
    expanded = [name for name, there in ((convs.upper(), convs != "plain"), ("FC", linear)) if there]
    method = {"name": "expandnets", "options": {"convs": convs, "linear": linear}}
    steps = SMALLNET_STEPS * (rounds + 1) + 2
    run = bench_run({"name": "smallnet", "options": {"kernel": kernel}}, steps, batch_size, method)
    ways = {name: way for name, way in ENGINE.items() if expanded or name != "merged"}
    if (os.cpu_count() or 1) > 1:
        ways |= {f"{name}{PARALLEL}": replace(ENGINE[name], in_parallel=2) for name in ("usual", "kernels")}
    what = f"SmallNet {kernel}x{kernel}, batch {batch_size}, 32x32"
    what += f", trained as {'+'.join(expanded)} of rate 4" if expanded else ""
    name = "-".join(["smallnet", str(kernel), *expanded]).lower()
    return measure(name, what, run, ways, steps=SMALLNET_STEPS, rounds=rounds, **settings)


def bench_thriftynet(
    *, filters: int = 172, iterations: int = 20, batch_size: int = 100, rounds: int = 5, **settings
) -> BenchRecord:
    """Training steps of the mb1, tanh ThriftyNet with history 5 and a pool each ``iterations / 5``.

    Also as its authors wrote it and, where the CPU computes in it, in bf16. The defaults are the 40K network.
    ``settings`` and what it raises are those of :func:`measure`.
    """
    run, what = recursion_run(filters, iterations, batch_size, rounds + 3)
    ways = {"authors": Way("the authors' formulation in the usual loop", ("authors",)), **ENGINE}
    del ways["merged"]
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        ways["bf16"] = replace(ENGINE["kernels"], what="fast paths in bf16", precision="bf16")
    return measure("thriftynet", what, run, ways, rounds=rounds, **settings)


def bench_recursion(
    *, filters: int = 32, iterations: int = 20, batch_size: int = 100, rounds: int = 5, **settings
) -> BenchRecord:
    """Training steps of the mb1, tanh ThriftyNet of history 5, a pool each ``iterations / 5``, against the machine.

    The fast path against the plain modules, and both against matrix products of as many multiply-adds; where the CPU
    computes in bf16, in it too. ``settings`` and what it raises are those of :func:`measure`.
    """
    run, what = recursion_run(filters, iterations, batch_size, rounds + 3)
    ways = {name: ENGINE[name] for name in ("plain", "kernels")}
    ways[PRODUCT] = Way("a matrix product of as many multiply-adds", ("product",))
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        ways |= {f"{name}{BF16}": replace(ways[name], precision="bf16") for name in ("kernels", PRODUCT)}
    threads = settings.get("threads") or torch.get_num_threads()
    return measure(f"recursion-{filters}-{iterations}-{threads}", what, run, ways, rounds=rounds, **settings)


def recursion_run(filters: int, iterations: int, batch_size: int, steps: int) -> tuple[Run, str]:
    """A run of more ``steps`` than are timed, and what it is in words."""
    network = {"name": "thriftynet", "options": {"filters": filters, "iterations": iterations}}
    what = f"ThriftyNet mb1, {filters} filters, {iterations} iterations, batch {batch_size}, 32x32"
    return bench_run(network, steps, batch_size), what


def bench_lenet(*, batch_size: int = 64, rounds: int = 5, **settings) -> BenchRecord:
    """Training steps of Caffe's LeNet, with the proximal steps of Less Is More on all its hidden neurons, and without.

    ``settings`` and what it raises are those of :func:`measure`.
    """
    method = {"name": "less-is-more", "options": {}}
    steps = SMALLNET_STEPS * (rounds + 1) + 2
    run = bench_run({"name": "caffe-lenet"}, steps, batch_size, method, data="mnist", augment=Augment())
    engine = ENGINE["plain"]
    ways = {"plain": replace(engine, what="our plain path, no constraint")}
    for name, what in (("group-sparsity", "group sparsity"), ("low-rank", "tensor low rank")):
        constraint = {name.replace("-", "_"): 1e-3}
        ways[name] = replace(engine, what=f"with a proximal step of {what} after each", method=constraint)
    what = f"Caffe's LeNet, batch {batch_size}, 28x28"
    return measure("lenet", what, run, ways, steps=SMALLNET_STEPS, rounds=rounds, **settings)


def bench_depth(
    *, network: str = "densenet", units: int = 5, batch_size: int = 32, rounds: int = 5, **settings
) -> BenchRecord:
    """Training steps of a network in stages, and of the same cut to ``units`` in each stage, as EBCLE does.

    The cut one is as wide as before, and broadened to the deep one's parameters and to its MACs. ``settings`` are those
    of :func:`measure`.

    Raises:
        SpecError: a network without stages, units that cut nothing, or no width within 2 % of what is matched.
        ThriftyError: as :func:`measure`.
    """
    run = bench_run({"name": network}, rounds + 3, batch_size)
    if not isinstance(deep := run.options, StagedOptions):
        raise SpecError(f"network = {network!r}: has no stages of equal units; try densenet, resnext or efficientnet")
    if units >= (longest := max(deep.repeats)):
        raise SpecError(f"units = {units}: cuts nothing; must be below {longest}, the units of the longest stage")
    ways = {"deep": replace(ENGINE["plain"], what=f"{network} as it is, {run.cost.macs / 1e6:.0f} MMAC an image")}
    for match in ("none", "parameters", "macs"):
        cut = shaped(deep, units, match=match)
        what = {"none": "as wide", "parameters": "as many parameters", "macs": "as many MACs"}[match]
        what = f"{units} units a stage, {what}, {cut.cost((3, 32, 32), 10).macs / 1e6:.0f} MMAC an image"
        other = {"name": network, "options": cut.model_dump(mode="json")}
        ways[f"cut-{match}"] = replace(ENGINE["plain"], what=what, other=other)
    return measure(f"depth-{network}", f"{network}, batch {batch_size}, 32x32", run, ways, rounds=rounds, **settings)


def measure(
    name: str,
    what: str,
    run: Run,
    ways: Mapping[str, Way],
    *,
    rounds: int,
    steps: int = 1,
    threads: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> BenchRecord:
    """Time ``rounds`` rounds of ``steps`` training steps of each way, after a warm-up round; the first is the baseline.

    Args:
        threads: of the CPU; None: as PyTorch is set.
        report: receives a line of progress now and then.

    Raises:
        SpecError: a network that cannot be.
        ThriftyError: the ways do not compute the same, or a process has died.
    """
    before = torch.get_num_threads()
    threads = threads or before
    keep_freed_memory()  # as in every training of ours; here the usual loop has it too
    speeds: dict[str, list[float]] = {key: [] for key in ways}
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, before)
        torch.set_num_threads(threads)
        check_same(run, ways)
        report("peak memory, each way in a process of its own")
        peaks = {key: _peak(run, way, threads) for key, way in ways.items()}
        trainings = {key: _training(run, way, threads, stack) for key, way in ways.items()}
        for number in range(rounds + 1):
            for key, advance in trainings.items():
                started = time.perf_counter()
                advance(steps)
                seconds = time.perf_counter() - started
                if number:
                    speeds[key].append(round(ways[key].in_parallel * steps * run.recipe.batch_size / seconds, 2))
            if number:
                report(
                    f"round {number}/{rounds}, images/s: " + ", ".join(f"{k} {v[-1]:.1f}" for k, v in speeds.items())
                )
    after = dict(zip(ways, [None, *ways], strict=False))
    after |= {key: key.removesuffix(PARALLEL) for key in ways if key.endswith(PARALLEL)}
    after |= {key: next(iter(ways)) for key, way in ways.items() if way.other is not None}
    after |= {key: None for key, way in ways.items() if "product" in way.parts}
    after |= {key: key.removesuffix(BF16) for key in ways if key.endswith(BF16) and after[key]}
    variants = {
        key: Variant(
            what=f"{way.what}; two trainings in parallel" if way.in_parallel > 1 else way.what,
            precision=way.precision,
            after=after[key],
            images_per_second=speeds[key],
            peak_bytes=peaks[key],
        )
        for key, way in ways.items()
    }
    return record_of(name, f"training steps, {what}", variants, threads)


def check_same(run: Run, ways: Mapping[str, Way]) -> None:
    """All ways to train the run's own network give the same logits and gradients for the same images, in float64.

    Raises:
        ThriftyError: they do not; names the first that differs from the baseline.
    """
    pixels, labels = (tensor[: min(8, run.recipe.batch_size)] for tensor in random_images(run))
    first: list[torch.Tensor] = []
    for key, way in ways.items():
        if way.precision != "fp32" or way.in_parallel > 1 or way.other is not None or "product" in way.parts:
            continue
        network = way.network(run).double().train()
        logits = network(pixels.double() / 127.5 - 1)
        F.cross_entropy(logits, labels).backward()
        found = [logits.detach(), torch.cat([parameter.grad.flatten() for parameter in network.parameters()])]
        for name, mine, theirs in zip(("logits", "gradients"), found, first or found, strict=True):
            difference = ((mine - theirs).norm() / theirs.norm()).item()
            if not difference < SAME:
                raise ThriftyError(
                    f"{key}: {name} differ from those of {next(iter(ways))} by {difference:.1e} of their norm"
                )
        first = first or found


def _training(run: Run, way: Way, threads: int, stack: ExitStack) -> Callable[[int], None]:
    """A function that goes so many steps on, here or in processes."""
    if way.in_parallel == 1:
        training = way.steps(run)
        return lambda steps: [next(training) for _ in range(steps)] and None
    processes = [stack.enter_context(_process(run, way, threads)) for _ in range(way.in_parallel)]

    def advance(steps: int) -> None:
        try:
            for result in [process.submit(_advance, steps) for process in processes]:
                result.result()
        except BrokenProcessPool:
            raise ThriftyError("one of the trainings in parallel has died") from None

    return advance


def _process(run: Run, way: Way, threads: int) -> ProcessPoolExecutor:
    arguments = run.model_dump(mode="json"), way, max(1, threads // way.in_parallel)
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=arguments)


_own: list[Iterator[None]] = []  # the training of this process


def _begin(run: dict, way: Way, threads: int) -> None:
    follow_parent()
    keep_freed_memory()
    torch.set_num_threads(threads)
    _own.append(way.steps(Run.model_validate(run)))


def _advance(steps: int) -> None:
    for _ in range(steps):
        next(_own[0])


def _peak(run: Run, way: Way, threads: int) -> int | None:
    """Bytes that two steps need at most in fresh processes, beside what these held before; None where unknown."""
    with _process(run, way, threads) as process:
        before, _, peak = (process.submit(*task) for task in ((_bytes, "VmRSS"), (_advance, 2), (_bytes, "VmHWM")))
        return (before.result() and way.in_parallel * (peak.result() - before.result())) or None


def _bytes(field: str) -> int:
    """A line of Linux's account of this process; 0: there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
