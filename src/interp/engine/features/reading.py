"""Features in running text: texts are run and encoded, here or in a pool, and what they do is handed on in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.features.activations import Ids, Reader, grouped
from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import Place
from interp.engine.model import hooks
from interp.engine.pool import sharing
from interp.engine.pool.texts import packed, unpacked
from interp.ids import as_ids

if TYPE_CHECKING:
    from interp.engine.features.activity import Activity
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.protocol import Pool

_CHUNK = 2**14  # tokens of texts that are grouped by length, and of a shard
ENTRIES = 2**24  # of rows × features at once

# Which dictionary, its features' activations, the texts' numbers, the position of their first row, rows of a text.
Keep = Callable[[int, Codes, Tensor, int, int], None]


@dataclass
class Read:
    """What a pass gave.

    Attributes
    ----------
    activities
        Of what is kept of each dictionary, where that is `activity.Activity`.
    done
        How many texts were read.
    path, notes
        How, see `Reader`.
    interrupt
        What stopped it.
    """

    activities: list[Activity]
    done: int
    path: str = "store"
    notes: tuple[str, ...] = ()
    interrupt: KeyboardInterrupt | None = None


@dataclass(frozen=True)
class Batch:
    """What features do in texts of one length.

    Attributes
    ----------
    texts
        ``int64 [text]``: their numbers.
    left, length
        The position of a text's first row, and its rows.
    codes
        For each dictionary, a row per token, text by text.
    """

    texts: Tensor
    left: int
    length: int
    codes: tuple[Codes, ...]


def over_texts(
    model: LoadedModel, dictionaries: Sequence[Dictionary], texts: Sequence[Ids], first: Sequence[int], keep: Keep
) -> Read:
    """Run texts, those of equal length together, and hand what features do in them to `keep`; see `read`.

    In a pool workers run the texts and encode what they read; what becomes of it stays here, in the texts' order.
    """
    done = Read([], 0)
    pool = sharing.pool_of(model)

    def kept(batch: Batch) -> None:
        # What is counted twice or by halves is worse than an interrupt that waits for some milliseconds.
        for n, found in enumerate(batch.codes):
            hooks.undisturbed(lambda n=n, c=found: keep(n, c, batch.texts, batch.left, batch.length))
        done.done += len(batch.texts)
        model.on_step(done.done, len(texts))

    try:
        if pool is not None:
            _shared(model, dictionaries, texts, first, kept, done, pool)
            return done
        for chunk in chunks(texts):
            reader = Reader(model, _places(dictionaries), [as_ids(texts[n]) for n in longest(texts, chunk)])
            done.path, done.notes = reader.path, reader.notes
            there = [n for n in chunk if len(texts[n]) > first[n]]
            done.done += len(chunk) - len(there)
            _batches(reader, dictionaries, texts, first, there, kept)
    except KeyboardInterrupt as interrupt:
        done.interrupt = interrupt
    return done


def _places(dictionaries: Sequence[Dictionary]) -> list[Place]:
    return list(dict.fromkeys(one.reads for one in dictionaries))


def _batches(
    reader: Reader,
    dictionaries: Sequence[Dictionary],
    texts: Sequence[Ids],
    first: Sequence[int],
    there: Sequence[int],
    take: Callable[[Batch], None],
) -> None:
    """Run some of the texts, those of one length together, and hand over what features do in them."""

    def some(chosen: Sequence[int]) -> None:
        left, length = first[chosen[0]], len(texts[chosen[0]]) - first[chosen[0]]
        values = dict(zip(reader.places, reader([as_ids(texts[n]) for n in chosen]), strict=True))
        codes = tuple(_encoded(one, values[one.reads][:, left:].flatten(0, 1)) for one in dictionaries)
        take(Batch(torch.tensor(chosen), left, length, codes))

    for (length, _), members in grouped(texts, first, there):
        memory.halving(members, max(1, memory.ROWS // length), some, reader.model.device)


def _shared(
    model: LoadedModel,
    dictionaries: Sequence[Dictionary],
    texts: Sequence[Ids],
    first: Sequence[int],
    take: Callable[[Batch], None],
    done: Read,
    pool: Pool,
) -> None:
    """Let workers run chunks of texts, and take in what features do in them, in order."""
    every = list(chunks(texts))
    reader = Reader(model, _places(dictionaries), [as_ids(texts[n]) for n in longest(texts, every[0])])

    def shards() -> Iterator[dict[str, Any]]:
        for chunk in every:
            own = slice(chunk.start, chunk.stop)
            yield {"dictionaries": tuple(dictionaries), "texts": packed(texts[own]), "first": tuple(first[own])}

    def taken(number: int, batches: Sequence[Batch]) -> None:
        chunk = every[number]
        done.done += len(chunk) - sum(len(one.texts) for one in batches)
        for one in batches:
            take(replace(one, texts=one.texts + chunk.start))

    way: exactness.Way = "hooked" if reader.path.startswith("hooked") else "lean"
    done.notes = reader.notes
    done.path = reader.path + sharing.run(pool, "codes", [model], shards(), sharing.in_order(taken), way=way)


def shard(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    dictionaries: Sequence[Dictionary],
    texts: Mapping[str, Tensor],
    first: Sequence[int],
) -> list[Batch]:
    """Return what features do in a shard of texts, whose numbers count from the shard's first."""
    given = unpacked(texts)
    reader = Reader(models[0], _places(dictionaries), given[:1])
    found: list[Batch] = []

    def take(batch: Batch) -> None:
        found.append(batch)
        step()

    there = [n for n, ids in enumerate(given) if len(ids) > first[n]]
    _batches(reader, dictionaries, given, first, there, take)
    return found


def chunks(texts: Sequence[Ids]) -> Iterator[range]:
    """Yield the numbers of texts, as many at a time as have `_CHUNK` tokens."""
    start = count = 0
    for n, ids in enumerate(texts):
        count += len(ids)
        if count >= _CHUNK:
            yield range(start, n + 1)
            start, count = n + 1, 0
    if start < len(texts):
        yield range(start, len(texts))


def longest(texts: Sequence[Ids], chunk: Sequence[int]) -> list[int]:
    """Return the texts whose runs may be compared with hooked ones."""
    return sorted(chunk, key=lambda n: len(texts[n]))[-exactness.SAMPLE :]


def _encoded(dictionary: Dictionary, rows: Tensor) -> Codes:
    """Return the features' activations in rows, on the CPU; of wide dictionaries some rows at a time."""
    with torch.no_grad():
        parts = [dictionary.encode(some) for some in rows.split(max(1, ENTRIES // dictionary.width))]
    joined = [torch.cat([getattr(part, name) for part in parts]).cpu() for name in ("features", "values")]
    counts = torch.cat([part.counts for part in parts]).cpu()
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Codes(starts, joined[0], joined[1].float(), dictionary.width)
