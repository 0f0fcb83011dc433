"""Saliency: how much each token of a prompt adds to an answer, or to a classifier's class."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import answers
from interp.methods._shared.models import logits_of, predicted
from interp.methods._shared.pairs import aligned
from interp.prompts import as_typed, types_of
from interp.results import Result, resolve
from interp.results.tables import frame_of
from interp.sites import Site
from interp.spec import Metric, Prompt, PromptName, TokenName, as_prompt

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.engine.readouts.saliency import Attributed, Embedded
    from interp.results.tables import Float

Method = Literal["ig", "gradient-input", "deeplift", "rollout"]
Baseline = Literal["zero", "mean"]
_WARNED = 0.05
_SMALL = 1e-3  # logits: a difference that is all rounding has no percentages


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SaliencyResult(Result):
    """What each token adds to a metric.

    Attributes
    ----------
    method
        ``"ig"``, ``"gradient-input"``, ``"deeplift"`` or ``"rollout"``.
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
        At how many points gradients were taken.
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


@technique(body=Prompt)
def saliency(
    model: LoadedModel,
    prompt: Prompt,
    *,
    method: Method = "ig",
    answer: TokenName | None = None,
    wrong: TokenName | None = None,
    metric: Literal["logit-diff", "logit", "logprob", "prob"] | None = None,
    counterfactual: PromptName | None = None,
    baseline: Baseline | None = None,
    steps: int = 50,
) -> SaliencyResult:
    """Saliency: what each token adds to the answer, by integrated gradients or attention rollout.

    Parameters
    ----------
    prompt
        The text.
    method
        ig (integrated gradients), gradient-input, or rollout of attention. deeplift is for classifiers without
        attention alone: its rule is for functions of one value, and attention multiplies two.
    answer
        The token, such as " Mary"; the model's own answer when not given.
    wrong
        The token that it is compared with, such as " John".
    metric
        logit-diff (the default with --wrong), logit (the default without), logprob or prob.
    counterfactual
        A prompt with as many tokens, from which ig starts.
    baseline
        What ig starts from without a counterfactual: mean, the mean embedding (the default), or zero, next to which
        norms turn so sharply that the gap is often large.
    steps
        At how many points ig takes gradients at first; more where the parts miss the difference by over 1 %.

    Returns
    -------
    SaliencyResult
        ``attribution`` is ``float64 [position]``; with ig it sums to ``value - reference`` but for ``gap``.

    Raises
    ------
    InputError
        A prompt or token that cannot be used, a counterfactual of another length, options that do not go together, or
        captum is missing.
    Interrupted
        Stopped by Ctrl-C while ig takes more gradients for a smaller gap: the parts so far, of the whole way, are in
        its ``result``. Before the first `steps` gradients are there, and with the other methods, there is nothing to
        keep.

    Notes
    -----
    Integrated gradients: Sundararajan, Taly and Yan (2017), "Axiomatic Attribution for Deep Networks", over
    token embeddings; positions stay. Tokens that the counterfactual shares add nothing by definition. Gradient × input
    is captum's. Rollout: Abnar and Zuidema (2020), "Quantifying Attention Flow in Transformers". For a Hugging Face
    classifier: saliency_of_classifier.

    Examples
    --------
    >>> interp.saliency("The capital of France is", answer=" Paris").top(1)
    [(5, ' is', 7.74...)]
    """
    if method == "deeplift":
        raise InputError(
            f"DeepLIFT has no rule for products of activations, which {model.name}'s attention and norms are; "
            "use --method ig"
        )
    if method == "rollout":
        given = {"answer": answer, "wrong": wrong, "metric": metric, "counterfactual": counterfactual}
        refuse(method, given | {"baseline": baseline}, "it reads attention alone")
        return _rollout(model, model.encode(prompt))
    if method == "gradient-input":
        refuse(method, {"counterfactual": counterfactual, "baseline": baseline}, "it has no baseline")
    require_captum()
    check(steps, counterfactual, baseline)
    named = metric or ("logit" if wrong is None else "logit-diff")
    if (named == "logit-diff") != (wrong is not None):
        change = "add --wrong TOKEN" if wrong is None else "drop --wrong"
        raise InputError(f"--metric {named} {'needs' if wrong is None else 'takes no'} wrong answer; {change}")
    encoded = model.encode(prompt)
    other = None if counterfactual is None else _other(model, prompt, encoded, counterfactual)
    ids = [answers.one(model, prompt, given, which) for which, given in (("answer", answer), ("wrong answer", wrong))]
    position, logits = predicted(model, encoded), logits_of(model, encoded)
    right = int(logits.argmax()) if ids[0] is None else ids[0]
    if right == ids[1]:
        raise InputError(f"answer and wrong answer are both {model.tokens.string(right)!r}; they must differ")

    from interp.engine.metrics import Scorer
    from interp.engine.readouts import saliency as engine

    scorer = Scorer(Metric(named), (right,), () if ids[1] is None else (ids[1],))

    def work() -> Attributed:
        function = engine.Embedded(model, encoded.ids, position, scorer, logits)
        model.note(function.path, function.notes)
        if method == "gradient-input":
            return engine.gradient_times_input(function, function.tokens)
        begin = _begin(function, other, baseline)
        return engine.integrated(function, function.tokens, begin, steps, model.on_step)

    # What was asked, by which the store knows the answer.
    asked = f"saliency:{(method, named, right, ids[1], baseline, steps, other and other.ids)}"
    held = model.recall(encoded.ids, [asked])
    found = engine.Attributed.of(held[asked]) if held else engine.with_gradients(work)
    if found.interrupt is None:
        model.keep(encoded.ids, {asked: found.packed()})
    result = SaliencyResult(
        method=method,
        tokens=encoded.strings,
        attribution=found.parts.numpy().copy(),
        position=position,
        metric=named,
        answer=(model.tokens.string(right), right),
        wrong=None if ids[1] is None else (model.tokens.string(ids[1]), ids[1]),
        baseline=start(method, counterfactual, baseline),
        counterfactual=() if other is None else other.strings,
        value=found.value,
        reference=found.reference,
        steps=found.steps,
    )
    result = noted(result, partial=found.interrupt is not None)
    if ids[0] is not None:
        result = replace(result, notes=(*result.notes, *answers.likelier(model, right, logits)))
    return unless_interrupted(result, found.interrupt)


