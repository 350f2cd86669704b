"""The whole site: built strictly, its links followed, and its pages looked at in a headless browser."""

import json
import os
import pkgutil
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar
from urllib.parse import quote, unquote, urlsplit

import pytest
from filelock import FileLock

import thriftylib
from thriftylib.book import build, check_links
from thriftylib.evidence.claims_files import load_claims
from thriftylib.paths import claims_dir

pytestmark = pytest.mark.xdist_group("site")  # a worker that waits for the site does nothing else

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOKS = [path.stem for path in FILES]
SOURCES = [path for path in (ROOT / "book").rglob("*.md") if "_build" not in path.parts]
PAGES = sorted(str(path.relative_to(ROOT).with_suffix("")) for path in SOURCES)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROBE = (Path(__file__).parent / "probe.js").read_text("utf-8")
FRAMES = """<!doctype html><body data-probe="{}"><script>
const found = {};
addEventListener("message", ({data}) => {
  found[data.page] = data.found;
  document.body.dataset.probe = JSON.stringify(found);
});
</script>"""
AT_ONCE = 12  # pages in one start of the browser


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The folder of the built pages: built once for all workers of a session, by the one that needs it first."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    with FileLock(shared / "site.lock"):
        done = shared / "site" / "_build" / "html"
        return done if (done / "book" / "index.html").is_file() else build(shared / "site")


@pytest.fixture(autouse=True)
def one_at_a_time(tmp_path_factory):
    """Whatever worker a test of the site is on, no other is at work: some put files into the site, some read all."""
    shared = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        shared = shared.parent
    with FileLock(shared / "site-tests.lock"):
        yield


@pytest.fixture(scope="session")
def browse(tmp_path_factory):
    """A function from an address to the page's text after its scripts have run."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        missing = f"no browser: none of {', '.join(BROWSERS)} is on the path"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)

    def dump(address, width=1280):
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
        flags += "--disable-background-networking --disable-component-update --disable-dev-shm-usage"
        profile = tmp_path_factory.mktemp("profile")
        command = [browser, *flags.split(), f"--user-data-dir={profile}", f"--window-size={width},900"]
        command += ["--virtual-time-budget=8000", "--dump-dom", address]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return dump


@pytest.fixture(scope="session")
def probe(site, browse):
    """A function from a page's name to what the browser measured on it: probe.js, in a frame as wide as asked.

    A window cannot be as narrow as a phone, a frame can. The pages of one width are measured together, once.
    """
    known = {}

    def measure(name, width=1280):
        if (name, width) not in known:
            others = [page for page in all_pages(site) if (page, width) not in known]
            names = others if name in others else [name]
            for start in range(0, len(names), AT_ONCE):
                found = framed(names[start : start + AT_ONCE], width)
                known.update({(page, width): each for page, each in found.items()})
        return known[name, width]

    def framed(names, width):
        copies = [(site / name).with_name(f"probe-{width}-{Path(name).name}") for name in names]
        around = site / f"probe-{width}.html"
        frames = [f'<iframe src="{copy.relative_to(site)}" width="{width}" height="900"></iframe>' for copy in copies]
        around.write_text(FRAMES + "".join(frames), "utf-8")
        for name, copy in zip(names, copies, strict=True):
            text = (site / name).read_text("utf-8").replace('loading="lazy"', "")
            text = text.replace("<html ", f'<html data-probed="{name}" ', 1)
            copy.write_text(text.replace("<head>", f"<head><script>{PROBE}</script>", 1), "utf-8")
        try:
            dump = browse(around.as_uri(), max(width + 100, 500))
        finally:
            for path in (around, *copies):
                path.unlink()
        found = json.loads(unescape(re.search(r'data-probe="([^"]*)"', dump)[1]))
        assert sorted(found) == sorted(names), "a page did not answer"
        return found

    return measure


def all_pages(site):
    """The pages of the site that a reader may see, relative to its folder; the first one only points to another."""
    paths = (path.relative_to(site) for path in site.rglob("*.html") if "_static" not in path.parts)
    return sorted(str(path) for path in paths if str(path) != "index.html" and not path.name.startswith("probe-"))


class Rows(HTMLParser):
    """The rows of the scoreboard that can be seen."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.closed = [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "tbody":
            self.closed = "hidden" in values
        if tag == "tr" and "data-verdict" in values and "hidden" not in values and not self.closed:
            self.seen.append(values)


