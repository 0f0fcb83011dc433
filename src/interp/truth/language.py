"""What programs are written in: variables, heads that select and copy one, MLPs that look one or two up.

A variable is a direction of the residual stream for each of its values, and every variable has one writer: tokens and
positions the embedding, all others a head or an MLP. A head selects by a sum of tables, each over what it asks and what
it finds, through a softmax of finite gain, and copies one variable; an MLP looks one or two variables up. What reads
what is therefore written down before there are weights, and that is the truth that methods are scored against.

The programs follow Weiss et al. (2021), "Thinking Like Transformers"; that compiled ones can score interpretability
methods is Lindner et al. (2023), "Tracr".
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Match:
    """One term of a head's scores.

    Attributes
    ----------
    key
        The variable looked at.
    table
        ``[query value, key value]``: 1 where they go together, −1 where they must not; one row without `query`.
    query
        The variable that asks; every position asks the same where there is none.
    """

    key: str
    table: Tensor
    query: str | None = None


@dataclass(frozen=True)
class Head:
    """Selects positions and copies a variable from them.

    Attributes
    ----------
    name
        Where it is, such as ``"0.2"``.
    writes, value
        The variable that it writes, and the one that it copies.
    matches
        The terms of its scores.
    table
        ``[value, written value]``: how what it copies is written.
    """

    name: str
    writes: str
    value: str
    matches: tuple[Match, ...]
    table: Tensor


@dataclass(frozen=True)
class Lookup:
    """An MLP: neurons that are on for some values of the variables it reads.

    Attributes
    ----------
    layer
        Which MLP.
    writes, reads
        The variable that it writes, and those that it reads.
    on
        ``[neuron, values of all that it reads]``.
    bias
        ``[neuron]``.
    out
        ``[neuron, written value]``.
    """

    layer: int
    writes: str
    reads: tuple[str, ...]
    on: Tensor
    bias: Tensor
    out: Tensor


@dataclass(frozen=True)
class Program:
    """What a compiled model computes.

    Attributes
    ----------
    name, doc
        What it is called, and what it does, in one line.
    vocabulary
        What each token id stands for.
    length
        Of every prompt.
    layers
        Of the model; those that no step names hold distractors alone.
    steps
        Heads and lookups.
    output
        The variable, over tokens, that the logits read.
    answer
        Prompt → the token that is right after its last one.
    draw
        Generator → a clean prompt, a corrupted one and a wrong answer.
    """

    name: str
    doc: str
    vocabulary: tuple[str, ...]
    length: int
    layers: int
    steps: tuple[Head | Lookup, ...]
    output: str
    answer: Callable[[Sequence[int]], int]
    draw: Callable[[random.Random], tuple[list[int], list[int], int]]
    heads: int = 4

    @property
    def sizes(self) -> dict[str, int]:
        """How many values each variable has."""
        given = {"token": len(self.vocabulary), "position": self.length}
        return given | {
            step.writes: (step.table if isinstance(step, Head) else step.out).shape[1] for step in self.steps
        }

    def reads(self) -> Iterator[tuple[str, str, str | None]]:
        """Yield what the program reads where: input, variable, and the variable that it goes into (not of logits)."""
        for step in self.steps:
            if isinstance(step, Head):
                for match in step.matches:
                    yield f"{step.name}.k", match.key, step.writes
                    if match.query is not None:
                        yield f"{step.name}.q", match.query, step.writes
                yield f"{step.name}.v", step.value, step.writes
            else:
                for variable in step.reads:
                    yield f"{step.layer}.mlp", variable, step.writes
        yield "logits", self.output, None


def lookup(
    layer: int,
    writes: str,
    reads: tuple[str, str],
    sizes: tuple[int, int, int],
    table: Mapping[tuple[int, int], int],
) -> Lookup:
    """Return an MLP that looks up two variables: ``(value, value) → written value``; a pair not in `table` gives none.

    `sizes` are those of the two and of what is written. A neuron is on where both values are there.

    Examples
    --------
    >>> len(lookup(0, "both", ("a", "b"), (3, 2, 4), {(0, 1): 2, (1, 0): 0}).bias)
    2
    """
    on, out = torch.zeros(len(table), sizes[0] + sizes[1]), torch.zeros(len(table), sizes[2])
    for neuron, ((first, second), value) in enumerate(table.items()):
        on[neuron, first] = on[neuron, sizes[0] + second] = 1.0
        out[neuron, value] = 1.0
    return Lookup(layer, writes, reads, on, -torch.ones(len(table)), out)


def ladder(layer: int, writes: str, reads: str, points: Mapping[float, int], top: float, width: int) -> Lookup:
    """Return an MLP that tells a number's points apart: ``point → written value``, and between two a mixture.

    Nothing is written at 0 and from `top` on.

    Examples
    --------
    >>> len(ladder(0, "count", "share", {0.5: 0, 0.25: 1}, 1.0, 2).bias)
    4
    """
    knots = torch.tensor([0.0, *sorted(points), top])
    heights = torch.zeros(len(knots), width)
    for place, point in enumerate(sorted(points), start=1):
        heights[place, points[point]] = 1.0
    slopes = heights.diff(dim=0) / knots.diff()[:, None]
    level = torch.zeros(1, width)
    return Lookup(
        layer,
        writes,
        (reads,),
        torch.ones(len(knots), 1),
        -knots,
        torch.cat([slopes, level]) - torch.cat([level, slopes]),
    )
