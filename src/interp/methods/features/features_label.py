"""Labels that are programs: for each feature the rule that says best where it is active, scored on texts held out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import feature_texts
from interp.methods._shared.feature_labels import NONE, FeaturesLabelResult, labels_of, sample_of
from interp.methods._shared.features import features_of
from interp.methods._shared.names import words
from interp.spec import FeatureNames, FeaturesName, Texts, Variable

if TYPE_CHECKING:
    from interp.engine.features.held import FeatureSet
    from interp.engine.features.rules.active import Active
    from interp.engine.features.rules.language import Rule
    from interp.engine.features.rules.search import Scores
    from interp.engine.model.loaded import LoadedModel

_LAYER = re.compile(r"[FL]?(\d{1,9})\.\*", re.IGNORECASE)
_HELD = 4  # one in so many texts is held out
_RARE = 10  # tokens, below which nothing is looked for
_ALONE = "there is one text alone: rules are scored on what they were found on"


@technique(body=Texts, name="features-label", forecasts=True, changes=True)
def features_label(
    model: LoadedModel,
    texts: Texts,
    which: FeatureNames,
    *,
    above: float = 0.0,
    least: float = 0.5,
    sets: Variable = None,
    seed: int = 0,
    features: FeaturesName | None = None,
) -> FeaturesLabelResult:
    """Labels that are programs: for each feature the rule over tokens, positions and context that says where it fires.

    Parameters
    ----------
    texts
        Running text: a list, a table's column or a file. One distinct text in four is held out to score rules on.
    which
        Features, such as 2.417,2.5; all of a layer as 2.*.
    above
        What share of its largest activation counts as active; 0 is all above nothing.
    least
        The F1, on texts held out, that a rule must have to be a label.
    sets
        Tokens that have a name, such as {"name": [" Mary", " John"]}, which rules may speak of.
    seed
        Of the tokens that activations are moved to in the shuffled baseline.
    features
        A loaded set of features; the one loaded last when not given.

    Returns
    -------
    FeaturesLabelResult
        The labels are in the set from now on; ``r.rule("2.417").fires(tokens)`` runs one. ``r.save("labels.json")``, in
        the set's folder, is read when that is loaded.

    Raises
    ------
    InputError
        No features are loaded, one that there is not, or no text.
    Interrupted
        Stopped by Ctrl-C: the features that are done are in its ``result``, and labelled.

    Notes
    -----
    A rule speaks of the token, the two before it, those among the four before, what occurred before in the text,
    classes of tokens and positions; two of these may be joined. What is best is found by F1 on some texts and scored on
    others, beside the best single token and beside the same search for activations that were moved to random tokens.
    Sets of tokens: Lipton et al. (2014), "Optimal Thresholding of Classifiers to Maximize F1 Measure". Judging labels
    by what they predict: Bills et al. (2023), "Language models can explain neurons in language models".

    Examples
    --------
    >>> interp.features_load("dictionaries", layer=0)
    FeaturesResult(...)
    >>> texts = [f"{a} saw {b} and {a} ran" for a in ("Tom", "Mary", "Jane") for b in ("Bob", "Luke", "Anna")]
    >>> interp.features_label("0.3", texts).labels
    (...)
    """
    from interp.engine.features import foreseen
    from interp.engine.features import held as sets_of
    from interp.engine.features.rules.active import active
    from interp.engine.features.rules.search import Search, statements
    from interp.engine.forecast.costs import foresee

    for name, value in (("above", above), ("least", least)):
        if not 0 <= value < 1:
            raise InputError(f"--{name} {value} is no share; use 0 or more, and less than 1")
    given = features_of(model, features)
    chosen = _chosen(given, which)
    named = _named(sets)
    ready = feature_texts.ready(model, texts)
    ids = list(dict.fromkeys(ready.ids))
    first = [int(one[0] == model.tokens.bos_id) for one in ids]
    strings = {n: model.tokens.string(n) for n in sorted({n for one in ids for n in one})}
    wanted = [(given.at(layer), numbers) for layer, numbers in chosen.items()]
    asked = [([ids[n] for n in own], [first[n] for n in own]) for own in _split(len(ids))]
    foresee(model, lambda: foreseen.of_rules(model, wanted, asked, statements=statements(named)))
    parts: list[Active] = []
    for some, begins in asked:
        found, done = active(model, wanted, some, begins, strings)
        if done.interrupt is not None:
            raise done.interrupt
        model.note(done.path, done.notes)
        parts.append(found)
    parts, notes = (parts, ()) if len(parts) == 2 else (parts * 2, (_ALONE,))
    search = Search(parts[0].corpus, parts[0].counted, named)
    rows: list[_Row] = []
    names = [(n, feature) for n, (_, numbers) in enumerate(wanted) for feature in numbers]
    draw, stopped = np.random.default_rng(seed), None
    try:
        for n, feature in names:
            rows.append(_row(search, parts, n, feature, above, draw))
            model.on_step(len(rows), len(names))
    except KeyboardInterrupt as interrupt:
        if not rows:
            raise
        stopped = interrupt
    result = _result(given, wanted, names, rows, least, (*notes, *ready.notes), parts, texts.source, len(names))
    sets_of.label(model, given.name, labels_of(result))
    return unless_interrupted(result, stopped)


def _split(count: int) -> list[list[int]]:
    """Return the numbers of the texts that rules are found on, and of those that they are scored on, if there are."""
    every = range(count)
    if count == 1:
        return [[0]]
    held = [n for n in every if n % _HELD == _HELD - 1] or [count - 1]
    return [[n for n in every if n not in set(held)], held]


@dataclass(frozen=True)
class _Row:
    rule: Rule | None
    scores: Scores
    single: Rule | None
    single_f1: float
    shuffled_f1: float
    fired: int


def _row(search: Any, parts: Sequence[Active], n: int, feature: int, above: float, draw: np.random.Generator) -> _Row:
    """Return the best rule of a feature, and what it is beside."""
    from interp.engine.features.rules.search import Scores

    most = max(part.most(n, feature) for part in parts)
    seen, held = (part.of(n, feature, above * most) for part in parts)
    fired = int(seen.sum() + held.sum())
    if seen.sum() < _RARE:
        return _Row(None, Scores(0.0, 0.0, 0.0), None, 0.0, 0.0, fired)

    def scored(rule: Rule | None, active: Any) -> Scores:
        if rule is None:
            return Scores(0.0, 0.0, 0.0)
        return Scores.of(rule.on(parts[1].corpus)[parts[1].counted], active)

    rule, single = search.best(seen), search.single_token(seen)
    moved = [draw.permutation(one) for one in (seen, held)]
    return _Row(
        rule,
        scored(rule, held),
        single,
        scored(single, held).f1,
        scored(search.best(moved[0]), moved[1]).f1,
        fired,
    )


def _result(
    given: FeatureSet,
    wanted: Sequence[tuple[Any, Sequence[int]]],
    names: Sequence[tuple[int, int]],
    rows: Sequence[_Row],
    least: float,
    notes: Sequence[str],
    parts: Sequence[Active],
    source: str,
    asked: int,
) -> FeaturesLabelResult:
    good = [row.rule is not None and row.scores.f1 >= least and row.scores.f1 > row.shuffled_f1 for row in rows]
    rare = sum(row.rule is None for row in rows)
    said = [f"partial: interrupted after {len(rows)} of {asked} features"] if len(rows) < asked else []
    if rare:
        said.append(
            f"{rare} features are active at fewer than {_RARE} tokens of these texts, too few to look for a rule"
        )
    return FeaturesLabelResult(
        of=given.name,
        encoders={str(dictionary.layer): sample_of(dictionary) for dictionary, _ in wanted},
        features=tuple(f"{wanted[n][0].layer}.{feature}" for n, feature in names[: len(rows)]),
        labels=tuple(str(row.rule) if fine else NONE for row, fine in zip(rows, good, strict=True)),
        rules=tuple(
            row.rule.data() if fine and row.rule is not None else None for row, fine in zip(rows, good, strict=True)
        ),
        scores=np.array([[row.scores.precision, row.scores.recall, row.scores.f1] for row in rows]).reshape(-1, 3),
        single=tuple("" if row.single is None else str(row.single) for row in rows),
        single_f1=np.array([row.single_f1 for row in rows], np.float64),
        shuffled_f1=np.array([row.shuffled_f1 for row in rows], np.float64),
        fired=np.array([row.fired for row in rows], np.int64),
        tokens=(int(parts[0].counted.sum()), int(parts[1].counted.sum())),
        least=least,
        source=source,
        notes=(*said, *notes),
    )


def _chosen(given: FeatureSet, which: Any) -> dict[int, list[int]]:
    """Return layer → features, in the order in which they were asked for."""
    found: dict[int, dict[int, None]] = {}
    for word in words(which, "which"):
        match = _LAYER.fullmatch(word)
        if match is not None:
            dictionary = given.at(int(match[1]))
            numbers = range(dictionary.width)
        else:
            dictionary, number = given.feature(word)
            numbers = range(number, number + 1)
        found.setdefault(dictionary.layer, {}).update(dict.fromkeys(numbers))
    return {layer: list(numbers) for layer, numbers in found.items()}


def _named(sets: Any) -> dict[str, list[str]]:
    """Return sets of tokens by name."""
    if sets is None:
        return {}
    held = cast("Mapping[Any, Any]", sets)
    if not isinstance(sets, Mapping) or not all(
        isinstance(name, str) and isinstance(tokens, list | tuple | set | frozenset) for name, tokens in held.items()
    ):
        raise InputError('sets are a name and its tokens, such as {"name": [" Mary", " John"]}')
    return {name: [str(token) for token in tokens] for name, tokens in held.items()}
