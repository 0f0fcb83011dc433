"""Directions of the residual stream that a call gives: an array, one per layer, or a result that has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from interp.errors import InputError
from interp.sites import Site

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel

STREAM = ("resid_pre", "resid_mid", "resid_post")


def given(model: LoadedModel, place: Site, value: Any) -> tuple[Tensor, str, list[str]]:
    """Return the direction that `value` is or has at `place`, where it comes from, and what is odd about it.

    Parameters
    ----------
    value
        An array ``[d_model]``, one per layer ``[n_layers, d_model]``, or a result with such a ``direction``, which may
        be a function of the layer, as a probe's is.

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

    held: Any = getattr(value, "direction", value)
    odd: list[str] = []
    if held is not value:
        found_in = getattr(value, "site", place.name)
        if found_in != place.name:
            there = f"; --site {found_in} is where it belongs" if found_in in STREAM else ""
            odd.append(f"the direction was found in {found_in} and is used in {place.name}{there}")
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
    return found, "a direction of yours" if own else type(value).__name__.removesuffix("Result"), odd


def place_of(value: Any) -> tuple[str, int | None]:
    """Return the site and the layer at which a result found its direction: a probe's best layer; ``None`` if unknown.

    Examples
    --------
    >>> place_of([1.0, 2.0])
    ('resid_post', None)
    """
    site = getattr(value, "site", "resid_post")
    layer = getattr(value, "layer", getattr(value, "best", None))
    return (site if site in STREAM else "resid_post"), (layer if isinstance(layer, int) else None)
