"""The names that public dictionaries give to where they read and write, and the places that these are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from interp.errors import InputError

# Of a block of transformer-lens', as hooks are named in it.
_POINTS = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_attn_out": "attn_out",
    "hook_mlp_out": "mlp_out",
    "mlp.hook_out": "mlp_out",
    "attn.hook_z": "z",
    "mlp.hook_post": "neuron",
    "hook_mlp_in": "mlp_in",
    "mlp.hook_in": "mlp_normed",
    "ln2.hook_normalized": "mlp_unit",
}
_HOOK = re.compile(r"blocks\.(\d{1,6})\.(.+)")
# Of Hugging Face's modules: an SAE reads what one puts out, a transcoder what is put into it.
_MODULE = re.compile(r"(?:[a-z_]+\.)*(?:layers|layer|h|blocks)\.(\d{1,6})(?:\.([a-z_]+))?")
_OUT = {"": "resid_post", "mlp": "mlp_out", "self_attn": "attn_out", "attn": "attn_out", "attention": "attn_out"}


@dataclass(frozen=True)
class Said:
    """Where a file says that it reads, or writes: a layer, and a point of `places.POINTS`."""

    layer: int
    point: str


def spelled(layer: int, point: str) -> str:
    """Return the hook's name of a place.

    Examples
    --------
    >>> spelled(5, "mlp_unit")
    'blocks.5.ln2.hook_normalized'
    """
    return f"blocks.{layer}.{next(hook for hook, known in _POINTS.items() if known == point)}"


def place(name: object, *, transcodes: bool = False) -> Said:
    """Return where a hook or a module is; `transcodes`: its input, where a module is named.

    Raises
    ------
    InputError
        No dictionary can be read or written there.

    Examples
    --------
    >>> place("blocks.5.hook_resid_pre"), place("model.layers.5.mlp", transcodes=True)
    (Said(layer=5, point='resid_pre'), Said(layer=5, point='mlp_normed'))
    """
    found = _HOOK.fullmatch(str(name))
    if found is not None and found[2] in _POINTS:
        return Said(int(found[1]), _POINTS[found[2]])
    found = _MODULE.fullmatch(str(name))
    part = (found[2] or "") if found is not None else None
    if found is not None and part in {"mlp", "ffn", "feed_forward"} and transcodes:
        return Said(int(found[1]), "mlp_normed")
    if found is not None and part in {"ffn", "feed_forward"}:
        part = "mlp"
    if found is None or part not in _OUT or (transcodes and part != "mlp"):
        raise InputError(f"the dictionary was made for {str(name)!r:.80}, where none can be read; {_READABLE}")
    return Said(int(found[1]), _OUT[part])


def point(name: object) -> str:
    """Return the point of a hook that is named inside a block, such as ``hook_mlp_out``.

    Raises
    ------
    InputError
        No dictionary can be read or written there.
    """
    if str(name) not in _POINTS:
        raise InputError(f"the dictionary was made for {str(name)!r:.80}, where none can be read; {_READABLE}")
    return _POINTS[str(name)]


_READABLE = f"readable are {', '.join(_POINTS)} of blocks.0 on, and the modules layers.0, layers.0.mlp, layers.0.attn"
