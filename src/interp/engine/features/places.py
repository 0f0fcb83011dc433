"""Where in a layer a dictionary reads and writes, and how a run's values there are had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from interp.engine.model.tokens import Encoded
from interp.errors import InputError, closest
from interp.sites import POINTS, SITES

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True, order=True)
class Place:
    """A point of a layer: one of `sites.POINTS`.

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


def widths(model: LoadedModel) -> dict[str, int]:
    """Return how wide an activation is at each point that a model has; of layers that differ, in the first that has it.

    What a model's norm shows without its gain is left out where it has no such hook.
    """
    g, hooks = model.geometry, model.site_hooks
    own = {"z": g.n_heads * g.d_head, "neuron": next((n for at in range(g.n_layers) if (n := model.neurons(at))), 0)}
    there = {
        point: own.get(point, g.d_model)
        for point in POINTS
        if any(Place(layer, point).hook(model) in hooks for layer in range(g.n_layers))
    }
    return {point: width for point, width in there.items() if width}


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
