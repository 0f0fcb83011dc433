"""A claim's prompts as a model sees them, and the swaps that test it: which prompt is given what of which other."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from interp.claim_language import Carrier, Claimed
from interp.errors import InputError, closest, unknown
from interp.methods._shared import answers, prompts, span_places
from interp.methods._shared.features import features_of
from interp.methods._shared.models import predicted
from interp.methods._shared.named_positions import Spanned, of_prompt
from interp.sites import FEATURES, Site
from interp.spec import Prompt, plain

if TYPE_CHECKING:
    from interp.engine.interchange.places import Place, Swap
    from interp.engine.model.loaded import LoadedModel

Values = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Sample:
    """A prompt as a claim sees it.

    Attributes
    ----------
    number
        Its number among those given.
    prompt, spanned
        As it was given, and as tokens with its spans.
    position
        Where its answer is read.
    answer, wrong
        Token ids; ``None`` for no wrong one.
    value
        The variable's value.
    others
        All variables by name that Python gives, and the answer's token under ``answer``.
    """

    number: int
    prompt: Prompt
    spanned: Spanned
    position: int
    answer: int
    wrong: int | None
    value: Hashable
    others: Values

    @property
    def ids(self) -> tuple[int, ...]:
        """Its tokens."""
        return self.spanned.encoded.ids


class Question:
    """A claim, with all that its swaps are drawn from.

    Attributes
    ----------
    samples
        The prompts, each once.
    doubled
        How many were left out, because they were there already.
    places
        What is exchanged, as the engine has it.
    carriers
        For each place, where in a prompt it is meant.

    Raises
    ------
    InputError
        No answers, a span that a prompt lacks, a place that the model has not, or values that do not fit.
    """

    def __init__(
        self,
        model: LoadedModel,
        asked: Claimed,
        *,
        variables: Any = None,
        becomes: Any = None,
        features: str | None = None,
    ) -> None:
        self.model, self.claim, self.asked = model, asked.claim, asked
        self.becomes = _function(becomes, asked)
        self.variables = _variables(variables, asked)
        found = self._samples()
        self.samples = list({one.ids: one for one in reversed(found)}.values())[::-1]
        self.doubled = len(found) - len(self.samples)
        self.carriers, self.places = _places(model, asked.claim.carriers, features)
        for sample in self.samples:
            for carrier in self.carriers:
                sample.spanned.positions(carrier.at)
        self._tokens: dict[tuple[int, int], int] = {}

    def _samples(self) -> list[Sample]:
        model, many = self.model, self.asked.prompts
        encoded = prompts.encode(model, many)
        right = prompts.single(prompts.answered(model, many, None, many.answer, "answer"), "answer", "a claim")
        wrong = prompts.single(prompts.answered(model, many, None, many.wrong, "wrong"), "wrong", "a claim")
        found: list[Sample] = []
        for number, one in enumerate(encoded):
            where = f"prompt {number}: " if len(encoded) > 1 else ""
            answer = right[number]
            if answer is None:
                raise InputError(f"{where}a claim needs the answer: add a line answer: …, or give a task")
            if self.claim.outcome.kind == "wrong" and wrong[number] is None:
                raise InputError(f"{where}the claim speaks of the wrong one: add a line wrong: …, or give a task")
            spanned = of_prompt(model, one, many.slots[number] if many.slots else None, where)
            others = {name: listed[number] for name, listed in self.variables.items()} | {"answer": answer}
            value = self._value(spanned, answer, others)
            position = predicted(model, one)
            found.append(Sample(number, many.prompts[number], spanned, position, answer, wrong[number], value, others))
        return found

    def _value(self, spanned: Spanned, answer: int, others: Values) -> Hashable:
        value = self.claim.value
        if value.kind == "answer":
            return answer
        if value.kind == "given":
            return others[self.claim.variable]
        at = [spanned.positions(name) for name in value.spans]
        if value.kind == "order":
            return at[0][0] < at[1][0]
        return tuple(spanned.encoded.ids[position] for position in at[0])

    def expected(self, base: Sample, source: Sample) -> int:
        """Return the token that the claim predicts where `base` is given the variable of `source`."""
        kind = self.claim.outcome.kind
        if kind == "stays":
            return base.answer
        if kind == "answer" or (kind == "value" and self.claim.value.kind == "answer"):
            return source.answer
        if kind == "wrong":
            return cast(int, base.wrong)
        key = (base.number if kind == "given" else -1, source.number if kind != "token" else -1)
        if key not in self._tokens:
            self._tokens[key] = self._token(base, source)
        return self._tokens[key]

    def _token(self, base: Sample, source: Sample) -> int:
        outcome, model = self.claim.outcome, self.model
        given: Any = outcome.token
        if outcome.kind == "given":
            assert self.becomes is not None
            given = plain(self.becomes(self._known(base), self._known(source)))
        elif outcome.kind == "value":
            given = source.value
            if self.claim.value.kind == "span":
                ids = cast("tuple[int, ...]", given)
                given = "".join(map(model.tokens.string, ids)) if model.tokens.tokenizer is not None else ids[0]
                if model.tokens.tokenizer is None and len(ids) > 1:
                    raise InputError(f"{self.claim.variable} is {len(ids)} tokens, and an answer is one; mark one")
        if isinstance(given, bool) or not isinstance(given, str | int):
            raise InputError(
                f"the answer becomes {given!r:.60}, which is neither a word, such as ' John', nor a token id"
            )
        return answers.token(model, base.prompt, given, f"the other {self.claim.variable}", base.spanned.where)

    def _known(self, sample: Sample) -> Values:
        return {**sample.others, self.claim.variable: sample.value}

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The tokens of which the likeliest is the answer: the prompts' answers, and what the claim predicts."""
        found = {one.answer for one in self.samples}
        for base in self.samples:
            for source in self.samples:
                if base is not source and base.value != source.value:
                    found.add(self.expected(base, source))
        return tuple(sorted(found))

    def swaps(self, among: Sequence[Sample], seed: int) -> list[tuple[Sample, Sample]]:
        """Return each prompt with the one that it is given the variable of, no other being so but where there is none.

        Of the two the variable's values differ, and what is predicted is not the base's own answer; where the claim is
        that this stays, the answers of the two differ.
        """
        rng = random.Random(seed)

        def fits(base: Sample, source: Sample) -> bool:
            if base is source or base.value == source.value:
                return False
            other = source.answer if self.claim.outcome.kind == "stays" else self.expected(base, source)
            return other != base.answer

        options = [[n for n, source in enumerate(among) if fits(base, source)] for base in among]
        for own in options:
            rng.shuffle(own)
        taken = matched(options)
        spare = [rng.choice(own) if own else None for own in options]
        chosen = [other if one is None else one for one, other in zip(taken, spare, strict=True)]
        return [(base, among[n]) for base, n in zip(among, chosen, strict=True) if n is not None]

    def swap(self, base: Sample, source: Sample) -> Swap:
        """Return one swap as the engine runs it."""
        from interp.engine.interchange.places import Swap

        lined = [self._lined(carrier, base, source) for carrier in self.carriers]
        return Swap(
            base=base.ids,
            source=source.ids,
            at=tuple(tuple(own) for own in lined),
            taken=tuple(tuple(own.values()) for own in lined),
            position=base.position,
            expected=self.expected(base, source),
        )

    def _lined(self, carrier: Carrier, base: Sample, source: Sample) -> dict[int, int]:
        found: dict[int, int] = {}
        for name in carrier.at:
            both = base.spanned.positions(name), source.spanned.positions(name)
            for at, (taken,) in span_places.aligned(both, "last", str(name), into_clean=True):
                found.setdefault(at, taken)
        return found