def test_no_link_is_broken_and_nothing_comes_from_the_network(site):
    assert check_links(site) == []


def test_style_sheets_and_scripts_name_no_other_host(site):
    calls = re.compile(rb"""url\(\s*['"]?(?:https?:)?//|@import\s+['"](?:https?:)?//|importScripts\(['"]https?:""")
    found = [
        path.name for path in site.rglob("*") if path.suffix in (".css", ".js") and calls.search(path.read_bytes())
    ]
    assert not found


def test_every_module_is_in_the_reference(site):
    pages = "".join(path.read_text("utf-8") for path in (site / "book" / "api").glob("*.html"))
    modules = [module.name for module in pkgutil.walk_packages(thriftylib.__path__, "thriftylib.") if not module.ispkg]
    public = [name for name in modules if not name.startswith("thriftylib.cli.")]  # a command explains itself by --help
    assert [name for name in public if f'id="module-{name}"' not in pages] == []


def test_every_figure_has_its_data_and_its_notebook_to_download(site):
    for name in NOTEBOOKS:
        page = (site / "notebooks" / f"{name}.html").read_text("utf-8")
        figures = len(re.findall(r'<img [^>]*src="\.\./_images/', page))
        assert figures > 0
        names = re.findall(r'download="([^"]*)\.csv" href="data:', page)
        assert all(page.count(f'id="figure-{each}"') == page.count(f'href="#figure-{each}"') == 1 for each in names), (
            name
        )
        assert page.count('href="data:text/csv') == page.count(f"../_sources/notebooks/{name}.ipynb") - 1 == figures


def test_a_figure_without_a_point_of_ours_is_folded_with_what_is_said_of_it(site):
    folded = 0
    for name in NOTEBOOKS:
        page = (site / "notebooks" / f"{name}.html").read_text("utf-8")
        blocks = re.findall(r'<details class="still-to-run"><summary>Still to run: \w.*?</details>', page, re.DOTALL)
        assert len(blocks) == page.count('<p class="still-to-run">'), name
        for block in blocks:
            assert block.count("<img ") == block.count('href="data:text/csv') == block.count("This notebook</a>") == 1
        folded += len(blocks)
    assert folded == sum(path.read_text("utf-8").count('<p class=\\"still-to-run\\">') for path in FILES)


def test_points_of_figures_lead_to_the_pages_of_their_claims(site):
    linked = {}
    for name in NOTEBOOKS:
        page = (site / "notebooks" / f"{name}.html").read_text("utf-8")
        layers = re.findall(r'<span aria-hidden="true">(<a [^>]*>(?:</a><a [^>]*>)*)', page)
        linked[name] = [
            re.search(r'href="\.\./claims/([^"]*)\.html"', a)[1] for layer in layers for a in layer.split("</a>")
        ]
        assert page.count('<p class="collapsed admonition-title">parameters and set-up') == 1, name
    claims = load_claims(claims_dir())
    assert set().union(*linked.values()) <= set(claims)
    assert set(linked["expandnets"]) >= {key for key in claims if key.startswith("expandnets/table-b")}


def test_pages_can_be_read_aloud_and_used_with_a_keyboard(site):
    for page in (path for folder in ("book", "notebooks") for path in (site / folder).rglob("*.html")):
        text = page.read_text("utf-8")
        assert '<html lang="en"' in text, page
        assert re.search(r'<a [^>]*href="#main-content"', text), f"{page}: no skip link"
        images = re.findall(r"<img\b[^>]*>", text)
        words = [re.search(r'\balt="([^"]*)"', image) for image in images]
        assert all(found and found[1] and ".png" not in found[1] for found in words), f"{page}: an image without words"


def test_the_table_is_complete_without_scripts(site):
    page = (site / "book" / "index.html").read_text("utf-8")
    assert len(Rows(page).seen) == len(load_claims(claims_dir()))


