"""What commands ask of the features that are loaded for a model, and the text that new ones are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from interp.spec import Prompt

if TYPE_CHECKING:
    from interp.engine.features.held import FeatureSet
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

TOKENS = 200  # that dictionaries are measured on
# Plain sentences of several sorts, for files that say none.
SAMPLE = (
    "The ferry left the harbour a little after seven, with fewer passengers than usual and a light wind from the west. "
    "Two of the crew stood at the rail and argued about the price of diesel, which had gone up again that week.",
    "To make the dough, stir the yeast into warm water and leave it for ten minutes. Add the flour, the salt and a "
    "spoonful of oil, then knead it until it no longer sticks to the table.",
    '"You said it would be open on Monday," Anna told the man behind the counter. "I did," he answered, "but Monday '
    'was a holiday, and nobody told me either." She laughed, and asked him for the key.',
    "In 1869 the Russian chemist Dmitri Mendeleev arranged the known elements by weight and left gaps where he thought "
    "that some were missing. Three of them were found within twenty years, much as he had described them.",
    "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n"
    "    return total / len(values)\n",
)


def features_of(model: LoadedModel, name: str | None = None) -> FeatureSet:
    """Return the set of that name, or the one that was loaded last, and note in the command's record that it was read.

    Its name and digest go into the result's provenance, and what is doubtful about it into the result's notes.

    Raises
    ------
    InputError
        None is loaded for this model, or none of that name.
    """
    from interp.engine.model.interventions import noted_set

    return cast("FeatureSet", noted_set(model, name))


def names(model: LoadedModel) -> list[str]:
    """Return the names of the sets that are loaded for a model, the current one first."""
    from interp.engine.features import held

    return list(reversed(list(held.sets_of(model))))


def unloaded(model: LoadedModel, name: str) -> bool:
    """Forget a set of a model's; return whether there was one of that name."""
    from interp.engine.features import held

    return held.free(model, name)


def forgotten(model: LoadedModel) -> None:
    """Forget what features did in texts, which is kept for what is asked of the same texts next."""
    from interp.engine.features import activity

    activity.forget(model)


def sample_of(model: LoadedModel, texts: Sequence[Prompt]) -> list[Encoded]:
    """Return texts as tokens, as many as make about `TOKENS` of them; without a tokenizer, ids spread over those known.

    Each is cut to the context window, and the last so that there are no more than asked for.
    """
    if model.tokens.tokenizer is None and all(text.text is not None for text in texts):
        return [model.encode(Prompt(ids=ids)) for ids in _spread(model)]
    found: list[Encoded] = []
    left = TOKENS
    for text in texts:
        ids = model.tokens.encode(Prompt(text.text, text.ids, text.bos, truncate=True)).ids[:left]
        found.append(model.encode(Prompt(ids=tuple(ids))))
        left -= len(ids)
        if left < 2:
            break
    return found


def _spread(model: LoadedModel) -> list[tuple[int, ...]]:
    """Return `TOKENS` ids in sequences that fit into the context window: multiples of a number prime to most sizes."""
    size, count = model.geometry.d_vocab, min(model.geometry.n_ctx, TOKENS // 4)
    ids = [(7919 * n + 11) % size for n in range(TOKENS)]
    return [tuple(ids[first : first + count]) for first in range(0, TOKENS, count)]
