"""Where interventions on spans enter the wave: several positions of a pair's run at once, from others of its twin's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.engine.patching.aligned import put
from interp.engine.patching.cases import Aligned
from interp.engine.patching.plan import PatchGroup, Plan
from interp.sites import SITES


class SpanPlan(Plan):
    """A sweep over one pair, span by span.

    A span of one token that is given the same position's activation is patched as by position, to the last bit.

    Parameters
    ----------
    spans
        The pair's spans; all else is as `Plan` has it.
    """

    def __init__(self, *given: Any, spans: Sequence[Aligned], **more: Any) -> None:
        super().__init__(*given, **{**more, "by": "position"})
        self.spans = spans

    def patches(self) -> Iterator[PatchGroup]:
        """Yield every intervention that can have an effect, layer by layer."""
        for layer in self.layers:
            for number, span in enumerate(self.spans):
                if self._is_nothing(span):
                    continue
                start = min(position for position, _ in span)
                single = len(span) == 1 and not SITES[self.site].kv_heads
                rows = len(self.base) - self._first(start, single)
                yield PatchGroup(self.case, layer, start, single, range(1), rows, number)

    def _is_nothing(self, span: Aligned) -> bool:
        """Whether a patch cannot be seen: behind what is asked about, or where both runs are the same."""
        seen = [(at, taken) for at, taken in span if self.network.both_ways or at <= self.stop]
        return all(taken == (at,) and at < self.start for at, taken in seen)

    def cells(self, patch: PatchGroup) -> Tensor:
        """Return where the patch's intervention goes in the flattened answer, ``int64 [1]``."""
        return torch.tensor([self.layers.index(patch.layer) * len(self.spans) + patch.number])

    def moves(self, patch: PatchGroup) -> bool:
        """Whether the two runs' activations differ where they are patched."""
        return not self._as_position(patch) or super().moves(patch)

    def _as_position(self, patch: PatchGroup) -> bool:
        return self.spans[patch.number] == ((patch.start, (patch.start,)),)

    def _rows(self, patch: PatchGroup, positions: slice) -> Tensor:
        if self._as_position(patch):
            return super()._rows(patch, positions)
        index, base, source, span = patch.layer, self.base, self.source, self.spans[patch.number]
        block = self.network.layers[index]
        if self.site in {"resid_pre", "resid_post"}:
            layer = index + (self.site == "resid_post")
            return put(base.resid[layer], source.resid[layer], span)[positions][None]
        if self.site == "resid_mid":
            return put(base.mid[index], source.mid[index], span)[positions][None]
        if self.site in {"attn_out", "mlp_out"}:
            read, write = (self._from_heads, self._middle) if self.site == "attn_out" else (self._from_mlp, self._after)
            change = _change(read(base, index), read(source, index), span)
            return write(index, positions, change[positions])[None]
        if self.site == "neuron":
            own = self._activated(base, index)
            change = _change(own, self._activated(source, index), span)[positions]
            written = block.down.change(lambda: own[positions], (change @ block.down.weight.T)[None])
            return self._after(index, positions, written)
        change = (self._spanned(index, span) - base.z[index])[positions]
        written = torch.einsum("phd,mhd->pm", change, block.head_weights())[None]
        return self._middle(index, positions, block.rewritten(base.z[index][positions], written))

    def _spanned(self, index: int, span: Aligned) -> Tensor:
        """Return the z that the patched site makes in every head, ``[position, head, d_head]``."""
        base, source, block = self.base, self.source, self.network.layers[index]
        if self.site == "z":
            return put(base.z[index], source.z[index], span)
        q, k, v = base.q[index], base.k[index], base.v[index]
        if self.site == "v":
            v = put(v, source.v[index], span)
        elif self.site == "q":
            q = self._turned(q, source.q[index], index, span)
        else:
            k = self._turned(k, source.k[index], index, span)
        return block.attend(q[None], k[None], v[None])[0]

    def _turned(self, own: Tensor, given: Tensor, index: int, span: Aligned) -> Tensor:
        """Return queries or keys with the source's put in, which turn with the position that they come to stand at."""
        if all(taken == (at,) for at, taken in span):
            return put(own, given, span)
        block, which = self.network.layers[index], "qk".index(self.site)
        projected, other = (block.project(run.resid[index])[which] for run in (self.base, self.source))
        turn = block.turn_queries if self.site == "q" else block.turn_keys
        turned = turn(put(projected, other, span), self.network.rotations(len(self.base))[index])
        return put(own, turned, tuple((at, (at,)) for at, _ in span))


def _change(own: Tensor, given: Tensor, span: Aligned) -> Tensor:
    return put(own, given, span) - own
