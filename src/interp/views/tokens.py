"""The picture of a prompt's tokens: a chip for each, its position and id below, its span above."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.chats import TEMPLATE
from interp.views.kit import frame
from interp.views.kit.text import escape, labels, tooltip

if TYPE_CHECKING:
    from interp.methods.text.tokens import TokensResult

_MOST = 2000
_WIDE = 40
_CSS = """
.interp-frame .interp-chips{display:flex;flex-wrap:wrap;gap:8px 3px;max-height:420px;overflow:auto}
.interp-frame .interp-chip{display:flex;flex-direction:column;align-items:flex-start;max-width:100%}
.interp-frame .interp-chip b{font-weight:400;font-size:13px;border-radius:4px;padding:2px 5px;max-width:100%;
background:var(--interp-empty);box-shadow:inset 0 0 0 1px var(--interp-line);min-width:100%;text-align:left}
.interp-frame .interp-chip:nth-child(even) b{background:var(--interp-tint)}
.interp-frame .interp-chip.interp-around b{background:none;color:var(--interp-muted)}
.interp-frame .interp-chip i{font-style:normal;font-size:11px;line-height:1.3;min-height:14px;min-width:100%;
box-sizing:border-box;margin-bottom:3px;padding:0 5px;white-space:nowrap;border-bottom:1px solid transparent}
.interp-frame .interp-chip i.interp-within{border-color:var(--interp-muted)}
.interp-frame .interp-chip small{font-size:10px;line-height:1.35;color:var(--interp-muted);padding:0 5px;
white-space:nowrap}
@media print{.interp-frame .interp-chips{max-height:none}}
"""


def html(result: TokensResult) -> str:
    """Return the tokens as chips that wrap at any width, with the glyph that partial bytes make together below them."""
    count = len(result.tokens)
    names = labels(result.tokens[:_MOST], _WIDE)
    chips: list[str] = []
    owners = result.owners
    for n, (token, name) in enumerate(zip(result.tokens[:_MOST], names, strict=True)):
        glyph = f" → <bdi>{escape(result.glyphs[n])}</bdi>" if n in result.glyphs else ""
        around = " interp-around" * (owners[n] == TEMPLATE)
        chips.append(
            f'<span class="interp-chip{around}"{tooltip(token, name)}>{_span(owners, n) if result.spans else ""}'
            f'<b class="interp-code"><bdi>{escape(name)}</bdi></b>'
            f"<small>{n}{glyph}</small><small>id {result.ids[n]}</small></span>"
        )
    pale = "pale: the chat template's own tokens. " if TEMPLATE in result.spans else ""
    foot = (
        f'<span class="interp-q">{pale}below each token: its position, then its id. '
        "␣ space · ↵ newline · ⇥ tab · ⟨U+…⟩ a character that cannot be seen</span>"
    )
    notes = [f"… {count - _MOST:,} more tokens"] if count > _MOST else []
    body = f'<div class="interp-chips">{"".join(chips)}</div>'
    facts = frame.facts(result, f"{count:,} token{'s' * (count != 1)}")
    return frame.html("Tokens", facts, body, foot=foot, notes=[*notes, *result.notes], css=_CSS)


def _span(owners: Sequence[str], n: int) -> str:
    """Return the line above a token that is in a span, with the span's name where that begins."""
    if owners[n] in {"", TEMPLATE}:
        return "<i></i>"
    begins = n == 0 or owners[n - 1] != owners[n]
    return f'<i class="interp-within">{escape(owners[n]) if begins else ""}</i>'
