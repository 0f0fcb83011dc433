"""The pair of a PatchingResult: its prompts around the tokens that differ, and the metric on either."""

from __future__ import annotations

from collections.abc import Sequence

from interp.ids import between
from interp.views.kit import draw
from interp.views.kit.draw import Drawing
from interp.views.kit.text import columns, escape, labels, signed, visible
from interp.views.patching_view import PatchingView

# What of a pair is shown: this many tokens, or that many around each that differs.
_WHOLE, _AROUND, _MOST = 28, 4, 60
_PAIR, _PROMPT = 300, 66
_SAID = '<div class="interp-said"></div>'  # where the live view tells what the patched model says


def prompts(view: PatchingView) -> list[tuple[str, list[tuple[str, bool]]]]:
    """Return the first pair's prompts, each as (its name, its tokens with whether they differ)."""
    pairs = view.result.checks
    if not pairs.clean:
        return []
    given = [("clean", pairs.clean[0])]
    if pairs.corrupted and not (view.source and not view.noising):
        given.append(("corrupted", pairs.corrupted[0]))
    differing = [set(view.differing)] * len(given)
    if len({len(tokens) for _, tokens in given}) > 1:
        differing = [set(middle) for middle in between(*(tokens for _, tokens in given))]
    return [(name, _excerpt(tokens, own)) for (name, tokens), own in zip(given, differing, strict=True)]


def _excerpt(tokens: Sequence[str], differing: set[int]) -> list[tuple[str, bool]]:
    """Return a prompt, or what of it is around the tokens that differ and at its end."""
    count = len(tokens)
    held = range(count)
    if count > _WHOLE:
        near = {n + k for n in differing or {0} for k in range(-_AROUND, _AROUND + 1)} | set(range(count - 6, count))
        held = [n for n in sorted(near) if 0 <= n < count]
        held = held if len(held) <= _MOST else [*held[: _MOST - 6], *held[-6:]]
    names = labels([tokens[n] for n in held], 24)
    shown: list[tuple[str, bool]] = []
    last = -1
    for n, name in zip(held, names, strict=True):
        begins = not shown
        if n != last + 1:
            shown.append(("… " if begins else " … ", False))
            begins = True
        # A token that differs keeps the sign of its space, so that a space that differs is seen.
        plain = name
        if name.startswith("␣") and n not in differing:
            plain = name[1:] if begins else f" {name[1:]}"
        shown.append((plain, n in differing))
        last = n
    return shown


def answers(view: PatchingView) -> list[tuple[str, str, str]]:
    """Return lines of (words, the clean metric, the corrupted metric)."""
    result, pairs = view.result, view.result.checks
    count = len(result.per_pair)
    lead = view.metric
    if pairs.answer and pairs.answer[0]:
        lead = _set(pairs.answer[0])
        if pairs.wrong and pairs.wrong[0]:
            lead += f" over {_set(pairs.wrong[0])}"
    lines: list[tuple[str, str, str]] = []
    if count > 1 and pairs.clean_metric and pairs.corrupted_metric:
        lines.append((lead, signed(pairs.clean_metric[0]), signed(pairs.corrupted_metric[0])))
        lead = f"mean of {count} pairs"
    return [*lines, (lead, signed(result.clean_metric), signed(result.corrupted_metric))]


def _set(tokens: Sequence[tuple[str, int]]) -> str:
    shown = ", ".join(visible(token, 24) for token, _ in tokens[:3])
    return shown if len(tokens) <= 3 else f"{shown} … ({len(tokens)} tokens)"


def sides(view: PatchingView) -> tuple[str, str]:
    """Return what the two runs are called."""
    if not view.source:
        return "clean", "corrupted"
    return ("ours", "theirs") if view.noising else ("theirs", "ours")


def heading(view: PatchingView) -> str:
    """Return what the pair is called."""
    count = len(view.result.per_pair)
    return f"Pair 1 of {count}" if count > 1 else "Pair"


def markup(view: PatchingView) -> str:
    """Return the pair as markup for a page."""
    shown = "".join(
        f'<span class="interp-q">{name}</span><span class="interp-code">'
        + "".join(
            f'<bdi class="interp-{"differs" if differs else "same"}">{escape(token)}</bdi>' for token, differs in tokens
        )
        + "</span>"
        for name, tokens in prompts(view)
    )
    if not shown:
        return _SAID
    clean, corrupted = sides(view)
    listed = "".join(
        f'<span class="interp-q"><bdi>{escape(lead)}</bdi></span><b>{a}</b><b>{b}</b>' for lead, a, b in answers(view)
    )
    return (
        f'<div class="interp-pair"><div class="interp-caption"><span>{heading(view)}</span></div>'
        f'<div class="interp-prompts">{shown}</div><div class="interp-answers"><span class="interp-q">'
        f'{escape(view.metric)}</span><span class="interp-q">{clean}</span><span class="interp-q">{corrupted}</span>'
        f"{listed}</div>{_SAID}</div>"
    )


def drawn(view: PatchingView) -> list[tuple[str, Drawing]]:
    """Return the same for a standalone picture, broken into lines."""
    body: list[str] = []
    advance, y = 12 * draw.ADVANCE, 12.0
    for name, tokens in prompts(view):
        body.append(f'<text class="interp-f" y="{draw.number(y)}"><tspan class="interp-q">{name}</tspan></text>')
        x = float(_PROMPT)
        for token, differs in tokens:
            wide = columns(token) * advance
            if x > _PROMPT and x + wide > _PAIR:
                x, y = float(_PROMPT), y + 18
            if token.startswith(" ") and x > _PROMPT:
                x += advance
            label = token.strip(" ")
            wide = columns(label) * advance
            body.append(
                f'<text class="interp-f interp-c" x="{draw.number(x)}" y="{draw.number(y)}">{draw.token(label)}</text>'
            )
            if differs:
                body.append(
                    f'<path style="stroke:var(--interp-fg);stroke-width:1.2" d="M{draw.number(x)} {draw.number(y + 4)}'
                    f'h{draw.number(wide)}"/>'
                )
            x += wide + advance * (token.endswith(" ") and len(token) > 1)
        y += 24
    y -= 12
    if not body:
        return []
    lines = [(view.metric, *sides(view)), *answers(view)]
    far = max(6.4 * columns(lead) for lead, _, _ in lines)
    for n, (lead, *values) in enumerate(lines):
        y += 18
        body.append(
            f'<text class="interp-f" y="{draw.number(y)}"><tspan class="interp-q">{draw.token(lead)}</tspan></text>'
        )
        body += [
            f'<text class="interp-f" x="{draw.number(far + 74 * (k + 1))}" y="{draw.number(y)}" text-anchor="end">'
            f'<tspan class="interp-{"b" if n else "q"}">{side}</tspan></text>'
            for k, side in enumerate(values)
        ]
    return [(heading(view), Drawing(max(_PAIR, far + 148), y + 6, "".join(body)))]
