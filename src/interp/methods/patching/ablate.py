"""Ablation: what the model does without some of its heads, MLPs, directions or single edges of attention."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import directions, names, several
from interp.methods._shared.features import features_of
from interp.methods._shared.intervals import interval, too_few
from interp.methods._shared.pairs import encode
from interp.methods._shared.patching import samples as measured
from interp.results import Result
from interp.results.tables import frame_of
from interp.sites import Site
from interp.spec import (
    Components,
    Direction,
    FeaturesName,
    Indices,
    MetricName,
    Pairs,
    StreamSite,
    Texts,
    resolve_indices,
    resolve_metric,
)

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.ablation import Ablated, Part, Sample
    from interp.methods._shared.pairs import Encodings
    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class AblationResult(Result):
    """The metric, or the loss on text, without components: each alone, and all of them.

    Attributes
    ----------
    components
        What was taken away: heads ``"9.9"``, MLPs ``"3.mlp"``, directions ``"5.direction"``, edges ``"9.9:14->2"``,
        features ``"F2.417"``.
    mode, replacement
        ``zero``, ``mean``, ``resample`` or ``noise``, and in words what the components' outputs, or the coordinates
        along directions, became. Edges are cut whatever the mode.
    metric
        What was measured; ``"loss"`` is the mean next-token cross-entropy, in nats per token.
    conditions
        The rows of the arrays: ``"unablated"``, each component, and ``"all"`` where there are several.
    values
        ``float64 [condition]``: mean over prompts, a text weighted by its tokens; NaN where it was not reached.
    effect
        ``float64 [condition]``: less the unablated value.
    value_interval, effect_interval
        ``float64 [2, condition]``: 95 % intervals over prompts; NaN for fewer than four.
    additive, additive_interval
        What `values` of ``"all"`` would be if effects added up: unablated + Σ effects of each alone.
    superadditive, superadditive_interval
        Effect of all together less the sum of each alone, and its interval. On a metric that ablation lowers, negative
        means that the components stand in for each other: self-repair hides what each does alone.
    per_prompt
        ``float64 [condition, prompt]``.
    weights
        ``float64 [prompt]``: what a prompt counts: 1, or a text's predicted tokens.
    task
        The task, or the file of texts, that the prompts came from, or an empty string.
    seed
        What `resample` and `noise` were drawn with.
    """

    components: tuple[str, ...]
    mode: str
    replacement: str
    metric: str
    conditions: tuple[str, ...]
    values: Float
    effect: Float
    value_interval: Float
    effect_interval: Float
    additive: float
    additive_interval: Float
    superadditive: float
    superadditive_interval: Float
    per_prompt: Float
    weights: Float
    task: str = ""
    seed: int = 0

    _html: ClassVar[str] = "interp.views.ablate:html"
    _svg: ClassVar[str | None] = "interp.views.ablate:svg"
    _plotly: ClassVar[str | None] = "interp.views.ablate:plotly"

    def summary(self) -> str:
        """Return the metric with and without the components."""
        named = self.components[0] if len(self.components) == 1 else f"{len(self.components)} components"
        done = np.isfinite(self.per_prompt)
        part = "" if done.all() else f", {int(done.sum())}/{done.size} done"
        values = [f"{value:+.3f}" if np.isfinite(value) else "not finite" for value in self.values[[0, -1]]]
        if part:
            values = [value.replace("not finite", "not computed") for value in values]
        count = self.per_prompt.shape[1]
        return (
            f"{self.provenance.model}: {self.metric} {values[0]}, without {named} {values[1]} "
            f"({self.mode}, {count} prompt{'s' * (count != 1)}){part}"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per condition, and where there are several components what adding up would give."""
        table = frame_of({"without": self.conditions, self.metric: self.values})
        table["low"], table["high"] = self.value_interval
        table["effect"] = self.effect
        table["effect low"], table["effect high"] = self.effect_interval
        if len(self.components) > 1:
            unknown = [np.nan, np.nan]
            added = [self.additive, *self.additive_interval, self.additive - self.values[0], *unknown]
            table.loc[len(table)] = ["all, if additive", *added]
            table.loc[len(table)] = ["all − Σ each", np.nan, *unknown, self.superadditive, *self.superadditive_interval]
        return table


