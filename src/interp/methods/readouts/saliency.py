"""Saliency: how much each token of a prompt adds to an answer, or to a classifier's class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import answers
from interp.methods._shared import interventions as edits
from interp.methods._shared.many import saliency as many
from interp.methods._shared.many.saliency_result import SaliencyManyResult
from interp.methods._shared.models import logits_of, predicted
from interp.methods._shared.prompts import answered
from interp.methods._shared.saliency_checks import check, noted, refuse, require_captum, same_length, start
from interp.methods._shared.saliency_result import SaliencyResult
from interp.prompts import as_typed
from interp.sites import FEATURES, Site
from interp.spec import (
    Intervention,
    Metric,
    Prompt,
    PromptName,
    Prompts,
    TokenName,
    Variable,
    as_interventions,
    as_prompt,
)

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.engine.readouts.saliency import Attributed, Embedded

Method = Literal["ig", "gradient-input", "occlusion", "kernel-shap", "lime", "deeplift", "rollout"]
BY_GRADIENTS = ("ig", "gradient-input", "deeplift")
Baseline = Literal["zero", "mean"]
Ids = int | tuple[int, ...] | None


@technique(body=Prompt | Prompts)
def saliency(
    model: LoadedModel,
    prompt: Prompt | Prompts,
    *,
    method: Method = "ig",
    answer: TokenName | None = None,
    wrong: TokenName | None = None,
    metric: Literal["logit-diff", "logit", "logprob", "prob"] | None = None,
    counterfactual: PromptName | None = None,
    baseline: Baseline | None = None,
    steps: int = 50,
    samples: int = 400,
    interventions: Variable = None,
    by: Literal["span", "position", "end"] | None = None,
) -> SaliencyResult | SaliencyManyResult:
    """Saliency: what each token adds to the answer, by gradients, by runs without it, or by attention.

    Parameters
    ----------
    prompt
        The text; or many: a list, a table's column, a file, a task's or pairs' clean prompts.
    method
        ig (integrated gradients), gradient-input, or rollout of attention; by runs in which tokens are the baseline's:
        occlusion of one at a time, kernel-shap (Shapley values, estimated) or lime (a sparse linear model). deeplift
        is for classifiers without attention alone: its rule is for functions of one value, and attention multiplies
        two.
    answer
        The token, such as " Mary"; the model's own answer when not given, of a task or pairs theirs. Of many prompts
        it may be a list, one for each.
    wrong
        The token that it is compared with, such as " John"; of a task or pairs theirs.
    metric
        logit-diff (the default with --wrong), logit (the default without), logprob or prob.
    counterfactual
        A prompt with as many tokens, from which ig starts, and whose tokens stand for those that are not there.
    baseline
        What ig starts from without a counterfactual: mean, the mean embedding (the default), or zero, next to which
        norms turn so sharply that the gap is often large.
    steps
        At how many points ig takes gradients at first; more where the parts miss the difference by over 1 %.
    samples
        How often the model runs for kernel-shap and lime, each time with other tokens replaced, the same ones each
        time; Shapley values are exact where there are no more sets of tokens than that.
    interventions
        A list of interp.Intervention, in whose run it is measured; in a magic, the name of a variable that holds one.
    by
        How tokens line up over many prompts: by span, over whose tokens the parts are summed, by position where all
        have one length, or from the end; the first of these that there is when not given.

    Returns
    -------
    SaliencyResult
        ``attribution`` is ``float64 [position]``; with ig it sums to ``value - reference`` but for ``gap``.
    SaliencyManyResult
        Of many prompts: ``attribution`` is ``float64 [prompt, place]``, and ``spread`` its mean over prompts with
        standard error and 95 % interval.

    Raises
    ------
    InputError
        A prompt or token that cannot be used, a counterfactual of another length, options that do not go together, or
        captum is missing.
    Interrupted
        Stopped by Ctrl-C while ig takes more gradients for a smaller gap: the parts so far, of the whole way, are in
        its ``result``. Before the first `steps` gradients are there, and with the other methods, there is nothing to
        keep. Of many prompts those that were read are in it.

    Notes
    -----
    Integrated gradients: Sundararajan, Taly and Yan (2017), "Axiomatic Attribution for Deep Networks", over
    token embeddings; positions stay. Tokens that the counterfactual shares add nothing by definition. Gradient × input
    is captum's, and so are occlusion, KernelSHAP (Lundberg and Lee 2017, "A Unified Approach to Interpreting Model
    Predictions") and LIME (Ribeiro, Singh and Guestrin 2016, "Why Should I Trust You?"): a token that is not there has
    the baseline's embedding. Rollout: Abnar and Zuidema (2020), "Quantifying Attention Flow in Transformers". For a
    Hugging Face classifier: saliency_of_classifier.

    Examples
    --------
    >>> interp.saliency("The capital of France is", answer=" Paris").top(1)
    [(5, ' is', 7.74...)]
    >>> interp.saliency(task="ioi", n=4).attribution.shape
    (4, 5)
    """
    if method == "deeplift":
        raise InputError(
            f"DeepLIFT has no rule for products of activations, which {model.name}'s attention and norms are; "
            "use --method ig"
        )
    changes = as_interventions(interventions)
    asked = _Asked(method, metric, baseline, steps, samples, changes, by, isinstance(prompt, Prompts))
    if by is not None and not isinstance(prompt, Prompts):
        raise InputError("--by is how many prompts line up; leave it out for one")
    if method == "rollout":
        given = {"answer": answer, "wrong": wrong, "metric": metric, "counterfactual": counterfactual}
        refuse(method, given | {"baseline": baseline}, "it reads attention alone")
        if isinstance(prompt, Prompts):
            return _over(model, prompt, asked, None, None)
        return _rollout(model, model.encode(prompt), changes)
    if method == "gradient-input":
        refuse(method, {"counterfactual": counterfactual, "baseline": baseline}, "it has no baseline")
    if method in BY_GRADIENTS and any(one.site.kind is FEATURES for one in changes):
        raise InputError(
            "gradients do not go through changes of features; use --method rollout, or change another site"
        )
    require_captum(method)
    check(steps, samples, counterfactual, baseline)
    if isinstance(prompt, Prompts):
        if counterfactual is not None:
            raise InputError("a counterfactual is of one prompt; give one prompt, or start from --baseline mean")
        return _over(model, prompt, asked, answer, wrong)
    encoded = model.encode(prompt)
    other = None if counterfactual is None else _other(model, prompt, encoded, counterfactual)
    ids = [answers.one(model, prompt, given, which) for which, given in (("answer", answer), ("wrong answer", wrong))]
    result, logits, interrupt = _read(model, encoded, asked, ids[0], ids[1], other)
    if ids[0] is not None and result.answer is not None:
        result = replace(result, notes=(*result.notes, *answers.likelier(model, result.answer[1], logits)))
    return unless_interrupted(result, interrupt)


@dataclass(frozen=True)
class _Asked:
    """What is asked of every prompt."""

    method: Method
    metric: str | None
    baseline: Baseline | None
    steps: int
    samples: int
    changes: tuple[Intervention, ...]
    by: str | None
    many: bool

    def named(self, wrong: object) -> str:
        """Return the metric's name, of prompts with a wrong answer or without.

        Raises
        ------
        InputError
            It does not go with that.
        """
        named = self.metric or ("logit" if wrong is None else "logit-diff")
        if (named == "logit-diff") != (wrong is not None):
            change = "add --wrong TOKEN" if wrong is None else "drop --wrong"
            raise InputError(f"--metric {named} {'needs' if wrong is None else 'takes no'} wrong answer; {change}")
        return named


def _read(
    model: LoadedModel, encoded: Encoded, asked: _Asked, answer: Ids, wrong: Ids, other: Encoded | None = None
) -> tuple[SaliencyResult, Tensor, KeyboardInterrupt | None]:
    """Return what each token of one prompt adds, the prompt's logits, and what stopped it."""
    named = asked.named(wrong)
    (functions,) = edits.functions(model, asked.changes, [encoded])
    position, logits = predicted(model, encoded), logits_of(model, encoded, functions)
    right = _as_set(answer) or (int(logits.argmax()),)
    against = _as_set(wrong)
    shared = set(right) & set(against)
    if shared:
        raise InputError(f"answer and wrong answer are both {model.tokens.string(min(shared))!r}; they must differ")

    from interp.engine.metrics import Scorer
    from interp.engine.readouts import perturbed
    from interp.engine.readouts import saliency as engine

    by_gradients = asked.method in BY_GRADIENTS
    scorer = Scorer(Metric(named), right, against)

    def work() -> Attributed:
        function = engine.Embedded(
            model, encoded.ids, position, scorer, logits, functions, together=edits.alike(asked.changes)
        )
        model.note(function.path if by_gradients else function.path.replace("gradients", "forward"), function.notes)
        if asked.method == "gradient-input":
            return engine.gradient_times_input(function, function.tokens)
        begin = _begin(function, other, asked.baseline)
        # Of many prompts it is these that are counted.
        counted = () if asked.many else (model.on_step,)
        if asked.method != "ig":
            return perturbed.attributed(asked.method, function, function.tokens, begin, asked.samples, *counted)
        return engine.integrated(function, function.tokens, begin, asked.steps, *counted)

    # What was asked, by which the store knows the answer; what interventions do is in no key.
    how = (asked.method, named, right, against, asked.baseline, asked.steps, asked.samples)
    key = f"saliency:{(*how, other and other.ids)}"
    held = None if asked.changes else model.recall(encoded.ids, [key])
    found = engine.Attributed.of(held[key]) if held else engine.with_gradients(work) if by_gradients else work()
    if found.interrupt is None and not asked.changes:
        model.keep(encoded.ids, {key: found.packed()})
    result = SaliencyResult(
        method=asked.method,
        tokens=encoded.strings,
        attribution=found.parts.numpy().copy(),
        position=position,
        metric=named,
        answer=_named(model, right),
        wrong=_named(model, against) if against else None,
        baseline=start(asked.method, other, asked.baseline),
        counterfactual=() if other is None else other.strings,
        value=found.value,
        reference=found.reference,
        steps=found.steps,
        error=found.error,
        interventions=len(asked.changes),
    )
    return noted(result, partial=found.interrupt is not None), logits, found.interrupt


