"""Activation patching: which activation carries the answer from one prompt to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared.pairs import Encodings, encode
from interp.methods._shared.patching import estimate
from interp.methods._shared.patching.activations import likeliest
from interp.methods._shared.patching.effects import patched
from interp.results import strongest
from interp.results.effects import PatchedResult
from interp.results.tables import frame_of
from interp.sites import axes
from interp.spec import Indices, MetricName, ModelName, Pairs, SiteName, resolve_indices, resolve_metric

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.forecast.costs import Foresight
    from interp.engine.forecast.work import Work
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Case
    from interp.engine.patching.waves import Swept
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
        The token strings of the first pair's patched prompt, for a division by position.
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
        """Return what the cell at `index` is called: a head ``"5.1"``, or ``"L5 position 3"``.

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

    def to_frame(self) -> pd.DataFrame:
        """Return one row per cell: its axes, the patched metric, effect, recovery, interval and, if any, estimate."""
        grid = np.indices(self.patched.shape).reshape(len(self.axes), -1)
        table = frame_of(dict(zip(self.axes, grid, strict=True)) | {"layer": np.array(self.layers)[grid[0]]})
        if self.positions and "position" in self.axes:
            table["token"] = [self.positions[index] for index in grid[self.axes.index("position")]]
        table = table.assign(**self._columns(*grid))
        if self.estimate is not None:
            table["estimate"] = self.estimate.reshape(-1)
        return table


@technique(body=Pairs, forecasts=True)
def patch(
    model: LoadedModel,
    pairs: Pairs,
    *,
    site: SiteName = "z",
    by: Literal["layer", "head", "position", "head-position", "neuron"] = "head",
    metric: MetricName | None = None,
    direction: Literal["denoise", "noise"] = "denoise",
    layer: Indices = None,
    from_model: ModelName | None = None,
    method: Literal["exact", "attribution"] = "exact",
    steps: int = 1,
    verify: int = 0,
) -> PatchingResult:
    """Activation patching: put one run's activations into the other, one place at a time.

    Parameters
    ----------
    pairs
        Clean and corrupted prompts of one length, with answers.
    site
        resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v (before rotary), pattern or neuron.
    by
        How the site is divided.
    metric
        logit-diff, logit, logprob, prob, rank, kl, or the name of a function of yours.
    direction
        denoise puts clean activations into the corrupted run; noise the reverse.
    layer
        Layers to sweep, such as 5, 0-3 or 0,5,7; all when not given.
    from_model
        Another loaded model of the same shape whose activations on the same prompt are put in.
    method
        exact patches every cell, attribution estimates the effect of every node of every site from one gradient.
    steps
        Of an estimate: at how many points between the two prompts gradients are taken, 1 for first order.
    verify
        Of an estimate: how many of the cells where it is largest are patched exactly too.

    Returns
    -------
    PatchingResult
        Arrays over the axes that `by` names. Of an estimate, `effect` and the like are NaN but in the verified cells.

    Raises
    ------
    InputError
        Prompts that do not line up, answers that are not one token, a site that the model lacks, a metric without a
        gradient where one is needed, or flags that do not go together.
    Interrupted
        Stopped by Ctrl-C: the cells that are done, or the estimate of the pairs that are, are in its ``result``.

    Notes
    -----
    Meng et al. (2022), "Locating and Editing Factual Associations in GPT"; Heimersheim and Nanda (2024), "How to Use
    and Interpret Activation Patching". Every cell is exact: the replay's values are those of the hooked forward.
    Estimates: Nanda (2023), "Attribution Patching"; Syed et al. (2023); with more steps, the integral along the way
    from one prompt's embeddings to the other's (`interp.engine.attribution.attribute` says how).

    Examples
    --------
    >>> interp.patch("When John and Mary went to the store, Mary gave a drink to",
    ...              "When John and Mary went to the store, John gave a drink to",
    ...              answer=" John", wrong=" Mary").top(1)
    [('2.0', 19.79..., 0.42...)]
    """
    from interp.engine import metrics
    from interp.engine.forecast.costs import foresee
    from interp.engine.patching import sweep

    chosen = resolve_metric(metric or pairs.metric or "logit-diff")
    axes(site, by)
    layers = resolve_indices(layer, model.geometry.n_layers, "layer")
    model.require_site(site, layers)
    metrics.try_out(chosen, model.geometry.d_vocab_out, model.device)
    encoded = encode(model, pairs, chosen)
    other = _other(model, cast("LoadedModel | None", from_model))
    estimate.check(method, steps, verify, chosen, model, foreign=other is not model)
    lengths = {len(e.clean.ids) for e in encoded}
    if len(lengths) > 1 and "position" in by:
        raise InputError(
            f"the pairs have {min(lengths)} to {max(lengths)} tokens; by position they must have one length"
        )
    foreign = other is not model
    cases = pairs_of.cases(model, encoded, chosen, direction, foreign=foreign)
    shown, _ = encoded[0].runs(direction, foreign=foreign)
    positions = shown.strings if "position" in by else ()

    asked = {"site": site, "by": by, "layers": layers, "source_model": other}
    foresee(model, lambda: _forecast(model, cases, encoded, asked, method, steps, verify))
    estimated: estimate.Estimate | None = None
    if method == "attribution":
        estimate.room(model, cases, verify, site, by, layers)
        estimated = estimate.estimate(
            model, cases, site=site, by=by, layers=layers, steps=steps, source_model=other, on_step=model.on_step
        )
        encoded = [encoded[number] for number in estimated.found.kept]

    def made(swept: Swept, whole: bool = True) -> PatchingResult:
        name = "" if other is model else other.name
        found = patched(model, pairs, encoded, swept, chosen, direction, whole=whole, other=name)
        result = PatchingResult(
            **found,
            site=site,
            by=by,
            axes=axes(site, by),
            layers=layers,
            positions=positions,
            notes=_notes(swept, found, layers),
        )
        if estimated is None:
            return result
        return estimate.with_estimate(result, estimated, steps, foreign=other is not model)

    if estimated is not None and (estimated.found.interrupt is not None or not verify):
        swept = estimated.unverified()
    else:
        swept = sweep.sweep(
            model,
            cases,
            site=site,
            by=by,
            layers=layers,
            source_model=other,
            cells=None if estimated is None else estimated.largest(verify),
            on_step=model.on_step,
            on_partial=lambda swept: model.on_partial(lambda: made(swept.so_far(), whole=False)),
        ).run()
        swept = swept if estimated is None else estimated.verified_by(swept)
    model.note(swept.path, swept.notes)
    return unless_interrupted(made(swept), swept.interrupt)