@technique(body=Pairs | Texts, forecasts=True, changes=True)
def ablate(
    model: LoadedModel,
    data: Pairs | Texts,
    *,
    heads: Components | None = None,
    mlps: Indices = None,
    knockout: Components | None = None,
    direction: Direction = None,
    layer: Indices = None,
    site: StreamSite | None = None,
    mode: Literal["zero", "mean", "resample", "noise"] = "zero",
    metric: MetricName | None = None,
    seed: int = 0,
    feature: Components | None = None,
    features: FeaturesName | None = None,
) -> AblationResult:
    """Ablation: run the model without some components, each alone and all together.

    A head's output (its z) or an MLP's output becomes, at every position: with ``zero`` nothing; with ``mean`` its mean
    over the prompts (over clean and corrupted ones of pairs), position by position where all have one length, else over
    all positions but the first, which has its own; with ``resample`` its value on another prompt, drawn by `seed`; with
    ``noise`` itself and Gaussian noise of its own standard deviation over the prompts. An edge of attention that is
    knocked out is taken away before the softmax: the query's other keys share its weight. Of a direction it is the
    coordinate of the residual stream along it that becomes so; with ``zero`` the direction is projected out. Of a
    feature it is its activation; what its dictionary does not explain stays, and features of higher layers are read
    anew in the run that those below have changed.

    Parameters
    ----------
    data
        Pairs, of which the clean prompts are measured, or texts, whose loss is.
    heads
        Heads to ablate, such as 9.9,10.0.
    mlps
        Layers whose MLPs to ablate, such as 3,5.
    knockout
        Edges of attention to cut, head:query->key, such as 9.9:14->2; 9.9:*->2 cuts every later query's.
    direction
        A direction to take out of the residual stream: an array [d_model], one per layer [n_layers, d_model], or a
        result that has one, such as a probe's, or a feature's decoder (F2.417); in a magic, the name of a variable.
    layer
        Layers at which it is taken out; the one where it was found when not given: a probe's best.
    site
        resid_pre is before the layer, resid_mid between attention and MLP, resid_post after it; where the direction was
        found when not given, else resid_post.
    mode
        What the outputs of heads and MLPs, and the coordinates along directions, become.
    metric
        Of pairs: as in interp.patch, kl is from the unablated run. Of texts: their loss, or a function of all logits.
    seed
        Of a task's pairs, and of what resample and noise draw.
    feature
        Features to ablate, such as 2.417,F3.5: layer and number.
    features
        The loaded set that they are of; the one loaded last when not given.

    Returns
    -------
    AblationResult
        The metric or the loss in each condition, with intervals, and what is not additive.

    Raises
    ------
    InputError
        A component that is not there, an edge that cannot be cut, no direction or one without a layer, or no other
        prompt to resample from.

    Notes
    -----
    Wang et al. (2022), "Interpretability in the Wild" (mean ablation); Chan et al. (2022), "Causal Scrubbing"
    (resampling); McGrath et al. (2023), "The Hydra Effect" (self-repair); Geva et al. (2023), "Dissecting Recall of
    Factual Associations" (knockout); Elazar et al. (2021), "Amnesic Probing" (a probe's direction projected out);
    Arditi et al. (2024), "Refusal in Language Models Is Mediated by a Single Direction".

    Examples
    --------
    >>> interp.ablate(task="ioi", heads="0.0,1.0", mode="mean").superadditive
    11.62...
    """
    from interp.engine import metrics
    from interp.engine.forecast.costs import foresee
    from interp.engine.patching import ablation, foreseen

    found, names = _parts(model, heads, mlps, knockout, directed=direction is not None or feature is not None)
    along, notes = _along(model, direction, layer, site)
    of_features = _features(model, feature, features)
    for part in [*found, *along]:
        model.require_site("pattern" if part.site == "scores" else part.site, [part.layer])
    found = [*found, *along, *of_features]
    directed = (f"{part.layer}.direction" for part in along)
    names = (*names, *directed, *(f"F{part.layer}.{part.feature}" for part in of_features))
    pairs: list[Encodings] = []
    chosen = resolve_metric(
        metric or ("loss" if isinstance(data, Texts) else data.metric or "logit-diff"), several=True
    )
    if not chosen.several:
        metrics.try_out(chosen, model.geometry.d_vocab_out, model.device)
    if isinstance(data, Texts):
        samples = measured.of_texts(model, data, chosen)
        references, task = [one.ids for one in samples], data.source
    else:
        pairs = encode(model, data, chosen, several=True)
        samples, references = measured.of_pairs(model, pairs, chosen)
        task = data.task
    if chosen.several:
        metrics.try_out(chosen, model.geometry.d_vocab_out, model.device, min(len(one.ids) for one in samples))
    references = list(dict.fromkeys(references))
    _check_edges(model, found, names, samples)
    replaced = any(part.site != "scores" for part in found)
    taken: list[int] = []
    if mode == "resample" and replaced:
        exact = isinstance(data, Pairs) or not model.geometry.causal
        taken = ablation.donors(samples, references, exact=exact, seed=seed)
    options: Any = {"mode": mode, "references": references, "taken": taken, "seed": seed}
    job = ablation.ablate(model, samples, found, **options, on_step=model.on_step)
    foresee(model, lambda: foreseen.of_ablation(job))
    ran = job.run()
    model.note(ran.path, [*ran.notes, *notes])
    said = _replacement(mode, references, seed) if replaced else "edges cut before the softmax"
    if pairs and pairs[0].answers:
        ran = several.of_samples(ran, pairs, chosen)
    weights = np.array([len(s.ids) - 1 for s in samples] if isinstance(data, Texts) and chosen.of_text else 1.0)
    weights = np.broadcast_to(weights, ran.values.shape[1:]).copy()
    result = _result(ran, names, weights, mode=mode, replacement=said, metric=chosen.name, task=task, seed=seed)
    return unless_interrupted(result, ran.interrupt)


