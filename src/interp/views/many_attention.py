"""Pictures of an AttentionManyResult: the mean pattern of every head, one of them large, and the largest weights."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from interp.spec import Node
from interp.views import attention_heads, many
from interp.views.kit import bars, matrix, page, theme
from interp.views.kit.draw import Drawing
from interp.views.kit.text import head_label, visible

if TYPE_CHECKING:
    from interp.methods._shared.many.attention_result import AttentionManyResult

_TITLE = "Attention over prompts"
_TOP, _TOKEN = 14, 12
_BY = {"span": "span", "position": "position", "end": "position from the end"}


class _View:
    """A result, and what of it is shown."""

    def __init__(self, result: AttentionManyResult) -> None:
        self.result = result
        self.one = result.averaged()
        # One weight of each head: a head that looks at the token before would fill the list alone.
        self.top = result.top(_TOP, each_head=True)
        self.head, self.edge = self._opening()

    def _opening(self) -> tuple[tuple[int, int], tuple[int, int] | None]:
        """Return the head that is large, and its weight that is outlined: the largest of those that are listed."""
        result = self.result
        if not self.top:
            return (0, 0), None
        name, query, key, _, _ = self.top[0]
        node = Node.parse(name)
        return (
            (result.layers.index(node.layer), result.heads.index(node.head)),
            (result.places.index(query), result.places.index(key)),
        )

    @cached_property
    def facts(self) -> str:
        result = self.result
        layers, heads = len(result.layers), len(result.heads)
        which = f"layer {result.layers[0]}" if layers == 1 else f"{layers} layers"
        whose = f"head {result.heads[0]}" if heads == 1 else f"{heads} heads"
        return many.facts(result, f"{which} × {whose}", f"by {_BY[result.by]}")

    def stacks(self, themes: tuple[str, ...]) -> list[page.Stack]:
        """The heads, one of them large, and the largest weights as bars."""
        result, one = self.result, self.one
        name = head_label(result.layers[self.head[0]], result.heads[self.head[1]])
        weights = one.pattern[self.head]
        large = matrix.matrix(weights, result.places, themes, causal=one.causal, edge=self.edge)
        says = f"{name}: rows attend to columns, {theme.LIFT}"
        stacks: list[page.Stack] = []
        if len(result.layers) * len(result.heads) > 1:
            stacks.append([("Mean over prompts, heads: a row per layer", attention_heads.grid(one, self.head, themes))])
        return [*stacks, [(says, large)], [self._largest()]]

    def _largest(self) -> page.Block:
        result, found = self.result, self.result.spread
        rows: list[bars.Bar] = []
        for name, query, key, weight, _ in self.top:
            node = Node.parse(name)
            at = (
                result.layers.index(node.layer),
                result.heads.index(node.head),
                result.places.index(query),
                result.places.index(key),
            )
            low, high = (float(np.clip(end[at], 0.0, 1.0)) for end in found.interval)
            label = f"{node.drawn} {visible(query, _TOKEN)} → {visible(key, _TOKEN)}"
            rows.append(bars.Bar(label, weight, low, high))
        drawn = bars.bars(rows, 1e-3, neutral=True) if rows else Drawing(1, 1, "")
        return f"Largest mean weight of a head{many.sure(found)}", drawn

    @cached_property
    def foot(self) -> list[page.Piece]:
        """The footer: the large head's numbers."""
        result = self.result
        name = head_label(result.layers[self.head[0]], result.heads[self.head[1]])
        pieces: list[page.Piece] = [("", name, False)]
        if self.top:
            _, query, key, _, _ = self.top[0]
            at = *self.head, result.places.index(query), result.places.index(key)
            said = many.said(result.spread, at).removeprefix("+")
            pieces.append((f"{visible(query, _TOKEN)} → {visible(key, _TOKEN)} ", said, False))
        for stat, values in result.stats.items():
            own = result.mean_of(values[:, self.head[0], self.head[1]])
            pieces.append((f"{stat.replace('_', ' ')} {many.said(own).removeprefix('+')}", "", True))
        return pieces


def _picture(result: AttentionManyResult) -> page.Picture:
    view = _View(result)
    return page.Picture(_TITLE, view.facts, view.stacks(theme.THEMES), view.foot, result.notes)


html, svg = page.pictures(_picture)
