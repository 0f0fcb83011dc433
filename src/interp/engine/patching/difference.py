"""What carries the difference of two models: every component of one in the other, and a small set that suffices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.metrics import upcast
from interp.engine.model import hooks
from interp.engine.patching.ablation import Sample
from interp.engine.patching.cases import Case, by_length
from interp.engine.patching.driver import Driver, OnStep, Outcome, nothing
from interp.engine.patching.noise import measured_noise
from interp.engine.patching.swapped import Component, Swap, components, weight_change
from interp.engine.pool import sharing
from interp.engine.transformer import network

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.protocol import Pool
    from interp.engine.transformer.network import Network

_REFUSED = exactness.Refusal("components are put into another model", "use %interp patch --from-model")
ROWS = memory.GRADIENT_ROWS  # tokens of a shard, each of which runs once for every component
_PRUNED = 64  # components of a set that are tried without


@dataclass
class Carried(Outcome):
    """What was found.

    Attributes
    ----------
    values, done
        ``[component, prompt]``: the metric of the model with one component of the other.
    components
        Which, in the order of the rows.
    base, other
        ``float64 [prompt]``: the metric of both models as they are.
    weight_change
        Component by component, see `swapped.weight_change`.
    kept
        A set that carries the wanted share, the strongest first: rows of `values`.
    together, without
        ``float64 [prompt]``: the metric of the model with the set, and with all other components.
    """

    components: list[Component] = field(default_factory=list[Component])
    base: Tensor = field(default_factory=lambda: torch.empty(0))
    other: Tensor = field(default_factory=lambda: torch.empty(0))
    weight_change: list[float] = field(default_factory=list[float])
    kept: list[int] = field(default_factory=list[int])
    together: Tensor | None = None
    without: Tensor | None = None


class Difference:
    """The comparison of two models of one shape.

    Parameters
    ----------
    model, other
        The one that components are put into, and the one that they are of.
    samples
        Prompts, and what is measured.
    weights
        See `swapped.Swap`.
    share
        Of the difference, what the set is to carry; 0 looks for none.
    """

    def __init__(
        self,
        model: LoadedModel,
        other: LoadedModel,
        samples: Sequence[Sample],
        *,
        weights: bool,
        share: float,
        on_step: OnStep,
    ) -> None:
        self.model, self.other, self.samples = model, other, list(samples)
        self.weights, self.share = weights, share
        geometry = model.geometry
        rows = geometry.n_layers * (geometry.n_heads + 1 + weights) + 1 + weights
        unknown, _ = nothing(2, len(samples))
        self.found = Carried(*nothing(rows, len(samples)), path="forward", base=unknown[0], other=unknown[1])
        self.driver = Driver(model, self.found, self.found.done.numel(), on_step)
        self.pool = sharing.pool_of(model, other, metric=self.samples[0].scorer.metric)
        self.shards = 0

    def run(self) -> Carried:
        """Compute all of it, to the end or to where it had to stop."""
        metric = exactness.of_metric(self.samples[0].scorer.metric)
        key = ("difference", self.weights, metric, id(self.other), self.other.fingerprint())
        self.driver.run(
            key if self.pool is None else (*key, self.pool.name),
            lean=self._lean,
            hooked=_REFUSED,
            sample=self._sample,
            length=max(len(one.ids) for one in self.samples),
            noise=self._noise,
        )
        if self.pool is not None:
            self.found.path += sharing.said(self.shards, self.pool)
        return self.found

    def _lean(self, check: exactness.Check) -> None:
        found, (ours, theirs) = self.found, self._networks()
        if self.pool is None:
            measured = self._swaps(ours, theirs, each=True)
        else:
            measured = functools.partial(self._share, self.pool)
            measured(None)
        self._whole = measured(range(len(found.components))) if self.weights else None
        check()
        found.weight_change = [weight_change(ours, theirs, one) for one in found.components]
        if self.share and float((found.other - found.base).mean()):
            self._search(measured)

    def part(self, chosen: Sequence[int] | None) -> dict[str, Tensor]:
        """Return what a shard gives: of each component alone, or of those `chosen` together."""
        measured = self._swaps(*self._networks(), each=chosen is None)
        if chosen is not None:
            return {"together": measured(chosen)}
        return {"values": self.found.values, "base": self.found.base, "other": self.found.other}

    def _networks(self) -> tuple[Network, Network]:
        ours, theirs = (network.single(network.read(one, half=True)) for one in (self.model, self.other))
        self.found.components = components(ours, weights=self.weights)
        return ours, theirs

    def _share(self, pool: Pool, chosen: Sequence[int] | None) -> Tensor:
        """Return what is measured with components `chosen` together, in a pool; of none, measure each alone."""
        found, together = self.found, torch.empty(len(self.samples), dtype=torch.float64)
        prompts = by_length([one.ids for one in self.samples])
        shards = [
            [numbers[n] for n in some]
            for length, numbers in prompts.items()
            for some in sharing.slices(len(numbers), max(1, ROWS // length))
        ]

        def take(number: int, given: dict[str, Tensor]) -> None:
            own = shards[number]
            if chosen is not None:
                together[own] = given["together"]
                return
            found.base[own], found.other[own] = given["base"], given["other"]
            self.driver.record((slice(None), own), given["values"])
            self.driver.step()

        asked = {"weights": self.weights, "chosen": None if chosen is None else tuple(chosen)}
        every = [{**asked, "samples": tuple(self.samples[n] for n in own)} for own in shards]
        self.shards += len(shards)
        sharing.run(pool, "difference", [self.model, self.other], every, take)
        return together

    def _swaps(self, ours: Network, theirs: Network, *, each: bool) -> Callable[[Sequence[int]], Tensor]:
        """Run both models, measure `each` component alone, and return what measures several together."""
        found = self.found
        row = {one: n for n, one in enumerate(found.components)}
        swaps: list[tuple[list[int], Swap]] = []

        def some(chosen: Sequence[int]) -> None:
            swap = Swap(ours, theirs, [self.samples[n] for n in chosen], weights=self.weights)
            self.model.count(len(chosen))
            self.other.count(len(chosen))
            found.base[chosen], found.other[chosen] = swap.plain, swap.others
            for layer in range(-1, len(ours.layers) if each else -1):
                for one, values in swap.alone(layer):
                    self.driver.record((row[one], chosen), values)
                self.driver.step()
            swap.before.clear()
            swaps.append((list(chosen), swap))

        for length, same in by_length([one.ids for one in self.samples]).items():
            memory.halving(same, self._together(length), some, self.model.device)

        def measured(chosen: Sequence[int]) -> Tensor:
            values = torch.empty(len(self.samples), dtype=torch.float64)
            for numbers, swap in swaps:
                values[numbers] = swap.together({found.components[n] for n in chosen})
            self.model.count(len(self.samples))
            return values

        return measured

    def _together(self, length: int) -> int:
        """Return how many prompts of `length` tokens are run at once."""
        g = self.model.geometry
        logits = g.d_vocab_out * self.samples[0].scorer.positions
        one = 4 * (length * g.d_model * (2 * g.n_layers + 3 * g.n_heads) + logits)
        return max(1, min(memory.WAVE_ROWS // length, memory.free_bytes(self.model.device) // 4 // one))

    # -- a set that suffices -------------------------------------------------------------------------------------------

    def _search(self, measured: Callable[[Sequence[int]], Tensor]) -> None:
        """Find a set that carries the wanted share: as many of the strongest as it takes, less what is not needed."""
        found = self.found
        base, change = found.base.mean(), (found.other - found.base).mean()
        effects = (found.values - found.base).mean(1) / change
        moved = [n for n in effects.argsort(descending=True, stable=True).tolist() if effects[n] != 0]

        def carried(chosen: Sequence[int]) -> float:
            self.model.alive(f"a set that carries {self.share:.0%}, {len(chosen)} components")
            return float((measured(chosen).mean() - base) / change)

        few = _fewest(len(moved), lambda count: carried(moved[:count]) >= self.share)
        if few is None:
            return
        kept = moved[:few]
        for one in reversed(kept[:_PRUNED]):
            rest = [n for n in kept if n != one]
            if rest and carried(rest) >= self.share:
                kept = rest
        found.kept = kept
        found.together = measured(kept)
        found.without = measured([n for n in range(len(found.components)) if n not in kept])

    # -- the hooked forward --------------------------------------------------------------------------------------------

    def _sample(self) -> Iterator[float]:
        """Yield how far both models' plain runs are from their hooked forwards, and all components from the other."""
        for number in range(min(len(self.samples), exactness.sample_of(self.model))):
            ends = [_hooked(of, self.samples[number]) for of in (self.model, self.other)]
            base, other = (_value(self.samples[number], end, ends[1]) for end in ends)
            yield exactness.difference(self.found.base[number], base)
            yield exactness.difference(self.found.other[number], other)
            if self._whole is not None:
                yield exactness.difference(self._whole[number], self.found.other[number])

    def _noise(self) -> float:
        cases = [Case(one.ids, one.ids, one.scorer, one.position) for one in self.samples]
        return measured_noise(self.model, self.other, cases).relative


def swapped(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    samples: Sequence[Sample],
    weights: bool,
    chosen: Sequence[int] | None,
) -> dict[str, Tensor]:
    """Measure components of a model in another one on some prompts, as a worker does; see `Difference.part`."""
    model, other = models
    job = Difference(model, other, samples, weights=weights, share=0.0, on_step=lambda done, total: step())  # noqa: ARG005
    return hooks.guarded(lambda: job.part(chosen))


def _fewest(count: int, enough: Callable[[int], bool]) -> int | None:
    """Return about the least number up to `count` that is enough: the next power of two, then by halves."""
    high = 1
    while not enough(min(high, count)):
        if high >= count:
            return None
        high *= 2
    low, high = high // 2, min(high, count)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _hooked(model: LoadedModel, sample: Sample) -> Tensor:
    """Return a prompt's logits by the plain hooked forward, ``[position, d_vocab]``."""
    return upcast(model.activations_of(sample.ids, ["logits"])["logits"][0])


def _value(sample: Sample, logits: Tensor, others: Tensor) -> Tensor:
    scorer = sample.scorer.with_clean(others[sample.position]) if sample.scorer.metric.needs_clean else sample.scorer
    return scorer.of_logits(scorer.measured(logits[None], sample.position))[0]