def _parts(
    model: LoadedModel, heads: Components | None, mlps: Indices, knockout: Components | None, *, directed: bool
) -> tuple[list[Part], tuple[str, ...]]:
    from interp.engine.patching.ablation import Part

    geometry = model.geometry
    if heads is None and mlps is None and knockout is None and not directed:
        raise InputError(
            "say what to ablate: --heads 9.9,10.0, --mlps 3, or --knockout 9.9:14->2, or --feature 2.417, or "
            "--direction NAME --layer 5"
        )
    nodes = names.heads(heads, geometry) if heads is not None else []
    layers = resolve_indices(mlps, geometry.n_layers, "mlp") if mlps is not None else ()
    cuts = names.cuts(knockout, geometry) if knockout is not None else []
    parts = [
        *(Part("z", node.layer, node.head) for node in nodes),
        *(Part("mlp_out", layer) for layer in layers),
        *(Part("scores", cut.layer, cut.head, cut.query, cut.key) for cut in cuts),
    ]
    return parts, (*(node.name for node in nodes), *(f"{n}.mlp" for n in layers), *(cut.name for cut in cuts))


def _along(model: LoadedModel, value: Any, layer: Indices, site: str | None) -> tuple[list[Part], list[str]]:
    """Return the direction as what is taken away at each of its layers, and notes on it."""
    from interp.engine.patching.ablation import Part

    if value is None:
        for flag, one in (("layer", layer), ("site", site)):
            if one is not None:
                raise InputError(f"--{flag} says where a direction is taken out: name it with --direction")
        return [], []
    found_in, found_at = directions.place_of(model, value)
    if layer is None and found_at is None:
        raise InputError("say at which layers the direction is taken out: --layer 5, or 3-6")
    parts: list[Part] = []
    notes: list[str] = []
    for at in resolve_indices(found_at if layer is None else layer, model.geometry.n_layers, "layer"):
        place = Site(site or found_in, at)
        vector, _, said = directions.given(model, place, value)
        notes += [note for note in said if note not in notes]
        parts.append(Part(place.name, at, direction=vector / vector.norm()))
    return parts, notes


