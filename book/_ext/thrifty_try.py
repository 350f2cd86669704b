"""What the page "Try it" gets when the site is built, all from records and claims: a network, pictures and points.

- ``{tried-network}``: which run the network in the page is, with its accuracy and its claim's verdict.
- ``_static/try-data.js``: that run's weight file as it is, in base64, our own test pictures, the paper's points, and
  the shapes of the data sets. A page opened from a folder may not read files, so they come as a script.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.fileutil import copy_asset
from try_pictures import pictures

from thriftylib.datasets.facts import DATASETS
from thriftylib.errors import RecordError, ThriftyError
from thriftylib.evidence.claims import Claim
from thriftylib.evidence.numbers import Evidence
from thriftylib.evidence.records import Record, record_path
from thriftylib.evidence.statuses import Verdict
from thriftylib.paths import claims_dir, results_dir, weights_dir
from thriftylib.spec import Data

logger = logging.getLogger(__name__)
PAGE = "book/try"
SCRIPTS = ("try-data.js", "try-network.js", "try-maps.js", "try-count.js")
DATASET = "cifar10"  # of the paper's data sets the one whose classes are things that a reader can draw
LIMIT = 90_000  # bytes of a weight file; with it the page's own files stay below 200 KB
ACTIVATIONS = ("tanh", "relu")  # as in try-network.js


def chosen(records: Sequence[Record], weights: Path) -> Record:
    """The ThriftyNet that the page runs: of those it can run, the most accurate in the last epoch, then the smallest.

    It can run a finished network of :data:`DATASET`, trained on all of its images as they are, with one shared
    convolution, whose weights are in ``weights`` and have at most :data:`LIMIT` bytes.

    Raises:
        RecordError: there is none.
    """

    def runs(record: Record) -> bool:
        run, options, file = record.run, record.run.network.options, record.weights
        return (
            (run.network.name, run.data, run.method) == ("thriftynet", Data(name=DATASET), None)
            and record.status == "complete"
            and options["shared"]
            and options["head"] == "max"  # the last layer then takes maps of any size, so of every iteration
            and options["activation"] in ACTIVATIONS
            and file is not None
            and file.bytes <= LIMIT
            and (weights / file.file).is_file()
        )

    found = [record for record in records if runs(record)]
    if not found:
        raise RecordError(f"no ThriftyNet of {DATASET} has a record and weights of at most {LIMIT:,} bytes: train one")
    return min(found, key=lambda record: (-record.final_accuracy, record.counted.parameters, record.id))


def network(name: str, options: Mapping[str, Any], dataset: str, weights: bytes) -> dict[str, Any]:
    """What ``try-network.js`` needs of one network: its options, its data set's facts and its safetensors file."""
    info, read = DATASETS[dataset], ("filters", "iterations", "history", "history_bug", "conv", "pool", "activation")
    return {
        "run": name,
        "dataset": dataset,
        "options": {key: options[key] for key in read},
        **{key: getattr(info, key) for key in ("classes", "mean", "std")},
        "weights": base64.b64encode(weights).decode(),
    }


