"""Activation patching: which activation carries the answer from one prompt to another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared import several, span_places
from interp.methods._shared.models import require_shape
from interp.methods._shared.pairs import Encodings, encode
from interp.methods._shared.patching import estimate, features_swept
from interp.methods._shared.patching.effects import patched
from interp.methods._shared.patching.result import FeaturePatchingResult, PatchingResult
from interp.sites import FEATURES, axes
from interp.spec import (
    FeaturesName,
    Indices,
    MetricName,
    ModelName,
    Pairs,
    SiteName,
    resolve_indices,
    resolve_metric,
)

if TYPE_CHECKING:
    from interp.engine.forecast.costs import Foresight
    from interp.engine.forecast.work import Work
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.attribution import Attributed, Job
    from interp.engine.patching.waves import Sweep, Swept


@technique(body=Pairs, forecasts=True, changes=True, per_pair=True)
def patch(
    model: LoadedModel,
    pairs: Pairs,
    *,
    site: SiteName = "z",
    by: Literal["layer", "head", "position", "head-position", "neuron", "span", "feature", "feature-position"]
    | None = None,
    metric: MetricName | None = None,
    direction: Literal["denoise", "noise"] = "denoise",
    layer: Indices = None,
    from_model: ModelName | None = None,
    method: Literal["exact", "attribution"] = "exact",
    steps: int = 1,
    verify: int = 0,
    align: Literal["last", "mean", "each"] = "last",
    features: FeaturesName | None = None,
) -> PatchingResult:
    """Activation patching: put one run's activations into the other, one place at a time.

    Parameters
    ----------
    pairs
        Clean and corrupted prompts, with answers: of one length, unless they are patched by span.
    site
        resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v (before rotary), pattern or neuron; or features:
        those of the dictionaries that are loaded.
    by
        How the site is divided; by head when not given, features by feature. Spans are pieces of a prompt with a name,
        marked as [Mary]{IO}, or a task's slots; of a pair that marks none they are what both prompts begin with, what
        differs, and what both end with. The last position is END.
    metric
        logit-diff, logit, logprob, prob, rank, kl, loss (of the clean text's tokens, or loss:SPAN of a span's), or the
        name of a function of yours, of the last position's logits or of all (function.positions = "all"). Answers may
        be several tokens for logit-diff, logprob and prob: docs/metrics.md.
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
    align
        By span: what a span is given whose prompts have different lengths of it. last gives its last token that of
        the other prompt's, mean every token the other's mean, each refuses; of one length, each is given its own.
    features
        With --site features: a loaded set of features; the one loaded last when not given.

    Returns
    -------
    PatchingResult
        Arrays over the axes that `by` names; of features those are cells that are active in any of the runs, which are
        made before anything is forecast. Of an estimate, `effect` and the like are NaN but in the verified cells.

    Raises
    ------
    InputError
        Prompts that do not line up, answers that the metric does not take, a site that the model lacks, a metric
        without a gradient where one is needed, or flags that do not go together.
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
    from interp.engine.patching import attribution, sweep

    chosen = resolve_metric(metric or pairs.metric or "logit-diff", several=True)
    by = by or ("feature" if site == FEATURES.name else "head")
    axes(site, by)
    if features is not None and site != FEATURES.name:
        raise InputError(f"--features names a set of dictionaries, and {site} has none; add --site features")
    if site == FEATURES.name:
        dictionaries = features_swept.dictionaries_of(model, features, layer)
        layers = tuple(one.layer for one in dictionaries)
    else:
        dictionaries = None
        layers = resolve_indices(layer, model.geometry.n_layers, "layer")
        model.require_site(site, layers)
    if not chosen.several:
        metrics.try_out(chosen, model.geometry.d_vocab_out, model.device)
    encoded = encode(model, pairs, chosen, spans=by == "span", several=True)
    length = len(encoded[0].clean.ids)
    if chosen.several:
        metrics.try_out(chosen, model.geometry.d_vocab_out, model.device, length)
    other = _other(model, cast("LoadedModel | None", from_model))
    foreign = other is not model
    estimate.check(method, steps, verify, chosen, model, length, foreign=foreign)
    lengths = {len(e.clean.ids) for e in encoded}
    if len(lengths) > 1 and "position" in by:
        raise InputError(
            f"the pairs have {min(lengths)} to {max(lengths)} tokens; by position they must have one length"
        )
    padding = several.padding(encoded) if "position" in by else 0
    cases = pairs_of.cases(model, encoded, chosen, direction, foreign=foreign, align=align, padding=padding)
    if method == "attribution":
        several.require_linear(encoded, chosen)
    shown, _ = encoded[0].runs(direction, foreign=foreign)
    positions = shown.strings if "position" in by else tuple(encoded[0].spans)
    swept_over = features_swept.Asked(model, other, cases, dictionaries, by) if dictionaries is not None else None

    def begin(**more: Any) -> Sweep:
        if padding:
            more["cells"] = several.cells_of(more.get("cells"), shape(), length)
        if swept_over is not None:
            return swept_over.sweep(**more)
        return sweep.sweep(model, cases, site=site, by=by, layers=layers, source_model=other, **more)

    def shape() -> tuple[int, ...]:
        if swept_over is not None:
            return swept_over.features.shape(by, length + padding)
        return sweep.shape_of(model, site, by, layers, length + padding)

    every, spans = encoded, [case.spans for case in cases[:: max(1, len(cases) // len(encoded))]]

    def folded(swept: Swept) -> Swept:
        return several.folded(swept, every, chosen, length=length if padding else None)

    def merged(found: Attributed) -> Attributed:
        return several.summed(found, every, chosen)

    def estimating() -> attribution.Job:
        if swept_over is not None:
            return swept_over.estimate(steps, model.on_step)
        return attribution.Job(model, cases, steps, by == "neuron", site, other, model.on_step)

    foresee(model, lambda: _forecast(model, encoded, begin, estimating if method != "exact" else None, verify))
    estimated: estimate.Estimate | None = None
    if method == "attribution":
        estimate.room(verify, begin())
        if swept_over is not None:
            estimated = swept_over.estimated(steps, model.on_step, merged, length if padding else None)
        else:
            estimated = estimate.estimate(
                model, estimating(), merged, site=site, by=by, layers=layers, length=length, spans=spans
            )
        encoded = [encoded[number] for number in estimated.found.kept]

    def made(swept: Swept, whole: bool = True) -> PatchingResult:
        name = other.name if foreign else ""
        found = patched(model, pairs, encoded, swept, chosen, direction, whole=whole, other=name)
        kind: Callable[..., PatchingResult] = PatchingResult
        if swept_over is not None and "feature" in by:
            kind = partial(FeaturePatchingResult, features=swept_over.names)
        result = kind(**found, site=site, by=by, axes=axes(site, by), layers=layers, positions=positions)
        unequal = () if not encoded[0].spans or foreign else span_places.unequal([e.spans for e in encoded], align)
        result = replace(result, notes=(*_notes(swept, result), *unequal))
        if estimated is None:
            return result
        return estimate.with_estimate(result, estimated, steps, foreign=foreign)

    def offer(swept: Swept) -> None:
        if swept_over is None or "feature" not in by:  # of single features there is no live view
            model.on_partial(lambda: made(folded(swept.so_far()), whole=False))

    if estimated is not None and (estimated.found.interrupt is not None or not verify):
        swept = estimated.unverified()
    else:
        cells = None if estimated is None else estimated.largest(verify)
        swept = folded(begin(cells=cells, on_step=model.on_step, on_partial=offer).run())
        swept = swept if estimated is None else estimated.verified_by(swept)
    model.note(swept.path, swept.notes)
    return unless_interrupted(made(swept), swept.interrupt)


def _forecast(
    model: LoadedModel,
    encoded: Sequence[Encodings],
    begin: Callable[..., Sweep],
    estimating: Callable[[], Job] | None,
    verify: int,
) -> tuple[Foresight, Work]:
    """Return the work of the estimate, of the sweep or of what is verified, and of looking at the pairs' answers."""
    from interp.engine.forecast.work import NOTHING, Stored
    from interp.engine.patching import foreseen

    stored, sight, work = Stored(model), None, NOTHING
    if estimating is not None:
        sight, work = foreseen.of_estimate(estimating(), stored)
    if estimating is None or verify:
        # Which cells an estimate finds the largest is not known before: some from everywhere stand for them.
        cells = None
        if estimating is not None:
            cells = np.linspace(0, len(begin().chosen) - 1, verify).astype(int).tolist()
        of, more = foreseen.of_sweep(begin(cells=cells), stored=stored)
        sight, work = sight or of, work + more
    assert sight is not None
    return sight, work + pairs_of.looked_at(model, encoded, stored, sight)


def _notes(swept: Swept, result: PatchingResult) -> tuple[str, ...]:
    """Return what a sweep did not get to, what the pairs give to think about, and where the metric is not finite."""
    first = [f"partial: {swept.stopped}; cells that were not reached are NaN"] if swept.stopped else []
    lost = np.argwhere(result.done & ~np.isfinite(result.patched))
    notes = [*first, *result.checks.warnings]
    if len(lost):
        where = result.name(lost[0]) if "feature" in result.axes else f"layer {result.layers[lost[0][0]]}"
        notes.append(f"the metric is NaN or infinite in {len(lost)} cells, first in {where}")
    return tuple(notes)


def _other(model: LoadedModel, named: LoadedModel | None) -> LoadedModel:
    if named is None:
        return model
    require_shape(model, named)
    return named
