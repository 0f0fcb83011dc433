"""What flows between heads in pairs of indirect object identification: `roles` says what follows from it.

Each of three stages, ``seen``, ``through`` and ``without``, is a function of some pairs, so that pairs are a pool's
shards. What the next one is asked depends on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.methods._shared.heads.scores import together

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.protocol import Pool
    from interp.engine.transformer.forward import Edit
    from interp.engine.transformer.network import Network

    Float = NDArray[np.float64]
    Places = Mapping[str, tuple[NDArray[np.int_], NDArray[np.int_]]]
    Found = dict[str, Any]


class Stages:
    """The stages, one after the other.

    Parameters
    ----------
    pairs
        What a stage is asked of each: ``clean`` and ``other``, ``int64 [pair, position]``, ids of its two prompts;
        ``sides``, ``int64 [pair, 2]``, right and wrong token; of `places` the positions, ``int64 [pair]``.
    """

    def __init__(self, model: LoadedModel, net: Network, pairs: Mapping[str, Any], pool: Pool | None) -> None:
        self.model, self.pairs, self.pool = model, pairs, pool
        self.here = _Pairs(model, net, **pairs)
        count, length = pairs["clean"].shape
        self.groups = [slice(0, count)] if pool is None else together(count, length)
        self.done = self.shards = 0

    @property
    def path(self) -> str:
        """How they ran, for a provenance."""
        from interp.engine.pool import sharing

        return "replay" if self.pool is None else "replay" + sharing.said(self.shards, self.pool)

    def run(self, stage: str, **more: Any) -> Found:
        """Return what a stage finds of all pairs; of what else it is asked, ``towards`` is of each pair, too."""
        import torch

        from interp.engine.model import hooks
        from interp.engine.pool import sharing

        if self.pool is None:
            return hooks.guarded(lambda: STAGES[stage](self.here, **more))
        parts: dict[int, Found] = {}
        count = len(self.groups)

        def take(number: int, found: Found) -> None:
            parts[number] = found
            if len(parts) < count:
                self.model.on_step(self.done * count + len(parts), len(STAGES) * count)

        asked = [{"stage": stage, **_part({**self.pairs, **more}, some)} for some in self.groups]
        self.shards += count
        sharing.run(self.pool, "roles", [self.model], asked, take)
        each = [parts[number] for number in range(count)]
        return {
            name: (np.concatenate if isinstance(value, np.ndarray) else torch.cat)([part[name] for part in each])
            for name, value in each[0].items()
        }

    def finished(self) -> None:
        """Say that a stage's answer is taken in."""
        self.done += 1
        self.model.on_step(self.done * len(self.groups), len(STAGES) * len(self.groups))


def _part(asked: Mapping[str, Any], some: slice) -> Found:
    """Return what is asked of some pairs."""
    slots = {name: where[some] for name, where in asked["slots"].items()}
    each = ("clean", "other", "sides", "towards")
    return {**asked, "slots": slots, **{name: asked[name][some] for name in each if name in asked}}


def staged(
    models: Sequence[LoadedModel],
    step: Callable[[], None],  # noqa: ARG001
    *,
    stage: str,
    clean: Tensor,
    other: Tensor,
    sides: Tensor,
    slots: Mapping[str, NDArray[np.int_]],
    **more: Any,
) -> Found:
    """Run a stage on some pairs, as a worker does."""
    import torch

    from interp.engine.model import hooks
    from interp.engine.transformer import network

    (model,) = models
    clean, other, sides = (each.to(model.device) for each in (clean, other, sides))
    pairs = _Pairs(model, network.read(model), clean=clean, other=other, sides=sides, slots=slots)
    there = {name: each.to(model.device) if isinstance(each, torch.Tensor) else each for name, each in more.items()}
    return hooks.guarded(lambda: STAGES[stage](pairs, **there))


