"""Path patching by its definition, with hooks: one run of the sender, one of each receiver."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from interp.engine.features.codes import Codes
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.edits import sites_of
from interp.engine.features.places import flat
from interp.engine.forecast.work import NOTHING, one_batch
from interp.engine.metrics import upcast
from interp.engine.model.interventions import composed, written
from interp.engine.patching.cases import Aligned, Case, Ids
from interp.engine.patching.feature_plan import Difference, Features
from interp.sites import Site
from interp.spec import Node

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.forecast.work import Stored, Work
    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel

FROZEN: dict[str, tuple[str, ...]] = {"all": ("z", "mlp_out"), "heads": ("z",), "none": ()}


class HookedPaths:
    """The paths from senders to receivers.

    Parameters
    ----------
    exists
        ``bool [sender, receiver]``: which paths there are.
    given
        What a sender writes instead, ``[1, position, …]``; the source run's own when not given.
    features
        Of the pairs' runs, where features are among the ends.
    """

    encoders: tuple[str, ...] | None = None
    kept: tuple[Hashable, ...] | None = None
    travels: Mapping[str, Any] | None = None

    def __init__(
        self,
        model: LoadedModel,
        senders: Sequence[Node],
        receivers: Sequence[Node],
        freeze: str,
        exists: Tensor,
        given: Callable[[Case, Site], Tensor] | None = None,
        features: Features | None = None,
    ) -> None:
        self.model = model
        self.senders = senders
        self.receivers = receivers
        self.freeze = freeze
        self.exists = exists
        self.given = given or self._of_source
        self.features = features
        self._received: tuple[tuple[Ids, Ids, Aligned | None, int], dict[str, Tensor]] | None = None

    def _of_source(self, asked: Case, site: Site) -> Tensor:
        return self.model.activations_of(asked.source, [site.hook_name])[site.hook_name]

    def written(self) -> list[Site]:
        """Return the activations that the hooked forward writes to."""
        depth = self.model.geometry.n_layers
        ends = {
            site for node in (*self.senders, *self.receivers) if node.kind != "logits" for site in self._writes(node)
        }
        between = {Site(site, layer) for site in FROZEN[self.freeze] for layer in range(depth)}
        return sorted(ends | between, key=lambda site: (site.layer, site.name))

    def hooked(self, case: Case, cells: Sequence[int]) -> Tensor:
        """Return the metric of paths of one pair, ``[cell]``."""
        placed = [divmod(cell, len(self.receivers)) for cell in cells]
        scores = torch.full((len(cells),), float("nan"), dtype=torch.float64)
        running: list[_Running] = []
        for row, (sender, column) in enumerate(placed):
            receiver, there = self.receivers[column], case.heard[column] if case.heard else None
            nothing = receiver.kind == "logits" and there is not None and case.position not in there
            if nothing or not self.exists[sender, column]:
                scores[row] = float(case.scorer.of_logits(self._ends(case))[0])
            elif receiver.kind == "logits":
                scores[row] = float(case.scorer.of_logits(self._heard(case, sender)["logits"])[0])
            else:
                running.append(_Running(row, receiver, self._heard(case, sender), there))
        if running:
            functions = {
                _name(one.node): [self._writing(one.node, running)] for one in running if one.node.kind != "feature"
            }
            for layer in {one.node.layer for one in running if one.node.kind == "feature"}:
                for name, function in self._answering(case, layer, running):
                    functions.setdefault(name, []).append(function)
            together = {name: composed(some) for name, some in functions.items()}
            logits = self.model.forward([case.base] * len(running), together, last_only=False)
            rows = torch.tensor([one.row for one in running])
            scores[rows] = case.scorer.of_logits(upcast(case.scorer.measured(logits, case.position))).double().cpu()
        return scores

    def foreseen(self, case: Case, cells: Sequence[int], stored: Stored, there: Stored) -> Work:
        """Return the work of `hooked`: one run for each sender, and one batch for the receivers."""
        work, length, depth = NOTHING, len(case.base), self.model.geometry.n_layers
        running, before = 0, -1
        for sender, column in (divmod(cell, len(self.receivers)) for cell in cells):
            if not self.exists[sender, column]:
                stored.plain(case.base, "logits")
                continue
            running += self.receivers[column].kind != "logits"
            if sender == before:
                continue
            before, node = sender, self.senders[sender]
            if FROZEN[self.freeze]:
                names = [Site(s, layer).hook_name for s in ("z", "mlp_out") for layer in range(node.layer, depth)]
                stored.plain(case.base, *names)
            if node.kind != "feature":  # of which all that is asked for is known
                there.plain(case.source, Site(_site(node), node.layer).hook_name)
            work = work + one_batch(self.model, length, 2 * depth, last_only=False)
        return work + one_batch(self.model, running * length, running, last_only=False) if running else work

    def _ends(self, asked: Case) -> Tensor:
        logits = self.model.activations_of(asked.base, ["logits"])["logits"]
        return upcast(asked.scorer.measured(logits, asked.position))

    def _writing(self, receiver: Node, running: Sequence[_Running]) -> Hook:
        name = _name(receiver)

        def write(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
            changed = tensor.clone()
            for place, one in enumerate(running):
                if one.node.kind != "feature" and _name(one.node) == name:
                    there = slice(None) if one.there is None else list(one.there)
                    part = (there,) if one.node.kind == "mlp" else (there, one.node.head)
                    changed[(place, *part)] = one.heard[name][(0, *part)]
            return changed

        return write

    def _heard(self, asked: Case, sender: int) -> dict[str, Tensor]:
        """Run the base with the sender as in the source run; return what each receiver makes of its input there."""
        if self._received is not None and self._received[0] == (asked.base, asked.source, asked.aligned, sender):
            return self._received[1]
        node, depth = self.senders[sender], self.model.geometry.n_layers
        frozen = FROZEN[self.freeze]
        sites = {Site(site, layer).hook_name: site for site in ("z", "mlp_out") for layer in range(node.layer, depth)}
        pinned = self.model.activations_of(asked.base, list(sites)) if frozen else {}
        own, sent, given = self._writes(node), "", torch.zeros(0)
        if own[0].name == "neuron":  # what its MLP makes of it is not frozen
            del sites[Site("mlp_out", node.layer).hook_name]
        if node.kind != "feature":
            sent, given = own[0].hook_name, self.given(asked, own[0])
        heard: dict[str, Tensor] = {}

        def through(site: str, name: str) -> Hook:
            def write(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
                heard[name] = tensor.clone()  # before it is frozen: what the receiver would make
                changed = pinned[name].clone().to(tensor) if site in frozen else tensor.clone()
                if name == sent:
                    part = (slice(None), slice(None), node.head) if node.kind == "head" else ()
                    changed[part] = given[part].to(changed)
                return changed

            return write

        inner = {_name(receiver): "" for receiver in self.receivers if receiver.kind not in {"logits", "feature"}}
        every = {name: site for name, site in ({sent: ""} | inner | sites).items() if name}
        functions = {name: [through(site, name)] for name, site in every.items()}
        if node.kind == "feature":
            for name, function in self._sending(asked, node):
                functions.setdefault(name, []).append(function)
        for name, function in self._hearing(asked, heard):
            functions.setdefault(name, []).append(function)
        together = {name: composed(some) for name, some in functions.items()}
        logits = self.model.forward([asked.base], together, last_only=False)
        heard["logits"] = upcast(asked.scorer.measured(logits, asked.position))
        self._received = ((asked.base, asked.source, asked.aligned, sender), heard)
        return heard

    # -- features ------------------------------------------------------------------------------------------------------

    def _writes(self, node: Node) -> list[Site]:
        """Return where an end writes: a receiver, what it makes of its input."""
        return sites_of(self._of(node.layer)[0]) if node.kind == "feature" else [Site(_site(node), node.layer)]

    def _of(self, layer: int, case: Case | None = None) -> tuple[Dictionary, Difference]:
        assert self.features is not None
        differences = self.features.differences[0] if case is None else self.features.of(case)
        return next(own for own in zip(self.features.dictionaries, differences, strict=True) if own[0].layer == layer)

    def _sending(self, asked: Case, node: Node) -> Iterator[tuple[str, Hook]]:
        """Yield what adds a sender's difference to the base run."""
        one, difference = self._of(node.layer, asked)
        yield from _adding(one, difference.unit, [(node.head, difference.change.column(node.head)[None])], [0])

    def _hearing(self, asked: Case, heard: dict[str, Tensor]) -> Iterator[tuple[str, Hook]]:
        """Yield what takes by how much receivers' activations change, ``[position]``."""
        for layer in {node.layer for node in self.receivers if node.kind == "feature"}:
            one, difference = self._of(layer, asked)
            own = [node for node in self.receivers if (node.kind, node.layer) == ("feature", layer)]

            def look(
                tensor: Tensor,
                hook: HookPoint,  # noqa: ARG001
                one: Dictionary = one,
                own: Sequence[Node] = own,
                base: Codes = difference.base,
            ) -> None:
                now = one.encode(flat(one.reads, tensor)[0])
                for node in own:
                    heard[node.name] = now.column(node.head) - base.column(node.head)

            yield one.reads.hook(self.model), look

    def _answering(self, case: Case, layer: int, running: Sequence[_Running]) -> Iterator[tuple[str, Hook]]:
        """Yield what gives each row of a batch what its receiver, of one dictionary, makes of its input."""
        one, difference = self._of(layer, case)
        rows = [n for n, own in enumerate(running) if (own.node.kind, own.node.layer) == ("feature", layer)]
        changes = [(own.node.head, own.change[None]) for own in (running[n] for n in rows)]
        yield from _adding(one, difference.unit, changes, rows)


