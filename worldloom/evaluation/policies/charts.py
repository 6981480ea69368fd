"""Small line charts drawn into pictures: a quantity over time, what was imagined for it, and now.

T decisions, H horizon.
"""

from dataclasses import dataclass
from math import isfinite

import numpy as np
from PIL import ImageDraw

from worldloom.evaluation.dreams import DREAMING
from worldloom.render.filmstrip import FAINT, INK, font

REAL, TO_COME, FRAME = (120, 190, 255), (62, 88, 116), (48, 52, 60)
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Chart:
    """One quantity: what happened `real` `[T]`, and for each decision what was imagined, `(made, [H])`.

    The imagined values are those of the decisions made + 1, made + 2, ... `low` and `high` are the range drawn.
    """

    title: str
    real: np.ndarray
    imagined: list[tuple[int, np.ndarray]]
    low: float
    high: float

    @classmethod
    def of(cls, title: str, real: np.ndarray, imagined: list[tuple[int, np.ndarray]]) -> "Chart":
        """The range holds all that happened, and of what was imagined all but the wildest two per cent."""
        dreamt = np.concatenate([values for _, values in imagined]) if imagined else real
        dreamt = dreamt[np.isfinite(dreamt)]
        edges = [np.nanmin(real), np.nanmax(real), *(np.percentile(dreamt, (1, 99)) if len(dreamt) else ())]
        low, high = float(min(edges)), float(max(edges))
        margin = 0.08 * (high - low) or 0.5
        return cls(title, real, imagined, low - margin, high + margin)


def draw_chart(pen: ImageDraw.ImageDraw, box: Box, chart: Chart, now: int, past: int, future: int, scale: int) -> None:
    """Draw into `box` (left, top, right, bottom), all in pixels of a canvas that is `scale` times as fine.

    Past values are bright, real ones to come faint, imagined ones orange; a rule marks now.
    """
    left, top, right, bottom = box
    pen.text((left + 2 * scale, top), chart.title, INK, font(13 * scale))
    inner = (left, top + 18 * scale, right, bottom)
    pen.rectangle(inner, outline=FRAME, width=scale)

    def place(step: float, value: float) -> tuple[float, float]:
        share = (value - chart.low) / (chart.high - chart.low)
        x = left + (step - now + past) / (past + future) * (right - left)
        return x, inner[3] - min(max(share, 0.0), 1.0) * (inner[3] - inner[1])

    x_now = place(now, 0.0)[0]
    pen.line([(x_now, inner[1]), (x_now, inner[3])], FAINT, scale)
    first, last = max(0, now - past), min(len(chart.real) - 1, now + future)
    draw_line(pen, [place(t, chart.real[t]) for t in range(now, last + 1)], TO_COME, 2 * scale)
    draw_line(pen, [place(t, chart.real[t]) for t in range(first, now + 1)], REAL, 2 * scale)
    made, values = chart.imagined[now]
    ahead = [place(made + 1 + i, v) for i, v in enumerate(values) if made + 1 + i <= now + future and np.isfinite(v)]
    draw_line(pen, ahead, DREAMING, 2 * scale)
    for x, y in ahead[-1:]:
        pen.ellipse((x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale), DREAMING)
    pen.text((right, top + 2 * scale), f"{chart.low:.3g} to {chart.high:.3g}", FAINT, font(11 * scale), anchor="ra")


def draw_line(pen: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: tuple[int, ...], width: int) -> None:
    """Points without a place are left out."""
    points = [(x, y) for x, y in points if isfinite(y)]
    if len(points) > 1:
        pen.line(points, colour, width, joint="curve")
