"""Runs with components taken away: heads, MLPs, directions, edges of attention and features, alone and together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.features import edits
from interp.engine.metrics import upcast
from interp.engine.model.interventions import composed, require_read, written
from interp.engine.patching import ablated_features, ablation_pooled, captured
from interp.engine.patching.cases import Ids, by_length
from interp.engine.patching.driver import Driver, OnStep, Outcome, nothing, silent
from interp.engine.patching.fillings import MODES, Capture, Fillings, Part, along, by_position, donors
from interp.engine.pool import sharing
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward
from interp.sites import Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.metrics import Scorer
    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.pooled import Shard
    from interp.engine.pool.protocol import Pool

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sample:
    """A prompt that is measured, at one position or at several, of which this is the last.

    Attributes
    ----------
    ends
        What ends of edges are called that are no positions → the positions that are meant.
    """

    ids: Ids
    position: int
    scorer: Scorer
    ends: Mapping[int | str, Ids] = field(default_factory=dict[int | str, Ids], compare=False)

    def edges(self, part: Part, causal: bool) -> Iterator[tuple[list[int], int]]:
        """Yield each key that a part cuts in this prompt, with the queries that no longer see it."""
        for key in self.ends.get(part.key, (part.key,)):
            assert isinstance(key, int)
            if part.query is None:
                yield [n for n in range(key + 1 if causal else 0, len(self.ids)) if n != key], key
                continue
            queries = self.ends.get(part.query, (part.query,))
            yield [n for n in queries if isinstance(n, int) and (not causal or n >= key)], key


class Ablated(Outcome):
    """What the runs gave.

    `values` are ``[condition, sample]``: the metric. The conditions: nothing taken away, each part alone, and all
    together where there are several.
    """


def conditions(components: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the parts that are taken away in each condition.

    Parameters
    ----------
    components
        The parts of which each is made.

    Examples
    --------
    >>> conditions([[0], [1, 2]]), conditions([[0]])
    ([(), (0,), (1, 2), (0, 1, 2)], [(), (0,)])
    """
    each = [tuple(one) for one in components]
    return [(), *each, *([tuple(n for one in each for n in one)] if len(each) > 1 else [])]


def ablate(
    model: LoadedModel,
    samples: Sequence[Sample],
    parts: Sequence[Part],
    *,
    mode: str,
    references: Sequence[Ids],
    components: Sequence[Sequence[int]] | None = None,
    at: Sequence[Sequence[int]] = (),
    taken: Sequence[int] = (),
    seed: int = 0,
    on_step: OnStep = silent,
) -> Job:
    """Return what measures every sample in every condition.

    Parameters
    ----------
    mode
        What a head's z, an MLP's output or a direction's coordinate becomes: ``zero``; ``mean`` over the references;
        ``resample``: the reference's that `taken` names; ``noise``: itself and Gaussian noise of its own standard
        deviation.
    references
        The prompts that means and deviations are taken over and activations are taken from.
    components
        Which parts are taken away together; each alone when not given.
    at
        For each sample, the positions at which outputs and coordinates become so; everywhere when empty. Edges are cut
        where they are.
    taken
        For each sample, which reference.
    """
    held = [(n,) for n in range(len(parts))] if components is None else components
    return Job(model, samples, parts, Fillings(parts, mode, references, taken, seed, at), conditions(held), on_step)


