"""Whether a model's activations have the axes that the table of sites says, as seen in one forward.

The bridge gives some families' activations under the usual names in another shape: latent attention's q, k and v with
heads first, and its z cut into heads of another width. What is divided by heads would be another thing there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from interp.engine.model.hooks import Hook
from interp.sites import SITES, SiteKind

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.handle import Geometry, Handle

# Prompt tokens: hardly a number of heads, from which the axis of positions could not be told.
TOKENS = 7


class Seen:
    """The shapes of all sites in the forward that `functions` are hooked into.

    Attributes
    ----------
    functions
        Hook name → function, for that forward.
    shapes
        Hook name → shape.
    """

    def __init__(self, model: Handle) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._geometry = model.geometry
        self._sites = {
            kind.hook(layer): kind
            for kind in SITES.values()
            for layer in range(model.geometry.n_layers)
            if kind.within(model.bridge.hook_dict, layer)
        }
        self.functions = {name: self._keep(name) for name in self._sites}

    def _keep(self, name: str) -> Hook:
        def hook(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            self.shapes[name] = tuple(tensor.shape)

        return hook

    def odd(self, length: int) -> dict[str, str]:
        """Return hook name → how it is not what the table says, for those that are not, on `length` tokens."""
        found: dict[str, str] = {}
        for name, kind in self._sites.items():
            shape = self.shapes.get(name)
            if shape is None:
                found[name] = "its forward does not go through it"
            elif not _fits(kind, shape, length, self._geometry):
                found[name] = f"here it is {list(shape)} on {length} tokens, not divided as elsewhere"
        return found


def _fits(kind: SiteKind, shape: tuple[int, ...], length: int, g: Geometry) -> bool:
    if kind.heads_first:
        return shape == (1, g.n_heads, length, length)
    if kind.headed:
        return len(shape) == 4 and shape[1:3] == (length, g.n_kv_heads if kind.kv_heads else g.n_heads)
    return len(shape) == 3 and shape[1] == length and (kind.parts == "neuron" or shape[2] == g.d_model)
