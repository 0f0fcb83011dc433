"""Runs with components taken away: heads, MLPs, directions and edges of attention, one by one and together."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine import exactness, memory
from interp.engine.metrics import upcast
from interp.engine.model.interventions import require_read, written
from interp.engine.patching.cases import Ids
from interp.engine.patching.sweep import CHECKED, TOLERANCE, WAVE_ROWS, OnStep, contained
from interp.engine.transformer import network
from interp.engine.transformer.forward import Edit, forward
from interp.errors import InputError
from interp.sites import Site

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.metrics import Scorer
    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel

MODES = ("zero", "mean", "resample", "noise")
_CHUNK = 256  # rows that are unembedded at once

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """What is taken away.

    Attributes
    ----------
    site
        ``"z"`` (a head), ``"mlp_out"``, ``"scores"`` (an edge of a head's attention, cut before the softmax), or a site
        of the residual stream, in which a direction's coordinate is taken away.
    query, key
        The edge; a query of ``None`` is every one but the key's own that sees the key.
    direction
        ``float32 [d_model]``, of length 1.
    """

    site: str
    layer: int
    head: int = 0
    query: int | None = None
    key: int = 0
    direction: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Sample:
    """A prompt that is measured: by a metric at one position, or by its loss where there is no scorer."""

    ids: Ids
    position: int
    scorer: Scorer | None = None


@dataclass
class Ablated:
    """What the runs gave.

    Attributes
    ----------
    values
        ``float64 [condition, sample]``: the metric, or the mean next-token cross-entropy in nats; NaN where it was not
        reached. The conditions: nothing taken away, each part alone, and all together where there are several.
    path, stopped, notes, interrupt
        As in `sweep.Swept`.
    """

    values: Tensor
    path: str = "forward"
    stopped: str = ""
    notes: list[str] = field(default_factory=list[str])
    interrupt: BaseException | None = None


def conditions(count: int) -> list[tuple[int, ...]]:
    """Return the parts that are taken away in each condition.

    Examples
    --------
    >>> conditions(2), conditions(1)
    ([(), (0,), (1,), (0, 1)], [(), (0,)])
    """
    return [(), *((n,) for n in range(count)), *([tuple(range(count))] if count > 1 else [])]


def donors(samples: Sequence[Sample], references: Sequence[Ids], *, exact: bool, seed: int) -> list[int]:
    """Return for each sample another prompt, drawn from those that are as long (or longer, unless `exact`).

    Raises
    ------
    InputError
        A sample for which there is none.
    """
    chance = random.Random(seed)
    found: list[int] = []
    for number, sample in enumerate(samples):
        length = len(sample.ids)
        fits = [
            n
            for n, ids in enumerate(references)
            if ids[:length] != sample.ids and (len(ids) == length or (len(ids) > length and not exact))
        ]
        if not fits:
            raise InputError(
                f"there is no other prompt of {length} tokens for prompt {number} to take activations from; give more "
                "prompts of one length, or use --mode mean"
            )
        found.append(chance.choice(fits))
    return found


def ablate(
    model: LoadedModel,
    samples: Sequence[Sample],
    parts: Sequence[Part],
    *,
    mode: str,
    references: Sequence[Ids],
    taken: Sequence[int] = (),
    seed: int = 0,
    on_step: OnStep = lambda done, total: None,  # noqa: ARG005
) -> Ablated:
    """Measure every sample in every condition.

    Parameters
    ----------
    mode
        What a head's z, an MLP's output or a direction's coordinate becomes: ``zero``; ``mean`` over the references;
        ``resample``: the reference's that `taken` names; ``noise``: itself and Gaussian noise of its own standard
        deviation.
    references
        The prompts that means and deviations are taken over and activations are taken from.
    taken
        For each sample, which reference.
    """
    job = _Job(model, samples, parts, mode, references, taken, seed, on_step)
    job.found.stopped, job.found.interrupt = contained(job.run, job.progress)
    return job.found


class _Job:
    def __init__(
        self,
        model: LoadedModel,
        samples: Sequence[Sample],
        parts: Sequence[Part],
        mode: str,
        references: Sequence[Ids],
        taken: Sequence[int],
        seed: int,
        on_step: OnStep,
    ) -> None:
        self.model = model
        self.samples = list(samples)
        self.parts = list(parts)
        self.mode = mode
        self.references = list(references)
        self.taken = list(taken)
        self.seed = seed
        self.on_step = on_step
        self.conditions = conditions(len(self.parts))
        shape = (len(self.conditions), len(self.samples))
        self.found = Ablated(torch.full(shape, float("nan"), dtype=torch.float64))
        self.done = torch.zeros(shape, dtype=torch.bool)
        self.filled: dict[int, Callable[[int, int], Tensor]] = {}
        self.before: dict[tuple[int, int], Tensor] = {}  # sample, layer → the unablated residual stream

    def progress(self) -> str:
        """Return runs done and runs in all."""
        return f"{int(self.done.sum())}/{self.done.numel()}"

    def run(self) -> None:
        """Compute every run, without hooks where the network can be read."""
        try:
            net = network.read(self.model)
            self._go(lambda ids, wanted: _seen(net, self.model, ids, wanted), lambda c, some: self._lean(net, c, some))
        except network.Unreadable as reason:
            self.found.path = f"hooked: {reason}"
            self.found.values[:], self.done[:] = float("nan"), False
            sites = {Site("pattern" if part.site == "scores" else part.site, part.layer) for part in self.parts}
            require_read(self.model, sorted(sites, key=lambda site: (site.layer, site.name)))
            self._go(self._caught, self._hooked, check=False)

    def _go(
        self,
        capture: Callable[[Sequence[Ids], Sequence[Part]], list[list[Tensor]]],
        measure: Callable[[int, Sequence[int]], Tensor],
        *,
        check: bool = True,
    ) -> None:
        self._fill(capture)
        trusted = not check or self.model.trusted("ablation")
        for condition in range(len(self.conditions)):
            for length in sorted({len(sample.ids) for sample in self.samples}):
                some = [n for n, sample in enumerate(self.samples) if len(sample.ids) == length]

                def run(chosen: Sequence[int], condition: int = condition) -> None:
                    self.found.values[condition, chosen] = measure(condition, chosen)
                    self.done[condition, chosen] = True
                    self.on_step(int(self.done.sum()), self.done.numel())

                memory.halving(some, self._together(length), run, self.model.device)
            if condition and not trusted:
                self._compare()
                trusted = True
                self.model.trust("ablation")

    def _together(self, length: int) -> int:
        """Return how many prompts of `length` tokens are run at once."""
        g = self.model.geometry
        logits = g.d_vocab * (1 if self.samples[0].scorer else length)
        one = 4 * (length * (6 * g.d_model + 3 * g.n_heads * length) + logits)
        return max(1, min(WAVE_ROWS // length, memory.free_bytes(self.model.device) // 4 // one))

    def _compare(self) -> None:
        """Compute a few finished runs by the plain hooked forward too."""
        finished = self.done.nonzero().tolist()
        worst = 0.0
        for condition, sample in random.Random(0).sample(finished, min(CHECKED, len(finished))):
            expected = float(self._hooked(condition, [sample])[0])
            worst = max(worst, exactness.difference(float(self.found.values[condition, sample]), expected))
        if worst > TOLERANCE:
            reason = f"the forward without hooks differed by {worst:.1g} from the hooked forward"
            self.found.notes.append(f"{reason} on this model and was not used")
            raise network.Unreadable(reason)

    # -- what the parts become -----------------------------------------------------------------------------------------

    def _fill(self, capture: Callable[[Sequence[Ids], Sequence[Part]], list[list[Tensor]]]) -> None:
        """Prepare what each part becomes: part → (sample, length) → ``[position, width]``, or what is added to it."""
        replaced = [n for n, part in enumerate(self.parts) if part.site != "scores"]
        if not replaced or self.mode == "zero":
            self.filled = {n: lambda sample, length: torch.zeros(()) for n in replaced}  # noqa: ARG005
            return
        wanted = [self.parts[n] for n in replaced]
        needed = sorted(set(self.taken)) if self.mode == "resample" else range(len(self.references))
        seen = dict(zip(needed, capture([self.references[n] for n in needed], wanted), strict=True))
        for at, part in enumerate(replaced):
            held = {n: tensors[at] for n, tensors in seen.items()}
            if self.mode == "resample":
                self.filled[part] = lambda sample, length, held=held: held[self.taken[sample]][:length]
            elif self.mode == "mean":
                mean = _mean(list(held.values()))
                self.filled[part] = lambda sample, length, mean=mean: mean(length)  # noqa: ARG005
            else:
                self.filled[part] = self._noise(part, _spread(list(held.values())), next(iter(held.values())))

    def _noise(self, part: int, spread: tuple[float, float], like: Tensor) -> Callable[[int, int], Tensor]:
        def draw(sample: int, length: int) -> Tensor:
            # A draw of its own for each part and sample, the same alone and together with others.
            source = torch.Generator().manual_seed(hash((self.seed, part, sample)) % 2**63)
            drawn = torch.randn(length, like.shape[-1], generator=source)
            drawn[:1] *= spread[0]
            drawn[1:] *= spread[1]
            return drawn.to(like)

        return draw

    def _changes(self, condition: int, chosen: Sequence[int]) -> dict[tuple[str, int], Change]:
        """Return (site, layer) → what a batch of those samples' activation there becomes."""
        by_place: dict[tuple[str, int], list[int]] = {}
        for n in self.conditions[condition]:
            by_place.setdefault((self.parts[n].site, self.parts[n].layer), []).append(n)
        return {place: self._change(place[0], numbers, chosen) for place, numbers in by_place.items()}

    def _change(self, site: str, numbers: Sequence[int], chosen: Sequence[int]) -> Change:
        def fill(tensor: Tensor) -> Tensor:
            changed, length = tensor.clone(), tensor.shape[1]
            for n in numbers:
                part = self.parts[n]
                where = (slice(None), slice(None), part.head) if site == "z" else (slice(None),)
                now = changed[where] if part.direction is None else _along(changed, part.direction)
                value = torch.stack([self.filled[n](sample, length) for sample in chosen]).to(tensor)
                if value.dim() == 1:  # zeros
                    value = torch.zeros_like(now)
                becomes = now + value if self.mode == "noise" else value
                if part.direction is None:
                    changed[where] = becomes
                else:
                    changed = changed + (becomes - now) * part.direction.to(tensor)
            return changed

        return (lambda scores: self._cut(scores, numbers, float("-inf"))) if site == "scores" else fill

    def _cut(self, scores: Tensor, numbers: Sequence[int], value: float) -> Tensor:
        """Return scores or weights, ``[n, head, query, key]``, with `value` at the edges that are cut."""
        changed, length = scores.clone(), scores.shape[2]
        for n in numbers:
            part = self.parts[n]
            first = part.key + 1 if self.model.geometry.causal else 0
            every = [query for query in range(first, length) if query != part.key]
            changed[:, part.head, every if part.query is None else [part.query], part.key] = value
        return changed

    # -- without hooks -------------------------------------------------------------------------------------------------

    def _lean(self, net: network.Network, condition: int, chosen: Sequence[int]) -> Tensor:
        changes = self._changes(condition, chosen)

        def of(site: str) -> Edit:
            return lambda layer, tensor: changes[site, layer](tensor) if (site, layer) in changes else None

        edits: dict[str, Edit] = {site: of(site) for site, _ in changes}
        if changes:
            first = min(layer for _, layer in changes)
            resid = torch.stack([self.before[sample, first] for sample in chosen])
            end = forward(net, edits=edits, resid=resid, first=first)
        else:
            resume = {part.layer for part in self.parts}

            def keep(layer: int, tensor: Tensor) -> None:
                if layer in resume:
                    self.before |= {(sample, layer): row for sample, row in zip(chosen, tensor.clone(), strict=True)}

            ids = torch.tensor([self.samples[n].ids for n in chosen], device=self.model.device)
            end = forward(net, ids, {"resid_pre": keep})
        self.model.count(len(chosen))
        return torch.stack([self._measured(net, n, row, base=not changes) for n, row in zip(chosen, end, strict=True)])

    def _measured(self, net: network.Network, sample: int, end: Tensor, *, base: bool) -> Tensor:
        """Return one sample's measure of its final residual stream, ``[position, d_model]``."""
        asked = self.samples[sample]
        if asked.scorer is None:
            following = torch.tensor(asked.ids[1:], device=end.device)
            losses = [
                functional.cross_entropy(net.unembed(net.final(rows)), ids, reduction="sum")
                for rows, ids in zip(end[:-1].split(_CHUNK), following.split(_CHUNK), strict=True)
            ]
            return (torch.stack(losses).double().sum() / len(following)).cpu()
        row = end[asked.position][None]
        if base:
            self._know(sample, lambda: net.unembed(net.final(row))[0])
        return self._scorer(sample).of_residual(net, row)[0].double().cpu()

    def _know(self, sample: int, logits: Callable[[], Tensor]) -> None:
        """Give a metric that asks for it the unablated run's distribution."""
        asked = self.samples[sample]
        if asked.scorer is not None and asked.scorer.metric.needs_clean:
            self.samples[sample] = replace(asked, scorer=asked.scorer.with_clean(logits()))

    def _scorer(self, sample: int) -> Scorer:
        scorer = self.samples[sample].scorer
        assert scorer is not None
        return scorer

    # -- the hooked forward --------------------------------------------------------------------------------------------

    def _caught(self, prompts: Sequence[Ids], wanted: Sequence[Part]) -> list[list[Tensor]]:
        names = [Site(part.site, part.layer).hook_name for part in wanted]
        found: list[list[Tensor]] = []
        for ids in prompts:
            held = self.model.activations_of(ids, list(dict.fromkeys(names)))
            found.append([_own(part, held[name][0]) for part, name in zip(wanted, names, strict=True)])
        return found

    def _hooked(self, condition: int, chosen: Sequence[int]) -> Tensor:
        functions: dict[str, Hook] = {}
        for (site, layer), change in self._changes(condition, chosen).items():
            numbers = [
                n for n in self.conditions[condition] if (self.parts[n].site, self.parts[n].layer) == (site, layer)
            ]

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
                left = self._cut(tensor, numbers, 0.0)
                sink = 1 - upcast(tensor).sum(-1, keepdim=True)
                sink = torch.where(sink > 64 * torch.finfo(tensor.dtype).eps, sink, 0)
                return (left / (upcast(left).sum(-1, keepdim=True) + sink)).to(tensor)

            functions |= dict(written(Site("pattern" if site == "scores" else site, layer), write))
        asked = [self.samples[n] for n in chosen]
        last = all(one.scorer is not None and one.position == len(one.ids) - 1 for one in asked)
        logits = self.model.forward([one.ids for one in asked], functions, last_only=last)
        values: list[Tensor] = []
        for sample, one, rows in zip(chosen, asked, logits, strict=True):
            if one.scorer is None:
                following = torch.tensor(one.ids[1:], device=rows.device)
                values.append(functional.cross_entropy(upcast(rows[:-1]), following).double().cpu())
                continue
            row = upcast(rows[-1 if last else one.position])
            if not condition:
                self._know(sample, lambda row=row: row)
            values.append(self._scorer(sample).of_logits(row[None])[0].double().cpu())
        return torch.stack(values)


def _seen(
    net: network.Network, model: LoadedModel, prompts: Sequence[Ids], wanted: Sequence[Part]
) -> list[list[Tensor]]:
    """Return each part's own activation on each prompt, ``[position, width]``."""
    found: list[list[Tensor]] = [[] for _ in prompts]
    stop = max(part.layer for part in wanted) + 1
    for length in sorted({len(ids) for ids in prompts}):

        def run(chosen: Sequence[int]) -> None:
            held: dict[tuple[str, int], Tensor] = {}

            def keep(site: str) -> Edit:
                def edit(layer: int, tensor: Tensor) -> None:
                    if any((part.site, part.layer) == (site, layer) for part in wanted):
                        held[site, layer] = tensor

                return edit

            ids = torch.tensor([prompts[n] for n in chosen], device=model.device)
            forward(net, ids, {site: keep(site) for site in {part.site for part in wanted}}, stop=stop)
            model.count(len(chosen))
            for row, n in enumerate(chosen):
                found[n] = [_own(part, held[part.site, part.layer][row]).clone() for part in wanted]

        some = [n for n, ids in enumerate(prompts) if len(ids) == length]
        memory.halving(some, max(1, WAVE_ROWS // length), run, model.device)
    return found


def _own(part: Part, tensor: Tensor) -> Tensor:
    """Return a part's own rows of one prompt's activation, ``[position, width]``."""
    if part.direction is not None:
        return _along(tensor, part.direction)
    return tensor[:, part.head] if part.site == "z" else tensor


def _along(tensor: Tensor, direction: Tensor) -> Tensor:
    """Return the coordinate along a direction of length 1, ``[…, 1]``."""
    return (tensor @ direction.to(tensor))[..., None]


def by_position(references: Sequence[Ids]) -> bool:
    """Return whether means are taken position by position: there are several prompts, of one length.

    Examples
    --------
    >>> by_position([(1, 2), (3, 4)]), by_position([(1, 2)]), by_position([(1, 2), (3,)])
    (True, False, False)
    """
    return len(references) > 1 and len({len(ids) for ids in references}) == 1


def _mean(held: Sequence[Tensor]) -> Callable[[int], Tensor]:
    """Return length → the mean, ``[position, width]``; over all positions too where they cannot be told apart.

    The first position stays apart: in many models its activations are a hundred times the others', and a mean with them
    would be theirs.
    """
    if len(held) > 1 and len({len(one) for one in held}) == 1:
        mean = torch.stack(list(held)).mean(0)
        return lambda length: mean[:length]
    first = torch.stack([one[0] for one in held]).mean(0)
    others = torch.cat([one[1:] for one in held])
    rest = others.mean(0) if len(others) else first
    return lambda length: torch.cat([first[None], rest.expand(length - 1, -1)])


def _spread(held: Sequence[Tensor]) -> tuple[float, float]:
    """Return the standard deviation of a part's values at the first position, and at all others."""
    first = torch.stack([one[0] for one in held])
    rest = torch.cat([one[1:] for one in held])
    return float(first.std(correction=0)), float(rest.std(correction=0)) if len(rest) else 0.0


__all__ = ["MODES", "Ablated", "Part", "Sample", "ablate", "by_position", "conditions", "donors"]
