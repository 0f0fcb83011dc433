"""The sites: which activations of a layer there are, what they are called, and what they are divided by."""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import InputError, closest

SITES = (
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "z",
    "q",
    "k",
    "v",
    "pattern",
    "neuron",
)
# What a sweep's answer is divided by → its axes.
AXES = {
    "layer": ("layer",),
    "head": ("layer", "head"),
    "position": ("layer", "position"),
    "head-position": ("layer", "head", "position"),
    "neuron": ("layer", "neuron"),
}
_HEADED = frozenset({"z", "q", "k", "v", "pattern"})


@dataclass(frozen=True)
class Site:
    """One kind of activation in one layer, in the field's names.

    `name` is ``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out``, ``mlp_out``, ``z``, ``q``, ``k``, ``v`` or
    ``pattern``; `layer` counts from 0.

    Examples
    --------
    >>> Site("pattern", 5).hook_name
    'blocks.5.attn.hook_pattern'
    """

    name: str
    layer: int

    @property
    def hook_name(self) -> str:
        """The name of the hook that transformer-lens gives this activation."""
        where = "attn." if self.name in _HEADED else ""
        return (
            f"blocks.{self.layer}.{where}hook_{self.name}"
            if self.name != "neuron"
            else f"blocks.{self.layer}.mlp.hook_post"
        )


def axes(site: str, by: str) -> tuple[str, ...]:
    """Return the axes of a sweep of `site` divided `by`.

    Raises
    ------
    InputError
        An unknown site or division, or one that does not go with the other.

    Examples
    --------
    >>> axes("z", "head")
    ('layer', 'head')
    """
    if site not in SITES:
        raise InputError(f"there is no site {site!r}{closest(site, SITES)}; sites are {', '.join(SITES)}")
    if by not in AXES:
        raise InputError(f"cannot divide by {by!r}{closest(by, AXES)}; use {', '.join(AXES)}")
    if "head" in by and site not in _HEADED:
        raise InputError(
            f"{site} has no heads; use --by position or --by layer, or a site with heads: z, q, k, v, pattern"
        )
    if by == "neuron" and site != "neuron":
        raise InputError(f"{site} has no neurons; use --site neuron")
    return AXES[by]
