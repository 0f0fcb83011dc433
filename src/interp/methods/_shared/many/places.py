"""Where many prompts line up: by the spans that all have, by position, or from their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp.errors import InputError
from interp.methods._shared.span_places import END

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.engine.model.tokens import Encoded

By = Literal["span", "position", "end"]
REST, BEFORE = "elsewhere", "before"


@dataclass(frozen=True)
class Places:
    """What lines up, and where it stands in each prompt.

    Attributes
    ----------
    by
        ``"span"``, ``"position"`` or ``"end"``.
    names
        One per place: a span's name, the token that all prompts have there, or where it stands.
    where
        ``[prompt][place]``: the positions; none where a prompt has none of what stands outside of spans.
    """

    by: str
    names: tuple[str, ...]
    where: tuple[tuple[tuple[int, ...], ...], ...]

    @property
    def only(self) -> bool:
        """Whether every place is one token."""
        return all(len(positions) == 1 for row in self.where for positions in row)

    def summed(self, prompt: int, values: NDArray[Any]) -> NDArray[Any]:
        """Return values over positions, the last axis, as sums over places; 0 where a place has no token."""
        return np.stack([values[..., list(at)].sum(-1) for at in self.where[prompt]], axis=-1)

    def sizes(self) -> NDArray[np.int64]:
        """Return how many tokens each place has, ``int64 [prompt, place]``."""
        return np.array([[len(at) for at in row] for row in self.where], np.int64)


def lined_up(
    encoded: Sequence[Encoded],
    slots: Sequence[Mapping[str, tuple[int, ...]]],
    ends: Sequence[int],
    by: str | None,
    order: Sequence[By],
    *,
    whole: bool = True,
) -> Places | None:
    """Return where prompts line up; ``None`` where nothing does.

    Parameters
    ----------
    slots
        Each prompt's, where a task made them; else empty.
    ends
        The measured positions.
    by
        What was asked for; the first of `order` that there is when nothing was.
    whole
        Whether what stands outside of spans, or before the common end, is a place of its own.

    Raises
    ------
    InputError
        What was asked for is not there: what to type instead is said.
    """
    lengths = {len(one.ids) for one in encoded}
    spans = _spans(encoded, slots)
    if by == "position" and len(lengths) > 1:
        raise InputError(
            f"the prompts have {min(lengths)} to {max(lengths)} tokens: by position they must have one length; "
            "use --by end, or mark the same pieces in each, such as [Mary]{IO}"
        )
    if by == "span" and spans is None:
        raise InputError("the prompts have no spans in common: mark the same pieces in each, such as [Mary]{IO}")
    for one in order if by is None else (by,):
        if one == "span" and spans is not None:
            return _by_span(encoded, spans, ends, whole=whole)
        if one == "position" and len(lengths) == 1:
            return _by_position(encoded, spans)
        if one == "end":
            return _from_end(encoded, whole=whole)
    return None


def not_lined_up(encoded: Sequence[Encoded]) -> InputError:
    """Return what is said where nothing lines up."""
    lengths = [len(one.ids) for one in encoded]
    return InputError(
        f"the prompts have {min(lengths)} to {max(lengths)} tokens and no spans in common, so that no token of one is "
        "any other's: mark the same pieces in each, such as [Mary]{IO}, or type --by end"
    )


def _spans(
    encoded: Sequence[Encoded], slots: Sequence[Mapping[str, tuple[int, ...]]]
) -> list[Mapping[str, tuple[int, ...]]] | None:
    """Return each prompt's spans: those that it marks, else a task's slots; ``None`` unless all have the same."""
    every = [one.spans or (slots[n] if slots else {}) for n, one in enumerate(encoded)]
    names = list(every[0])
    if not names or any(set(own) != set(names) for own in every):
        return None
    # A task may call one place by two names: END, say, and the last digit of a year.
    called: dict[tuple[tuple[int, ...], ...], list[str]] = {}
    for name in names:
        called.setdefault(tuple(tuple(own[name]) for own in every), []).append(name)
    found: list[Mapping[str, tuple[int, ...]]] = [
        {"/".join(of): at[n] for at, of in called.items()} for n in range(len(every))
    ]
    for number, own in enumerate(found):
        _apart(own, number)
    return found


def _apart(spans: Mapping[str, tuple[int, ...]], number: int) -> None:
    owner: dict[int, str] = {}
    for name, at in spans.items():
        for position in at:
            if owner.setdefault(position, name) != name:
                raise InputError(
                    f"prompt {number}: the spans {owner[position]} and {name} share a token; a token is of one span"
                )


def _by_span(
    encoded: Sequence[Encoded], spans: Sequence[Mapping[str, tuple[int, ...]]], ends: Sequence[int], *, whole: bool
) -> Places:
    names = sorted(spans[0], key=lambda name: min(spans[0][name]))
    held = [{position for at in own.values() for position in at} for own in spans]
    rows = [[own[name] for name in names] for own in spans]
    if END not in names and not any(end in own for end, own in zip(ends, held, strict=True)):
        names.append(END)
        for row, own, end in zip(rows, held, ends, strict=True):
            row.append((end,))
            own.add(end)
    if whole:
        rest = [tuple(n for n in range(len(one.ids)) if n not in own) for one, own in zip(encoded, held, strict=True)]
        if any(rest):
            names.append(REST)
            rows = [[*row, other] for row, other in zip(rows, rest, strict=True)]
    return Places("span", tuple(names), tuple(tuple(tuple(at) for at in row) for row in rows))


def _by_position(encoded: Sequence[Encoded], spans: Sequence[Mapping[str, tuple[int, ...]]] | None) -> Places:
    length = len(encoded[0].ids)
    names = [_token(encoded, n) or f"({n})" for n in range(length)]
    for name in () if spans is None else spans[0]:
        at = {own[name] for own in spans or ()}
        if len(at) == 1 and len(next(iter(at))) == 1:  # it stands there in all of them
            (position,) = next(iter(at))
            names[position] = name if names[position].startswith("(") else names[position]
    return Places("position", tuple(names), tuple(tuple((n,) for n in range(length)) for _ in encoded))


def _from_end(encoded: Sequence[Encoded], *, whole: bool) -> Places:
    lengths = [len(one.ids) for one in encoded]
    common = min(lengths)
    names = [_token(encoded, n) or f"({n})".replace("-", "−") for n in range(-common, 0)]
    rows = [[(length - common + n,) for n in range(common)] for length in lengths]
    if whole and max(lengths) > common:
        names = [BEFORE, *names]
        rows = [[tuple(range(length - common)), *row] for length, row in zip(lengths, rows, strict=True)]
    return Places("end", tuple(names), tuple(tuple(row) for row in rows))


def _token(encoded: Sequence[Encoded], n: int) -> str:
    """Return the token that all prompts have at position `n`; an empty string for none."""
    found = {one.strings[n] for one in encoded}
    return found.pop() if len(found) == 1 else ""