def matched(options: Sequence[Sequence[int]]) -> list[int | None]:
    """Return one of each row's options, no two rows the same one, for as many rows as that can be done.

    By augmenting paths: Kuhn (1955), "The Hungarian Method for the Assignment Problem".

    Examples
    --------
    >>> matched([[1, 2], [2], [1]])
    [1, 2, None]
    >>> matched([[1, 2], [2, 0], [1]])
    [2, 0, 1]
    """
    owner: dict[int, int] = {}

    def placed(row: int, seen: set[int]) -> bool:
        for one in options[row]:
            if one in seen:
                continue
            seen.add(one)
            if one not in owner or placed(owner[one], seen):
                owner[one] = row
                return True
        return False

    for row in range(len(options)):
        placed(row, set())
    found: list[int | None] = [None] * len(options)
    for one, row in owner.items():
        found[row] = one
    return found


def _places(model: LoadedModel, carriers: Sequence[Carrier], features: str | None) -> tuple[list[Carrier], list[Place]]:
    """Return the places that a claim names, the features of a rule by layer, each with where it is meant."""
    from interp.engine.interchange.places import Place

    found: list[Carrier] = []
    for carrier in carriers:
        found += _of_rule(model, carrier, features) if carrier.rule else [carrier]
    if any(carrier.site == FEATURES.name for carrier in found):
        features_of(model, features)  # into the result's provenance
    places = [
        Place(Site(one.site, one.layer), one.head, one.features, features if one.site == FEATURES.name else None)
        for one in found
    ]
    count = model.geometry.n_layers
    for place in places:
        if place.site.layer >= count:
            raise InputError(f"no layer {place.site.layer}; layers are 0–{count - 1}")
    return found, places