def _features(model: LoadedModel, named: Any, name: str | None) -> list[Part]:
    """Return features as what is taken away."""
    from interp.engine.features.edits import sites_of
    from interp.engine.patching.ablation import Part

    if named is None:
        if name is not None:
            raise InputError("--features names the set that features are of: say which with --feature 2.417")
        return []
    given = features_of(model, name)
    listed = [given.feature(one) for one in names.words(named, "--feature")]
    parts = [Part(sites_of(one)[0].name, one.layer, feature=number, dictionary=one) for one, number in listed]
    return list(dict.fromkeys(parts))


def _check_edges(model: LoadedModel, parts: Sequence[Part], names: Sequence[str], samples: Sequence[Sample]) -> None:
    """Refuse edges at positions that a prompt does not have, and those that leave a query without any key."""
    edges = [(part, name) for part, name in zip(parts, names, strict=True) if part.site == "scores"]
    for number, sample in enumerate(samples):
        length = len(sample.ids)
        where = f"prompt {number}" if len(samples) > 1 else "the prompt"
        gone: dict[tuple[int, int, int], set[int]] = defaultdict(set)
        for part, name in edges:
            far = max(part.key + (part.query is None and model.geometry.causal), part.query or 0)
            if far >= length:
                raise InputError(f"--knockout {name!r} is beyond {where}, whose positions are 0–{length - 1}")
            queries = range(length) if part.query is None else [part.query]
            for query in queries:
                if part.query is not None or query > part.key or (query != part.key and not model.geometry.causal):
                    gone[part.layer, part.head, query].add(part.key)
        for (layer, head, query), keys in gone.items():
            if len(keys) == (query + 1 if model.geometry.causal else length):
                raise InputError(
                    f"--knockout cuts every key of query {query} in {layer}.{head}: something must be left; "
                    f"leave out one of {', '.join(f'{layer}.{head}:{query}->{key}' for key in sorted(keys)[:3])}"
                )


def _replacement(mode: str, references: Sequence[tuple[int, ...]], seed: int) -> str:
    from interp.engine.patching.ablation import by_position

    over = f"{len(references)} prompt{'s' * (len(references) != 1)}"
    if mode == "zero":
        return "zero"
    if mode == "mean":
        way = "position by position" if by_position(references) else "and all positions, the first apart"
        return f"mean over {over}, {way}" if by_position(references) else f"mean over {over} {way}"
    if mode == "resample":
        return f"another prompt's, drawn from {over}, seed {seed}"
    return f"itself and Gaussian noise of its own standard deviation over {over}, seed {seed}"


def _result(
    ran: Ablated,
    names: tuple[str, ...],
    weights: Float,
    *,
    mode: str,
    replacement: str,
    metric: str,
    task: str,
    seed: int,
) -> AblationResult:
    per_prompt: Float = ran.values.numpy()
    each = per_prompt.T  # [prompt, condition]
    share = weights / weights.sum()
    values = share @ each
    count = len(names)
    alone, whole = each[:, 1 : count + 1], each[:, -1]
    base = each[:, :1]
    additive = base[:, 0] + (alone - base).sum(axis=1)
    notes = too_few(len(each), "prompts")
    lost = np.isinf(per_prompt).any() or (np.isnan(per_prompt).any() and not ran.stopped)
    if lost:
        notes.append(f"the metric is NaN or infinite in {int((~np.isfinite(per_prompt)).sum())} runs")
    if ran.stopped:
        notes.append(f"partial: {ran.stopped}; what was not reached is NaN")
    return AblationResult(
        components=names,
        mode=mode,
        replacement=replacement,
        metric=metric,
        conditions=("unablated", *names, *(("all",) if count > 1 else ())),
        values=values,
        effect=values - values[0],
        value_interval=interval(each, weights=weights),
        effect_interval=interval(each - base, weights=weights),
        additive=float(share @ additive),
        additive_interval=interval(additive, weights=weights),
        superadditive=float(share @ (whole - additive)),
        superadditive_interval=interval(whole - additive, weights=weights),
        per_prompt=per_prompt,
        weights=weights,
        task=task,
        seed=seed,
        notes=tuple(notes),
    )
