"""Spans of a pair of prompts: which there are, where each stands in both, and what is put where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from interp.errors import InputError
from interp.ids import between
from interp.spans import AFTER, BEFORE, END, MIDDLE

if TYPE_CHECKING:
    from interp.engine.model.tokens import Encoded
    from interp.engine.patching.cases import Aligned, Case

Align = Literal["last", "mean", "each"]
Positions = tuple[int, ...]
Places = tuple[Positions, Positions]  # of a span in clean, in corrupted


def places(
    clean: Encoded, corrupted: Encoded, slots: Mapping[str, Positions], where: str, *, ends: tuple[int, int] | None
) -> dict[str, Places]:
    """Return a pair's spans, in their order in the clean prompt.

    They are what its prompts mark, the turns of chats and their template, and a task's slots. A pair of one length may
    mark one prompt alone. Where nothing is marked, the tokens that both begin with are one span, those that both end
    with another, and what is between is the one that differs.

    Parameters
    ----------
    slots
        Name → positions, the same in both prompts.
    where
        What an error calls the pair.
    ends
        Where either prompt's answer is asked for: a span ``END`` of its own; ``None`` for none.

    Raises
    ------
    InputError
        A name that one prompt of two lengths lacks, a turn that one chat lacks, or two spans that share a token.
    """
    marked = [dict(one.spans) for one in (clean, corrupted)]
    turns = clean.turns | corrupted.turns
    for mine, other, name in zip(marked, marked[::-1], ("corrupted", "clean"), strict=True):
        for span in [span for span in mine if span not in other and span not in turns]:
            if len(clean.ids) != len(corrupted.ids):
                raise InputError(
                    f"{where}{name} has no span {span}: where the prompts have {len(clean.ids)} and "
                    f"{len(corrupted.ids)} tokens both are marked, such as [Mary]{{{span}}}"
                )
            for turn in turns & other.keys():  # a mark has its tokens for itself
                other[turn] = _without(other.pop(turn), mine[span])
            other[span] = mine[span]
    marked = [{span: at for span, at in own.items() if at} for own in marked]
    for span in sorted(turns & (marked[0].keys() ^ marked[1].keys())):
        lacks = "corrupted" if span in marked[0] else "clean"
        raise InputError(f"{where}{lacks} has no turn {span}: both chats of a pair need the same turns")
    found = {name: (marked[0][name], marked[1][name]) for name in marked[0]}
    if not found:
        found = {name: (at, at) for name, at in slots.items()}
    if not found:
        found = _automatic(clean.ids, corrupted.ids)
    _apart(found, where)
    if ends is not None:  # where the answer is asked for is not one with all of a turn, or of the template
        rest = {
            name: (_without(found[name][0], ends[:1]), _without(found[name][1], ends[1:]))
            for name in turns & found.keys()
        }
        found = {name: rest.get(name, span) for name, span in found.items() if all(rest.get(name, span))}
    if ends is not None and END not in found:
        held = [{position for span in found.values() for position in span[side]} for side in (0, 1)]
        if not any(end in own for end, own in zip(ends, held, strict=True)):
            found[END] = ((ends[0],), (ends[1],))
    return dict(sorted(found.items(), key=lambda item: item[1][0]))


def _without(places: Positions, others: Positions) -> Positions:
    return tuple(position for position in places if position not in others)


def _automatic(clean: Sequence[int], corrupted: Sequence[int]) -> dict[str, Places]:
    """Return the spans of a pair that marks none."""
    middles = between(clean, corrupted)
    both = tuple(zip((clean, corrupted), middles, strict=True))
    made = {
        BEFORE: [tuple(range(middle.start)) for middle in middles],
        MIDDLE: [tuple(middle) for middle in middles],
        AFTER: [tuple(range(middle.stop, len(ids))) for ids, middle in both],
    }
    return {name: (own[0], own[1]) for name, own in made.items() if all(own)}


def _apart(found: Mapping[str, Places], where: str) -> None:
    for side, prompt in enumerate(("clean", "corrupted")):
        owner: dict[int, str] = {}
        for name, span in found.items():
            for position in span[side]:
                if owner.setdefault(position, name) != name:
                    raise InputError(
                        f"{where}the spans {owner[position]} and {name} share a token of {prompt}; a token is of one "
                        "span"
                    )


def common(found: Sequence[Mapping[str, Places]]) -> list[dict[str, Places]]:
    """Return each pair's spans in the order of the first pair's.

    Raises
    ------
    InputError
        A pair has others than the first.
    """
    names = list(found[0])
    for number, spans in enumerate(found):
        if set(spans) != set(names):
            other = next(iter(set(names) ^ set(spans)))
            has, lacks = (0, number) if other in names else (number, 0)
            raise InputError(
                f"pair {has} has a span {other} and pair {lacks} has none: mark the same names in every pair, such as "
                f"[Mary]{{{other}}}"
            )
    return [{name: spans[name] for name in names} for spans in found]


def aligned(span: Places, align: str, name: str, *, into_clean: bool, same: bool = False) -> Aligned:
    """Return which positions of the run that is changed are given what of the other.

    Parameters
    ----------
    align
        For a span of different lengths: ``"last"`` gives its last token that of the other prompt's, and leaves the rest
        as it is; ``"mean"`` gives every token the mean of the other's; ``"each"`` refuses it. Spans of one length are
        given token by token.
    into_clean
        Whether the clean run is changed.
    same
        Whether both runs are of the clean prompt.

    Raises
    ------
    InputError
        ``"each"``, and lengths that differ.

    Examples
    --------
    >>> aligned(((2, 3), (2,)), "last", "IO", into_clean=True), aligned(((2, 3), (2,)), "mean", "IO", into_clean=False)
    (((3, (2,)),), ((2, (2, 3)),))
    """
    base, source = span if into_clean else span[::-1]
    if same:
        base = source = span[0]
    if len(base) == len(source):
        return tuple((at, (taken,)) for at, taken in zip(base, source, strict=True))
    if align == "each":
        raise InputError(
            f"the span {name} has {len(span[0])} tokens in clean and {len(span[1])} in corrupted: --align each does "
            "not say which goes where; use --align last or mean"
        )
    if align == "last":
        return ((base[-1], (source[-1],)),)
    return tuple((at, source) for at in base)


def joined(spans: Sequence[Aligned], base: Encoded, source: Encoded) -> Aligned | None:
    """Return what all spans' positions are given; ``None`` where it is the same position of a prompt of one length."""
    every = tuple(sorted(own for span in spans for own in span))
    same = len(base.ids) == len(source.ids) and all(taken == (at,) for at, taken in every)
    return None if same else every


