"""One-dimensional relative positions: Toeplitz masks, on a line of measured heights."""

from __future__ import annotations

from typing import Any

import numpy as np

import structmask as sm
from demo import inputs, measure
from demo.chart import profile
from demo.rivals import Case, structured
from demo.section import Section

NAME = "relative"

WIDTHS = np.array([2.0, 8.0, 32.0, 128.0])
_FEATURES, _VALUES = 16, 16
_NOISE = 20.0  # metres
_WINDOW = slice(240, 390)  # the part that is drawn


def build(*, quick: bool, say: measure.Say) -> Section:
    """Four heads of different widths smooth a noisy profile."""
    sizes = (256, 1024) if quick else (256, 1024, 4096, 16384, 65536)
    rows = measure.sweep(case, sizes, say)
    say("smoothing the profile")
    return Section(
        NAME,
        "Relative positions on a line",
        _body(2048 if quick else 16384),
        f"4 heads of widths 2, 8, 32 and 128 points; {_FEATURES} features, values of size {_VALUES}, float32",
        rows,
    )


def mask(tokens: int) -> sm.Toeplitz:
    """exp(-|i - j| / width), one head a width."""
    return sm.Toeplitz.from_function(lambda s: np.exp(-np.abs(s) / WIDTHS[:, None]), tokens)


def case(tokens: int) -> Case:
    """Queries and keys: the smoothed height, softly binned. Values: the 16 heights around a point."""
    noisy = _noisy(inputs.survey_path(tokens))
    F = _bins(noisy, _FEATURES)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(noisy, (7, 8), mode="edge"), _VALUES)
    V = np.repeat((around / 1000)[None], WIDTHS.size, axis=0).astype(np.float32)
    T = mask(tokens)
    return Case(mask=T, table=T.offsets.astype(np.float32), F=F, G=F, V=V)


def _noisy(line: Any) -> Any:
    return line + _NOISE * np.random.default_rng(0).standard_normal(line.size)


def _bins(noisy: Any, count: int) -> Any:
    """Gaussian bumps over the height, averaged over five points: products fall off with the difference in height."""
    level = np.convolve(np.pad(noisy, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    centres, width = np.linspace(200, 1100, count, retstep=True)
    bumps = np.exp(-(((level[:, None] - centres) / width) ** 2) / 2)
    return np.repeat(bumps[None], WIDTHS.size, axis=0).astype(np.float32)


def _body(tokens: int) -> str:
    line = inputs.survey_path(tokens)
    noisy = _noisy(line)
    F = _bins(noisy, 2 * _FEATURES)
    V = np.repeat(noisy[None, :, None], WIDTHS.size, axis=0).astype(np.float32)
    T = mask(tokens)
    heads = structured(Case(mask=T, table=T.offsets, F=F, G=F, V=V))[..., 0]
    free = sm.masked_attention(F[0], F[0], V[0], features=None)[:, 0]
    errors = [_rms(head - line) for head in heads]
    drawing = profile(
        measured=noisy[_WINDOW],
        lines={
            "the ground": line[_WINDOW],
            "without a mask": free[_WINDOW],
            "with the mask": heads[0, _WINDOW],
        },
        unit="m",
        alt="Noisy heights along a line, the ground, and the line after attention: with the mask it follows the "
        "ground into every "
        "valley, without one less closely",
    )
    table = "".join(
        f"<tr><th scope=row>{name}</th><td>{error:.1f} m</td></tr>"
        for name, error in [
            ("as measured", _rms(noisy - line)),
            ("attention without a mask", _rms(free - line)),
            *((f"head of width {width:.0f}", error) for width, error in zip(WIDTHS, errors, strict=True)),
        ]
    )
    return (
        "<p>The tokens are heights along the rows of the elevation grid, read to and fro as one line, with "
        f"{_NOISE:.0f} m of noise added so that the error can be known. A point attends to points of like height, "
        "and the mask to points nearby: <em>M<sub>ij</sub> = f(i − j)</em>.</p>"
        f"{drawing}"
        f'<p class="note">Drawn with the mask: the head of width {WIDTHS[0]:.0f}.</p>'
        f'<div class="scroll"><table class="small"><caption>Root mean square error over {tokens:,} points</caption>'
        f"<tbody>{table}</tbody></table></div>"
    )


def _rms(x: Any) -> float:
    return float(np.sqrt(np.mean(np.square(x))))
