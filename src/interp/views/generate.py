"""The picture of a generated text: the prompt, and every new token on the colour of its probability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from interp.views.kit import coloured_text, frame, page
from interp.views.kit.text import visible

if TYPE_CHECKING:
    from interp.methods.text.generate import GenerateResult

_WIDE, _TAIL = 640, 200
_TITLE = "Generated text"
_ENDS = {"length": "stopped at the length asked for", "eos": "ended by itself", "window": "the context window is full"}


def _facts(result: GenerateResult) -> str:
    count, new = len(result.tokens), len(result.generated)
    how = f"temperature {result.temperature:g}" if result.temperature else "greedy"
    changed = f"{result.interventions} intervention{'s' * (result.interventions != 1)} at {result.at} tokens"
    counted = f"{count} + {new} token{'s' * (new != 1)}"
    return frame.facts(result, counted, how, *([changed] if result.interventions else []))


def _stack(result: GenerateResult, on_page: bool) -> page.Stack:
    before = result.tokens[-_TAIL:]
    chances = np.exp(result.logprobs).tolist()
    titles = [*[""] * len(before), *(f"{chance:.4f}" for _, chance in _both(result))]
    values = [*[math.nan] * len(before), *chances]
    drawn = coloured_text.text(
        [*before, *result.generated], values, _WIDE, muted=len(before), titles=titles if on_page else None
    )
    cut = "… " if len(before) < len(result.tokens) else ""
    return [(f"{cut}The prompt is pale; a new token's colour is its probability^0.6", drawn)]


def _both(result: GenerateResult) -> list[tuple[str, float]]:
    return list(zip(result.generated, np.exp(result.logprobs).tolist(), strict=True))


def _foot(result: GenerateResult) -> list[page.Piece]:
    pieces: list[page.Piece] = []
    if len(result.logprobs):
        least = min(_both(result), key=lambda pair: pair[1])
        pieces = [
            ("mean log-probability ", f"{result.logprobs.mean():.3f}".replace("-", "−"), False),
            ("perplexity ", f"{math.exp(-result.logprobs.mean()):.2f}", False),
            (f"least likely {visible(least[0], 20)} ", f"{least[1]:.4f}", True),
        ]
    return [*pieces, (_ENDS.get(result.stopped, result.stopped), "", True)]


def _picture(result: GenerateResult) -> page.Picture:
    stacks, paged = ([_stack(result, on_page)] for on_page in (False, True))
    return page.Picture(_TITLE, _facts(result), stacks, _foot(result), result.notes, paged)


html, svg = page.pictures(_picture)
