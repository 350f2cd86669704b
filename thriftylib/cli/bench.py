"""The command that measures speed."""

from __future__ import annotations

import statistics
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from thriftylib.cli.app import Json, print_json, print_table, put, say
from thriftylib.errors import SpecError
from thriftylib.options import suggest
from thriftylib.paths import check_writable, results_dir

if TYPE_CHECKING:
    from thriftylib.bench.record import BenchRecord

OPTIONS = {
    "smallnet": ("kernel", "convs", "linear", "batch_size"),
    "thriftynet": ("filters", "iterations", "batch_size"),
    "recursion": ("filters", "iterations", "batch_size"),
    "lenet": ("batch_size",),
    "depth": ("network", "units", "batch_size"),
    "entropy": ("data",),
    "gpu": ("filters", "iterations", "batch_size"),
}
COLUMNS = (
    "variant",
    "what",
    "precision",
    "images/s",
    "x as fast",
    "this alone",
    "of a product",
    "peak MiB",
    "x memory",
    "ms a step",
    "of a copy",
)


class Convs(StrEnum):
    plain = "plain"
    cl = "cl"
    ck = "ck"


def bench(
    what: Annotated[
        str,
        typer.Argument(
            metavar="|".join(OPTIONS), help="Which network is trained; recursion: against what the machine could do."
        ),
    ],
    filters: Annotated[int | None, typer.Option(min=3, help="thriftynet: else 172; recursion: else 32.")] = None,
    iterations: Annotated[int | None, typer.Option(min=5, help="thriftynet and recursion: else 20.")] = None,
    kernel: Annotated[int | None, typer.Option(help="smallnet: 3, 5, 7 or 9; else 3.")] = None,
    convs: Annotated[Convs | None, typer.Option(help="smallnet: how convolutions are expanded; else plain.")] = None,
    linear: Annotated[bool | None, typer.Option("--linear", help="smallnet: expand the hidden linear layer.")] = None,
    network: Annotated[str | None, typer.Option(help="depth: a network in stages; else densenet.")] = None,
    units: Annotated[int | None, typer.Option(min=1, help="depth: that are left in each stage; else 5.")] = None,
    data: Annotated[str | None, typer.Option(help="entropy: of which data set; else cifar10.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images of a step; else 32 to 128.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Counted rounds; the variants take turns.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Keep it below data/results/bench.")] = False,
    as_json: Json = False,
) -> None:
    """Measure what each part of the engine gives: speed and memory as ratios, the variants interleaved.

    On the CPU; bench gpu: on a GPU, with batches of 100 and of 512, in about four minutes.

    Example: thrifty bench smallnet --convs cl --linear
    """
    name = "thriftynet" if what == "train" else what  # as it was called before
    if name not in OPTIONS:
        raise SpecError(f"unknown bench {what!r}" + suggest(what, OPTIONS))
    given = {"filters": filters, "iterations": iterations, "kernel": kernel, "linear": linear}
    given |= {"convs": convs and convs.value, "batch_size": batch_size, "data": data}
    given |= {"network": network, "units": units}
    given = {option: value for option, value in given.items() if value is not None}
    if foreign := sorted(given.keys() - set(OPTIONS[name])):
        own = ", ".join(option.replace("_", "-") for option in OPTIONS[name])
        raise SpecError(f"--{foreign[0].replace('_', '-')} does not go with bench {name}; its own options: {own}")
    if record:
        check_writable(results_dir() / "bench" / f"{name}.json")
    from thriftylib.bench import entropy, gpu, measure
    from thriftylib.bench.record import save_bench

    module = {"entropy": entropy, "gpu": gpu}.get(name, measure)
    several = [{"batch_size": size} for size in gpu.BATCHES] if name == "gpu" and batch_size is None else [{}]
    found = []
    for more in several:
        measured = getattr(module, f"bench_{name}")(**given, **more, rounds=rounds, threads=threads, report=say)
        if record:
            say(f"recorded in {save_bench(measured, results_dir())}")
        found.append(measured)
        if not as_json:
            _print(measured)
    if as_json:
        print_json(found[0].model_dump(mode="json") if len(found) == 1 else [x.model_dump(mode="json") for x in found])


def _print(measured: BenchRecord) -> None:
    put(f"{measured.what}, {measured.device}, {measured.threads} threads")
    rows = [
        [
            name,
            variant.what,
            variant.precision,
            statistics.median(variant.images_per_second),
            measured.ratio(name),
            measured.gain(name),
            measured.share(name),
            variant.peak_bytes and variant.peak_bytes / 2**20,
            measured.memory_ratio(name),
            measured.milliseconds(name),
            measured.bandwidth(name),
        ]
        for name, variant in measured.variants.items()
    ]
    shown = [number for number, column in enumerate(zip(*rows, strict=True)) if any(x is not None for x in column)]
    print_table([COLUMNS[number] for number in shown], [[row[number] for number in shown] for row in rows])
