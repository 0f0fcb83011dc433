"""Saliency of a plain Hugging Face sequence classifier, without a bridge and without loading it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from interp.errors import InputError, closest, unless_interrupted
from interp.methods._shared.saliency_checks import SAMPLED
from interp.methods._shared.saliency_result import SaliencyResult
from interp.methods.readouts import saliency
from interp.methods.readouts.saliency import Baseline, Method
from interp.prompts import as_prompt
from interp.results import Own, Provenance
from interp.results.provenance import as_run

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.tokens import Encoded
    from interp.engine.readouts.classifier import Classifier
    from interp.engine.readouts.saliency import Attributed


def saliency_of_classifier(
    text: Any,
    model: Any,
    tokenizer: Any,
    *,
    target: int | str | None = None,
    wrong: int | str | None = None,
    method: Method = "ig",
    counterfactual: Any = None,
    baseline: Baseline | None = None,
    steps: int = 50,
    samples: int = 400,
) -> SaliencyResult:
    """What each token adds to a class of a Hugging Face sequence classifier; the model is left as it is.

    Parameters
    ----------
    text
        What is classified, with ``[CLS]`` and the like around it as the tokenizer puts them: a text; a tuple of two
        sentences, ``("A man sleeps", "A person rests")``; token ids; or what the tokenizer returns.
    model, tokenizer
        A ``…ForSequenceClassification`` in evaluation mode, and its tokenizer.
    target
        The class whose logit is explained, by number or by name; the likeliest when not given.
    wrong
        The class whose logit is taken off.
    method, counterfactual, baseline, steps, samples
        As in `interp.saliency`. DeepLIFT is for classifiers of linear layers and such activations as ReLU; rollout,
        read from the first position, for one that was loaded with ``attn_implementation="eager"``.

    Returns
    -------
    SaliencyResult
        ``attribution`` is ``float64 [position]``, in logits.

    Raises
    ------
    InputError
        What the classifier, the tokenizer or the method cannot do, or captum is missing.
    Interrupted
        As in `interp.saliency`.

    Notes
    -----
    Sundararajan, Taly and Yan (2017), "Axiomatic Attribution for Deep Networks"; Shrikumar, Greenside and Kundaje
    (2017), "Learning Important Features Through Propagating Activation Differences".

    Examples
    --------
    >>> interp.saliency_of_classifier("a great film", classifier, tokenizer, target=1).attribution.shape
    (11,)
    """
    from interp.engine.readouts.classifier import Classifier

    started = time.perf_counter()
    for name, value, known in (("method", method, get_args(Method)), ("baseline", baseline, get_args(Baseline))):
        if value not in known and not (name == "baseline" and value is None):
            raise InputError(f"{name} {value!r} is not one of {', '.join(known)}{closest(str(value), known)}")
    classifier = Classifier(model, tokenizer)
    given = {"target": target, "wrong": wrong, "counterfactual": counterfactual, "baseline": baseline}
    if method == "rollout":
        saliency.refuse(method, given, "it reads attention alone")
        result, encoded, interrupt = *_rollout(classifier, text), None
    else:
        result, encoded, interrupt = _measured(classifier, text, method, given, steps, samples)
    tokens, types = as_run([encoded.ids])
    provenance = Provenance(
        model=classifier.name,
        fingerprint=classifier.fingerprint(),
        dtype=str(classifier.dtype).removeprefix("torch."),
        device=str(classifier.device),
        tokens=tokens,
        types=types,
        technique="saliency_of_classifier",
        arguments={
            "prompt": as_prompt(text, literal=True).running,
            "model": Own(type(model).__name__),
            "tokenizer": Own(type(tokenizer).__name__),
            "method": method,
            **{name: value for name, value in given.items() if value is not None},
            **({"steps": steps} if method == "ig" else {}),
            **({"samples": samples} if method in SAMPLED else {}),
        },
        path="gradients" if method in saliency.BY_GRADIENTS else "forward",
        seconds=time.perf_counter() - started,
    )
    result = saliency.noted(result, partial=interrupt is not None)
    result = replace(result, provenance=provenance, notes=(*encoded.notes, *result.notes))
    return unless_interrupted(result, interrupt)


def _rollout(classifier: Classifier, text: Any) -> tuple[SaliencyResult, Encoded]:
    from interp.engine.readouts.rollout import rollout

    encoded = classifier.encode(text)
    seen = rollout(classifier.patterns(encoded))[0].numpy().copy()
    result = SaliencyResult(method="rollout", tokens=encoded.strings, attribution=seen, position=0, metric="attention")
    return result, encoded


def _measured(
    classifier: Classifier,
    text: Any,
    method: str,
    given: dict[str, Any],
    steps: int,
    samples: int,
) -> tuple[SaliencyResult, Encoded, KeyboardInterrupt | None]:
    from interp.engine.readouts import perturbed
    from interp.engine.readouts import saliency as engine

    counterfactual, baseline = given["counterfactual"], given["baseline"]
    if method == "gradient-input":
        saliency.refuse(method, {"counterfactual": counterfactual, "baseline": baseline}, "it has no baseline")
    saliency.require_captum(method)
    saliency.check(steps, samples, counterfactual, baseline)
    encoded = classifier.encode(text)
    other = None if counterfactual is None else classifier.encode(counterfactual)
    if other is not None:
        saliency.same_length(encoded, other)
    embeddings = classifier.embed(encoded)
    target = given["target"]
    right = classifier.answer(embeddings, encoded) if target is None else classifier.index(target, "target")
    wrong = None if given["wrong"] is None else classifier.index(given["wrong"], "wrong")
    if right == wrong:
        raise InputError(f"target and wrong are both class {right}; they must differ")

    def function(x: Tensor) -> Tensor:
        logits = classifier.logits(x, encoded)
        return logits[:, right] if wrong is None else logits[:, right] - logits[:, wrong]

    def work() -> Attributed:
        if method == "gradient-input":
            return engine.gradient_times_input(function, embeddings)
        start = embeddings * 0
        if other is not None:
            start = classifier.embed(other)
        elif baseline != "zero":
            mean = engine.mean_embedding(classifier.embedding, classifier.tokens.d_vocab, classifier.device)
            start = start + mean.to(start)
        if method == "deeplift":
            return engine.deeplift(classifier.model, function, embeddings, start)
        if method == "ig":
            return engine.integrated(function, embeddings, start, steps)
        return perturbed.attributed(method, function, embeddings, start, samples)

    found = engine.with_gradients(work) if method in saliency.BY_GRADIENTS else work()
    result = SaliencyResult(
        method=method,
        tokens=encoded.strings,
        attribution=found.parts.numpy().copy(),
        position=-1,
        metric="logit" if wrong is None else "logit-diff",
        answer=classifier.label(right),
        wrong=None if wrong is None else classifier.label(wrong),
        baseline=saliency.start(method, counterfactual, baseline),
        counterfactual=() if other is None else other.strings,
        value=found.value,
        reference=found.reference,
        steps=found.steps,
        error=found.error,
    )
    return result, encoded, found.interrupt