class _Pairs:
    """Pairs, and their runs as soon as they are asked for."""

    def __init__(
        self,
        model: LoadedModel,
        net: Network,
        *,
        clean: Tensor,
        other: Tensor,
        sides: Tensor,
        slots: Mapping[str, NDArray[np.int_]],
    ) -> None:
        self.model, self.net, self.ids, self.sides, self.slots = model, net, (clean, other), sides, slots

    @cached_property
    def clean(self) -> Run:
        """The clean prompts' run."""
        return self.run(0)

    @cached_property
    def other(self) -> Run:
        """The run of the prompts with other names."""
        return self.run(1)

    def run(self, which: int, edit: Edit | None = None) -> Run:
        """Run the clean prompts (0) or the others (1)."""
        made = run(self.net, self.ids[which], edit)
        self.model.count(len(self.ids[which]))
        return made


def _seen(pairs: _Pairs) -> Found:
    """Return where heads look and what they write at the end, ``[pair, layer, head]``.

    Beside, of each pair, the logit ``difference`` and the direction ``towards`` it.
    """
    net, clean = pairs.net, pairs.clean
    assert clean.end is not None
    towards = direction(net, clean.end, pairs.sides)
    patterns = np.stack([pattern.double().cpu().numpy() for pattern in clean.pattern], axis=1)
    rows = np.arange(len(patterns))
    looked = {
        name: patterns[rows, :, :, queries, keys]
        for name, (queries, keys) in places(pairs.slots, patterns.shape[-1]).items()
    }
    difference = (clean.end * towards).sum(-1) / net.final.size(clean.end)
    return {
        **looked,
        "direct_effect": direct(net, clean, towards),
        "difference": difference.double().cpu().numpy(),
        "towards": towards,
    }


def _through(pairs: _Pairs, *, towards: Tensor, chosen: Sequence[tuple[int, int]]) -> Found:
    """Return ``s_inhibition``, see `through_queries`, and what the `chosen` heads' z are in the other runs' end."""
    import torch

    effects = through_queries(pairs.net, pairs.clean, pairs.other, towards, chosen)
    return {"s_inhibition": effects, "other": torch.stack([pairs.other.z[layer][:, head] for layer, head in chosen], 1)}


def _without(pairs: _Pairs, *, towards: Tensor, chosen: Sequence[tuple[int, int]], means: Tensor) -> Found:
    """Return what heads write at the end where the `chosen` ones' z is `means` there, ``[chosen, d_head]``."""
    return {"direct_effect": direct(pairs.net, pairs.run(0, _knocked_out(chosen, means)), towards)}


STAGES: Mapping[str, Callable[..., Found]] = {"seen": _seen, "through": _through, "without": _without}


@dataclass
class Run:
    """A batch's run, layer by layer.

    `pattern` ``[pair, head, query, key]``; at the last position, `z` ``[pair, head, d_head]`` and `before`, the
    residual stream before the layer, ``[pair, d_model]``; `k` (before rotary) and `v` ``[pair, position, KV head,
    d_head]``; `end` the residual stream after the last layer ``[pair, d_model]``.
    """

    pattern: list[Tensor] = field(default_factory=list["Tensor"])
    z: list[Tensor] = field(default_factory=list["Tensor"])
    before: list[Tensor] = field(default_factory=list["Tensor"])
    k: list[Tensor] = field(default_factory=list["Tensor"])
    v: list[Tensor] = field(default_factory=list["Tensor"])
    end: Tensor | None = None


def run(net: Network, ids: Tensor, edit: Edit | None = None) -> Run:
    """Run prompts of one length, ``int64 [n, position]``, with an edit of z where one is given."""
    from interp.engine.transformer.forward import forward

    made = Run()

    def z(layer: int, tensor: Tensor) -> Tensor | None:
        changed = None if edit is None else edit(layer, tensor)
        made.z.append((tensor if changed is None else changed)[:, -1])
        return changed

    made.end = forward(
        net,
        ids,
        {
            "resid_pre": lambda layer, tensor: made.before.append(tensor[:, -1]),  # noqa: ARG005
            "k": lambda layer, tensor: made.k.append(tensor),  # noqa: ARG005
            "v": lambda layer, tensor: made.v.append(tensor),  # noqa: ARG005
            "pattern": lambda layer, tensor: made.pattern.append(tensor),  # noqa: ARG005
            "z": z,
        },
    )[:, -1]
    return made


