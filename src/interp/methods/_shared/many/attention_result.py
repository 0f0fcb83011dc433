"""Attention patterns over many prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.errors import InputError
from interp.methods._shared import names
from interp.methods._shared.many.places import BEFORE, REST
from interp.methods._shared.many.result import ManyResult, Spread, spread
from interp.results import resolve
from interp.results.tables import frame_of
from interp.spec import Node

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class AttentionManyResult(ManyResult):
    """Attention patterns of many prompts, by what lines up.

    Attributes
    ----------
    layers, heads
        The layers and query heads that the arrays hold.
    by, places
        How tokens line up, ``"position"``, ``"span"`` or ``"end"``, and what lines up.
    each
        ``float32 [prompt, layer, head, query place, key place]``: the weight that a place's tokens give another's,
        summed over the tokens that are looked at and averaged over those that look; NaN where a prompt has no token
        that could look. By position these are the patterns.
    stats
        Name → ``float32 [prompt, layer, head]``, as in `AttentionResult`.
    causal
        Whether a query sees only itself and what is before it.
    labels
        Head (``"5.1"``) → its class, where `interp.heads` has classified the heads of the model as it is.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    by: str
    places: tuple[str, ...]
    each: NDArray[np.float32]
    stats: Mapping[str, NDArray[np.float32]]
    causal: bool = True
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    _html: ClassVar[str] = "interp.views.many_attention:html"
    _svg: ClassVar[str | None] = "interp.views.many_attention:svg"

    @cached_property
    def spread(self) -> Spread:
        """The mean of `each` over prompts, ``[layer, head, query place, key place]``, and how sure it is."""
        return spread(self.each)

    def averaged(self) -> Any:
        """Return the mean patterns as an `AttentionResult`, with its live view; its tokens are the places.

        Examples
        --------
        >>> interp.attention(task="ioi", n=4).averaged().pattern.shape
        (4, 4, 15, 15)
        """
        return resolve("interp.methods.heads.attention:AttentionResult")(
            provenance=self.provenance,
            tokens=self.places,
            layers=self.layers,
            heads=self.heads,
            pattern=self.spread.mean.astype(np.float32),
            stats={name: values.mean(0) for name, values in self.stats.items()},
            causal=self.causal and self.by == "position",
            labels=self.labels,
            interventions=self.interventions,
            averaged=self.n,
            notes=(f"averaged over {self.over}", *self.notes),
        )

    def head(self, name: str) -> Spread:
        """Return one head's mean pattern, ``[query place, key place]``, and how sure it is.

        Raises
        ------
        InputError
            A name that is not two numbers, or a head that this result does not hold.

        Examples
        --------
        >>> interp.attention(task="ioi", n=4).head("3.1").mean.shape
        (15, 15)
        """
        node = names.head(name, f"{name!r} is not a head; write layer.head, such as {self.layers[0]}.{self.heads[0]}")
        if node.layer not in self.layers or node.head not in self.heads:
            raise InputError(f"no head {name} in this result; its layers and heads are in .layers and .heads")
        at = self.layers.index(node.layer), self.heads.index(node.head)
        found = self.spread
        return Spread(found.n, found.mean[at], found.standard_error[at], found.interval[(slice(None), *at)])

    def top(self, n: int = 10, *, each_head: bool = False) -> list[tuple[str, str, str, float, float]]:
        """Return the `n` largest mean weights: (head, from, to, weight, standard error), largest first.

        What a place gives itself is left out, and what rests on BOS or on what is of no span.

        Parameters
        ----------
        each_head
            Whether each head comes at most once.

        Examples
        --------
        >>> interp.attention(task="ioi", n=4, by="span").top(1)[0][:3]
        ('2.2', 'end', 's2')
        """
        found = self.spread
        sizes = np.nan_to_num(found.mean, nan=-1.0).copy()
        sizes[..., resting(self)] = -1.0
        sizes[..., np.arange(len(self.places)), np.arange(len(self.places))] = -1.0
        flat = sizes.reshape(-1)
        among = np.arange(flat.size)
        if each_head:
            rows = sizes.reshape(sizes.shape[0] * sizes.shape[1], -1)
            among = rows.argmax(1) + np.arange(len(rows)) * rows.shape[1]
        order = among[np.argsort(-flat[among], kind="stable")[:n]]
        listed: list[tuple[str, str, str, float, float]] = []
        for layer, head, query, key in zip(
            *(one.tolist() for one in np.unravel_index(order, sizes.shape)), strict=True
        ):
            at = layer, head, query, key
            if sizes[at] > 0:
                whose = Node("head", self.layers[layer], self.heads[head]).name
                error = float(found.standard_error[at])
                listed.append((whose, self.places[query], self.places[key], float(found.mean[at]), error))
        return listed

    def summary(self) -> str:
        """Return the model, the size of the patterns and over what they are."""
        size = f"{len(self.layers)} layers × {len(self.heads)} heads × {len(self.places)} places by {self.by}"
        return f"{self.provenance.model}: {size}, over {self.over}"

    def text(self) -> str:
        """Return the ten largest mean weights, one to a line."""
        visible = resolve("interp.views.kit.text:visible")
        lines = (
            f"{weight:7.3f} ± {error:.3f}  {head:6} {visible(query)} → {visible(key)}"
            for head, query, key, weight, error in self.top(10)
        )
        return "\n".join([super().text(), *lines])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per head, query place and key place: the mean weight, its standard error and interval."""
        found = self.spread
        layer, head, query, key = (grid.reshape(-1) for grid in np.indices(found.mean.shape))
        return frame_of(
            {
                "layer": np.array(self.layers)[layer],
                "head": np.array(self.heads)[head],
                "query": [self.places[n] for n in query],
                "key": [self.places[n] for n in key],
                "weight": found.mean.reshape(-1),
                "standard error": found.standard_error.reshape(-1),
                "low": found.interval[0].reshape(-1),
                "high": found.interval[1].reshape(-1),
            }
        )


def resting(result: AttentionManyResult) -> list[int]:
    """Return the places where attention rests, and from which little is read: BOS, or what is of no span."""
    first = [0] if result.by == "position" else []
    return [*first, *(n for n, name in enumerate(result.places) if name in {REST, BEFORE})]
