"""Running text as shards: a number of tokens each, cut by what is asked, and read from what comes by one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from interp.ids import TypedIds, as_ids, types_of

Ids = tuple[int, ...]


def chunks(texts: Iterable[Ids], tokens: int) -> Iterator[tuple[int, list[Ids]]]:
    """Yield the first one's number and texts that have `tokens` tokens together, or somewhat more.

    Examples
    --------
    >>> list(chunks([(1, 2), (3,), (4, 5, 6)], 3))
    [(0, [(1, 2), (3,)]), (2, [(4, 5, 6)])]
    """
    held: list[Ids] = []
    first = count = 0
    for ids in texts:
        held.append(ids)
        count += len(ids)
        if count >= tokens:
            yield first, held
            first, held, count = first + len(held), [], 0
    if held:
        yield first, held


def packed(texts: Sequence[Ids]) -> dict[str, Tensor]:
    """Return texts as arrays, which are shorter than lists of numbers.

    Examples
    --------
    >>> unpacked(packed([(1, 2), (3,)]))
    [(1, 2), (3,)]
    """
    found = {
        "ids": torch.tensor([index for ids in texts for index in ids], dtype=torch.int32),
        "lengths": torch.tensor([len(ids) for ids in texts], dtype=torch.int32),
    }
    types = [types_of(ids) for ids in texts]
    if any(types):
        every = [kind for ids, own in zip(texts, types, strict=True) for kind in own or (-1,) * len(ids)]
        found["types"] = torch.tensor(every, dtype=torch.int32)
    return found


def unpacked(given: Mapping[str, Tensor]) -> list[Ids]:
    """Return what `packed` was given."""
    lengths: list[int] = given["lengths"].tolist()
    texts = [as_ids(part.tolist()) for part in given["ids"].split(lengths)]
    if "types" not in given:
        return texts
    types: list[list[int]] = [part.tolist() for part in given["types"].split(lengths)]
    return [TypedIds(ids, own) if own and own[0] >= 0 else ids for ids, own in zip(texts, types, strict=True)]
