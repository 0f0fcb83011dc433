"""The page of a traced text: its tokens, and under them what the chosen one was written from."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import numpy as np

from interp.views import generate
from interp.views.kit import coloured_text, frame, heatmap, page
from interp.views.kit.text import escape, labels, signed, tooltip, visible

if TYPE_CHECKING:
    from interp.methods._shared.generate_trace_result import GenerateTraceResult

_MOST = 200  # new tokens that have a card
_NAMED, _LISTED = 24, 8
_TITLE = "Generated text, traced"
# The choice is a radio button inside of the page: it needs no script, and the arrow keys move it.
_CSS = """
.interp-frame .interp-traced{position:relative;min-width:0;width:100%}
.interp-frame .interp-traced .interp-text{max-height:180px}
.interp-frame .interp-traced label{cursor:pointer}
.interp-frame .interp-pick{position:absolute;opacity:0;width:1px;height:1px;margin:0;pointer-events:none}
.interp-frame .interp-card-of{display:none;border-top:1px solid var(--interp-line);padding-top:10px}
.interp-frame .interp-pick:checked+.interp-card-of{display:block}
.interp-frame .interp-pick:focus-visible+.interp-card-of .interp-chosen{outline:2px solid var(--interp-accent)}
.interp-frame .interp-parts{display:grid;grid-template-columns:repeat(auto-fit,minmax(250px,1fr));gap:12px 32px;
margin-top:8px}
.interp-frame .interp-rows{display:grid;gap:2px 12px;align-items:baseline;font-variant-numeric:tabular-nums;
max-height:250px;overflow:auto;justify-content:start}
.interp-frame .interp-rows .interp-n{text-align:right}
.interp-frame .interp-lens-rows{grid-template-columns:max-content max-content max-content max-content}
.interp-frame .interp-look-rows{grid-template-columns:max-content max-content max-content max-content}
.interp-frame .interp-feature-rows{grid-template-columns:max-content max-content minmax(0,1fr)}
"""


def _panel(result: GenerateTraceResult) -> str:
    """Return the tokens and a card for each new one, of which the chosen one is shown."""
    new = min(_MOST, len(result.ids))
    if not new:
        return ""
    here = f"i{secrets.token_hex(4)}"  # a page can hold several of these
    chances = np.exp(result.logprobs)
    first = int(np.argmin(result.logprobs[:new]))
    before = result.tokens[-generate.TAIL :]
    cut = "… " if len(before) < len(result.tokens) else ""
    old = "".join(
        f'<span class="interp-w interp-q"><bdi>{escape(name)}</bdi></span><wbr>' for name in labels(before, 40)
    )
    written: list[str] = []
    for n, (token, name) in enumerate(zip(result.generated, labels(result.generated, 40), strict=True)):
        fills, ink = heatmap.fills(float(chances[n]), signed=False)
        style = f' style="background:{fills[0][0]};color:{ink}"' if fills else ""
        inside = f'<span class="interp-w"{style}{tooltip(token, name)}><bdi>{escape(name)}</bdi></span>'
        written.append(f'<label for="{here}-{n}">{inside}</label><wbr>' if n < new else inside)
        if token.endswith("\n") and n < len(result.generated) - 1:
            written.append("<br>")
    marks = "".join(
        f".interp-frame .interp-traced:has(#{here}-{n}:checked) [for={here}-{n}] .interp-w"
        "{outline:1.5px solid var(--interp-accent)}"
        for n in range(new)
    )
    cards = "".join(
        f'<input class="interp-pick" type="radio" name="{here}" id="{here}-{n}"{" checked" * (n == first)} '
        f'aria-label="{escape(visible(result.generated[n]))}"><div class="interp-card-of">{_card(result, n)}</div>'
        for n in range(new)
    )
    return (
        f'<div class="interp-traced"><style>{marks.replace(".interp-frame", "div.interp-frame")}</style>'
        f'<div class="interp-q">A new token\'s colour is its probability^0.6; choose one: what it was written from'
        f'</div><div class="interp-text interp-code">{cut}{old}{"".join(written)}</div>{cards}</div>'
    )


def _card(result: GenerateTraceResult, n: int) -> str:
    chance, position = float(np.exp(result.logprobs[n])), len(result.tokens) + n
    name = visible(result.generated[n], _NAMED)
    settled = int(result.settled[n])
    facts = [f"position {position}", f"probability {chance:.4f}"]
    facts.append(f"the lens reads it from layer {settled} on" if settled >= 0 else "the lens reads another to the end")
    head = (
        f'<div><b class="interp-code interp-chosen">{escape(name)}</b> <span class="interp-q">'
        f"{escape(' · '.join(facts))}</span></div>"
    )
    parts = [("The lens: likeliest token, its probability, this one's", _lens(result, n))]
    if result.attention_layers:
        parts.append(
            (
                f"Looked at from position {position - 1}: mean of all heads, and the head that looks most",
                _looked(result, n),
            )
        )
    if result.features:
        parts.append((f"Features of {frame.visible_facts(result.features, 40)}", _features(result, n)))
    if len(result.projection_layers):
        said = f"Along {frame.visible_facts(result.direction, 40)}, by layer ({result.projection_site})"
        parts.append((said, _projection(result, n)))
    body = "".join(f'<div><div class="interp-q">{escape(said)}</div>{rows}</div>' for said, rows in parts)
    return f'{head}<div class="interp-parts">{body}</div>'


def _rows(kind: str, cells: list[str]) -> str:
    return f'<div class="interp-rows interp-{kind}-rows">{"".join(cells)}</div>'


def _token(token: str) -> str:
    name = visible(token, _NAMED)
    return f'<span class="interp-code"{tooltip(token, name)}><bdi>{escape(name)}</bdi></span>'


def _lens(result: GenerateTraceResult, n: int) -> str:
    """Return the lens' column: layers that follow each other and read the same token are one row, the last one's."""
    ids, cells = result.lens_ids[:, n], list[str]()
    starts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist()]
    for start, stop in zip(starts, [*starts[1:], len(ids)], strict=True):
        last = stop - 1
        named = f"L{result.layers[start]}" + (f"–{result.layers[last]}" if last > start else "")
        own = float(np.exp(result.written_logprobs[last, n]))
        cells += [
            f'<span class="interp-q">{named}</span>{_token(result.lens_names[int(ids[last])])}',
            f'<span class="interp-n">{float(result.lens_probabilities[last, n]):.3f}</span>'
            f'<span class="interp-n interp-q">{own:.3f}</span>',
        ]
    return _rows("lens", cells)


def _looked(result: GenerateTraceResult, n: int) -> str:
    tokens = (*result.tokens, *result.generated)
    cells = [
        f'{_token(tokens[place])}<span class="interp-q">{place}</span><span class="interp-n">{mean:.3f}</span>'
        f'<span class="interp-q">{f"{head} {most:.2f}" if head else ""}</span>'
        for place, mean, head, most in result.looked_at(n, _LISTED)
    ]
    return _rows("look", cells)


def _features(result: GenerateTraceResult, n: int) -> str:
    active = result.features_of(n)
    cells = [
        f'<span class="interp-code">{escape(name)}</span><span class="interp-n">{value:.3g}</span>'
        f'<span class="interp-q">{escape(visible(result.labels.get(name, ""), 60).replace("␣", " "))}</span>'
        for name, value in active[:_LISTED]
    ]
    more = f'<div class="interp-q">and {len(active) - _LISTED} more</div>' if len(active) > _LISTED else ""
    return (_rows("feature", cells) if cells else '<div class="interp-q">none is active</div>') + more


def _projection(result: GenerateTraceResult, n: int) -> str:
    names = [f"L{layer}" for layer in result.projection_layers]
    values = result.projection[:, n].astype(np.float64)
    return coloured_text.numbered(names, values, heatmap.limit(result.projection, 0.01))


def _foot(result: GenerateTraceResult) -> list[page.Piece]:
    pieces = generate.foot(result)
    if len(result.ids) > _MOST:
        pieces.append((f"the first {_MOST} new tokens can be chosen; all are in its arrays", "", True))
    if len(result.projection_layers) and result.projection.size:
        layer, n = (int(i) for i in np.unravel_index(int(np.abs(result.projection).argmax()), result.projection.shape))
        where = f"furthest along the direction: {visible(result.generated[n], 20)} in layer "
        pieces.append((f"{where}{result.projection_layers[layer]} ", signed(float(result.projection[layer, n])), True))
    return pieces


def html(result: GenerateTraceResult) -> str:
    """Return the page: the text, and the card of the token that is chosen, the least likely one at first."""
    panel = _panel(result)
    stacks = [] if panel else [generate.stack(result, on_page=True)]
    return page.html(
        page.Picture(_TITLE, generate.facts(result), stacks, _foot(result), result.notes, columns=panel, css=_CSS)
    )
