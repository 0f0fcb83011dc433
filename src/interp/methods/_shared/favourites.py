"""Inputs that drive a neuron or a feature most, found by gradients: how they are asked for, and what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.favourite import Aim


@dataclass(frozen=True)
class Favourite:
    """An input that was found by gradients, from random tokens.

    Attributes
    ----------
    name
        What it drives.
    tokens, ids
        Its tokens; their text may be cut into others.
    around
        The activation at each of them; what was raised is that at the last.
    values
        What was raised, step by step; of a feature its pre-activation.
    """

    name: str
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    around: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def activation(self) -> float:
        """The activation at the last token."""
        return self.around[-1]


def check(model: LoadedModel, length: int, steps: int) -> None:
    """Refuse lengths and steps that there cannot be.

    Raises
    ------
    InputError
        Fewer than one, or more tokens than the context window holds.
    """
    for name, value in (("length", length), ("steps", steps)):
        if value < 1:
            raise InputError(f"--{name} {value} is too few; use 1 or more")
    if length + 1 > model.geometry.n_ctx:
        raise InputError(f"--length {length} and a BOS do not fit into the context window of {model.geometry.n_ctx}")


def found(
    model: LoadedModel, aim: Aim, *, length: int, steps: int, seed: int
) -> tuple[Favourite, KeyboardInterrupt | None]:
    """Return the input that was found for a neuron or a feature, and the interrupt that ended the search."""
    from interp.engine.features.places import captured
    from interp.engine.model.tokens import Encoded
    from interp.engine.readouts.favourite import favourite

    best = favourite(model, aim, length=length, steps=steps, seed=seed)
    tokens = tuple(model.tokens.string(n) for n in best.ids)
    shown = captured(model, Encoded(best.ids, tokens, {}), [aim.place])[aim.place]
    around = aim.activations(shown).float().cpu().tolist()
    return Favourite(aim.name, tokens, best.ids, tuple(around), best.values), best.interrupt


def of_neurons(
    model: LoadedModel, names: Sequence[str], *, length: int, steps: int, seed: int
) -> tuple[tuple[Favourite, ...], KeyboardInterrupt | None]:
    """Return the input that was found for each of some neurons, up to the one at which an interrupt came."""
    from interp.engine.readouts.favourite import Aim

    done: list[Favourite] = []
    stopped = None
    for name in names:
        one, stopped = found(model, Aim.neuron(*map(int, name.split("."))), length=length, steps=steps, seed=seed)
        done.append(one)
        if stopped is not None:
            break
    return tuple(done), stopped


def partial(held: Favourite, steps: int) -> str:
    """Return how far an interrupted search came."""
    return f"partial: interrupted after {len(held.values) - 1} of {steps} steps of the search for an input"
