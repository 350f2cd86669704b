"""What the page "Try it" gets when the site is built, all from records and claims: a network, pictures and points.

- ``{tried-network}``: which run the network in the page is, with its accuracy and its claim's verdict.
- ``_static/try-data.js``: that run's weight file as it is, in base64, our own test pictures, the paper's points, and the
  shapes of the data sets. A page opened from a folder may not read files, so they come as a script.
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
LIMIT = 100_000  # bytes of a weight file; with it the page's own files stay below 200 KB
ACTIVATIONS = ("tanh", "relu")  # as in try-network.js


def chosen(records: Sequence[Record], weights: Path) -> Record:
    """The ThriftyNet that the page runs: of those it can run, the most accurate in the last epoch, then the smallest.

    It can run a finished network of :data:`DATASET`, trained on all of its images as they are, with one shared
    convolution, whose weights are in ``weights`` and have at most :data:`LIMIT` bytes.

    Raises:
        RecordError: there is none.
    """

    def runs(record: Record) -> bool:
        run, options = record.run, record.run.network.options
        return (
            (run.network.name, run.data, run.method, record.status)
            == ("thriftynet", Data(name=DATASET), None, "complete")
            and options["shared"]
            and options["head"] == "max"  # the last layer then takes maps of any size, so of every iteration
            and options["activation"] in ACTIVATIONS
            and record.weights is not None
            and record.weights.bytes <= LIMIT
            and (weights / record.weights.file).is_file()
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
    """The paper's networks that the counter can count, each with its claimed test accuracy (percent) and our verdict."""
    counted = {"recursion": "augmented", "shared": True, "norm": "separate", "norm_affine": True, "head": "max"}
    found = []
    for key, claim in claims.items():
        options = claim.setting.options if claim.setting else {}
        if claim.quantity != "test_accuracy" or claim.setting is None or claim.setting.network != "thriftynet":
            continue
        if not claim.statistic.startswith("best epoch") or any(options.get(k) != v for k, v in counted.items()):
            continue
        if isinstance(options.get("filters"), int) and isinstance(options.get("pool"), int):
            size = {name: options[name] for name in ("filters", "iterations", "history", "conv", "pool")}
            verdict = verdicts[key]
            found.append(
                size | {"id": key, "dataset": claim.setting.dataset, "value": claim.value, "verdict": verdict.status}
            )
    return found


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
    run, options, title = record.run, record.run.network.options, DATASETS[record.run.data.name].title
    wrong = 100 - record.final_accuracy
    text = (
        f"<p><strong>This network</strong> has {record.counted.parameters:,} parameters: {options['filters']} filters, "
        f"T = {options['iterations']}, h = {options['history']}. It was trained on {escape(title)} for {record.epochs} "
        f"epochs (recipe {escape(run.recipe_name)}, seed {run.seed}). After the last epoch it names "
        f"{record.final_accuracy:.2f} % of the test photographs rightly, so {wrong:.0f} in 100 wrongly. It is the most accurate of our "
        f"ThriftyNets for {escape(title)} that fits into this page. Its files: "
        f'<a href="../_static/try/{run.id}.json">record {run.id}</a>, '
        f'<a download href="../_static/try/{record.weights.file}">weights</a>.</p>'
    )
    for key, verdict in evidence.verdicts.items():
        if run.id in verdict.records and evidence.claims[key].quantity == "test_accuracy":
            claim = evidence.claims[key]
            below = record.final_accuracy - claim.value
            text += (
                f"<p>The paper claims {claim.value:.2f} % for this size ({escape(claim.statistic)}): the network here is "
                f"{abs(below):.2f} points {'below' if below < 0 else 'above'}. Verdict on "
                f'<a href="index.html#{key.replace("/", "-")}">the claim</a>: {escape(verdict.status)}. '
                f"{escape(verdict.reason)}</p>"
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


def _write(app: Sphinx) -> None:
    """Before the pages, so that their links carry the script's checksum."""
    if app.builder.format == "html":
        evidence, static = _evidence(), Path(app.outdir) / "_static"
        (static / "try").mkdir(parents=True, exist_ok=True)
        (static / SCRIPTS[0]).write_text(script(evidence, weights_dir()), "utf-8")
        record = chosen(evidence.records, weights_dir())
        for path in (record_path(results_dir(), record.id), weights_dir() / record.weights.file):
            copy_asset(path, static / "try")


def _load(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Scripts and style on this page alone."""
    if page == PAGE:
        for name in SCRIPTS:
            app.add_js_file(name, loading_method="defer")
        app.add_css_file("try.css")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive, the script and what the page loads."""
    app.add_directive("tried-network", TriedNetwork)
    app.connect("builder-inited", _write)
    app.connect("html-page-context", _load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
