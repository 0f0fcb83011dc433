"""A sweep of interventions: plan → waves → values, with what is finished kept whatever stops it."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from interp.engine import exactness, memory
from interp.engine.metrics import MetricFailed, upcast
from interp.engine.model import hooks
from interp.engine.model.interventions import require_read
from interp.engine.patching.cases import Case, Ids, unpatched
from interp.engine.patching.plan import Atom, Plan
from interp.engine.transformer import incremental, network
from interp.engine.transformer.incremental import Base, Joining
from interp.errors import InputError
from interp.sites import SITES, Site, axes

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

# Rows of the residual stream that travel together. Matrix products are at their full rate from about 240 rows, so
# larger waves gain nothing, and a smaller one loses less to an interrupt.
WAVE_ROWS = 4096
WATCHED_ROWS = 1024  # while somebody looks: four times as many steps, for a few percent more time
TOLERANCE = 1e-4  # of the metric's scale; above it the replay is not trusted
CHECKED = 4  # cells that the plain hooked forward computes too, at the first sweep on a state of a model

OnStep = Callable[[int, int], None]
Value = TypeVar("Value")
Runs = dict[Ids, Base]
_NAMES = tuple(f"replay:{part}" for part in incremental.PARTS)  # in the store


@dataclass
class Swept:
    """What a sweep has computed.

    Attributes
    ----------
    values
        ``float64 [case, …axes]``: the metric of every patched run; NaN where it was not reached.
    done
        ``bool [case, …axes]``.
    base, source
        ``float64 [case]``: the metric of the unpatched runs; NaN where they were not reached.
    path
        How: ``"replay"``, or ``"hooked: why"``.
    stopped
        Why it ended early, or an empty string.
    notes
        What is worth knowing.
    interrupt
        The interrupt that ended it, to be raised again when the result is in order.
    """

    values: Tensor
    done: Tensor
    base: Tensor
    source: Tensor
    path: str = "replay"
    stopped: str = ""
    notes: list[str] = field(default_factory=list[str])
    interrupt: BaseException | None = None

    def so_far(self) -> Swept:
        """Return what is computed now, which later steps leave as it is."""
        values = self.values.clone()
        values[~self.done] = float("nan")
        return replace(self, values=values, done=self.done.clone(), notes=list(self.notes))


def shape_of(model: LoadedModel, site: str, by: str, layers: Sequence[int], length: int) -> tuple[int, ...]:
    """Return the shape of a sweep's answer over one pair of prompts of `length` tokens."""
    geometry = model.geometry
    heads = geometry.n_kv_heads if site in {"k", "v"} else geometry.n_heads
    sizes = {"layer": len(layers), "head": heads, "position": length, "neuron": 0}
    if by == "neuron":
        sizes["neuron"] = int(getattr(model.bridge.cfg, "d_mlp", 0) or 0)
    return tuple(sizes[axis] for axis in axes(site, by))


def require(model: LoadedModel, site: str) -> None:
    """Refuse a site that `model` lacks.

    Raises
    ------
    InputError
        The model has no such activation; the sites that it has are named.
    """
    names = model.bridge.hook_dict
    there = [name for name in SITES if Site(name, 0).hook_name in names]
    if site not in there:
        raise InputError(f"{model.name} has no {site}; it has {', '.join(there)}")


def sweep(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    site: str,
    by: str,
    layers: Sequence[int],
    source_model: LoadedModel | None = None,
    cells: Sequence[int] | None = None,
    on_step: OnStep = lambda done, total: None,  # noqa: ARG005
    on_partial: Callable[[Swept], None] = lambda swept: None,  # noqa: ARG005
) -> Swept:
    """Put the source run's activation at every cell of a site into the base run, one cell at a time.

    Parameters
    ----------
    model
        The model that runs.
    cases
        Pairs; for a division by position all of one length.
    site, by, layers
        What is swept, see `interp.patch`.
    source_model
        Where the source activations come from, if not from `model`.
    cells
        Which cells, as indices into one pair's flattened answer; all when not given.
    on_step
        Called with cells done and cells in all.
    on_partial
        Called before `on_step` while cells are missing: `Swept.so_far` is what can be kept.

    Returns
    -------
    Swept
        Complete, or with what was finished when memory ran out, a metric failed or the user interrupted.
    """
    swept = unfinished(len(cases), shape_of(model, site, by, layers, len(cases[0].base)))

    def step(done: int, total: int) -> None:
        if done < total:
            on_partial(swept)
        on_step(done, total)

    return finished(Job(model, cases, site, by, layers, source_model or model, step, swept, cells))