@dataclass(frozen=True)
class _Running:
    """A path that a batch runs: its row of the answer, its receiver, what that makes of what it reads, and where."""

    row: int
    node: Node
    heard: dict[str, Tensor]
    there: tuple[int, ...] | None

    @property
    def change(self) -> Tensor:
        """By how much a feature's activation changes, ``[position]``: by 0 where it reads nothing that is sent."""
        whole = self.heard[self.node.name]
        if self.there is None:
            return whole
        kept = torch.zeros_like(whole)
        kept[list(self.there)] = whole[list(self.there)]
        return kept


def _adding(
    one: Dictionary, unit: Tensor, changes: Sequence[tuple[int, Tensor]], rows: Sequence[int]
) -> Iterator[tuple[str, Hook]]:
    """Yield what adds what features write for changes of activations, ``[1, position]``, each to a row of its own."""
    numbers = torch.tensor([feature for feature, _ in changes], device=one.encoder.device)
    values = torch.cat([change for _, change in changes])[..., None] * unit
    for to, site in enumerate(sites_of(one)):
        more = values * one.atoms(numbers, to)[:, None]

        def add(tensor: Tensor, hook: HookPoint, more: Tensor = more) -> Tensor:  # noqa: ARG001
            out = tensor.clone()
            out[list(rows)] += more.view_as(out[list(rows)]).to(out)
            return out

        yield from written(site, add)


def _site(node: Node) -> str:
    """Return what a sender writes, or what a receiver makes of its input: its head's q, k or v, or its MLP's output."""
    return {"embed": "resid_pre", "head": "z", "mlp": "mlp_out"}.get(node.kind, node.kind)


def _name(receiver: Node) -> str:
    return Site(_site(receiver), receiver.layer).hook_name
