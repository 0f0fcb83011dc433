"""Labels that are programs: for each feature the rule that says best where it is active, scored on texts held out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from interp.errors import InputError, printable, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import feature_texts
from interp.methods._shared.features import features_of
from interp.methods._shared.names import words
from interp.results import Result
from interp.results.tables import frame_of
from interp.spec import FeatureNames, FeaturesName, Texts, Variable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.features.held import FeatureSet
    from interp.engine.features.rules.active import Active
    from interp.engine.features.rules.language import Rule
    from interp.engine.features.rules.proofs import Relation
    from interp.engine.features.rules.search import Scores
    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float

_LAYER = re.compile(r"[FL]?(\d{1,9})\.\*", re.IGNORECASE)
_HELD = 4  # one in so many texts is held out
_RARE = 10  # tokens, below which nothing is looked for
NONE = "no rule found"
_ALONE = "there is one text alone: rules are scored on what they were found on"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FeaturesLabelResult(Result):
    """Rules that say where features are active, one row per feature.

    Attributes
    ----------
    of
        The set of features.
    features
        Their names, such as ``"2.417"``.
    labels
        The rules in words; ``"no rule found"`` where none is good enough.
    rules
        The rules as plain data, see `rule`; ``None`` where there is none.
    scores
        ``float64 [feature, 3]``: precision, recall and F1 on texts held out; of the best rule, where none is found.
    single, single_f1
        The best rule of a single token, and ``float64 [feature]``: its F1 on the same texts.
    shuffled_f1
        ``float64 [feature]``: F1 of the best rule for the same number of activations at tokens drawn at random.
    fired
        ``int64 [feature]``: at how many tokens of all texts it is active.
    tokens
        How many were searched, and how many are held out.
    least
        The F1 that a rule must have to be a label.
    source
        Where the texts came from.
    """

    of: str
    features: tuple[str, ...]
    labels: tuple[str, ...]
    rules: tuple[Mapping[str, Any] | None, ...]
    scores: Float
    single: tuple[str, ...]
    single_f1: Float
    shuffled_f1: Float
    fired: NDArray[np.int64]
    tokens: tuple[int, int]
    least: float
    source: str = ""

    _html: ClassVar[str] = "interp.views.features_label:html"

    def rule(self, feature: str) -> Rule | None:
        """Return a feature's rule, which can be run on any text; ``None`` where none was found.

        Examples
        --------
        >>> rule = result.rule(result.features[0])
        >>> rule is None or rule.fires(["Once", " upon"]).shape == (2,)
        True
        """
        from interp.engine.features.rules.language import from_data

        if feature not in self.features:
            raise InputError(f"{feature!r} is not in this result; it has {', '.join(self.features[:8])}")
        data = self.rules[self.features.index(feature)]
        return None if data is None else from_data(data)

    def relation(self, first: str, second: str, model: LoadedModel) -> Relation:
        """Return how the rules of two features go together in every text of a model's tokens, decided by Z3.

        Raises
        ------
        InputError
            One of them has no rule, or Z3 is not installed: ``pip install 'interp[prove]'``.
        """
        from interp.engine.features.rules.proofs import relation

        one, other = self.rule(first), self.rule(second)
        if one is None or other is None:
            raise InputError(f"no rule was found for {first if one is None else second}; only rules can be compared")
        return relation(one, other, [model.tokens.string(n) for n in range(model.geometry.d_vocab)])

    def summary(self) -> str:
        """Return of how many features there is a rule."""
        found = sum(rule is not None for rule in self.rules)
        searched, held = self.tokens
        return f"{self.of}: rules for {found} of {len(self.features)} features, {searched:,} + {held:,} tokens"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per feature, the best rule first."""
        columns = {
            "feature": self.features,
            "label": self.labels,
            "precision": self.scores[:, 0],
            "recall": self.scores[:, 1],
            "F1": self.scores[:, 2],
            "single token": self.single,
            "its F1": self.single_f1,
            "shuffled F1": self.shuffled_f1,
            "active": self.fired,
        }
        order = np.argsort(-self.scores[:, 2], kind="stable")
        return frame_of(columns).iloc[order].reset_index(drop=True)

    def text(self) -> str:
        """Return the summary and the rules, the best first."""
        lines = [repr(self)]
        for n in np.argsort(-self.scores[:, 2], kind="stable")[:40].tolist():
            said = printable(self.labels[n])
            lines.append(f"  {self.features[n]:8} F1 {self.scores[n, 2]:.2f}  {said}")
        return "\n".join([*lines, *(f"note: {printable(note)}" for note in self.notes)])


@technique(body=Texts, name="features-label")
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
        The labels are in the set from now on; ``r.rule("2.417").fires(tokens)`` runs one.

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
    from interp.engine.features import held as sets_of
    from interp.engine.features.rules.active import active
    from interp.engine.features.rules.search import Search

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
    parts: list[Active] = []
    for own in _split(len(ids)):
        found, done = active(model, wanted, [ids[n] for n in own], [first[n] for n in own], strings)
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
    sets_of.label(model, given.name, _labels(result))
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


def _labels(result: FeaturesLabelResult) -> dict[str, Any]:
    from interp.engine.features.held import Label

    names = ("precision", "recall", "F1")
    return {
        name: Label(
            result.labels[n],
            dict(zip(names, result.scores[n].tolist(), strict=True)),
            result.rules[n],
            "" if (rule := result.rule(name)) is None else rule.brief,
        )
        for n, name in enumerate(result.features)
    }


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
