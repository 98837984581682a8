"""Two-dimensional relative positions: block-Toeplitz masks, on a photograph."""

from __future__ import annotations

from typing import Any

import numpy as np

import structmask as sm
from demo import inputs, measure
from demo.rivals import Case, structured
from demo.section import Section, gallery, picture, pixels
from structmask.plotting import show_row

NAME = "grid"

WIDTHS = np.array([2.0, 4.0, 8.0, 16.0])
_SHADES, _PATCH = 16, 2
_SEEN = 50  # one pixel in so many keeps its colour
_NOISE = 0.12


def build(*, quick: bool, say: measure.Say) -> Section:
    """Four heads of different widths bring the colour of the photograph back."""
    sides = (16, 32) if quick else (16, 32, 64, 128, 256)
    rows = measure.sweep(_case_of_area, [side * side for side in sides], say)
    shape = (75, 64) if quick else (300, 256)
    say(f"the photograph, {shape[0] * shape[1]:,} pixels")
    return Section(
        NAME,
        "Relative positions on a grid",
        _body(shape),
        f"4 heads of widths 2, 4, 8 and 16 pixels; {_SHADES} features, values of size {3 * _PATCH**2} (patches of "
        "colour), float32",
        rows,
    )


def mask(shape: tuple[int, int], widths: Any = WIDTHS) -> sm.Toeplitz:
    """exp(-distance / width) between the pixels of a grid, one head a width."""
    return sm.Toeplitz.from_function(lambda dy, dx: np.exp(-np.hypot(dy, dx) / widths[:, None, None]), shape)


def _case_of_area(tokens: int) -> Case:
    """Queries and keys: the shade of a pixel. Values: the colours of a patch."""
    side = round(tokens**0.5)
    colours = inputs.photograph(side, side)
    padded = np.pad(colours, ((0, _PATCH - 1), (0, _PATCH - 1), (0, 0)), mode="edge")
    patches = np.lib.stride_tricks.sliding_window_view(padded, (_PATCH, _PATCH), axis=(0, 1))
    return _case(mask((side, side)), _shades(_grey(colours)), patches.reshape(tokens, -1))


def _case(T: sm.Toeplitz, F: Any, V: Any, seen: Any = 1.0) -> Case:
    """The same features and values for every head; keys that are not seen weigh nothing."""
    heads = T.shape[0]
    F, G, V = (np.repeat(a[None], heads, axis=0).astype(np.float32) for a in (F, F * seen, V))
    return Case(mask=T, table=T.offsets.astype(np.float32), F=F, G=G, V=V)


def _grey(colours: Any) -> Any:
    return colours @ np.array([0.299, 0.587, 0.114])


def _shades(grey: Any, count: int = _SHADES) -> Any:
    """Gaussian bumps over the shades: a scalar product falls off with the difference in shade."""
    centres, width = np.linspace(0, 1, count, retstep=True)
    return np.exp(-(((grey.reshape(-1, 1) - centres) / width) ** 2) / 2)


def _body(shape: tuple[int, int]) -> str:
    photo = inputs.photograph(*shape)
    return (
        "<p>The tokens are the pixels of a photograph. A pixel attends to pixels of like shade, and the mask to "
        "pixels nearby: "
        "<em>M<sub>ij</sub> = f(i − j)</em> with <em>i</em> and <em>j</em> points of the grid. Below, all but "
        "one pixel in "
        f"{_SEEN} lose their colour, and attention to the few that kept it paints the rest.</p>"
        f"{_recoloured(photo)}"
        "<p>Without a mask, attention knows what looks alike, but not where: a pale cheek and a pale stripe get "
        "one average "
        "colour. Near the right pixels, it tells them apart. What the pixel in the ring attends to, by the mask "
        "alone and by "
        "mask and shade together:</p>"
        f"{_weights(photo)}"
        "<p>The same for noise: each pixel becomes an average of those that attention finds, in the whole "
        "picture or nearby.</p>"
        f"{_denoised(photo)}"
    )


