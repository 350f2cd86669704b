"""The page "Try it": its JavaScript against PyTorch and the closed form, and its controls, all in a headless browser.

Nothing here needs the built site: the page's own markup, scripts and style are put into a page of their own.
"""

import html
import json
import re
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from test_site import browse  # noqa: F401

from thriftylib.datasets.facts import DATASETS
from thriftylib.evidence.numbers import Evidence
from thriftylib.evidence.records import load_records
from thriftylib.papers.thriftynet import ThriftyNetOptions
from thriftylib.paths import claims_dir, results_dir, weights_dir
from thriftylib.training.finishing import rebuild

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import thrifty_try  # noqa: E402
from try_pictures import SIDE, pictures  # noqa: E402

STATIC = ROOT / "book" / "_static"


@pytest.fixture(scope="module")
def evidence():
    return Evidence.load(claims_dir(), results_dir())


@pytest.fixture(scope="module")
def data(evidence):
    """The text of try-data.js."""
    return thrifty_try.script(evidence, weights_dir())


@pytest.fixture
def evaluate(tmp_path, browse, data):  # noqa: F811
    """A function from JavaScript to the value it returns in a page with the page's scripts, and with ``body``."""

    def run(code, body="", data=data, width=1280):
        scripts = [data, *((STATIC / name).read_text("utf-8") for name in thrifty_try.SCRIPTS[1:])]
        page = tmp_path / "page.html"
        told = f"""const faults = []; addEventListener("error", (event) => faults.push(event.message));
            addEventListener("load", async () => {{ let value; try {{ value = await (async () => {{ {code} }})(); }}
            catch (error) {{ faults.push(String(error)); }}
            document.body.setAttribute("data-value", JSON.stringify({{ value, faults }})); }});"""
        tags = "".join(f"<script>{text}</script>" for text in (told, *scripts))
        sheets = "".join((STATIC / name).read_text("utf-8") for name in ("thrifty.css", "try.css"))
        head = f'<!doctype html><meta charset="utf-8"><style>*{{box-sizing:border-box}}{sheets}</style>'  # as the theme
        page.write_text(f"{head}<body>{body}{tags}</body>", "utf-8")
        answers = (re.search(r'data-value="([^"]*)"', browse(page.as_uri(), width)) for _ in range(3))
        found = next(filter(None, answers))  # on a busy machine the browser may end before a picture is decoded
        answer = json.loads(html.unescape(found[1]))
        assert answer["faults"] == []
        return answer["value"]

    return run


@pytest.fixture(scope="module")
def markup():
    """The page's own HTML."""
    return "".join(re.findall(r"```\{raw\} html\n(.*?)```", (ROOT / "book" / "try.md").read_text("utf-8"), re.S))


def scores(network, dataset, images):
    """PyTorch's class scores (N, T + 1, classes): those of the network stopped after 0, ..., T iterations."""
    info, iterations, found = DATASETS[dataset], network.iterations, []
    pixels = torch.tensor([list(image) for image in images]).view(-1, SIDE, SIDE, 3) / 255
    pixels = (pixels - torch.tensor(info.mean)) / torch.tensor(info.std)
    with torch.no_grad():
        for network.iterations in range(iterations + 1):
            found.append(network(pixels.permute(0, 3, 1, 2)))
    return torch.stack(found, dim=1)


def in_the_page(evaluate, payload, images):
    """The page's class scores of each image, like those of :func:`scores`."""
    code = f"""const run = thrifty.load({json.dumps(payload)});
        return {json.dumps([list(pixels) for pixels in images])}.map((pixels) => run(pixels).map((x) => x.scores));"""
    return torch.tensor(evaluate(code, data=""), dtype=torch.float64)