def _as_set(ids: Ids) -> tuple[int, ...]:
    return () if ids is None else (ids,) if isinstance(ids, int) else ids


def _named(model: LoadedModel, ids: Sequence[int]) -> tuple[str, int]:
    """Return a token as it is told; of a set its first, with how many more there are."""
    more = f" and {len(ids) - 1} more" if len(ids) > 1 else ""
    return model.tokens.string(ids[0]) + more, ids[0]


def _over(model: LoadedModel, prompts: Prompts, asked: _Asked, answer: object, wrong: object) -> SaliencyManyResult:
    """Return what tokens add over many prompts, each as `_read` has it."""
    rights = answered(model, prompts, answer, prompts.answer, "answer")
    wrongs = answered(model, prompts, wrong, prompts.wrong, "wrong answer")
    if asked.metric not in {None, "logit-diff"} and wrong is None:
        wrongs = [tuple[int, ...]() for _ in wrongs]  # a task's wrong answers are for what compares

    def read(number: int, encoded: Encoded) -> SaliencyResult:
        if asked.method == "rollout":
            return _rollout(model, encoded, asked.changes)
        result, _, interrupt = _read(model, encoded, asked, rights[number] or None, wrongs[number] or None)
        if interrupt is not None:  # a prompt is read whole or not at all
            raise interrupt
        return result

    return many.over(model, prompts, asked.changes, asked.by, read)


