"""Pictures of an AttentionResult: the page, the standalone SVG, and the figures of two other libraries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from interp.views import attention_heads, attention_reading
from interp.views.attention_exports import circuitsvis, plotly
from interp.views.kit import coloured_text, draw, frame, matrix, theme
from interp.views.kit.draw import Drawing
from interp.views.kit.text import columns, escape, glyph_groups, head_label, labels, visible
from interp.views.kit.theme import check_theme

if TYPE_CHECKING:
    from interp.methods.heads.attention import AttentionResult

__all__ = ["circuitsvis", "html", "plotly", "svg"]

_TOKEN = 40
# Where a line cannot break, in a standalone picture.
_SHORT = 20
_GLYPHS = 8
# Characters from which on the picture of an untrusted page has one theme alone: what a cell shows is one message.
_PLAIN = 150_000
_CSS = """
.interp-frame .interp-ink{color:var(--interp-fg)}
.interp-frame .interp-held{outline:1.5px solid var(--interp-accent);outline-offset:0}
.interp-frame .interp-dot{display:inline-block;width:7px;height:7px;border-radius:50%;margin:0 4px 0 10px}
@media print{.interp-frame .interp-text{max-height:none}}
"""


def html(result: AttentionResult) -> str:
    """Return the patterns as a self-contained HTML fragment: every head small, one head large, the text coloured.

    Which head is large: see `interp.views.attention_reading.opening`.

    Raises
    ------
    InputError
        The number of tokens is not the pattern's.
    """
    view = _View.of(result)
    grid, large = view.draw(theme.THEMES)
    places = boxes(result)
    dots = "".join(
        f'<span class="interp-dot" style="background:var(--interp-k{n})"></span>{escape(label)} {count}'
        for label, (n, count) in attention_heads.classes(result).items()
    )
    small = ""
    if grid is not None:
        picture = draw.inline(grid, f"{view.count} heads, {view.name} ringed")
        small = _part(places["grid"][0], "interp-caption", f"{GRID}{dots}", picture)
    called = f'<b class="interp-ink">{view.name}</b>: {view.says}'
    picture = draw.inline(large, f"attention of {view.name}")
    shown = _part(places["matrix"][0], "interp-caption interp-brief", called, picture)
    body = f'<div class="interp-columns">{small}{shown}{_text(view)}</div>'
    foot = "".join(
        f'<span class="interp-q">{escape(words)}</span>' for words in attention_reading.statistics(result, view.head)
    )
    label = f"<b>{escape(view.label)}</b>" if view.label else ""
    held = f'<span class="interp-line"><b>{view.name}</b>{label}{foot}</span>'
    if view.edge is not None:
        query, key = (_token(result, n) for n in view.edge)
        held += (
            f'<span class="interp-readout"><span class="interp-q">strongest '
            f'<span class="interp-code">{query}</span> ({view.edge[0]}) → '
            f'<span class="interp-code">{key}</span> ({view.edge[1]})'
            f"</span> &nbsp;<b>{float(view.weights[view.edge]):.3f}</b></span>"
        )
    plain = _standalone(view, grid, large, theme.AUTO)
    if len(plain) > _PLAIN:
        plain = _standalone(view, *view.draw(["light"]), "light")
    said = notes(result)
    return frame.html("Attention", _facts(result), body, foot=held, notes=said, css=_CSS, plain=plain, view="attention")


def _part(wide: int, kind: str, caption: str, picture: str) -> str:
    """Return a column, its caption and its picture as markup."""
    return (
        f'<div class="interp-part" style="--wide:{wide}px"><div class="{kind}"><span>{caption}</span></div>'
        f"{picture}</div>"
    )


def svg(
    result: AttentionResult,
    theme: str = "light",
    *,
    head: tuple[int, int] | None = None,
    token: int | None = None,
    norms: NDArray[np.float32] | None = None,
) -> str:
    """Return the same picture as a standalone SVG document in one theme.

    Parameters
    ----------
    theme
        ``"light"`` or ``"dark"``.
    head
        Indices into the pattern of the head that is large; see `interp.views.attention_reading.opening`.
    token
        The position whose weights colour the text; the last.
    norms
        ``float32 [key]``: what the large head's weights are multiplied by, such as the length of what each key writes.

    Raises
    ------
    InputError
        The number of tokens is not the pattern's, or there is no such theme.
    """
    view = _View.of(result, head, token, norms)
    return _standalone(view, *view.draw([check_theme(theme)]), theme)


def boxes(result: AttentionResult) -> dict[str, tuple[int, int, int]]:
    """Return the room of the grid of heads and of the large head, which the live view fills as the picture does.

    Each is the width of its column, which holds the caption, and the drawing's width and height, in CSS pixels.
    """
    classes = sum(columns(name) + 7 for name in attention_heads.classes(result))
    captions = {"grid": columns(GRID) + classes, "matrix": columns(_MATRIX) + 8}
    sizes = {"grid": attention_heads.size(result), "matrix": matrix.size(result.tokens)}
    return {
        name: (math.ceil(max(wide, 6.0 * captions[name])), math.ceil(wide), math.ceil(high))
        for name, (wide, high) in sizes.items()
    }


@dataclass(frozen=True)
class _View:
    """What of a result is large: a head, its weights ``float32 [query, key]`` of 0 … `top`, and a token."""

    result: AttentionResult
    head: tuple[int, int]
    token: int
    weights: NDArray[np.float32]
    top: float
    says: str

    @classmethod
    def of(
        cls,
        result: AttentionResult,
        head: tuple[int, int] | None = None,
        token: int | None = None,
        norms: NDArray[np.float32] | None = None,
    ) -> _View:
        head = head or attention_reading.opening(result)
        count = len(result.tokens)
        block = math.ceil(count / matrix.scale(count)[1])
        pooled = f"rows attend to columns, largest of each {block} × {block}, {theme.LIFT}"
        weights, top, says = result.pattern[head], 1.0, pooled if block > 1 else _MATRIX
        if norms is not None:
            weights = weights * norms[None, :]
            top = attention_reading.largest(weights)
            says = f"attention × value norm, scale to {top:.3g}, {theme.LIFT}"
        return cls(result, head, len(result.tokens) - 1 if token is None else token, weights, top, says)

    @property
    def count(self) -> int:
        return self.result.pattern.shape[0] * self.result.pattern.shape[1]

    @property
    def name(self) -> str:
        return head_label(self.result.layers[self.head[0]], self.result.heads[self.head[1]])

    @property
    def label(self) -> str:
        return self.result.labels.get(f"{self.result.layers[self.head[0]]}.{self.result.heads[self.head[1]]}", "")

    @cached_property
    def edge(self) -> tuple[int, int] | None:
        return attention_reading.strongest(self.weights)

    @property
    def row(self) -> NDArray[np.float32]:
        return self.weights[self.token]

    def draw(self, themes: Sequence[str]) -> tuple[Drawing | None, Drawing]:
        """Return the grid of all heads, where there are several, and the large one."""
        result = self.result
        large = matrix.matrix(self.weights / self.top, result.tokens, themes, causal=result.causal, edge=self.edge)
        return attention_heads.grid(result, self.head, themes) if self.count > 1 else None, large


def _standalone(view: _View, grid: Drawing | None, large: Drawing, which: str) -> str:
    result = view.result
    body: list[str] = []
    x = 0.0
    height = large.height
    if grid is not None:
        body += [_caption(0, GRID, _legend(result)), draw.group(grid, 0, 16)]
        x = (
            max(
                grid.width,
                6.0 * (columns(GRID) + sum(columns(label) + 7 for label in attention_heads.classes(result))),
            )
            + 20
        )
        height = max(height, grid.height)
    body += [_caption(x, view.name, f'<tspan class="interp-q">: {view.says}</tspan>'), draw.group(large, x, 16)]
    width = max(x + large.width, 560)
    drawn, tall = _lines(view, width)
    body.append(f'<g transform="translate(0 {draw.number(height + 34)})">{drawn}</g>')
    foot = [
        f'<tspan class="interp-b">{view.name}</tspan>'
        + (f'<tspan dx="6">{escape(view.label)}</tspan>' if view.label else "")
        + "".join(
            f'<tspan class="interp-q" dx="14">{escape(words)}</tspan>'
            for words in attention_reading.statistics(result, view.head)
        )
    ]
    if view.edge is not None:
        query, key = (draw.token(labels([result.tokens[n]], _SHORT)[0]) for n in view.edge)
        foot.append(
            f'<tspan class="interp-q">strongest </tspan><tspan class="interp-c">{query}</tspan>'
            f'<tspan class="interp-q"> ({view.edge[0]}) → </tspan><tspan class="interp-c">{key}</tspan>'
            f'<tspan class="interp-q"> ({view.edge[1]})</tspan>'
            f'<tspan class="interp-b" dx="6">{float(view.weights[view.edge]):.3f}</tspan>'
        )
    foot += [f'<tspan class="interp-q">{escape(frame.visible_facts(note, 150))}</tspan>' for note in notes(result)]
    return frame.svg("Attention", _facts(result), "".join(body), (width, height + 34 + tall), which, foot)


GRID = "Heads: a row per layer"
_MATRIX = f"rows attend to columns, {theme.LIFT}"


def _facts(result: AttentionResult) -> str:
    layers, count, length, _ = result.pattern.shape
    which = f"layer {result.layers[0]}" if layers == 1 else f"{layers} layers"
    whose = f"head {result.heads[0]}" if count == 1 else f"{count} heads"
    return frame.facts(result, f"{length} token{'s' * (length != 1)}", f"{which} × {whose}")


def notes(result: AttentionResult) -> list[str]:
    """Return what is to be known before the picture is believed."""
    return [*attention_reading.remarks(result), *_glyphs(result)]


def _glyphs(result: AttentionResult) -> list[str]:
    groups = glyph_groups(result.glyphs, len(result.tokens))
    named = [f"{visible(glyph, _SHORT)} from position {start}" for start, glyph in groups[:_GLYPHS]]
    more = f" and {len(groups) - _GLYPHS} more" if len(groups) > _GLYPHS else ""
    return [f"characters split into several tokens: {', '.join(named)}{more}"] if named else []


def _token(result: AttentionResult, position: int) -> str:
    return escape(labels([result.tokens[position]], _TOKEN)[0])


def _text(view: _View) -> str:
    """Return the prompt, each token coloured by what the held one gives it."""
    result, row, held = view.result, view.row, view.token
    names = labels(result.tokens, _TOKEN)
    seen = ", ".join(
        f'<span class="interp-code">{escape(names[n])}</span> ({n}) {attention_reading.weight(weight)}'
        for n, weight in attention_reading.most(row)
    )
    values = (row / view.top).tolist()
    return (
        '<div class="interp-wide"><div class="interp-caption interp-brief"><span>'
        f'Text: what <b class="interp-code">{escape(names[held])}</b>'
        f" ({held}) looks at{f': {seen}' if seen else ''}</span></div>"
        f"{coloured_text.spans(result.tokens, values, ring=held)}</div>"
    )


def _caption(x: float, lead: str, rest: str) -> str:
    kind = "interp-q" if lead == GRID else "interp-b"
    return (
        f'<text class="interp-f" x="{draw.number(x)}" y="8"><tspan class="{kind}">{escape(lead)}</tspan>{rest}</text>'
    )


def _legend(result: AttentionResult) -> str:
    return "".join(
        f'<tspan dx="10" style="fill:var(--interp-k{n})">●</tspan>'
        f'<tspan class="interp-q" dx="4">{escape(label)} {count}</tspan>'
        for label, (n, count) in attention_heads.classes(result).items()
    )


def _lines(view: _View, width: float) -> tuple[str, float]:
    """Return the coloured text for a standalone picture, broken into lines, and its height."""
    result, row, held = view.result, view.row, view.token
    advance = 12 * draw.ADVANCE
    brief = labels(result.tokens, _SHORT)
    lead = (
        f'<tspan class="interp-c">{draw.token(brief[held])}</tspan><tspan class="interp-q"> ({held}) looks at</tspan>'
    )
    parts = [f'<text class="interp-f" x="0" y="0"><tspan class="interp-q">Text: what </tspan>{lead}']
    used = 22 + columns(brief[held])
    for n, (key, weight) in enumerate(attention_reading.most(row)):
        used += columns(brief[key]) + 14
        if used * advance > width:
            break
        parts.append(
            f'<tspan class="interp-q">{", " if n else ": "}</tspan>'
            f'<tspan class="interp-c">{draw.token(brief[key])}</tspan>'
            f'<tspan class="interp-q"> ({key}) {attention_reading.weight(weight)}</tspan>'
        )
    parts.append("</text>")
    drawn = coloured_text.text(result.tokens, (row / view.top).tolist(), width, ring=held)
    return "".join([*parts, draw.group(drawn, 0, 10)]), drawn.height + 12
