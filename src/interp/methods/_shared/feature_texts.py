"""From texts to the token ids that features are read over."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from interp.errors import InputError
from interp.ids import IdTable
from interp.methods._shared import held_out
from interp.spec import Prompt, Texts

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Tokens

_NOTED = 3


@dataclass(frozen=True)
class Ready:
    """Texts as tokens.

    Attributes
    ----------
    ids
        Of each text.
    first
        Of each text, how many positions to leave out at its beginning: a BOS, whose activations are unlike all others'.
    notes
        What is worth knowing of the first texts of which there is something.
    """

    ids: Sequence[tuple[int, ...]]
    first: Sequence[int]
    notes: tuple[str, ...]

    @cached_property
    def key(self) -> str:
        """What tells them from all other texts."""
        return held_out.digest(self.ids)


# A tokenizer → the texts that it was given last, and what it made of them.
_last: WeakKeyDictionary[Tokens, tuple[Sequence[Prompt], Ready]] = WeakKeyDictionary()


def ready(model: LoadedModel, texts: Texts) -> Ready:
    """Return texts as tokens, all of them checked; the last ones are kept, for what is asked of them next.

    Raises
    ------
    InputError
        There are none, one is empty or too long, or none has a token besides BOS.
    """
    if not texts.texts:
        raise InputError("there are no texts; give at least one")
    held = _last.get(model.tokens)
    if held is not None and held[0] == texts.texts:
        return replace(held[1], notes=(*texts.notes, *held[1].notes))
    ids = IdTable()
    first = array("b")
    notes: dict[str, None] = {}
    for number, prompt in enumerate(texts.texts):
        where = f"text {number}: " if len(texts.texts) > 1 else ""
        try:
            one, found = model.tokens.ids(prompt)
        except InputError as error:
            raise InputError(f"{where}{error}") from None
        ids.append(one)
        first.append(int(one[0] == model.tokens.bos_id))
        if len(notes) < _NOTED:
            notes |= dict.fromkeys(f"{where}{note}" for note in found)
    if all(len(one) == left for one, left in zip(ids, first, strict=True)):
        raise InputError("no text has a token besides BOS; type longer ones")
    made = Ready(ids, first, tuple(notes))
    _last[model.tokens] = (texts.texts, made)
    return replace(made, notes=(*texts.notes, *notes))