def _begin(function: Embedded, other: Encoded | None, baseline: str | None) -> Tensor:
    """Return what the integral begins with, ``[position, d_model]``."""
    if other is not None:
        return function.embed(other.ids)
    nothing = function.tokens * 0
    return nothing if baseline == "zero" else nothing + function.mean().to(nothing)


def _rollout(model: LoadedModel, encoded: Encoded, changes: tuple[Intervention, ...] = ()) -> SaliencyResult:
    from interp.engine.model.each import activations
    from interp.engine.readouts.rollout import rollout

    sites = [Site("pattern", layer).hook_name for layer in range(model.geometry.n_layers)]
    (functions,) = edits.functions(model, changes, [encoded])
    held = activations(model, encoded, sites, functions)
    seen = rollout([held[site][0] for site in sites])
    position = len(encoded.ids) - 1 if model.geometry.causal else _asked(model, encoded)
    return noted(
        SaliencyResult(
            method="rollout",
            tokens=encoded.strings,
            attribution=seen[position].numpy().copy(),
            position=position,
            metric="attention",
            interventions=len(changes),
        )
    )


def _asked(model: LoadedModel, encoded: Encoded) -> int:
    """Return where a bidirectional model's answer stands: at its one mask token, or at the first, [CLS]."""
    mask = getattr(model.tokens.tokenizer, "mask_token_id", None)
    places = [n for n, index in enumerate(encoded.ids) if index == mask]
    return places[0] if len(places) == 1 else 0


def _other(model: LoadedModel, prompt: Prompt, encoded: Encoded, counterfactual: Any) -> Encoded:
    asked = as_prompt(counterfactual, prompt.bos, prompt.truncate)
    other = model.encode(asked if prompt.turns else as_typed(asked))
    same_length(encoded, other)
    return other
