"""The command cost."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from thriftylib.cli.app import Json, parse_pairs, parse_value, print_json, print_table, put, say
from thriftylib.errors import RecordError, ThriftyError
from thriftylib.paths import claims_dir, results_dir

IMAGE = ("image", "classes", "dataset")
MEANINGS = {
    "parameters": "trained numbers",
    "kernel_parameters": "without batch norms and biases of convolutions",
    "macs": "of one image",
    "ptflops_macs": "as ptflops counts: batch norm adds 2 per element",
    "weight_bytes": "fp32, with batch-norm statistics",
    "activation_bytes": "fp32, of one image in training",
}


def cost(
    network: Annotated[str | None, typer.Argument(help="A network; see thrifty list networks.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Its options; image=CxHxW, classes=N or dataset=X."),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Instead: count each network of the claims into data/results/counts.json.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print parameters, MACs and bytes of any network by its options.

    Example: thrifty cost thriftynet filters=64 iterations=20 history=5 conv=mb1 classes=10
    """
    from thriftylib.options import NetworkOptions, find, suggest

    if record:
        _record_counts()
        return
    if network is None:
        raise ThriftyError("which network? thrifty list networks names them")
    kind = find(NetworkOptions, network)
    given = parse_pairs(options or (), "option")
    known = {*kind.model_fields, *IMAGE}
    if unknown := next((key for key in given if key not in known), None):
        raise ThriftyError(f"{network} has no option {unknown!r}" + suggest(unknown, known))
    image, classes = _images(given)
    words = {key: get_args(field.annotation) for key, field in kind.model_fields.items()}
    values = {key: parse_value(text, words[key]) for key, text in given.items() if key not in IMAGE}
    resolved = kind.model_validate(values).resolve(image, classes)
    total = resolved.cost(image, classes)
    numbers = {name: getattr(total, name) for name in MEANINGS}
    numbers = {name: number() if callable(number) else number for name, number in numbers.items()}
    if as_json:
        head = {"network": network, "options": resolved.model_dump(mode="json"), "image": image, "classes": classes}
        print_json(head | numbers)
        return
    layers = [[term.name, term.parameters, term.macs, 4 * term.activations] for term in total.terms]
    layers += [["all", total.parameters, total.macs, total.activation_bytes()]]
    print_table(("layer", "parameters", "MACs", "activation bytes"), layers)
    put()
    print_table(("", "", ""), [(name, numbers[name], meaning) for name, meaning in MEANINGS.items()])


def _images(given: dict[str, str]) -> tuple[tuple[int, int, int], int]:
    """Image shape (C, H, W) and classes: those of a data set, or as given, or CIFAR-10's."""
    from thriftylib.datasets.facts import dataset_info

    if "dataset" in given:
        if "image" in given or "classes" in given:
            raise ThriftyError("dataset=... says image and classes already; give it or them")
        info = dataset_info(given["dataset"], to_count=True)
        return info.image_shape, len(info.classes)
    sides = given.get("image", "3x32x32").split("x")
    if len(sides) != 3 or not all(side.isdecimal() and int(side) for side in sides):
        raise ThriftyError(f"image = {given['image']!r}: must be channels x height x width such as 3x32x32")
    classes = given.get("classes", "10")
    if not classes.isdecimal() or not int(classes):
        raise ThriftyError(f"classes = {classes!r}: must be a number >= 1")
    return (int(sides[0]), int(sides[1]), int(sides[2])), int(classes)


def _record_counts() -> None:
    from thriftylib.evidence.claims_files import load_claims
    from thriftylib.evidence.counts import count_claims, save_counts

    claims = load_claims(claims_dir())
    for fault in claims.faults.values():  # the file would lose that paper's counts
        raise RecordError(fault)
    counts = count_claims(claims.values())
    say(f"{len(counts)} networks counted in {save_counts(counts, results_dir())}")
