"""Pictures of a ComposeResult: which layers' heads read which, and the strongest pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.views import diverging, frame, maps
from interp.views.diverging import signed
from interp.views.draw import Drawing
from interp.views.maps import Map
from interp.views.text import escape, head_label

if TYPE_CHECKING:
    from interp.methods.compose import ComposeResult

_EACH = 40  # heads, up to which every pair is drawn; above, the strongest of every two layers
_LISTED = 10


def html(result: ComposeResult) -> str:
    """Return a map for each kind, and the strongest pairs below it.

    Examples
    --------
    >>> html(result)[:26]  # doctest: +SKIP
    '<div class="interp-frame">'
    """
    foot = f'<span class="interp-q">{escape(_foot(result))}</span>'
    body = maps.page(_groups(result))
    return frame.html("Composition", _facts(result), body, foot=foot, notes=result.notes, css=maps.CSS)


def svg(result: ComposeResult, theme: str = "light") -> str:
    """Return the same as a standalone SVG document.

    Examples
    --------
    >>> svg(result)[:4]  # doctest: +SKIP
    '<svg'
    """
    lines = [_foot(result), *result.notes]
    body = maps.still(_groups(result), lines)
    foot = [f'<tspan class="interp-q">{escape(line)}</tspan>' for line in lines]
    return frame.svg("Composition", _facts(result), body.body, (body.width, body.height), theme, foot)


def _facts(result: ComposeResult) -> str:
    layers, heads, *_ = next(iter(result.scores.values())).shape
    pairs = layers * (layers - 1) // 2 * heads**2
    return frame.facts(result, f"{layers} layers × {heads} heads", f"{pairs:,} pairs")


def _foot(result: ComposeResult) -> str:
    layers, heads, *_ = next(iter(result.scores.values())).shape
    cell = "a pair of heads" if layers * heads <= _EACH else "the strongest pair of heads of two layers"
    return f"rows write, columns read; a cell is {cell}: ratio of norms less the baseline, red above it"


def _groups(result: ComposeResult) -> list[tuple[str, list[Drawing]]]:
    drawn = [_map(result, kind) for kind in result.scores if result.top(1, kind)]
    lists = [
        maps.listing(
            f"strongest {kind.upper()} pairs",
            [(f"{_head(a)} → {_head(b)}", signed(value)) for _, a, b, value in result.top(_LISTED, kind)],
        )
        for kind in result.scores
        if result.top(1, kind)
    ]
    wide = max((part.width for part in [*drawn, *lists]), default=0.0)
    even = [[Drawing(wide, part.height, part.body) for part in parts] for parts in (drawn, lists)]
    return [("composition", even[0]), ("strongest pairs", even[1])]


def _map(result: ComposeResult, kind: str) -> Drawing:
    scores = result.scores[kind]
    layers, heads, *_ = scores.shape
    # The last layer writes for none, and the first reads from none.
    held = scores[:-1, :, 1:]
    if layers * heads <= _EACH:
        values: NDArray[np.float64] = held.reshape((layers - 1) * heads, (layers - 1) * heads)
        rows = [head_label(layer, head) for layer in range(layers - 1) for head in range(heads)]
        names = [f"{layer}.{head}" for layer in range(1, layers) for head in range(heads)]
    else:
        values = np.where(np.isfinite(held), held, -np.inf).max((1, 3))
        values = np.where(np.isfinite(values), values, np.nan)
        rows, names = [f"L{n}" for n in range(layers - 1)], [str(n) for n in range(1, layers)]
    _, a, b, value = result.top(1, kind)[0]
    shown = Map(
        f"{kind.upper()}-composition",
        [f"{_head(a)} → {_head(b)} {signed(value)}", f"0 is the {result.baseline:.3f} of unrelated heads"],
        values,
        rows,
        names,
        end=diverging.limit(values, 0.01),
        signed=True,
    )
    return maps.draw_map(shown, maps.side_of((len(rows), len(names)), max(3, len(result.scores))))


def _head(name: str) -> str:
    layer, _, head = name.partition(".")
    return head_label(int(layer), int(head))
