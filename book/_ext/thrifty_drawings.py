"""Small drawings of a claim's page as inline SVG, straight from records. Colours are classes of claims.css."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from thriftylib.evidence.explain import Explained
from thriftylib.evidence.records import Record

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 200, 46, 24
_POINTS = 120  # of a curve; more would be no finer on the page


def curves(claim: Explained, series: str, records: Sequence[Record]) -> str:
    """The series of each run over epochs beside the claimed number; empty where no run has two values."""
    sides = {run.id: run.side for run in claim.runs}
    lines = []
    for record in records:
        points = [(at, value) for at, value in enumerate(record.series.get(series, ())) if value is not None]
        if record.id in sides and len(points) > 1:
            lines.append((sides[record.id], points))
    if not lines:
        return ""
    last = max(points[-1][0] for _, points in lines)
    stated = [claim.claimed] if claim.quantity == series else []
    values = [value for _, points in lines for _, value in points] + stated
    low, high = _limits(values)

    def x(epoch: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - 8) * epoch / last

    def y(value: float) -> float:
        return 8 + (_HEIGHT - _BOTTOM - 8) * (high - max(value, low)) / (high - low)

    parts = [f'<path class="axis" d="M{_LEFT} 8V{_HEIGHT - _BOTTOM}H{_WIDTH - 8}"/>']
    for value in (low, high):
        parts.append(f'<text x="{_LEFT - 6}" y="{y(value) + 4:.0f}" text-anchor="end">{value:.0f}</text>')
    for epoch in (0, last):
        anchor = "start" if epoch == 0 else "end"
        parts.append(f'<text x="{x(epoch):.0f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">epoch {epoch + 1}</text>')
    for value in stated:
        parts.append(f'<path class="stated" d="M{_LEFT} {y(value):.1f}H{_WIDTH - 8}"/>')
    for side, points in lines:
        kept = points[:: max(1, len(points) // _POINTS)]
        kept += points[-1:] * (kept[-1] != points[-1])
        path = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in kept)
        parts.append(f'<polyline class="side-{side}" points="{path}"/>')
    told = f"{len(lines)} curves of {series.replace('_', ' ')} over {last + 1} epochs"
    told += f", from {min(values):.2f} to {max(values):.2f}"
    return _svg(parts, _WIDTH, _HEIGHT, told)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Whole numbers around the values; a first epoch far below the rest does not flatten all others."""
    ordered = sorted(values)
    low = ordered[len(ordered) // 20]
    return float(int(low)), float(int(ordered[-1]) + 1)


def strip(claim: Explained) -> str:
    """Claimed number, the band in which it is met, our runs and the interval that decides; empty without one."""
    decides = _deciding(claim)
    if decides is None or claim.ours is None:
        return ""
    (low, high), band = decides
    ends = sorted(end for end in (low, high, claim.claimed, *band) if math.isfinite(end))
    room = (ends[-1] - ends[0]) * 0.06 or 1.0
    left, right = ends[0] - room, ends[-1] + room

    def x(value: float) -> float:
        return 8 + (_WIDTH - 16) * (min(max(value, left), right) - left) / (right - left)

    signed = "+" if claim.interval is not None else ""
    parts = [f'<rect class="band" x="{x(band[0]):.1f}" y="20" width="{x(band[1]) - x(band[0]):.1f}" height="38"/>']
    parts.append(f'<path class="stated" d="M{x(claim.claimed):.1f} 20V58"/>')
    parts.append(f'<path class="interval" d="M{x(low):.1f} 39H{x(high):.1f}M{x(low):.1f} 33V45M{x(high):.1f} 33V45"/>')
    for run in claim.runs if claim.interval is None else ():
        if left < run.value < right:
            parts.append(f'<circle class="run" cx="{x(run.value):.1f}" cy="50" r="2.5"/>')
    parts.append(f'<circle class="mean" cx="{x(claim.ours):.1f}" cy="39" r="4.5"/>')
    for name, value, height in (("claimed", claim.claimed, 14), ("ours", claim.ours, 74)):
        at = min(max(x(value), 70), _WIDTH - 70)
        text = claim.stated if name == "claimed" else f"{value:{signed}.2f}"
        parts.append(f'<text x="{at:.0f}" y="{height}" text-anchor="middle">{name} {escape(text)}</text>')
    told = f"Ours {claim.ours:{signed}.2f}, interval {low:{signed}.2f} to {high:{signed}.2f}; claimed {claim.stated}"
    met = [f"from {band[0]:.2f}"] * math.isfinite(band[0]) + [f"to {band[1]:.2f}"] * math.isfinite(band[1])
    return _svg(parts, _WIDTH, 80, f"{told}, met {' '.join(met)}")


def _deciding(claim: Explained) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """The interval that decides, and the band; None where there is no interval."""
    room = claim.tolerance or 0.0
    if claim.distance is not None:
        low, high = (claim.claimed + end for end in claim.distance)
        lowest = -math.inf if claim.bound == "at most" else claim.claimed - room
        highest = math.inf if claim.bound in ("at least", "more than") else claim.claimed + room
        return (low, high), (lowest, highest)
    if claim.interval is None or claim.relation is None or claim.tolerance is None:
        return None
    bands = {"greater": (0.0, math.inf), "equal": (-room, room), "no gain": (-math.inf, room)}
    return (claim.interval, bands[claim.relation]) if claim.relation in bands else None


def _svg(parts: Sequence[str], width: int, height: int, told: str) -> str:
    head = f'<svg class="drawing" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(told)}">'
    return head + "".join(parts) + "</svg>"
