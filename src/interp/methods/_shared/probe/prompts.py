"""What a probe reads: texts and their labels, or pairs that are told apart, each with its spans."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.lazy import Lazy
from interp.methods._shared import named_positions, prompts_of
from interp.methods._shared import texts as files
from interp.methods._shared.named_positions import Spanned
from interp.methods._shared.probe.labels import given
from interp.spec import as_prompt

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

SIDES = ("clean", "corrupted")
_RECORDED = 1000  # texts whose tokens a provenance has; of more they are made anew each time


def _read(model: LoadedModel, texts: Sequence[Any], bos: bool | None, truncate: bool) -> Iterator[tuple[int, ...]]:
    """Yield texts as token ids."""
    for number, text in enumerate(texts):
        try:
            yield model.tokens.ids(as_prompt(text, bos, truncate, literal=True))[0]
        except InputError as error:
            raise InputError(f"text {number}: {error}") from None


@dataclass(frozen=True)
class Probed:
    """Prompts and their labels.

    Attributes
    ----------
    ids, labels
        As many of both.
    spanned
        The prompts with their spans; empty where no positions are asked for.
    together
        Of pairs that are told apart, each prompt's pair: both are held out together. Empty for texts.
    """

    ids: Collection[tuple[int, ...]]
    labels: list[Any]
    spanned: Sequence[Spanned] = ()
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
        if at is None and len(read) > _RECORDED:
            return Probed(Lazy(lambda: _read(model, read, bos, truncate)), held)
        asked = [as_prompt(one, bos, truncate, literal=True) for one in read]
        if named_positions.is_named(at):
            asked = [named_positions.read(one) for one in asked]
        return _spanned(named_positions.of_texts(model, files.encoded(model, asked)), held)
    if labels is None:
        spanned = named_positions.of_pairs(model, pairs, both=True)
        together = tuple(number // 2 for number in range(len(spanned)))
        return _spanned(spanned, [*SIDES] * len(pairs.pairs), together)
    held = [*(labels.tolist() if hasattr(labels, "tolist") else labels)]
    if len(held) != len(pairs.pairs):
        raise InputError(f"there are {len(pairs.pairs)} pairs and {len(held)} labels; give one label for each pair")
    return _spanned(named_positions.of_pairs(model, pairs), held)


def _spanned(spanned: Sequence[Spanned], labels: list[Any], together: tuple[int, ...] = ()) -> Probed:
    return Probed([one.encoded.ids for one in spanned], labels, spanned, together)
