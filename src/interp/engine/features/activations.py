"""Activations of many texts at some places, streamed: a pool of them is there at a time, and batches are drawn from it.

Which rows a batch has follows from the seed and its number alone: a training that resumes goes on with the next batch,
and of what was drawn before it only its own pool is computed again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.features.places import Place, flat
from interp.engine.model import hooks
from interp.engine.pool import sharing
from interp.engine.pool.texts import packed, unpacked
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward
from interp.ids import as_ids
from interp.sites import SITES

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.protocol import Pool

POOL = 256 * 2**20  # bytes of a pool

_PARTS = 8  # batches of a shard
Ids = tuple[int, ...]
Part = tuple[int, list[Ids]]  # positions left out at each one's beginning, and texts that run together
Runner = Callable[[Sequence[Ids]], list[Tensor]]


class Reader:
    """Runs texts of one length together and gives what a model has at some places, without hooks where that is exact.

    Attributes
    ----------
    path
        How: ``"forward"``, or ``"hooked: why"``.
    notes
        What is worth knowing of it.
    """

    _net: network.Network

    def __init__(self, model: LoadedModel, places: Sequence[Place], prompts: Sequence[Ids]) -> None:
        self.model, self.places = model, tuple(places)
        few = sorted(prompts, key=len)[-exactness.sample_of(model) :]

        def lean(check: exactness.Check) -> Runner:
            self._net = self._read()
            check()
            return self._lean

        def sample() -> Iterator[float]:
            for ids in few:
                for found, expected in zip(self._lean([ids]), self._hooked([ids]), strict=True):
                    yield exactness.difference(found, expected)

        done = exactness.run(
            model,
            ("features", *self.places),
            lean=lean,
            hooked=lambda fallback: self._hooked,  # noqa: ARG005
            sample=sample,
            path="forward",
            length=max(map(len, few), default=0),
        )
        self._run, self.path, self.notes = done.answer, done.path, done.notes

    def __call__(self, prompts: Sequence[Ids]) -> list[Tensor]:
        """Return for each place ``[prompt, position, width]`` of prompts of one length, in single precision."""
        return [tensor.detach().float() for tensor in self._run(prompts)]

    def _read(self) -> network.Network:
        points = {place.point for place in self.places}
        if "mlp_unit" in points:
            raise exactness.Unreadable("the forward without hooks has no norm without its gain")
        exactness.require_known(*(point for point in points if point in SITES))
        if "neuron" in points:
            exactness.require_known("neuron")
        return network.read(self.model, encoders=[*points & SITES.keys(), "mlp_out"])

    def _lean(self, prompts: Sequence[Ids]) -> list[Tensor]:
        held: dict[Place, Tensor] = {}

        def keep(site: str) -> Edit:
            def edit(layer: int, tensor: Tensor) -> None:
                for point in _SEEN_AT.get(site, (site,)):
                    if (place := Place(layer, point)) in self.places:
                        normed = point == "mlp_normed"
                        held[place] = flat(place, self._net.at(layer).norm2(tensor) if normed else tensor)

            return edit

        sites = {"mlp_in" if place.point == "mlp_normed" else place.point for place in self.places}
        last = max(place.layer for place in self.places)
        resid = self._net.begin(prompts)
        forward(self._net, edits={site: keep(site) for site in sites}, resid=resid, stop=last + 1)
        self.model.count(1)
        return [held[place] for place in self.places]

    def _hooked(self, prompts: Sequence[Ids]) -> list[Tensor]:
        held: dict[Place, Tensor] = {}

        def keep(here: Sequence[Place]) -> hooks.Hook:
            def read(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
                held.update({place: flat(place, tensor).clone() for place in here})

            return read

        at: dict[str, list[Place]] = {}
        for place in self.places:
            at.setdefault(place.hook(self.model), []).append(place)
        self.model.forward(list(prompts), {name: keep(here) for name, here in at.items()})
        return [held[place] for place in self.places]


_SEEN_AT = {"mlp_in": ("mlp_in", "mlp_normed")}


class Stream:
    """Rows of activations in batches, for ever.

    Parameters
    ----------
    first
        For each prompt, the positions to leave out at its beginning: a BOS.
    batch
        Rows to a batch, or somewhat fewer.
    passes
        How often a pool is gone through, each time in another order, before the next one is computed.
    budget
        Bytes of a pool.

    Attributes
    ----------
    rows
        How many rows the prompts have together.
    where
        In which pool the prompts run, such as ``" on 2 processes"``; training takes its steps here.
    """

    def __init__(
        self,
        model: LoadedModel,
        reader: Reader,
        prompts: Sequence[Ids],
        first: Sequence[int],
        *,
        batch: int,
        seed: int,
        passes: int = 1,
        budget: int = POOL,
    ) -> None:
        self._model, self._reader = model, reader
        self._prompts, self._first, self._batch = prompts, first, batch
        self._seed, self._passes = seed, passes
        self._counts = [len(ids) - left for ids, left in zip(prompts, first, strict=True)]
        self.rows = sum(self._counts)
        self._most = most_rows(sum(tensor.shape[-1] for tensor in reader([prompts[0]])), batch, budget)
        self._held: tuple[tuple[int, ...], list[Tensor]] = ((), [])
        self.where = ""

    def seen(self) -> list[Tensor]:
        """Return the first pool, for each place ``[row, width]``: what trainings begin with."""
        return self._pool(next(pools(self._counts, self._most, self._seed)))

    def batches(self, skip: int = 0) -> Iterator[list[Tensor]]:
        """Yield batches for ever, for each place ``[row, width]``, but for the first `skip` ones."""
        for number, chosen in enumerate(pools(self._counts, self._most, self._seed)):
            count = sum(self._counts[index] for index in chosen)
            parts = batches_of(count, self._batch)
            if skip >= parts * self._passes:
                skip -= parts * self._passes
                continue
            pool = self._pool(chosen)
            for again in range(self._passes):
                order = np.random.default_rng([self._seed, 1, number, again]).permutation(count)
                for rows in np.array_split(order, parts)[skip:]:
                    index = torch.from_numpy(rows).to(pool[0].device)
                    yield [tensor[index] for tensor in pool]
                skip = max(0, skip - parts)

    def _pool(self, chosen: tuple[int, ...]) -> list[Tensor]:
        if self._held[0] == chosen:
            return self._held[1]
        self._held = ((), [])  # two are not there at once
        found: list[list[Tensor]] = [[] for _ in self._reader.places]
        parts: list[Part] = []
        for (length, left), members in grouped(self._prompts, self._first, chosen):
            size = max(1, memory.ROWS // length)
            for start in range(0, len(members), size):
                parts.append((left, [self._prompts[index] for index in members[start : start + size]]))
        pool = sharing.pool_of(self._model)
        if pool is None:
            _rows(self._reader, parts, found)
        else:
            self._shared(parts, pool, found)
        self._held = (chosen, [torch.cat(rows) for rows in found])
        return self._held[1]

    def _shared(self, parts: Sequence[Part], pool: Pool, found: list[list[Tensor]]) -> None:
        """Let workers run parts, some together, and take what they read in in order."""
        shards = [
            {
                "places": self._reader.places,
                "parts": tuple((left, len(prompts)) for left, prompts in some),
                "texts": packed([ids for _, prompts in some for ids in prompts]),
            }
            for some in (parts[start : start + _PARTS] for start in range(0, len(parts), _PARTS))
        ]

        def take(_: int, given: Sequence[Tensor]) -> None:
            for rows, tensor in zip(found, given, strict=True):
                rows.append(tensor.to(self._model.device))

        way: exactness.Way = "hooked" if self._reader.path.startswith("hooked") else "lean"
        sharing.run(pool, "harvest", [self._model], shards, sharing.in_order(take), way=way, keep=False)
        self.where = f" on {pool.name}"


def _rows(
    reader: Reader, parts: Sequence[Part], found: list[list[Tensor]], step: Callable[[], object] = lambda: None
) -> None:
    """Run texts, and add what is read of each token to the rows of each place."""
    for left, prompts in parts:

        def some(part: Sequence[Ids], left: int = left) -> None:
            for rows, tensor in zip(found, reader(part), strict=True):
                rows.append(tensor[:, left:].flatten(0, 1))
            step()

        memory.halving(prompts, len(prompts), some, reader.model.device)


def shard(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    places: Sequence[Place],
    parts: Sequence[tuple[int, int]],
    texts: Mapping[str, Tensor],
) -> list[Tensor]:
    """Return for each place ``[row, width]`` of a shard's texts, as many of one length together as `parts` say."""
    rest = iter(unpacked(texts))
    given = [(left, list(itertools.islice(rest, count))) for left, count in parts]
    reader = Reader(models[0], places, given[0][1][:1])
    found: list[list[Tensor]] = [[] for _ in places]
    _rows(reader, given, found, step)
    return [torch.cat(rows) for rows in found]