def places(slots: Mapping[str, NDArray[np.int_]], length: int) -> Places:
    """Return which query and which key of each pair a score of attention is the weight of."""
    end = np.full(len(slots["io"]), length - 1)
    return {
        "duplicate_token": (slots["s2"], slots["s1"]),
        "end_to_s2": (end, slots["s2"]),
        "end_to_s1": (end, slots["s1"]),
        "end_to_io": (end, slots["io"]),
    }


def direction(net: Network, end: Tensor, sides: Tensor) -> Tensor:
    """Return the direction of each pair's logit difference, ``[pair, d_model]``, apart from the final norm's size.

    Parameters
    ----------
    end
        The last residual streams, ``[pair, d_model]``: what a soft cap lets through is frozen as it is there.
    sides
        ``int64 [pair, 2]``: right and wrong token.
    """
    from interp.engine.readouts import ov_qk

    kept = net.unembed.kept(net.final(end), sides)
    rows = ov_qk.unembedding(net, sides, centred=kept is None)
    answer, wrong = (rows if kept is None else rows * kept[..., None]).unbind(1)
    return (answer - wrong).to(net.unembed.weight.dtype)


def direct(net: Network, run: Run, towards: Tensor) -> Float:
    """Return what each head writes at the end along `towards`, over the final norm's size: ``[pair, layer, head]``."""
    import torch

    from interp.engine.readouts import ov_qk

    assert run.end is not None
    written = [ov_qk.along(net, layer, z, towards) for layer, z in zip(net.layers, run.z, strict=True)]
    return (torch.stack(written, 1) / net.final.size(run.end)[:, None, None]).double().cpu().numpy()


def through_queries(net: Network, clean: Run, other: Run, towards: Tensor, readers: Sequence[tuple[int, int]]) -> Float:
    """Return what each head's own signal adds to the logit difference through the queries of `readers` alone.

    The head's output at the end is replaced by that of the other run, in nothing but the residual stream that the
    readers' queries are made of there; what they then write goes straight to the logits. Keys and values are clean.

    Returns
    -------
    Float
        ``[pair, layer, head]``: clean less replaced; 0 for heads that no reader is above.
    """
    import torch

    from interp.engine.readouts import ov_qk

    assert clean.end is not None
    count, length = clean.k[0].shape[:2]
    rotations = net.rotations(length)
    group = net.n_heads // net.n_kv_heads
    size = net.final.size(clean.end)
    effects = torch.zeros(count, len(net.layers), net.n_heads, dtype=torch.float64)
    for reader in sorted({layer for layer, _ in readers}):
        block, turns = net.layers[reader], rotations[reader]
        last = None if turns is None else turns.at(slice(length - 1, None))
        which = [head for at, head in readers if at == reader]
        shared = [head // group for head in which]
        keys = block.turn_keys(clean.k[reader], turns)[:, :, shared]
        values = clean.v[reader][:, :, shared]
        before = clean.z[reader]
        plain = ov_qk.along(net, block, before, towards)[:, which]
        for sender in range(reader):
            change = other.z[sender] - clean.z[sender]
            raw = torch.einsum("nhd,mhd->nhm", change, net.layers[sender].head_weights())
            written = net.layers[sender].rewritten(clean.z[sender][:, None], raw)
            moved = clean.before[reader][:, None] + written
            # The senders stand where queries do: each is one more query of the last position.
            queries = block.queries(moved[..., None, :], last)[..., 0, :, :][:, :, which]
            mixed = block.mix(block.pattern(block.scores(queries, keys, length - 1, which), which), values)
            z = before[:, None].expand(-1, net.n_heads, -1, -1).clone()
            z[:, :, which] = mixed
            replaced = ov_qk.along(net, block, z, towards[:, None])[:, :, which]
            effects[:, sender] += ((plain[:, None] - replaced).sum(-1) / size[:, None]).double().cpu()
    return effects.numpy()


def _knocked_out(chosen: Sequence[tuple[int, int]], means: Tensor) -> Edit:
    """Return an edit of z that puts `means`, ``[chosen, d_head]``, in place of the chosen heads' output at the end."""

    def edit(layer: int, z: Tensor) -> Tensor | None:
        which = [(number, head) for number, (at, head) in enumerate(chosen) if at == layer]
        if not which:
            return None
        changed = z.clone()
        for number, head in which:
            changed[:, -1, head] = means[number].to(z)
        return changed

    return edit