def test_the_start_page_opens_with_the_abstracts_and_with_what_was_run(site, browse):
    everything = Rows((site / "book" / "index.html").read_text("utf-8")).seen
    claims = {key.replace("/", "-"): claim for key, claim in load_claims(claims_dir()).items()}
    first = [row["id"] for row in everything if claims[row["id"]].mark == "ABSTRACT" or row["data-by-n"]]
    shown = Rows(browse((site / "book" / "index.html").as_uri())).seen
    assert [row["id"] for row in shown] == first
    assert 0 < len(first) < len(everything)


def test_the_scoreboard_filters_by_verdict_paper_and_text(site, browse):
    address = (site / "book" / "index.html").as_uri()
    everything = Rows((site / "book" / "index.html").read_text("utf-8")).seen
    some = everything[-1]["data-verdict"]
    shown = Rows(browse(f"{address}#verdict={some.replace(' ', '%20')}")).seen
    assert [row["id"] for row in shown] == [row["id"] for row in everything if row["data-verdict"] == some]
    paper, words = everything[0]["data-paper"], everything[0]["data-text"].split()[:3]
    shown = Rows(browse(f"{address}#paper={paper}&q={quote(' '.join(words))}")).seen
    expected = [row for row in everything if row["data-paper"] == paper]
    expected = [row["id"] for row in expected if all(word in row["data-text"] for word in words)]
    assert [row["id"] for row in shown] == expected
    assert expected


def test_the_scoreboard_sorts_across_figures(site, browse):
    shown = Rows(browse(f"{(site / 'book' / 'index.html').as_uri()}#sort=-claimed")).seen
    assert len(shown) == len(load_claims(claims_dir()))
    units = [row["data-unit"] for row in shown]
    blocks = list(dict.fromkeys(units))
    assert units == sorted(units, key=blocks.index)  # percent are not sorted among counts
    for unit in blocks:
        claimed = [float(row["data-by-claimed"]) for row in shown if row["data-unit"] == unit]
        assert claimed == sorted(claimed, reverse=True)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_figures_load(probe, name):
    found = probe(f"notebooks/{name}.html")
    assert found["images"], "no figure on this page"
    assert all(width > 0 and alt for width, alt in found["images"])


def test_formulas_are_set_on_the_pages_that_have_any(site, probe):
    for page in all_pages(site):
        found = probe(page)
        has_any = 'class="math ' in (site / page).read_text("utf-8")
        assert (found["formulas"] > 0) == has_any, page
        assert not found["unset"], f"{page}: TeX that the formulas' script does not know"


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_its_window(site, probe, width):
    found = {page: probe(page, width) for page in all_pages(site)}
    assert {page: each["wide"] for page, each in found.items() if each["overflow"] > 0} == {}


@pytest.mark.parametrize(
    "fault", ["nameless", "headless", "repeated", "unreachable", "skipped", "faint_light", "faint_dark"]
)
@pytest.mark.parametrize("width", [390, 1280])
def test_pages_have_no_fault_that_keeps_a_reader_out(site, probe, width, fault):
    """Without a name, a table's heads, an id of its own, a place for the keyboard, a level of heading, or contrast."""
    assert {page: found for page in all_pages(site) if (found := probe(page, width)[fault])} == {}


def test_the_probe_sees_such_faults(tmp_path, browse, probe, site):
    bad = site / "probe-bad.html"
    body = """<main><h1>One</h1><h3 id="a" style="color: #999; background: #fff">Faint, and a level too deep</h3>
      <a id="a" href="#"></a><article><table><tr><td>1</td></tr></table>
      <div style="overflow-x: auto; width: 9em"><p style="width: 99em">Wide</p></div></article>
      <p style="width: 3000px">Wider than any window</p></main><script>console.error("said")</script>"""
    bad.write_text(f'<html lang="en"><head></head><body>{body}</body></html>', "utf-8")
    try:
        found = probe(bad.name)
    finally:
        bad.unlink()
    faults = ("nameless", "headless", "repeated", "unreachable", "skipped", "faint_light", "wide", "errors")
    assert {fault: len(found[fault]) for fault in faults} == dict.fromkeys(faults, 1) | {"wide": len(found["wide"])}
    assert found["wide"]
    assert found["overflow"] > 0


def test_no_page_says_an_error_to_the_console(site, probe):
    assert {page: said for page in all_pages(site) if (said := probe(page)["errors"])} == {}


