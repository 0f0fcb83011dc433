"""What each component adds to a logit over many prompts."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.methods._shared.direct_effects import place
from interp.methods._shared.many.result import ManyResult, Spread, spread
from interp.results import resolve
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.results.tables import Float

Token = tuple[str, int]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DLAManyResult(ManyResult):
    """What each component adds to a logit, or to the difference of two, in each of many prompts.

    Attributes
    ----------
    answers, wrongs
        (string, id) of each prompt's tokens; `wrongs` is empty where single logits are attributed.
    components
        The names of the parts, as in `DLAResult`; with interventions one is ``interventions``: what these add to the
        stream themselves.
    contributions
        ``float64 [prompt, component]``: the parts, in logits.
    heads
        ``float64 [prompt, layer, head]``: the heads' parts.
    by, places
        How prompts line up (``"span"``, ``"position"``, ``"end"``, or empty where they do not), and what lines up.
    per_place
        ``float64 [prompt, layer, head, place]``: a head's part by where it read it from; no places where nothing lines
        up.
    neurons
        (name, mean part, its standard error) of the neurons with the largest means, strongest first.
    totals, logits
        ``float64 [prompt]``: the sums of the parts, and the model's own logits or differences.
    """

    answers: tuple[Token, ...]
    wrongs: tuple[Token, ...] = ()
    components: tuple[str, ...]
    contributions: Float
    heads: Float
    by: str = ""
    places: tuple[str, ...] = ()
    per_place: Float
    neurons: tuple[tuple[str, float, float], ...] = field(default=())
    totals: Float
    logits: Float

    _html: ClassVar[str] = "interp.views.many_dla:html"
    _svg: ClassVar[str | None] = "interp.views.many_dla:svg"
    _plotly: ClassVar[str | None] = "interp.views.many_dla:plotly"

    @cached_property
    def spread(self) -> Spread:
        """The mean of `contributions` over prompts, ``[component]``, and how sure it is."""
        return spread(self.contributions)

    @property
    def what(self) -> str:
        """What is attributed, in words."""
        return named(self.answers, self.wrongs)

    def top(self, n: int = 10) -> list[tuple[str, float, float]]:
        """Return the `n` largest mean parts either way: (component, mean, standard error), strongest first.

        Examples
        --------
        >>> interp.dla(task="ioi", n=4).top(1)[0][0]
        'mlp 2'
        """
        found = self.spread
        order = np.argsort(-np.nan_to_num(np.abs(found.mean), nan=-1.0), kind="stable")[:n]
        return [(self.components[c], float(found.mean[c]), float(found.standard_error[c])) for c in order.tolist()]

    def summary(self) -> str:
        """Return the mean logit and its largest part."""
        logit, (name, value, _) = spread(self.logits), self.top(1)[0]
        return (
            f"{self.provenance.model}: {self.what} {float(logit.mean):+.3f} ± {float(logit.standard_error):.3f} over "
            f"{self.over}, most of it from {name} {value:+.3f}"
        )

    def text(self) -> str:
        """Return the ten largest mean parts with their standard errors, one to a line."""
        shown = resolve("interp.errors:printable")
        lines = (f"{value:+9.3f} ± {error:.3f}  {shown(name)}" for name, value, error in self.top(10))
        return "\n".join([super().text(), *lines])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per prompt and component: prompt, component, kind, layer, head, contribution."""
        known = [place(name) for name in self.components]
        prompt, component = (grid.reshape(-1) for grid in np.indices(self.contributions.shape))
        table = frame_of(
            {
                "prompt": self.numbers[prompt],
                "component": [self.components[c] for c in component],
                **{name: [known[c][n] for c in component] for n, name in enumerate(("kind", "layer", "head"))},
                "contribution": self.contributions.reshape(-1),
            }
        )
        return table.astype({"layer": "Int64", "head": "Int64"})


def named(answers: tuple[Token, ...], wrongs: tuple[Token, ...] = ()) -> str:
    """Return what is followed in words: a token that all prompts share, or the answers.

    Examples
    --------
    >>> named(((" Paris", 5), (" Paris", 5))), named(((" Paris", 5), (" Rome", 6)), ((" Oslo", 7), (" Bonn", 8)))
    ("' Paris'", "each prompt's answer over its wrong one")
    """
    first = repr(answers[0][0]) if len(set(answers)) == 1 else "each prompt's answer"
    if not wrongs:
        return first
    its = "its" if len(set(answers)) > 1 else "each prompt's"
    return f"{first} over {repr(wrongs[0][0]) if len(set(wrongs)) == 1 else f'{its} wrong one'}"