def _of_rule(model: LoadedModel, carrier: Carrier, features: str | None) -> list[Carrier]:
    held = features_of(model, features)
    known = {label.text: label for label in held.labels.values()}
    if not known:
        raise InputError(f"no feature of {held.name} has a label; %interp features-label finds rules")
    wanted = carrier.rule.lower()
    named = [name for name, one in held.labels.items() if wanted in {one.text.lower(), one.brief.lower()}]
    if not named:
        raise unknown("rule", carrier.rule, known, f"%interp features lists what {held.name} has")
    layers: dict[int, list[int]] = {}
    for name in named:
        layer, _, number = name.partition(".")
        layers.setdefault(int(layer), []).append(int(number))
    return [replace(carrier, layer=layer, features=tuple(own), rule="") for layer, own in sorted(layers.items())]


def _function(becomes: Any, asked: Claimed) -> Callable[[Values, Values], Any] | None:
    wanted = asked.claim.outcome.kind == "given"
    if becomes is None and wanted:
        raise InputError(
            "what the answer becomes is to be given: becomes=function of the base's and the source's values"
        )
    if becomes is not None and not wanted:
        raise InputError(
            f"the claim says what the answer becomes; for becomes=… type swap {asked.claim.variable} -> given"
        )
    if becomes is not None and not callable(becomes):
        raise InputError("becomes=… is a function of the base's and the source's values, which returns a token")
    return becomes


def _variables(variables: Any, asked: Claimed) -> dict[str, list[Any]]:
    claim, count = asked.claim, len(asked.prompts.prompts)
    if variables is not None and not isinstance(variables, Mapping):
        raise InputError(
            f"variables=… is a dict of lists, such as {{{claim.variable!r}: […]}}, one value for each prompt"
        )
    given = {str(name): list(plain(values)) for name, values in cast("Mapping[Any, Any]", variables or {}).items()}
    for name, values in given.items():
        if len(values) != count:
            raise InputError(
                f"variable {name} has {len(values)} values, and there are {count} prompts; give one for each"
            )
    if claim.value.kind == "given" and claim.variable not in given:
        near = closest(claim.variable, given)
        raise InputError(
            f"{claim.variable} has no values{near}: give variables={{{claim.variable!r}: […]}}, one for each prompt, "
            f"or type what it is, such as variable: {claim.variable} = {{IO}}"
        )
    return given
