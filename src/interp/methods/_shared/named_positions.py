"""Positions by name: the spans that a prompt has, and which of its positions a name or a number means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from interp.errors import InputError, closest
from interp.spans import END, marks
from interp.spec import Pairs, Prompt, plain, resolve_indices

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

Span = tuple[int, ...]
Spans = Mapping[str, Span]


@dataclass(frozen=True)
class Spanned:
    """A prompt with its spans.

    Attributes
    ----------
    encoded
        The prompt.
    spans
        Name → positions: what it marks, or the slots of the task that it comes from, and ``END``.
    where
        What an error calls the prompt: ``"pair 3: "``; empty for a prompt alone.
    """

    encoded: Encoded
    spans: Spans = field(default_factory=dict[str, Span])
    where: str = ""

    def positions(self, asked: Any) -> Span:
        """Return all positions that `asked` means, as they are named: those of spans, and numbers.

        Raises
        ------
        InputError
            A name that is no span of the prompt, or a number that is no position.
        """
        given = plain(asked)
        several = isinstance(given, Iterable) and not isinstance(given, str)
        listed: list[Any] = [plain(one) for one in cast("Iterable[Any]", given)] if several else [given]
        found: dict[int, None] = {}
        for one in listed or [()]:
            own = self._span(one) if isinstance(one, str) else self._number(one)
            found |= dict.fromkeys(own)
        return tuple(found)

    def position(self, asked: Any) -> int:
        """Return the one position that is meant: of a span of several tokens, its last."""
        return self.positions(asked)[-1]

    def within(self, positions: Iterable[int], asked: Any = None) -> dict[str, Span]:
        """Return which of some positions are of which span; ``END``, which every prompt has, only where asked for."""
        given = plain(asked)
        names = {given} if isinstance(given, str) else set(given) if isinstance(given, list | tuple) else set[Any]()
        there = set(positions)
        found = {
            name: tuple(at for at in own if at in there)
            for name, own in self.spans.items()
            if name != END or END.lower() in {str(one).lower() for one in names}
        }
        return {name: own for name, own in found.items() if own}

    def _span(self, name: str) -> Span:
        found = match(name, self.spans)
        if found is None:
            raise InputError(
                f"{self.where}no span {name!r}{closest(name, self.spans)}; the prompt has "
                f"{', '.join(self.spans) or 'none'}: mark what is meant, such as [Mary]{{{name}}}"
            )
        return self.spans[found]

    def _number(self, one: Any) -> Span:
        try:
            return resolve_indices(one, len(self.encoded.ids), "position")
        except InputError as error:
            raise InputError(f"{self.where}{error}") from None


def match(name: str, spans: Iterable[str]) -> str | None:
    """Return the span that is called so, whatever its case where no other is spelled so.

    Examples
    --------
    >>> match("S2", ["io", "s2"]), match("s2", ["S2", "s2"]), match("X", ["io"])
    ('s2', 's2', None)
    """
    known = list(spans)
    alike = [one for one in known if one.lower() == name.lower()]
    return name if name in known else alike[0] if len(alike) == 1 else None


def named(asked: Any) -> str:
    """Return how positions are called that are asked for.

    Examples
    --------
    >>> named("S2"), named(("IO", 4)), named(-1)
    ('S2', 'IO, 4', '-1')
    """
    given = plain(asked)
    return ", ".join(map(str, given)) if isinstance(given, list | tuple) else str(given)


def is_named(asked: Any) -> bool:
    """Return whether some of the positions that are asked for have a name."""
    given = plain(asked)
    return isinstance(given, str) or (isinstance(given, list | tuple) and any(isinstance(one, str) for one in given))


def of_prompt(model: LoadedModel, encoded: Encoded, slots: Spans | None = None, where: str = "") -> Spanned:
    """Return a prompt with what it marks, else with the slots given, and ``END``, where its answer is asked for."""
    found = dict(encoded.spans) or dict(slots or {})
    end = _end(model, encoded)
    if end is not None and match(END, found) is None:
        found[END] = (end,)
    return Spanned(encoded, found, where)


def _end(model: LoadedModel, encoded: Encoded) -> int | None:
    """Return the last position, or that of the only mask of a model that reads in both directions."""
    if model.geometry.causal:
        return len(encoded.ids) - 1
    mask = getattr(model.tokens.tokenizer, "mask_token_id", None)
    places = [n for n, index in enumerate(encoded.ids) if index == mask]
    return places[0] if len(places) == 1 else None


def of_pairs(model: LoadedModel, pairs: Pairs, *, both: bool = False) -> list[Spanned]:
    """Return the clean prompts of pairs with their spans; with `both`, the corrupted ones behind each.

    A pair that marks nothing has the spans ``before``, ``middle`` and ``after``.

    Raises
    ------
    InputError
        Spans that share a token, or a name that one prompt of two lengths lacks.
    """
    from interp.methods._shared import span_places

    found: list[Spanned] = []
    for number, pair in enumerate(pairs.pairs):
        where = f"pair {number}: " if len(pairs.pairs) > 1 else ""
        sides = model.encode(pair.clean), model.encode(pair.corrupted)
        own = span_places.places(*sides, pair.slots, where, ends=None)
        for side, encoded in enumerate(sides[: 1 + both]):
            bare = replace(encoded, spans={})  # what one prompt alone marks is meant in both
            found.append(of_prompt(model, bare, {name: at[side] for name, at in own.items()}, where))
    return found


def of_texts(model: LoadedModel, encoded: Sequence[Encoded], *, first: int = 0) -> list[Spanned]:
    """Return texts with what they mark, numbered from `first` on."""
    several = first or len(encoded) > 1
    return [
        of_prompt(model, one, where=f"text {number}: " if several else "") for number, one in enumerate(encoded, first)
    ]


def read(prompt: Prompt) -> Prompt:
    """Return running text as a prompt whose marks are read, which it is only where names are asked for.

    Examples
    --------
    >>> read(Prompt("When [Mary]{IO} left")).text
    'When Mary left'
    """
    if prompt.text is None or prompt.second is not None or prompt.marks:
        return prompt
    text, found = marks(prompt.text)
    return replace(prompt, text=text, marks=found)


def lengths(asked: Any, prompts: Sequence[Spanned]) -> tuple[str, ...]:
    """Return a note on each name that means several tokens in some prompt, where all of them are meant."""
    given = plain(asked)
    found: list[str] = []
    for name in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(name, str):
            continue
        counts = sorted({len(one.positions(name)) for one in prompts})
        if counts[-1] > 1:
            size = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
            found.append(f"{name} is {size} tokens; all of them are meant")
    return tuple(found)
