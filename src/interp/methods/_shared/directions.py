"""Directions of the residual stream that a call gives: an array, one per layer, a result's, or a feature's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

from interp.errors import InputError
from interp.methods._shared import texts as running
from interp.methods._shared.features import features_of
from interp.sites import Site, stream
from interp.spec import FEATURE, Texts

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel

_UNUSUAL = 10.0  # times the usual length of the stream: where models rest attention


def given(model: LoadedModel, place: Site, value: Any) -> tuple[Tensor, str, list[str]]:
    """Return the direction that `value` is or has at `place`, where it comes from, and notes on it.

    Parameters
    ----------
    value
        An array ``[d_model]``, one per layer ``[n_layers, d_model]``, a result with such a ``direction``, which may be
        a function of the layer, as a probe's is, or a feature such as ``"F2.417"``: then what its dictionary writes for
        an activation of 1.

    Returns
    -------
    tuple
        ``float32 [d_model]``, as long as it was given; a few words; lines for a result's notes.

    Raises
    ------
    InputError
        It holds no numbers, or is of another width, zero or not finite.
    """
    import torch

    if is_feature(value):
        return _of_feature(model, place, value)
    held: Any = getattr(value, "direction", value)
    notes: list[str] = []
    if held is not value:
        found_in = getattr(value, "site", place.name)
        if found_in != place.name:
            there = f"; --site {found_in} is where it belongs" if found_in in stream() else ""
            notes.append(f"the direction was found in {found_in} and is used in {place.name}{there}")
    if callable(held):
        held = held(place.layer)
    try:
        found = torch.as_tensor(held).detach().to(model.device, torch.float32)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"a direction is an array of numbers, not {type(held).__name__}") from None
    if found.dim() == 2 and found.shape[0] == model.geometry.n_layers:
        found = found[place.layer]
    width = model.geometry.d_model
    if found.shape != (width,):
        raise InputError(f"the direction has shape {tuple(found.shape)}; the residual stream has ({width},)")
    if not bool(found.isfinite().all()):
        raise InputError("the direction holds NaN or infinity")
    if not bool(found.any()):
        raise InputError("the direction is zero; name another one")
    own = getattr(value, "direction", value) is value
    return found, "a direction of yours" if own else type(value).__name__.removesuffix("Result"), notes


def is_feature(value: Any) -> TypeGuard[str]:
    """Return whether a direction is that of a feature, by its name.

    Examples
    --------
    >>> is_feature("F2.417"), is_feature("2.417"), is_feature([1.0, 2.0])
    (True, False, False)
    """
    return isinstance(value, str) and FEATURE.fullmatch(value) is not None


def _of_feature(model: LoadedModel, place: Site, named: str) -> tuple[Tensor, str, list[str]]:
    """Return what a feature writes in the residual stream for an activation of 1, as `given` does.

    What attention or an MLP writes goes through a norm first in some families: there the direction is that before it.
    """
    import torch

    one, feature = features_of(model).feature(named)
    found_in = _writing(model, named)
    unit = 1.0 / one.taken.scale
    notes: list[str] = []
    if one.taken.normed:
        notes.append(f"what {named} writes is scaled by each token's activation; the direction is that of scale 1")
    if (found_in.name, found_in.layer) != (place.name, place.layer):
        notes.append(
            f"{named} writes at {found_in.name} of layer {found_in.layer}, and is used at {place.name} of layer "
            f"{place.layer}"
        )
    atom = one.atoms(torch.tensor([feature], device=one.encoder.device))[0].float() * unit
    return atom.to(model.device), f"feature {named}", notes


def _writing(model: LoadedModel, named: str) -> Site:
    """Return where in the residual stream what a feature writes enters.

    Raises
    ------
    InputError
        There is no such feature, or it writes where vectors are none of the residual stream's.
    """
    place = features_of(model).feature(named)[0].writes[0]
    name = {"attn_out": "resid_mid", "mlp_out": "resid_post"}.get(place.point, place.point)
    if name not in stream():
        raise InputError(
            f"{named} writes at {place.point}, which is no vector of the residual stream; change it with "
            f"interp.Intervention(interp.Site('features', {place.layer}), …) in generate"
        )
    if name not in model.sites:  # attention and MLP in parallel have no middle
        name = "resid_post"
    return Site(name, place.layer)


def of_texts(
    model: LoadedModel, place: Site, length: float, toward: Any, against: Any
) -> tuple[Tensor, str, list[str]]:
    """Return the difference between two sets of texts' mean activations at `place`, each at its last token.

    Parameters
    ----------
    length
        What a residual stream's length is there.
    toward, against
        A text, a file of texts or a list of texts.

    Returns
    -------
    tuple
        As of `given`.

    Raises
    ------
    InputError
        One of the two is missing, empty or equal to the other.
    """
    if toward is None or against is None:
        lacking = "toward" if toward is None else "against"
        raise InputError(f"a direction is a difference: give --{lacking} too, a text or a file of texts")
    sides = [running.of_argument(which, side) for which, side in (("toward", toward), ("against", against))]
    if sides[0].texts == sides[1].texts:
        raise InputError("the direction is zero: --toward and --against are the same; name texts that differ")
    (high, notes), (low, also) = (_mean(model, place, side, length) for side in sides)
    notes = [*(note for side in sides for note in side.notes), *notes, *also]
    return high - low, " − ".join(map(_named, sides)), notes


def _named(side: Texts) -> str:
    texts = [prompt.running for prompt in side.texts]
    if side.source or len(texts) != 1:
        return f"{len(texts)} texts" + (f" of {side.source}" if side.source else "")
    return repr(texts.pop())


def _mean(model: LoadedModel, place: Site, side: Texts, length: float) -> tuple[Tensor, list[str]]:
    """Return the mean of the texts' activations at their last tokens, and notes on them.

    Parameters
    ----------
    length
        What a residual stream's length is there.
    """
    import torch

    rows: list[Tensor] = []
    notes: list[str] = []
    for number, text in enumerate(side.texts):
        try:  # not counted among what was asked about, which is the prompt
            encoded = model.tokens.encode(text)
        except InputError as error:
            raise InputError(f"text {number}: {error}" if len(side.texts) > 1 else str(error)) from None
        rows.append(model.activations(encoded, [place.hook_name])[place.hook_name][0, -1].float())
        if float(rows[-1].norm()) > _UNUSUAL * length:
            notes.append(
                f"the activation of {encoded.strings[-1]!r} is {float(rows[-1].norm()) / length:.0f} times as long as "
                "the stream usually is: the model rests attention there, and the direction is mostly that; put words "
                "before it"
            )
    return torch.stack(rows).mean(0), notes


def place_of(model: LoadedModel, value: Any) -> tuple[str, int | None]:
    """Return the site and the layer at which a result found its direction: a probe's best layer; ``None`` if unknown.

    Of a feature it is where what it writes enters the residual stream.

    Examples
    --------
    >>> place_of(model, [1.0, 2.0])
    ('resid_post', None)
    """
    if is_feature(value):
        place = _writing(model, value)
        return place.name, place.layer
    site = getattr(value, "site", "resid_post")
    layer = getattr(value, "layer", getattr(value, "best", None))
    return (site if site in stream() else "resid_post"), (layer if isinstance(layer, int) else None)
