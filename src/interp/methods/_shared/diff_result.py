"""What `diff` returns: which components carry what one model does otherwise than another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.methods._shared.circuit.changes import EdgeChange
from interp.results import Result, resolve
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DiffResult(Result):
    """What changes where components of one model, `tuned`, are put into another, `base`.

    Attributes
    ----------
    base, tuned
        The models' names.
    base_fingerprint, tuned_fingerprint
        The hashes of their states.
    what
        ``weights``: components are the other model's functions, on what reaches them. ``activations``: they are what
        they were in its own run.
    metric
        What was measured; ``"loss"`` is the mean next-token cross-entropy of texts, in nats per token.
    components
        ``"embed"``, heads ``"2.0"``, ``"2.attn"`` (the attention's bias and the norm behind it), ``"2.mlp"``,
        ``"unembed"`` (with the final norm); those of `what`.
    base_values, tuned_values
        ``float64 [prompt]``: the metric of the two models.
    values
        ``float64 [component, prompt]``: of the first model with one component of the second; NaN where not reached.
    effect
        ``float64 [component]``: the mean of `values` less that of `base_values`; exactly 0 where a component writes
        the same in both.
    share, share_interval
        ``float64 [component]`` and ``[2, component]``: `effect` over the models' whole difference, and its 95 %
        interval over prompts; NaN where the models do not differ, intervals also for fewer than four prompts.
    weight_change
        ``float64 [component]``: ‖W' − W‖ / ‖W‖ of the component's weights.
    kept
        A small set of components that together carry `wanted` of the difference, the strongest first; empty where
        none was looked for.
    kept_share
        What they carry together, as a share of the whole difference; ``None`` where there is no set.
    lost_share
        What of the difference is gone where these are the first model's, and all others the second's.
    wanted
        The share that was to be carried.
    continuations
        (prompt, what the first model goes on with, what the second does), of the first prompts; greedy.
    edges
        The edges that one of two circuits has alone, the largest change first; see `circuit.changes.changes`.
    edges_kept
        How many edges each circuit may have; ``None`` where edges were not scored.
    task
        The task or the file that the prompts came from, or an empty string.
    """

    base: str
    tuned: str
    base_fingerprint: str
    tuned_fingerprint: str
    what: str
    metric: str
    components: tuple[str, ...]
    base_values: Float
    tuned_values: Float
    values: Float
    effect: Float
    share: Float
    share_interval: Float
    weight_change: Float
    kept: tuple[str, ...] = ()
    kept_share: float | None = None
    lost_share: float | None = None
    wanted: float = 0.9
    continuations: tuple[tuple[str, str, str], ...] = ()
    edges: tuple[EdgeChange, ...] = ()
    edges_kept: int | None = None
    task: str = ""

    _html: ClassVar[str] = "interp.views.diff:html"
    _svg: ClassVar[str | None] = "interp.views.diff:svg"
    _plotly: ClassVar[str | None] = "interp.views.diff:plotly"

    @property
    def change(self) -> float:
        """The mean of the metric of `tuned` less that of `base`."""
        return float((self.tuned_values - self.base_values).mean())

    def heads(self, of: Float) -> NDArray[np.float64]:
        """Return values of components as ``[layer, head]``."""
        places = [tuple(map(int, name.split("."))) for name in self.components if name.replace(".", "").isdigit()]
        found = np.full(tuple(np.max(places, 0) + 1), np.nan)
        for name, value in zip(self.components, of, strict=True):
            if name.replace(".", "").isdigit():
                layer, head = map(int, name.split("."))
                found[layer, head] = value
        return found

    def of(self, name: str, of: Float) -> float:
        """Return one component's value; NaN where there is no such component."""
        return float(of[self.components.index(name)]) if name in self.components else float("nan")

    def top(self, n: int = 10) -> list[tuple[str, float, float]]:
        """Return the `n` largest effects either way: (component, effect, share of the difference)."""
        order = np.argsort(-np.where(np.isfinite(self.effect), np.abs(self.effect), -1.0), kind="stable")[:n]
        return [(self.components[i], float(self.effect[i]), float(self.share[i])) for i in order]

    def summary(self) -> str:
        """Return how far the models are apart, and what carries it."""
        count = len(self.base_values)
        said = (
            f"{self.base} → {self.tuned}: {self.metric} {self.base_values.mean():+.3f} → "
            f"{self.tuned_values.mean():+.3f} over {count} prompt{'s' * (count != 1)}"
        )
        if self.kept_share is not None:
            listed = ", ".join(self.kept[:6]) + (" …" if len(self.kept) > 6 else "")
            return f"{said}; {self.kept_share:.0%} of it from {len(self.kept)} of {len(self.components)}: {listed}"
        return said

    def text(self) -> str:
        """Return the ten largest effects, one to a line."""
        shown = resolve("interp.errors:printable")
        lines = [f"{effect:+9.3f}  {share:6.0%}  {shown(name)}" for name, effect, share in self.top(10) if effect]
        if self.edges_kept is not None:
            lines.append(resolve("interp.methods._shared.circuit.changes:summary")(self.edges, self.edges_kept))
            lines += [
                f"{one.said:>9}  {one.base:+.3f} → {one.tuned:+.3f}  {shown(one.writer)} → {shown(one.reader)}"
                for one in [*self.gained, *self.lost][:10]
            ]
        return "\n".join([super().text(), *lines])

    @property
    def gained(self) -> list[EdgeChange]:
        """The edges that the tuned model's circuit has and the other's has not, the largest change first."""
        return [one for one in self.edges if one.said == "gained"]

    @property
    def lost(self) -> list[EdgeChange]:
        """The edges that the first model's circuit has and the tuned one's has not, the largest change first."""
        return [one for one in self.edges if one.said == "lost"]

    def edges_frame(self) -> pd.DataFrame:
        """Return one row per edge that one circuit has alone: its scores, the change's interval, and what is said."""
        names = ["writer", "reader", "base", "tuned", "low", "high", "said"]
        return frame_of([tuple(getattr(one, name) for name in names) for one in self.edges], columns=names)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per component."""
        low, high = self.share_interval
        return frame_of(
            {
                "component": self.components,
                "effect": self.effect,
                "share": self.share,
                "low": low,
                "high": high,
                "weight change": self.weight_change,
                "kept": [name in self.kept for name in self.components],
            }
        )