def test_class_scores_of_every_iteration_equal_pytorchs(evaluate, evidence):
    record = thrifty_try.chosen(evidence.records, weights_dir())
    run, images = record.run, list(pictures().values())
    weights = (weights_dir() / record.weights.file).read_bytes()
    ours = in_the_page(evaluate, thrifty_try.network(run.id, run.network.options, run.data.name, weights), images)
    network = rebuild(record, weights_dir()).eval()
    theirs = scores(network, run.data.name, images)
    assert ours.shape == theirs.shape == (len(images), network.iterations + 1, 10)
    assert theirs[:, -1].std() > 0.5  # there is something to compare
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"conv": "mb2", "history": 3, "pool": (1, 4), "norm": "shared"},
        {"conv": "mb4", "history": 1, "pool": None, "norm_affine": False},
        {"conv": "classic", "recursion": "plain", "activation": "relu"},
        {"conv": "classic", "history_bug": True, "alpha_init": "half"},
    ],
)
def test_other_thriftynets_are_computed_too(evaluate, options):
    options = ThriftyNetOptions(filters=8, iterations=6, **options)
    torch.manual_seed(0)
    network = options.build((3, SIDE, SIDE), 10).eval()
    for norm in network.norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    payload = thrifty_try.network("any", options.model_dump(mode="json"), "cifar10", save(network.state_dict()))
    images = [pictures()["frog"]]
    ours = in_the_page(evaluate, payload, images).float()
    torch.testing.assert_close(ours, scores(network, "cifar10", images), rtol=0, atol=1e-4)


def test_the_counter_equals_the_closed_form(evaluate):
    names = ("filters", "iterations", "history", "conv", "pool")
    grid = product(
        (4, 20, 32, 172, 512), (1, 7, 20, 60), (1, 5, 10), ("classic", "mb1", "mb2", "mb4"), (1, 4, 12, None)
    )
    cases = []
    for values, dataset in product(grid, ("cifar10", "cifar100", "stl10")):
        size, info = dict(zip(names, values, strict=True)), DATASETS[dataset]
        if size["pool"] and size["iterations"] // size["pool"] > 5:
            continue  # a map smaller than 2x2
        cost = ThriftyNetOptions(**size).cost(info.image_shape, len(info.classes))
        expected = [cost.parameters, cost.macs, cost.weight_bytes(), cost.activation_bytes()]
        cases.append((size | {"shape": info.image_shape, "classes": len(info.classes)}, expected))
    code = f"""return {json.dumps([size for size, _ in cases])}.map(thrifty.count).map(
        (cost) => [cost.parameters, cost.macs, cost.weightBytes, cost.activationBytes]);"""
    assert len(cases) > 1500
    assert evaluate(code) == [expected for _, expected in cases]


def test_the_slider_goes_through_the_iterations(evaluate, markup, evidence):
    record = thrifty_try.chosen(evidence.records, weights_dir())
    iterations = record.run.network.options["iterations"]
    code = """const root = document.querySelector("#try-network"), slider = root.querySelector("#try-t");
        const seen = [], find = (selector) => root.querySelector(selector);
        const pressed = (selector) => [...root.querySelectorAll(selector + " [aria-pressed=true]")].length;
        for (let t = 0; t <= Number(slider.max); t++) {
          slider.value = t; slider.dispatchEvent(new Event("input", { bubbles: true }));
          const bars = [...root.querySelectorAll(".try-bars i")].map((bar) => parseFloat(bar.style.width));
          seen.push([find(".try-maps canvas").width, bars, find(".try-said").textContent]); }
        const unlabelled = [...root.querySelectorAll("[role=img]")].filter((image) => !image.ariaLabel).length;
        root.querySelectorAll(".try-pictures button")[1].click();
        const other = find(".try-said").textContent;
        find(".try-time button").click();
        await new Promise((done) => setTimeout(done, 900));
        return { other, played: slider.value, hidden: root.hidden, seen, unlabelled,
          strip: root.querySelectorAll(".try-strip canvas").length,
          pressed: [pressed(".try-pictures"), pressed(".try-maps")],
          overflow: document.documentElement.scrollWidth - innerWidth };"""
    found = evaluate(code, markup, width=500)
    sizes = [height for height, _ in ThriftyNetOptions(**record.run.network.options).sizes((3, SIDE, SIDE))]
    assert [size for size, _, _ in found["seen"]] == sizes
    assert all(abs(sum(bars) - 100) < 0.1 for _, bars, _ in found["seen"])
    assert len({json.dumps(bars) for _, bars, _ in found["seen"]}) == iterations + 1 == found["strip"]
    network = rebuild(record, weights_dir()).eval()
    classes, images = DATASETS[record.run.data.name].classes, list(pictures().values())
    best = scores(network, record.run.data.name, images[:2])[:, -1].argmax(1)
    named = [f"It takes this for: {classes[k]}." for k in best]
    assert [found["seen"][-1][2], found["other"]] == named
    assert (found["hidden"], found["unlabelled"], found["pressed"]) == (False, 0, [1, 1])
    assert 1 <= int(found["played"]) <= 3  # it plays from the start, a step each third of a second
    assert found["overflow"] <= 0