def _recoloured(photo: Any) -> str:
    shape = photo.shape[:2]
    grey = _grey(photo)[..., None]
    seen = np.random.default_rng(0).random(grey.size) * _SEEN < 1
    problem = _case(mask(shape), _shades(grey), (photo - grey).reshape(-1, 3), seen[:, None])
    heads = structured(problem)
    error = measure.worst_row(problem, heads, 128)
    painted = [grey + head.reshape(photo.shape) for head in heads]
    free = sm.masked_attention(problem.F[0], problem.G[0], problem.V[0], features=None)
    unmasked = grey + free.reshape(photo.shape)
    given = np.where(seen.reshape(grey.shape), photo, grey)
    best = max(painted, key=lambda image: _quality(image, photo))
    width = WIDTHS[[image is best for image in painted]][0]
    rest = ", ".join(
        f"{_quality(image, photo):.1f} dB (width {w:.0f})" for image, w in zip(painted, WIDTHS, strict=True)
    )
    shown = [
        ("The photograph", photo, "photograph of Rear Admiral Grace Hopper before a flag", ""),
        (f"Colour kept in 1 of {_SEEN} pixels", given, "the photograph in grey", _decibel(given, photo)),
        (
            "Attention without a mask",
            unmasked,
            "the photograph in washed-out, wrong colours",
            _decibel(unmasked, photo),
        ),
        (f"With the mask, width {width:.0f}", best, "the photograph in its natural colours", _decibel(best, photo)),
    ]
    figures = (picture(image, alt, f"<b>{title}</b>{note}", photo=True) for title, image, alt, note in shown)
    return (
        gallery(figures, columns=4)
        + f'<p class="note">Peak signal-to-noise ratio of the four heads, the best of which is shown: {rest}. '
        f"{grey.size:,} tokens, four heads in one call; against the dense computation in float64, the worst of "
        "128 rows is off by "
        f"{error:.0e} of its size.</p>"
    )


def _weights(photo: Any) -> str:
    """One row of the mask, and of A = M * (F F^T), as pictures."""
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    h, w = photo.shape[:2]
    row = int(0.37 * h) * w + int(0.52 * w)
    T, F = mask((h, w)), _shades(_grey(photo))
    figures = []
    for head in (2, 3):
        for M, what in ((T, "the mask"), (T * sm.LowRank(F, F), "mask and shade")):
            figure = Figure(figsize=(2.56, 2.56 * h / w))
            ax = show_row(M, row, shape=(h, w), head=head, ax=figure.add_axes((0, 0, 1, 1)), colorbar=False)
            ax.images[0].set_norm(PowerNorm(1 / 3))
            ax.set_axis_off()
            caption = f"<b>{what}</b>, width {WIDTHS[head]:.0f}"
            figures.append(picture(pixels(figure), f"weights of one pixel by {what}", caption))
    return gallery(figures, columns=4) + '<p class="note">Brightness is the cube root of the weight.</p>'


def _denoised(photo: Any) -> str:
    noise = np.random.default_rng(1).standard_normal(photo.shape)
    noisy = photo + _NOISE * noise
    widths = np.array([1.0, 1.5])
    F = _shades(_grey(noisy), 8)
    problem = _case(mask(photo.shape[:2], widths), F, noisy.reshape(-1, 3))
    heads = structured(problem)
    free = sm.masked_attention(problem.F[0], problem.F[0], problem.V[0], features=None).reshape(photo.shape)
    smooth = max((head.reshape(photo.shape) for head in heads), key=lambda image: _quality(image, photo))
    shown = [
        ("With noise", noisy, "the photograph under coloured noise"),
        ("Attention without a mask", free, "the photograph without colours, the noise still there"),
        ("With the mask", smooth, "the photograph, clean, its edges kept"),
    ]
    figures = (picture(x, alt, f"<b>{title}</b>{_decibel(x, photo)}", photo=True) for title, x, alt in shown)
    return (
        gallery(figures, columns=3)
        + '<p class="note">With the mask: the better of two heads, of widths 1 and 1.5 pixels.</p>'
    )


def _quality(image: Any, truth: Any) -> float:
    """Peak signal-to-noise ratio in decibels."""
    return float(-10 * np.log10(np.mean((np.clip(image, 0, 1) - truth) ** 2)))


def _decibel(image: Any, truth: Any) -> str:
    return f" · {_quality(image, truth):.1f} dB"