class Job:
    def __init__(
        self,
        model: LoadedModel,
        samples: Sequence[Sample],
        parts: Sequence[Part],
        fillings: Fillings,
        conditions: Sequence[tuple[int, ...]],
        on_step: OnStep,
    ) -> None:
        self.model = model
        self.samples = list(samples)
        self.parts = list(parts)
        self.fillings = fillings
        self.conditions = list(conditions)
        self.found = Ablated(*nothing(len(self.conditions), len(self.samples)), path="forward")
        self.driver = Driver(model, self.found, self.found.done.numel(), on_step)
        self.before: dict[tuple[int, int], Tensor] = {}  # sample, layer → the unablated residual stream
        self.pool: Pool | None = None
        self.compared: Shard | None = None  # the part of which a sample is taken
        self.where = ""  # what a provenance adds of shards

    def run(self) -> Ablated:
        """Compute every run, without hooks where that can be trusted; in the command's pool, where there is one."""
        self.pool = sharing.pool_of(self.model, metric=self.samples[0].scorer.metric)
        self.driver.run(
            self.key if self.pool is None else (*self.key, self.pool.name),
            lean=self._without_hooks,
            hooked=self._with_hooks,
            sample=self._sample,
            length=self.longest,
        )
        self.found.path += self.where
        return self.found

    @property
    def key(self) -> exactness.Key:
        """What is compared with the hooked forward once."""
        metric = exactness.of_metric(self.samples[0].scorer.metric)
        digests = frozenset(part.dictionary.digest for part in self.parts if part.dictionary is not None)
        return ("ablation", frozenset(part.site for part in self.parts), self.fillings.mode, metric, digests)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(sample.ids) for sample in self.samples)

    def _without_hooks(self, check: exactness.Check) -> None:
        exactness.require_known(*(part.site for part in self.parts if part.site != "scores"))
        net = network.read(self.model, encoders={part.site for part in self.parts})
        if self.pool is not None:
            ablation_pooled.run(self, self.pool, "lean", check)
            return
        self._go(captured.without_hooks(self.model, net), lambda c, some: self._lean(net, c, some), check)

    def _with_hooks(self) -> None:
        sites = {Site("pattern" if part.site == "scores" else part.site, part.layer) for part in self.parts}
        require_read(self.model, sorted(sites, key=lambda site: (site.layer, site.name)))
        if self.pool is not None:
            ablation_pooled.run(self, self.pool, "hooked")
            return
        self._go(captured.with_hooks(self.model), self._hooked)

    def _go(
        self,
        capture: Capture,
        measure: Callable[[int, Sequence[int]], Tensor],
        check: exactness.Check = exactness.unchecked,
    ) -> None:
        self.fillings.prepare(capture)
        for condition in range(len(self.conditions)):
            for length, some in by_length([sample.ids for sample in self.samples]).items():

                def run(chosen: Sequence[int], condition: int = condition) -> None:
                    self.driver.record((condition, chosen), measure(condition, chosen))
                    self.driver.step()

                memory.halving(some, self.together(length), run, self.model.device)
            if condition:
                check()

    def together(self, length: int) -> int:
        """Return how many prompts of `length` tokens are run at once."""
        g = self.model.geometry
        logits = g.d_vocab_out * (length if self.samples[0].scorer.metric.several else 1)
        one = 4 * (length * (6 * g.d_model + 3 * g.n_heads * length) + logits)
        return max(1, min(memory.WAVE_ROWS // length, memory.free_bytes(self.model.device) // 4 // one))

    def _sample(self) -> Iterator[float]:
        """Yield how far a few finished runs are from the plain hooked forward's."""
        there = self.found.done
        if (part := self.compared) is not None:
            there = torch.zeros_like(there)
            there[torch.tensor(part.cells)[:, None], torch.tensor(part.cases)] = True
        finished = there.nonzero().tolist()
        chosen = random.Random(0).sample(finished, min(exactness.sample_of(self.model), len(finished)))
        if self.pool is not None:  # what shards were told of their own samples is not known here
            self.fillings.prepare(captured.with_hooks(self.model), [sample for _, sample in chosen])
        for condition, sample in chosen:
            if self.pool is not None and condition:
                self._hooked(0, [sample])  # a metric may ask for the unablated run
            yield exactness.difference(self.found.values[condition, sample], self._hooked(condition, [sample])[0])

    # -- what the parts become -----------------------------------------------------------------------------------------

    def _changes(self, condition: int, chosen: Sequence[int]) -> dict[tuple[str, int], Change]:
        """Return (site, layer) → what a batch of those samples' activation there becomes; but of features."""
        return {place: self._change(place[0], own, chosen) for place, own in self._by_place(condition).items()}

    def _by_place(self, condition: int) -> dict[tuple[str, int], list[int]]:
        """Return (site, layer) → the parts that are taken away there, but features."""
        found: dict[tuple[str, int], list[int]] = {}
        for n in self.conditions[condition]:
            if self.parts[n].dictionary is None:
                found.setdefault((self.parts[n].site, self.parts[n].layer), []).append(n)
        return found

    def _change(self, site: str, numbers: Sequence[int], chosen: Sequence[int]) -> Change:
        def fill(tensor: Tensor) -> Tensor:
            changed, length = tensor.clone(), tensor.shape[1]
            for n in numbers:
                part = self.parts[n]
                where = (slice(None), slice(None), part.head) if site == "z" else (slice(None),)
                now = changed[where] if part.direction is None else along(changed, part.direction)
                value = torch.stack([self.fillings.of(n, sample, length) for sample in chosen]).to(tensor)
                if value.dim() == 1:  # zeros
                    value = torch.zeros_like(now)
                becomes = self.fillings.within(now, now + value if self.fillings.mode == "noise" else value, chosen)
                if part.direction is None:
                    changed[where] = becomes
                else:
                    changed = changed + (becomes - now) * part.direction.to(tensor)
            return changed

        return (lambda scores: self._cut(scores, numbers, chosen, float("-inf"))) if site == "scores" else fill

    def _cut(self, scores: Tensor, numbers: Sequence[int], chosen: Sequence[int], value: float) -> Tensor:
        """Return scores or weights, ``[n, head, query, key]``, with `value` at the edges that are cut."""
        changed = scores.clone()
        for n in numbers:
            head = slice(None) if self.parts[n].head is None else self.parts[n].head
            named = {self.parts[n].query, self.parts[n].key} & self.samples[chosen[0]].ends.keys()
            for row in range(len(chosen)) if named else [slice(None)]:  # numbers are the same in all
                sample = self.samples[chosen[row if isinstance(row, int) else 0]]
                for queries, key in sample.edges(self.parts[n], self.model.geometry.causal):
                    if queries:
                        changed[row, head, queries, key] = value
        return changed

    # -- without hooks -------------------------------------------------------------------------------------------------

    def _lean(self, net: network.Network, condition: int, chosen: Sequence[int]) -> Tensor:
        changes: dict[tuple[str, int], list[Change]] = {
            place: [change] for place, change in self._changes(condition, chosen).items()
        }
        for one, change in ablated_features.changes(self.fillings, self.conditions[condition], chosen):
            for place, function in edits.without_hooks(net, one, change).items():
                changes.setdefault(place, []).append(function)

        def applied(functions: Sequence[Change], tensor: Tensor) -> Tensor:
            for function in functions:
                tensor = function(tensor)
            return tensor

        def of(site: str) -> Edit:
            return lambda layer, tensor: applied(changes.get((site, layer), ()), tensor)

        functions: dict[str, Edit] = {site: of(site) for site, _ in changes}
        if changes:
            first = min(layer for _, layer in changes)
            resid = torch.stack([self.before[sample, first] for sample in chosen])
            end = forward(net, edits=functions, resid=resid, first=first)
        else:
            resume = {part.layer for part in self.parts}

            def keep(layer: int, tensor: Tensor) -> None:
                if layer in resume:
                    self.before |= {(sample, layer): row for sample, row in zip(chosen, tensor.clone(), strict=True)}

            resid = net.begin([self.samples[n].ids for n in chosen])
            end = forward(net, edits={"resid_pre": keep}, resid=resid)
        self.model.count(len(chosen))
        return torch.stack([self._measured(net, n, row, base=not changes) for n, row in zip(chosen, end, strict=True)])

    def _measured(self, net: network.Network, sample: int, end: Tensor, *, base: bool) -> Tensor:
        """Return one sample's measure of its final residual stream, ``[position, d_model]``."""
        asked = self.samples[sample]
        row = asked.scorer.measured(end[None], asked.position)
        if base:
            self._know(sample, lambda: net.unembed(net.ending(row))[0])
        return self.samples[sample].scorer.of_residual(net, row)[0].double().cpu()

    def _know(self, sample: int, logits: Callable[[], Tensor]) -> None:
        """Give a metric that asks for it the unablated run's distribution."""
        asked = self.samples[sample]
        if asked.scorer.metric.needs_clean:
            self.samples[sample] = replace(asked, scorer=asked.scorer.with_clean(logits()))

    # -- the hooked forward --------------------------------------------------------------------------------------------

    def _hooked(self, condition: int, chosen: Sequence[int]) -> Tensor:
        functions: dict[str, list[Hook]] = {}
        for (site, layer), numbers in self._by_place(condition).items():
            change = self._change(site, numbers, chosen)

            def write(
                tensor: Tensor,
                hook: HookPoint,  # noqa: ARG001
                site: str = site,
                change: Change = change,
                numbers: Sequence[int] = numbers,
            ) -> Tensor:
                if site != "scores":
                    return change(tensor)
                # Not every model reads its scores after their hook; what is left of the weights, made 1 again, is the
                # softmax of what is left of the scores. A sink (gpt-oss) has its share beside them.
                left = self._cut(tensor, numbers, chosen, 0.0)
                sink = 1 - upcast(tensor).sum(-1, keepdim=True)
                sink = torch.where(sink > 64 * torch.finfo(tensor.dtype).eps, sink, 0)
                return (left / (upcast(left).sum(-1, keepdim=True) + sink)).to(tensor)

            for name, function in written(Site("pattern" if site == "scores" else site, layer), write):
                functions.setdefault(name, []).append(function)
        for one, change in ablated_features.changes(self.fillings, self.conditions[condition], chosen):
            for name, function in edits.hooks_of(self.model, one, change):
                functions.setdefault(name, []).append(function)
        asked = [self.samples[n] for n in chosen]
        last = all(one.position == len(one.ids) - 1 and not one.scorer.metric.several for one in asked)
        together = {name: composed(some) for name, some in functions.items()}
        logits = self.model.forward([one.ids for one in asked], together, last_only=last)
        values: list[Tensor] = []
        for sample, one, rows in zip(chosen, asked, logits, strict=True):
            row = upcast(rows[None, -1] if last else one.scorer.measured(rows[None], one.position))
            if not condition:
                self._know(sample, lambda row=row: row[0])
            values.append(self.samples[sample].scorer.of_logits(row)[0].double().cpu())
        return torch.stack(values)


__all__ = ["MODES", "Ablated", "Part", "Sample", "ablate", "by_position", "conditions", "donors"]