def unfinished(count: int, shape: Sequence[int]) -> Swept:
    """Return a sweep over `count` pairs, each of `shape`, of which nothing is computed."""
    nothing = torch.full((count, *shape), float("nan"), dtype=torch.float64)
    unpatched = torch.full((2, count), float("nan"), dtype=torch.float64)
    return Swept(nothing, torch.zeros(nothing.shape, dtype=torch.bool), base=unpatched[0], source=unpatched[1])


def finished(job: Job) -> Swept:
    """Run a sweep to its end, or to where it had to stop."""
    swept = job.swept
    swept.stopped, swept.interrupt = contained(job.run, job.progress)
    swept.values[~swept.done] = float("nan")
    return swept


def contained(run: Callable[[], object], progress: Callable[[], str]) -> tuple[str, BaseException | None]:
    """Call `run`, and return why it ended early (an empty string where it did not) and the interrupt that ended it.

    Other errors than interrupts, failing metrics and memory that ran out are raised.
    """
    try:
        hooks.run_hooked([], run)
    except KeyboardInterrupt as interrupt:
        return f"interrupted after {progress()}", interrupt
    except MetricFailed as error:
        return f"the metric failed after {progress()}: {error}", None
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)
        return f"out of memory after {progress()}, one cell at a time", None
    return "", None


