"""The roles that heads play in indirect object identification, from where they look and what flows through them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.methods._shared.heads.flow import Stages, places
from interp.methods._shared.heads.watched import differ
from interp.methods._shared.intervals import interval
from interp.methods._shared.pairs import Encodings, encode, from_task
from interp.spec import Metric, Pair, Pairs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
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
    from interp.engine.pool import sharing
    from interp.engine.transformer import network

    ids: list[Tensor] = []  # of the clean and of the other prompts
    pool = sharing.pool_of(model)

    def lean(check: exactness.Check) -> tuple[Network, Pairs, list[Encodings]]:  # noqa: ARG001
        net = network.read(model)
        pairs = from_task(model, "ioi", n=n, seed=seed, corruption="random-names")
        encoded = encode(model, pairs, Metric("logit-diff"))
        for prompts in ([e.clean.ids for e in encoded], [e.corrupted.ids for e in encoded]):
            ids.append(torch.tensor(prompts, device=model.device))
        return net, pairs, encoded

    net, drawn, encoded = exactness.run(
        model,
        ("roles",) if pool is None else ("roles", pool.name),
        lean=lean,
        hooked=exactness.Refusal(
            "--task ioi follows what flows between heads", "leave --task out for the scores on random tokens"
        ),
        sample=lambda: differ(model, network.read(model), ids[0][: exactness.sample_of(model)]),
    ).answer
    slots = {name: np.array([pair.slots[name][0] for pair in drawn.pairs]) for name in ("io", "s1", "s2")}
    sides = torch.tensor([[e.answer[0], e.wrong[0]] for e in encoded], device=model.device)
    stages = Stages(model, net, {"clean": ids[0], "other": ids[1], "sides": sides, "slots": slots}, pool)
    looked = stages.run("seen")
    stages.finished()
    difference, direct = float(looked["difference"].mean()), looked["direct_effect"]
    towards = looked["towards"]
    chance = {
        name: np.full(direct.shape[1:], (1 / (queries + 1)).mean())
        for name, (queries, _) in places(slots, ids[0].shape[1]).items()
    }
    seen = {name: _sure(looked[name] - even) for name, even in chance.items()}
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
            through = stages.run("through", towards=towards, chosen=tuple(chosen))
            each["s_inhibition"] = through["s_inhibition"]
            players["S-inhibition"] = _sure(each["s_inhibition"], least) & seen["end_to_s2"]
            stages.finished()
            means = through["other"].mean(0)
            without = stages.run("without", towards=towards, chosen=tuple(chosen), means=means)
            each["backup"] = np.where(mover, 0.0, without["direct_effect"] - direct)
            players["backup name mover"] = _sure(each["backup"], least) & seen["end_to_io"]
            stages.finished()
    except KeyboardInterrupt as stopped:
        interrupt = stopped
    players["duplicate token"] = seen["duplicate_token"] & (looked["duplicate_token"].mean(0) >= WEIGHT)
    nothing = np.zeros(mover.shape)
    even = {name: chance.get(name, nothing) for name in each}
    notes = [
        f"the clean logit difference is {difference:+.2f}; an effect counts from {SHARE:.0%} of it, {least:.2f}, on",
        *_notes(players, interrupted=interrupt is not None),
        *(f"several slots of a pair have more than one token: {name}" for name in _several(drawn.pairs)),
    ]
    model.note(stages.path)
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
