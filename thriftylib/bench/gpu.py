"""Speed of ThriftyNet's training on a GPU: the authors' formulation beside our engine, executed in three ways.

The ways take turns, round by round, and a copy on the device is timed in each round: what the memory gives at that
moment. Nothing is timed before it is seen to compute what the eager engine does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import torch

from thriftylib.bench.measure import check_same, recursion_run
from thriftylib.bench.record import BenchRecord, Variant, record_of
from thriftylib.bench.ways import Way
from thriftylib.errors import ThriftyError
from thriftylib.running.estimates import ACTIVATION_PASSES
from thriftylib.spec import Run
from thriftylib.training.device import choose_device

BATCHES = (100, 512)
"""Images of a step: as the authors train, and as many as fill a GPU."""
MOST_STEPS = 60  # of a round; an epoch of 50,000 images must not end
COPIED = 2**30  # bytes of the tensor that is copied
_IMAGES = 50_000


def bench_gpu(
    *,
    filters: int = 172,
    iterations: int = 20,
    batch_size: int = BATCHES[0],
    rounds: int = 5,
    threads: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> BenchRecord:
    """Training steps of the mb1, tanh ThriftyNet of history 5 on the first GPU; the defaults are the 40K network.

    The authors' formulation in the usual loop, fp32; then our engine in bf16: eager, compiled, as one CUDA graph.

    Raises:
        SpecError: a network that cannot be.
        ThriftyError: there is no GPU, or the ways do not compute the same.
    """
    device = choose_device("auto")
    if device.type != "cuda":
        raise ThriftyError("bench gpu needs a GPU, and torch sees none here; bench thriftynet measures the CPU")
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        steps = max(1, min(MOST_STEPS, (_IMAGES // batch_size - 1) // (rounds + 1)))
        run, what = recursion_run(filters, iterations, batch_size, (rounds + 1) * steps + 1)
        return measure(run, what, ways_on(str(device)), rounds=rounds, steps=steps, copied=COPIED, report=report)
    finally:
        torch.set_num_threads(before)


def ways_on(device: str) -> dict[str, Way]:
    """Each adds one part to the one before; the last two are both beside the eager engine."""
    ours = {"eager": "our engine, eager", "compiled": "our engine, torch.compile", "graph": "our engine, a CUDA graph"}
    return {"authors": Way("the authors' formulation in the usual loop", ("authors",), device=device)} | {
        mode: Way(what, ("engine", "kernels"), "bf16", device=device, execution=mode) for mode, what in ours.items()
    }


def measure(
    run: Run,
    what: str,
    ways: Mapping[str, Way],
    *,
    rounds: int,
    steps: int,
    copied: int,
    report: Callable[[str], None] = lambda line: None,
) -> BenchRecord:
    """Time ``rounds`` rounds of ``steps`` steps of each way on its device, after a warm-up round; and a copy in each.

    A way that does not work here is left out, with a line.

    Args:
        copied: bytes of the tensor that is copied.

    Raises:
        ThriftyError: the first way does not work, or the authors' formulation computes something else.
    """
    device = next(iter(ways.values())).device
    formulations = {"authors": Way("authors", ("authors",)), "plain": Way("plain", ("engine",))}
    check_same(run, formulations)
    trainings: dict[str, Iterator[None]] = {}
    peaks: dict[str, int | None] = {}
    for key, way in ways.items():
        report(f"{way.what}: warm-up")
        try:
            trainings[key], peaks[key] = _warmed_up(run, way, steps)
        except ThriftyError as error:
            if key == next(iter(ways)):
                raise
            report(f"left out: {error}")
    speeds: dict[str, list[float]] = {key: [] for key in trainings}
    copies: list[float] = []
    for number in range(1, rounds + 1):
        copies.append(copy_speed(device, copied))
        for key, training in trainings.items():
            seconds = _timed(training, steps, device)
            speeds[key].append(round(steps * run.recipe.batch_size / seconds, 2))
        report(f"round {number}/{rounds}, images/s: " + ", ".join(f"{k} {v[-1]:.0f}" for k, v in speeds.items()))
    variants = {
        key: Variant(
            what=ways[key].what,
            precision=ways[key].precision,
            after={"authors": None, "eager": "authors"}.get(key, "eager"),
            images_per_second=speeds[key],
            peak_bytes=peaks[key],
            bytes_an_image=counted_bytes(run, ways[key].precision),
        )
        for key in trainings
    }
    more = {"device": device, "copied_a_second": copies, "batch_size": run.recipe.batch_size}
    return record_of(
        f"gpu-{run.recipe.batch_size}", f"training steps, {what}", variants, torch.get_num_threads(), **more
    )


def counted_bytes(run: Run, precision: str) -> float:
    """Of activations that an image moves in a training step, as :mod:`thriftylib.running.estimates` counts them."""
    return ACTIVATION_PASSES * run.cost.activation_bytes() * (0.5 if precision == "bf16" else 1.0)


def copy_speed(device: str, size: int) -> float:
    """Bytes read and written a second by a copy of ``size`` bytes, the best of five."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copies() -> Iterator[None]:
        while True:
            target.copy_(source)
            yield

    copying = copies()
    next(copying)
    return 2 * size / min(_timed(copying, 1, device) for _ in range(5))


def _warmed_up(run: Run, way: Way, steps: int) -> tuple[Iterator[None], int | None]:
    """A training after its first round, and the most memory that it took; None: not on a GPU."""
    on_gpu = torch.device(way.device).type == "cuda"
    if on_gpu:
        torch.cuda.synchronize(way.device)
        before = torch.cuda.memory_allocated(way.device)
        torch.cuda.reset_peak_memory_stats(way.device)
    training = way.steps(run)
    _timed(training, steps, way.device)
    return training, torch.cuda.max_memory_allocated(way.device) - before if on_gpu else None


def _timed(training: Iterator[None], steps: int, device: str) -> float:
    """Seconds of so many steps, to their end on the device."""
    started = time.perf_counter()
    for _ in range(steps):
        next(training)
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
