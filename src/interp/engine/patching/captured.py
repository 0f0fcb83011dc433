"""What parts are in the runs of references, without hooks and with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from interp.engine import memory
from interp.engine.patching.ablated_features import capturing
from interp.engine.patching.cases import Ids, by_length
from interp.engine.patching.fillings import Capture, Part, own
from interp.engine.transformer.forward import Edit, forward
from interp.engine.transformer.network import Network
from interp.sites import Site

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


def without_hooks(model: LoadedModel, net: Network) -> Capture:
    """Return what runs references of one length together, as far up as the parts are."""
    return capturing(model, lambda prompts, wanted: _seen(net, model, prompts, wanted))


def with_hooks(model: LoadedModel) -> Capture:
    """Return what takes their activations as the bridge shows them."""

    def caught(prompts: Sequence[Ids], wanted: Sequence[Part]) -> list[list[Tensor]]:
        names = [Site(part.site, part.layer).hook_name for part in wanted]
        found: list[list[Tensor]] = []
        for ids in prompts:
            held = model.activations_of(ids, list(dict.fromkeys(names)))
            found.append([own(part, held[name][0]) for part, name in zip(wanted, names, strict=True)])
        return found

    return capturing(model, caught)


def _seen(net: Network, model: LoadedModel, prompts: Sequence[Ids], wanted: Sequence[Part]) -> list[list[Tensor]]:
    """Return each part's own activation on each prompt, ``[position, width]``."""
    found: list[list[Tensor]] = [[] for _ in prompts]
    stop = max(part.layer for part in wanted) + 1
    for length, some in by_length(prompts).items():

        def run(chosen: Sequence[int]) -> None:
            held: dict[tuple[str, int], Tensor] = {}

            def keep(site: str) -> Edit:
                def edit(layer: int, tensor: Tensor) -> None:
                    if any((part.site, part.layer) == (site, layer) for part in wanted):
                        held[site, layer] = tensor

                return edit

            looked = {site: keep(site) for site in {part.site for part in wanted}}
            forward(net, edits=looked, resid=net.begin([prompts[n] for n in chosen]), stop=stop)
            model.count(len(chosen))
            for row, n in enumerate(chosen):
                found[n] = [own(part, held[part.site, part.layer][row]).clone() for part in wanted]

        memory.halving(some, max(1, memory.WAVE_ROWS // length), run, model.device)
    return found
