"""The picture of claims that were tested again: a line for each, with what was and what is on one axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.views.kit import draw, frame, page, shares
from interp.views.kit.shares import Dot, Row

if TYPE_CHECKING:
    from interp.methods._shared.claims.repeated_result import ClaimsResult

_TITLE = "Claims"
_SHORT = 34  # characters of a reason
_TRACK = 220


def _row(result: ClaimsResult, n: int) -> Row:
    before, after = map(float, result.accuracy[:, n])
    low, high = map(float, result.interval[1, :, n])
    name = frame.visible_facts(result.names[n], 60)
    if result.missing[n]:
        why = frame.visible_facts(result.missing[n], 400)
        short = why if len(why) <= _SHORT else f"{why[: _SHORT - 1]}…"
        return Row(name, "not run", instead=short)
    dots = (Dot(before, hollow=True), Dot(after, low, high, strong=True))
    changed = result.changes[n] != "unchanged"
    numbers = f"{before:.2f} → {after:.2f}" if before == before or after == after else "–"
    verdict = f"{result.was[n]} → {result.now[n]}" if changed else result.now[n]
    return Row(name, f"{numbers}  {verdict}", dots, bold=result.changes[n] == "broke")


def _stacks(result: ClaimsResult) -> list[page.Stack]:
    if not result.names:
        return [[("", draw.words(["no claim was tested"]))]]
    caption = "Share of interchanges as predicted: ○ before, ● now with its 95 % interval"
    return [[(caption, shares.shares([_row(result, n) for n in range(len(result.names))], track=_TRACK))]]


def _foot(result: ClaimsResult) -> list[page.Piece]:
    counts = {kind: result.changes.count(kind) for kind in dict.fromkeys(result.changes)}
    return [(f"{kind} ", str(count), False) for kind, count in counts.items()]


def _picture(result: ClaimsResult) -> page.Picture:
    models = ", ".join(dict.fromkeys(name for name in result.models if name))
    count = f"{len(result.names)} claim{'s' * (len(result.names) != 1)}"
    return page.Picture(_TITLE, " · ".join(filter(None, [models, count])), _stacks(result), _foot(result), result.notes)


html, svg = page.pictures(_picture)