def test_a_picture_of_the_readers_own_is_opened_and_painted_on(evaluate, markup):
    code = """const canvas = Object.assign(document.createElement("canvas"), { width: 90, height: 60 });
        const pen = canvas.getContext("2d"), input = document.querySelector("[type=file]"), files = new DataTransfer();
        pen.fillStyle = "rgb(200, 40, 90)"; pen.fillRect(0, 0, 90, 60);
        files.items.add(new File([await new Promise((done) => canvas.toBlob(done))], "mine.png"));
        input.files = files.files; input.dispatchEvent(new Event("change", { bubbles: true }));
        const seen = document.querySelector("#try-picture");
        while (!seen.ariaLabel.includes("mine.png")) await new Promise((done) => setTimeout(done, 20));
        const pixel = () => [...seen.getContext("2d").getImageData(16, 16, 1, 1).data].slice(0, 3);
        const before = pixel(), box = seen.getBoundingClientRect();
        const [clientX, clientY] = [box.left + box.width / 2, box.top + box.height / 2];
        document.querySelector("[type=color]").value = "#0a141e";
        seen.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, buttons: 1 }));
        return [before, pixel()];"""
    assert evaluate(code, markup) == [[200, 40, 90], [10, 20, 30]]


def test_the_counter_starts_with_the_network_and_goes_to_the_papers(evaluate, markup, evidence):
    record = thrifty_try.chosen(evidence.records, weights_dir())
    code = """const form = document.querySelector("#try-count"), fields = form.elements;
        const shown = () => [...form.querySelectorAll("dd")].map((text) => text.textContent);
        const first = shown();
        fields.filters.value = 172; fields.filters.dispatchEvent(new Event("input", { bubbles: true }));
        fields.conv.value = "mb4"; fields.conv.dispatchEvent(new Event("input", { bubbles: true }));
        const rows = [...form.querySelectorAll("tbody tr")].map((row) => row.textContent);
        const step = fields.filters.step, points = form.querySelectorAll("circle").length;
        form.querySelector("tbody button").click();
        return { first, rows, step, points, chosen: shown()[0],
          focus: document.activeElement.id, near: form.querySelector("tbody td + td").textContent };"""
    found = evaluate(code, markup)
    assert found["first"][0] == f"{record.counted.parameters:,}"
    assert found["first"][1] == f"{record.counted.macs / 1e6:.3g} M"
    assert (found["step"], len(found["rows"])) == ("4", 5)
    assert (found["chosen"], found["focus"]) == (found["near"], "count-filters")
    points = thrifty_try.points(evidence.claims, evidence.verdicts)
    assert found["points"] == sum(point["dataset"] == record.run.data.name for point in points) > 20


def test_the_page_says_what_its_network_is_and_stays_small(evidence, data):
    record = thrifty_try.chosen(evidence.records, weights_dir())
    told = thrifty_try.told(evidence, weights_dir())
    assert f"{record.final_accuracy:.2f} %" in told
    assert f"{record.counted.parameters:,} parameters" in told
    files = sum((STATIC / name).stat().st_size for name in (*thrifty_try.SCRIPTS[1:], "try.css"))
    room = (thrifty_try.LIMIT - record.weights.bytes) * 4 / 3  # a larger network may be chosen one day
    assert files + len(data) + room < 200_000


def test_the_most_accurate_network_is_chosen_and_none_that_the_page_cannot_run(tmp_path):
    records = [record for record in load_records(results_dir()) if record.run.network.name == "thriftynet"]
    best = thrifty_try.chosen(records, weights_dir())
    point = best.final.model_copy(update={"test_accuracy": best.final_accuracy + 1})
    better = best.model_copy(update={"final": point, "kept": None})
    assert thrifty_try.chosen([best, better], weights_dir()) is better
    large = better.model_copy(update={"weights": best.weights.model_copy(update={"bytes": thrifty_try.LIMIT + 1})})
    assert thrifty_try.chosen([large, best], weights_dir()) is best
    with pytest.raises(thrifty_try.ThriftyError, match="no ThriftyNet of cifar10"):
        thrifty_try.chosen(records, tmp_path)
