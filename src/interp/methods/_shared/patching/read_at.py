"""Where the receivers of paths read what is sent to them: everywhere, at some positions, or span by span."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.methods._shared import named_positions
from interp.methods._shared.named_positions import Spanned
from interp.spans import END
from interp.spec import Node, Pairs, plain

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Case


@dataclass(frozen=True)
class ReadAt:
    """Receivers, each with where it reads.

    Attributes
    ----------
    receivers
        One for each receiver and place.
    places
        What the places are called; empty where every receiver reads everywhere.
    cases
        The pairs, which know of the positions.
    notes
        What a name means.
    """

    receivers: list[Node]
    places: tuple[str, ...]
    cases: list[Case]
    notes: tuple[str, ...] = ()


def read_at(
    model: LoadedModel, pairs: Pairs, cases: Sequence[Case], receivers: Sequence[Node], at: Any, by: str, direction: str
) -> ReadAt:
    """Return receivers that read at `at`; with `by` span, one for each receiver and span.

    Raises
    ------
    InputError
        A span that a pair lacks, or a place where no receiver reads.
    """
    if at is None and by != "span":
        return ReadAt(list(receivers), (), list(cases))
    both = named_positions.of_pairs(model, pairs, both=True)
    prompts = both[1::2] if direction == "denoise" else both[::2]  # those whose runs are changed
    asked = _asked(prompts[0], at, by)
    where = [[one.positions(place) for place in asked] for one in prompts]
    names = [named_positions.named(place) for place in asked]
    measured = [any(case.position in own[n] for case, own in zip(cases, where, strict=True)) for n in range(len(asked))]
    columns: list[tuple[Node, int]] = []
    # Those that a head's inputs share one attention for stand together.
    for _, own in groupby(receivers, key=lambda node: (node.kind, node.layer)):
        group = list(own)
        columns += [(node, n) for n in range(len(asked)) for node in group if node.kind != "logits" or measured[n]]
    if not columns:
        raise InputError(
            f"logits are read where the prediction is measured, and {' and '.join(names)} is not there: add {END} to "
            "--at, or name another receiver with --to"
        )
    heard = [tuple(own[n] for _, n in columns) for own in where]
    return ReadAt(
        [node for node, _ in columns],
        tuple(names[n] for _, n in columns),
        [replace(case, heard=own) for case, own in zip(cases, heard, strict=True)],
        tuple(note for place in asked for note in named_positions.lengths(place, prompts)),
    )


def _asked(first: Spanned, at: Any, by: str) -> list[Any]:
    """Return the places, each as it is asked for."""
    given = plain(at)
    if by != "span":
        return [given]
    if given is not None:
        return list(given) if isinstance(given, list | tuple) else [given]
    others = {position for name, own in first.spans.items() if name != END for position in own}
    return [name for name, own in first.spans.items() if name != END or own[0] not in others]