def _forecast(
    model: LoadedModel,
    cases: Sequence[Case],
    encoded: Sequence[Encodings],
    asked: Mapping[str, Any],
    method: str,
    steps: int,
    verify: int,
) -> tuple[Foresight, Work]:
    """Return the work of the estimate, of the sweep or of what is verified, and of looking at the pairs' answers."""
    from interp.engine.forecast.work import NOTHING, Stored
    from interp.engine.patching import attribution, foreseen, sweep
    from interp.engine.patching.driver import silent

    stored, sight, work = Stored(model), None, NOTHING
    if method == "attribution":
        source, one = asked["source_model"], asked["by"] == "neuron"
        job = attribution.Job(model, cases, steps, one, asked["site"], source, silent)
        sight, work = foreseen.of_estimate(job, stored)
    if method == "exact" or verify:
        # Which cells an estimate finds the largest is not known before: some from everywhere stand for them.
        size = int(np.prod(sweep.shape_of(model, asked["site"], asked["by"], asked["layers"], len(cases[0].base))))
        cells = None if method == "exact" else np.linspace(0, size - 1, verify).astype(int).tolist()
        of, more = foreseen.of_sweep(sweep.sweep(model, cases, cells=cells, **asked), stored=stored)
        sight, work = sight or of, work + more
    assert sight is not None
    return sight, work + pairs_of.looked_at(model, encoded, stored, sight)


def _notes(swept: Swept, found: Mapping[str, Any], layers: Sequence[int]) -> tuple[str, ...]:
    """Return what a sweep did not get to, what the pairs give to think about, and where the metric is not finite."""
    first = [f"partial: {swept.stopped}; cells that were not reached are NaN"] if swept.stopped else []
    lost = np.argwhere(found["done"] & ~np.isfinite(found["patched"]))
    notes = [*first, *found["checks"].warnings]
    if len(lost):
        notes.append(f"the metric is NaN or infinite in {len(lost)} cells, first in layer {layers[lost[0][0]]}")
    return tuple(notes)


def _other(model: LoadedModel, named: LoadedModel | None) -> LoadedModel:
    if named is None:
        return model
    ours, theirs = model.geometry, named.geometry
    if (ours.n_layers, ours.n_heads, ours.n_kv_heads, ours.d_model) != (
        theirs.n_layers,
        theirs.n_heads,
        theirs.n_kv_heads,
        theirs.d_model,
    ):
        raise InputError(f"{named.name} is not of the shape of {model.name}: its activations do not fit")
    return named
