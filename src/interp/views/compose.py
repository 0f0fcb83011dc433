"""Pictures of a ComposeResult: which layers' heads read which, and the strongest pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.spec import Node
from interp.views.kit import draw, frame, heatmap, maps, page
from interp.views.kit.draw import Drawing
from interp.views.kit.maps import Map
from interp.views.kit.page import Piece
from interp.views.kit.text import head_label, signed

if TYPE_CHECKING:
    from interp.methods.heads.compose import ComposeResult

_EACH = 40  # heads, up to which every pair is drawn; above, the strongest of every two layers
_LISTED = 10


def _facts(result: ComposeResult) -> str:
    layers, heads, *_ = next(iter(result.scores.values())).shape
    pairs = layers * (layers - 1) // 2 * heads**2
    return frame.facts(result, f"{layers} layers × {heads} heads", f"{pairs:,} pairs")


def _foot(result: ComposeResult) -> list[Piece]:
    layers, heads, *_ = next(iter(result.scores.values())).shape
    cell = "a pair of heads" if layers * heads <= _EACH else "the strongest pair of heads of two layers"
    return [(f"rows write, columns read; a cell is {cell}: ratio of norms less the baseline, red above it", "", True)]


def _groups(result: ComposeResult) -> list[tuple[str, list[Drawing]]]:
    drawn: list[Drawing] = []
    for kind in result.scores:
        if top := result.top(_LISTED, kind):
            pairs = [(f"{Node.parse(a).drawn} → {Node.parse(b).drawn}", signed(value)) for _, a, b, value in top]
            below = maps.listing(f"strongest {kind.upper()} pairs", pairs)
            drawn.append(draw.stack([(0, _map(result, kind)), (0, below)]))
    return [("composition", drawn)]


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
    first, second = (Node.parse(name).drawn for name in (a, b))
    shown = Map(
        f"{kind.upper()}-composition",
        [
            f"{first} → {second} {signed(value)}",
            f"0 is the {result.baseline:.3f} of unrelated heads",
        ],
        values,
        rows,
        names,
        end=heatmap.limit(values, 0.01),
        signed=True,
    )
    return maps.draw_map(shown, maps.side_of((len(rows), len(names)), max(3, len(result.scores))))


def _picture(result: ComposeResult) -> page.Picture:
    return page.Picture("Composition", _facts(result), [], _foot(result), result.notes, groups=_groups(result))


html, svg = page.pictures(_picture)