def most_rows(width: int, batch: int, budget: int = POOL) -> int:
    """Return how many rows a pool has at most, of `width` numbers each at all places together."""
    return max(batch, budget // (4 * width))


def batches_of(rows: int, batch: int) -> int:
    """Return into how many batches a pool is cut."""
    return -(-rows // batch)


def pools(counts: Sequence[int], most: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of the prompts of pools for ever, ascending in each of them.

    Parameters
    ----------
    counts
        Rows of each prompt.
    most
        Rows of a pool.
    """
    epoch = 0
    while True:
        chosen: list[int] = []
        rows = 0
        for index in np.random.default_rng([seed, 0, epoch]).permutation(len(counts)).tolist():
            if chosen and rows + counts[index] > most:
                yield tuple(sorted(chosen))
                chosen, rows = [], 0
            chosen.append(index)
            rows += counts[index]
        yield tuple(sorted(chosen))
        epoch += 1


def grouped(
    prompts: Sequence[Ids], first: Sequence[int], chosen: Sequence[int]
) -> list[tuple[tuple[int, int], list[int]]]:
    """Return (length, positions left out at the beginning) and which prompts run together, by their numbers."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index in chosen:
        groups.setdefault((len(prompts[index]), first[index]), []).append(index)
    return sorted(groups.items())


def ids_of(prompts: Sequence[Sequence[int]]) -> list[Ids]:
    """Return prompts as they are run."""
    return [as_ids(ids) for ids in prompts]
