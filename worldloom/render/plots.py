"""Small plots as inline SVG. Colours are CSS classes of the page, so one plot serves light and dark.

K points of a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import floor, isfinite, log10

import numpy as np

WIDTH, HEIGHT = 360, 236
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 12, 40


@dataclass(frozen=True)
class Line:
    """One line of a plot, `x` and `y` `[K]`, gaps where not finite. `style` is a CSS class: model, linear, real, ..."""

    label: str
    style: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray | None = None
    high: Sequence[float] | np.ndarray | None = None
    dots: bool = False


@dataclass(frozen=True)
class Axes:
    """The frame of a plot: data ranges, and how they land on the page."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - min(max(share, -0.02), 1.02) * (HEIGHT - TOP - BOTTOM)


def line_plot(
    lines: Sequence[Line],
    title: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float] | None = None,
    zero: bool = False,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """A figure with lines, their bands, a legend under the plot and a text alternative.

    Args:
        y_range: the range shown; by default that of the values. Lines are clipped to it.
        zero: draw the line y = 0.
        marks: (x, label) of dotted vertical lines.
    """
    axes = _axes(lines, y_range, zero)
    parts = [*_grid(axes, x_label, y_label)]
    if zero:
        parts.append(_segment(axes.x_low, 0, axes.x_high, 0, axes, "zero"))
    for x, label in marks:
        parts.append(_segment(x, axes.y_low, x, axes.y_high, axes, "mark"))
        parts.append(f'<text class="tick" x="{axes.x(x) + 4:.1f}" y="{TOP + 9}">{escape(label)}</text>')
    parts += [_band(line, axes) for line in lines]
    parts += [_path(line, axes) for line in lines]
    return _figure(parts, title, _describe(lines, title), [(line.label, line.style) for line in lines])


def reliability_plot(curves: Sequence[tuple[str, str, np.ndarray, np.ndarray, np.ndarray]], title: str) -> str:
    """Observed frequency over predicted probability; a dot's area grows with its share of rows.

    Args:
        curves: (label, style, probability, frequency, share), each of the last three `[bins]`.
    """
    axes = Axes(0, 1, 0, 1)
    parts = [*_grid(axes, "predicted probability of an end", "how often it ended")]
    parts.append(_segment(0, 0, 1, 1, axes, "zero"))
    for _, style, probability, frequency, share in curves:
        for p, f, s in zip(probability, frequency, share, strict=True):
            if isfinite(p) and isfinite(f):
                radius = 2.5 + 8 * s**0.5
                parts.append(
                    f'<circle class="dot {style}" cx="{axes.x(p):.1f}" cy="{axes.y(f):.1f}" r="{radius:.1f}"/>'
                )
    description = f"{title}: a calibrated model's dots lie on the diagonal."
    return _figure(parts, title, description, [(label, style) for label, style, *_ in curves])


@dataclass(frozen=True)
class Dot:
    """One point of a scatter plot and the ends of its error bars; None where there is no interval."""

    label: str
    x: float
    y: float
    x_ends: tuple[float, float] | None = None
    y_ends: tuple[float, float] | None = None