def _begin(function: Embedded, other: Encoded | None, baseline: str | None) -> Tensor:
    """Return what the integral begins with, ``[position, d_model]``."""
    if other is not None:
        return function.embed(other.ids)
    nothing = function.tokens * 0
    return nothing if baseline == "zero" else nothing + function.mean().to(nothing)


def _rollout(model: LoadedModel, encoded: Encoded) -> SaliencyResult:
    from interp.engine.readouts.saliency import rollout

    sites = [Site("pattern", layer).hook_name for layer in range(model.geometry.n_layers)]
    held = model.activations(encoded, sites)
    seen = rollout([held[site][0] for site in sites])
    position = len(encoded.ids) - 1 if model.geometry.causal else _asked(model, encoded)
    return noted(
        SaliencyResult(
            method="rollout",
            tokens=encoded.strings,
            attribution=seen[position].numpy().copy(),
            position=position,
            metric="attention",
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


def same_length(encoded: Encoded, other: Encoded) -> None:
    """Refuse a counterfactual whose tokens do not line up with the prompt's, or are the same.

    Raises
    ------
    InputError
        The two are of different lengths, shown where they part, or equal.
    """
    if len(encoded.ids) != len(other.ids):
        raise InputError(
            f"the prompt has {len(encoded.ids)} tokens and the counterfactual {len(other.ids)}; they must line up: "
            f"{aligned(encoded, other)}"
        )
    if types_of(encoded.ids) != types_of(other.ids):
        raise InputError(
            "the prompt and the counterfactual part their two sentences at different tokens; they must line up: give "
            "each sentence one of as many tokens"
        )
    if encoded.ids == other.ids:
        raise InputError("the counterfactual is the prompt itself; change the words whose part is asked for")


def require_captum() -> None:
    """Refuse where captum is missing.

    Raises
    ------
    InputError
        With the command that installs it.
    """
    if importlib.util.find_spec("captum") is None:
        raise InputError(
            "saliency by gradients needs captum: pip install 'interp[saliency]'; --method rollout does not"
        )


def refuse(method: str, given: Mapping[str, Any], why: str) -> None:
    """Refuse arguments that a method has no use for.

    Raises
    ------
    InputError
        One of them is given.
    """
    named = next((name for name, value in given.items() if value is not None), None)
    if named is not None:
        raise InputError(f"{method} takes no {named}: {why}; drop it, or use method ig")


def check(steps: int, counterfactual: Any, baseline: str | None) -> None:
    """Refuse a way of integrating that cannot be.

    Raises
    ------
    InputError
        No steps, or two baselines.
    """
    if steps < 1:
        raise InputError(f"--steps {steps} takes no gradient; use 1 or more")
    if counterfactual is not None and baseline is not None:
        raise InputError("the counterfactual is the baseline; give one of them")


def start(method: str, counterfactual: Any, baseline: str | None) -> str:
    """Return the name of what a method starts from: gradient × input is compared with zero."""
    if counterfactual is not None:
        return "counterfactual"
    return "zero" if method == "gradient-input" else baseline or "mean"


def noted(result: SaliencyResult, *, partial: bool = False) -> SaliencyResult:
    """Return `result` with what must be known before it is believed."""
    stopped = f"partial: interrupted after {result.steps} gradients, before the parts met the difference"
    notes = [stopped] if partial else []
    lost = ~np.isfinite(result.attribution)
    if lost.any():
        first = int(lost.argmax())
        notes.append(f"the attribution is NaN or infinite at {int(lost.sum())} positions, from position {first} on")
    elif result.relative_gap > _WARNED:
        first = "this method is a first-order estimate" if result.steps == 1 else f"after {result.steps} gradients"
        easier = "" if result.counterfactual else "a counterfactual prompt is an easier baseline, or "
        more = "" if result.steps == 1 else f"; {easier}raise the steps"
        notes.append(
            f"warning: the parts sum to {result.total:+.3f} and the {result.metric} differs by "
            f"{result.value - result.reference:+.3f} from the baseline, a gap of {result.relative_gap:.0%}: "
            f"{first}{more}"
        )
    if result.method == "rollout":
        notes.append("rollout follows attention alone, without values and MLPs: it says what can be reached, not used")
    return replace(result, notes=tuple(notes))
