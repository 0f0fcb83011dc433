"""The spans of a PatchingResult's first pair: both prompts, one above the other, what belongs together joined.

The template of a chat stands around all the rest: it is not joined. A turn of which marks leave several pieces is
joined at the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.chats import ROLES, TEMPLATE
from interp.views.kit import draw
from interp.views.kit.draw import Drawing
from interp.views.kit.text import columns, labels
from interp.views.patching_view import PatchingView

_TOKEN = 12
_NEAR, _LONG, _ENDS = 2, 6, 2  # tokens around a span; a span's from which on only its ends are shown
_SIZE, _SPACE, _LEFT = 10, 5.0, 62.0
_TOP, _NAME, _BOTTOM, _HEIGHT = 10.0, 38.0, 66.0, 72.0
_LINE = "fill:none;stroke:var(--interp-muted);stroke-width:1"


@dataclass(frozen=True)
class _Row:
    """One prompt: its markup, where each span begins and ends, and how wide it is."""

    body: str
    spans: dict[str, list[tuple[float, float]]]
    width: float


def drawn(view: PatchingView) -> list[tuple[str, Drawing]]:
    """Return the alignment with its caption; nothing where no spans were patched."""
    checks = view.result.checks
    if not checks.spans or "span" not in view.result.axes:
        return []
    spans = {name: places for name, places in checks.spans[0].items() if name != TEMPLATE}
    alone = bool(view.source)  # another model's run on the same prompt
    prompts = [checks.clean[0]] if alone else [checks.clean[0], checks.corrupted[0]]
    rows = [
        _row(tokens, {name: span[side] for name, span in spans.items()}, y)
        for side, (tokens, y) in enumerate(zip(prompts, (_TOP, _BOTTOM), strict=False))
    ]
    body = [row.body for row in rows]
    for word, y in zip(("clean",) if alone else ("clean", "corrupted"), (_TOP, _BOTTOM), strict=False):
        body.append(draw.text(0, y, word))
    right = 0.0
    anchors = {name: sum(sum(_joined(name, row)[0]) / 2 for row in rows) / len(rows) for name in spans}
    for name in sorted(anchors, key=lambda one: anchors[one]):
        at = max(anchors[name], right + 3.2 * columns(name))
        right = at + 3.2 * columns(name) + _SPACE
        body.append(draw.text(at, _NAME + 3.5, name, "t", "middle"))
        for row, edge, way in zip(rows, (_TOP + 5, _BOTTOM - 12), (1, -1), strict=False):
            for start, stop in row.spans[name]:
                middle, near = (start + stop) / 2, edge + 4 * way
                path = (
                    f"M{draw.number(start)} {draw.number(edge)}V{draw.number(near)}H{draw.number(stop)}"
                    f"V{draw.number(edge)}"
                )
                if (start, stop) in _joined(name, row):
                    path += (
                        f"M{draw.number(middle)} {draw.number(near)}L{draw.number(at)} {draw.number(_NAME - 7 * way)}"
                    )
                body.append(f'<path style="{_LINE}" d="{path}"/>')
    whose = " of pair 1" if len(view.result.per_pair) > 1 else ""
    wide = max([right, *(row.width for row in rows)])
    return [(f"Spans{whose}", Drawing(wide, _NAME + 8 if alone else _HEIGHT, "".join(body)))]


def _joined(name: str, row: _Row) -> list[tuple[float, float]]:
    """Return those pieces of a span that are joined with the other prompt's."""
    pieces = row.spans[name]
    turn = name.rstrip("0123456789") in ROLES
    return [max(pieces, key=lambda piece: piece[1] - piece[0])] if turn else pieces


def _row(tokens: Sequence[str], spans: dict[str, tuple[int, ...]], y: float) -> _Row:
    owner = {position: name for name, places in spans.items() for position in places}
    shown = _shown(len(tokens), spans)
    names = dict(zip(shown, labels([tokens[n] for n in shown], _TOKEN), strict=True))
    advance, x, last = _SIZE * draw.ADVANCE, _LEFT, -1
    body: list[str] = []
    found: dict[str, list[tuple[float, float]]] = {}
    for n in shown:
        if n != last + 1:
            x += _SPACE
            body.append(draw.text(x, y, "…", "m", more=' style="fill:var(--interp-muted)"'))
            x += advance
        label = names[n].removeprefix("␣")
        # Pieces of a word stand together.
        x += _SPACE if label != names[n] or n != last + 1 or not body else 0.0
        wide = columns(label) * advance
        body.append(draw.text(x, y, label, "m"))
        name = owner.get(n)
        if name is not None:
            pieces = found.setdefault(name, [])
            # One bracket over neighbours, and over what is left out between them.
            if pieces and all(owner.get(k) == name for k in range(last, n)):
                pieces[-1] = (pieces[-1][0], x + wide)
            else:
                pieces.append((x, x + wide))
        x += wide
        last = n
    return _Row("".join(body), found, x)


def _shown(count: int, spans: dict[str, tuple[int, ...]]) -> list[int]:
    """Return the positions that are shown: each span or its ends, and what is around it."""
    held: set[int] = set()
    for places in spans.values():
        own = places if len(places) <= _LONG else (*places[:_ENDS], *places[-_ENDS:])
        held.update(own)
        held.update(n + k for n in (places[0], places[-1]) for k in (-_NEAR, -1, 1, _NEAR))
    within = {n for places in spans.values() if len(places) > _LONG for n in places[_ENDS:-_ENDS]}
    return sorted(n for n in held - within if 0 <= n < count)
