"""One feature: where in texts it is active, what its weights read and write, and which features are like it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import favourites, feature_texts
from interp.methods._shared.feature_result import Exemplar, FeatureResult, Ranked
from interp.methods._shared.features import features_of
from interp.spec import FeatureName, FeaturesName, Texts

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.features.activity import Activity
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.features.kept import Kept
    from interp.engine.forecast.costs import Foresight
    from interp.engine.forecast.work import Work
    from interp.engine.model.loaded import LoadedModel

_LISTED = 8  # tokens, heads and features of each list
_EACH = 10  # exemplars of a tenth


@technique(body=Texts, forecasts=True, changes=True)
def feature(
    model: LoadedModel,
    texts: Texts,
    which: FeatureName,
    *,
    context: int = 10,
    optimise: bool = False,
    length: int = 8,
    steps: int = 50,
    seed: int = 0,
    features: FeaturesName | None = None,
) -> FeatureResult:
    """A feature over texts: how often and how strongly, the places by tenths, what it reads and writes, its likes.

    Parameters
    ----------
    texts
        Running text: a list, a table's column or a file.
    which
        The feature by its layer and number, such as 2.417.
    context
        How many tokens on either side of a place to keep with it.
    optimise
        Look for the input that drives it most, too, from random tokens by gradients.
    length, steps
        Tokens of that input, and steps of the search.
    seed
        Of the places that are drawn from each tenth of its activations, and of the random tokens.
    features
        A loaded set of features; the one loaded last when not given.

    Returns
    -------
    FeatureResult
        ``exemplars``, ``histogram``, ``promoted`` … What is held does not grow with the number of texts.

    Raises
    ------
    InputError
        No features are loaded, there is none of this name, or no text.
    Interrupted
        Stopped by Ctrl-C: what the texts so far gave is in its ``result``.

    Notes
    -----
    The whole dictionary of its layer is read in one pass, and kept: another feature over the same texts is there at
    once. BOS is left out. A place is drawn from all places in its tenth by a hash of where it is; tenths are those of
    a sample of its activations. Tokens whose logits it moves: nostalgebraist (2020), "Interpreting GPT: the logit
    lens"; heads: Kamath et al. (2025), "Tracing Attention Computation Through Feature Interactions", with the weights
    alone; inputs by gradients: Zou et al. (2023), "Universal and Transferable Adversarial Attacks on Aligned Language
    Models".

    Examples
    --------
    >>> interp.features_load("bundled")
    FeaturesResult(...)
    >>> interp.feature("2.17", ["The cat sat on the mat.", "The dog sat on the rug."]).tokens_read
    14
    """
    from interp.engine.features import activity
    from interp.engine.features import foreseen as features_foreseen
    from interp.engine.forecast.costs import foresee
    from interp.engine.readouts import foreseen as readouts_foreseen
    from interp.engine.readouts.favourite import Aim
    from interp.engine.readouts.feature_weights import weights
    from interp.engine.readouts.ov_qk import unmixed

    if context < 0:
        raise InputError(f"--context {context} is no number of tokens; use 0 or more")
    if optimise:
        favourites.check(model, length, steps)
    given = features_of(model, features)
    dictionary, number = given.feature(which)
    name = f"{dictionary.layer}.{number}"
    ready = feature_texts.ready(model, texts)

    def foreseen() -> tuple[Foresight, Work]:
        sight, work = features_foreseen.of_activity(
            model, [(dictionary, [number])], ready.ids, ready.first, key=ready.key, context=context, seed=seed
        )
        work = work + readouts_foreseen.of_feature(model, dictionary)
        if optimise:
            work = work + readouts_foreseen.of_favourite(sight, dictionary.reads, length=length, steps=steps)
        return sight, work

    foresee(model, foreseen)
    done = activity.read(
        model, [(dictionary, [number])], ready.ids, ready.first, key=ready.key, context=context, seed=seed
    )
    (found,) = done.activities
    if not found.tokens:
        if done.interrupt is not None:
            raise done.interrupt
        raise InputError("its activations are NaN or infinite in every text; look at the model with %interp status")
    model.note(done.path, done.notes)
    favourite, stopped = None, done.interrupt
    notes = [f"partial: interrupted after {done.done} of {len(ready.ids)} texts"] if stopped is not None else []
    if optimise and stopped is None:
        aim = Aim.feature(dictionary, number)
        favourite, stopped = favourites.found(model, aim, length=length, steps=steps, seed=seed)
        notes += [favourites.partial(favourite, steps)] if stopped is not None else []
    with unmixed(model.device):
        said = weights(model, dictionary, number, _LISTED)
    if found.lost:
        notes.append(f"activations are NaN or infinite in {found.lost} texts, which are left out")
    if not int(found.counts[number]):
        notes.append(f"{name} is active nowhere in these texts; give more or others")
    together, shares = _together(found, dictionary, number)
    label = given.labels.get(name)

    def token(at: Tensor) -> str:
        return model.tokens.string(int(at))

    used = found.bins[number].nonzero()[:, 0]
    bins = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
    result = FeatureResult(
        name=name,
        of=given.name,
        kind=dictionary.kind,
        reads=dictionary.reads.point,
        writes=dictionary.writes[0].point,
        label="" if label is None else label.text,
        label_scores={} if label is None else dict(label.scores),
        fired=int(found.counts[number]),
        tokens_read=found.tokens,
        texts=found.texts,
        mean=float(found.sums[number] / found.counts[number].clamp_min(1)),
        most=float(found.most[number]),
        edges=found.edges[bins.start : bins.stop + 1].numpy().copy() if len(used) else np.zeros(1),
        histogram=found.bins[number][bins].numpy().copy(),
        exemplars=tuple(_exemplars(model, found, ready.ids, number)),
        promoted=said.promoted.named(token),
        suppressed=said.suppressed.named(token),
        tokens=said.tokens.named(token),
        heads=said.heads.named(lambda at: f"L{int(at[0])}H{int(at[1])}"),
        near=said.near.named(lambda at: f"{dictionary.layer}.{int(at)}"),
        together=together,
        shares=shares,
        direction=said.direction.numpy().copy(),
        site=_steered(model, dictionary.writes[0].point),
        source=texts.source,
        favourite=favourite,
        notes=(*notes, *ready.notes, *said.missing),
    )
    return unless_interrupted(result, stopped)


def _steered(model: LoadedModel, point: str) -> str:
    """Return where in the residual stream of its layer stands what is written at a point."""
    from interp.engine.features.places import parallel

    if point in {"resid_pre", "resid_mid"}:
        return point
    return "resid_mid" if point in {"attn_out", "z"} and not parallel(model) else "resid_post"


def _together(found: Activity, dictionary: Dictionary, number: int) -> tuple[Ranked, tuple[float, ...]]:
    """Return the features that are active where one is, by φ, and the shares of its tokens."""
    correlations, counts = found.correlations(number), found.pairs(number)
    if correlations is None or counts is None:
        return (), ()
    correlations[number] = float("-inf")
    values, which = correlations.topk(min(_LISTED, dictionary.width - 1))
    kept = [(int(n), float(value)) for n, value in zip(which, values, strict=True) if value > 0]
    shares = tuple(float(counts[n] / found.counts[number]) for n, _ in kept)
    return tuple((f"{dictionary.layer}.{n}", value) for n, value in kept), shares


def _exemplars(model: LoadedModel, found: Activity, texts: Sequence[tuple[int, ...]], number: int) -> list[Exemplar]:
    """Return what is shown of the places that were kept: those with the same tokens around as one."""
    deciles = found.deciles(number)
    every: dict[tuple[int, int], tuple[float, Tensor]] = {}
    for kept in (found.top, found.sample):
        every |= _places(kept, number)
    groups: dict[tuple[int, ...], list[tuple[float, tuple[int, int], Tensor]]] = {}
    for (text, position), (value, around) in sorted(every.items(), key=lambda item: (-item[1][0], item[0])):
        ids = texts[text][max(0, position - found.context) : position + found.context + 1]
        groups.setdefault((min(position, found.context), *ids), []).append((value, (text, position), around))
    shown: list[Exemplar] = []
    left = dict.fromkeys(range(1, 11), _EACH)
    drawn = _drawn_first(found, number)
    # The strongest first; of the other tenths those that were drawn first, whatever their activations.
    order = sorted(groups.items(), key=lambda item: (-_decile(deciles, item[1][0][0]), _rank(item[1], deciles, drawn)))
    for (peak, *ids), members in order:
        value, (text, position), around = members[0]
        decile = _decile(deciles, value)
        if not left[decile]:
            continue
        left[decile] -= 1
        shown.append(
            Exemplar(
                activation=value,
                decile=decile,
                tokens=tuple(model.tokens.string(n) for n in ids),
                around=tuple(around[found.context - peak :][: len(ids)].tolist()),
                peak=peak,
                times=len(members),
                text=text,
                position=position,
            )
        )
    return sorted(shown, key=lambda one: -one.activation)


def _decile(deciles: Tensor, value: float) -> int:
    return 1 + int((deciles <= value).sum())


def _places(kept: Kept, number: int) -> dict[tuple[int, int], tuple[float, Tensor]]:
    there = kept.scores[number].isfinite()
    places: list[list[int]] = kept.places[number][there].tolist()
    values = kept.values[number][there].tolist()
    around = kept.around[number][there]
    return {(at[0], at[1]): (value, near) for at, value, near in zip(places, values, around, strict=True)}


def _drawn_first(found: Activity, number: int) -> dict[tuple[int, int], int]:
    """Return the places of the sample by the order of their random numbers."""
    places: list[list[int]] = found.sample.places[number].tolist()
    return {(at[0], at[1]): rank for rank, at in enumerate(places)}


def _rank(
    members: list[tuple[float, tuple[int, int], Tensor]], deciles: Tensor, drawn: dict[tuple[int, int], int]
) -> float:
    value, place, _ = members[0]
    return -value if _decile(deciles, value) == 10 else float(drawn.get(place, len(drawn)))
