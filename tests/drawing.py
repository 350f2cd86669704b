"""What tests of figures ask of a drawn one."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from matplotlib.text import Text

CSS_PIXELS = 350  # a phone


def texts(panels: Sequence[Axes]) -> str:
    """Everything written in a figure."""
    found = panels[0].figure.findobj(Text)
    return "\n".join(text.get_text() for text in found)


def marks(panels: Sequence[Axes], *, hollow: bool | None = None) -> list[Line2D]:
    """The lines of markers in the panels; ``hollow``: those with a white face, or the others."""
    lines = [line for axes in panels for line in axes.lines if line.get_marker() not in ("None", "", None, "_")]
    return lines if hollow is None else [line for line in lines if (line.get_markerfacecolor() == "white") is hollow]


def assert_all_text_can_be_read(panels: Sequence[Axes]) -> None:
    """Nothing visible is cut off, covers the title or is too small for a phone."""
    figure = panels[0].figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    frame = figure.bbox.padded(1)
    for text in figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_visible()):
        if text.get_text().strip() and not _is_hidden_tick(text, figure):
            box = text.get_window_extent(renderer)
            assert all(map(frame.containsx, (box.x0, box.x1))), text
            assert all(map(frame.containsy, (box.y0, box.y1))), text
            assert text.get_fontsize() * CSS_PIXELS / figure.get_figwidth() / 72 > 7, text
    lowest = min(text.get_window_extent(renderer).y0 for text in figure.texts if text is not figure._supylabel)
    for axes in panels:
        assert axes.get_tightbbox(renderer).y1 <= lowest + 1, "a panel reaches into title or caption"


def _is_hidden_tick(text, figure) -> bool:
    """A tick beyond the limits keeps its label, but nobody sees it."""
    every = [child for axes in figure.axes for child in (axes, *axes.child_axes)]
    ticks = [tick for axes in every for axis in (axes.xaxis, axes.yaxis) for tick in axis.get_major_ticks()]
    return any(text in (tick.label1, tick.label2) and not _in_view(tick) for tick in ticks)


def _in_view(tick) -> bool:
    low, high = sorted(tick.axes.get_xlim() if tick.__name__ == "xtick" else tick.axes.get_ylim())
    return low <= tick.get_loc() <= high
