"""A claim explained: the rule worked out, what ``thrifty show`` prints, files for machines, its page in a browser."""

import csv
import json
import re
import shutil
import subprocess
import sys
from html import unescape
from urllib.parse import unquote, urlsplit

import jsonschema
import made_up
import pytest
from test_cli import call
from test_site import BROWSERS, Rows, browse, one_at_a_time, site  # noqa: F401 (fixtures; built once a session)

from thriftylib.evidence.claims_files import load_claims_files
from thriftylib.evidence.counts import load_counts
from thriftylib.evidence.explain import ClaimsJson, address, explain, explain_all, strongest
from thriftylib.evidence.records import load_records
from thriftylib.evidence.rule import amount
from thriftylib.evidence.statuses import sentence
from thriftylib.evidence.verdicts import judge
from thriftylib.paths import claims_dir, project_root, results_dir

sys.path.append(str(project_root() / "book" / "_ext"))

import thrifty_drawings  # noqa: E402 (not a package: Sphinx finds it by path)

pytestmark = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def explained():
    """Every committed claim, explained by the committed records."""
    files = load_claims_files(claims_dir()).sound()
    return explain_all(files, load_records(results_dir()), load_counts(results_dir()))


def worked(claim, *bests):
    """A claim explained by runs of these best accuracies, with its steps by their labels."""
    records = [made_up.record(made_up.run(seed), best, best - 1) for seed, best in enumerate(bests)]
    found = explain(claim, made_up.claims_file(claim), records)
    return found, {step.label: step.text for step in found.rule}


def test_the_rule_is_worked_out_with_its_numbers():
    claim = made_up.claim(value=90.0)
    found, steps = worked(claim, 90.0, 90.2, 90.4)
    verdict = judge(claim, [made_up.record(made_up.run(seed), best) for seed, best in enumerate((90.0, 90.2, 90.4))])
    assert found.verdict == verdict.status == "reproduced"
    low, high = (90.0 + end for end in verdict.distance)
    assert steps["90 % interval"].split(": ")[1].startswith(f"{low:.2f} to {high:.2f}")
    # by hand: s = 0.2, n = 3, the paper's one run scatters alike: t(0.95, 2) = 2.92 times the root of 0.04 / 3 + 0.04
    assert "t(0.95, v = 2.0) · √0.0533 = 2.92 · 0.231 = m ± 0.67" in steps["90 % interval"]
    assert "m = 90.20 % (n = 3: 90.00, 90.20, 90.40), s = 0.20" in steps["Ours"]
    assert steps["Verdict"] == "the whole interval is inside: reproduced"


@pytest.mark.parametrize(
    ("bests", "verdict", "change"),
    [
        ((), "not run", "Runs by the recipe paper-recipe: 3 seeds allow a strong word."),
        ((90.0,), "consistent", "More runs: a strong word needs 3 seeds, such as 1, 2."),
        ((80.0, 80.1, 80.2), "not reproduced", "closer to the edge that it is outside."),
        ((90.0, 90.1, 90.2), "reproduced", "closer to the edge that it is inside."),
        ((92.0, 90.0, 88.0), "consistent", "More seeds alone would not decide it"),
    ],
)
def test_what_would_change_a_verdict_is_told(bests, verdict, change):
    found, _ = worked(made_up.claim(value=90.0), *bests)
    assert found.verdict == verdict
    assert change in found.would_change[0]


