"""What tokens add to a metric over many prompts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.methods._shared.many.dla_result import Token, named
from interp.methods._shared.many.result import ManyResult, Spread, spread
from interp.results import resolve
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SaliencyManyResult(ManyResult):
    """What tokens add to a metric, in each of many prompts, by what lines up.

    Attributes
    ----------
    method, metric, baseline
        As in `SaliencyResult`.
    answers, wrongs
        (string, id) of each prompt's tokens, of a set its first; empty where there are none.
    by, places
        How tokens line up, ``"span"``, ``"position"`` or ``"end"``, and what lines up.
    attribution
        ``float64 [prompt, place]``: what each place's tokens add, summed, in the metric's units; of a rollout the share
        of attention.
    each_token
        ``float64 [prompt, position]``: what each token adds; NaN behind a prompt's end.
    values, references
        ``float64 [prompt]``: the metric of the prompt and of the baseline; NaN for a rollout.
    steps
        ``int64 [prompt]``: at how many points gradients were taken.
    """

    method: str
    metric: str
    baseline: str = ""
    answers: tuple[Token, ...] = ()
    wrongs: tuple[Token, ...] = ()
    by: str
    places: tuple[str, ...]
    attribution: Float
    each_token: Float
    values: Float
    references: Float
    steps: NDArray[np.int64]

    _html: ClassVar[str] = "interp.views.many_saliency:html"
    _svg: ClassVar[str | None] = "interp.views.many_saliency:svg"
    _plotly: ClassVar[str | None] = "interp.views.many_saliency:plotly"

    @cached_property
    def spread(self) -> Spread:
        """The mean of `attribution` over prompts, ``[place]``, and how sure it is."""
        return spread(self.attribution)

    @property
    def what(self) -> str:
        """What is explained, in words."""
        return f"{self.metric} of {named(self.answers, self.wrongs)}" if self.answers else "attention"

    def top(self, n: int = 10) -> list[tuple[str, float, float]]:
        """Return the `n` largest mean parts either way: (place, part, standard error), strongest first.

        Examples
        --------
        >>> interp.saliency(task="ioi", n=4).top(1)[0][0]
        's2'
        """
        found = self.spread
        order = np.argsort(-np.nan_to_num(np.abs(found.mean), nan=-1.0), kind="stable")[:n]
        return [(self.places[p], float(found.mean[p]), float(found.standard_error[p])) for p in order.tolist()]

    def summary(self) -> str:
        """Return what is explained, over what, and by which place most."""
        place, value, error = self.top(1)[0]
        return (
            f"{self.provenance.model}: {self.method}, {self.what} over {self.over}; most from {place!r} {value:+.3f} "
            f"± {error:.3f}"
        )

    def text(self) -> str:
        """Return the ten largest mean parts with their standard errors, one to a line."""
        visible = resolve("interp.views.kit.text:visible")
        lines = (f"{value:+9.3f} ± {error:.3f}  {visible(place)}" for place, value, error in self.top(10))
        return "\n".join([super().text(), *lines])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per prompt and place: prompt, place, attribution."""
        prompt, place = (grid.reshape(-1) for grid in np.indices(self.attribution.shape))
        return frame_of(
            {
                "prompt": self.numbers[prompt],
                "place": [self.places[n] for n in place],
                "attribution": self.attribution.reshape(-1),
            }
        )
