"""What reading features over texts, finding rules for them and training them will take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from interp.engine import exactness, memory
from interp.engine.features import activations, activity, reading
from interp.engine.features.activations import Ids
from interp.engine.features.places import Place, widths
from interp.engine.forecast.costs import Foresight
from interp.engine.forecast.work import NOTHING, Stored, Through, Work, one_batch, passing, total
from interp.sites import SITES

if TYPE_CHECKING:
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.features.training import Recipe
    from interp.engine.model.loaded import LoadedModel

_ACTIVE = 64  # features of a token, where nothing says how many are active
_UNEVEN = 2.5  # by how much more entries there are for as many features, than if all were active alike
_FRESH = 2.5  # how much longer bytes take that are of new memory each time
_FEWER = ("fewer texts (--n)", "fewer features, of a narrower dictionary")
_SMALLER = ("a smaller --batch", "a smaller --width", "some layers (--layer)")

# -- reading texts -----------------------------------------------------------------------------------------------------


class Reading:
    """Texts that are run for what a model has at some places, see `activations.Reader`.

    Attributes
    ----------
    sight
        How they will be run.
    """

    def __init__(self, model: LoadedModel, places: Sequence[Place]) -> None:
        self.model, self.places = model, tuple(dict.fromkeys(places))
        points = {place.point for place in self.places}
        known = [point for point in sorted(points) if point in SITES]
        neurons = ["neuron"] if "neuron" in points else []
        self.sight = Foresight(model, *known, *neurons, encoders=[*points & SITES.keys(), "mlp_out"])
        if "mlp_unit" in points and self.sight.net is not None:
            self.sight.net, self.sight.path = None, "with hooks: the forward without them has no norm without its gain"
        self.wide = sum(widths(model).get(place.point, model.geometry.d_model) for place in self.places)
        self._stop = max(place.layer for place in self.places) + 1
        self._compared = -1

    def compared(self, lengths: Sequence[int]) -> Work:
        """Return the work of comparing the longest of some texts with hooked forwards, where that is not done yet."""
        few = sorted(lengths)[-exactness.sample_of(self.model) :]
        longest = max(few, default=0)
        if self.sight.net is None or longest.bit_length() <= self._compared:
            return NOTHING
        if exactness.trusted(self.model, ("features", *self.places), longest):
            return NOTHING
        self._compared = longest.bit_length()
        return total(self.run(1, n) + one_batch(self.model, n, len(self.places)) for n in few)

    def run(self, count: int, length: int) -> Work:
        """Return the work of running `count` texts of one length together."""
        rows, sizes = count * length, self.sight.sizes
        if self.sight.net is None:
            return one_batch(self.model, rows, len(self.places))
        kept = 4 * rows * self.wide
        through = Through(rows, self._stop, scores=rows * length)
        passed = sizes.element * (rows * sizes.hidden + count * sizes.heads * length * length)
        return Work(1, (through,), calls=12 * self._stop + 30, peak=passed + kept)

    def batches(self, texts: Sequence[Ids], first: Sequence[int], chosen: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Yield how many texts of which length run together."""
        for (length, _), members in activations.grouped(texts, first, chosen):
            size = max(1, memory.ROWS // length)
            for at in range(0, len(members), size):
                yield len(members[at : at + size]), length

    def over_texts(
        self, texts: Sequence[Ids], first: Sequence[int], dictionaries: Sequence[Dictionary], each: Sequence[Each]
    ) -> Work:
        """Return the work of `reading.over_texts`; `each` says what becomes of a dictionary's activations."""
        work = NOTHING
        for chunk in reading.chunks(texts):
            work = work + self.compared([len(texts[n]) for n in reading.longest(texts, chunk)])
            there = [n for n in chunk if len(texts[n]) > first[n]]
            for count, length in self.batches(texts, first, there):
                rows = count * length
                encoded = total(encoding(one, rows) for one in dictionaries)
                taken = total(one(rows) for one in each)
                run = self.run(count, length)
                # What was read stays while it is encoded.
                beside = Work(flops=encoded.flops, moved=encoded.moved, calls=encoded.calls, peak=4 * rows * self.wide)
                peak = 4 * rows * self.wide + max(encoded.peak, taken.peak)
                work = work + run + beside + Work(0, flops=taken.flops, moved=taken.moved, calls=taken.calls, peak=peak)
        return work


class Each:
    """What becomes of one dictionary's activations in a batch of rows."""

    def __call__(self, rows: int) -> Work:
        """Return the work for so many rows."""
        raise NotImplementedError


def encoding(one: Dictionary, rows: int) -> Work:
    """Return the work of a dictionary's activations in `rows` rows."""
    at_once = min(rows, max(1, reading.ENTRIES // one.width))
    dense = 4.0 * rows * one.width
    product = 2.0 * rows * one.width * one.encoder.shape[1]
    return Work(flops=product, moved=7 * dense, calls=20, peak=6 * at_once * one.width)


def active_of(one: Dictionary) -> float:
    """Return how many features are active at a token, as far as a dictionary says."""
    return float(min(one.width, one.act.k or one.declared.get("l0", _ACTIVE)))


# -- one feature -------------------------------------------------------------------------------------------------------


class Counted(Each):
    """Statistics of all features, see `activity.Activity`."""

    def __init__(self, one: Dictionary, partners: int, context: int) -> None:
        self.width, self.partners, self.window = one.width, partners, 2 * context + 1
        self.active = active_of(one)
        self.sample = activity.sample_size(one.width, self.window)
        self._rows = 0

    @property
    def held(self) -> int:
        """Bytes that stay."""
        entries = (activity.TOP + self.sample) * (20 + 4 * self.window)
        return self.width * (entries + 24 + 8 * 2 * activity.OCTAVES * activity.PER_OCTAVE + 8 * self.partners)

    def __call__(self, rows: int) -> Work:
        entries, pairs = rows * self.active, rows * self.active**2
        table = 8.0 * self.partners * self.width
        bins = 8.0 * self.width * 2 * activity.OCTAVES * activity.PER_OCTAVE
        dense = pairs * 32 > rows * self.partners * self.width
        if dense:
            flops, moved, peak = 2.0 * rows * self.partners * self.width, 8.0 * rows * self.width + 3 * table, 0
            peak = int(4 * rows * (self.width + self.partners) + 1.5 * table)
        else:
            flops, moved, peak = 0.0, 60.0 * pairs + 2 * table, int(32 * pairs + table)
        # Some features are active at every token, many at few. What is better than all that is held gets rarer.
        own = self.width * (1 - math.exp(-entries / (_UNEVEN * self.width)))
        before, self._rows = self._rows, self._rows + rows
        kept, sought, largest = 0.0, 0.0, 0.0
        for most in (activity.TOP, self.sample):
            rarer = min(1.0, most / max(1, before))
            # Features that come up late have all of their entries still to be taken in.
            merged = own * 2 * (most + math.sqrt(rarer) * min(most, rows)) * (4 * self.window + 20)
            new = min(entries, most * own) * rarer
            kept += 3 * merged
            sought += 800 * new * self.window  # each of a window is looked for among all entries
            largest = max(largest, merged + 40 * new * self.window)
        return Work(
            flops=flops,
            moved=_FRESH * (moved + 3 * bins + kept) + sought + 200 * entries,
            calls=150,
            peak=max(peak, int(max(2 * bins, largest))) + int(40 * entries),
        )


def of_activity(
    model: LoadedModel,
    wanted: Sequence[tuple[Dictionary, Sequence[int]]],
    texts: Sequence[Ids],
    first: Sequence[int],
    *,
    key: str,
    context: int,
    seed: int,
) -> tuple[Foresight, Work]:
    """Return the work of `activity.read`: nothing of what is kept."""
    _, found = activity.known(model, wanted, key=key, context=context, seed=seed)
    missing = [pair for pair, held in zip(wanted, found, strict=True) if held is None]
    reading = Reading(model, [one.reads for one, _ in wanted])
    if not missing:
        return reading.sight, NOTHING
    each = [Counted(one, len(activity.partners(one, chosen)), context) for one, chosen in missing]
    reading = Reading(model, [one.reads for one, _ in missing])
    held = sum(one.held for one in each)
    work = Work(held=held, moved=2.0 * held, advice=_FEWER)
    return reading.sight, work + reading.over_texts(texts, first, [one for one, _ in missing], each)


# -- rules -------------------------------------------------------------------------------------------------------------


class Noted(Each):
    """Where chosen features are active, see `rules.active`."""

    def __init__(self, one: Dictionary, chosen: int) -> None:
        self.active = active_of(one) * min(1.0, chosen / one.width)
        self.held = 0

    def __call__(self, rows: int) -> Work:
        entries = rows * self.active
        self.held += int(12 * entries)
        return Work(moved=150.0 * entries, calls=20, peak=int(40 * entries))


def of_rules(
    model: LoadedModel,
    wanted: Sequence[tuple[Dictionary, Sequence[int]]],
    parts: Sequence[tuple[Sequence[Ids], Sequence[int]]],
    *,
    statements: int,
) -> tuple[Foresight, Work]:
    """Return the work of finding rules: of reading each of the `parts` of the texts, and of the search.

    Parameters
    ----------
    statements
        How many fixed ones there are, see `rules.search`.
    """
    reading = Reading(model, [one.reads for one, _ in wanted])
    work, features = NOTHING, sum(len(chosen) for _, chosen in wanted)
    for texts, first in parts:
        each = [Noted(one, len(chosen)) for one, chosen in wanted]
        read = reading.over_texts(texts, first, [one for one, _ in wanted], each)
        held = sum(one.held for one in each)
        tokens = sum(map(len, texts))
        # While they are sorted by feature the entries are there twice, and as wider numbers.
        sorting = Work(held=held + 80 * tokens, moved=20.0 * held, peak=4 * held, calls=10 * features)
        work = work + read + sorting
    tokens = sum(map(len, parts[0][0]))
    masks = 5 * statements * tokens
    search = Work(
        flops=2.0 * statements**2 * tokens * (1 + features),
        moved=2.0 * features * (_TOKEN * tokens + 8 * masks),
        calls=2 * _SEARCHED * features,
        held=masks + 60 * tokens,
        peak=int(1.5 * masks) + 60 * tokens,
        advice=_FEWER,
    )
    return reading.sight, work + search


_TOKEN, _SEARCHED = 4000.0, 600  # bytes moved for a token, and small operations, of one search for a rule

# -- training ----------------------------------------------------------------------------------------------------------


def of_training(
    model: LoadedModel,
    pairs: Sequence[tuple[Place, Place]],
    trained: tuple[Sequence[Ids], Sequence[int]],
    held: Sequence[Ids],
    recipe: Recipe,
    *,
    passes: int,
    loss: bool,
) -> tuple[Foresight, Work]:
    """Return the work of a training and of measuring what comes of it.

    Parameters
    ----------
    pairs
        For each dictionary, where it reads and where it writes.
    trained
        Token ids of the texts, and of each the positions left out at its beginning.
    held
        Token ids of the texts that are measured on.
    passes
        How often a pool is gone through.
    loss
        Whether the loss is measured, too.
    """
    texts, first = trained
    places = list(dict.fromkeys(place for pair in pairs for place in pair))
    reading, stored, known = Reading(model, places), Stored(model), widths(model)
    names = list(dict.fromkeys(place.hook(model) for place in places))
    stored.plain(texts[0], *names)
    begun_with = stored.work
    work = begun_with + reading.compared([len(one) for one in texts]) + reading.run(1, len(texts[0]))
    counts = [len(ids) - left for ids, left in zip(texts, first, strict=True)]
    most, left, last, begun = activations.most_rows(reading.wide, recipe.batch), recipe.steps, None, None
    sizes = [tuple(known.get(place.point, model.geometry.d_model) for place in pair) for pair in pairs]
    steps = [_step(recipe, d_in, d_out) for d_in, d_out in sizes]
    weights = sum(one.held for one in steps)
    for chosen in activations.pools(counts, most, recipe.seed):
        rows = sum(counts[n] for n in chosen)
        pool = 4 * rows * reading.wide
        if chosen != last:
            read = total(reading.run(*batch) for batch in reading.batches(texts, first, chosen))
            # Its parts are put together while they are there.
            work = work + _less_held(read, moved=2.0 * pool, peak=2 * pool + weights)
        if begun is None:
            begun = chosen
            work = work + _beginning(recipe, rows, sizes, pool)
        last, taken = chosen, min(left, passes * activations.batches_of(rows, recipe.batch))
        for one in steps:
            work = work + _less_held(_times(one, taken), moved=0.0, peak=pool + weights + one.peak)
        drawn = 12.0 * recipe.batch * reading.wide * taken
        work, left = work + Work(moved=drawn, calls=taken * (4 * len(places) + 40)), left - taken
        if left <= 0:
            break
    if last != begun and begun is not None:
        rows = sum(counts[n] for n in begun)
        read = total(reading.run(*batch) for batch in reading.batches(texts, first, begun))
        work = work + _less_held(read, moved=8.0 * rows * reading.wide, peak=8 * rows * reading.wide + weights)
    pool = 4 * sum(counts[n] for n in begun or ()) * reading.wide
    work = work + Work(held=pool + weights, advice=_SMALLER)
    for ids in held:
        stored.plain(ids, *names)
    work = work + stored.work.less(begun_with)
    return reading.sight, work + _measured(model, [len(ids) for ids in held], len(pairs), recipe, loss=loss)


def _step(recipe: Recipe, d_in: int, d_out: int) -> Work:
    """Return the work of one step of one dictionary; `held` is its weights, their gradients and Adam's moments."""
    batch, width, entries = recipe.batch, recipe.width, recipe.batch * recipe.k
    parameters = width * (d_in + d_out + 1) + d_out + (d_in * d_out if recipe.skip else 0)
    dense, rows = float(batch * width), float(batch * (d_in + d_out))
    product = 2.0 * batch * width * d_in + (4.0 * batch * d_in * d_out if recipe.skip else 0.0)
    bags = 4.0 * entries * (2 * d_out + d_in + d_out)
    chosen = 30.0 if recipe.kind == "topk" else 60.0  # bytes of a number of the dense product, to find the largest
    return Work(
        flops=product,
        moved=1.4 * (chosen * dense + 2.5 * bags + 40.0 * rows + 60.0 * parameters),
        calls=150,
        held=16 * parameters,
        peak=int(14 * dense + 16 * rows + 60 * entries + 8 * parameters),
    )


def _times(one: Work, count: int) -> Work:
    return Work(flops=one.flops * count, moved=one.moved * count, calls=one.calls * count)


def _less_held(work: Work, *, moved: float, peak: int) -> Work:
    """Return work with what is in use beside it."""
    return work + Work(moved=moved, peak=max(peak, work.peak))


def _beginning(recipe: Recipe, rows: int, sizes: Sequence[tuple[int, ...]], pool: int) -> Work:
    """Return the work of what trainings begin with: means and sizes in double precision, rows brought to scale."""
    both, widest = max(map(sum, sizes)), max(map(max, sizes))
    moved = 60.0 * rows * sum(map(sum, sizes))
    first = 13 * min(rows, recipe.batch) * recipe.width + 4 * rows * both
    return Work(moved=moved, calls=80 * len(sizes), peak=pool + max(16 * rows * widest, 6 * rows * both, first))


def _measured(model: LoadedModel, lengths: Sequence[int], count: int, recipe: Recipe, *, loss: bool) -> Work:
    """Return the work of `measure` but for the plain runs: the loss is that of one run, and of two for each set."""
    work = NOTHING
    for length in lengths:
        work = work + Work(flops=2.0 * count * length * recipe.width * model.geometry.d_model, calls=60 * count)
        if loss and length > 1:
            logits = 28 * length * model.geometry.d_vocab_out
            run = one_batch(model, length, 1, last_only=False)
            run = run + Work(moved=float(logits), calls=10, peak=passing(model, length) + logits)
            work = total([work, *[run] * (1 + 2 * count)])
    return work