class Job:
    """One sweep under way: what is asked, and what is done."""

    def __init__(
        self,
        model: LoadedModel,
        cases: Sequence[Case],
        site: str,
        by: str,
        layers: Sequence[int],
        source_model: LoadedModel,
        on_step: OnStep,
        swept: Swept,
        cells: Sequence[int] | None = None,
    ) -> None:
        self.model = model
        self.given = tuple(cases)
        self.cases = list(cases)
        self.site = site
        self.by = by
        self.layers = tuple(layers)
        self.source_model = source_model
        self.on_step = on_step
        self.swept = swept
        self.values = swept.values.view(len(cases), -1)
        self.done = swept.done.view(len(cases), -1)
        self.chosen = torch.arange(self.done.shape[1]) if cells is None else torch.tensor(sorted(set(cells)))
        self.reached = torch.zeros_like(self.done)  # cells that are more than the unpatched run

    def run(self) -> None:
        """Compute every cell, without hooks where the replay knows the model."""
        try:
            self.by_replay()
        except network.Unreadable as reason:
            self.swept.path = f"hooked: {reason}"
            self.by_hooks()

    def progress(self) -> str:
        """Return cells done and cells in all, such as ``37/144``."""
        return f"{int(self.done.sum())}/{self.total}"

    @property
    def total(self) -> int:
        """How many cells there are to do, over all pairs."""
        return len(self.cases) * len(self.chosen)

    def _step(self) -> None:
        self.on_step(int(self.done.sum()), self.total)

    # -- the exact replay ------------------------------------------------------------------------------------------

    def by_replay(self) -> None:
        """Compute every cell without hooks.

        Raises
        ------
        Unreadable
            The replay does not know the model, or a few cells that the hooked forward computed too came out otherwise.
        """
        net = network.read(self.model)
        other = net if self.source_model is self.model else network.read(self.source_model)
        ours = {case.base: (None, 0) for case in self.cases}
        if other is net:
            likes = {case.source: (case.base, case.start) for case in self.cases}
            bases = sources = self._runs(self.model, net, {**likes, **ours})
        else:
            bases = self._runs(self.model, net, ours)
            sources = self._runs(self.source_model, other, {case.source: (None, 0) for case in self.cases})
        plans: list[Plan] = []
        for index, case in enumerate(self.cases):
            base, source, last = bases[case.base], sources[case.source], case.position
            plans.append(self._plan(net, base, source, index, case.start if other is net else 0))
            ends = [(net, base.resid[-1][last : last + 1]), (other, source.resid[-1][last : last + 1])]
            if case.scorer.metric.needs_clean:
                case = case.with_clean(*(of.unembed(of.final(end)) for of, end in ends))
            self.cases[index] = case
            self.swept.base[index], self.swept.source[index] = (case.scorer.of_residual(of, end)[0] for of, end in ends)
            # A change before the prompts differ is none, and one after the position asked about is not seen there.
            self.values[index] = self.swept.base[index]
            for atom in plans[-1].atoms():
                self.reached[index, plans[-1].cells(atom)] = True
            # At once: an interrupt between two steps would leave cells that are marked as done and are not.
            self.done[index, self.chosen] = ~self.reached[index, self.chosen]
        atoms = [part for plan in plans for atom in plan.atoms() for part in plan.only(atom, self.chosen)]
        atoms.sort(key=lambda atom: (atom.layer, atom.case))
        self._waves(net, plans, atoms)

    def _plan(self, net: network.Network, base: Base, source: Base, index: int, start: int) -> Plan:
        """Return the sweep over one pair, whose runs can differ from `start` on."""
        return Plan(
            net,
            base,
            source,
            site=self.site,
            by=self.by,
            layers=self.layers,
            case=index,
            start=start,
            stop=self.cases[index].position,
        )

    def _retried(self, make: Callable[[], Value]) -> Value:
        """Call `make`, which cannot be halved; where memory runs out, once more with all that can be had."""
        try:
            return make()
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
        memory.empty_cache(self.model.device)
        return make()

    def _runs(self, model: LoadedModel, net: network.Network, wanted: Mapping[Ids, tuple[Ids | None, int]]) -> Runs:
        """Return the runs of prompts, from the store or computed together.

        Parameters
        ----------
        wanted
            Prompt → another one of them that it agrees with, and up to where.
        """
        missing = sorted(wanted, key=lambda ids: wanted[ids][0] is not None)  # after those that they are like
        held = {ids: parts for ids in missing if (parts := model.recall(ids, _NAMES)) is not None}
        if len(held) == len(missing):
            tensors = {ids: torch.tensor(ids, device=model.device) for ids in held}
            return {ids: Base(tensors[ids], *(parts[name] for name in _NAMES)) for ids, parts in held.items()}
        # Where one is missing all are run: the last bits depend on what runs together, and the same question must have
        # the same answer whatever the store holds.
        found: Runs = {}
        together = max(1, WAVE_ROWS // max(map(len, wanted), default=1))
        while missing:
            try:
                made = self._made(model, net, wanted, missing[:together], found)
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)
                memory.empty_cache(model.device)
                if together > 1:
                    together = min(together, len(missing)) // 2 or 1
                    continue
                made = self._made(model, net, wanted, missing[:1], found)
            found |= made
            del missing[: len(made)]
        return found

    def _made(
        self,
        model: LoadedModel,
        net: network.Network,
        wanted: Mapping[Ids, tuple[Ids | None, int]],
        missing: Sequence[Ids],
        found: Runs,
    ) -> Runs:
        """Run `missing` together and keep what comes out in the store."""
        asked: list[incremental.Asked] = []
        for ids in missing:
            tensor = torch.tensor(ids, device=model.device)
            like, start = wanted[ids]
            if like is None:
                asked.append(incremental.Asked(tensor))
            else:
                known = found[like] if like in found else missing.index(like)
                asked.append(incremental.Asked(tensor, known, min(start, len(ids) - 1)))
        made = dict(zip(missing, incremental.runs(net, asked), strict=True))
        model.count(len(made))
        for ids, run in made.items():
            model.keep(ids, {name: getattr(run, part) for name, part in zip(_NAMES, incremental.PARTS, strict=True)})
        return made

    def _waves(self, net: network.Network, plans: Sequence[Plan], atoms: list[Atom]) -> None:
        limit = self._rows_that_fit(net, len(plans[0].base))
        trusted = self.model.trusted(self.site)
        while atoms:
            wave = _take(atoms, limit)
            try:
                self._wave(net, plans, wave)
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                traceback.clear_frames(error.__traceback__)
                rows = sum(atom.rows for atom in wave)
                if len(wave) == 1 and len(wave[0].parts) == 1:
                    raise
                memory.empty_cache(self.model.device)
                limit = max(1, rows // 2)
                continue
            finished = len(wave)
            rest = wave[-1] if wave[-1] != atoms[finished - 1] else None
            if rest is not None:  # the last atom was split: what is left of it stays
                atoms[finished - 1] = _after(atoms[finished - 1], rest)
                finished -= 1
            del atoms[:finished]
            if not trusted:
                self._compare(random.Random(0))
                trusted = True
                self.model.trust(self.site)
            self._step()

    def _wave(self, net: network.Network, plans: Sequence[Plan], wave: Sequence[Atom]) -> None:
        entering: dict[tuple[int, str], list[Atom]] = {}
        for atom in wave:
            entering.setdefault(plans[atom.case].stage(atom.layer), []).append(atom)

        def joins(layer: int, stage: str) -> list[Joining]:
            return [plans[atom.case].joining(atom) for atom in entering.get((layer, stage), [])]

        arrived: dict[int, list[tuple[Tensor, Tensor]]] = {}

        def finish(case: int, cells: Tensor, rows: Tensor) -> None:
            arrived.setdefault(case, []).append((cells, rows))

        incremental.replay(
            net,
            [plan.base for plan in plans],
            joins,
            [plan.stop for plan in plans],
            finish,
            first=min(layer for layer, _ in entering),
        )
        for case, parts in arrived.items():
            cells = torch.cat([cells for cells, _ in parts])
            scores = self.cases[case].scorer.of_residual(net, torch.cat([rows for _, rows in parts]))
            self.values[case, cells] = scores.double().cpu()
        # Only now: an interrupt before this leaves the wave's cells undone.
        for atom in wave:
            self.done[atom.case, plans[atom.case].cells(atom)] = True

    def _rows_that_fit(self, net: network.Network, length: int) -> int:
        layer = net.layers[0]
        wide = 4 * layer.o.weight.shape[0] + 2 * length * net.n_kv_heads * net.d_head + 2 * layer.up.weight.shape[0]
        element = layer.o.weight.element_size()
        fits = memory.free_bytes(self.model.device) // 4 // (wide * element)
        return max(1, min(WAVE_ROWS, fits, WATCHED_ROWS if self.model.watched else fits))

    def _compare(self, chance: random.Random) -> None:
        """Compute a few finished cells by the plain hooked forward too."""
        finished = (self.done & self.reached).nonzero().tolist()
        chosen = chance.sample(finished, min(CHECKED, len(finished)))
        worst = 0.0
        for index, cell in cast("list[list[int]]", chosen):
            # The case as it was given: what a replay found for it may be wrong.
            given = self.given[index]
            case, *ends = self._retried(lambda given=given: unpatched(self.model, self.source_model, given))
            patched = self._retried(lambda case=case, cell=cell: self._hooked(case, [cell]))[0]
            found = (self.swept.base[index], self.swept.source[index], self.values[index, cell])
            both = zip(found, (*ends, patched), strict=True)
            worst = max(worst, *(exactness.difference(float(value), float(expected)) for value, expected in both))
        if worst > TOLERANCE:
            reason = f"the replay differed by {worst:.1g} from the hooked forward"
            self.swept.notes.append(f"{reason} on this model and was not used")
            self.done[:] = False
            raise network.Unreadable(reason)

    # -- the hooked forward ----------------------------------------------------------------------------------------

    def by_hooks(self) -> None:
        """Compute every cell by the model's own forward, a batch of cells at a time."""
        self.done[:] = False
        self._retried(lambda: require_read(self.model, self.written()))
        geometry = self.model.geometry
        length = max(len(case.base) for case in self.cases)
        per_run = 4 * length * (6 * geometry.d_model + 2 * geometry.n_heads * length) + 4 * geometry.d_vocab
        batch = max(1, min(64, memory.free_bytes(self.model.device) // 4 // per_run))
        for index in range(len(self.cases)):
            self.cases[index], self.swept.base[index], self.swept.source[index] = self._retried(
                lambda index=index: unpatched(self.model, self.source_model, self.given[index])
            )
        # Pair after pair for the same cells, so that what an early end leaves is there for every pair.
        first, last = 0, len(self.chosen)
        while first < last:
            cells: list[int] = self.chosen[first : first + batch].tolist()
            case = next((n for n in range(len(self.cases)) if not self.done[n, cells].all()), None)
            if case is None:
                first += len(cells)
                continue
            try:
                self.values[case, cells] = self._hooked(self.cases[case], cells).double().cpu()
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error) or len(cells) == 1:
                    raise
                traceback.clear_frames(error.__traceback__)
                memory.empty_cache(self.model.device)
                batch = max(1, len(cells) // 2)
                continue
            self.done[case, cells] = True
            self._step()

    def written(self) -> list[Site]:
        """Return the activations that the hooked forward writes to."""
        return [Site(self.site, layer) for layer in self.layers]

    def _hooked(self, asked: Case, cells: Sequence[int]) -> Tensor:
        """Return the metric of the cells of one pair, ``[cell]``, each in its own row of one batch."""
        placed = [self._place(cell) for cell in cells]
        layers = sorted({layer for layer, _, _ in placed})
        # The bridge's hook_resid_mid is the norm's input: what is written there does not reach the residual stream.
        written = "attn_out" if self.site == "resid_mid" else self.site
        names = {layer: Site(written, layer).hook_name for layer in layers}
        source = {names[layer]: self._source(asked, layer) for layer in layers}

        def writing(layer: int) -> hooks.Hook:
            def write(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
                patched = tensor.clone()
                for row, (there, part, position) in enumerate(placed):
                    if there == layer:
                        where = self._index(part, position)
                        patched[row][where] = source[names[layer]][0][where].to(patched)
                return patched

            return write

        functions = {names[layer]: writing(layer) for layer in layers}
        last = asked.position == len(asked.base) - 1
        logits = self.model.forward([asked.base] * len(cells), functions, last_only=last)
        return asked.scorer.of_logits(upcast(logits[:, -1 if last else asked.position]))

    def _source(self, asked: Case, layer: int) -> Tensor:
        name = Site(self.site, layer).hook_name
        value = self.source_model.activations_of(asked.source, [name])[name]
        if self.site != "resid_mid":
            return value
        before = Site("resid_pre", layer).hook_name
        return value - self.model.activations_of(asked.base, [before])[before]

    def _place(self, cell: int) -> tuple[int, int | None, int | None]:
        """Return layer, head or neuron, and position of a flattened cell."""
        shape = self.swept.values.shape[1:]
        index = [int(n) for n in torch.unravel_index(torch.tensor(cell), shape)]
        named = dict(zip(axes(self.site, self.by), index, strict=True))
        return self.layers[named["layer"]], named.get("head", named.get("neuron")), named.get("position")

    def _index(self, part: int | None, position: int | None) -> tuple[Any, ...]:
        everywhere = slice(None)
        at = everywhere if position is None else position
        of = everywhere if part is None else part
        # A pattern's axes are [head, query, key]; all others are [position, head or neuron or d_model, …].
        return (of, at) if self.site == "pattern" else (at, of)


def _take(atoms: Sequence[Atom], limit: int) -> list[Atom]:
    """Return the first atoms, together of at most `limit` rows; one that is larger alone is cut."""
    first = atoms[0]
    while first.rows > limit and len(first.parts) > 1:
        first, _ = first.halves()
    wave = [first]
    if first is not atoms[0]:
        return wave
    rows = first.rows
    for atom in atoms[1:]:
        if rows + atom.rows > limit:
            break
        wave.append(atom)
        rows += atom.rows
    return wave


def _after(whole: Atom, taken: Atom) -> Atom:
    return replace(whole, parts=range(taken.parts.stop, whole.parts.stop))
