"""Path patching by its definition, with hooks: one run of the sender, one of each receiver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from interp.engine.forecast.work import NOTHING, one_batch
from interp.engine.metrics import upcast
from interp.engine.patching.cases import Case, Ids
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
    """

    def __init__(
        self,
        model: LoadedModel,
        senders: Sequence[Node],
        receivers: Sequence[Node],
        freeze: str,
        exists: Tensor,
        given: Callable[[Case, Site], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.senders = senders
        self.receivers = receivers
        self.freeze = freeze
        self.exists = exists
        self.given = given or self._of_source
        self._received: tuple[tuple[Ids, Ids, int], dict[str, Tensor]] | None = None

    def _of_source(self, asked: Case, site: Site) -> Tensor:
        return self.model.activations_of(asked.source, [site.hook_name])[site.hook_name]

    def written(self) -> list[Site]:
        """Return the activations that the hooked forward writes to."""
        depth = self.model.geometry.n_layers
        ends = {Site(_site(node), node.layer) for node in (*self.senders, *self.receivers) if node.kind != "logits"}
        between = {Site(site, layer) for site in FROZEN[self.freeze] for layer in range(depth)}
        return sorted(ends | between, key=lambda site: (site.layer, site.name))

    def hooked(self, case: Case, cells: Sequence[int]) -> Tensor:
        """Return the metric of paths of one pair, ``[cell]``."""
        placed = [divmod(cell, len(self.receivers)) for cell in cells]
        scores = torch.full((len(cells),), float("nan"), dtype=torch.float64)
        running: list[tuple[int, Node, dict[str, Tensor]]] = []  # row of the answer, receiver, what it makes
        for row, (sender, column) in enumerate(placed):
            receiver = self.receivers[column]
            if not self.exists[sender, column]:
                scores[row] = float(case.scorer.of_logits(self._ends(case))[0])
            elif receiver.kind == "logits":
                scores[row] = float(case.scorer.of_logits(self._heard(case, sender)["logits"])[0])
            else:
                running.append((row, receiver, self._heard(case, sender)))
        if running:
            functions = {_name(receiver): self._writing(receiver, running) for _, receiver, _ in running}
            logits = self.model.forward([case.base] * len(running), functions, last_only=False)
            rows = torch.tensor([row for row, _, _ in running])
            scores[rows] = case.scorer.of_logits(upcast(logits[:, case.position])).double().cpu()
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
            there.plain(case.source, Site(_site(node), node.layer).hook_name)
            work = work + one_batch(self.model, length, 2 * depth, last_only=False)
        return work + one_batch(self.model, running * length, running, last_only=False) if running else work

    def _ends(self, asked: Case) -> Tensor:
        return upcast(self.model.activations_of(asked.base, ["logits"])["logits"][:, asked.position])

    def _writing(self, receiver: Node, running: Sequence[tuple[int, Node, dict[str, Tensor]]]) -> Hook:
        name = _name(receiver)

        def write(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
            changed = tensor.clone()
            for place, (_, node, heard) in enumerate(running):
                if _name(node) == name:
                    part = (place,) if node.kind == "mlp" else (place, slice(None), node.head)
                    changed[part] = heard[name][(0, *part[1:])]
            return changed

        return write

    def _heard(self, asked: Case, sender: int) -> dict[str, Tensor]:
        """Run the base with the sender as in the source run; return what each receiver makes of its input there."""
        if self._received is not None and self._received[0] == (asked.base, asked.source, sender):
            return self._received[1]
        node, depth = self.senders[sender], self.model.geometry.n_layers
        frozen = FROZEN[self.freeze]
        sites = {Site(site, layer).hook_name: site for site in ("z", "mlp_out") for layer in range(node.layer, depth)}
        pinned = self.model.activations_of(asked.base, list(sites)) if frozen else {}
        own = Site(_site(node), node.layer)
        sent, given = own.hook_name, self.given(asked, own)
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

        inner = {_name(receiver): "" for receiver in self.receivers if receiver.kind != "logits"}
        functions = {name: through(site, name) for name, site in ({sent: ""} | inner | sites).items()}
        logits = self.model.forward([asked.base], functions, last_only=False)
        heard["logits"] = upcast(logits[:, asked.position])
        self._received = ((asked.base, asked.source, sender), heard)
        return heard


def _site(node: Node) -> str:
    """Return what a sender writes, or what a receiver makes of its input: its head's q, k or v, or its MLP's output."""
    return {"embed": "resid_pre", "head": "z", "mlp": "mlp_out"}.get(node.kind, node.kind)


def _name(receiver: Node) -> str:
    return Site(_site(receiver), receiver.layer).hook_name
