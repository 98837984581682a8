"""Small drawings in SVG that follow the page's colours, light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Points = Sequence[tuple[float, float]]

_W, _H = 420, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 84, 14, 34


def growth(series: Mapping[str, Points], *, title: str, alt: str, unit: str) -> str:
    """Lines over the number of tokens, both axes logarithmic, each line named at its end."""
    xs = sorted({x for points in series.values() for x, _ in points})
    ys = [y for points in series.values() for _, y in points]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    high += low == high

    def place(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / xs[0]) / math.log(xs[-1] / xs[0])
        up = (math.log10(y) - low) / (high - low)
        return _LEFT + across * (_W - _LEFT - _RIGHT), _H - _BOTTOM - up * (_H - _TOP - _BOTTOM)

    parts = [_rule(place(xs[0], 10.0**k)[1], _power(k, unit)) for k in range(low, high + 1)]
    parts += [_tick(place(x, 10.0**low)[0], f"{x:,.0f}") for x in xs]
    ends = {name: place(*points[-1]) for name, points in series.items()}
    for (name, points), label_y in zip(series.items(), _apart([y for _, y in ends.values()]), strict=True):
        parts.append(_line(name, [place(*point) for point in points], dots=True))
        parts.append(
            f'<text class="{_class(name)}" x="{ends[name][0] + 9:.1f}" y="{label_y + 4:.1f}">{escape(name)}</text>'
        )
    return _svg("".join(parts), title, alt)


def profile(*, measured: Any, lines: Mapping[str, Any], unit: str, alt: str) -> str:
    """Measured points and smooth lines through them, with a legend."""
    width, height = 840, 300
    everything = [float(y) for y in measured]
    low, high = min(everything), max(everything)

    def place(i: int, y: float) -> tuple[float, float]:
        return _LEFT + i * (width - _LEFT - 8) / (len(measured) - 1), 12 + (high - y) / (high - low) * (height - 24)

    dots = "".join('<circle cx="{:.1f}" cy="{:.1f}" r="1.7"/>'.format(*place(i, y)) for i, y in enumerate(everything))
    grid = "".join(
        _rule(place(0, y)[1], f"{y:.0f} {unit}", width - 8) for y in range(math.ceil(low / 50) * 50, int(high) + 1, 50)
    )
    curves = "".join(_line(name, [place(i, float(y)) for i, y in enumerate(values)]) for name, values in lines.items())
    legend = "".join(f'<li class="{_class(name)}">{escape(name)}</li>' for name in ["measured", *lines])
    return (
        f'<figure class="chart wide"><div class="scroll"><svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(alt)}">'
        f'{grid}<g class="measured">{dots}</g>{curves}</svg></div><ul class="legend">{legend}</ul></figure>'
    )


def _svg(body: str, title: str, alt: str) -> str:
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_W} {_H}" role="img" aria-label="{escape(alt)}">{body}</svg></figure>'
    )


def _line(name: str, points: Points, *, dots: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    circles = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points) if dots else ""
    return f'<g class="{_class(name)}"><polyline points="{path}"/>{circles}</g>'


def _rule(y: float, label: str, right: float = _W - _RIGHT) -> str:
    return (
        f'<line class="rule" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def _tick(x: float, label: str) -> str:
    return f'<text class="tick" x="{x:.1f}" y="{_H - _BOTTOM + 19}" text-anchor="middle">{label}</text>'


def _power(k: int, unit: str) -> str:
    names = {"s": {-3: "ms", 0: "s"}, "B": {3: "kB", 6: "MB", 9: "GB"}}[unit]
    base = 3 * (k // 3)
    return f"{10 ** (k - base)} {names.get(base, {-6: 'µs'}.get(base, unit))}"


def _apart(ys: list[float], gap: float = 15.0) -> list[float]:
    """The same heights, moved down just enough that labels do not overlap."""
    placed: dict[int, float] = {}
    last = -math.inf
    for index in sorted(range(len(ys)), key=ys.__getitem__):
        last = placed[index] = max(ys[index], last + gap)
    return [placed[index] for index in range(len(ys))]


def _class(name: str) -> str:
    return "line-" + name.replace(" ", "-")
