"""The picture of several continuations: each text's tokens on the colours of their probabilities, below each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from interp.views.generate import ENDS, TAIL, drawn_with
from interp.views.kit import coloured_text, draw, frame, page
from interp.views.kit.draw import Drawing

if TYPE_CHECKING:
    from interp.methods._shared.samples_result import SamplesResult

_WIDE, _MOST = 660, 40
_TITLE = "Generated texts"


def _facts(result: SamplesResult) -> str:
    count = f"{len(result.continuations)} sample{'s' * (len(result.continuations) != 1)}"
    prompt, sizes = len(result.tokens), sorted({len(own) for own in result.generated})
    new = f"{sizes[0]} new" if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]} new"
    tokens = f"{prompt} prompt token{'s' * (prompt != 1)} + {new}"
    return frame.facts(result, count, tokens, *drawn_with(result))


def _stack(result: SamplesResult, on_page: bool) -> page.Stack:
    held = result.tokens[-TAIL:]
    cut = "… " if len(held) < len(result.tokens) else ""
    prompt = coloured_text.text(held, [math.nan] * len(held), _WIDE, muted=len(held), titles=() if on_page else None)
    texts = [(_caption(result, n), _text(result, n, on_page)) for n in range(min(_MOST, len(result.continuations)))]
    return [(f"{cut}The prompt; below it, a token's colour is its probability^0.6", prompt), *texts]


def _caption(result: SamplesResult, n: int) -> str:
    end = ENDS.get(result.stopped[n], result.stopped[n])
    said = [f"Seed {result.seeds[n]}", f"perplexity {result.perplexity[n]:.2f}"] if result.generated[n] else []
    return " · ".join([*said, *([end] if result.stopped[n] != "length" else [])])


def _text(result: SamplesResult, n: int, on_page: bool) -> Drawing:
    tokens = result.generated[n]
    if not tokens:
        return draw.words(["nothing was written"])
    chances = np.exp(result.logprobs[n, : len(tokens)]).tolist()
    titles = [f"{chance:.4f}" for chance in chances] if on_page else None
    return coloured_text.text(tokens, chances, _WIDE, titles=titles)


def _foot(result: SamplesResult) -> list[page.Piece]:
    count, different = len(result.continuations), len(set(result.continuations))
    pieces: list[page.Piece] = [("different texts ", f"{different} of {count}", False)]
    known = np.flatnonzero(np.isfinite(result.perplexity))
    if len(known):
        likeliest = known[result.perplexity[known].argmin()]
        pieces += [
            ("mean log-probability of a token ", f"{np.nanmean(result.logprobs):.3f}".replace("-", "−"), False),
            (f"least perplexity {result.perplexity[likeliest]:.2f}, seed {result.seeds[likeliest]}", "", True),
        ]
    if count > _MOST:
        pieces.append((f"the first {_MOST} are shown; all are in to_frame()", "", True))
    return pieces


def _picture(result: SamplesResult) -> page.Picture:
    stacks, paged = ([_stack(result, on_page)] for on_page in (False, True))
    return page.Picture(_TITLE, _facts(result), stacks, _foot(result), result.notes, paged)


html, svg = page.pictures(_picture)
