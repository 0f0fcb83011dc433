"""One pass over running text, a chunk at a time, here or in a pool: the same chunks, in order, with flat memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.pool import sharing
from interp.engine.pool.texts import Ids, chunks, packed, unpacked

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.protocol import Pool

# Tokens of a chunk at most: enough for texts of one length to run together, and for a shard to be worth sending.
TOKENS = 2**14
Given = Mapping[str, Tensor]
Positions = Sequence[Sequence[int]]
Run = Callable[[Sequence[Ids], Positions | None], Tensor]
Step = Callable[[int], None]


class Reader(Protocol):
    """Runs texts of one length together, without hooks or with them; where positions of each count, it is told them.

    Attributes
    ----------
    key
        What of it is compared with the hooked forward once.
    """

    @property
    def key(self) -> exactness.Key:
        """What tells its computation from others."""
        ...

    def ready(self) -> None:
        """Refuse, as `exactness.Unreadable`, a model that cannot be run without hooks."""
        ...

    def lean(self, prompts: Sequence[Ids], at: Positions | None) -> Tensor:
        """Return what is read, ``[prompt, …]``, without hooks."""
        ...

    def hooked(self, prompts: Sequence[Ids], at: Positions | None) -> Tensor:
        """Return the same with hooks."""
        ...


@dataclass(frozen=True)
class Work:
    """What is made of texts.

    Attributes
    ----------
    job
        What a worker is asked for, see `protocol.JOBS`; it calls `shard`.
    asked
        What a worker is told, beside the texts.
    tokens
        Of a chunk.
    reader
        Runs the texts.
    made
        Of what was read of each text of a chunk, by number, to what is taken in.
    at
        Of each text, the positions that count, where not all do.
    """

    job: str
    asked: Mapping[str, Any]
    tokens: int
    reader: Reader
    made: Callable[[Mapping[int, tuple[Ids, Tensor]]], Given]
    at: Positions | None = None

    def of(self, first: int, count: int) -> Positions | None:
        """Return the positions of some texts."""
        return None if self.at is None else self.at[first : first + count]


@dataclass
class Pass:
    """How a pass went.

    Attributes
    ----------
    paths
        How texts were run → what is worth knowing of it.
    texts
        How many were taken in.
    interrupt
        What stopped it.
    """

    paths: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    texts: int = 0
    interrupt: KeyboardInterrupt | None = None


def run(model: LoadedModel, work: Work, texts: Iterable[Ids], count: int, take: Callable[[int, Given], None]) -> Pass:
    """Run texts, and hand what is made of each chunk to `take`, in order, with the first one's number.

    Parameters
    ----------
    texts
        Token ids, which are gone through once.
    count
        How many there are.
    """
    done = Pass()
    pool = sharing.pool_of(model)
    source = chunks(texts, work.tokens)
    try:
        if pool is not None:
            _shared(model, work, source, count, take, done, pool)
        else:
            for first, part in source:
                _here(model, work, first, part, count, take, done)
                if done.interrupt is not None:
                    break
    except KeyboardInterrupt as interrupt:
        done.interrupt = interrupt
    return done


def cut(lengths: Iterable[int], tokens: int) -> Iterator[list[int]]:
    """Yield the lengths of the texts of each chunk, from those of all texts."""
    held: list[int] = []
    count = 0
    for length in lengths:
        held.append(length)
        count += length
        if count >= tokens:
            yield held
            held, count = [], 0
    if held:
        yield held


def grouped(lengths: Sequence[int]) -> list[list[int]]:
    """Return which texts of a chunk run together: those of one length, as many as `memory.ROWS` allows."""
    found: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        found.setdefault(length, []).append(number)
    parts: list[list[int]] = []
    for length, members in found.items():
        size = max(1, memory.ROWS // length)
        parts += [members[start : start + size] for start in range(0, len(members), size)]
    return parts


def longest(lengths: Sequence[int], most: int) -> list[int]:
    """Return which texts of a chunk are compared with the hooked forward."""
    return sorted(range(len(lengths)), key=lambda n: -lengths[n])[:most]


def _compared(
    model: LoadedModel,
    work: Work,
    key: exactness.Key,
    first: int,
    part: Sequence[Ids],
    body: Callable[[exactness.Way, exactness.Check], str],
) -> tuple[str, tuple[str, ...]]:
    """Call `body` for one way; return how that is called, and what is worth knowing of it."""
    reader, few = work.reader, longest([len(ids) for ids in part], exactness.sample_of(model))

    def lean(check: exactness.Check) -> str:
        reader.ready()
        check()
        return body("lean", check)

    def sample() -> Iterator[float]:
        for n in few:
            ids, at = [part[n]], work.of(first + n, 1)
            yield exactness.difference(reader.lean(ids, at), reader.hooked(ids, at))

    done = exactness.run(
        model,
        key,
        lean=lean,
        hooked=lambda fallback: body("hooked", exactness.unchecked),  # noqa: ARG005
        sample=sample,
        path="forward",
        length=len(part[few[0]]),
    )
    return done.path + done.answer, done.notes


def _here(
    model: LoadedModel,
    work: Work,
    first: int,
    part: Sequence[Ids],
    count: int,
    take: Callable[[int, Given], None],
    done: Pass,
) -> None:
    """Take in a chunk; of one that an interrupt stops, what was run of it."""

    def step(texts: int) -> None:
        model.on_step(first + texts, count)

    def body(way: exactness.Way, check: exactness.Check) -> str:  # noqa: ARG001
        held: dict[int, tuple[Ids, Tensor]] = {}
        run = work.reader.lean if way == "lean" else work.reader.hooked
        try:
            _read(model, run, first, part, work.of(first, len(part)), step, held)
        except KeyboardInterrupt as interrupt:
            done.interrupt = interrupt
        if held:
            take(first, work.made({n: held[n] for n in sorted(held)}))
            done.texts += len(held)
        return ""

    path, notes = _compared(model, work, work.reader.key, first, part, body)
    done.paths[path] = notes


def _read(
    model: LoadedModel,
    run: Run,
    first: int,
    texts: Sequence[Ids],
    at: Positions | None,
    step: Step,
    held: dict[int, tuple[Ids, Tensor]],
) -> None:
    """Run a chunk's texts, and put what each gives into `held`, by number."""

    def some(part: Sequence[int]) -> None:
        own = None if at is None else [at[n] for n in part]
        for n, found in zip(part, run([texts[n] for n in part], own), strict=True):
            held[first + n] = texts[n], found

    for part in grouped([len(ids) for ids in texts]):
        memory.halving(part, len(part), some, model.device)
        step(len(held))


