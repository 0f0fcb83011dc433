"""A claim about a model, tested by interchange interventions beside its controls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from interp.claim_language import Claimed
from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared.claims.result import ClaimResult
from interp.methods._shared.claims.verdict import LEAST, Share, verdict
from interp.spec import ControlNames, FeaturesName, Variable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from interp.engine.model.loaded import LoadedModel
    from interp.methods._shared.claims.controls import Control, Test
    from interp.methods._shared.claims.drawing import Question, Sample


_ROUNDS = 4  # that swaps are drawn from the prompts that a subspace is found on


@technique(body=Claimed)
def claim(
    model: LoadedModel,
    claim: Claimed,
    *,
    rank: int | None = None,
    controls: ControlNames = "all",
    variables: Variable = None,
    becomes: Variable = None,
    features: FeaturesName | None = None,
    seed: int = 0,
) -> ClaimResult:
    """Test what is believed of a model: a variable, the place that carries it, and what exchanging that does.

    Below the command stand three lines: ``variable: name = {IO}``, ``carried by: resid_post layer 2 at {S2}`` and
    ``swap name -> the answer becomes the other name``. In the run of each prompt the activation at the place is
    replaced by another prompt's, in which the variable has another value, and the likeliest answer is compared with
    what is predicted. Beside that stand controls, and a verdict by fixed rules: docs/claims.md.

    Parameters
    ----------
    claim
        The claim, and the prompts that it is tested on: a task's, or pairs below a line ``prompts:``. Without any, the
        task is taken that has slots of the names that the claim uses, if there is only one.
    rank
        Dimensions of a subspace of the place, which is found on half of the prompts and tested on the others; what
        the claim says when not given.
    controls
        Which controls to make: all, none, or some of labels (arbitrary labels), model (a random model), random (a
        random change of the same size), below and above (the neighbouring layers).
    variables
        The values of variables, name to list with one for each prompt, where prompts cannot mark them.
    becomes
        A function of the base's and the source's values, each a dict, that returns the token that the answer becomes;
        the claim says ``swap name -> given``.
    features
        The loaded set of which features are named; the one loaded last when not given.
    seed
        Of the task's prompts, of the swaps and of the controls.

    Returns
    -------
    ClaimResult
        The accuracy with its interval, the controls, and the verdict.

    Raises
    ------
    InputError
        A line that cannot be read, a place or a span that there is not, or prompts without answers.
    Interrupted
        Stopped by Ctrl-C: what was made of the controls is in its ``result``.

    Notes
    -----
    Interchange interventions: Geiger et al. (2021), "Causal Abstractions of Neural Networks". Subspaces by distributed
    alignment search: Geiger et al. (2024), "Finding Alignments Between Interpretable Causal Variables and Distributed
    Neural Representations". Controls: Arora et al. (2024), "CausalGym", and Hewitt and Liang (2019), "Designing and
    Interpreting Probes with Control Tasks".

    Examples
    --------
    >>> interp.claim("variable: name = {IO}\\ncarried by: resid_post layer 2 at {S2}\\nswap name -> the answer stays")
    ClaimResult(name in resid_post layer 2 at {S2}: stays, supported: 1.00 (0.89–1.00) of 32 interchanges; ...)
    """
    from interp.methods._shared.claims import controls as made
    from interp.methods._shared.claims.drawing import Question

    wanted = made.chosen(controls)
    rank = claim.claim.rank if rank is None else rank
    if rank is not None and rank < 1:
        raise InputError(f"--rank {rank} is no number of dimensions; use 1 or more, or leave it out")
    claimed = replace(claim, claim=replace(claim.claim, rank=rank))
    question = Question(model, claimed, variables=variables, becomes=becomes, features=features)
    solved, wrong = _solved(model, question)
    test, swaps = _test(question, solved, seed)
    trained = test.training
    reached = bool(test.swaps) and (rank is None or bool(trained))
    got: list[int] = []
    found: list[Control] = []
    interrupt: BaseException | None = None
    if reached:
        change = test.change()
        got = test.got(change)
        try:
            made.run([*wanted, *([made.STREAM] if test.stays else [])], test, change, got, found)
        except KeyboardInterrupt as stop:
            interrupt = stop
    return unless_interrupted(_result(question, test, swaps, got, found, len(solved), wrong, interrupt), interrupt)


def _solved(model: LoadedModel, question: Question) -> tuple[list[Sample], list[Sample]]:
    """Return the prompts whose likeliest class is their answer, and the others."""
    from interp.engine.interchange.run import plain

    samples, classes = question.samples, question.classes
    at = [one.position for one in samples]
    logits = plain(model, [one.ids for one in samples], at, classes, on_step=model.on_step)
    likeliest = [classes[n] for n in logits.argmax(1).tolist()]
    right = [one for one, token in zip(samples, likeliest, strict=True) if token == one.answer]
    return right, [one for one, token in zip(samples, likeliest, strict=True) if token != one.answer]


def _test(question: Question, solved: Sequence[Sample], seed: int) -> tuple[Test, list[tuple[Sample, Sample]]]:
    """Return what is run, and the pairs of prompts that are tested; half of all train a subspace where there is one."""
    import random

    from interp.methods._shared.claims.controls import Test

    claim = question.claim
    drawn = list(solved)
    random.Random(seed).shuffle(drawn)
    half = 0 if claim.rank is None else (len(drawn) + 1) // 2
    training = list(dict.fromkeys(both for n in range(_ROUNDS) for both in question.swaps(drawn[:half], seed + n)))
    tested = sorted(question.swaps(drawn[half:], seed), key=lambda both: both[0].number)
    test = Test(
        model=question.model,
        places=tuple(question.places),
        swaps=tuple(question.swap(*both) for both in tested),
        training=tuple(question.swap(*both) for both in training),
        classes=question.classes,
        rank=claim.rank,
        seed=seed,
        stays=claim.outcome.kind == "stays",
    )
    return test, tested


def _result(
    question: Question,
    test: Test,
    swaps: Sequence[tuple[Sample, Sample]],
    got: Sequence[int],
    controls: Sequence[Control],
    solved: int,
    wrong: Sequence[Sample],
    interrupt: BaseException | None,
) -> ClaimResult:
    claim, model = question.claim, question.model
    share = test.share(got) if got else Share(0, 0)
    count = len(question.samples)
    made = {one.name: one.share for one in controls if one.share is not None}
    judged, why = verdict(share, made, solved=solved, prompts=count, stays=test.stays)
    tokens = [model.tokens.string(index) for index in test.classes]
    used = list(swaps) if got else []
    scored = list(zip(got, test.swaps, strict=True)) if got else []
    ends = [one.share.interval if one.share is not None else (np.nan, np.nan) for one in controls]
    return ClaimResult(
        claim=str(claim),
        variable=claim.variable,
        carried=claim.carried,
        outcome=claim.outcome.said(claim.variable),
        task=question.asked.prompts.source,
        verdict=judged,
        why=why,
        accuracy=share.value if got else None,
        interval=np.array(share.interval),
        controls=tuple(one.name for one in controls),
        names=tuple(one.said for one in controls),
        control_accuracy=np.array([np.nan if one.share is None else one.share.value for one in controls]),
        control_interval=np.array(ends, np.float64).reshape(len(ends), 2).T.copy(),
        control_missing=tuple(one.missing for one in controls),
        prompts=count,
        solved=solved,
        trained=len(test.training),
        base=np.array([base.number for base, _ in used], np.int64),
        source=np.array([source.number for _, source in used], np.int64),
        predicted=tuple(tokens[test.classes.index(one.expected)] for one in test.swaps) if got else (),
        got=tuple("" if n < 0 else tokens[n] for n in got),
        correct=np.array([n >= 0 and test.classes[n] == one.expected for n, one in scored], bool),
        classes=tuple(tokens),
        texts=_texts(question),
        notes=tuple(_notes(question, test, used, solved, wrong, interrupt)),
    )


def _texts(question: Question) -> tuple[str, ...]:
    """Return every prompt that was given, by number, as text."""
    found = [""] * len(question.asked.prompts.prompts)
    for one in question.samples:
        found[one.number] = "".join(question.model.tokens.string(index) for index in one.ids)
    return tuple(found)


def _notes(
    question: Question,
    test: Test,
    swaps: Sequence[tuple[Sample, Sample]],
    solved: int,
    wrong: Sequence[Sample],
    interrupt: BaseException | None,
) -> list[str]:
    claim = question.claim
    found = ["partial: it was stopped; the controls that were not reached are left out"] if interrupt else []
    if question.doubled:
        found.append(f"{question.doubled} prompts are there twice and count once")
    if wrong:
        found.append(f"the model solves {solved} of {len(question.samples)} prompts; the others take no part")
    left = solved - len(test.swaps) - len({swap.base for swap in test.training})
    if left:
        found.append(f"{left} solved prompts have no other with another {claim.variable} to be exchanged with")
    sources = len({source.number for _, source in swaps})
    if swaps and sources < len(swaps):
        found.append(f"{len(swaps)} prompts are given what {sources} have: some are a source more than once")
    if test.rank is not None:
        found.append(
            f"the subspace was found on {len(test.training)} interchanges, and tested on {len(test.swaps)} between "
            "other prompts"
        )
    if swaps:
        found.append(
            f"it does not show that nothing else carries {claim.variable}, nor what the model does with other prompts"
        )
    return found


__all__ = ["LEAST", "ClaimResult", "claim"]
