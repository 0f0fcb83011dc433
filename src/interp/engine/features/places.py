"""Where in a layer a dictionary reads and writes, and how a run's values there are had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from interp.engine.model.tokens import Encoded
from interp.errors import InputError, closest
from interp.sites import SITES

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

# Besides sites: the stream that the MLP reads; that, normed, as the MLP's weights are given it; and without the norm's
# gain and bias, as models whose norms are folded into what reads them show it.
MLP_INPUTS = ("mlp_in", "mlp_normed", "mlp_unit")
# A pattern is no vector of a position; of queries, keys and values no dictionaries are about.
SITE_POINTS = tuple(name for name in SITES if name not in {"pattern", "q", "k", "v"})
POINTS = (*SITE_POINTS, *MLP_INPUTS)


@dataclass(frozen=True, order=True)
class Place:
    """A point of a layer: a site, or one of `MLP_INPUTS`.

    Raises
    ------
    InputError
        There is no such point.

    Examples
    --------
    >>> Place(3, "mlp_out").name
    'L3 mlp_out'
    """

    layer: int
    point: str

    def __post_init__(self) -> None:
        if self.point not in POINTS:
            raise InputError(
                f"features are read at {', '.join(POINTS)}, not at {self.point!r}{closest(self.point, POINTS)}"
            )

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"L{self.layer} {self.point}"

    def hook(self, model: LoadedModel) -> str:
        """Return the name of the hook at which a model shows it."""
        if self.point == "mlp_in":
            return SITES["resid_pre" if parallel(model) else "resid_mid"].hook(self.layer)
        own = {"mlp_normed": "mlp.hook_in", "mlp_unit": "ln2.hook_normalized"}.get(self.point)
        return SITES[self.point].hook(self.layer) if own is None else f"blocks.{self.layer}.{own}"


def parallel(model: LoadedModel) -> bool:
    """Return whether a block's MLP reads the stream before its attention."""
    return bool(getattr(model.bridge.cfg, "parallel_attn_mlp", False))


def flat(place: Place, tensor: Tensor) -> Tensor:
    """Return an activation as rows of one vector a position: heads' z side by side, ``[…, position, width]``."""
    return tensor.flatten(-2) if place.point == "z" else tensor


def unflat(place: Place, rows: Tensor, like: Tensor) -> Tensor:
    """Return vectors of positions in the shape of the activation that they are of."""
    return rows.view(like.shape) if place.point == "z" else rows


def captured(model: LoadedModel, tokens: Encoded, places: Sequence[Place]) -> dict[Place, Tensor]:
    """Return a plain run's values at places, ``[position, width]`` each, from the store where it has them."""
    hooks = {place: place.hook(model) for place in places}
    found = model.activations(tokens, list(dict.fromkeys(hooks.values())))
    return {place: flat(place, found[hook][0]) for place, hook in hooks.items()}
