"""Test pictures of our own making for the page "Try it": a few shapes each, drawn large and averaged down to 32x32.

They are drawings, no photographs, and were fixed before any network saw them. No Sphinx here.
"""

from __future__ import annotations

from PIL import Image, ImageDraw

SIDE, SCALE = 32, 8  # pixels of a picture; how many times larger it is drawn

_GREY, _WHITE, _BLACK, _GLASS = "#9aa3aa", "#f2f4f5", "#20242a", "#a9d3ea"

# Of each picture: the colours of its background from top to bottom, as (colour, down to which row), then its shapes.
_DRAWINGS = {
    "airplane": (
        [("#5aa2df", 32)],
        [
            ("polygon", [(13, 15), (19, 15), (11, 25), (8, 25)], _GREY),
            ("polygon", [(14, 14), (20, 14), (16, 6), (13, 6)], _GREY),
            ("polygon", [(3, 8), (6, 8), (9, 14), (5, 14)], _GREY),
            ("ellipse", [(3, 12), (29, 18)], _WHITE),
            ("ellipse", [(24, 13), (28, 15)], _BLACK),
        ],
    ),
    "ship": (
        [("#bcd9ec", 19), ("#1f5d8f", 32)],
        [
            ("rectangle", [(11, 11), (22, 18)], _WHITE),
            ("rectangle", [(15, 5), (18, 11)], "#c0392b"),
            ("polygon", [(3, 17), (29, 17), (25, 24), (7, 24)], _BLACK),
            ("line", [(0, 25), (32, 25)], "#7fb2d6"),
        ],
    ),
    "automobile": (
        [("#cfd8dc", 20), ("#5b5f63", 32)],
        [
            ("polygon", [(8, 16), (11, 9), (22, 9), (25, 16)], "#c62828"),
            ("polygon", [(10, 15), (12, 11), (16, 11), (16, 15)], _GLASS),
            ("polygon", [(17, 15), (17, 11), (21, 11), (23, 15)], _GLASS),
            ("rectangle", [(3, 16), (29, 22)], "#c62828"),
            ("ellipse", [(6, 19), (12, 25)], _BLACK),
            ("ellipse", [(20, 19), (26, 25)], _BLACK),
        ],
    ),
    "truck": (
        [("#dbe5ea", 21), ("#6b6a66", 32)],
        [
            ("rectangle", [(2, 6), (20, 21)], "#e9c46a"),
            ("rectangle", [(21, 11), (29, 21)], "#2a6f97"),
            ("rectangle", [(24, 12), (29, 16)], _GLASS),
            ("ellipse", [(4, 19), (10, 25)], _BLACK),
            ("ellipse", [(12, 19), (18, 25)], _BLACK),
            ("ellipse", [(22, 19), (28, 25)], _BLACK),
        ],
    ),
    "frog": (
        [("#8a7f4f", 32)],
        [
            ("ellipse", [(4, 17), (13, 27)], "#3f7d2b"),
            ("ellipse", [(19, 17), (28, 27)], "#3f7d2b"),
            ("ellipse", [(7, 9), (25, 27)], "#57a639"),
            ("ellipse", [(8, 6), (14, 12)], "#57a639"),
            ("ellipse", [(18, 6), (24, 12)], "#57a639"),
            ("ellipse", [(10, 7), (13, 10)], _BLACK),
            ("ellipse", [(19, 7), (22, 10)], _BLACK),
            ("line", [(11, 17), (21, 17)], "#2c5a1d"),
        ],
    ),
    "horse": (
        [("#b7d7ee", 17), ("#6f9a3e", 32)],
        [
            ("ellipse", [(7, 12), (23, 20)], "#6b3e1f"),
            ("polygon", [(19, 15), (24, 5), (27, 7), (23, 17)], "#6b3e1f"),
            ("polygon", [(23, 5), (27, 4), (31, 9), (29, 11)], "#6b3e1f"),
            *(("rectangle", [(x, 17), (x + 2, 28)], "#5a3319") for x in (8, 11, 18, 21)),
            ("line", [(8, 14), (4, 22)], "#3a2010"),
        ],
    ),
    "grey, no picture": ([("#808080", 32)], []),
}


def pictures() -> dict[str, bytes]:
    """Pixels by what is drawn: rows from the top, each pixel red, green, blue from 0 to 255."""
    return {name: _draw(*drawing).tobytes() for name, drawing in _DRAWINGS.items()}


def _draw(bands: list, shapes: list) -> Image.Image:
    image = Image.new("RGB", (SIDE * SCALE, SIDE * SCALE))
    pen, top = ImageDraw.Draw(image), 0
    for colour, bottom in bands:
        pen.rectangle([0, top * SCALE, SIDE * SCALE, bottom * SCALE], fill=colour)
        top = bottom
    for kind, points, colour in shapes:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        getattr(pen, kind)(scaled, fill=colour, **({"width": SCALE} if kind == "line" else {}))
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)