def test_as_many_seeds_as_are_said_to_decide_do_decide():
    claim = made_up.claim(value=88.0, bound="more than")
    found, _ = worked(claim, 91.0, 88.6, 86.4)
    runs = int(re.search(r"as they are, (\d+) would say reproduced", found.would_change[0])[1])
    spread = 2.301  # of those three, as a sample of any size: half of the runs above their mean, half below

    def status(number):
        ends = [88.667 + sign * spread * ((number - 1) / number) ** 0.5 for sign in (1, -1)] * (number // 2)
        return worked(claim, *ends)[0].verdict

    even = runs + runs % 2
    assert (status(even), status(even - 4)) == ("reproduced", "consistent")


@pytest.mark.parametrize(
    ("more", "band"),
    [
        ({"value": 90.0}, "met from 89.00 to 91.00"),
        ({"value": 89.0, "bound": "more than"}, "met from 89.00"),
        ({"value": 91.0, "bound": "at most"}, "met to 91.00"),
    ],
)
def test_the_interval_is_drawn_beside_the_band(more, band):
    found, _ = worked(made_up.claim(**more), 90.0, 90.2, 90.4)
    drawn = thrifty_drawings.strip(found)
    assert band in drawn
    at = [float(x) for x in re.search(r'class="interval" d="M([\d.]+) 39H([\d.]+)M', drawn).groups()]
    mean = float(re.search(r'class="mean" cx="([\d.]+)"', drawn)[1])
    left, width = (float(x) for x in re.search(r'class="band" x="([\d.]+)" y="20" width="([\d.]+)"', drawn).groups())
    assert mean == pytest.approx(sum(at) / 2, abs=0.2)
    assert left <= at[0] < at[1] <= left + width  # reproduced: the whole interval is inside
    assert thrifty_drawings.strip(worked(made_up.claim(), 90.0)[0]) == ""


def test_numbers_have_their_units():
    assert amount(0.47, "MMAC") == "0.47 M"
    assert amount(39_500.0) == "39,500"
    assert amount(-0.5, "points", signed=True) == "-0.50 points"


def test_the_strongest_findings_are_decided_and_of_several_papers(explained):
    found = strongest(explained.values())
    assert 3 <= len(found) <= 5
    assert all(sum(other.paper == one.paper for other in found) <= 2 for one in found)
    decided = [one for one in explained.values() if one.clearness is not None]
    assert found[0].runs
    assert len(found[0].runs) == max(len(one.runs) for one in decided)


def test_each_paper_is_found_where_the_bibliography_says(explained):
    text = (project_root() / "book" / "references.bib").read_text("utf-8")
    known = {address(f"doi:{doi}") for doi in re.findall(r"doi\s*=\s*\{([^}]*)\}", text)}
    known |= {address(f"arxiv:{number}") for number in re.findall(r"arXiv (\d{4}\.\d{5})", text)}
    for claim in explained.values():
        assert claim.references
        assert set(claim.references) <= known, claim.id


def test_the_schema_accepts_every_claim_and_refuses_what_is_wrong(explained):
    schema = ClaimsJson.model_json_schema(mode="serialization")
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    whole = ClaimsJson(claims=tuple(explained.values())).model_dump(mode="json")
    assert next(check.iter_errors(whole), None) is None
    for key, wrong in (("verdict", "perhaps"), ("claimed", "91"), ("extra", 1)):
        assert not check.is_valid({"format": 1, "claims": [whole["claims"][0] | {key: wrong}]})


@pytest.mark.parametrize("key", ["expandnets/gains-b/cifar10-cl", "thriftynet/abstract/cifar10-under-40k"])
def test_show_prints_what_the_page_says(explained, key):
    claim, text = explained[key], call("show", key).stdout
    parts = [claim.statement, claim.stated, claim.came_out, claim.reason, claim.source, claim.reading, claim.command]
    parts += [claim.install, *claim.references, *claim.would_change, *(step.text for step in claim.rule)]
    parts += [run.id for run in claim.runs] + [*claim.sides]
    assert [part for part in parts if part not in text] == []
    assert json.loads(call("show", key, "--json").stdout) == claim.model_dump(mode="json")


def test_show_lists_the_claims_that_begin_so(explained):
    some = [key for key in explained if key.startswith("expandnets/gains")]
    text = call("show", "expandnets/gains").stdout
    assert text.startswith(f"{len(some)} claims: ")
    assert [line.split()[0] for line in text.splitlines()[3:]] == some
    every = json.loads(call("show", "expandnets", "--json").stdout)
    assert [claim["id"] for claim in every] == [key for key in explained if key.startswith("expandnets/")]


def test_status_begins_with_its_sum(explained):
    verdicts = [claim.verdict for claim in explained.values()]
    first = call("status").stdout.splitlines()[0]
    assert first.startswith(f"{len(verdicts)} claims: ")
    assert f"{verdicts.count('not run')} not run" in first


# ---------------------------------------------------------------------------------------------------------- the site


def words_of(html):
    """A page's text, without tags and with single spaces."""
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


def test_every_claim_has_its_page_with_all_that_is_known(site, explained):  # noqa: F811
    ids = set(re.findall(r'<tr role="row" id="([^"]*)"', (site / "book" / "index.html").read_text("utf-8")))
    for key, claim in explained.items():
        path = site / "claims" / f"{key}.html"
        html = path.read_text("utf-8")
        text = words_of(html)
        parts = [claim.statement, claim.source, claim.reading, claim.command, claim.came_out, *claim.sides]
        parts += [
            claim.reason.removesuffix(sentence(claim.reading_changed or ".")).rstrip(),
            claim.reading_changed or "",
        ]
        parts = [part[1:] for part in parts]  # a capital where a sentence begins
        parts += [*claim.would_change, *(step.text for step in claim.rule)]
        assert [part for part in parts if " ".join(part.split()) not in text] == [], key
        assert html[html.index("<article") :].count("<h1") == 1
        assert f"<title>{claim.statement}" in unescape(html)
        assert html.count('name="description"') == 1
        own = re.findall(r'<link rel="canonical" href="([^"]*)"', html)
        assert all(path.parent / address == path for address in own)
        assert "claim-s-" not in html  # a mark of the frame that was not replaced
        assert re.search(r'book/index\.html#([^"]*)"', html)[1] in ids
        assert all((site / "records" / f"{run.id}.json").is_file() for run in claim.runs)


def test_the_files_for_machines_hold_every_claim(site, explained):  # noqa: F811
    whole = json.loads((site / "claims.json").read_text("utf-8"))
    jsonschema.validate(whole, json.loads((site / "claims.schema.json").read_text("utf-8")))
    assert [claim["id"] for claim in whole["claims"]] == list(explained)
    with (site / "claims.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["verdict"]) for row in rows] == [(key, one.verdict) for key, one in explained.items()]


def test_chapters_link_their_numbers_to_the_claims(site):  # noqa: F811
    page = (site / "book" / "expandnets.html").read_text("utf-8")
    assert 'href="../claims/expandnets/table-b/cifar10-smallnet.html"><span class="number">' in page


def test_tables_of_notebooks_link_their_claims(site, explained):  # noqa: F811
    page = (site / "notebooks" / "expandnets.html").read_text("utf-8")
    links = re.findall(r'<td[^>]*><a href="\.\./claims/([^"]*)\.html">([^<]*)</a></td>', page)
    assert len(links) > 10
    assert [(key, text) for key, text in links if explained[key].statement != unescape(text)] == []


@pytest.mark.parametrize("query", ["expandnets/table-b/cifar10-smallnet", "73.32", "73.32 %"])
def test_the_search_finds_a_claim_by_id_and_number(site, browse, query):  # noqa: F811
    dump = browse(f"{(site / 'search.html').as_uri()}?q={query.replace('%', '%25').replace(' ', '+')}")
    assert "claims/expandnets/table-b/cifar10-smallnet.html" in dump


def test_a_claim_is_reached_from_its_row_and_the_row_from_the_claim(site, browse):  # noqa: F811
    start = site / "book" / "index.html"
    row = re.search(r'<tr role="row" id="([^"]*)".*?<a href="([^"]*)"', browse(start.as_uri()), flags=re.DOTALL)
    page = (start.parent / row[2]).resolve()
    back = re.search(r'<p class="crumbs"><a href="([^"]*)"', browse(page.as_uri()))[1]
    parts = urlsplit(back)
    assert (page.parent / unquote(parts.path)).resolve() == start
    shown = Rows(browse(f"{start.as_uri()}#{parts.fragment}")).seen
    assert row[1] in [seen["id"] for seen in shown]


PROBE = """<script>addEventListener("load", () => setTimeout(() => {
  const number = (place) => Number(place.textContent);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const state = () => ({
    rows: all("tr[data-verdict]").filter((row) => !row.hidden && !row.closest("tbody").hidden).length,
    chips: Object.fromEntries(all(".chip").map((chip) => [chip.dataset.verdict, number(chip.querySelector("b"))])),
    lines: all(".paper-line").filter((line) => !line.hidden).map((line) => line.dataset.paper),
    bars: all(".paper-line").filter((line) => !line.hidden).flatMap((line) => all(".bar i", line))
      .filter((part) => !part.hidden).map((part) => [part.dataset.word, Number(part.style.flexGrow)]),
    testable: number(document.querySelector("[data-tally=testable]")),
    cut: all("tr[data-verdict] td").some((cell) => cell.scrollWidth > cell.clientWidth + 1 && cell.clientWidth)});
  const found = [state()];
  document.querySelector(".chip[data-verdict='not run']").click();
  found.push(state());
  document.querySelector("select[name=paper]").value = "dacnn";
  document.querySelector("select[name=paper]").dispatchEvent(new Event("input"));
  all("details").forEach((each) => (each.open = true));
  found.push(state());
  scrollTo(0, document.querySelector("table.board").getBoundingClientRect().top + 1500);
  found.push(document.querySelector("thead th").getBoundingClientRect().top);
  document.body.setAttribute("data-probe", JSON.stringify(found));
}, 100))</script>"""


def probed(site, browse, name, script, width=1280):  # noqa: F811
    """What a script left in ``data-probe`` of a page."""
    page = site / name
    copy = page.with_name(f"probe-claims-{page.name}")
    copy.write_text(page.read_text("utf-8").replace("</body>", f"{script}</body>"), "utf-8")
    try:
        return json.loads(unescape(re.search(r'data-probe="([^"]*)"', browse(copy.as_uri(), width))[1]))
    finally:
        copy.unlink()


def test_chips_sentences_and_bars_follow_the_filter(site, browse, explained):  # noqa: F811
    start, chip, paper, header = probed(site, browse, "book/index.html", PROBE)
    verdicts = [claim.verdict for claim in explained.values()]
    assert start["chips"] == {word: verdicts.count(word) for word in start["chips"]}
    assert sum(number for _, number in start["bars"]) == len(verdicts)
    assert start["testable"] == len(verdicts) - verdicts.count("not testable")
    assert chip["rows"] == chip["testable"] == verdicts.count("not run")
    assert {word.split(" ", 1)[1] for word, _ in chip["bars"]} == {"not run"}
    some = [claim.verdict for claim in explained.values() if claim.paper == "dacnn"]
    assert paper["lines"] == ["dacnn"]
    assert paper["rows"] == paper["testable"] == some.count("not run") == paper["chips"]["not run"]
    assert paper["chips"]["by construction"] == some.count("by construction")
    assert not paper["cut"]  # with every row's details open
    assert 0 <= header < 80  # it stays in sight


TABLES = """<script>addEventListener("load", () => setTimeout(() => {
  const links = [...document.querySelectorAll(".table-downloads a")];
  document.body.setAttribute("data-probe", JSON.stringify(links.map((link) => [link.download, link.href])));
}, 100))</script>"""


def test_every_table_can_be_downloaded(site, browse):  # noqa: F811
    links = probed(site, browse, "book/protocols.html", TABLES)
    tables = (site / "book" / "protocols.html").read_text("utf-8").count("<table")
    assert len(links) == 2 * tables > 0
    (_, first), (_, second) = links[:2]
    rows = list(csv.reader(unquote(first.split(",", 1)[1]).splitlines()))
    objects = json.loads(unquote(second.split(",", 1)[1]))
    assert len(objects) == len(rows) - 1 > 0
    assert list(objects[0]) == rows[0]


@pytest.fixture
def console(tmp_path):
    """A function from an address to the errors that its page writes to the console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no browser")

    def errors(address):
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        command = [browser, *flags.split(), "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--virtual-time-budget=4000", "--dump-dom", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        lines = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return [line for line in lines if "pydata-sphinx-theme.js" not in line]  # it tells which mode it chooses

    return errors


def test_no_page_of_ours_writes_an_error(site, console, tmp_path):  # noqa: F811
    for name in ("book/index.html", "claims/expandnets/gains-b/cifar10-cl.html", "book/protocols.html"):
        assert console((site / name).as_uri()) == []
    wrong = tmp_path / "wrong.html"
    wrong.write_text("<!doctype html><script>nothing.there()</script>", "utf-8")
    assert console(wrong.as_uri())  # the check sees one


@pytest.mark.parametrize("width", [500, 1280])
def test_claim_pages_are_no_wider_than_the_window(site, browse, width):  # noqa: F811
    script = """<script>addEventListener("load", () => document.body.setAttribute("data-probe",
      document.documentElement.scrollWidth - innerWidth))</script>"""
    assert probed(site, browse, "claims/expandnets/gains-b/cifar10-cl.html", script, width) <= 0
