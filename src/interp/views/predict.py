"""The picture of a prediction: the likeliest tokens with bars, under the end of the prompt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from interp.views.kit import frame
from interp.views.kit.text import escape, labels, minus, tooltip

if TYPE_CHECKING:
    from interp.methods.text.predict import PredictResult

_TAIL = 40
_WIDE = 24
_CSS = """
.interp-frame .interp-prompt{margin:0 0 10px;line-height:1.7}
.interp-frame .interp-asked{border-radius:3px;outline:1.5px solid var(--interp-accent)}
.interp-frame .interp-bars .interp-caption{grid-column:1/-1;margin:0;width:0;min-width:100%}
.interp-frame .interp-bars :not(.interp-caption)+.interp-caption{margin-top:10px}
.interp-frame .interp-bars{display:grid;grid-template-columns:max-content minmax(60px,420px) max-content max-content;
gap:4px 12px;align-items:center;max-width:100%}
.interp-frame .interp-bars .interp-code{text-align:right}
.interp-frame .interp-track{height:12px;border-radius:2px;background:var(--interp-empty)}
.interp-frame .interp-bar{display:block;height:12px;border-radius:2px;background:var(--interp-accent);min-width:1px}
.interp-frame .interp-p{text-align:right}
@media (max-width:480px){.interp-frame .interp-bars{grid-template-columns:max-content minmax(40px,1fr) max-content}
.interp-frame .interp-bars .interp-id{display:none}}
"""


def html(result: PredictResult) -> str:
    """Return the likeliest tokens, each with its probability as a bar and as a number, and its id."""
    count = len(result.tokens)
    position = getattr(result, "position", count - 1)
    names = labels([token for token, _, _ in result.top], _WIDE)
    rows = "".join(
        _row(token, name, chance, f"id {index}") for name, (token, index, chance) in zip(names, result.top, strict=True)
    )
    first = max(0, min(position, count - 1) - _TAIL + 1)
    held = labels(result.tokens[first:], _WIDE)[: 2 * _TAIL]
    spans = "".join(
        f'<span class="interp-w{" interp-asked" * (n == position)}"{tooltip(result.tokens[n], name)}>'
        f"<bdi>{escape(name)}</bdi></span><wbr>"
        for n, name in enumerate(held, first)
    )
    prompt = f'<div class="interp-prompt interp-code">{"… " if first else ""}{spans}</div>'
    covered = sum(chance for _, _, chance in result.top if math.isfinite(chance))
    foot = f"<span>these {len(result.top)} hold <b>{covered:.3f}</b> of the probability</span>"
    if math.isfinite(entropy := getattr(result, "entropy", math.nan)):
        foot += f'<span class="interp-q">entropy {entropy:.2f} nats</span>'
    asked = "after the last token" if position == count - 1 else f"at position {position}"
    foot += f'<span class="interp-far interp-q">{asked}, outlined</span>'
    facts = frame.facts(result, f"{count:,} token{'s' * (count != 1)}")
    body = f'{prompt}<div class="interp-bars">{_answer(result)}{rows}</div>'
    return frame.html("Next token", facts, body, foot=foot, notes=result.notes, css=_CSS)


def _row(token: str, name: str, chance: float, said: str) -> str:
    return (
        f'<span class="interp-code"{tooltip(token, name)}><bdi>{escape(name)}</bdi></span>'
        f'<span class="interp-track"><span class="interp-bar" style="width:{_percent(chance)}%"></span></span>'
        f'<span class="interp-p">{_number(chance)}</span><span class="interp-q interp-id">{said}</span>'
    )


def _answer(result: PredictResult) -> str:
    """Return the answer that was asked about: its probability, and its tokens, each after those before it."""
    whole = result.answer_logprob
    if whole is None:
        return ""
    each = zip(
        result.answer,
        labels(result.answer, _WIDE),
        result.answer_logprobs.tolist(),
        result.answer_ranks.tolist(),
        strict=True,
    )
    rows = "".join(_row(token, name, math.exp(logprob), f"rank {rank}") for token, name, logprob, rank in each)
    after = ", each token after those before it" * (len(result.answer) > 1)
    said = f"The answer: probability {_number(math.exp(whole))}, ln p {minus(f'{whole:.3f}')}{after}"
    return f"{_caption(said)}{rows}{_caption('The likeliest tokens')}"


def _caption(said: str) -> str:
    return f'<span class="interp-caption"><span>{said}</span></span>'


def _number(chance: float) -> str:
    """Return a probability: what four decimals cannot tell from nothing, by its size."""
    return f"{chance:.4f}" if not 0 < chance < 5e-4 else f"{chance:.1e}".replace("-", "−")


def _percent(chance: float) -> str:
    """Return the width of a bar; a chance that is not a number has none."""
    return f"{100 * min(1.0, max(0.0, chance)):.2f}" if math.isfinite(chance) else "0"
