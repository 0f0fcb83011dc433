"""Path patching: what one component writes reaches one input of another, and nothing else.

Goldowsky-Dill et al. (2023), "Localizing Model Behavior with Path Patching". Of a path (sender, receiver):

1. the change that the sender sends is its output in the source run less that in the base run;
2. what arrives at the receiver is that change itself where all between is frozen (``all``), and else the change of the
   stream there in a base run whose sender writes the source's output, with the heads between frozen (``heads``) or
   nothing (``none``);
3. the receiver's input is the base run's plus what arrives, and nothing else is changed;
4. what it then makes of its input enters the incremental forward as a patch does: a head's queries, keys or values
   through the z that they make, in the middle of the block, an MLP's output before the next layer, the logits' input
   after the last.

A feature of a dictionary sends what it writes; of what arrives it makes another activation, and so writes otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine import exactness
from interp.engine.forecast.work import Sizes, Through, Work
from interp.engine.patching.cases import Case
from interp.engine.patching.driver import OnStep, silent
from interp.engine.patching.feature_plan import Features, entering
from interp.engine.patching.path_ends import NONE, below, height, ordered, parallel, reaching, read, written
from interp.engine.patching.path_features import FeatureEnds
from interp.engine.patching.path_hooked import HookedPaths
from interp.engine.patching.plan import PatchGroup
from interp.engine.patching.waves import Sweep, unfinished
from interp.engine.transformer.base_runs import Base
from interp.engine.transformer.forward import Edit, forward
from interp.engine.transformer.incremental import ChangedRows
from interp.engine.transformer.network import Network
from interp.engine.transformer.parts import Rotation
from interp.sites import Site
from interp.spec import Node

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def sweep_paths(
    model: LoadedModel,
    cases: Sequence[Case],
    *,
    senders: Sequence[Node],
    receivers: Sequence[Node],
    freeze: str,
    features: Features | None = None,
    on_step: OnStep = silent,
) -> Sweep:
    """Return what patches every path from a sender to a receiver into the base run, one path at a time.

    Its answer is ``[case, sender, receiver]``; where there is no path, the unpatched run's metric.

    Parameters
    ----------
    senders, receivers
        As `ordered` returns them.
    freeze
        ``"all"``, ``"heads"`` or ``"none"``, see `interp.path`.
    features
        Of the pairs' runs, where features are among the ends.
    """
    swept = unfinished(len(cases), (len(senders), len(receivers)))
    planner = Paths(model, senders, receivers, freeze, features=features)
    names = [[node.name for node in nodes] for nodes in (senders, receivers)]
    planner.travels = {"kind": "paths", "ends": names, "freeze": freeze}
    return Sweep(model, cases, planner, swept, on_step)


class PathPlan(FeatureEnds):
    """The paths of one pair; a patch's `layer` is the number of its receiver, its parts are senders."""

    def __init__(
        self,
        network: Network,
        base: Base,
        source: Base,
        *,
        senders: Sequence[Node],
        receivers: Sequence[Node],
        freeze: str,
        case: int,
        start: int,
        stop: int,
        features: Features | None = None,
        heard: Sequence[Sequence[int] | None] = (),
    ) -> None:
        whole = {"site": "path", "by": "path", "layers": (), "case": case, "start": start, "stop": stop}
        super().__init__(network, base, source, receivers=receivers, features=features, **whole)
        self.senders = senders
        self.freeze = freeze
        self.heard = heard
        self._changes: dict[int, Tensor] | None = None
        self._mixed: tuple[tuple[object, ...], Tensor] | None = None

    calls = 150

    def foreseen(self, sizes: Sizes) -> Work:
        """Return the work of what the senders change, and of the forwards that answer to it."""
        rows, groups = len(self.base) - self.start, list(self._groups())
        held = 2 * sizes.element * len(self.senders) * rows * sizes.width
        work = Work(calls=30 * len(groups), flops=2.0 * len(self.senders) * rows * sizes.width * sizes.d_head)
        if self.freeze != "all":
            stop = (max(map(self._read, self.receivers)) + 1) // 2
            through = tuple(
                Through(len(heads) * len(self.base), max(0, stop - node.layer), scores=len(heads) * len(self.base) ** 2)
                for node, heads in groups
            )
            calls = sum(40 * one.layers for one in through)
            held += (
                sizes.element * rows * sizes.width * len(self.senders) * len({self._read(r) for r in self.receivers})
            )
            work = work + Work(through=through, calls=calls)
        return work + Work(held=held, peak=held)

    def forget(self) -> None:
        """Let go of what the senders change; it is computed anew where it is needed again."""
        super().forget()
        self._changes = self._mixed = self._held = None

    def patches(self) -> Iterator[PatchGroup]:
        """Yield the paths into each receiver."""
        if self.start > self.stop:
            return
        for number, count in enumerate(self._below):
            if count:
                yield PatchGroup(self.case, number, self.start, False, range(count), len(self.base) - self.start)

    def cells(self, patch: PatchGroup) -> Tensor:
        """Return where the patch's paths go in the flattened answer, ``int64 [sender]``."""
        return torch.arange(patch.parts.start, patch.parts.stop) * len(self.receivers) + patch.layer

    def stage(self, layer: int) -> tuple[int, str]:
        """Return where what a receiver makes of its input enters."""
        receiver = self.receivers[layer]
        if receiver.kind == "feature":
            return entering(self.of[receiver.layer].writes[0])
        if receiver.kind == "logits":
            return len(self.network.layers), "pre"
        return (receiver.layer + 1, "pre") if receiver.kind == "mlp" else (receiver.layer, "mid")

    def changed_rows(self, patch: PatchGroup) -> ChangedRows:
        """Return the patch's rows of the residual stream."""
        receiver = self.receivers[patch.layer]
        changes = self.arriving(patch.layer)[patch.parts.start : patch.parts.stop]
        if receiver.kind == "feature":
            rows = self._through_feature(patch.layer, patch.parts)
        elif receiver.kind == "logits":
            rows = self.base.resid[-1][self.start :] + changes
        elif receiver.kind == "mlp":
            rows = self._through_mlp(receiver.layer, changes)
        else:
            rows = self._through_head(patch.layer, patch.parts, changes)
        return ChangedRows(base=self.case, start=self.start, cells=self.cells(patch), rows=rows, single=False)

    def _written(self, node: Node) -> int:
        return written(node, self.network.parallel, self.of)

    def _read(self, node: Node) -> int:
        return read(node, self.network.parallel, len(self.network.layers), self.of)

    # -- what a sender changes at the places where receivers read ----------------------------------------------------

    @cached_property
    def _below(self) -> list[int]:
        """How many senders write below each receiver; they are the first ones."""
        network = self.network
        return below(self.senders, self.receivers, network.parallel, len(network.layers), self.of).sum(0).tolist()

    def arriving(self, number: int) -> Tensor:
        """Return what arrives at a receiver from the senders below it, ``[sender, position from start, d_model]``.

        Where a receiver reads nothing that is sent, it is 0.
        """
        every = self._arriving()[self._read(self.receivers[number])][: self._below[number]]
        there = self.heard[number] if self.heard else None
        if there is None:
            return every
        kept = torch.zeros_like(every)
        places = [at - self.start for at in there if at >= self.start]
        kept[:, places] = every[:, places]
        return kept

    def _arriving(self) -> Mapping[int, Tensor]:
        """Return place → the change of the residual stream there, ``[sender, position from start, d_model]``.

        A place has only the senders below it, which are the first ones.
        """
        if self._changes is None:
            places = sorted({self._read(receiver) for receiver in self.receivers})
            self._changes = self._direct(places) if self.freeze == "all" else self._answered(places)
        return self._changes

    def _groups(self) -> Iterator[tuple[Node, list[int]]]:
        """Yield the senders of each kind and layer, in order: one of them, and the numbers of its heads."""
        held: dict[tuple[str, int], list[int]] = {}
        for node in self.senders:
            held.setdefault((node.kind, node.layer), []).append(node.head)
        for (kind, layer), heads in held.items():
            yield Node(kind, layer), heads

    def _direct(self, places: Sequence[int]) -> dict[int, Tensor]:
        """Return the senders' own differences, which are the same wherever they are read.

        But for cross-layer features, which write once more above.
        """
        parts: list[Tensor] = []
        above: list[tuple[int, slice, Tensor]] = []  # height, senders, what they add there
        for node, heads in self._groups():
            first = sum(map(len, parts))
            if node.kind != "feature":
                parts.append(self._difference(node, heads))
                continue
            (_, change), *later = self.added_by(node.layer, heads)
            parts.append(change)
            rows = slice(first, first + len(heads))
            above += [(height(place, self.network.parallel), rows, more) for place, more in later]
        own, found = torch.cat(parts), dict[int, Tensor]()
        for place in places:
            found[place] = own[: sum(self._written(node) <= place for node in self.senders)]
            seen = [(rows, more) for at, rows, more in above if at <= place]
            if seen:
                found[place] = found[place].clone()
                for rows, more in seen:
                    found[place][rows] += more
        return found

    def _difference(self, node: Node, heads: Sequence[int]) -> Tensor:
        base, source, index = self.base, self.source, node.layer
        if node.kind == "embed":
            return (source.resid[0] - base.resid[0])[None, self.start :]
        layer = self.network.layers[index]
        if node.kind == "mlp" and layer.experts is not None:
            written = (run.resid[index + 1] - run.mid[index] for run in (source, base))
            return (next(written) - next(written))[None, self.start :]
        if node.kind == "mlp":
            own = self._activated(base, index)
            change = (self._activated(source, index) - own)[self.start :]
            return layer.down.change(lambda: own[self.start :], change @ layer.down.weight.T)[None]
        change = (source.z[index] - base.z[index])[self.start :, heads]
        raw = torch.einsum("phd,mhd->hpm", change, layer.head_weights(heads))
        return layer.rewritten(base.z[index][self.start :], raw)

    def _answered(self, places: Sequence[int]) -> dict[int, Tensor]:
        """Return what arrives where that which lies between answers: each sender's source output in the base run."""
        arrived: dict[int, list[Tensor]] = {place: [] for place in places}
        for node, heads in self._groups():
            self._answer(node, heads, arrived)
        return {place: torch.cat(parts) if parts else self.base.mid[0, :0, None] for place, parts in arrived.items()}

    def _answer(self, node: Node, heads: Sequence[int], arrived: Mapping[int, list[Tensor]]) -> None:
        """Run the base with each of some heads, or one other sender, as in the source run; note what arrives where."""
        base, network, below = self.base, self.network, self._written(node)
        first, resid = node.layer, base.resid[node.layer].expand(len(heads), -1, -1)
        sent = self.sent(node.layer, heads) if node.kind == "feature" else []
        if sent and sent[0][0].point == "resid_pre":  # where the run begins
            resid = resid.clone()
            resid[:, self.start :] += sent.pop(0)[1]
        if node.kind == "embed":
            resid = self.source.resid[0][None]
        elif node.kind == "mlp":
            first, change = node.layer + 1, self._difference(node, heads)
            resid = base.resid[first][None].clone()
            resid[:, self.start :] += change

        def note(place: int, tensor: Tensor, unchanged: Tensor) -> None:
            if place in arrived and place >= below:
                arrived[place].append((tensor - unchanged)[:, self.start :])

        def heads_of(index: int, z: Tensor) -> Tensor | None:
            frozen = base.z[index].expand_as(z)
            changed = frozen if self.freeze == "heads" else z
            if node.kind != "head" or index != node.layer:
                return changed
            changed = changed.clone()
            for row, head in enumerate(heads):
                changed[row, :, head] = self.source.z[index][:, head]
            return changed

        edits: dict[str, Edit] = {
            "resid_pre": lambda index, tensor: note(2 * index, tensor, base.resid[index]),
            "z": heads_of,
        }
        if not network.parallel:
            edits["resid_mid"] = lambda index, tensor: note(2 * index + 1, tensor, base.mid[index])
        if sent:
            point = sent[0][0].point
            edits[point] = self.sending(sent, edits.get(point))
        stop = (max(arrived) + 1) // 2
        end = forward(network, edits=edits, resid=resid, first=first, stop=max(first, stop))
        if max(arrived) == 2 * stop:
            note(2 * stop, end, base.resid[stop])

    # -- what a receiver makes of its input --------------------------------------------------------------------------

    def _through_mlp(self, index: int, changes: Tensor) -> Tensor:
        block, base = self.network.layers[index], self.base
        before = block.mlp_reads(base.resid[index], base.mid[index])[self.start :]
        return base.resid[index + 1][self.start :] + (block.mlp(before + changes) - block.mlp(before))

    def _through_head(self, number: int, parts: range, changes: Tensor) -> Tensor:
        """Return the middle of the block where one head's queries, or one KV head's keys or values, are changed."""
        receiver = self.receivers[number]
        network, index = self.network, receiver.layer
        block, base = network.layers[index], self.base
        if block.together and receiver.kind in {"q", "k"}:
            change = self._z_of(receiver.kind, index, changes, receiver.head) - base.z[index][self.start :]
            raw = torch.einsum("nphd,mhd->npm", change, block.head_weights())
            return base.mid[index][self.start :] + block.rewritten(base.z[index][self.start :], raw)
        asked = (receiver.kind, index, parts, self.heard[number] if self.heard else None)
        if self._mixed is None or self._mixed[0] != asked:
            # Heads do not meet before W_O: one attention with all heads changed holds every head's own answer.
            self._mixed = (asked, self._z_of(receiver.kind, index, changes) - self.base.z[index][self.start :])
        group = 1 if receiver.kind == "q" else network.n_heads // network.n_kv_heads
        heads = slice(receiver.head * group, (receiver.head + 1) * group)
        raw = torch.einsum("nphd,mhd->npm", self._mixed[1][:, :, heads], block.head_weights(heads))
        return base.mid[index][self.start :] + block.rewritten(base.z[index][self.start :], raw)

    def _z_of(self, kind: str, index: int, changes: Tensor, only: int | None = None) -> Tensor:
        """Return z, ``[sender, position from start, head, d_head]``, of changed queries, keys or values.

        Where a norm reads all heads together, only the head `only` is changed.
        """
        block, base, start = self.network.layers[index], self.base, self.start
        x = base.resid[index][start:] + changes
        turns = self.network.rotations(len(base))[index]
        at = None if turns is None else turns.at(slice(start, None))
        q, k, v = base.q[index][start:][None], base.k[index][None], base.v[index][None]
        count = len(changes)
        if kind == "q":
            return block.attend(self._changed(kind, index, x, at, only), k, v, start)
        if kind == "k":
            k = torch.cat([k[:, :start].expand(count, -1, -1, -1), self._changed(kind, index, x, at, only)], dim=1)
            return block.attend(q.expand(count, -1, -1, -1), k, v, start)
        v = torch.cat([v[:, :start].expand(count, -1, -1, -1), block.values(x)], dim=1)
        return block.mix(block.pattern(block.scores(q, k, start)).expand(count, -1, -1, -1), v)

    def _changed(self, kind: str, index: int, x: Tensor, at: Rotation | None, only: int | None) -> Tensor:
        """Return the queries or keys of a changed stream: of all heads, or with the others' as they were."""
        block = self.network.layers[index]
        linear, turn = (block.q, block.turn_queries) if kind == "q" else (block.k, block.turn_keys)
        projected = block.heads(linear(block.norm1(x)))
        if only is not None:
            own = projected[:, :, only]
            projected = block.heads(linear(block.norm1(self.base.resid[index][self.start :])))
            projected = projected.expand(len(x), -1, -1, -1).clone()
            projected[:, :, only] = own
        return turn(projected, at)


