"""A small SVG drawing: shapes, text that fits, axes. Colours are CSS classes of the page, so that dark mode is free."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from markupsafe import Markup, escape

CHARACTER_EMS = 0.56
"""Mean width of a character of a sans-serif face, in font sizes; wide enough for capitals and digits."""


def text_width(text: str, size: float) -> float:
    """Return about how wide a text is, in the drawing's units."""
    return len(text) * size * CHARACTER_EMS


def fit(text: str, width: float, size: float) -> str:
    """Return the text, cut with an ellipsis if it is wider than `width`."""
    room = max(1, int(width / (size * CHARACTER_EMS)))
    return text if len(text) <= room else text[: max(1, room - 1)].rstrip() + "…"


def minus(text: str) -> str:
    """Return a formatted number with a typographic minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def round_usd(usd: float) -> str:
    """Return a round number of dollars, as axes have them: `$0.05`."""
    return minus(f"{'-' if usd < 0 else ''}${abs(usd):.6g}")


class Drawing:
    """One SVG, `width` by `height` units, with a title and a description for people who cannot see it."""

    def __init__(self, *, key: str, width: float, height: float, title: str, description: str) -> None:
        self.width, self.height = width, height
        self._key, self._title, self._description = f"{key}-{width:.0f}", title, description
        self._parts: list[Markup] = []

    def rect(self, x: float, y: float, width: float, height: float, *, css: str, tip: str = "") -> None:
        """Draw a bar; `tip` appears when it is pointed at."""
        shape = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="2">{}</rect>')
        self._parts.append(shape.format(css, x, y, max(width, 0.0), height, _tip(tip)))

    def line(self, x1: float, y1: float, x2: float, y2: float, *, css: str) -> None:
        """Draw a straight line."""
        shape = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
        self._parts.append(shape.format(css, x1, y1, x2, y2))

    def circle(self, x: float, y: float, radius: float, *, css: str, tip: str = "") -> None:
        """Draw a dot."""
        shape = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}">{}</circle>')
        self._parts.append(shape.format(css, x, y, radius, _tip(tip)))

    def path(self, points: Iterable[tuple[float, float]], *, css: str, tip: str = "") -> None:
        """Draw straight lines from point to point."""
        steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self._parts.append(Markup('<path class="{}" d="M{}">{}</path>').format(css, steps, _tip(tip)))

    def text(self, x: float, y: float, content: str, *, css: str = "", anchor: str = "start") -> None:
        """Write a line of text whose baseline is at `y`; `anchor` is start, middle or end."""
        shape = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
        self._parts.append(shape.format(css, x, y, anchor, content))

    def render(self) -> Markup:
        """Return the SVG element."""
        frame = Markup(
            '<svg class="chart" role="img" viewBox="0 0 {:.0f} {:.0f}" aria-labelledby="{}-title {}-desc">'
            '<title id="{}-title">{}</title><desc id="{}-desc">{}</desc>{}</svg>'
        )
        key = self._key
        inner = Markup("").join(self._parts)
        return frame.format(self.width, self.height, key, key, key, self._title, key, self._description, inner)


def _tip(text: str) -> Markup:
    return Markup("<title>{}</title>").format(escape(text)) if text else Markup("")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values to positions, linearly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the position of a value, held inside the scale."""
        low, high, value = (self._warp(item) for item in (self.low, self.high, value))
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, share)) * (self.end - self.start)

    def _warp(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.logarithmic else value

    def ticks(self, count: int) -> list[float]:
        """Return about `count` round values inside the scale."""
        return _log_ticks(self.low, self.high, count) if self.logarithmic else _ticks(self.low, self.high, count)


def _ticks(low: float, high: float, count: int) -> list[float]:
    raw = (high - low) / max(count, 1)
    if raw <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [f * 10.0**power for power in powers for f in factors if low * 0.999 <= f * 10.0**power <= high * 1.001]
        if len(ticks) <= count:
            break
    return ticks[:: math.ceil(len(ticks) / count)] if ticks else [low]


def x_axis(drawing: Drawing, scale: Scale, *, y: float, label: str, show: Callable[[float], str], top: float) -> None:
    """Draw ticks below `y` with faint lines up to `top`, and the label centred under them."""
    count = max(2, int(abs(scale.end - scale.start) / 72))
    for tick in scale.ticks(count):
        drawing.line(scale(tick), top, scale(tick), y, css="grid")
        drawing.text(scale(tick), y + 16, show(tick), css="tick", anchor="middle")
    drawing.line(scale.start, y, scale.end, y, css="axis")
    drawing.text((scale.start + scale.end) / 2, y + 34, label, css="label", anchor="middle")


def y_axis(drawing: Drawing, scale: Scale, *, x: float, right: float, show: Callable[[float], str]) -> None:
    """Draw ticks left of `x` with faint lines to `right`."""
    for tick in scale.ticks(5):
        drawing.line(x, scale(tick), right, scale(tick), css="grid")
        drawing.text(x - 8, scale(tick) + 4, show(tick), css="tick", anchor="end")


def legend(drawing: Drawing, entries: Iterable[tuple[str, str]], *, x: float, y: float, right: float) -> float:
    """Draw (css, label) pairs in rows that wrap at `right`; return the y below the last row."""
    left = x
    for css, name in entries:
        label = fit(name, right - x - 20, 12)
        width = 24 + text_width(label, 12) + 12
        if left > x and left + width - 12 > right:
            left, y = x, y + 20
        drawing.rect(left, y - 10, 14, 11, css=css)
        drawing.text(left + 20, y, label, css="tick")
        left += width
    return y + 20
