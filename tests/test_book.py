"""The book's extension, its tables, the strict build and the link check, on small pages of their own."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import made_up
import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from thriftylib.book import build, check_links
from thriftylib.errors import ThriftyError
from thriftylib.evidence.claims_files import load_claims_files
from thriftylib.evidence.counts import load_counts
from thriftylib.evidence.explain import explain_all
from thriftylib.evidence.records import load_records, save_record
from thriftylib.evidence.statuses import STATUSES, STRONG
from thriftylib.experiments import EXPERIMENTS
from thriftylib.paths import claims_dir, results_dir

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "book" / "_ext"))

import thrifty_local  # noqa: E402
import thrifty_tables  # noqa: E402 (not a package: Sphinx finds it by path)


@pytest.fixture
def render(tmp_path):
    """A function that builds one Markdown page and returns its HTML and the warnings."""

    def render(text):
        source = tmp_path / "source"
        source.mkdir()
        (source / "index.md").write_text(f"# A page\n\n{text}\n", "utf-8")
        warnings = (tmp_path / "warnings").open("w+", encoding="utf-8")
        with patch_docutils(), docutils_namespace(), warnings:
            settings = {"extensions": ["myst_parser", "thrifty_book"], "exclude_patterns": []}
            places = (source, None, tmp_path / "html", tmp_path / "trees", "html")
            Sphinx(*places, confoverrides=settings, status=None, warning=warnings).build()
            warnings.seek(0)
            return (tmp_path / "html" / "index.html").read_text("utf-8"), warnings.read()

    return render


def test_a_number_in_prose_is_looked_up(render):
    claims = sum(len(sheet.claims) for sheet in load_claims_files(claims_dir()).values())
    page, warnings = render("There are {num}`count:scoreboard:claims` claims.")
    assert f'<span class="number">{claims}</span> claims' in page
    assert not warnings


def test_an_unknown_number_is_a_warning_at_its_line(render):
    _, warnings = render("There are {num}`count:scoreboard:clams` claims.")
    assert re.search(r"index\.md:3: WARNING: .*clams.*did you mean 'claims'", warnings)


def test_what_could_not_be_read_is_listed_and_an_unknown_paper_refused(render):
    page, warnings = render("```{unavailable} thriftynet\n```\n\n```{unavailable} nosuchpaper\n```")
    assert page.count("<tr>") > len(load_claims_files(claims_dir())["thriftynet"].unavailable)
    assert "no claims of 'nosuchpaper'" in warnings


def test_a_chapter_begins_with_what_came_out(render):
    page, warnings = render("```{answer} less_is_more\n```\n\n```{answer} nosuchpaper\n```")
    claims = explain_all({"less_is_more": load_claims_files(claims_dir())["less_is_more"]}, load_records(results_dir()))
    decided = [claim for claim in claims.values() if claim.verdict in STRONG]
    assert len(decided) > 2
    for claim in decided:
        assert f'href="../claims/{claim.id}.html"' in page
        assert f"Ours is <b>{claim.came_out}</b>" in page
    measured = [claim for claim in claims.values() if claim.kind != "counted"]
    assert f'<b data-tally="measured">{len(measured)}</b> claims' in page
    assert "no claims of 'nosuchpaper'" in warnings


def test_what_others_measured_is_listed_and_an_unknown_paper_refused(render):
    page, warnings = render("```{replications} expandnets\n```\n\n```{replications} nosuchpaper\n```")
    assert "Yang and Zhang" in page
    assert "43.80 ± 0.67" in page
    assert "no claims of 'nosuchpaper'" in warnings


def test_runs_of_this_machine(render, tmp_path, monkeypatch):
    monkeypatch.setenv("THRIFTY_LOCAL", str(tmp_path / "local"))
    record = made_up.record(made_up.run(options={}))
    save_record(record, tmp_path / "local" / "results")
    page, _ = render("```{local-runs}\n```")
    assert '<td style="text-align:left">made-up</td>' in page
    assert "89.00" in page
    assert page.count("data:image/png") == page.count("<details>") == 1


def test_many_runs_of_this_machine_are_one_figure_and_a_row_for_each_experiment_and_network():
    records = [made_up.record(made_up.run(seed, options={}), final=80.0 + seed) for seed in range(9)]
    page = thrifty_local.local_runs(records)
    assert page.count("<img") == 1
    assert page.count("<tr>") == 2
    assert "80.00 to 88.00" in page


def test_runs_of_this_machine_are_under_their_experiment():
    known = EXPERIMENTS["ucp-control"].configurations("smoke")[0].run
    assert thrifty_local._experiments_of_runs()[known.with_seed(0).id] == "ucp-control"


def test_a_machine_without_runs_is_told_so():
    assert "no runs of its own" in thrifty_local.local_runs([])


def test_smoke_runs_are_said_to_prove_nothing():
    digits = made_up.record(made_up.run(options={}, data={"name": "digits"}))
    assert "prove nothing about any claim" in thrifty_local.local_runs([digits])
    assert "prove nothing" not in thrifty_local.local_runs([made_up.record(made_up.run(options={}))])


def test_a_corrupt_record_is_a_warning(render, tmp_path, monkeypatch):
    monkeypatch.setenv("THRIFTY_LOCAL", str(tmp_path))
    (tmp_path / "results" / "runs").mkdir(parents=True)
    (tmp_path / "results" / "runs" / "0123456789ab.json").write_text("{", "utf-8")
    _, warnings = render("```{local-runs}\n```")
    assert "0123456789ab.json" in warnings


class Board(HTMLParser):
    """The chips and rows of a scoreboard."""

    def __init__(self, html):
        super().__init__()
        self.chips, self.rows = {}, []
        self.chip = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if "chip" in (values.get("class") or "").split():
            self.chip = values["data-verdict"]
        elif tag == "tr" and "data-verdict" in values:
            self.rows.append(values)

    def handle_data(self, data):
        if self.chip and data.strip().isdecimal():
            self.chips[self.chip], self.chip = int(data), None


def test_the_scoreboard_has_every_claim_and_its_chips_count_them():
    sheets = load_claims_files(claims_dir())
    board = Board(thrifty_tables.scoreboard(sheets, load_records(results_dir()), load_counts(results_dir())))
    papers = list(dict.fromkeys(row["data-paper"] for row in board.rows))
    assert set(papers) == set(sheets)
    assert [row["id"] for row in board.rows] == [
        key.replace("/", "-") for name in papers for key in sheets[name].claims
    ]
    measured = [row["data-paper"] for row in board.rows if row["data-by-n"] and row["data-verdict"] != "other recipe"]
    assert papers == sorted(papers, key=measured.count, reverse=True)  # those with measured claims first
    verdicts = [row["data-verdict"] for row in board.rows]
    assert board.chips == {status: verdicts.count(status) for status in STATUSES if status in verdicts}


def words_of(html):
    """What a reader sees of it, without tags."""
    return re.sub("<[^>]*>", "", html)


def test_a_claim_shows_ours_spread_n_verdict_and_cost():
    claim = made_up.claim(statement="It reaches <b>90</b> %.", figure="figure: a plot")
    sheet = made_up.claims_file(claim)
    records = [made_up.record(made_up.run(seed), best) for seed, best in enumerate((90.0, 90.2, 90.4))]
    html = thrifty_tables.scoreboard({"made-up": sheet}, records, [])
    assert "1 of 1 claims can be tested" in words_of(html)
    assert "It reaches &lt;b&gt;90&lt;/b&gt; %." in html
    for text in (
        "90.20&nbsp;%",
        "last 89.00 %",
        "± 0.20",
        ">3<",
        "✓",
        "reproduced",
        "2 min a run",
        "3,042 parameters",
    ):
        assert text in html
    assert f"thrifty train {claim.experiment}" in html


def test_the_summary_counts_each_training_once():
    sheet = made_up.claims_file(made_up.claim(), made_up.claim(id="made-up/group/two", value=89.5))
    records = [made_up.record(made_up.run(seed), 90.0) for seed in range(3)]
    text = words_of(thrifty_tables.scoreboard({"made-up": sheet}, records, []))
    assert "Of the 2 that need a training 2 are reproduced, 0 not reproduced, 0 undecided, by 3 independent" in text
    other = [made_up.record(made_up.run(seed, recipe="fast"), 90.0) for seed in range(3)]
    text = words_of(thrifty_tables.scoreboard({"made-up": sheet}, other, []))
    assert "0 are reproduced, 0 not reproduced, 0 undecided, by 0 independent trainings" in text


def test_a_changed_reading_is_told_where_the_verdict_stands():
    claim = made_up.claim(reading_changed="first it missed; then a file was read")
    sheet = made_up.claims_file(claim)
    html = thrifty_tables.scoreboard({"made-up": sheet}, [made_up.record(made_up.run(), 90.0)], [])
    assert html.count("First it missed; then a file was read.") == 1
    assert "<summary>Reading changed after results were seen</summary>" in html


def test_how_often_the_rule_is_wrong_is_a_table(render):
    page, warnings = render("```{error-rates}\n```")
    rows = re.findall("<tr>(.*?)</tr>", page, flags=re.DOTALL)
    assert len(rows) == 1 + 16
    assert not warnings
    first = re.findall("<td[^>]*>(.*?)</td>", rows[1])
    assert first[:3] == ["0", "3", "1"]
    assert 99 <= sum(map(int, first[3:7])) <= 101


def test_every_verdict_has_a_sign_and_readable_colours_in_both_schemes():
    assert set(thrifty_tables.MARKS) == set(STATUSES)
    assert len(set(thrifty_tables.MARKS.values())) == len(STATUSES)  # never colour alone
    style = (ROOT / "book" / "_static" / "thrifty.css").read_text("utf-8")
    for scheme in ("light", "dark"):
        block = re.search(rf'html\[data-theme="{scheme}"\] \{{(.*?)\n\}}', style, flags=re.DOTALL)[1]
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for status in STATUSES:
            name = status.replace(" ", "-")
            assert contrast(colours[name], colours[f"{name}-tint"]) >= 4.5, (scheme, status)


def contrast(one, other):
    """The contrast ratio of two colours as WCAG 2 defines it."""

    def luminance(colour):
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.fixture
def pages(tmp_path):
    """A function that writes the bodies of pages into a small site."""

    def write(**bodies):
        for name, body in bodies.items():
            (tmp_path / f"{name}.html").write_text(f"<html><body>{body}</body></html>", "utf-8")
        return tmp_path

    return write


def test_a_sound_site_has_no_broken_link(pages):
    site = pages(
        one='<h1 id="top"></h1><a href="two.html#here">x</a><a href="#top">y</a><a href="https://example.org">z</a>',
        two='<p id="here"></p><img src="data:image/png;base64,AA=="><a href="mailto:a@example.org">m</a>',
    )
    assert check_links(site) == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ('<a href="three.html">x</a>', "three.html leads nowhere"),
        ('<a href="#gone">x</a>', "#gone names an anchor that is not there"),
        ('<img src="_images/gone.png">', "gone.png leads nowhere"),
        ('<img srcset="a.png 1x, b.png 2x">', "a.png leads nowhere"),
        ('<script src="https://cdn.example.org/x.js"></script>', "loads https://cdn.example.org/x.js from the network"),
        ('<link rel="stylesheet" href="//cdn.example.org/x.css">', "loads //cdn.example.org/x.css from the network"),
        ("<script>const A = 'https://cdn.example.org/lib.js';</script>", "cdn.example.org/lib.js from the network"),
    ],
)
def test_the_link_check_names_what_is_broken(pages, body, fault):
    faults = check_links(pages(one=body))
    assert any(found.startswith("one.html: ") and fault in found for found in faults), faults


def test_an_empty_folder_is_no_site(tmp_path):
    with pytest.raises(ThriftyError, match="holds no pages"):
        check_links(tmp_path)


def test_a_page_with_a_fault_fails_the_build_and_is_named(tmp_path, monkeypatch):
    (tmp_path / "data" / "claims").mkdir(parents=True)
    (tmp_path / "book").mkdir()
    (tmp_path / "_config.yml").write_text("title: Small\nexecute: {execute_notebooks: 'off'}\n", "utf-8")
    (tmp_path / "book" / "_toc.yml").write_text("format: jb-book\nroot: book/index\n", "utf-8")
    (tmp_path / "book" / "index.md").write_text("# Small\n\n[a link](nowhere.md)\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ThriftyError, match=r"was not built.*\n.*book/index\.md:3: WARNING: .*nowhere\.md"):
        build(tmp_path / "out")
