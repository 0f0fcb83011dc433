"""The picture of a generated text: the prompt, and every new token on the colour of its probability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from interp.views.kit import coloured_text, frame, page
from interp.views.kit.text import visible

if TYPE_CHECKING:
    from interp.methods._shared.generate_result import GenerateResult
    from interp.methods._shared.samples_result import SamplesResult

TAIL = 200  # tokens of a prompt that are shown
ENDS = {"length": "stopped at the length asked for", "eos": "ended by itself", "window": "the context window is full"}
_WIDE = 640
_TITLE = "Generated text"


def drawn_with(result: GenerateResult | SamplesResult) -> list[str]:
    """Return how tokens were taken and what was changed, in words."""
    how = [f"temperature {result.temperature:g}" if result.temperature else "greedy"]
    how += [f"top-k {result.top_k}"] * (result.top_k is not None)
    how += [f"top-p {result.top_p:g}"] if result.top_p is not None else []
    changed = f"{result.interventions} intervention{'s' * (result.interventions != 1)} at {result.at} tokens"
    return [*how, *([changed] if result.interventions else [])]


def facts(result: GenerateResult) -> str:
    """Return the line beside the title."""
    count, new = len(result.tokens), len(result.generated)
    return frame.facts(result, f"{count} + {new} token{'s' * (new != 1)}", *drawn_with(result))


def stack(result: GenerateResult, on_page: bool) -> page.Stack:
    """Return the prompt and the new tokens as a drawing."""
    before = result.tokens[-TAIL:]
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


def foot(result: GenerateResult) -> list[page.Piece]:
    """Return the footer."""
    pieces: list[page.Piece] = []
    if len(result.logprobs):
        least = min(_both(result), key=lambda pair: pair[1])
        pieces = [
            ("mean log-probability ", f"{result.logprobs.mean():.3f}".replace("-", "−"), False),
            ("perplexity ", f"{math.exp(-result.logprobs.mean()):.2f}", False),
            (f"least likely {visible(least[0], 20)} ", f"{least[1]:.4f}", True),
        ]
    return [*pieces, (ENDS.get(result.stopped, result.stopped), "", True)]


def _picture(result: GenerateResult) -> page.Picture:
    stacks, paged = ([stack(result, on_page)] for on_page in (False, True))
    return page.Picture(_TITLE, facts(result), stacks, foot(result), result.notes, paged)


html, svg = page.pictures(_picture)
