"""Ablation: what the model does without some of its heads, MLPs, directions or single edges of attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from interp.errors import unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import named_positions, several, texts
from interp.methods._shared.intervals import interval, too_few
from interp.methods._shared.pairs import encode
from interp.methods._shared.patching import samples as measured
from interp.methods._shared.patching import streamed, taken_away
from interp.results import Result
from interp.results.per_pair import PairTable
from interp.results.tables import frame_of, lines_of
from interp.spans import Positions
from interp.spec import (
    Components,
    Direction,
    FeaturesName,
    HeadNames,
    Indices,
    MetricName,
    Pairs,
    StreamSite,
    Texts,
    resolve_metric,
)

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.ablation import Ablated
    from interp.methods._shared.named_positions import Spanned
    from interp.methods._shared.pairs import Encodings
    from interp.results.tables import Float

_CUT = "edges cut before the softmax"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class AblationResult(Result):
    """The metric, or the loss on text, without components: each alone, and all of them.

    Attributes
    ----------
    components
        What was taken away: heads ``"9.9"``, MLPs ``"3.mlp"``, directions ``"5.direction"``, edges ``"9.9:14->2"``,
        also between spans and of several heads, ``"END->IO"``, features ``"F2.417"``.
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
    at
        The positions, or the span, where outputs and coordinates were taken away; empty where that was everywhere.
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
    at: str = ""

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
            f"{self.provenance.model}: {self.metric} {values[0]}, without {named}{self.at and f' at {self.at}'} "
            f"{values[1]} "
            f"({self.mode}, {count} prompt{'s' * (count != 1)}){part}"
        )

    def _pairs(self) -> PairTable:
        axes = {"condition": self.conditions, "prompt": range(self.per_prompt.shape[1])}
        return PairTable(axes, {"value": self.per_prompt}, {"value": "per_prompt"})

    def _lines(self) -> list[str]:
        rows = zip(self.conditions, self.values.tolist(), self.effect.tolist(), strict=True)
        return lines_of(("without", self.metric, "effect"), list(rows)[:12])

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


@technique(body=Pairs | Texts, forecasts=True, changes=True, per_pair=True)
def ablate(
    model: LoadedModel,
    data: Pairs | Texts,
    *,
    heads: HeadNames | None = None,
    mlps: Indices = None,
    knockout: Components | None = None,
    at: Positions = None,
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
        Edges of attention to cut, head:query->key, such as 9.9:14->2; 9.9:*->2 cuts every later query's. Ends may be
        spans, all of whose tokens are meant: 9.9:END->IO; of all heads of some layers 3-6:END->IO, of all END->IO.
    at
        Positions at which heads, MLPs, directions and features become so, by number or by the names of spans, such as
        S2 or IO,END; everywhere when not given.
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

    away = taken_away.asked(model, heads, mlps, knockout, (direction, layer, site), (feature, features), at=at)
    pairs: list[Encodings] = []
    prompts: list[Spanned] = []
    chosen = resolve_metric(
        metric or ("loss" if isinstance(data, Texts) else data.metric or "logit-diff"), several=True
    )
    if not chosen.several:
        metrics.try_out(chosen, model.geometry.d_vocab_out, model.device)
    words: Any = {"mode": mode, "metric": chosen.name, "seed": seed, "at": away.at}
    if streamed.applies(data, away, mode):
        ran, weights, noted = streamed.ablated(model, cast("Texts", data), away, chosen, mode, seed)
        model.note(ran.path, [*ran.notes, *away.notes, *streamed.note(noted, len(weights))])
        said = "zero" if away.replaces else _CUT
        result = _result(ran, away.names, weights, replacement=said, task=cast("Texts", data).source, **words)
        return unless_interrupted(result, ran.interrupt)
    if isinstance(data, Texts):
        encoded = texts.encode(model, away.read(data))
        prompts = named_positions.of_texts(model, encoded) if away.named else []
        samples = measured.of_texts(model, encoded, chosen)
        references, task = [one.ids for one in samples], data.source
    else:
        pairs = encode(model, data, chosen, any_length=away.named, several=True)
        samples, references, of = measured.of_pairs(model, pairs, chosen)
        if away.named:
            named = named_positions.of_pairs(model, data)
            prompts = [named[number] for number in of]
        task = data.task
    if chosen.several:
        metrics.try_out(chosen, model.geometry.d_vocab_out, model.device, min(len(one.ids) for one in samples))
    references = list(dict.fromkeys(references))
    samples = away.placed(model, samples, prompts)
    taken: list[int] = []
    if mode == "resample" and away.replaces:
        exact = isinstance(data, Pairs) or not model.geometry.causal
        taken = ablation.donors(samples, references, exact=exact, seed=seed)
    options: Any = {"mode": mode, "references": references, "taken": taken, "seed": seed}
    options |= {"components": away.components, "at": away.where(prompts)}
    job = ablation.ablate(model, samples, away.parts, **options, on_step=model.on_step)
    foresee(model, lambda: foreseen.of_ablation(job))
    ran = job.run()
    model.note(ran.path, [*ran.notes, *away.notes])
    said = taken_away.replacement(mode, references, seed) if away.replaces else _CUT
    if pairs and pairs[0].answers:
        ran = several.of_samples(ran, pairs, chosen)
    weights = np.array([len(s.ids) - 1 for s in samples] if isinstance(data, Texts) and chosen.of_text else 1.0)
    weights = np.broadcast_to(weights, ran.values.shape[1:]).copy()
    result = _result(ran, away.names, weights, replacement=said, task=task, **words)
    return unless_interrupted(result, ran.interrupt)


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
    at: str,
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
        at=at,
        notes=tuple(notes),
    )
