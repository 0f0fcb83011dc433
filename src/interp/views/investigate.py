"""The page of an InvestigateResult: the account beside its controls, the twin's rivals, and every step, folded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from interp.spec import Node
from interp.views.kit import frame
from interp.views.kit.text import columns, escape, labels, minus, tooltip

if TYPE_CHECKING:
    from interp.methods._shared.investigation.result import InvestigateResult, Sentence

_TITLE = "Investigation"
_PARTS = {
    "prediction": "What it says",
    "twin": "What turns it",
    "heads": "Heads",
    "MLPs": "MLPs",
    "readout": "Lens",
    "circuit": "Circuit",
}
_NAMED = 6  # components in the sentence on top
_RIVALS = 6  # exchanges that are listed
_WIDE, _HIGH = 180, 18  # a strip
_TAIL = 60  # tokens of a prompt that are shown
_CSS = """
.interp-frame .interp-i-pair{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 12px;
margin-bottom:12px}
.interp-frame .interp-i-pair .interp-code{line-height:1.7}
.interp-frame .interp-i-differs{border-bottom:2px solid var(--interp-accent);font-weight:600}
.interp-frame .interp-i-said{margin:0 0 10px;font-size:13px;line-height:20px}
.interp-frame .interp-i-part-name{margin:14px 0 2px;padding-top:8px;border-top:1px solid var(--interp-line);
font-weight:600}
.interp-frame .interp-i-of{margin:8px 0 0;color:var(--interp-muted)}
.interp-frame .interp-i-sentence{display:grid;grid-template-columns:14px minmax(0,1fr) 50px 180px;gap:0 12px;
align-items:start;padding:3px 0}
.interp-frame .interp-i-sentence.interp-i-not{color:var(--interp-muted)}
.interp-frame .interp-i-mark{font-weight:700;color:var(--interp-accent)}
.interp-frame .interp-i-not .interp-i-mark{color:var(--interp-muted)}
.interp-frame .interp-i-words{max-width:112ch;overflow-wrap:anywhere}
.interp-frame .interp-i-value{text-align:right;font-weight:600}
.interp-frame .interp-i-step{color:var(--interp-muted);white-space:nowrap}
.interp-frame .interp-i-strip{display:block;width:180px;height:18px;overflow:visible}
.interp-frame table.interp-i-rivals{border-collapse:collapse;border:0;margin:2px 0 4px 24px;width:auto;font-size:12px;
display:table}
.interp-frame table.interp-i-rivals tr:nth-child(n){background:none;border:0}
.interp-frame .interp-i-rivals td,.interp-frame .interp-i-rivals th{padding:1px 14px 1px 0;text-align:left;
font-weight:400;border:0;background:none}
.interp-frame .interp-i-rivals th{color:var(--interp-muted)}
.interp-frame .interp-i-rivals .interp-i-n{text-align:right}
.interp-frame details{border-top:1px solid var(--interp-line);padding:5px 0}
.interp-frame summary{display:flex;flex-wrap:wrap;gap:0 12px;cursor:pointer;list-style:none}
.interp-frame summary::-webkit-details-marker{display:none}
.interp-frame summary::before{content:"▸";width:8px;color:var(--interp-muted)}
.interp-frame details[open]>summary::before{content:"▾"}
.interp-frame summary:focus-visible{outline:1.5px solid var(--interp-accent)}
.interp-frame .interp-i-name{font-weight:600;min-width:72px}
.interp-frame .interp-i-cell{margin:6px 0 8px 20px;padding:6px 8px;border:1px solid var(--interp-line);
border-radius:4px}
.interp-frame .interp-i-line1{flex:1 1 260px;min-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
@media (max-width:760px){.interp-frame .interp-i-sentence{grid-template-columns:14px 50px minmax(0,1fr)}
.interp-frame .interp-i-sentence>.interp-i-words{grid-column:2/-1}
.interp-frame .interp-i-sentence>.interp-i-value{grid-column:2;text-align:left}}
@media print{.interp-frame details>*{display:block}}
"""


def html(result: InvestigateResult) -> str:
    """Return the account with its numbers, then every step with the cell that makes it and its own picture."""
    count = len(result.account)
    sure = sum(one.established for one in result.account)
    facts = frame.facts(
        result,
        frame.visible_facts(result.task, 40) if result.task else "",
        f"n = {result.pairs}" + (", no intervals" if result.pairs == 1 else ""),
    )
    foot = (
        f"<span><b>{sure}</b> of {count} sentences established</span>"
        '<span class="interp-q">● above its controls, ○ not established; strips: the number, its interval over pairs, '
        "and the controls as ticks</span>"
    )
    body = [_pair(result), _verdict(result), *_account(result), _steps(result)]
    return frame.html(_TITLE, facts, "".join(body), foot=foot, notes=result.notes, css=_CSS)


def _pair(result: InvestigateResult) -> str:
    """Return the first prompt and its twin, what differs underlined."""
    if not result.tokens:
        return ""
    same = len(result.twin) == len(result.tokens)
    differs = {n for n, (a, b) in enumerate(zip(result.tokens, result.twin, strict=False)) if same and a != b}
    rows = [("prompt", result.tokens)] + ([("twin", result.twin)] if result.twin else [])
    several = f' <span class="interp-q">(the first of {result.pairs})</span>' if result.pairs > 1 else ""
    return (
        '<div class="interp-i-pair">'
        + "".join(
            f'<span class="interp-q">{name}</span><span class="interp-code">{_tokens(tokens, differs)}'
            f"{several if name == 'prompt' else ''}</span>"
            for name, tokens in rows
        )
        + "</div>"
    )


def _tokens(tokens: tuple[str, ...], differs: set[int]) -> str:
    first = max(0, len(tokens) - _TAIL)
    names = labels(tokens[first:], 24)
    return ("… " if first else "") + "".join(
        f'<span class="interp-w{" interp-i-differs" * (n in differs)}"{tooltip(tokens[n], name)}>'
        f"<bdi>{escape(name)}</bdi></span><wbr>"
        for n, name in enumerate(names, first)
    )


def _verdict(result: InvestigateResult) -> str:
    """Return what is found, in one sentence."""
    if not result.account:
        said = "Nothing is computed yet."
    elif not result.solved:
        said = "The model does not solve this: nothing more is established."
    else:
        first: dict[str, Sentence] = {}
        for one in result.account:
            if one.about and one.established and one.step in {"heads", "MLPs"}:
                first.setdefault(one.about, one)
        sides = [[one for one in first.values() if (one.value > 0) == side] for side in (True, False)]
        toward, against = (
            ", ".join(f"{Node.parse(one.about).drawn} {one.value:.2f}" for one in side[:_NAMED]) for side in sides
        )
        held = next((one for one in result.account if one.step == "validate"), None)
        words = [
            f"each alone recovers, of the difference: {toward}" if toward else "no component stands out for it",
            f"against it: {against}" if against else "",
            f"the circuit does it to {held.value:.2f}" if held is not None and held.established else "",
        ]
        said = "; ".join(filter(None, words))
        said = f"{said[0].upper()}{said[1:]}."
    return f'<div class="interp-i-said">{escape(minus(said))}</div>'


def _account(result: InvestigateResult) -> Iterator[str]:
    """Yield the sentences, those of a part together, and under the twin what else was tried."""
    ends: dict[str, tuple[float, float]] = {}
    for one in result.account:
        low, high = ends.get(one.step, (0.0, 0.0))
        numbers = _numbers(one)
        ends[one.step] = min(low, *numbers), max(high, *numbers)
    for part, sentences in groupby(result.account, key=lambda one: one.part):
        yield f'<div class="interp-i-part-name">{escape(_PARTS.get(part, part))}</div>'
        about = ""
        for one in sentences:
            if part == "heads" and one.about != about:
                about = one.about
                yield f'<div class="interp-i-of">{escape(Node.parse(about).drawn)}</div>'
            yield _sentence(one, ends[one.step])
        if part == "twin" and len(result.candidates) > 1:
            yield _rivals(result)


def _numbers(one: Sentence) -> list[float]:
    """Return all of a sentence's numbers that there are."""
    every = [one.value, one.low, one.high, *(value for _, value in one.controls)]
    return [value for value in every if math.isfinite(value)] or [0.0]


def _sentence(one: Sentence, ends: tuple[float, float]) -> str:
    mark = "●" if one.established else "○"
    said = "established" if one.established else "not established"
    return (
        f'<div class="interp-i-sentence{"" if one.established else " interp-i-not"}">'
        f'<span class="interp-i-mark" role="img" aria-label="{said}">{mark}</span>'
        f'<span class="interp-i-words">{escape(one.text)} <span class="interp-i-step">{escape(one.step)}</span></span>'
        f'<span class="interp-i-value">{minus(f"{round(one.value, 2) + 0.0:.2f}")}</span>{_strip(one, ends)}</div>'
    )


def _strip(one: Sentence, ends: tuple[float, float]) -> str:
    """Return the number and its controls on one axis, which all sentences of a step share."""
    low, high = ends
    span = (high - low) or 1.0

    def x(value: float) -> str:
        return f"{4 + (_WIDE - 8) * (value - low) / span:.1f}"

    middle = _HIGH / 2
    ticks = "".join(
        f'<path d="M{x(value)} {middle - 5}V{middle + 5}" style="stroke:var(--interp-muted);stroke-width:1.5">'
        f"<title>{escape(f'{name}: {value:.3g}')}</title></path>"
        for name, value in one.controls
        if math.isfinite(value)
    )
    colour = "accent" if one.established else "muted"
    reach = ""
    if math.isfinite(one.low) and math.isfinite(one.high):
        style = f"stroke:var(--interp-{colour});stroke-width:3;opacity:.45"
        reach = f'<path d="M{x(one.low)} {middle}H{x(one.high)}" style="{style}"/>'
    if not math.isfinite(one.value):
        return ""
    label = escape(f"{one.value:.3g}; " + ", ".join(f"{name} {value:.3g}" for name, value in one.controls))
    return (
        f'<svg class="interp-i-strip" viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{label}">'
        f'<path d="M4 {middle}H{_WIDE - 4}" style="stroke:var(--interp-line)"/>'
        f'<path d="M{x(0.0)} {middle - 3}V{middle + 3}" style="stroke:var(--interp-line)"/>{reach}{ticks}'
        f'<circle cx="{x(one.value)}" cy="{middle}" r="4" style="fill:var(--interp-{colour})"><title>{label}</title>'
        "</circle></svg>"
    )


def _rivals(result: InvestigateResult) -> str:
    """Return the exchanges that move the answer most."""
    rows = "".join(
        f"<tr><td>{_exchange(one.before, one.after)}</td><td>{escape(one.kind)}</td>"
        f'<td class="interp-code">{escape(labels([one.against[0]], 24)[0])}</td>'
        + "".join(f'<td class="interp-i-n">{minus(f"{value:.2f}")}</td>' for value in (one.clean, one.changed))
        + f'<td class="interp-i-n"><b>{minus(f"{one.moved:.2f}")}</b></td></tr>'
        for one in result.candidates[:_RIVALS]
    )
    return (
        f'<div style="overflow-x:auto"><table class="interp-i-rivals"><tr><th>exchanged (best {_RIVALS} of '
        f'{len(result.candidates)})</th><th>kind</th><th>against</th><th class="interp-i-n">prompt</th>'
        f'<th class="interp-i-n">changed</th><th class="interp-i-n">moves by</th></tr>{rows}</table></div>'
    )


def _exchange(before: tuple[str, ...], after: tuple[str, ...]) -> str:
    both = dict.fromkeys(zip(labels(before, 24), labels(after, 24), strict=True))
    return ", ".join(
        f'<span class="interp-code">{escape(a)}</span> → <span class="interp-code">{escape(b)}</span>' for a, b in both
    )


def _steps(result: InvestigateResult) -> str:
    """Return every step with the cell that makes it, the Python call, and its own picture, folded."""
    if not result.steps:
        return ""
    found = ['<div class="interp-i-part-name">Steps: each can be typed, and opened</div>']
    for name, step in result.steps.items():
        cell, code = result.cells.get(name, ""), step.code()
        first = cell.split("\n")[0] or code
        took = f"{step.provenance.seconds:.1f} s"
        typed = f'<div class="interp-i-cell interp-code">{escape(cell)}</div>' if cell else ""
        found.append(
            f'<details><summary><span class="interp-i-name">{escape(name)}</span>'
            f'<span class="interp-code interp-q interp-i-line1">{escape(_short(first))}</span>'
            f'<span class="interp-q">{took}</span></summary>{typed}'
            f'<div class="interp-i-cell interp-code">{escape(code)}</div>{step.html()}</details>'
        )
    found += [
        f'<details><summary><span class="interp-i-name">{escape(name)}</span>'
        f'<span class="interp-q">not possible</span></summary>{escape(why)}</details>'
        for name, why in result.refused.items()
    ]
    return "".join(found)


def _short(line: str) -> str:
    return line if columns(line) <= 160 else f"{line[:158]}…"
