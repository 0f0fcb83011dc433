"""Sentences from what can be read off beside patching: direct effects, attention, the lens, the circuit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.methods._shared.intervals import interval
from interp.methods._shared.investigation.controls import LEAST_SHARE, among, number, plural, ranged, short
from interp.methods._shared.investigation.result import Sentence
from interp.results import Result
from interp.spec import Node

if TYPE_CHECKING:
    from interp.methods._shared.investigation.account import Facts

_LIKELY = 3
_MUCH = 0.25  # of a head's effect: a position of less is not told of


def likely(result: Any) -> str:
    """Return the likeliest tokens with their probabilities."""
    top = getattr(result, "top", None)
    if not isinstance(top, list):
        return "not known"
    return ", ".join(f"{short(token)} {number(chance)}" for token, _, chance in top[:_LIKELY])


def removed(steps: Mapping[str, Result], name: str, named: Sequence[str]) -> Iterator[Sentence]:
    """Yield what is lost of the difference where a head's output is the twin's."""
    result: Any = steps.get("removed")
    node = Node.parse(name)
    if result is None or node.layer not in result.layers:
        return
    at = (result.layers.index(node.layer), node.head)
    lost = 1 - result.recovery
    value = float(lost[at])
    if not np.isfinite(value):
        return
    low, high = 1 - result.recovery_interval[::-1, at[0], at[1]]
    rest = lost.copy()  # the layers were chosen for the heads that are named: those are no control of each other
    for other in map(Node.parse, named):
        if other.layer in result.layers:
            rest[result.layers.index(other.layer), other.head] = np.nan
    held = among(rest, at)
    sure = bool(abs(value) > held.fence and (not np.isfinite(low) or (low > 0) == (high > 0)))
    lead = f"The prompt needs {node.drawn}" if value > 0 else f"{node.drawn} holds the answer back in the prompt"
    if not sure:
        lead = f"Not established that the prompt {'needs' if value > 0 else 'is held back by'} {node.drawn}"
    text = (
        f"{lead}: with its output from the twin, {number(value)}{ranged(low, high)} of the difference is lost; of the "
        f"other {held.count} heads of {'these layers' if len(result.layers) > 1 else 'its layer'}, median "
        f"{number(held.median)}, outliers begin at {number(held.fence)}."
    )
    controls = (("the median of the others", held.median), ("where outliers begin", held.fence))
    yield Sentence("heads", text, value, controls, sure, "removed", name, float(low), float(high))


def placed(steps: Mapping[str, Result], name: str) -> Iterator[Sentence]:
    """Yield where a head acts, and what it looks at from there."""
    node = Node.parse(name)
    result: Any = steps.get("places")
    pattern: Any = steps.get("attention")
    query = None if pattern is None else len(pattern.tokens) - 1
    if result is not None and node.layer in result.layers:
        row = result.recovery[result.layers.index(node.layer), node.head]
        if np.isfinite(row).all():
            query = int(np.abs(row).argmax())
            value, held = float(row[query]), among(row, (query,))
            low, high = result.recovery_interval[:, result.layers.index(node.layer), node.head, query]
            token = result.checks.clean[0][query]
            sure = bool(abs(value) > held.fence and (not np.isfinite(low) or (low > 0) == (high > 0)))
            lead = f"{node.drawn} acts" if sure else f"Not established that {node.drawn} acts"
            text = (
                f"{lead} at {short(token)} (token {query}): patched there alone it recovers {number(value)}"
                f"{ranged(low, high)}; at the other {held.count} positions outliers begin at {number(held.fence)}."
            )
            controls = (("the median position", held.median), ("where outliers begin", held.fence))
            yield Sentence("heads", text, value, controls, sure, "places", name, float(low), float(high))
    if pattern is not None and query is not None and node.layer in pattern.layers:
        yield from _looks(pattern, node, query)


def _looks(pattern: Any, node: Node, query: int) -> Iterator[Sentence]:
    """Yield the token that a head looks at most, but for the first, beside chance and the layer's other heads."""
    layer = pattern.pattern[pattern.layers.index(node.layer)]
    row = layer[pattern.heads.index(node.head), query]
    if query < 1 or not np.isfinite(row).all():
        return
    key = 1 + int(row[1 : query + 1].argmax())
    value, chance = float(row[key]), 1 / (query + 1)
    others = [float(layer[n, query, key]) for n in range(len(layer)) if pattern.heads[n] != node.head]
    mean = float(np.mean(others)) if others else chance
    sure = value > max(chance, mean)
    lead = f"{node.drawn} looks" if sure else f"Not established that {node.drawn} looks"
    text = (
        f"{lead} from {short(pattern.tokens[query])} at {short(pattern.tokens[key])} (token {key}) with weight "
        f"{number(value)}; by chance {number(chance)}, the other heads of its layer {number(mean)} on the mean; on the "
        f"first token lies {number(float(row[0]))}."
    )
    controls = (("uniform over tokens", chance), ("the layer's other heads", mean))
    yield Sentence("heads", text, value, controls, sure, "attention", node.name)