def whole(
    clean: Encoded, corrupted: Encoded, spans: Mapping[str, Places], align: str, where: str, *, ends: tuple[int, int]
) -> Aligned:
    """Return what each position of the clean prompt is given of the corrupted one, over all of both.

    Spans are given what `aligned` says. What stands between two spans goes with what stands there in the other prompt:
    what both begin and end with token by token, and what is between as a span is. A token that there is nothing for is
    given nothing.

    Parameters
    ----------
    where
        What an error calls the pair.
    ends
        Where either prompt's answer is asked for: the one is always given the other.

    Raises
    ------
    InputError
        A span in more pieces in one prompt than in the other, or ``"each"``, and lengths that differ.
    """
    given = {at: taken for name, own in spans.items() for at, taken in aligned(own, align, name, into_clean=True)}
    gaps = [_gaps([own[side] for own in spans.values()], len(one.ids)) for side, one in enumerate((clean, corrupted))]
    if len(gaps[0]) != len(gaps[1]):
        pieces = [len(some) // 2 for some in gaps]
        raise InputError(
            f"{where}the spans stand in {pieces[0]} pieces in clean and in {pieces[1]} in corrupted, so that what is "
            "between them does not line up; mark as many pieces in both prompts"
        )
    for own, other in zip(*gaps, strict=True):
        mine, theirs = between([clean.ids[at] for at in own], [corrupted.ids[at] for at in other])
        given |= {own[n]: (other[n],) for n in range(mine.start)}
        given |= {own[n]: (other[n],) for n in range(mine.stop - len(own), 0)}
        if mine and theirs:
            middle = (own[mine.start : mine.stop], other[theirs.start : theirs.stop])
            given |= dict(aligned(middle, align, MIDDLE, into_clean=True))
    given[ends[0]] = (ends[1],)
    return tuple(sorted(given.items()))


def _gaps(spans: Sequence[Positions], length: int) -> list[Positions]:
    """Return the positions of no span: before the first piece, inside it, between it and the next one, inside that …

    Inside a piece is what stands between its own tokens, such as a space that is a token by itself.
    """
    owner = {position: number for number, span in enumerate(spans) for position in span}
    gaps: list[list[int]] = [[]]
    last, waiting = -1, list[int]()
    for position in range(length):
        if position not in owner:
            waiting.append(position)
            continue
        if owner[position] == last:
            gaps[-1] += waiting
        else:
            gaps += [waiting, []] if last >= 0 else [[]]
            gaps[0] += waiting if last < 0 else []
        last, waiting = owner[position], []
    gaps += [waiting] if last >= 0 else []
    gaps[0] += waiting if last < 0 else []
    return [tuple(gap) for gap in gaps]


def of_two_lengths(cases: Sequence[Case], align: str) -> tuple[str, ...]:
    """Return how pairs were aligned whose prompts have different lengths."""
    those = [case for case in cases if case.aligned is not None]
    if not those:
        return ()
    own = sum(len(case.base) - len(case.aligned or ()) for case in those)
    left = f"; {own} of their clean tokens have no counterpart and are never ablated" if own else ""
    return (
        f"the prompts of {len(those)} of {len(cases)} pairs have different lengths and are aligned by spans "
        f"(--align {align}){left}",
    )


def unequal(found: Sequence[Mapping[str, Places]], align: str) -> tuple[str, ...]:
    """Return what is done with spans that have different lengths in a pair's prompts."""
    several = {name for spans in found for name, (own, other) in spans.items() if len(own) != len(other)}
    names = [name for name in dict.fromkeys(name for spans in found for name in spans) if name in several]
    if not names:
        return ()
    done = "the last token is given the other's last" if align == "last" else "every token is given the other's mean"
    those = f"the spans {', '.join(names)} have" if len(names) > 1 else f"the span {names[0]} has"
    return (f"{those} different lengths in clean and in corrupted: {done} (--align {align})",)
