"""The roles that heads play in indirect object identification, from where they look and what flows through them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from interp.methods._shared.heads.watched import differ
from interp.methods._shared.intervals import interval
from interp.methods._shared.pairs import Encodings, encode, from_task
from interp.spec import Metric, Pair, Pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.forward import Edit
    from interp.engine.transformer.network import Network

    Float = NDArray[np.float64]
    Truth = NDArray[np.bool_]

# An effect counts from this share of the logit difference on, attention as a role of its own from this weight on.
SHARE, WEIGHT = 0.05, 0.3


@dataclass(frozen=True)
class Roles:
    """What was measured on the pairs, and who plays which role.

    Attributes
    ----------
    each
        Score → ``float64 [pair, layer, head]``.
    chance
        Score → ``float64 [layer, head]``.
    labels
        Head → role.
    criteria
        Role → what makes a head play it.
    notes
        What is worth knowing.
    interrupt
        What stopped it before all roles were looked for.
    """

    each: dict[str, Float]
    chance: dict[str, Float]
    labels: dict[str, str]
    criteria: dict[str, str]
    notes: tuple[str, ...]
    interrupt: KeyboardInterrupt | None = None


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


def roles(model: LoadedModel, n: int, seed: int) -> Roles:
    """Run `n` pairs of the task ioi and return every head's part in it.

    Wang et al. (2022), "Interpretability in the Wild". The other run of each pair has three other names, none of them
    twice: it has no idea who is repeated. Effects are direct: along the residual stream alone, the final norm and what
    a soft cap lets through frozen.

    Raises
    ------
    InputError
        A model whose forward is not known as plain functions, or a tokenizer without enough names.
    """
    import torch

    from interp.engine import exactness
    from interp.engine.model import hooks
    from interp.engine.transformer import network

    ids: list[Tensor] = []  # of the clean and of the other prompts

    def lean(check: exactness.Check) -> tuple[Network, Pairs, list[Encodings]]:  # noqa: ARG001
        net = network.read(model)
        pairs = from_task(model, "ioi", n=n, seed=seed, corruption="random-names")
        encoded = encode(model, pairs, Metric("logit-diff"))
        for prompts in ([e.clean.ids for e in encoded], [e.corrupted.ids for e in encoded]):
            ids.append(torch.tensor(prompts, device=model.device))
        return net, pairs, encoded

    net, pairs, encoded = exactness.run(
        model,
        ("roles",),
        lean=lean,
        hooked=exactness.Refusal(
            "--task ioi follows what flows between heads", "leave --task out for the scores on random tokens"
        ),
        sample=lambda: differ(model, network.read(model), ids[0][: exactness.sample_of(model)]),
    ).answer
    clean_ids, other_ids = ids
    slots = {name: np.array([pair.slots[name][0] for pair in pairs.pairs]) for name in ("io", "s1", "s2")}
    sides = torch.tensor([[e.answer[0], e.wrong[0]] for e in encoded], device=model.device)
    clean, other = hooks.guarded(lambda: (run(net, clean_ids), run(net, other_ids)))
    model.count(2 * len(encoded))
    model.note("replay")
    model.on_step(1, 3)
    assert clean.end is not None
    towards = _towards(net, clean.end, sides)
    difference = float(((clean.end * towards).sum(-1) / net.final.size(clean.end)).mean())
    direct = _direct(net, clean, towards)
    looked, chance = _attention(clean, slots)
    seen = {name: _sure(values - chance[name]) for name, values in looked.items()}
    least = SHARE * abs(difference)
    rather = looked["end_to_io"].mean(0) > np.maximum(looked["end_to_s1"].mean(0), looked["end_to_s2"].mean(0))
    mover = _sure(direct, least) & seen["end_to_io"] & rather
    chosen: list[tuple[int, int]] = [(int(layer), int(head)) for layer, head in np.argwhere(mover)]
    each = {name: looked[name] for name in ("duplicate_token", "end_to_s2", "end_to_io")}
    each["direct_effect"] = direct
    players = {
        "name mover": mover,
        "negative name mover": _sure(-direct, least) & seen["end_to_io"],
    }
    interrupt: KeyboardInterrupt | None = None
    try:
        if chosen:
            work = lambda: through_queries(net, clean, other, towards, chosen)  # noqa: E731
            each["s_inhibition"] = hooks.guarded(work)
            players["S-inhibition"] = _sure(each["s_inhibition"], least) & seen["end_to_s2"]
            model.on_step(2, 3)
            without = hooks.guarded(lambda: run(net, clean_ids, _knocked_out(other, chosen)))
            model.count(len(encoded))
            each["backup"] = np.where(mover, 0.0, _direct(net, without, towards) - direct)
            players["backup name mover"] = _sure(each["backup"], least) & seen["end_to_io"]
            model.on_step(3, 3)
    except KeyboardInterrupt as stopped:
        interrupt = stopped
    players["duplicate token"] = seen["duplicate_token"] & (looked["duplicate_token"].mean(0) >= WEIGHT)
    nothing = np.zeros(mover.shape)
    even = {name: chance.get(name, nothing) for name in each}
    notes = [
        f"the clean logit difference is {difference:+.2f}; an effect counts from {SHARE:.0%} of it, {least:.2f}, on",
        *_notes(players, interrupted=interrupt is not None),
        *(f"several slots of a pair have more than one token: {name}" for name in _several(pairs.pairs)),
    ]
    return Roles(each, even, _labels(players), _criteria(least), tuple(notes), interrupt)


def _labels(players: Mapping[str, Truth]) -> dict[str, str]:
    """Return head → the first role that it plays."""
    labels: dict[str, str] = {}
    for role, which in players.items():
        for layer, head in np.argwhere(which).tolist():
            labels.setdefault(f"{layer}.{head}", role)
    return labels


def _notes(players: Mapping[str, Truth], *, interrupted: bool) -> list[str]:
    if not players["name mover"].any():
        return [
            "no head both looks from the end at the answer and writes it there: without a name mover there is nothing "
            "to inhibit and to back up"
        ]
    missing = [role for role in ("S-inhibition", "backup name mover") if role not in players]
    if not interrupted:
        return []
    lacking = f"{' and '.join(missing)} heads were not looked for" if missing else "nothing is missing"
    return [f"partial: interrupted; {lacking}"]


def _several(pairs: Sequence[Pair]) -> list[str]:
    return sorted({name for pair in pairs for name, places in pair.slots.items() if len(places) > 1})


def _sure(each: Float, least: float = 0.0) -> Truth:
    """Return where the mean over pairs is at least `least`, and above 0 with its whole 95 % interval."""
    mean = each.mean(0)
    return (interval(each)[0] > 0) & (mean > 0) & (mean >= least)


def _criteria(least: float) -> dict[str, str]:
    effect = f"{least:.2f} logits or more, interval above 0"
    return {
        "name mover": f"direct effect on the logit difference {effect}; looks from the end at the answer, more than at "
        "the other name",
        "negative name mover": f"direct effect −{effect.replace('above', 'below')}; looks from the end at the answer",
        "S-inhibition": f"through the name movers' queries {effect}; looks from the end at the second subject",
        "backup name mover": f"direct effect grows by {effect}, when the name movers' output is the mean of runs with "
        "other names; looks from the end at the answer",
        "duplicate token": f"looks from the second subject at the first with {WEIGHT} or more",
    }


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


def _attention(run: Run, slots: Mapping[str, NDArray[np.int_]]) -> tuple[dict[str, Float], dict[str, Float]]:
    """Return where heads look, ``[pair, layer, head]``, and what even attention would give, ``[layer, head]``."""
    patterns = np.stack([pattern.double().cpu().numpy() for pattern in run.pattern], axis=1)
    pair = np.arange(len(patterns))
    end = np.full(len(pair), patterns.shape[-1] - 1)
    places = {
        "duplicate_token": (slots["s2"], slots["s1"]),
        "end_to_s2": (end, slots["s2"]),
        "end_to_s1": (end, slots["s1"]),
        "end_to_io": (end, slots["io"]),
    }
    looked = {name: patterns[pair, :, :, queries, keys] for name, (queries, keys) in places.items()}
    shape = patterns.shape[1:3]
    return looked, {name: np.full(shape, (1 / (queries + 1)).mean()) for name, (queries, _) in places.items()}


def _towards(net: Network, end: Tensor, sides: Tensor) -> Tensor:
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


def _direct(net: Network, run: Run, towards: Tensor) -> Float:
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


def _knocked_out(other: Run, chosen: Sequence[tuple[int, int]]) -> Edit:
    """Return an edit of z that puts the mean over the other runs in place of the chosen heads' output at the end."""

    def edit(layer: int, z: Tensor) -> Tensor | None:
        which = [head for at, head in chosen if at == layer]
        if not which:
            return None
        changed = z.clone()
        changed[:, -1, which] = other.z[layer][:, which].mean(0)
        return changed

    return edit