class Paths(HookedPaths):
    """The paths from senders to receivers, for a sweep.

    What a receiver is given may come from all layers below it, so that the runs are made first.

    Parameters
    ----------
    make
        Makes the plan of one pair.
    given, refusal
        As in `HookedPaths` and `Planner`.
    """

    rides = False

    def __init__(
        self,
        model: LoadedModel,
        senders: Sequence[Node],
        receivers: Sequence[Node],
        freeze: str,
        *,
        make: Callable[..., PathPlan] = PathPlan,
        given: Callable[[Case, Site], Tensor] | None = None,
        refusal: exactness.Refusal | None = None,
        features: Features | None = None,
    ) -> None:
        of = {one.layer: one for one in features.dictionaries} if features is not None else NONE
        super().__init__(model, senders, receivers, freeze, reaching(model, senders, receivers, of), given, features)
        self.key: exactness.Key = ("path", freeze, *(one.digest for one in of.values()))
        self.make = make
        self.refusal = refusal

    def plan(self, net: Network, base: Base, source: Base, case: Case, number: int, start: int) -> PathPlan:
        """Return the paths of one pair, whose runs can differ from `start` on."""
        ends = {"senders": self.senders, "receivers": self.receivers, "freeze": self.freeze, "features": self.features}
        more = {"heard": case.heard} if case.heard else {}
        return self.make(net, base, source, **ends, **more, case=number, start=start, stop=case.position)


__all__ = ["PathPlan", "Paths", "ordered", "parallel", "reaching", "sweep_paths"]
