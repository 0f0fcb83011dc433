"""What a probe reads: texts and their labels, or pairs that are told apart, each with its spans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.methods._shared import named_positions, prompts_of
from interp.methods._shared import texts as files
from interp.methods._shared.named_positions import Spanned
from interp.methods._shared.probe.labels import given
from interp.spec import as_prompt

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

SIDES = ("clean", "corrupted")


@dataclass(frozen=True)
class Probed:
    """Prompts and their labels.

    Attributes
    ----------
    spanned, labels
        As many of both.
    together
        Of pairs that are told apart, each prompt's pair: both are held out together. Empty for texts.
    """

    spanned: Sequence[Spanned]
    labels: list[Any]
    together: tuple[int, ...] = ()

    def positions(self, at: Any) -> list[tuple[int, ...]] | None:
        """Return the positions that are read of each prompt; ``None`` for all."""
        return None if at is None else [one.positions(at) for one in self.spanned]

    def notes(self, at: Any, position: str) -> list[str]:
        """Return what is meant where a name has several tokens."""
        said = () if at is None else named_positions.lengths(at, self.spanned)
        return [one.replace("all of them are meant", "the last is read") if position == "last" else one for one in said]


def prompts(
    model: LoadedModel,
    texts: Any,
    labels: Any,
    text: str | None,
    column: str,
    label: str,
    *,
    task: str | None,
    n: int,
    seed: int,
    at: Any,
    bos: bool | None,
    truncate: bool,
) -> Probed:
    """Return what is read, as it is given.

    Raises
    ------
    InputError
        Nothing, two things at once, or what does not go together.
    """
    if task is not None and (texts is not None or text is not None):
        raise InputError("a probe reads a --task or texts, not both")
    pairs = prompts_of.pairs_of(model, texts, task, n=n, seed=seed, bos=bos)
    if pairs is None:
        read, held = given(texts, labels, text, column, label)
        asked = [as_prompt(one, bos, truncate, literal=True) for one in read]
        if named_positions.is_named(at):
            asked = [named_positions.read(one) for one in asked]
        return Probed(named_positions.of_texts(model, files.encoded(model, asked)), held)
    if labels is None:
        spanned = named_positions.of_pairs(model, pairs, both=True)
        together = tuple(number // 2 for number in range(len(spanned)))
        return Probed(spanned, [*SIDES] * len(pairs.pairs), together)
    held = [*(labels.tolist() if hasattr(labels, "tolist") else labels)]
    if len(held) != len(pairs.pairs):
        raise InputError(f"there are {len(pairs.pairs)} pairs and {len(held)} labels; give one label for each pair")
    return Probed(named_positions.of_pairs(model, pairs), held)
