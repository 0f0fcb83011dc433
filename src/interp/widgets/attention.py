"""The attention viewer: every head at once, one head in full, and the text coloured by it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import traitlets
from numpy.typing import NDArray

from interp.errors import InputError
from interp.selection import selection
from interp.views.attention import boxes, notes, svg
from interp.views.attention_reading import largest, opening, statistic
from interp.views.kit.text import labels, visible
from interp.views.kit.theme import THEMES
from interp.widgets import _encode as encode
from interp.widgets._base import Widget, asset
from interp.widgets._rpc import Handler, Reply, Request, parameters

_MODES = ("pattern", "weighted")
_FRAME = 20_000  # bytes that a message holds beside what is counted below
_LABEL, _SHOWN, _FULL = 14, 60, 100_000  # columns of a token on an axis, in the text, and where it is held


class AttentionWidget(Widget):
    """An interactive view of an `AttentionResult`.

    Parameters
    ----------
    result
        The patterns; all that is read of it are its arrays, its tokens and, on demand, `value_norms()`.

    Raises
    ------
    InputError
        A pattern whose size is not that of its tokens, layers and heads.
    """

    script = "attention"
    meta = traitlets.Dict().tag(sync=True)
    atlas = traitlets.Bytes().tag(sync=True)
    first = traitlets.Bytes().tag(sync=True)

    def __init__(self, result: Any, **traits: Any) -> None:
        self._layers: tuple[int, ...] = tuple(result.layers)
        self._heads: tuple[int, ...] = tuple(result.heads)
        self._length = len(result.tokens)
        self._causal = bool(result.causal)
        self._norms: NDArray[np.float32] | None = None
        _check_size(result)
        layer, head = self._initial(result)
        meta = _describe(result)
        opening, first = encode.head(self._matrix_of(result, layer, head), self._causal, 1.0)
        # Everything of the first paint is one message: the atlas takes what is left, the head comes along if it fits.
        taken = _FRAME + len(json.dumps(meta)) + len(asset("attention.js")) + len(asset("attention.css"))
        count = len(self._layers) * len(self._heads)
        side = encode.thumbnail_side(count, self._length, 500_000 - taken)
        fits = taken + count * side**2 + len(first) <= encode.MESSAGE
        meta |= {"side": side, "first": {**opening, "layer": layer, "head": head} if fits else None}
        self._side = side
        chosen = {"layer": layer, "head": head}
        first_paint = {"meta": meta, "atlas": encode.atlas(result.pattern, side), "first": first if fits else b""}
        super().__init__(result, selection=chosen, **{**first_paint, **traits})

    def handlers(self) -> Mapping[str, Handler]:
        """Return the viewer's requests."""
        return {
            "head": self._on_head,
            "tile": self._on_tile,
            "line": self._on_line,
            "atlas": self._on_atlas,
            "token": self._on_token,
            "picture": self._on_picture,
        }

    def questions(self) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Return every head in full, and tokens that are shown shortened."""
        for layer in self._layers:
            for head in self._heads:
                yield "head", {"layer": layer, "head": head, "mode": "pattern"}
        for position in self.meta["long"]:
            yield "token", {"position": position}

    def check_selection(self, chosen: Mapping[str, int | None]) -> None:
        """Raise InputError where `chosen` names a layer, a head or a position that this view does not hold."""
        for name, held in (("layer", self._layers), ("head", self._heads)):
            if name in chosen and chosen[name] not in held:
                raise InputError(f"no {name} {chosen[name]} in this view; it holds {', '.join(map(str, held))}")
        for name in ("query", "key", "position"):
            index = chosen.get(name)
            if index is not None and index >= self._length:
                raise InputError(f"no {name} {index} in this view; positions are 0–{self._length - 1}")

    def _initial(self, result: Any) -> tuple[int, int]:
        """Return the head to open with: the selected one, or the one that its picture shows large."""
        if selection.layer in self._layers and selection.head in self._heads:
            return selection.layer, selection.head
        layer, head = opening(result)
        return self._layers[layer], self._heads[head]

    def _index(self, layer: int, head: int) -> tuple[int, int]:
        self.check_selection({"layer": layer, "head": head})
        return self._layers.index(layer), self._heads.index(head)

    def _matrix_of(self, result: Any, layer: int, head: int) -> NDArray[np.float32]:
        row, column = self._layers.index(layer), self._heads.index(head)
        return np.asarray(result.pattern[row, column], np.float32)

    def _value_norms(self) -> NDArray[np.float32]:
        if self._norms is None:
            self._norms = np.asarray(self.result.value_norms(), np.float32)
        return self._norms

    def _matrix(self, layer: int, head: int, mode: str) -> tuple[NDArray[np.float32], float]:
        """Return a head's weights and the top of their range."""
        where = self._index(layer, head)
        matrix = self._matrix_of(self.result, layer, head)
        if mode == "pattern":
            return matrix, 1.0
        weighted = matrix * self._value_norms()[where][None, :]
        return weighted, largest(weighted)

    def _on_head(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        layer, head, mode = parameters(params, layer=int, head=int, mode=_MODES)
        matrix, scale = self._matrix(layer, head, mode)
        how, data = encode.head(matrix, self._causal, scale)
        return Reply(how, (data,))

    def _on_tile(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with the float16 square of `TILE` tokens that begins at row × `TILE`, column × `TILE`."""
        tiles = range(-(-self._length // encode.TILE))
        layer, head, mode, row, column = parameters(params, layer=int, head=int, mode=_MODES, row=tiles, column=tiles)
        matrix, scale = self._matrix(layer, head, mode)
        top, left = row * encode.TILE, column * encode.TILE
        cells = matrix[top : top + encode.TILE, left : left + encode.TILE]
        how = {"rows": cells.shape[0], "columns": cells.shape[1], "scale": scale}
        return Reply(how, (encode.half(cells.reshape(-1), scale),))

    def _on_line(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with the exact weights of one query, or onto one key, as float32."""
        given = parameters(params, layer=int, head=int, mode=_MODES, axis=("query", "key"), index=range(self._length))
        layer, head, mode, axis, index = given
        matrix, scale = self._matrix(layer, head, mode)
        line = matrix[index] if axis == "query" else matrix[:, index]
        return Reply({"scale": scale}, (line.astype("<f4").tobytes(),))

    def _on_atlas(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        (mode,) = parameters(params, mode=_MODES)
        norms = self._value_norms() if mode == "weighted" else None
        return Reply({}, (encode.atlas(self.result.pattern, self._side, norms),))

    def _on_picture(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with the static picture of what a view shows."""
        layer, head, mode, token, theme = parameters(
            params, layer=int, head=int, mode=_MODES, token=range(self._length), theme=THEMES
        )
        where = self._index(layer, head)
        norms = self._value_norms()[where] if mode == "weighted" else None
        drawn = svg(self.result, theme, head=where, token=token, norms=norms)
        if len(drawn.encode()) > encode.MESSAGE:
            raise InputError('this picture is too large for a message; .save("attention.svg") writes it')
        return Reply({"svg": drawn})

    def _on_token(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with a token in full, as far as a message can take it."""
        (position,) = parameters(params, position=range(self._length))
        return Reply({"text": visible(self.result.tokens[position], _FULL)})


def _check_size(result: Any) -> None:
    expected = (len(result.layers), len(result.heads), len(result.tokens), len(result.tokens))
    if tuple(result.pattern.shape) != expected:
        raise InputError(
            f"the pattern is {' × '.join(map(str, result.pattern.shape))}, but layers × heads × tokens × tokens are "
            f"{' × '.join(map(str, expected))}"
        )
    if 0 in expected:
        raise InputError("there is nothing to show: no layer, no head or no token")


def _describe(result: Any) -> dict[str, Any]:
    """Return the small things that the page needs at once. Tokens travel in the form they are shown in."""
    finite = np.isfinite(result.pattern).all(axis=(2, 3))
    bad = [[result.layers[row], result.heads[column]] for row, column in np.argwhere(~finite)]
    heads = {f"{layer}.{head}" for layer in result.layers for head in result.heads}
    tokens = labels(result.tokens, _SHOWN)
    full = {token: visible(token, _FULL) for token in set(result.tokens)}
    return {
        "model": visible(result.provenance.model, _SHOWN).replace("␣", " "),
        "tokens": tokens,
        "long": [n for n, token in enumerate(result.tokens) if full[token] != tokens[n]],
        "axis": _differing(labels(result.tokens, _LABEL), tokens),
        "glyphs": {str(position): visible(glyph, 8) for position, glyph in result.glyphs.items()},
        "layers": list(result.layers),
        "heads": list(result.heads),
        "causal": bool(result.causal),
        # Of the heads that there are: their classes' colours are numbered, as in the static picture.
        "labels": {
            name: visible(str(label), 40).replace("␣", " ") for name, label in result.labels.items() if name in heads
        },
        "stats": {
            name: [[statistic(name, value) for value in row] for row in values.tolist()]
            for name, values in result.stats.items()
        },
        "bad": bad,
        "notes": [visible(str(note), 300).replace("␣", " ") for note in notes(result)],
        "boxes": boxes(result),
    }


def _differing(short: list[str], full: list[str]) -> dict[str, str]:
    return {str(n): label for n, (label, token) in enumerate(zip(short, full, strict=True)) if label != token}
