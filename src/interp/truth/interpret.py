"""Programs run as what they say: each variable's value at each position, by hard attention, without weights.

The same interchange intervention that is made in a compiled model is made here in its variables: a place of the model
holds those that are written below it, and so a claim about the model has an accuracy by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.errors import InputError
from interp.sites import SITES, Site
from interp.truth.language import Head, Lookup, Program

# Variable → its values, ``float64 [position, value]``: one-hot where it has one value, a mixture where a head that
# finds nothing better looks at several positions.
Values = Mapping[str, Tensor]

TIED = 1e-6  # scores as near as that are one
SURE = 0.25  # of the output variable: as far as its largest value is above the next, where there is an answer


@dataclass(frozen=True)
class Exchange:
    """A place, and the positions of two runs that stand for each other there.

    Attributes
    ----------
    site
        Which activation: any of the table but the pattern.
    at, taken
        Positions of the base run, and as many of the source run.
    head
        Of a site with heads: this one; all of them where it is ``None``.
    variables
        Those of the place's variables that are exchanged, as in a subspace that is theirs; all where there are none.
    """

    site: Site
    at: tuple[int, ...]
    taken: tuple[int, ...]
    head: int | None = None
    variables: tuple[str, ...] = ()


def values(program: Program, ids: Sequence[int]) -> Values:
    """Return every variable's values in a prompt.

    Examples
    --------
    >>> from interp.truth.programs import induction
    >>> found = values(induction(), [0, 1, 2, 3, 1])
    >>> found["previous"].argmax(-1).tolist(), found["said"][-1].argmax().item()
    ([0, 0, 1, 2, 3], 2)
    """
    return _run(program, ids, (), {})


def interchanged(program: Program, base: Sequence[int], source: Sequence[int], exchanges: Sequence[Exchange]) -> Values:
    """Return the same of `base`, where what some places hold is what they hold in the run of `source`.

    Raises
    ------
    InputError
        A place of which a program does not say what it holds: a pattern.

    Examples
    --------
    >>> from interp.truth.programs import induction
    >>> place = Exchange(Site("z", 2), (4,), (4,), head=1)
    >>> answer(induction(), interchanged(induction(), [0, 1, 2, 3, 1], [0, 5, 6, 7, 6], [place]))
    7
    """
    other = next((one.site.name for one in exchanges if SITES[one.site.name].heads_first), None)
    if other is not None:
        raise InputError(f"a program does not say what a {other} holds; use z, q, k or v")
    return _run(program, base, exchanges, values(program, source))


def answer(program: Program, found: Values, position: int = -1, classes: Sequence[int] = ()) -> int | None:
    """Return the token that is said at a position, ``None`` where none stands out.

    Parameters
    ----------
    classes
        The tokens among which it is; all where there are none.
    """
    among = list(classes) or list(range(len(program.vocabulary)))
    shares, order = found[program.output][position][among].sort(descending=True, stable=True)
    if len(among) > 1 and float(shares[0] - shares[1]) < SURE:
        return None
    return among[int(order[0])]


def _run(program: Program, ids: Sequence[int], exchanges: Sequence[Exchange], given: Values) -> dict[str, Tensor]:
    held: dict[str, Tensor] = {
        "token": torch.eye(len(program.vocabulary), dtype=torch.float64)[list(ids)],
        "position": torch.eye(program.length, dtype=torch.float64)[: len(ids)],
    }

    def put(variable: str, tensor: Tensor, some: Sequence[Exchange]) -> Tensor:
        """Return a variable as some places have it."""
        for one in some:
            if not one.variables or variable in one.variables:
                tensor = tensor.clone()
                tensor[list(one.at)] = given[variable][list(one.taken)]
        return tensor

    def on(layer: int, *names: str) -> list[Exchange]:
        return [one for one in exchanges if one.site.layer == layer and one.site.name in names]

    def stream(some: Sequence[Exchange]) -> None:
        for variable in list(held):
            held[variable] = put(variable, held[variable], some)

    for layer in range(program.layers):
        stream(on(layer, "resid_pre"))
        heads = [step for step in program.steps if isinstance(step, Head) and step.name.startswith(f"{layer}.")]
        written: dict[str, Tensor] = {}
        for step in heads:
            number = int(step.name.split(".")[1])

            def own(name: str, number: int = number, layer: int = layer) -> list[Exchange]:
                return [one for one in on(layer, name) if one.head in {None, number}]

            made = _attended(step, held, {part: own(part) for part in "qkv"}, put)
            written[step.writes] = put(step.writes, made, [*own("z"), *on(layer, "attn_out")])
        held |= written
        stream(on(layer, "resid_mid"))
        for step in program.steps:
            if isinstance(step, Lookup) and step.layer == layer:
                read = torch.cat([held[name] for name in step.reads], -1)
                made = (read @ step.on.double().T + step.bias.double()).relu() @ step.out.double()
                held[step.writes] = put(step.writes, made, on(layer, "neuron", "mlp_out"))
        stream(on(layer, "resid_post"))
    return held


def _attended(step: Head, held: Values, own: Mapping[str, Sequence[Exchange]], put: Callable[..., Tensor]) -> Tensor:
    """Return what a head writes at each position: the mean of what it copies from where its score is highest."""
    count = len(held["token"])
    scores = torch.zeros(count, count, dtype=torch.float64)
    for match in step.matches:
        key = put(match.key, held[match.key], own["k"])
        asked = match.table.double()
        if match.query is not None:
            asked = put(match.query, held[match.query], own["q"]) @ asked
        scores += asked @ key.T
    scores = scores.masked_fill(~torch.ones(count, count, dtype=torch.bool).tril(), -torch.inf)
    best = (scores >= scores.amax(-1, keepdim=True) - TIED).double()
    found = put(step.value, held[step.value], own["v"]) @ step.table.double()
    return (best / best.sum(-1, keepdim=True)) @ found
