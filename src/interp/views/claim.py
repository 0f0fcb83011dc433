"""The picture of a claim: the verdict in words, and its accuracy beside that of its controls on one axis."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from interp.views.kit import draw, frame, page, shares
from interp.views.kit.draw import Drawing
from interp.views.kit.shares import Dot, Row
from interp.views.kit.text import columns

if TYPE_CHECKING:
    from interp.methods._shared.claims.result import ClaimResult

_TITLE = "Claim"
_WIDE = 96  # characters to a line
_LISTED = 4  # interchanges that went otherwise


def _facts(result: ClaimResult) -> str:
    count = f"{result.prompts} prompt{'s' * (result.prompts != 1)}, {result.solved} solved"
    source = f"{frame.visible_facts(result.task, 40)}, {count}" if result.task else count
    return frame.facts(result, source, f"{result.n} interchange{'s' * (result.n != 1)}")


def _verdict(result: ClaimResult) -> Drawing:
    """Return the verdict, and below it what it rests on."""
    word, _, rest = result.line().partition(": ")
    body = draw.text(0, 14, word.capitalize(), more=' style="font-size:15px;font-weight:600;fill:var(--interp-fg)"')
    lines = [line for part in rest.split("; ") for line in textwrap.wrap(_visible(part), _WIDE)]
    for n, line in enumerate(lines):
        body += draw.text(0, 34 + 16 * n, line, more=' style="font-size:11.5px;fill:var(--interp-fg)"')
    return Drawing(max([5.9 * columns(line) for line in lines] + [160]), 24 + 16 * len(lines), body)


def _lines(result: ClaimResult) -> Drawing:
    """Return the claim as it is typed."""
    typed = map(_visible, result.claim.splitlines())
    lines = [piece for line in typed for piece in textwrap.wrap(line, _WIDE, subsequent_indent="  ")]
    body = "".join(draw.text(0, 11 + 16 * n, line, "m", more=' style="font-size:11px"') for n, line in enumerate(lines))
    return Drawing(max((6.7 * columns(line) for line in lines), default=0), 16 * len(lines), body)


def _axis(result: ClaimResult) -> Drawing:
    low, high = map(float, result.interval)
    share = float("nan") if result.accuracy is None else result.accuracy
    rows = [Row("the claim", f"{share:.2f}", (Dot(share, low, high, strong=True),), bold=True)]
    for n, name in enumerate(result.names):
        value = float(result.control_accuracy[n])
        low, high = map(float, result.control_interval[:, n])
        missing = _visible(result.control_missing[n])
        short = missing if len(missing) <= 48 else f"{missing[:47]}…"
        rows.append(Row(name, "–" if missing else f"{value:.2f}", (Dot(value, low, high),), instead=short))
    return shares.shares(rows)


def _otherwise(result: ClaimResult) -> Drawing | None:
    """Return some interchanges that did not give what was predicted."""
    those = [n for n in range(result.n) if not result.correct[n]][:_LISTED]
    if not those:
        return None
    lines = [
        f"predicted {_visible(result.predicted[n])}, got {_visible(result.got[n]) or 'no number'}: "
        f"prompt {result.base[n]} given prompt {result.source[n]}’s"
        for n in those
    ]
    return draw.words(lines)


def _visible(text: str) -> str:
    return frame.visible_facts(text, 400)


def _stacks(result: ClaimResult) -> list[page.Stack]:
    found: list[tuple[str, Drawing]] = [("Verdict", _verdict(result)), ("The claim", _lines(result))]
    if result.n:
        caption = "Share of interchanges whose likeliest answer is the predicted one; bars are 95 % intervals"
        found.append((caption, _axis(result)))
        other = _otherwise(result)
        if other is not None:
            found.append((f"Otherwise in {int((~result.correct).sum())} of {result.n}", other))
    return [found]


def _foot(result: ClaimResult) -> list[page.Piece]:
    if result.accuracy is None:
        return [("no interchange was made", "", True)]
    low, high = map(float, result.interval)
    pieces: list[page.Piece] = [
        ("accuracy ", f"{result.accuracy:.2f}", False),
        (f"interval {low:.2f}–{high:.2f}", "", True),
        (f"{int(result.correct.sum())} of {result.n} as predicted", "", True),
        (f"of {len(result.classes)} answers the likeliest counts", "", True),
    ]
    if result.trained:
        pieces.append((f"a subspace found on {result.trained} others", "", True))
    return pieces


def _picture(result: ClaimResult) -> page.Picture:
    return page.Picture(_TITLE, _facts(result), _stacks(result), _foot(result), result.notes)


html, svg = page.pictures(_picture)
