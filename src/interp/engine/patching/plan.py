"""Where the interventions of a sweep enter the wave, and what they change there.

Every site comes down to a change of the residual stream between a layer's attention and its MLP (``mid``) or before a
layer (``pre``): a head's z through its rows of W_O, a neuron through its column of the MLP's output, a query, a key, a
value or an attention pattern through the z that it makes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from interp.engine.features.places import Place
from interp.engine.forecast.work import NOTHING, Sizes, Work
from interp.engine.transformer.base_runs import PARTS, Base
from interp.engine.transformer.incremental import ChangedRows
from interp.engine.transformer.network import Network
from interp.sites import SITES


@dataclass(frozen=True)
class PatchGroup:
    """Interventions of one layer that enter together.

    Attributes
    ----------
    case
        Which pair.
    layer
        The layer of the site.
    start
        The first position that they change.
    single
        Whether they change only that one, when they enter.
    parts
        Which heads or neurons; ``range(1)`` where the site is not divided.
    span
        How many rows each brings.
    number
        Where a pair's spans are patched: which of them.
    """

    case: int
    layer: int
    start: int
    single: bool
    parts: range
    span: int
    number: int = 0

    @property
    def rows(self) -> int:
        """How many rows of the residual stream the interventions take on their way up."""
        return len(self.parts) * self.span

    def halves(self) -> tuple[PatchGroup, PatchGroup]:
        """Return two patches with half of the parts each."""
        middle = len(self.parts) // 2
        return replace(self, parts=self.parts[:middle]), replace(self, parts=self.parts[middle:])

    def pieces(self, rows: int) -> Iterator[PatchGroup]:
        """Yield patches of the same parts, of at most `rows` rows each, or of one part."""
        count = max(1, rows // self.span)
        for start in range(0, len(self.parts), count):
            yield replace(self, parts=self.parts[start : start + count])


def waves_of(patches: Sequence[PatchGroup], limit: int) -> Iterator[list[PatchGroup]]:
    """Yield the waves that interventions go up in where memory is enough for `limit` rows."""
    waiting = sorted(
        (piece for patch in patches for piece in patch.pieces(limit)),
        key=lambda patch: (patch.layer, patch.parts.start, patch.case),
    )
    while waiting:
        wave = take(waiting, limit)
        yield wave
        rest = wave[-1] if wave[-1] != waiting[len(wave) - 1] else None
        if rest is not None:
            waiting[len(wave) - 1] = after(waiting[len(wave) - 1], rest)
        del waiting[: len(wave) - (rest is not None)]


def take(patches: Sequence[PatchGroup], limit: int) -> list[PatchGroup]:
    """Return the first patches, together of at most `limit` rows; one that is larger alone is cut."""
    first = patches[0]
    while first.rows > limit and len(first.parts) > 1:
        first, _ = first.halves()
    wave = [first]
    if first is not patches[0]:
        return wave
    rows = first.rows
    for patch in patches[1:]:
        if rows + patch.rows > limit:
            break
        wave.append(patch)
        rows += patch.rows
    return wave


def after(whole: PatchGroup, taken: PatchGroup) -> PatchGroup:
    return replace(whole, parts=range(taken.parts.stop, whole.parts.stop))


class Plan:
    """A sweep over one pair.

    Parameters
    ----------
    network
        The model.
    base, source
        The run that is changed, and the run whose activations are put into it.
    site, by
        As in `interp.patch`.
    layers
        The layers to sweep.
    case
        Which pair this is.
    start
        The first position at which the two runs can differ; changes before it have no effect.
    stop
        The position that is asked about; later changes have no effect on it, unless attention looks both ways.
    """

    def __init__(
        self,
        network: Network,
        base: Base,
        source: Base,
        *,
        site: str,
        by: str,
        layers: Sequence[int],
        case: int,
        start: int,
        stop: int,
    ) -> None:
        self.network = network
        self.base = base
        self.source = source
        self.site = site
        self.by = by
        self.layers = layers
        self.case = case
        self.start = start
        self.stop = stop
        self._held: tuple[tuple[int, int], Tensor] | None = None

    @property
    def parts(self) -> int:
        """How many heads or neurons `by` divides a layer into; 1 where it does not."""
        if self.by == "neuron":
            return self.network.stored[0].up.weight.shape[0]
        if "head" not in self.by:
            return 1
        return self.network.n_kv_heads if SITES[self.site].kv_heads else self.network.n_heads

    calls = 60  # small operations that making the rows of a group of interventions takes

    def foreseen(self, sizes: Sizes) -> Work:  # noqa: ARG002
        """Return the work of what its interventions need when they begin to run."""
        return NOTHING

    def forget(self) -> None:
        """Let go of what only its running interventions need."""

    def patches(self) -> Iterator[PatchGroup]:
        """Yield every intervention that can have an effect, layer by layer."""
        positions = range(self.start, len(self.base) if self.network.both_ways else self.stop + 1)
        if not positions:  # the runs differ nowhere, or only after the position that is asked about
            return
        for layer in self.layers:
            if "position" not in self.by:
                yield PatchGroup(self.case, layer, self.start, False, range(self.parts), len(self.base) - self.start)
                continue
            for position in positions:
                # A key or a value is read by every later query; everything else changes its own position first.
                single = not SITES[self.site].kv_heads
                span = len(self.base) - self._first(position, single)
                yield PatchGroup(self.case, layer, position, single, range(self.parts), span)

    def _first(self, position: int, single: bool) -> int:
        """Return the first position that a patch at `position` changes."""
        return 0 if self.network.both_ways and not single else position

    def cells(self, patch: PatchGroup) -> Tensor:
        """Return where the patch's interventions go in the flattened answer, ``int64 [part]``."""
        row = self.layers.index(patch.layer)
        parts = torch.arange(patch.parts.start, patch.parts.stop) + row * self.parts
        return parts * len(self.base) + patch.start if "position" in self.by else parts

    def only(self, patch: PatchGroup, cells: Tensor) -> Iterator[PatchGroup]:
        """Yield the parts of `patch` whose place in the flattened answer is among `cells`, neighbours together."""
        wanted = torch.isin(self.cells(patch), cells).tolist()
        edges = [n for n, (a, b) in enumerate(zip([False, *wanted], [*wanted, False], strict=True)) if a != b]
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            yield replace(patch, parts=patch.parts[first:last])

    def stage(self, layer: int) -> tuple[int, str]:
        """Return the layer and stage at which interventions on this site of `layer` enter."""
        stage = SITES[self.site].stage
        return (layer + 1, "pre") if stage == "post" else (layer, stage)

    def moves(self, patch: PatchGroup) -> bool:
        """Whether the two runs' activations differ where one position is patched: below any attention, few do."""
        part = {"resid_pre": "resid"}.get(self.site, self.site)
        if "position" not in self.by or part not in PARTS:
            return True
        base, source = (getattr(run, part)[patch.layer][patch.start] for run in (self.base, self.source))
        return not torch.equal(base, source)

    def changed_rows(self, patch: PatchGroup) -> ChangedRows:
        """Return the patch's rows of the residual stream."""
        start = self._first(patch.start, patch.single)
        stop = start + 1 if patch.single else len(self.base)
        rows = self._rows(patch, slice(start, stop))
        return ChangedRows(
            base=self.case,
            start=start,
            cells=self.cells(patch),
            rows=rows[:, 0] if patch.single else rows,
            single=patch.single,
        )

    def later(self, layer: int, joined: ChangedRows) -> None:
        """Add what interventions under way write once more, before `layer`, to their rows."""

    def _rows(self, patch: PatchGroup, positions: slice) -> Tensor:
        """Return ``[part, position, d_model]``."""
        index, base, source = patch.layer, self.base, self.source
        if self.site in {"resid_pre", "resid_post"}:
            return source.resid[index + (self.site == "resid_post")][positions][None]
        if self.site == "resid_mid":
            return source.mid[index][positions][None]
        if self.site == "attn_out":
            change = self._from_heads(source, index) - self._from_heads(base, index)
            return self._middle(index, positions, change[positions])[None]
        if self.site == "mlp_out":
            change = self._from_mlp(source, index) - self._from_mlp(base, index)
            return self._after(index, positions, change[positions])[None]
        parts = slice(patch.parts.start, patch.parts.stop)
        if self.site == "neuron":
            down = self.network.layers[index].down
            change = down.change(
                lambda: self._activated(base, index)[positions], self._through_neurons(index, positions, parts)
            )
            return self._after(index, positions, change)
        change = self._through_heads(patch, positions, parts)
        return self._middle(index, positions, self.network.layers[index].rewritten(base.z[index][positions], change))

    def _middle(self, index: int, positions: slice, change: Tensor) -> Tensor:
        """Return the base run's stream after the attention where the heads add `change` more to it."""
        block, base = self.network.layers[index], self.base
        if block.middle_norm is None:
            return base.mid[index][positions] + change
        return block.middle(base.resid[index][positions], self._from_heads(base, index)[positions] + change)

    def _after(self, index: int, positions: slice, change: Tensor) -> Tensor:
        """Return the base run's stream after a layer where the MLP adds `change` more to it."""
        block, base = self.network.layers[index], self.base
        if block.after_norm is None:
            return base.resid[index + 1][positions] + change
        return block.after(base.mid[index][positions], self._from_mlp(base, index)[positions] + change)

    def entered(self, place: Place, positions: slice, change: Tensor) -> Tensor:
        """Return the base run's stream where what stands at a place is `change` more, ``[…, position, d_model]``.

        Parameters
        ----------
        change
            ``[…, position, width]``, of heads' z side by side.
        """
        base, index, more = self.base, place.layer, self.added(place, positions, change)
        if place.point in {"resid_pre", "resid_post"}:
            return base.resid[index + (place.point == "resid_post")][positions] + more
        if place.point == "resid_mid":
            return base.mid[index][positions] + more
        enter = self._middle if SITES[place.point].stage == "mid" else self._after
        return enter(index, positions, more)

    def added(self, place: Place, positions: slice, change: Tensor) -> Tensor:
        """Return by how much more is added to the stream then, ``[…, position, d_model]``; before a norm behind it."""
        base, index, block = self.base, place.layer, self.network.layers[place.layer]
        change = change.to(base.resid)
        if place.point == "neuron":
            raw = change @ block.down.weight.T
            return block.down.change(lambda: self._activated(base, index)[positions], raw)
        if place.point == "z":
            heads = change.unflatten(-1, (self.network.n_heads, -1))
            raw = torch.einsum("nphd,mhd->npm", heads, block.head_weights())
            return block.rewritten(base.z[index][positions], raw)
        return change

    def _from_heads(self, run: Base, index: int) -> Tensor:
        """Return what the heads add to a run's stream, ``[position, d_model]``."""
        block = self.network.layers[index]
        return run.mid[index] - run.resid[index] if block.middle_norm is None else block.write(run.z[index])

    def _from_mlp(self, run: Base, index: int) -> Tensor:
        """Return what the MLP adds to a run's stream, ``[position, d_model]``."""
        block = self.network.layers[index]
        if block.after_norm is None:
            return run.resid[index + 1] - run.mid[index]
        return block.mlp(block.mlp_reads(run.resid[index], run.mid[index]))

    def _through_neurons(self, index: int, positions: slice, parts: slice) -> Tensor:
        if self._held is None or self._held[0] != (index, 0):
            change = self._activated(self.source, index) - self._activated(self.base, index)
            self._held = ((index, 0), change)
        change = self._held[1][positions]
        weight = self.network.layers[index].down.weight  # [d_model, neuron]
        if self.by != "neuron":
            return (change @ weight.T)[None]
        return change.T[parts, :, None] * weight.T[parts, None, :]

    def _activated(self, run: Base, index: int) -> Tensor:
        block = self.network.layers[index]
        return block.neurons(block.mlp_reads(run.resid[index], run.mid[index]))

    def _through_heads(self, patch: PatchGroup, positions: slice, parts: slice) -> Tensor:
        """Return what W_O makes of the change of z, ``[part, position, d_model]``."""
        network, index = self.network, patch.layer
        if network.stored[index].together and self.site in {"q", "k"} and "head" in self.by:
            each = [self._z_of_one(index, patch.start, part) for part in patch.parts]
            change = (torch.stack(each) - self.base.z[index])[:, positions]
            return torch.einsum("nphd,mhd->npm", change, network.layers[index].head_weights())
        # Only keys and values that are patched at one position make a z that depends on which.
        at = patch.start if SITES[self.site].kv_heads and "position" in self.by else -1
        if self._held is None or self._held[0] != (index, at):
            self._held = ((index, at), self._z(index, at) - self.base.z[index])
        change = self._held[1][positions]  # [position, head, d_head]
        weight = network.layers[index].head_weights()  # [d_model, head, d_head]
        if "head" not in self.by:
            return torch.einsum("phd,mhd->pm", change, weight)[None]
        group = network.n_heads // self.parts
        heads = slice(parts.start * group, parts.stop * group)
        change, weight = change[:, heads], weight[:, heads]
        if group > 1:
            length = len(change)
            return torch.einsum(
                "pkgd,mkgd->kpm",
                change.view(length, -1, group, network.d_head),
                weight.view(len(weight), -1, group, network.d_head),
            )
        return torch.einsum("phd,mhd->hpm", change, weight)

    def _z(self, index: int, at: int) -> Tensor:
        """Return the z that the patched site makes in every head at once, ``[position, head, d_head]``.

        Heads do not meet before W_O, so one attention with all heads patched holds every head's own answer.
        """
        base, source = self.base, self.source
        if self.site == "z":
            return source.z[index]
        block, q, k, v = self.network.layers[index], base.q[index], base.k[index], base.v[index]
        if self.site == "pattern":
            return block.mix(block.pattern(block.scores(source.q[index], source.k[index])), v)
        if self.site == "q":
            q = source.q[index]
        if self.site == "k":
            k = _patched(k, source.k[index], at)
        if self.site == "v":
            v = _patched(v, source.v[index], at)
        return block.attend(q[None], k[None], v[None])[0]

    def _z_of_one(self, index: int, start: int, part: int) -> Tensor:
        """Return the z of all heads where one head's queries or keys are patched and a norm over all reads them."""
        block, at = self.network.layers[index], self.network.rotations(len(self.base))[index]
        q, k, _ = block.project(self.base.resid[index])
        own = dict(zip("qk", block.project(self.source.resid[index])[:2], strict=True))[self.site]
        changed = slice(start, start + 1) if "position" in self.by else slice(None)
        (q if self.site == "q" else k)[changed, part] = own[changed, part]
        turned = block.turn_queries(q, at), block.turn_keys(k, at)
        return block.attend(turned[0][None], turned[1][None], self.base.v[index][None])[0]


def _patched(base: Tensor, source: Tensor, at: int) -> Tensor:
    if at < 0:
        return source
    patched = base.clone()
    patched[at] = source[at]
    return patched