def scatter_plot(dots: Sequence[Dot], title: str, x_label: str, y_label: str) -> str:
    """Points with error bars on two axes of one range, and the diagonal on which both say the same."""
    ends = [(dot.x, dot.y, *(dot.x_ends or ()), *(dot.y_ends or ())) for dot in dots]
    low, high = min(map(min, ends)), max(map(max, ends))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    axes = Axes(low - margin, high + margin, low - margin, high + margin)
    parts = [*_grid(axes, x_label, y_label)]
    parts.append(_segment(axes.x_low, axes.y_low, axes.x_high, axes.y_high, axes, "zero"))
    for dot in dots:
        if dot.x_ends:
            parts.append(_segment(dot.x_ends[0], dot.y, dot.x_ends[1], dot.y, axes, "bar"))
        if dot.y_ends:
            parts.append(_segment(dot.x, dot.y_ends[0], dot.x, dot.y_ends[1], axes, "bar"))
    for dot in dots:
        place = f'cx="{axes.x(dot.x):.1f}" cy="{axes.y(dot.y):.1f}"'
        parts.append(f'<circle class="dot model" {place} r="3.5"><title>{escape(dot.label)}</title></circle>')
    words = "; ".join(f"{dot.label} at {dot.x:.3g}, {dot.y:.3g}" for dot in dots)
    return _figure(parts, title, f"{title}: {words}.", [("on the line, dream and reality agree", "zero")])


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within a range, about `count` of them."""
    raw = (high - low) / count
    power = 10 ** floor(log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = int(np.ceil(low / step - 1e-9))
    return [round(step * i, 10) for i in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _axes(lines: Sequence[Line], y_range: tuple[float, float] | None, zero: bool) -> Axes:
    xs = np.concatenate([np.asarray(line.x, float) for line in lines])
    ys = np.concatenate(
        [np.asarray(v, float) for line in lines for v in (line.y, line.low, line.high) if v is not None]
    )
    ys = ys[np.isfinite(ys)]
    low, high = y_range or (float(ys.min()), float(ys.max())) if len(ys) else (0.0, 1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if y_range is None:
        margin = 0.05 * (high - low) or 0.5
        low, high = low - margin, high + margin
    x_low, x_high = float(xs.min()), float(xs.max())
    return Axes(x_low, x_high if x_high > x_low else x_low + 1, low, high)


def _grid(axes: Axes, x_label: str, y_label: str) -> list[str]:
    parts = []
    for value in nice_ticks(axes.y_low, axes.y_high):
        parts.append(_segment(axes.x_low, value, axes.x_high, value, axes, "rule"))
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{axes.y(value) + 4:.1f}" text-anchor="end">{_number(value)}</text>'
        )
    for value in nice_ticks(axes.x_low, axes.x_high):
        parts.append(
            f'<text class="tick" x="{axes.x(value):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">'
            f"{_number(value)}</text>"
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    up = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="axis" transform="translate(11 {up}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    return parts


def _segment(x1: float, y1: float, x2: float, y2: float, axes: Axes, style: str) -> str:
    ends = f'x1="{axes.x(x1):.1f}" y1="{axes.y(y1):.1f}" x2="{axes.x(x2):.1f}" y2="{axes.y(y2):.1f}"'
    return f'<line class="{style}" {ends}/>'


def _path(line: Line, axes: Axes) -> str:
    points = [(axes.x(x), axes.y(y)) if isfinite(y) else None for x, y in zip(line.x, line.y, strict=True)]
    words, pen_down = [], False
    for point in points:
        if point is not None:
            words.append(f"{'L' if pen_down else 'M'}{point[0]:.1f} {point[1]:.1f}")
        pen_down = point is not None
    dots = [f'<circle class="dot {line.style}" cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="2.4"/>' for p in points if p]
    return f'<path class="line {line.style}" d="{"".join(words)}"/>' + ("".join(dots) if line.dots else "")


def _band(line: Line, axes: Axes) -> str:
    if line.low is None or line.high is None:
        return ""
    rows = zip(line.x, line.low, line.high, strict=True)
    inside = [(axes.x(x), axes.y(lo), axes.y(hi)) for x, lo, hi in rows if isfinite(lo) and isfinite(hi)]
    if len(inside) < 2:
        return ""
    upper = [f"{x:.1f} {hi:.1f}" for x, _, hi in inside]
    lower = [f"{x:.1f} {lo:.1f}" for x, lo, _ in reversed(inside)]
    return f'<path class="band {line.style}" d="M{"L".join(upper + lower)}Z"/>'


def _figure(parts: Sequence[str], title: str, description: str, legend: Sequence[tuple[str, str]]) -> str:
    keys = "".join(f'<span><i class="key {style}"></i>{escape(label)}</span>' for label, style in dict(legend).items())
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )
    return f'<figure class="plot"><h3>{escape(title)}</h3>{svg}<figcaption class="legend">{keys}</figcaption></figure>'


def _describe(lines: Sequence[Line], title: str) -> str:
    """The plot in words: where every line begins and ends."""
    words = []
    for line in lines:
        y = np.asarray(line.y, float)
        seen = np.flatnonzero(np.isfinite(y))
        if len(seen):
            first, last = seen[0], seen[-1]
            words.append(
                f"{line.label} goes from {y[first]:.3g} at {line.x[first]:g} to {y[last]:.3g} at {line.x[last]:g}"
            )
    return f"{title}: {'; '.join(words)}."


def _number(value: float) -> str:
    return f"{value:.10g}".replace("-", "\u2212")
