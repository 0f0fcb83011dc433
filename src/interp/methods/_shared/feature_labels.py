"""Labels that are rules, as a result; in a file, and back from it for the features that they are of."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from interp import files
from interp.errors import InputError, printable
from interp.results import Result, loading
from interp.results.tables import frame_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.features.dictionary import Dictionary
    from interp.engine.features.held import FeatureSet, Label
    from interp.engine.features.rules.language import Rule
    from interp.engine.features.rules.proofs import Relation
    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float

NONE = "no rule found"
FILE = "labels.json"  # in a set's folder
_ENTRIES = 64  # of an encoder
_NEAR = 2.0**-7  # of the largest of them: what rounding to half precision may change


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FeaturesLabelResult(Result):
    """Rules that say where features are active, one row per feature.

    Attributes
    ----------
    of
        The set of features.
    encoders
        Layer → some entries of its encoder, which tell these features from others.
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
    encoders: Mapping[str, tuple[float, ...]]
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

    _check: ClassVar[str | None] = "interp.methods._shared.feature_labels:checked"
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


def sample_of(dictionary: Dictionary) -> tuple[float, ...]:
    """Return entries of a dictionary's encoder, evenly spaced, which are alike in every precision."""
    held = dictionary.encoder.flatten()
    places = np.linspace(0, len(held) - 1, min(_ENTRIES, len(held))).astype(np.int64)
    return tuple(held[places.tolist()].float().tolist())


def labels_of(result: FeaturesLabelResult) -> dict[str, Label]:
    """Return a result's labels as a set of features holds them."""
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


def load_labels(path: str | os.PathLike[str]) -> FeaturesLabelResult:
    """Return labels from a file that ``save`` of `features_label`'s result wrote as JSON; rules can be run at once.

    Parameters
    ----------
    path
        The JSON file. ``interp.features_load(folder, labels=path)`` gives the labels to the features that they are of.

    Raises
    ------
    InputError
        There is no such file, or it holds no labels.

    Examples
    --------
    >>> interp.load_labels("labels.json").rule("2.417").fires([" Mary", " met"])  # doctest: +SKIP
    """
    instead = "give the .json file that save(…) of features-label's result wrote"
    saved = loading.opened(path, instead)
    if not {"features", "labels", "rules", "encoders"} <= saved.fields.keys():
        raise InputError(f"{files.path_of(path).name} holds no labels; {instead}")
    return cast("FeaturesLabelResult", loading.built(FeaturesLabelResult, saved, {}, {}))


def checked(found: FeaturesLabelResult) -> None:
    """Refuse labels that do not fit each other, or that are none.

    Raises
    ------
    ValueError
        They do not.
    """
    counts = {len(getattr(found, one)) for one in ("features", "labels", "rules", "scores", "single", "fired")}
    layers = {feature.partition(".")[0] for feature in found.features}
    if len(counts) != 1 or found.scores.shape[1:] != (3,) or not layers <= found.encoders.keys():
        raise ValueError("what is said of features is not of as many as there are")
    labels_of(found)


def fitting(given: FeatureSet, path: str | os.PathLike[str]) -> tuple[dict[str, Label], tuple[str, ...]]:
    """Return the labels in a file for the features of a set, and a note where there are some of other layers.

    Raises
    ------
    InputError
        The file holds none, or they are of other features.
    """
    found = load_labels(path)
    name = files.path_of(path).name
    there: set[str] = set()
    for layer, entries in found.encoders.items():
        own = [sample_of(one) for one in given.dictionaries if str(one.layer) == layer]
        if not own:
            continue
        if not any(_same(one, entries) for one in own):
            raise InputError(
                f"the labels in {printable(name)} are of other features of layer {printable(layer)} than {given.name} "
                "has; label these with %interp features-label"
            )
        there.add(layer)
    if not there:
        layers = ", ".join(map(printable, found.encoders))
        raise InputError(f"the labels in {printable(name)} are of layers {layers}, of which {given.name} has none")
    labels = {feature: label for feature, label in labels_of(found).items() if feature.partition(".")[0] in there}
    left = len(found.features) - len(labels)
    notes = (f"{left} labels in {printable(name)} are of layers that are not loaded",) if left else ()
    return labels, notes


def in_folder(given: FeatureSet, folder: Path) -> tuple[dict[str, Label], tuple[str, ...]]:
    """Return the labels that lie in a set's own folder, and why there are none where they are of other features."""
    if files.there(folder / FILE) != "file":
        return {}, ()
    try:
        return fitting(given, folder / FILE)
    except InputError as error:
        return {}, (f"{error}; they are left out",)


def _same(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    first, second = np.array(one), np.array(other)
    return first.shape == second.shape and bool(np.abs(first - second).max() <= _NEAR * np.abs(first).max())
