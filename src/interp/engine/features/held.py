"""The sets of dictionaries that are loaded for a model, in the order they were loaded; the last one is current."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from interp.engine.features.dictionary import Dictionary
from interp.engine.features.edits import hooks_of, intervened
from interp.engine.features.measure import Measured
from interp.engine.model.interventions import loaded_set
from interp.errors import InputError
from interp.sites import ranges

if TYPE_CHECKING:
    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel
    from interp.spec import Intervention

_NAMED = re.compile(r"[FL]?(\d{1,9})\.(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True)
class Label:
    """What a feature is said to be, and how good that is.

    Attributes
    ----------
    text, brief
        In words, and in few.
    scores
        ``precision``, ``recall`` and ``F1`` of a rule, on texts that it was not found on; empty of what no rule is.
    rule
        The rule as plain data: see `rules.from_data`; ``None`` of what is none.
    """

    text: str
    scores: Mapping[str, float] = field(default_factory=dict[str, float])
    rule: Mapping[str, Any] | None = None
    brief: str = ""


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """Dictionaries that were loaded or trained together, on the model's device and in its dtype.

    Attributes
    ----------
    name
        What commands call it.
    source
        The folder or hub name that it came from; ``"bundled"``; or ``"trained here"``.
    format
        What kind of files it came in.
    dictionaries
        By layer; of one layer there can be several, at different places.
    sample
        The texts that it was measured on.
    measured
        For each dictionary, what it is worth on them.
    said
        What else its files say.
    labels
        What features are labelled, by their names, such as ``"2.417"``.
    """

    name: str
    source: str
    format: str
    dictionaries: tuple[Dictionary, ...]
    sample: tuple[str, ...] = ()
    measured: tuple[Measured, ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict[str, Any])
    labels: Mapping[str, Label] = field(default_factory=dict[str, "Label"])

    @cached_property
    def digest(self) -> str:
        """What tells it from every other set: a hash of its dictionaries'."""
        return hashlib.blake2b("".join(one.digest for one in self.dictionaries).encode(), digest_size=16).hexdigest()

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that there are dictionaries for, ascending."""
        return tuple(sorted({one.layer for one in self.dictionaries}))

    @property
    def points(self) -> tuple[str, ...]:
        """The places where they read."""
        return tuple(dict.fromkeys(one.reads.point for one in self.dictionaries))

    @property
    def doubts(self) -> tuple[str, ...]:
        """What is to be said with every result: dictionaries that do not fit this model as they declare."""
        return tuple(
            f"features of {one.reads.name}: {doubt}"
            for one, found in zip(self.dictionaries, self.measured, strict=False)
            if (doubt := found.doubt(one))
        )

    def at(self, layer: int, point: str | None = None) -> Dictionary:
        """Return the dictionary of a layer.

        Raises
        ------
        InputError
            There is none, or there are several and `point` does not say which.
        """
        found = [one for one in self.dictionaries if one.layer == layer and point in {None, one.reads.point}]
        if len(found) == 1:
            return found[0]
        if not found:
            there = f"; it has layers {ranges(self.layers)}, at {', '.join(self.points)}"
            raise InputError(f"{self.name} has no features of layer {layer}{f' at {point}' if point else ''}{there}")
        raise InputError(
            f"{self.name} has features of layer {layer} at {' and '.join(one.reads.point for one in found)}; "
            "load them as sets of their own to say which"
        )

    def feature(self, named: str) -> tuple[Dictionary, int]:
        """Return the dictionary and the number of a feature such as ``2.417``, ``F2.417`` or ``L2.417``.

        Raises
        ------
        InputError
            The name is none, or there is no such feature.
        """
        match = _NAMED.fullmatch(str(named).strip())
        if match is None:
            raise InputError(f"{str(named)!r:.60} names no feature; type its layer and its number, such as 2.417")
        dictionary, number = self.at(int(match[1])), int(match[2])
        self.chosen(dictionary, number)
        return dictionary, number

    def chosen(self, dictionary: Dictionary, feature: int | None) -> None:
        """Refuse a feature that a dictionary has not."""
        if feature is not None and not 0 <= feature < dictionary.width:
            raise InputError(f"no feature {feature} in layer {dictionary.layer}; they are 0–{dictionary.width - 1}")

    # -- what interventions ask, see `engine.model.interventions` ------------------------------------------------------

    def require(self, layer: int, feature: int | None) -> None:
        """Refuse a layer without features, and a feature that its dictionary has not."""
        self.chosen(self.at(layer), feature)

    def functions(
        self, model: LoadedModel, layer: int, interventions: Sequence[Intervention], within: slice
    ) -> list[tuple[str, Hook]]:
        """Return interventions on a layer's features as functions on hooks."""
        return hooks_of(model, self.at(layer), intervened(interventions, within))


def sets_of(model: LoadedModel) -> dict[str, FeatureSet]:
    """Return the sets that are loaded for a model by name, the current one last."""
    return cast("dict[str, FeatureSet]", model.feature_sets)


def hold(model: LoadedModel, given: FeatureSet) -> None:
    """Make a set the current one of a model; one of its name is replaced."""
    held = sets_of(model)
    held.pop(given.name, None)
    held[given.name] = given


def label(model: LoadedModel, name: str, labels: Mapping[str, Label]) -> None:
    """Add labels to a set of a model's; the order of the sets stays."""
    held = sets_of(model)
    held[name] = replace(held[name], labels={**held[name].labels, **labels})


def free(model: LoadedModel, name: str) -> bool:
    """Forget a set of a model's; return whether there was one of that name."""
    return sets_of(model).pop(name, None) is not None


def current(model: LoadedModel, name: str | None = None) -> FeatureSet:
    """Return the set of that name, or the one that was loaded last.

    Raises
    ------
    InputError
        None is loaded for this model, or none of that name.
    """
    return cast("FeatureSet", loaded_set(model, name))
