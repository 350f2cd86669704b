"""What a plot shows, in words, for those who do not see it: part of its alternative text."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes


def tell(
    panels: list[Axes],
    frame: pd.DataFrame,
    value: str,
    names: Sequence[str | None],
    *,
    whose: str = "",
    alike: bool = True,
) -> list[Axes]:
    """Give the panels' figure (as its label) the highest and the lowest mean of ``value``, and which they are.

    Args:
        names: compared are the means over the rows that agree in these columns, the panels' first; None names nothing.
        whose: what is added to "Highest", such as " of ours".
        alike: panels show one quantity; else the first panel's is told.
    """
    frame = frame.dropna(subset=[value])
    if not alike and names[0] and len(frame):
        frame = frame[frame[names[0]] == frame[names[0]].iloc[0]]
    means = frame.groupby([name for name in names if name], dropna=False, sort=False)[value].mean()
    if len(means) > 1:
        highest, lowest = (f"{means[of]:.4g}{_who(of)}" for of in (means.idxmax(), means.idxmin()))
        panels[0].figure.set_label(f"Highest{whose}: {highest}; lowest: {lowest}.")
    return panels


def _who(key: object) -> str:
    parts = key if isinstance(key, tuple) else (key,)
    texts = [f"{part:g}" if isinstance(part, int | float) else str(part) for part in parts if not pd.isna(part)]
    return f" ({', '.join(filter(None, texts))})" if any(texts) else ""
