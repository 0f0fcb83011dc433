"""That a compiled neuron fires exactly when its rule holds, proved of its weights by Z3 (de Moura and Bjørner 2008).

A neuron of a lookup has a rule by construction: the values of the variables that it reads at which it is on. What is
proved is about the weights as they are in the model, in float32, and about every state of the residual stream in which
each variable that the neuron reads has a value: heads copy through a softmax of finite gain, and distractors write a
little into variables, so that a value is there by nearly 1, and not by 1. For the same reason a neuron fires where its
input is above half of what it is where its rule holds: one of two values alone, and a little noise, bring it above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any

from interp.errors import InputError
from interp.truth.compile import Compiled
from interp.truth.language import Lookup

LARGEST = 10.0  # of what stands in the stream along a dim that is none of the variables that are read


@dataclass(frozen=True)
class Verdict:
    """Whether a neuron fires exactly when its rule holds.

    Attributes
    ----------
    rule
        The values at which it is on: of each variable that it reads, one.
    proved
        Whether that is so in every state.
    against
        A state that shows that it is not: variable → how much of each of its values is there; empty where it is.
    """

    rule: tuple[Mapping[str, int], ...]
    proved: bool
    against: Mapping[str, tuple[float, ...]]


def neuron(made: Compiled, layer: int, number: int, *, spread: float = 0.1, astray: float = 0.02) -> Verdict:
    """Return whether a neuron of a compiled program's MLP fires exactly when its rule holds.

    Parameters
    ----------
    spread
        How much of a variable may lie on other values than its own: its own has 1 − `spread` or more, all have 1.
    astray
        By how much each value may be off beside that, either way.

    Raises
    ------
    InputError
        The layer has no lookup of values, it has no such neuron, or Z3 is not installed.

    Examples
    --------
    >>> from interp import truth
    >>> neuron(truth.build("reverse"), 1, 0).proved
    True
    """
    try:
        import z3 as solver_of
    except ImportError:
        raise InputError("proofs need Z3; type pip install 'interp[prove]'") from None
    z3: Any = solver_of
    step = next((s for s in made.program.steps if isinstance(s, Lookup) and s.layer == layer), None)
    if step is None:
        raise InputError(f"{made.program.name} looks nothing up in layer {layer}: its neurons are distractors")
    if not 0 <= number < len(step.bias):
        raise InputError(f"no neuron {number}; those of the lookup are 0–{len(step.bias) - 1}")
    sizes = [made.program.sizes[name] for name in step.reads]
    if min(sizes) < 2:
        raise InputError(f"the lookup of layer {layer} reads a number, {' and '.join(step.reads)}: there are no values")
    rule, half = _rule(step, sizes, number)
    row = made.weights[f"layers.{layer}.mlp.in.weight"][number].double()
    pre: Any = _exact(float(made.weights[f"layers.{layer}.mlp.in.bias"][number]))
    bounds: list[Any] = []
    shares: dict[str, list[Any]] = {}
    rest = row.clone()
    for name in step.reads:
        directions = made.directions[name]
        rest -= (directions @ row) @ directions
        held = shares[name] = [z3.Real(f"{name}{n}") for n in range(len(directions))]
        off = [z3.Real(f"{name}{n} off") for n in range(len(directions))]
        bounds += [z3.And(one >= 0, one <= 1) for one in held]
        bounds += [z3.Sum(*held) == 1, z3.Or(*(one >= 1 - _exact(spread) for one in held))]
        bounds += [z3.And(one >= -_exact(astray), one <= _exact(astray)) for one in off]
        along = [_exact(float(value)) for value in directions @ row]
        pre = pre + z3.Sum(*(a * (one + other) for a, one, other in zip(along, held, off, strict=True)))
    other = z3.Real("other")
    bounds.append(z3.And(other >= -LARGEST, other <= LARGEST))
    pre = pre + _exact(float(rest.abs().sum())) * other
    holds = z3.Or(*(z3.And(*(shares[k][v] >= 1 - _exact(spread) for k, v in values.items())) for values in rule), False)
    solver: Any = z3.Solver()
    solver.add(*bounds, (pre > _exact(half)) != holds)
    if solver.check() == z3.unsat:
        return Verdict(rule, True, {})
    model: Any = solver.model()
    return Verdict(rule, False, {name: tuple(_float(model, one) for one in held) for name, held in shares.items()})


def _rule(step: Lookup, sizes: Sequence[int], number: int) -> tuple[tuple[Mapping[str, int], ...], float]:
    """Return the values at which a neuron is on, as the program has it, and half of its input there."""
    starts = [sum(sizes[:n]) for n in range(len(sizes))]
    inputs: dict[tuple[int, ...], float] = {}
    for values in product(*(range(size) for size in sizes)):
        on = sum(float(step.on[number, start + value]) for start, value in zip(starts, values, strict=True))
        inputs[values] = on + float(step.bias[number])
    half = max(inputs.values()) / 2
    return tuple(dict(zip(step.reads, values, strict=True)) for values, on in inputs.items() if on > half), half


def _exact(value: float) -> Any:
    import z3

    return z3.RealVal(str(Fraction(value)))


def _float(model: Any, one: Any) -> float:
    value = model.eval(one, model_completion=True)
    return float(value.as_fraction()) if hasattr(value, "as_fraction") else float("nan")
