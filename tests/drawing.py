"""What tests of figures ask of a drawn one."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def assert_texts_lie_inside(figure: Figure, labels: Iterable[Text]) -> None:
    """The visible ones of ``labels``, of the figure's own texts and of its keys: nothing is cut off."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    frame = figure.bbox.padded(1)
    keys = [text for artist in figure.artists for text in artist.findobj(lambda each: hasattr(each, "get_text"))]
    for text in (each for each in (*figure.texts, *labels, *keys) if each.get_text() and each.get_visible()):
        box = text.get_window_extent(renderer)
        assert frame.containsx(box.x0), text
        assert frame.containsx(box.x1), text
        assert frame.containsy(box.y0), text
        assert frame.containsy(box.y1), text
