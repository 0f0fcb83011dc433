"""The dashboard of a feature: its places by tenths, token by token, and what the model says with it added."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import traitlets

from interp.errors import InputError
from interp.views.feature import HIGH, SIDE, Dashboard
from interp.views.kit import theme
from interp.views.kit.frame import visible_facts
from interp.views.kit.text import labels, visible
from interp.widgets._base import Widget
from interp.widgets._encode import MESSAGE
from interp.widgets._rpc import Handler, Reply, Request, Text, parameters

if TYPE_CHECKING:
    from interp.methods._shared.feature_result import Exemplar, FeatureResult
    from interp.methods._shared.steered import Written
    from interp.views.kit.draw import Drawing
    from interp.views.kit.page import Stack

_REACH = 60  # tokens on either side of a place that a line can show
_WORDS = 250_000  # bytes of the first message that are words; the rest of it is the script
_TOKEN, _NEXT = 40, 24  # columns of a token in a line, and in a list
_PROMPT = 4000  # characters
_WRITTEN, _TOP = 20, 5  # new tokens, and likeliest next ones of each
_TAIL = 48  # columns of the prompt's end
# Of the unit that strengths are counted in, in percent.
_STRENGTHS, _STEP = range(-1000, 1001), 50


class FeatureWidget(Widget):
    """An interactive view of a `FeatureResult`.

    Parameters
    ----------
    result
        The feature; all that is read of it are its arrays and words and, on demand, `steered()` and `svg()`.
    """

    script = "feature"
    feature = traitlets.Dict().tag(sync=True)
    numbers = traitlets.Bytes().tag(sync=True)

    def __init__(self, result: FeatureResult, **traits: Any) -> None:
        view, reach = Dashboard(result), _REACH
        while len(json.dumps(described := _described(view, reach)).encode()) > _WORDS and reach:
            reach //= 2
        super().__init__(result, **{"feature": described, "numbers": _packed(view, reach), **traits})

    def handlers(self) -> Mapping[str, Handler]:
        """Return the dashboard's requests."""
        return {"steer": self._on_steer, "picture": self._on_picture}

    def _on_steer(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with what the model says with the feature added, by some percent of its unit, and without."""
        prompt, percent = parameters(params, prompt=Text(_PROMPT), percent=_STRENGTHS)
        result: FeatureResult = self.result
        said = result.steered(prompt, percent / 100 * result.unit, n=_WRITTEN, top=_TOP)
        return Reply(
            {
                "strength": said.strength,
                "added": _number(said.length),
                "stream": _number(said.stream),
                "prompt": visible_facts(prompt, _TAIL) if len(prompt) <= _TAIL else f"…{_shown(prompt[-_TAIL:])}",
                "texts": _parted(said.plain, said.steered),
                "tokens": [
                    [visible(token, _NEXT), _number(before), _number(after)] for token, before, after in said.likeliest
                ],
            }
        )

    def _on_picture(self, params: Mapping[str, Any], request: Request) -> Reply:  # noqa: ARG002
        """Answer with the static picture."""
        (name,) = parameters(params, theme=theme.THEMES)
        drawn = self.result.svg(name)
        if len(drawn.encode()) > MESSAGE:
            raise InputError('this picture is too large for a message; result.save("feature.svg") writes it')
        return Reply({"svg": drawn})


def _described(view: Dashboard, reach: int) -> dict[str, Any]:
    """Return the small things that the page needs at once."""
    result = view.result
    first = 1 if result.optimised is not None else 0
    return {
        "title": view.title,
        "facts": view.facts,
        "about": {
            "model": visible_facts(result.provenance.model, 200),
            "feature": result.name,
            "of": visible_facts(result.of, 200),
            "label": visible_facts(result.label, 1000),
            **{name: float(value) for name, value in result.label_scores.items()},
            "density": result.density,
        },
        "own": [_drawn(stack) for stack in view.own],
        "lists": [_drawn(stack) for stack in view.below],
        "bars": [len(view.bars[0]), SIDE, HIGH],
        "most": result.unit,
        "places": [_place(one, reach) for one in _every(view)],
        # What is shown at first, and where headings stand in it.
        "opens": [[heading, _number_of(view, one, first)] for heading, one in view.shown],
        "steer": None
        if view.steering is None
        else {
            "caption": view.steering[0],
            "prompt": result.opening[-_PROMPT:],
            "unit": result.unit,
            "active": bool(result.most),
            "opens": round(100 * result.usual / result.unit),
            "range": [_STRENGTHS.start, _STRENGTHS.stop - 1, _STEP],
        },
        "strongest": [[lead, bold, not muted] for lead, bold, muted in view.strongest],
        "key": [[lead, bold, not muted] for lead, bold, muted in view.key],
        "notes": [visible_facts(note, 600) for note in result.notes],
    }


def _every(view: Dashboard) -> list[Exemplar]:
    """Return all places that there are, an input that was found by gradients first."""
    found = view.result.optimised
    return [*([found] if found is not None else []), *view.result.exemplars]


def _number_of(view: Dashboard, one: Exemplar, first: int) -> int:
    """Return which of `_every` an exemplar is."""
    return 0 if one.text < 0 else first + view.result.exemplars.index(one)


def _around(one: Exemplar, reach: int) -> slice:
    return slice(max(0, one.peak - reach), one.peak + reach + 1)


def _place(one: Exemplar, reach: int) -> dict[str, Any]:
    """Return a place in words; −1 is no text."""
    around = _around(one, reach)
    return {
        "tokens": labels(one.tokens, _TOKEN)[around],
        "peak": one.peak - around.start,
        "tenth": one.decile if one.text >= 0 else 0,
        "times": one.times,
        "text": one.text,
        "position": one.position,
    }


def _drawn(stack: Stack) -> list[list[Any]]:
    return [[caption, *_parts(drawing)] for caption, drawing in stack]


def _parts(drawing: Drawing) -> tuple[float, float, str]:
    return drawing.width, drawing.height, drawing.body


def _packed(view: Dashboard, reach: int) -> bytes:
    """Return the numbers: where the histogram's bars begin and the last one ends, how many activations each has; of
    each place its activation, then those at its tokens. float32, the counts uint32.
    """
    counts, edges = view.bars
    every = _every(view)
    around = [value for one in every for value in one.around[_around(one, reach)]]
    parts = [
        np.asarray(edges, "<f4"),
        np.asarray(counts, "<u4"),
        np.asarray([one.activation for one in every], "<f4"),
        np.asarray(around, "<f4"),
    ]
    return b"".join(part.tobytes() for part in parts)


def _parted(plain: Written, steered: Written) -> list[list[str]]:
    """Return both texts, each as the tokens that both begin with, the others, and why it ended where that was early."""
    pairs = zip(plain.tokens, steered.tokens, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    ended = {"eos": "", "window": "the context window is full", "length": ""}
    return [
        [_shown("".join(one.tokens[:same])), _shown("".join(one.tokens[same:])), ended.get(one.stopped, one.stopped)]
        for one in (plain, steered)
    ]


def _shown(text: str) -> str:
    return visible(text, 2000).replace("␣", " ")


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