def direct(steps: Mapping[str, Result], name: str) -> Iterator[Sentence]:
    """Yield what a head writes into the logit difference itself."""
    result: Any = steps.get("dla")
    if result is None:
        return
    node = Node.parse(name)
    heads = np.asarray(result.heads, np.float64)
    each = heads if heads.ndim == 3 else heads[None]
    mean = each.mean(0)
    value = float(mean[node.layer, node.head])
    low, high = interval(each[:, node.layer, node.head])
    total = float(np.mean(result.totals if heads.ndim == 3 else result.total))
    held = among(mean, (node.layer, node.head), LEAST_SHARE * abs(total))
    sure = bool(abs(value) > held.fence and (not np.isfinite(low) or (low > 0) == (high > 0)))
    if sure:
        lead = f"{node.drawn} writes it directly" if value > 0 else f"{node.drawn} writes directly against it"
    else:
        lead = f"Not established that {node.drawn} writes it directly: what it does goes through later layers"
    text = (
        f"{lead}: {number(value)}{ranged(low, high)} of the logit difference {number(total)} are its own; of the other "
        f"{held.count} heads, median {number(held.median)}, outliers begin at {number(held.fence)}."
    )
    controls = (("the median of the others", held.median), ("where outliers begin", held.fence))
    yield Sentence("heads", text, value, controls, sure, "dla", name, float(low), float(high))


def lens(facts: Facts, steps: Mapping[str, Result]) -> Iterator[Sentence]:
    """Yield from which layer on the answer is ahead in the lens."""
    result: Any = steps.get("lens")
    if result is None or result.difference is None:
        return
    ahead = result.difference[:, -1]
    if not np.isfinite(ahead).all() or ahead[-1] <= 0:
        return
    below = np.flatnonzero(ahead <= 0)
    at = int(below[-1]) + 1 if len(below) else 0
    before = float(ahead[at - 1]) if at else 0.0
    value = float(ahead[at])
    sure = value >= 0.1 and at > 0
    target, against = short(facts.target[0]), short(facts.against[0])
    first = " of the first prompt" if len(facts.margins) > 1 else ""
    lead = f"In the lens{first}, {target} stays ahead of {against} from layer {result.layers[at]} on"
    if not sure:
        lead = f"Not established at which layer {target} gets ahead of {against}{first}"
    where = (
        f"{number(value)} there, before it {number(before)}" if at else f"{number(value)} after the first layer already"
    )
    text = f"{lead}: the lens gives a difference of {where}, {number(float(ahead[-1]))} at the end."
    yield Sentence("readout", text, value, (("the layer before", before),), bool(sure), "lens")


def circuit(steps: Mapping[str, Result], named: Sequence[str]) -> Iterator[Sentence]:
    """Yield how far the circuit does what the model does, and whether the heads that are named are in it."""
    report: Any = steps.get("validate")
    if report is not None:
        yield _faithful(report)
        yield _complete(report)
    found: Any = steps.get("circuit")
    heads = [name for name in (() if found is None else found.writers) if Node.parse(name).kind == "head"]
    if found is None or not heads or not found.kept.any():
        return
    held = set(found.heads)
    inside = sum(name in held for name in named)
    chance = len(named) * len(held) / len(heads)
    sure = inside > chance
    lead = "The circuit has" if sure else "Not established that the circuit has more than chance would give"
    text = (
        f"{lead} {inside} of the {len(named)} strongest head{plural(len(named))}; it has {len(held)} of all "
        f"{len(heads)} heads, so that by chance it would have {number(chance)} of them."
    )
    yield Sentence("circuit", text, float(inside), (("by chance", chance),), sure, "circuit")


def _faithful(report: Any) -> Sentence:
    random = report.random[np.isfinite(report.random)]
    value = float(report.faithfulness)
    low, high = map(float, report.faithfulness_interval)
    mean, best = (float(random.mean()), float(random.max())) if len(random) else (0.0, 0.0)
    nearer = abs(1 - value) < min((abs(1 - one) for one in random.tolist()), default=1.0)
    sure = bool(nearer and value > 0 and (not np.isfinite(low) or low > 0))
    lead = (
        "The circuit does what the model does" if sure else "Not established that the circuit does what the model does"
    )
    text = (
        f"{lead}, to {number(value)}{ranged(low, high)}: so far do {report.edges:,} of {report.existing:,} edges alone "
        f"go from nothing to the whole model; {len(random)} random circuits of its size go {number(mean)}, at most "
        f"{number(best)} ({'fresh pairs' if report.pairs == 'fresh' else 'the pairs that chose it'})."
    )
    return Sentence(
        "circuit", text, value, (("random circuits", mean), ("the best of them", best)), sure, "validate", "", low, high
    )


def _complete(report: Any) -> Sentence:
    value, faithful = float(report.left), float(report.faithfulness)
    low, high = map(float, report.left_interval)
    sure = bool(value < 0.5 * faithful)
    lead = "The model needs the circuit" if sure else "Not established that the model needs the circuit"
    minimal = int(np.isfinite(report.marginal).sum())
    more = (
        f" Of its {minimal} strongest edges, {minimal - len(report.removable)} take 0.01 of that or more with them."
        if minimal
        else ""
    )
    text = f"{lead}: without its edges {number(value)}{ranged(low, high)} of the difference is left.{more}"
    return Sentence(
        "circuit", text, value, (("half of its faithfulness", 0.5 * faithful),), sure, "validate", "", low, high
    )
