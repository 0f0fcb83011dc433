"""The account of an investigation: sentences from the steps' results, each held against its control."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.methods._shared.intervals import LEAST as ENOUGH
from interp.methods._shared.intervals import interval
from interp.methods._shared.investigation import found_in
from interp.methods._shared.investigation.controls import among, number, plural, ranged, short
from interp.methods._shared.investigation.result import Sentence
from interp.methods._shared.investigation.twin import Candidate
from interp.methods._shared.patching import estimate
from interp.results import Result, strongest
from interp.spec import Node

if TYPE_CHECKING:
    from interp.methods._shared.patching.result import PatchingResult
    from interp.results.tables import Float

LEAST = 0.1  # logits: a smaller margin of a single prompt is none
_MLPS = 3  # that are told of


@dataclass(frozen=True)
class Facts:
    """What is known before the steps.

    Attributes
    ----------
    target, against
        (string, id) of the first pair.
    given, top
        Whether the answer was given, and whether it is the likeliest token of the first prompt.
    solved
        Whether the model prefers it.
    margins, changed
        ``float64 [pair]``: the logit differences of the prompts and of their twins; none for no twin.
    candidates
        The exchanges among which the twin was chosen, largest first.
    tokens
        Of the first prompt.
    seed
        Of random heads.
    heads
        How many are told of.
    refused
        Steps that could not be made.
    """

    target: tuple[str, int]
    against: tuple[str, int]
    given: bool
    top: bool
    solved: bool
    margins: Float
    changed: Float
    candidates: tuple[Candidate, ...]
    tokens: tuple[str, ...]
    seed: int
    heads: int
    refused: Mapping[str, str]


def exceeds(values: Float, least: float = LEAST) -> bool:
    """Whether numbers of pairs lie above 0 as far as can be said: all of their interval, or their mean by `least`.

    Examples
    --------
    >>> exceeds(np.array([0.2])), exceeds(np.array([0.05])), exceeds(np.array([9.0, -5.0, -6.0, 8.0]))
    (True, False, False)
    """
    if not np.isfinite(values).all():
        return False
    if len(values) >= ENOUGH:
        return bool(interval(values)[0] > 0) and float(values.mean()) >= least
    return float(values.mean()) >= least


def moves(margins: Float, changed: Float) -> bool:
    """Whether the twins move the answer at all, so that what carries it can be looked for; how surely is said of it."""
    return float((margins - changed).mean()) >= LEAST


def strongest_heads(result: PatchingResult, n: int) -> list[str]:
    """Return the heads of the largest effects, exact where they were patched, strongest first."""
    _, recovery = estimate.best(result)
    return [result.name(cell) for cell in strongest(result.above_noise(recovery), n)]


def account(facts: Facts, steps: Mapping[str, Result]) -> Iterator[Sentence]:
    """Yield the sentences, in the order in which they are read."""
    yield from _prediction(facts, steps)
    if not facts.solved:
        return
    yield from _twin(facts)
    if not moves(facts.margins, facts.changed):
        return
    heads: Any = steps.get("heads")
    named = [] if heads is None else strongest_heads(heads, facts.heads)
    if heads is not None:
        yield from _heads(facts, steps, named)
    if "MLPs" in steps:
        yield from _mlps(steps["MLPs"])
    yield from found_in.lens(facts, steps)
    yield from found_in.circuit(steps, named)


def _prediction(facts: Facts, steps: Mapping[str, Result]) -> Iterator[Sentence]:
    """Yield what the model says, and whether that is the answer."""
    margin, count = float(facts.margins.mean()), len(facts.margins)
    target, against = short(facts.target[0]), short(facts.against[0])
    low, high = map(float, interval(facts.margins))
    if count > 1:
        right = int((facts.margins > 0).sum())
        said = (
            f"The model prefers the answer in {right} of {count} pairs; the mean logit difference is "
            f"{number(margin)}{ranged(low, high)}"
        )
        if not facts.solved:
            said += ": it does not solve them, and nothing more is established"
        controls = (("half of the pairs", count / 2),)
        yield Sentence("prediction", f"{said}.", margin, controls, facts.solved, "predict", low=low, high=high)
        return
    likely = found_in.likely(steps.get("predict"))
    if facts.solved:
        own = "The answer" if facts.given else "The model's own answer"
        preferred = "" if facts.top else ", though it is not the likeliest token: a preference is explained, no answer"
        said = f"{own} is {target}, {number(margin)} logits above {against}{preferred}; likeliest are {likely}"
    elif margin > 0:
        said = (
            f"{target} lies only {number(margin)} logits above {against}, less than {LEAST}: which of them the model "
            f"says is not sure, and nothing more is established; likeliest are {likely}"
        )
    else:
        said = (
            f"The model does not say {target}: its logit is {number(-margin)} below that of {against}. It does not "
            f"solve this prompt, and nothing more is established; likeliest are {likely}"
        )
    yield Sentence("prediction", f"{said}.", margin, (("a margin that counts", LEAST),), facts.solved, "predict")


def _twin(facts: Facts) -> Iterator[Sentence]:
    """Yield what the corrupted prompt changes."""
    moved = facts.margins - facts.changed
    low, high = map(float, interval(moved))
    mean, count = float(moved.mean()), len(moved)
    sure = exceeds(moved)
    turned = "turns the answer" if float(facts.changed.mean()) < 0 else "weakens the answer without turning it"
    over = f"s of {count} pairs" if count > 1 else ""
    ends = f"from {number(float(facts.margins.mean()))} to {number(float(facts.changed.mean()))}"
    if not facts.candidates:
        verb, by = "moves" if count == 1 else "move", f"{number(mean)}{ranged(low, high)}"
        said = f"The corrupted prompt{over} {verb} the logit difference {ends}, by {by}: "
        if not moves(facts.margins, facts.changed):
            turned = "that is nothing, and nothing more is established"
        elif not sure:
            turned += ", not surely: the interval holds 0"
        said += turned
        yield Sentence("twin", f"{said}.", mean, (("nothing", 0.0),), sure, "twin", low=low, high=high)
        return
    best, *others = facts.candidates
    put = list(dict.fromkeys(zip(best.after, best.before, strict=True)))
    if best.kind == "exchange" and len(put) == 2:
        what = f"Exchanging {short(put[0][1])} and {short(put[0][0])}"
    else:
        what = "Putting " + " and ".join(f"{short(a)} in place of {short(b)}" for a, b in put)
    where = "token" + plural(len(best.positions)) + " " + ", ".join(map(str, best.positions))
    target, against = short(facts.target[0]), short(facts.against[0])
    said = f"{what} at {where} {turned}: the logit difference of {target} over {against} goes {ends}"
    controls: tuple[tuple[str, float], ...] = ()
    if others:
        rest = np.array([one.moved for one in others])
        controls = (("the next exchange", float(rest.max())), ("the median exchange", float(np.median(rest))))
        said += (
            f". Of {len(facts.candidates)} exchanges tried it moves the answer most, by {number(mean)}; the next by "
            f"{number(float(rest.max()))}, the median by {number(float(np.median(rest)))}"
        )
        sure = sure and mean > float(np.median(rest))
    if not moves(facts.margins, facts.changed):
        said += ": no exchange moves the answer, and nothing more is established"
    yield Sentence("twin", f"{said}.", mean, controls, sure, "twin")


def _heads(facts: Facts, steps: Mapping[str, Result], named: Sequence[str]) -> Iterator[Sentence]:
    """Yield, for each of the strongest heads, what patching it does, and what else is known of it."""
    result: Any = steps["heads"]
    _, recovery = estimate.best(result)
    recovery = result.above_noise(recovery)
    yield from _agreement(result)
    for rank, name in enumerate(named):
        yield _head(result, recovery, named, rank, facts.seed)
        yield from found_in.removed(steps, name, named)
        yield from found_in.placed(steps, name)
        yield from found_in.direct(steps, name)


def _head(result: Any, recovery: Float, named: Sequence[str], rank: int, seed: int) -> Sentence:
    name = named[rank]
    node = Node.parse(name)
    at = (result.layers.index(node.layer), node.head)
    value = float(recovery[at])
    held = among(recovery, at)
    low, high = result.recovery_interval[:, at[0], at[1]] if result.done[at] else (np.nan, np.nan)
    controls = [("the median of the others", held.median), ("where outliers begin", held.fence)]
    said = [f"the median of the other {held.count} {number(held.median)}, outliers begin at {number(held.fence)}"]
    if rank + 1 < len(named):
        after = Node.parse(named[rank + 1])
        next_one = float(recovery[result.layers.index(after.layer), after.head])
        controls.append((f"the next, {after.drawn}", next_one))
        said.insert(0, f"the next strongest head ({after.drawn}) {number(next_one)}")
    known = np.flatnonzero(np.isfinite(recovery[at[0]])).tolist()
    others = [head for head in known if Node("head", node.layer, head).name not in named]
    chance = 0.0
    if others:
        drawn = int(np.random.default_rng([seed, node.layer, node.head]).choice(others))
        chance = float(recovery[at[0], drawn])
        controls.append(("a random head of its layer", chance))
        said.append(f"a random head of its layer ({Node('head', node.layer, drawn).drawn}) {number(chance)}")
    outside = not np.isfinite(low) or (low > 0) == (high > 0)
    sure = abs(value) > max(held.fence, abs(chance)) and outside and result.done[at]
    what = "carries the answer" if value > 0 else "works against the answer"
    verb = "recovers" if result.done[at] else "is estimated to recover"
    lead = f"{node.drawn} {what}" if sure else f"Not established that {node.drawn} {what}"
    text = (
        f"{lead}: put from the prompt into the twin, it {verb} {number(value)}{ranged(low, high)} of the difference; "
        f"{', '.join(said)}."
    )
    return Sentence("heads", text, value, tuple(controls), bool(sure), "heads", name, float(low), float(high))


def _agreement(result: Any) -> Iterator[Sentence]:
    """Yield how far the estimates can be trusted that chose what was patched."""
    found = result.agreement
    if found is None or not np.isfinite(found.rank_correlation):
        return
    value = float(found.rank_correlation)
    chance = 1.645 / np.sqrt(max(1, found.verified - 1))  # Spearman's without any relation, one-sided
    sure = value > chance
    unsafe = len(found.unsafe)
    names = ", ".join(Node.parse(name).drawn for name in found.unsafe[:3])
    doubt = (
        f"; {unsafe} of them {'are' if unsafe > 1 else 'is'} off by more than a factor of two ({names})"
        if unsafe
        else ""
    )
    said = (
        f"{'Estimates agree' if sure else 'Not established that estimates agree'} with exact patching over "
        f"{found.verified} of {result.patched.size} heads: rank correlation {number(value)}, by chance below "
        f"{number(chance)}{doubt}. Below, what was patched is exact."
    )
    yield Sentence("heads", said, value, (("by chance, 95 %", float(chance)),), sure, "heads")


def _mlps(result: Any) -> Iterator[Sentence]:
    """Yield the MLPs, by position where the prompts are of one length, whose patching recovers most."""
    _, recovery = estimate.best(result)
    recovery = result.above_noise(recovery)
    for cell in strongest(recovery, _MLPS):
        node = Node("mlp", result.layers[cell[0]])
        value, held = float(recovery[cell]), among(recovery, cell)
        low, high = result.recovery_interval[:, *cell] if result.done[cell] else (np.nan, np.nan)
        where = ""
        if len(cell) > 1:
            changed = cell[1] in result.checks.differing[0]
            where = f" at {short(result.checks.clean[0][cell[1]])} (token {cell[1]}{', exchanged' if changed else ''})"
        outside = not np.isfinite(low) or (low > 0) == (high > 0)
        sure = bool(abs(value) > held.fence and outside and result.done[cell])
        what = "carries the answer" if value > 0 else "works against the answer"
        verb = "recovers" if result.done[cell] else "is estimated to recover"
        lead = f"{node.drawn}{where} {what}" if sure else f"Not established that {node.drawn}{where} {what}"
        text = (
            f"{lead}: put into the twin, it {verb} {number(value)}{ranged(low, high)} of the difference; the median of "
            f"the other {held.count} {number(held.median)}, outliers begin at {number(held.fence)}."
        )
        controls = (("the median of the others", held.median), ("where outliers begin", held.fence))
        yield Sentence("MLPs", text, value, controls, sure, "MLPs", node.name, float(low), float(high))