def test_pages_have_one_title_a_description_and_an_address_that_a_copy_keeps(site, probe):
    for page in all_pages(site):
        head = (site / page).read_text("utf-8").partition("</head>")[0]
        assert head.count("<title>") == 1, page
        assert 'localStorage.getItem("theme") || (matchMedia' in head, f"{page}: drawn without colours at first"
        assert re.search(r'<meta name="description" content="[^"]{20,}"', head), page
        assert re.findall(r'rel="canonical" href="([^"]*)"', head) == [Path(page).name], page
        assert probe(page)["titles"] == 1, page


def loaded(page):
    """The files that a page loads by itself, with itself: those that it names, and those that its styles name."""
    found, todo = {page}, [page]
    while todo:
        path = todo.pop()
        text = path.read_text("utf-8")
        if path.suffix == ".css":
            named = re.findall(r"""(?:url\(|@import )["']?(?!data:)([^"')]+)""", text)
        else:
            fetched = r'<link (?=[^>]*(?:stylesheet|preload|"icon"))[^>]*href="([^"]*)"'
            named = re.findall(r'<(?:script|img)\b[^>]*\bsrc="(?!data:)([^"]*)"', text) + re.findall(fetched, text)
        paths = {(path.parent / unquote(urlsplit(name).path)).resolve() for name in named} - found
        found |= paths
        todo += [path for path in paths if path.suffix == ".css"]
    return found


def test_the_first_load_of_a_page_is_small(site):
    for page in all_pages(site):
        files = loaded(site / page)
        most = 2.5 if any(path.name == "mathjax.js" for path in files) else 1.0
        assert sum(path.stat().st_size for path in files) < most * 1e6, page


class Recorder(SimpleHTTPRequestHandler):
    """A host that serves the site below a path and remembers what it was asked for."""

    asked: ClassVar[list] = []

    def translate_path(self, path):
        path = urlsplit(path).path
        return (
            str(self.site / unquote(path).removeprefix("/some/path/")) if path.startswith("/some/path/") else "/nowhere"
        )

    def log_request(self, code="-", size="-"):
        self.asked.append((self.path, int(code)))

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("page", ["book/index.html", "book/thriftynet.html", "notebooks/thriftynet-size.html"])
def test_the_site_works_below_a_path_and_loads_what_its_pages_name(site, browse, page):
    Recorder.site, Recorder.asked = site, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as host:
        Thread(target=host.serve_forever, daemon=True).start()
        shown = browse(f"http://127.0.0.1:{host.server_port}/some/path/{page}")
        host.shutdown()
    asked = {site / urlsplit(path).path.removeprefix("/some/path/") for path, code in Recorder.asked if code == 200}
    assert [each for each in Recorder.asked if each[1] != 200] == []
    assert asked <= loaded(site / page)
    assert {path for path in loaded(site / page) if path.suffix in (".css", ".js")} <= asked
    assert ("mjx-math" in shown) == any(path.name == "mathjax.js" for path in asked)


def test_hosts_serve_every_folder(site):
    assert (site / ".nojekyll").is_file()
    start = (site / "index.html").read_text("utf-8")
    assert 'url=book/index.html"' in start
    assert "<title>Parameter-thrifty CNNs, put to the test</title>" in start


def search(site, browse, words):
    """The addresses that the search page lists, best first."""
    return re.findall(r'<a href="([^"]*)" data-score', browse(f"{(site / 'search.html').as_uri()}?q={quote(words)}"))


def test_search_finds_a_claim_by_its_number(site, browse):
    claim = next(
        each for each in load_claims(claims_dir()).values() if each.value % 1 and each.quantity == "test_accuracy"
    )
    found = search(site, browse, f"{claim.value:.2f}")
    assert any(address.startswith("book/") for address in found)
    assert not any(address.startswith("book/api/") for address in found)


def test_search_finds_whole_numbers_with_and_without_the_commas_of_thousands(site, browse):
    assert search(site, browse, "10,000") == search(site, browse, "10000") != []


def test_search_lists_chapters_before_the_reference(site, browse):
    found = ["book/api/" in address for address in search(site, browse, "entropy")]
    assert any(found)
    assert found == sorted(found)