def _shared(
    model: LoadedModel,
    work: Work,
    source: Iterator[tuple[int, list[Ids]]],
    count: int,
    take: Callable[[int, Given], None],
    done: Pass,
    pool: Pool,
) -> None:
    """Run all chunks in a pool; at an interrupt those that follow one that is missing are let go of."""
    ahead = next(source)
    firsts: dict[int, tuple[int, int]] = {}  # of shards that are not taken in yet

    def shards() -> Iterator[dict[str, Any]]:
        for number, (first, part) in enumerate(itertools.chain([ahead], source)):
            firsts[number] = first, len(part)
            yield {"asked": dict(work.asked), "first": first, "texts": packed(part), "at": work.of(first, len(part))}

    def taken(number: int, given: Given) -> None:
        first, size = firsts.pop(number)
        take(first, given)
        done.texts += size
        model.on_step(done.texts, count)

    def body(way: exactness.Way, check: exactness.Check) -> str:
        return sharing.run(pool, work.job, [model], shards(), sharing.in_order(taken), way=way, check=check)

    path, notes = _compared(model, work, (*work.reader.key, pool.name), *ahead, body)
    done.paths[path] = notes


def shard(
    model: LoadedModel,
    work: Work,
    step: Callable[[], None],
    first: int,
    texts: Mapping[str, Tensor],
    at: Positions | None,
) -> dict[str, Tensor]:
    """Return what is made of a shard, as a worker does it."""
    reader = work.reader

    def run(prompts: Sequence[Ids], at: Positions | None) -> Tensor:
        return exactness.run(
            model,
            reader.key,
            lean=lambda check: reader.lean(prompts, at),  # noqa: ARG005
            hooked=lambda fallback: reader.hooked(prompts, at),  # noqa: ARG005
            sample=list[float],
        ).answer

    held: dict[int, tuple[Ids, Tensor]] = {}
    _read(model, run, first, unpacked(texts), at, lambda _: step(), held)
    return dict(work.made({n: held[n] for n in sorted(held)}))