def points(claims: Mapping[str, Claim], verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """The paper's networks that the counter can count, each with its claimed accuracy (percent) and our verdict."""
    counted = {"recursion": "augmented", "shared": True, "norm": "separate", "norm_affine": True, "head": "max"}
    size = ("filters", "iterations", "history", "conv", "pool")

    def counts(claim: Claim) -> bool:
        options = claim.setting.options if claim.setting and claim.setting.network == "thriftynet" else {}
        return (
            (claim.quantity, claim.statistic[:10]) == ("test_accuracy", "best epoch")
            and all(options.get(name) == value for name, value in counted.items())
            and isinstance(options.get("filters"), int)  # the abstract names a range of networks
            and isinstance(options["pool"], int)
        )

    return [
        {name: claim.setting.options[name] for name in size}
        | {"dataset": claim.setting.dataset, "value": claim.value, "verdict": verdicts[key].status}
        | {"address": address(key)}
        for key, claim in claims.items()
        if counts(claim)
    ]


def address(claim: str) -> str:
    """Where a claim is shown, from this page."""
    return f"../claims/{claim}.html"


def script(evidence: Evidence, weights: Path) -> str:
    """The text of ``try-data.js``."""
    record = chosen(evidence.records, weights)
    run = record.run
    content = {
        "network": network(run.id, run.network.options, run.data.name, (weights / record.weights.file).read_bytes()),
        "pictures": {name: base64.b64encode(pixels).decode() for name, pixels in pictures().items()},
        "points": points(evidence.claims, evidence.verdicts),
        "datasets": {
            name: {"title": info.title, "shape": info.image_shape, "classes": len(info.classes)}
            for name, info in DATASETS.items()
        },
    }
    return f"window.thriftyData = {json.dumps(content, separators=(',', ':'))};\n"


def told(evidence: Evidence, weights: Path) -> str:
    """Which network it is and how good, as HTML; links are relative to the page."""
    record = chosen(evidence.records, weights)
    run, options, title = record.run, record.run.network.options, escape(DATASETS[record.run.data.name].title)
    text = (
        f"<p><strong>This network</strong> has {record.counted.parameters:,} parameters: {options['filters']} filters, "
        f"T = {options['iterations']}, h = {options['history']}. It was trained on {title} for {record.epochs} epochs "
        f"(recipe {escape(run.recipe_name)}, seed {run.seed}). After the last epoch it classifies "
        f"{record.final_accuracy:.2f} % of the test images correctly, about {100 - record.final_accuracy:.0f} in 100 "
        f"wrongly. Of our ThriftyNets for {title} whose weights fit into this page it is the most accurate. "
        f'Its files: <a href="../_static/try/{run.id}.json">record {run.id}</a>, '
        f'<a download href="../_static/try/{record.weights.file}">weights</a>.</p>'
    )
    for key, verdict in evidence.verdicts.items():
        claim = evidence.claims[key]
        if run.id in verdict.records and claim.quantity == "test_accuracy":
            diff = record.final_accuracy - claim.value
            text += (
                f"<p>The claim about this architecture: {escape(claim.statement.rstrip('.'))} "
                f"({escape(claim.statistic)}). Ours is "
                f"{abs(diff):.2f} points {'below' if diff < 0 else 'above'}. Our verdict on "
                f'<a href="{address(key)}">the claim</a>: {escape(verdict.status)}. {escape(verdict.reason)}</p>'
            )
    return text


class TriedNetwork(SphinxDirective):
    """``{tried-network}``: the text of :func:`told`."""

    def run(self) -> list[nodes.Node]:
        try:
            return [nodes.raw("", told(_evidence(), weights_dir()), format="html")]
        except ThriftyError as error:
            logger.warning("%s: %s", self.name, error, location=self.get_location(), type="thrifty", subtype=self.name)
            return []


def _evidence() -> Evidence:
    return Evidence.load(claims_dir(), results_dir())


def _load(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Give this page alone its scripts and style, and write what is made from records first: links carry checksums."""
    if page != PAGE:
        return
    evidence, static = _evidence(), Path(app.outdir) / "_static"
    record = chosen(evidence.records, weights_dir())
    (static / "try").mkdir(parents=True, exist_ok=True)
    (static / SCRIPTS[0]).write_text(script(evidence, weights_dir()), "utf-8")
    for path in (record_path(results_dir(), record.id), weights_dir() / record.weights.file):
        copy_asset(path, static / "try")
    for name in SCRIPTS:
        app.add_js_file(name, loading_method="defer")
    app.add_css_file("try.css")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive and what the page loads."""
    app.add_directive("tried-network", TriedNetwork)
    app.connect("html-page-context", _load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
