"""What a sweep of activation patching gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.methods._shared.patching import estimate
from interp.methods._shared.patching.activations import likeliest
from interp.results import strongest
from interp.results.effects import PatchedResult
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PatchingResult(PatchedResult):
    """A sweep of activation patching: a `PatchedResult` whose `effect`, `recovery` and the like are over `axes`.

    Attributes
    ----------
    site, by
        What was patched, and how it was divided.
    axes
        The names of the arrays' axes, such as ``("layer", "head")``.
    layers
        The layers of the first axis.
    positions
        The token strings of the first pair's patched prompt, for a division by position; the spans' names, by span.
    method
        ``"exact"``, or ``"attribution"``: then `estimate` is everywhere, and the rest where it was verified.
    estimate
        ``float64 [*axes]``: attribution patching's estimate of `effect`; ``None`` for an exact sweep.
    estimates
        Site → ``float64 [layer, head]`` (sites with heads) or ``[layer, position]``: the estimate of every node of
        every site, mean over pairs; empty for an exact sweep. By position, pairs must have one length.
    """

    site: str
    by: str
    axes: tuple[str, ...]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    method: str = "exact"
    estimate: Float | None = None
    estimates: Mapping[str, Float] = field(default_factory=dict[str, "Float"])

    _html: ClassVar[str] = "interp.views.patching:html"
    _svg: ClassVar[str | None] = "interp.views.patching:svg"
    _plotly: ClassVar[str | None] = "interp.views.patching:plotly"
    _widget: ClassVar[str | None] = "interp.widgets.patching:PatchingWidget"

    def summary(self) -> str:
        """Return what was patched and how much of it is done."""
        size = " × ".join(map(str, self.patched.shape))
        done = int(self.done.sum())
        part = "" if self.done.all() else f", {done}/{self.done.size} done"
        if self.estimate is not None:
            part = f", estimated; {done} verified" if done else ", estimated"
        return f"{self.provenance.model}: {self.site} by {self.by}, {size}, {len(self.per_pair)} pairs{part}"

    @property
    def agreement(self) -> estimate.Agreement | None:
        """How the estimates compare with the exact effects of the verified cells; ``None`` where there are none."""
        return estimate.agreement(self)

    def name(self, index: Sequence[int]) -> str:
        """Return what the cell at `index` is called: a head ``"5.1"``, ``"L5 position 3"``, or a span ``"L5 IO"``.

        Examples
        --------
        >>> result.name((2, 1))
        '2.1'
        """
        at = dict(zip(self.axes, index, strict=True))
        layer = self.layers[at["layer"]]
        if "head" in at:
            head = f"{layer}.{at['head']}"
            return f"{head} position {at['position']}" if "position" in at else head
        if "neuron" in at:
            return f"L{layer} neuron {at['neuron']}"
        if "span" in at:
            return f"L{layer} {self.positions[at['span']]}"
        return f"L{layer} position {at['position']}" if "position" in at else f"L{layer}"

    def top(self, n: int = 10) -> list[tuple[str, float, float]]:
        """Return the `n` cells of the largest effect either way: (name, effect, recovery), strongest first.

        Of an estimate, a verified cell is here with its exact effect; the name of another ends in `` (estimated)``.

        Examples
        --------
        >>> result.top(1)
        [('2.0', ...)]
        """
        effect, recovery = estimate.best(self)
        guessed = " (estimated)" if self.estimate is not None else ""
        named = [(c, self.name(c) + ("" if self.done[c] else guessed)) for c in strongest(effect, n)]
        return [(name, float(effect[c]), float(recovery[c])) for c, name in named]

    def likeliest(self, index: Sequence[int], top: int = 5) -> list[tuple[str, float, float]]:
        """Return what the model says next on the first pair with the cell at `index` patched; needs the model loaded.

        Returns
        -------
        list
            (token string, probability unpatched, probability patched): the `top` of both runs, the likeliest of the
            patched one first.

        Raises
        ------
        InputError
            The model is gone, busy, or has changed since, or its forward is not known here.

        Examples
        --------
        >>> result.likeliest((2, 0))[0]
        (' Henry', ...)
        """

        def run(model: LoadedModel) -> list[tuple[str, float, float]]:
            return likeliest(model, self, index, top)

        return self._run(run, "what the patched model says")

    def _labels(self) -> Mapping[str, Sequence[Any]]:
        own: Mapping[str, Sequence[Any]] = {"layer": self.layers, "span": self.positions}
        sizes = zip(self.axes, self.patched.shape, strict=True)
        return {name: own.get(name, range(size)) for name, size in sizes}

    def to_frame(self) -> pd.DataFrame:
        """Return one row per cell: its axes, the patched metric, effect, recovery, interval and, if any, estimate."""
        grid = np.indices(self.patched.shape).reshape(len(self.axes), -1)
        table = frame_of(dict(zip(self.axes, grid, strict=True)) | {"layer": np.array(self.layers)[grid[0]]})
        if self.positions and "position" in self.axes:
            table["token"] = [self.positions[index] for index in grid[self.axes.index("position")]]
        if "span" in self.axes:
            table["span"] = [self.positions[index] for index in grid[self.axes.index("span")]]
        table = table.assign(**self._columns(*grid))
        if self.estimate is not None:
            table["estimate"] = self.estimate.reshape(-1)
        return table


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FeaturePatchingResult(PatchingResult):
    """A sweep over single features of dictionaries: a `PatchingResult` whose first axis is those that are active.

    Attributes
    ----------
    features
        The names of the first axis, such as ``"2.417"``: layer and number of each feature that is active in any run.
    """

    features: tuple[str, ...]

    _html: ClassVar[str] = "interp.views.patching_features:html"
    _svg: ClassVar[str | None] = "interp.views.patching_features:svg"
    _plotly: ClassVar[str | None] = "interp.views.patching_features:plotly"
    _widget: ClassVar[str | None] = None

    def name(self, index: Sequence[int]) -> str:
        """Return what the cell at `index` is called: a feature ``"2.417"``, or ``"2.417 position 3"``."""
        feature, *position = index
        return self.features[feature] + (f" position {position[0]}" if position else "")

    def _labels(self) -> Mapping[str, Sequence[Any]]:
        return {**super()._labels(), self.axes[0]: self.features}

    def to_frame(self) -> pd.DataFrame:
        """Return one row per cell: its feature, its position, the patched metric, effect, recovery, interval."""
        feature, *at = np.indices(self.patched.shape).reshape(len(self.axes), -1)
        table = frame_of({"feature": np.array(self.features)[feature]})
        if at:
            table["position"] = at[0]
            table["token"] = np.array(self.positions)[at[0]]
        table = table.assign(**self._columns(feature, *at))
        if self.estimate is not None:
            table["estimate"] = self.estimate.reshape(-1)
        return table
