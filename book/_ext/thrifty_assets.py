"""What the pages load, made small: style rules, icons and formulas that some page uses. No Sphinx here.

The theme brings a whole icon font three times over, a style sheet for every site there is, and MathJax with all its
extensions. ``slim`` leaves of them what the built pages use.
"""

from __future__ import annotations

import base64
import io
import logging
import re
from collections.abc import Container, Iterable, Iterator, Set
from importlib.metadata import files
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

MATHJAX = "mathjax/mathjax.js"
"""The formulas' script, below ``_static``: one file, fonts within, so that it works from a disk as from a server."""

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every table

_COMPONENTS = {  # of MathJax, in the order in which they need each other; the names are those of its loader
    "core": "core.js",
    "input/tex-base": "input/tex-base.js",
    "[tex]/ams": "input/tex/extensions/ams.js",
    "[tex]/newcommand": "input/tex/extensions/newcommand.js",
    "output/chtml": "output/chtml.js",
    "output/chtml/fonts/tex.js": "output/chtml/fonts/tex.js",
    "a11y/assistive-mml": "a11y/assistive-mml.js",
}
_FONTS = ("Main-Regular", "Main-Bold", "Math-Italic", "Main-Italic", "AMS-Regular", "Calligraphic-Regular")
_FONTS += ("Size1-Regular", "Size2-Regular", "Size3-Regular", "Size4-Regular", "Zero")
_MATHJAX_FONT = re.compile(r"%%URL%%/MathJax_([\w-]+)\.woff")

_ICON_FACE = re.compile(r"@font-face\{[^{}]*fontawesome[^{}]*\}")
_ICON = re.compile(r'((?:\.fa-[\w-]+:+before,?)+)\{content:"\\([0-9a-f]+) ?"\}')
_OTHER_ICON = re.compile(r'content:"\\(f[0-9a-f]{3})"')
_BLOCK = re.compile(r"""(?:[^{};"']|"[^"]*"|'[^']*')*([{;])""")
_SELECTOR = re.compile(r",(?![^()\[\]]*[)\]])")
_NAME = re.compile(r"[.#]((?:\\.|[\w-])+)")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_WORD = re.compile(r"[\w-]+")


def slim(html: Path) -> None:
    """Make the theme's files of a built site small, in place, and delete those that no page loads any more."""
    static = html / "_static"
    theme = static / "styles" / "pydata-sphinx-theme.css"
    unused = {path for pattern in ("*.map", "fontawesome.js*", "webfonts/*.woff2") for path in static.rglob(pattern)}
    for path in unused:
        path.unlink()
    words = used_words([*html.rglob("*.html"), *static.rglob("*.js")])
    icons = static / "vendor" / "fontawesome" / "webfonts"
    styles = theme.read_text("utf-8")
    theme.write_text(with_icons(styles, icons / "fa-solid-900.ttf", words), "utf-8")
    for path in icons.glob("*.ttf"):
        path.unlink()
    for pattern in ("styles/*.css", "sphinx-design*.css", "mystnb*.css"):
        for path in static.glob(pattern):
            path.write_text(used_rules(_COMMENT.sub("", path.read_text("utf-8")), words), "utf-8")


def used_words(paths: Iterable[Path]) -> set[str]:
    """Everything in these files that could be the name of a class or an id."""
    return {word for path in paths for word in _WORD.findall(path.read_text("utf-8", errors="ignore"))}


def used_rules(css: str, words: Container[str]) -> str:
    """The rules of a style sheet (without comments) that may apply: each class and id of a selector is in ``words``.

    A script that adds a class has its name in its text, so ``words`` of pages and scripts together lose nothing.
    """
    kept = []
    for head, body in _blocks(css):
        if body is None or head.startswith(("@font-face", "@keyframes", "@-webkit-keyframes", "@page")):
            kept.append(head if body is None else f"{head}{{{body}}}")
        elif head.startswith("@"):
            inner = used_rules(body, words)
            kept += [f"{head}{{{inner}}}"] if inner else []
        elif selectors := [one for one in _SELECTOR.split(head) if _may_apply(one, words)]:
            kept.append(f"{','.join(selectors)}{{{body}}}")
    return "".join(kept)


def _blocks(css: str) -> Iterator[tuple[str, str | None]]:
    """The statements of a style sheet: selector and body, or a statement such as ``@import`` and None."""
    at = 0
    while start := _BLOCK.match(css, at):
        if start[1] == ";":
            yield start[0].strip(), None
            at = start.end()
            continue
        at, depth = start.end(), 1
        while depth:
            sign = css[at]
            depth += {"{": 1, "}": -1}.get(sign, 0)
            at = css.index(sign, at + 1) + 1 if sign in "\"'" else at + 1
        yield start[0][:-1].strip(), css[start.end() : at - 1]


def _may_apply(selector: str, words: Container[str]) -> bool:
    plain = re.sub(r"""\[[^\]]*\]|:not\([^()]*\)""", "", selector)
    return all(name.replace("\\", "") in words for name in _NAME.findall(plain))


def with_icons(css: str, font: Path, words: Set[str]) -> str:
    """The theme's style sheet with a font of the icons that are in ``words`` alone, within it."""
    used = [int(code, 16) for names, code in _ICON.findall(css) if words & {*re.findall(r"fa-[\w-]+", names)}]
    used += [int(code, 16) for code in _OTHER_ICON.findall(_ICON.sub("", css))]
    plain = _ICON_FACE.sub("", css)
    face = '@font-face{font-display:block;font-family:"Font Awesome 6 Free";font-style:normal;font-weight:900;src:url('
    return f'{face}{as_address(_cut(font, used), "font/woff")}) format("woff")}}{plain}'


def _cut(font: Path, codes: Iterable[int]) -> bytes:
    """A font of these characters as WOFF, which needs no further library as WOFF 2 does."""
    options = Options(flavor="woff", notdef_outline=False, layout_features=[], name_IDs=[], hinting=False)
    with TTFont(font) as whole:
        subsetter = Subsetter(options)
        subsetter.populate(unicodes=codes)
        subsetter.subset(whole)
        whole.flavor = "woff"
        file = io.BytesIO()
        whole.save(file)
    return file.getvalue()


def as_address(content: bytes, kind: str) -> str:
    """Content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def mathjax() -> str:
    """MathJax of the parts that the book needs, as one script: TeX with AMS in, text with MathML beside it out.

    Raises:
        LookupError: the installed package lacks a part.
    """
    names = {path.as_posix(): path for path in files("sphinx-mathjax-offline") or ()}

    def part(name: str) -> Path:
        try:
            return Path(names[f"sphinx-mathjax-offline/static/mathjax/{name}"].locate())
        except KeyError:
            raise LookupError(f"sphinx-mathjax-offline has no {name}") from None

    def font(found: re.Match) -> str:
        if found[1] not in _FONTS:
            return found[0]
        return as_address(part(f"output/chtml/fonts/woff-v2/MathJax_{found[1]}.woff").read_bytes(), "font/woff")

    # The first script starts when all have run: what it waits for is a promise. So it needs to load nothing.
    there = ", ".join(f'"{name}"' for name in _COMPONENTS)
    packages = ", ".join(f'"{name}"' for name in ("base", "ams", "newcommand"))
    before = f"window.MathJax = {{...window.MathJax, loader: {{load: []}}, tex: {{packages: [{packages}]}}}};"
    scripts = [part("startup.js").read_text("utf-8"), f"MathJax.loader.preLoad({there});"]
    scripts += [_MATHJAX_FONT.sub(font, part(name).read_text("utf-8")) for name in _COMPONENTS.values()]
    return "\n".join([before, *scripts])
