"""What a section hands to the table on the terminal and to the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any, Protocol

import numpy as np

from demo.measure import Row, Say


@dataclass(frozen=True)
class Section:
    """A titled part of the page: HTML that shows what happens, and measurements of one kind of mask.

    A section without masks has no rows, and one line that sums it up instead.
    """

    name: str
    title: str
    body: str
    setting: str
    rows: tuple[Row, ...]
    summary: str = ""


class Builder(Protocol):
    """A module of the demo; ``quick`` asks for short inputs."""

    NAME: str

    def build(self, *, quick: bool, say: Say) -> Section:
        """Compute the section, and say what is being done."""


def picture(pixels: Any, alt: str, caption: str, *, photo: bool = False, scale: int = 1) -> str:
    """A figure of an image (height, width, 3) in [0, 1], embedded in the page."""
    from PIL import Image

    levels = (np.clip(pixels, 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(levels)
    size = (image.width * scale, image.height * scale)
    file = io.BytesIO()
    image.resize(size, Image.Resampling.NEAREST).save(file, "JPEG" if photo else "PNG", quality=88, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    kind = "jpeg" if photo else "png"
    return (
        f'<figure><img src="data:image/{kind};base64,{data}" width="{size[0]}" height="{size[1]}" alt="{escape(alt)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def gallery(figures: Iterable[str], *, columns: int) -> str:
    """Figures side by side, as many a line as the screen allows and `columns` at most."""
    return f'<div class="gallery of{columns}">{"".join(figures)}</div>'


def pixels(figure: Any) -> Any:
    """A matplotlib figure as an image (height, width, 3) in [0, 1]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255
