"""The table of sites: which activations a layer has, what they are divided into, and how they are drawn."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex

from interp.errors import InputError, closest, unknown

# What a sweep's answer is divided by → its axes.
AXES = {
    "layer": ("layer",),
    "head": ("layer", "head"),
    "position": ("layer", "position"),
    "head-position": ("layer", "head", "position"),
    "span": ("layer", "span"),
    "neuron": ("layer", "neuron"),
    "feature": ("feature",),
    "feature-position": ("feature", "position"),
}


@dataclass(frozen=True)
class SiteKind:
    """One row of the table: an activation that every layer has.

    Attributes
    ----------
    name
        As it is typed.
    point
        Its hook's name inside a block, such as ``"attn.hook_z"``.
    parts
        What it is divided into besides positions: query heads, the heads of keys and values, neurons, features of a
        dictionary, or nothing.
    stage
        Where in a block it enters the residual stream: before attention, between attention and MLP, or after the MLP.
        Empty where the forward without hooks does not know it: then all goes through hooks.
    heads_first
        Whether its axes are [head, query, key], instead of [position, head or neuron or d_model, …].
    through
        The site that is written to instead: this one is what that adds to the stream before the layer.
    output
        A point that must be another one than this: routed experts show their output under both names.
    drawn
        Of a place in the residual stream: where that is, as pictures say it of a layer's number.
    heads
        What its heads are called.
    """

    name: str
    point: str
    parts: Literal["", "head", "kv_head", "neuron", "feature"] = ""
    stage: Literal["", "pre", "mid", "post"] = ""
    heads_first: bool = False
    through: str = ""
    output: str = ""
    drawn: str = ""
    heads: str = "Heads"

    @property
    def headed(self) -> bool:
        """Whether it has heads."""
        return self.parts in {"head", "kv_head"}

    @property
    def kv_heads(self) -> bool:
        """Whether its heads are those of keys and values, of which there may be fewer."""
        return self.parts == "kv_head"

    def hook(self, layer: int) -> str:
        """Return the name of the hook that transformer-lens gives this activation in a layer.

        Raises
        ------
        InputError
            It is features of a dictionary, which no hook shows.
        """
        if self.parts == "feature":
            raise InputError(f"{self.name} have no hook of their own; a dictionary reads them where its files say")
        return f"blocks.{layer}.{self.point}"

    def within(self, hooks: Mapping[str, object], layer: int) -> bool:
        """Whether a layer of a model whose hooks, by name, are `hooks` has it."""
        own = None if self.parts == "feature" else hooks.get(self.hook(layer))
        return own is not None and not (self.output and own is hooks.get(f"blocks.{layer}.{self.output}"))

    def index(self, part: int | None, position: int | None) -> tuple[Any, ...]:
        """Return where a head or neuron and a position are in one prompt's activation; ``None`` means all of them.

        Examples
        --------
        >>> SITES["z"].index(1, None), SITES["pattern"].index(1, None)
        ((slice(None, None, None), 1), (1, slice(None, None, None)))
        """
        of, at = (slice(None) if index is None else index for index in (part, position))
        return (of, at) if self.heads_first else (at, of)


SITES: dict[str, SiteKind] = {
    kind.name: kind
    for kind in (
        SiteKind("resid_pre", "hook_resid_pre", stage="pre", drawn="before layer {}"),
        # The bridge's hook is the norm's input, beside the stream: what is written there does not reach it.
        SiteKind("resid_mid", "hook_resid_mid", stage="mid", through="attn_out", drawn="inside layer {}"),
        SiteKind("resid_post", "hook_resid_post", stage="post", drawn="after layer {}"),
        SiteKind("attn_out", "hook_attn_out", stage="mid"),
        SiteKind("mlp_out", "hook_mlp_out", stage="post"),
        SiteKind("z", "attn.hook_z", "head", "mid"),
        SiteKind("q", "attn.hook_q", "head", "mid"),
        SiteKind("k", "attn.hook_k", "kv_head", "mid", heads="Key heads"),
        SiteKind("v", "attn.hook_v", "kv_head", "mid", heads="Value heads"),
        SiteKind("pattern", "attn.hook_pattern", "head", "mid", heads_first=True),
        SiteKind("neuron", "mlp.hook_post", "neuron", "post", output="mlp.hook_out"),
    )
}

# What the dictionaries that are loaded for a model read of it, where they say: no hook shows it.
FEATURES = SiteKind("features", "", "feature")

# Where dictionaries of features read besides sites: the stream that the MLP reads; that, normed, as the MLP's weights
# are given it; and without the norm's gain and bias, as models whose norms are folded into what reads them show it.
MLP_INPUTS = ("mlp_in", "mlp_normed", "mlp_unit")
# A pattern is no vector of a position; of queries, keys and values no dictionaries are about.
POINTS = (*(name for name in SITES if name not in {"pattern", "q", "k", "v"}), *MLP_INPUTS)


def find(name: str) -> SiteKind:
    """Return the row called `name`.

    Raises
    ------
    InputError
        There is none; the closest one is named.

    Examples
    --------
    >>> find("k").kv_heads
    True
    """
    kind = FEATURES if name == FEATURES.name else SITES.get(str(name))
    if kind is None:
        every = [*SITES, FEATURES.name]
        raise unknown("site", name, every, f"sites are {', '.join(every)}")
    return kind


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
    kind = find(site)
    if by not in AXES:
        raise InputError(f"cannot divide by {by!r}{closest(by, AXES)}; use {', '.join(AXES)}")
    if by in {"feature", "feature-position"} and kind is not FEATURES:
        raise InputError(f"{site} has no features; use --site features")
    if by == "span" and (kind is FEATURES or kind.heads_first):
        raise InputError(f"{site} cannot be patched by span; use --by position, or another site")
    if kind is FEATURES and by in {"head", "head-position", "neuron"}:
        raise InputError(
            f"features have no {by.partition('-')[0]}s; use --by feature, feature-position, position or layer"
        )
    if "head" in by and not kind.headed:
        headed = ", ".join(one.name for one in SITES.values() if one.headed)
        raise InputError(f"{site} has no heads; use --by position or --by layer, or a site with heads: {headed}")
    if by == "neuron" and kind.parts != "neuron":
        raise InputError(f"{site} has no neurons; use --site neuron")
    return AXES[by]


def stream() -> list[str]:
    """Return the sites at which a vector of the residual stream can be written or taken out.

    Examples
    --------
    >>> stream()
    ['resid_pre', 'resid_mid', 'resid_post']
    """
    return [name for name, kind in SITES.items() if kind.drawn]


def available(hooks: Mapping[str, object]) -> list[str]:
    """Return the sites of a model whose hooks, by name, are `hooks`: those that any of its layers has.

    Examples
    --------
    >>> available({"blocks.3.attn.hook_z": object(), "hook_embed": object()})
    ['z']
    """
    blocks = (name.split(".")[1] for name in hooks if name.startswith("blocks."))
    layers = {int(layer) for layer in blocks if layer.isdigit()}
    return [name for name, kind in SITES.items() if any(kind.within(hooks, layer) for layer in layers)]


@dataclass(frozen=True)
class Site:
    """One kind of activation in one layer, in the field's names.

    `name` is one of `SITES`: ``resid_pre``, ``resid_mid``, ``resid_post``, ``attn_out``, ``mlp_out``, ``z``, ``q``,
    ``k``, ``v``, ``pattern`` or ``neuron``, or it is ``features``: those of the dictionary that is loaded for the
    layer; `layer` counts from 0.

    Raises
    ------
    InputError
        There is no such site, or no layer of that kind; whether a model has it is known when it runs.

    Examples
    --------
    >>> Site("pattern", 5).hook_name
    'blocks.5.attn.hook_pattern'
    """

    name: str
    layer: int

    def __post_init__(self) -> None:
        find(self.name)
        layer: Any = self.layer
        if isinstance(layer, bool) or not isinstance(layer, SupportsIndex) or operator.index(layer) < 0:
            raise InputError(f"layer {layer!r:.60} is none; layers are whole numbers from 0")

    @property
    def kind(self) -> SiteKind:
        """The site's row of the table."""
        return find(self.name)

    @property
    def hook_name(self) -> str:
        """The name of the hook that transformer-lens gives this activation."""
        return self.kind.hook(self.layer)


def ranges(numbers: Iterable[int]) -> str:
    """Return whole numbers as a line writes them, in order.

    Examples
    --------
    >>> ranges([1, 2, 3, 5, 7, 8])
    '1-3,5,7-8'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def of_hook(name: str) -> tuple[SiteKind, int] | None:
    """Return the site and the layer that a hook's name belongs to; ``None`` where it is of no site.

    Examples
    --------
    >>> of_hook("blocks.3.attn.hook_z")[1], of_hook("hook_embed")
    (3, None)
    """
    block, _, rest = name.partition(".")
    layer, _, point = rest.partition(".")
    kind = next((kind for kind in SITES.values() if kind.point == point), None)
    return (kind, int(layer)) if block == "blocks" and layer.isdigit() and kind is not None else None
