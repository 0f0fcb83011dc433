"""What readouts over many texts will take: their losses, neurons' activations, and the training of a lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from interp.engine import exactness
from interp.engine.forecast.costs import Foresight
from interp.engine.forecast.work import NOTHING, Hooked, Stored, Through, Work, one_batch, passing, total
from interp.engine.readouts import lens, loss, neuron_texts, text_passes
from interp.engine.readouts.favourite import TRIED
from interp.errors import InputError
from interp.sites import Site

if TYPE_CHECKING:
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.features.places import Place
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.neurons import Reader

_FEWER = ("fewer texts (--n)", "shorter texts")


def of_neurons(model: LoadedModel, reader: Reader, lengths: Sequence[int], *, static: int) -> tuple[Foresight, Work]:
    """Return the work of reading texts of these `lengths`, and of what `static` neurons' weights say."""
    sight, work = Foresight(model, half=False, encoders=()), NOTHING
    sizes, stop, compared = sight.sizes, max(reader.chosen) + 1, -1
    for own in text_passes.cut(lengths, neuron_texts.tokens_of(reader.width)):
        if sight.net is not None and not exactness.trusted(model, reader.key, max(own)):
            # Texts twice as long as any that was compared are compared too.
            if max(own).bit_length() > compared:
                for length in sorted(own)[-exactness.sample_of(model) :]:
                    through = Through(length, stop, scores=length * length)
                    work = work + Work(1, (through,), calls=12 * stop + 60)
                    work = work + one_batch(model, length, len(reader.chosen))
            compared = max(compared, max(own).bit_length())
        for part in text_passes.grouped(own):
            rows, length = len(part) * own[part[0]], own[part[0]]
            if sight.net is None:
                work = work + one_batch(model, rows, len(reader.chosen))
                continue
            through = Through(rows, stop, scores=rows * length)
            peak = sizes.element * rows * sizes.hidden + 4 * sum(own) * reader.width
            work = work + Work(1, (through,), calls=12 * stop + 60, peak=peak, advice=_FEWER)
    table = 4 * static * sizes.vocabulary
    return sight, work + Work(flops=2.0 * static * sizes.unembed, moved=20.0 * table, peak=4 * table)


def of_lens(
    model: LoadedModel, prompts: tuple[Sequence[int], Sequence[int]], *, layers: int, steps: int, batch: int
) -> tuple[Foresight, Work]:
    """Return the work of training a lens on texts of the first lengths of `prompts`, measured on those of the second.

    Parameters
    ----------
    layers
        How many maps there are.
    batch
        Tokens to a step.
    """
    sight = Foresight(model)
    sizes, work = sight.sizes, NOTHING
    tokens, held = (sum(lengths) for lengths in prompts)
    for length in (*prompts[0], *prompts[1]):
        work = work + Work(1, hooked=(Hooked(1, length, places=layers + 1),), peak=passing(model, length))
    streams = 4 * (tokens + held) * (layers + 1) * sizes.width
    count = min(batch, tokens)
    logits = 4 * count * sizes.vocabulary
    maps = 4 * layers * sizes.width * sizes.width
    # Forward and gradient of the logits and of the map of each layer; the end's logits once.
    one = count * ((2 * layers + 1) * sizes.unembed + layers * 6 * sizes.width**2)
    measured = held * (2 * layers + 1) * sizes.unembed
    return sight, work + Work(
        flops=float(steps * one + measured),
        moved=steps * (14.0 * maps + 12.0 * layers * logits),
        calls=steps * 90 * layers,
        held=streams + 4 * maps,
        peak=2 * streams + 7 * maps + 5 * logits,
        advice=("a smaller --batch", "some layers (--layer)", "fewer texts (--n)"),
    )


def of_losses(
    model: LoadedModel, texts: Sequence[tuple[int, ...]], *, changed: int, other: LoadedModel | None
) -> tuple[Foresight, Work]:
    """Return the work of `loss.known` of texts, and of the same of another model's, whose forwards are its own.

    Parameters
    ----------
    changed
        How many activations functions are on; nothing of such runs is stored.
    """
    sight, work = Foresight(model, half=False), NOTHING
    for of in [model] if other is None else [model, other]:
        stored, vocabulary = Stored(of), of.geometry.d_vocab_out
        places, last = changed if of is model else 0, Site("resid_post", of.geometry.n_layers - 1).hook_name
        own = _reads(of)
        names = [last, "last_logits"] if own else ["logits"]
        for ids in texts:
            if places:
                work = work + one_batch(of, len(ids), places + 1, last_only=own)
            else:
                stored.plain(ids, *names)
            rows = min(len(ids), loss.size_of(of))
            work = work + Work(
                logits=len(ids) * own,
                moved=24.0 * len(ids) * vocabulary,
                calls=60 * -(-len(ids) // rows),
                held=120 * len(ids),
                peak=12 * rows * vocabulary + (0 if own else 4 * len(ids) * vocabulary),
                advice=_FEWER,
            )
        work = work + (stored.work if of is model else replace(stored.work, forwards=0))
    return sight, work


def _reads(model: LoadedModel) -> bool:
    """Return whether logits are made of the stream after the last layer, as far as that is known before."""
    try:
        lens.readout(model)
    except InputError:
        return False
    return not model.altered() and "resid_post" in model.sites


def of_feature(model: LoadedModel, one: Dictionary) -> Work:
    """Return the work of what a feature's weights say: its logits, the tokens and heads it reads, features like it."""
    g = model.geometry
    table = 4 * g.d_vocab * g.d_model
    heads = one.layer * g.n_heads * 2.0 * 2 * g.d_model * g.d_head
    like = 4.0 * one.width * g.d_model
    return Work(
        flops=4.0 * g.d_vocab * g.d_model + heads + like,
        moved=8.0 * table + 3 * like,
        calls=400 + 30 * one.layer,
        peak=4 * table + int(2 * like),
        advice=_FEWER,
    )


def of_favourite(sight: Foresight, place: Place, *, length: int, steps: int) -> Work:
    """Return the work of looking for the input that drives something at `place` most, see `readouts.favourite`."""
    model, sizes, stop, whole = sight.model, sight.sizes, place.layer + 1, length + 1
    stored, rows = Stored(model), TRIED * whole
    gains = 4 * length * sizes.vocabulary
    step = Work(
        forwards=1,
        through=(Through(rows, stop, scores=rows * whole), Through(whole, stop, graded=whole, scores=whole * whole)),
        flops=2.0 * length * sizes.unembed,
        moved=4.0 * gains,
        calls=30 * stop + 100,
        peak=sizes.element * rows * sizes.hidden + 4 * gains,
    )
    begun = one_batch(model, whole, 1) if not exactness.trusted(model, ("favourite", place), whole) else NOTHING
    # The start, and what is found is run once more.
    stored.plain((-1,) * whole, place.hook(model))
    found = Work(1, (Through(whole, stop, scores=whole * whole),)) + begun + stored.work
    return total([found, *[step] * steps])
