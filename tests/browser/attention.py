"""The attention viewer on a page: its parts, and what its pictures show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Locator

from browser.lab import Notebook

# Where the square of the matrix lies on its canvas: all that is opaque, beside the labels.
_SQUARE = """canvas => {
  const { data, width, height } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const opaque = (x, y) => data[4 * (y * width + x) + 3] === 255;
  const last = width - 2;
  let top = 0; while (top < height && !opaque(last, top)) top++;
  let bottom = top; while (bottom < height && opaque(last, bottom)) bottom++;
  let left = last; while (left > 0 && opaque(left - 1, top + 1)) left--;
  return { left, top, side: bottom - top, ratio: width / canvas.clientWidth };
}"""
_COLOURS = """(canvas, points) => {
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return points.map(([x, y]) => [...data.slice(4 * (Math.floor(y) * width + Math.floor(x))).slice(0, 4)]);
}"""

# Every text that is seen, with its contrast to what lies below it (WCAG 2).
_CONTRASTS = """frame => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const painted = (...colours) => {
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  };
  const fills = e => e ? [...fills(e.parentElement), getComputedStyle(e).backgroundColor] : ["#fff"];
  const texts = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
  const seen = e => !e.disabled && texts(e) && e.checkVisibility();
  return [frame, ...frame.querySelectorAll("*:not(style)")].filter(seen).map(e => {
    const style = getComputedStyle(e);
    const below = fills(e);
    const [a, b] = [painted(...below), painted(...below, e instanceof SVGElement ? style.fill : style.color)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    return [ratio, `${e.tagName} ${e.className}`, e.textContent.slice(0, 30)];
  });
}"""


@dataclass(frozen=True)
class Square:
    """The place of the matrix on its canvas, in the canvas' pixels."""

    left: int
    top: int
    side: int
    ratio: float


class Viewer:
    """The viewer in the output of a cell."""

    def __init__(self, notebook: Notebook, cell: int) -> None:
        self.notebook = notebook
        self.frame: Locator = notebook.cell(cell).locator("section.interp-frame")
        self.frame.wait_for()
        self.frame.scroll_into_view_if_needed()
        self.thumbnails = self.frame.locator(".interp-grid canvas")
        self.matrix = self.frame.locator(".interp-box > canvas")
        self.readout = self.frame.locator(".interp-readout")
        self.tokens = self.frame.locator(".interp-text > span")

    @property
    def pitch(self) -> float:
        return float(
            self.frame.locator(".interp-grid").evaluate("e => parseFloat(e.style.getPropertyValue('--pitch'))")
        )

    def head_at(self, layer: int, head: int) -> Any:
        """Return the middle of a head's thumbnail."""
        return {"x": (head + 0.5) * self.pitch, "y": (layer + 0.5) * self.pitch}

    def square(self) -> Square:
        return Square(**self.matrix.evaluate(_SQUARE))

    def cell_at(self, tokens: int, query: int, key: int) -> Any:
        """Return the middle of a cell of the matrix, in CSS pixels."""
        at = self.square()
        step = at.side / tokens
        return {
            "x": (at.left + (key + 0.5) * step) / at.ratio,
            "y": (at.top + (query + 0.5) * step) / at.ratio,
        }

    def matrix_colours(self, tokens: int) -> NDArray[np.int64]:
        """Return the colour in the middle of each of the matrix' cells, ``[query, key, rgba]``."""
        at = self.square()
        assert at.side >= 4 * tokens, "the matrix is too small to be looked at cell by cell"
        step = at.side / tokens
        return self._colours(self.matrix, at.left, at.top, step, tokens)

    def thumbnail_colours(self, layer: int, head: int, tokens: int) -> NDArray[np.int64]:
        """Return the colours of a head's thumbnail, ``[query, key, rgba]``."""
        pitch = self.pitch
        return self._colours(self.thumbnails, head * pitch + 2, layer * pitch + 2, (pitch - 4) / tokens, tokens)

    def shown(self) -> list[int]:
        """Return the layer and the head that the viewer says it shows."""
        return [int(self.frame.get_by_label(name, exact=True).input_value()) for name in ("Layer", "Head")]

    def said(self) -> str:
        return re.sub(r"\s+", " ", self.readout.inner_text())

    def weight(self) -> float:
        """Return the number at the end of the line."""
        return float(self.readout.locator("b").last.inner_text())

    def _colours(self, canvas: Locator, left: float, top: float, step: float, tokens: int) -> NDArray[np.int64]:
        points = [
            [left + (key + 0.5) * step, top + (query + 0.5) * step] for query in range(tokens) for key in range(tokens)
        ]
        return np.array(canvas.evaluate(_COLOURS, points), np.int64).reshape(tokens, tokens, 4)


def luminance(colours: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the relative luminance (WCAG 2) of colours of 0 to 255, ``[…, rgb(a)]``."""
    parts = colours[..., :3] / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def assert_painted(colours: NDArray[np.int64], weights: NDArray[np.float64], dark: bool = False) -> None:
    """Assert that the colours are a picture of the weights, whatever the colours are; both ``[…, query, key]``.

    More weight is a colour farther from the page's, on one scale for all; what a causal head lacks is one other colour.
    """
    past = np.broadcast_to(np.tri(weights.shape[-1], dtype=bool), weights.shape)
    future = np.unique(colours[~past], axis=0)
    assert len(future) == 1, "the future is not one colour"
    assert (colours[..., 3] == 255).all()
    levels = np.floor(weights[past] * 255 + 0.5)
    light = luminance(colours[past]) * (1 if dark else -1)
    order = np.argsort(levels, kind="stable")
    levels, light = levels[order], light[order]
    assert len(np.unique(levels)) > 10, "too few different weights to tell pictures apart"
    # Half of a step may be rounded either way; of weights farther apart the larger one is farther from the page.
    highest = np.maximum.accumulate(light)
    below = np.searchsorted(levels, levels - 3, side="right") - 1
    compared = below >= 0
    assert compared.sum() > len(levels) / 4
    assert (light[compared] > highest[below[compared]]).all(), "the picture is not that of the weights"
    top = luminance(colours[past][weights[past] > 0.99])
    assert len(top)
    assert (top > 0.5).all() if dark else (top < 0.1).all(), "a weight of 1 has not the strongest colour"


def contrasts(frame: Locator) -> list[tuple[float, str, str]]:
    """Return every text that is seen in `frame`: its contrast, its element, how it begins."""
    return [tuple(found) for found in frame.evaluate(_CONTRASTS)]
