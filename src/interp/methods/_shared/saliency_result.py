"""What `saliency` returns: how much each token of a prompt adds to an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.results import Result, resolve
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.results.tables import Float


_SMALL = 1e-3  # logits: a difference that is all rounding has no percentages


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SaliencyResult(Result):
    """What each token adds to a metric.

    Attributes
    ----------
    method
        ``"ig"``, ``"gradient-input"``, ``"deeplift"``, ``"occlusion"``, ``"lime"``, ``"kernel-shap"`` or ``"rollout"``.
    tokens
        The token strings, one per position.
    attribution
        ``float64 [position]``: what each token's embedding adds, in the metric's units (logits, nats); of a rollout
        the share of attention, without sign.
    position
        Whose prediction it is; of a classifier −1.
    metric
        ``"logit-diff"``, ``"logit"``, ``"logprob"`` or ``"prob"``; ``"attention"`` for a rollout.
    answer, wrong
        (string, id) of the tokens, or of a classifier's classes; ``None`` where there is none.
    baseline
        ``"zero"``, ``"mean"`` or ``"counterfactual"``; empty for a rollout.
    counterfactual
        The token strings of the counterfactual prompt; empty without one.
    value, reference
        The metric of the prompt and of the baseline; NaN for a rollout.
    steps
        At how many points gradients were taken, or how often the model ran with tokens replaced.
    error
        Of what is sampled: half of the largest difference between two halves of the samples; 0 elsewhere.
    interventions
        How many changes there were of the run.
    """

    method: str
    tokens: tuple[str, ...]
    attribution: Float
    position: int
    metric: str
    answer: tuple[str, int] | None = None
    wrong: tuple[str, int] | None = None
    baseline: str = ""
    counterfactual: tuple[str, ...] = ()
    value: float = float("nan")
    reference: float = float("nan")
    steps: int = 0
    error: float = 0.0
    interventions: int = 0

    _html: ClassVar[str] = "interp.views.saliency:html"
    _svg: ClassVar[str | None] = "interp.views.saliency:svg"
    _plotly: ClassVar[str | None] = "interp.views.saliency:plotly"

    @property
    def total(self) -> float:
        """What the parts sum to."""
        return float(self.attribution.sum())

    @property
    def gap(self) -> float:
        """What the parts miss: their sum less the difference between the prompt's metric and the baseline's."""
        return self.total - (self.value - self.reference)

    @property
    def relative_gap(self) -> float:
        """The gap's size in parts of that difference; 0 where both are rounding alone, NaN for a rollout."""
        difference = abs(self.value - self.reference)
        if abs(self.gap) < _SMALL and difference < _SMALL:
            return 0.0
        return abs(self.gap) / difference if difference else float("inf") if self.gap else 0.0

    def top(self, n: int = 10) -> list[tuple[int, str, float]]:
        """Return the `n` largest parts either way: (position, token, part), strongest first.

        Examples
        --------
        >>> result.top(1)
        [(5, ' is', 7.74...)]
        """
        order = np.argsort(-np.nan_to_num(np.abs(self.attribution), nan=-1.0), kind="stable")[:n]
        return [(int(p), self.tokens[p], float(self.attribution[p])) for p in order]

    def summary(self) -> str:
        """Return what is explained, and by which token most."""
        position, token, value = self.top(1)[0]
        over = f" over {self.wrong[0]!r}" if self.wrong else ""
        what = (
            f"{self.metric} of {self.answer[0]!r}{over}" if self.answer else f"attention from position {self.position}"
        )
        at = f" {self.value:+.3f}" if self.answer else ""
        return f"{self.provenance.model}: {self.method}, {what}{at}; most from {token!r} ({position}) {value:+.3f}"

    def text(self) -> str:
        """Return the ten largest parts, one to a line."""
        visible = resolve("interp.views.kit.text:visible")
        return "\n".join([super().text(), *(f"{v:+9.3f}  {p:4} {visible(token)}" for p, token, v in self.top(10))])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per position: position, token, attribution, and the counterfactual's token if there is one."""
        table = frame_of({"position": range(len(self.tokens)), "token": self.tokens, "attribution": self.attribution})
        return table.assign(counterfactual=self.counterfactual) if self.counterfactual else table
