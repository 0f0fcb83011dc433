"""The vocabulary of interp: plain data that every layer shares. Imports neither torch nor numpy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any


class InputError(ValueError):
    """The user's input cannot be used; the message is one line that says what to type instead."""


class OutOfMemory(MemoryError):
    """A run did not fit into memory; the message says what it was and what to try."""


# What a parameter's value names. The annotation is what the command line, the completer and the help read.
Indices = Annotated[int | Sequence[int] | None, "indices"]
ModelName = Annotated[str, "model"]
LoadableName = Annotated[str, "loadable"]
CommandName = Annotated[str, "command"]
HookName = Annotated[str, "hook"]


@dataclass(frozen=True)
class Prompt:
    """One text, or the token ids that stand for one.

    Parameters
    ----------
    text
        The text, byte for byte as it was typed; ``None`` when ids were given.
    ids
        Token ids, taken literally (no BOS is added); ``None`` when a text was given.
    bos
        Whether a text gets the tokenizer's BOS in front; ``None`` does as the model's configuration says.
    truncate
        Whether a prompt longer than the context window is cut at its end instead of refused.

    Examples
    --------
    >>> Prompt("The capital of France is")
    Prompt(text='The capital of France is', ids=None, bos=None, truncate=False)
    """

    text: str | None = None
    ids: tuple[int, ...] | None = None
    bos: bool | None = None
    truncate: bool = False


@dataclass(frozen=True)
class Site:
    """One kind of activation in one layer, in the field's names.

    `name` is ``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out``, ``mlp_out``, ``z``, ``q``, ``k``, ``v`` or
    ``pattern``; `layer` counts from 0.

    Examples
    --------
    >>> Site("pattern", 5).hook_name
    'blocks.5.attn.hook_pattern'
    """

    name: str
    layer: int

    @property
    def hook_name(self) -> str:
        """The name of the hook that transformer-lens gives this activation."""
        where = "attn." if self.name in {"q", "k", "v", "z", "pattern"} else ""
        return f"blocks.{self.layer}.{where}hook_{self.name}"


def closest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` naming the likeliest of `known`, or an empty string.

    Examples
    --------
    >>> closest("atention", ["attention", "tokens"])
    ' (did you mean attention?)'
    """
    candidates = sorted(set(known))
    lowered = {name.lower(): name for name in candidates}
    found = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.5)
    return f" (did you mean {lowered[found[0]]}?)" if found else ""


def resolve_indices(chosen: Any, count: int, kind: str, where: str = "") -> tuple[int, ...]:
    """Check `chosen` against ``0 … count - 1`` and return it as a tuple; ``None`` means all of them.

    Raises
    ------
    InputError
        An index outside the range. Negative indices are refused, since which end they count from is a guess.

    Examples
    --------
    >>> resolve_indices(2, 12, "layer")
    (2,)
    """
    if chosen is None:
        return tuple(range(count))
    indices: tuple[Any, ...] = tuple(chosen) if isinstance(chosen, Sequence) else (chosen,)
    if not indices:
        raise InputError(f"no {kind} was named; {kind}s are 0–{count - 1}{where}")
    for index in indices:
        if isinstance(index, bool) or not isinstance(index, int):
            raise InputError(f"{kind} {index!r} is not a whole number; {kind}s are 0–{count - 1}{where}")
        if not 0 <= index < count:
            raise InputError(f"no {kind} {index}; {kind}s are 0–{count - 1}{where}")
    return tuple(dict.fromkeys(indices))
