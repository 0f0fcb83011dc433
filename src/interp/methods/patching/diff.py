"""What a fine-tune changed: components of one model, put into another of its shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import texts
from interp.methods._shared.circuit import changes
from interp.methods._shared.diff_result import DiffResult
from interp.methods._shared.intervals import of_ratio, too_few
from interp.methods._shared.models import require_causal, require_shape
from interp.methods._shared.pairs import cases, encode
from interp.methods._shared.patching import samples as measured
from interp.spec import MetricName, ModelName, Pairs, Texts, resolve_metric

if TYPE_CHECKING:
    from interp.engine.circuits.edges import EdgeScores
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation
    from interp.engine.patching.ablation import Sample
    from interp.engine.patching.difference import Carried


_CONTINUED = 3  # prompts that both models go on with


@technique(body=Pairs | Texts, model="base")
def diff(
    model: LoadedModel,
    data: Pairs | Texts,
    tuned: ModelName | None = None,
    *,
    what: Literal["weights", "activations"] = "weights",
    metric: MetricName | None = None,
    share: float = 0.9,
    tokens: int = 12,
    edges: int | None = None,
) -> DiffResult:
    """What a fine-tune changed: each component of one model put into another, and the fewest that carry the change.

    Of two models of one shape, such as a base and its fine-tune, each component of the second is put into the first,
    alone, and the metric measured. With ``weights`` a component is a function: a head is the other model's head (its
    norm, queries, keys, values and output) on the residual stream of the first, and so are MLPs, the embedding and the
    unembedding. What was not trained then has an effect of exactly zero. With ``activations`` it is what the component
    was in the other model's run, which contains what came from below. Then a small set that together carries `share` of
    the difference is looked for: the strongest are taken until it is carried, and what is not needed is left out again.

    Parameters
    ----------
    data
        Pairs, of which the clean prompts are run, or texts, whose loss is measured.
    tuned
        The other model; when not given, the first one must have been loaded with an adapter, and is itself the second:
        the first is then what it was without.
    what
        weights puts components in as functions, activations as what they were in the other model's run.
    metric
        Of pairs: logit-diff, logit, logprob, prob, rank, kl (from the other model), or a function of yours.
    share
        How much of the difference the set is to carry; 0 looks for none.
    tokens
        How many tokens both models go on with after the first three prompts, the likeliest each; 0 for none.
    edges
        Of pairs: score the edges of both models by EAP-IG too, as circuit does, and say which one's circuit of so many
        edges, such as 200, has that the other's has not; not done when not given.

    Returns
    -------
    DiffResult
        Each component's effect and share, how far its weights have moved, and the set.

    Raises
    ------
    InputError
        Models of two shapes, or that cut the prompts into other tokens, one whose blocks are not known, or one model
        alone that has no adapter.
    Interrupted
        Stopped by Ctrl-C: the components so far are in its ``result``.

    Notes
    -----
    Activations between models: Prakash et al. (2024), "Fine-Tuning Enhances Existing Mechanisms" (cross-model
    activation patching). A set found so carries the change; it need not be the only one, nor the smallest.

    An edge is gained where it is in the tuned model's circuit alone, the 95 % interval over pairs of its change leaves
    0 out, and its score in the other model stays, by its interval, below the weakest edge of that one's circuit.

    Examples
    --------
    >>> interp.diff("bundled", "bundled", task="ioi", n=4).change
    0.0
    """
    require_causal(model, "diff")
    if not 0 <= share <= 1:
        raise InputError(f"--share {share} is no share of the difference; use 0 to 1")
    if tokens < 0:
        raise InputError(f"--tokens {tokens} is less than none; use 0 or more")
    if edges is not None and edges < 1:
        raise InputError(f"--edges {edges} keeps nothing; use 1 or more, such as 200")
    if edges is not None and not isinstance(data, Pairs):
        raise InputError("--edges needs pairs, whose corrupted prompts ablate an edge; name a --task")
    asked: dict[str, Any] = {"what": what, "metric": metric, "share": share, "tokens": tokens, "edges": edges}
    if tuned is None:
        return _adapted(model, data, **asked)
    other: Any = tuned  # the session has made a model of the name
    return _compared(model, other, data, **asked)


def _adapted(model: LoadedModel, data: Pairs | Texts, **asked: Any) -> DiffResult:
    """Compare a model with what it was without its adapter, which is loaded for that and let go of."""
    from interp.engine.model.load import without_adapter

    model.alive("loading it without its adapter")
    plain = without_adapter(model)
    record = model.operation

    def inner(operation: Operation) -> DiffResult:
        if record is not None:
            operation.on_step, operation.on_forward = record.on_step, record.on_forward
        try:
            return _compared(plain, model, data, **asked)
        finally:
            model.note(operation.path, operation.notes)
            model.count(operation.forwards)

    try:
        return plain.operate("diff", {}, inner)
    finally:
        plain.close()


def _compared(
    model: LoadedModel,
    other: LoadedModel,
    data: Pairs | Texts,
    *,
    what: str,
    metric: Any,
    share: float,
    tokens: int,
    edges: int | None,
) -> DiffResult:
    from interp.engine.patching.difference import Difference

    require_shape(model, other)
    samples, named, task = _samples(model, other, data, metric)
    marks = {"base_fingerprint": model.fingerprint(), "tuned_fingerprint": other.fingerprint()}
    job = Difference(model, other, samples, weights=what == "weights", share=share, on_step=model.on_step)
    found = job.run()
    model.note(found.path, found.notes)
    how: dict[str, Any] = {"what": what, "metric": named, "task": task, "wanted": share, **marks}
    if found.interrupt is None and tokens:
        how["continuations"] = _continued(
            model, other, list(dict.fromkeys(one.ids for one in samples))[:_CONTINUED], tokens
        )
    interrupt = found.interrupt
    if interrupt is None and edges is not None and isinstance(data, Pairs):
        scored: list[EdgeScores] = []
        try:
            _score(model, other, data, metric, scored)
        except KeyboardInterrupt as stop:
            interrupt = stop.with_traceback(None)  # its frames hold tensors
        if interrupt is None:
            group = model.geometry.n_heads // model.geometry.n_kv_heads
            how |= {"edges": changes.changes(scored[0], scored[1], edges, group), "edges_kept": edges}
    result = _result(found, model, other, **how)
    if interrupt is not None and found.interrupt is None:
        result = replace(result, notes=("partial: stopped while edges were scored", *result.notes))
    return unless_interrupted(result, interrupt)


def _score(model: LoadedModel, other: LoadedModel, pairs: Pairs, metric: Any, found: list[EdgeScores]) -> None:
    """Put the scores of both models' edges on the same pairs into `found`.

    Raises
    ------
    KeyboardInterrupt
        It was stopped.
    """
    from interp.engine import metrics
    from interp.engine.circuits.eap import attribute_edges

    chosen = resolve_metric(metric or pairs.metric or "logit-diff")
    metrics.require_gradient(chosen, model.geometry.d_vocab_out, model.device)
    watch, record = model.on_step, model.operation
    for of in (model, other):

        def once(operation: Operation, of: LoadedModel = of) -> EdgeScores:
            operation.pool = None if record is None else record.pool  # both models' edges in one, to the last bit
            made = cases(of, encode(of, pairs, chosen, lengths=True), chosen, "noise", whole=True)
            return attribute_edges(of, made, steps=None, on_step=lambda done, total: watch(done, total, "edges"))

        found.append(of.operate("diff", {}, once))
        model.note(f"forward, {found[-1].path}", found[-1].notes)
        if found[-1].interrupt is not None:
            raise found[-1].interrupt


def _samples(model: LoadedModel, other: LoadedModel, data: Pairs | Texts, metric: Any) -> tuple[list[Sample], str, str]:
    """Return the prompts with what is measured, its name, and where they came from."""
    from interp.engine import metrics

    chosen = resolve_metric(
        metric or ("loss" if isinstance(data, Texts) else data.metric or "logit-diff"), several=True
    )
    if not chosen.several:
        metrics.try_out(chosen, model.geometry.d_vocab_out, model.device)
    if isinstance(data, Texts):
        encoded = texts.encode(model, data)
        prompts, source = list(data.texts), data.source
        samples = measured.of_texts(model, encoded, chosen)
    else:
        prompts, source = [pair.clean for pair in data.pairs], data.task
        pairs = encode(model, data, chosen, any_length=True, several=chosen.several)  # the clean prompts alone are run
        encoded = [e.clean for e in pairs]
        samples, _, _ = measured.of_pairs(model, pairs, chosen)
    if chosen.several:
        metrics.try_out(chosen, model.geometry.d_vocab_out, model.device, min(len(one.ids) for one in samples))
    for prompt, one in zip(prompts, encoded, strict=True):
        if other.encode(prompt).ids != one.ids:
            raise InputError(f"{other.name} cuts the prompts into other tokens than {model.name}: no part is the same")
    return samples, chosen.name, source


def _continued(
    model: LoadedModel, other: LoadedModel, prompts: Sequence[tuple[int, ...]], tokens: int
) -> tuple[tuple[str, str, str], ...]:
    """Return the first prompts, and what both models go on with; nothing where they generate nothing."""
    from interp.engine.model import generation

    g = model.geometry
    if not g.causal or model.lacks_head or g.d_vocab_out > g.d_vocab:
        return ()
    found: list[tuple[str, str, str]] = []
    for ids in prompts:
        n = min(tokens, g.n_ctx - len(ids))
        both = [
            generation.decoded(of, generation.generate(of, ids, n)[0].ids) if n > 0 else "" for of in (model, other)
        ]
        found.append((generation.decoded(model, ids), both[0], both[1]))
    return tuple(found)


def _result(found: Carried, model: LoadedModel, other: LoadedModel, **said: Any) -> DiffResult:
    values, base, tuned = (one.numpy().copy() for one in (found.values, found.base, found.other))
    change = tuned - base
    each = (values - base).T  # [prompt, component]
    differ = bool(change.mean())
    effect = each.mean(0)
    notes = too_few(len(base), "prompts")
    if found.stopped:
        notes.append(f"partial: {found.stopped}; what was not reached is NaN, and no set was looked for")
    elif not change.any():
        notes.append(f"{model.name} and {other.name} do the same on these prompts")
    elif said["wanted"] and not found.kept:
        notes.append(f"no set of components that help carries {said['wanted']:.0%} of the difference")
    nothing = np.full(each.shape[1], np.nan)
    shares: dict[str, float] = {}
    if found.together is not None and found.without is not None:
        kept, without = (float((one.numpy() - base).mean() / change.mean()) for one in (found.together, found.without))
        shares = {"kept_share": kept, "lost_share": 1 - without}
    return DiffResult(
        base=model.name,
        tuned=other.name,
        components=tuple(one.name for one in found.components),
        base_values=base,
        tuned_values=tuned,
        values=values,
        effect=effect,
        share=effect / change.mean() if differ else nothing,
        share_interval=of_ratio(each, change) if differ else np.stack([nothing, nothing]),
        weight_change=np.array(found.weight_change or nothing),
        kept=tuple(found.components[n].name for n in found.kept),
        notes=tuple(notes),
        **shares,
        **said,
    )
