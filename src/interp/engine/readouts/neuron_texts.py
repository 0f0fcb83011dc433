"""What neurons do in running text: a pass over it, whose chunks are taken in one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from interp.engine.readouts import text_passes
from interp.engine.readouts.neuron_statistics import Asked, Found
from interp.engine.readouts.neurons import Reader
from interp.engine.readouts.text_passes import Ids, Pass, Work

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

# A chunk's activations take no room to speak of; of very many neurons it is short texts' worth.
_LEAST, _ENTRIES = 2**8, 2**21


def tokens_of(neurons: int) -> int:
    """Return how many tokens a chunk of texts has."""
    return min(text_passes.TOKENS, max(_LEAST, _ENTRIES // neurons))


def read(model: LoadedModel, reader: Reader, texts: Iterable[Ids], count: int, asked: Asked) -> tuple[Found, Pass]:
    """Run texts, and return what neurons do in them, and how that went.

    Parameters
    ----------
    texts
        Token ids, which are gone through once.
    count
        How many there are.
    """
    found = Found(asked, reader.width)
    done = text_passes.run(model, _work(model, reader, asked), texts, count, lambda _, given: found.merge(given))
    return found, done


def _work(model: LoadedModel, reader: Reader, asked: Asked) -> Work:
    def made(texts: Mapping[int, tuple[Ids, Tensor]]) -> dict[str, Tensor]:
        own = Found(asked, reader.width)
        own.add(texts, model.tokens.bos_id)
        return own.given()

    chosen = {layer: tuple(held.tolist()) for layer, held in reader.chosen.items()}
    return Work("neurons", {"chosen": chosen, **vars(asked)}, tokens_of(reader.width), reader, made)


def shard(
    models: Sequence[LoadedModel],
    step: Callable[[], None],
    *,
    asked: Mapping[str, Any],
    first: int,
    texts: Mapping[str, Tensor],
    at: None,
) -> dict[str, Tensor]:
    """Return what neurons do in a shard of texts, as `Found.given` has it."""
    own = dict(asked)
    reader = Reader(models[0], own.pop("chosen"))
    return text_passes.shard(models[0], _work(models[0], reader, Asked(**own)), step, first, texts, at)
