"""Values as plain data and tensors, and back: what goes to workers, in which no code can be.

Only the classes named here are ever made of what comes in, from their declared fields.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cache
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from interp.engine.pool import code
from interp.errors import InputError
from interp.ids import TypedIds

# What may be made of plain data, and nothing else.
KINDS = {
    "Act": "interp.engine.features.dictionary:Act",
    "Batch": "interp.engine.features.reading:Batch",
    "Carrier": "interp.claim_language:Carrier",
    "Case": "interp.engine.patching.cases:Case",
    "Claim": "interp.claim_language:Claim",
    "Codes": "interp.engine.features.codes:Codes",
    "Control": "interp.methods._shared.claims.controls:Control",
    "Dictionary": "interp.engine.features.dictionary:Dictionary",
    "Difference": "interp.engine.patching.feature_plan:Difference",
    "Encoded": "interp.engine.model.tokens:Encoded",
    "Filled": "interp.engine.patching.moments:Filled",
    "Interchanged": "interp.engine.interchange.places:Place",
    "Intervention": "interp.spec:Intervention",
    "Mark": "interp.spans:Mark",
    "Metric": "interp.metric:Metric",
    "Moments": "interp.engine.patching.moments:Moments",
    "Node": "interp.spec:Node",
    "Outcome": "interp.claim_language:Outcome",
    "Packed": "interp.interface.shards:Packed",
    "Pair": "interp.spec:Pair",
    "Pairs": "interp.spec:Pairs",
    "Part": "interp.engine.patching.fillings:Part",
    "Place": "interp.engine.features.places:Place",
    "Prompt": "interp.prompts:Prompt",
    "Prompts": "interp.prompts:Prompts",
    "SameNorm": "interp.engine.interchange.changes:SameNorm",
    "Sample": "interp.engine.patching.ablation:Sample",
    "Scorer": "interp.engine.metrics:Scorer",
    "Share": "interp.methods._shared.claims.verdict:Share",
    "Site": "interp.sites:Site",
    "Subspace": "interp.engine.interchange.changes:Subspace",
    "Swap": "interp.engine.interchange.places:Swap",
    "Taken": "interp.engine.features.dictionary:Taken",
    "Texts": "interp.spec:Texts",
    "Turn": "interp.chats:Turn",
    "Value": "interp.claim_language:Value",
    "Whole": "interp.engine.interchange.changes:Whole",
    "Written": "interp.engine.circuits.edges:Written",
}
_NAMES = {path: name for name, path in KINDS.items()}
# Those of them that are large and asked for again and again: a worker keeps them, by their digest.
KEPT = {"Dictionary", "Filled", "Written"}


# Whether functions may be written down, too.
_code: ContextVar[bool] = ContextVar("code", default=False)


def with_code(trusted: bool, body: Callable[[], Any]) -> Any:
    """Call `body`, in which `flat` writes functions down where workers are `trusted` with them."""
    token = _code.set(trusted)
    try:
        return body()
    finally:
        _code.reset(token)


def flat(value: Any, tensors: dict[str, Tensor], assets: dict[str, Any] | None = None) -> Any:
    """Return a value as plain data; its tensors and arrays go into `tensors`, under names that the data holds.

    Parameters
    ----------
    assets
        Where what workers keep goes instead, by its digest; without it that is data as all else is.

    Raises
    ------
    InputError
        There is something in it that does not travel, such as a function.

    Examples
    --------
    >>> held = {}
    >>> data = flat({"a": (1, torch.ones(2)), 5: None}, held)
    >>> whole(data, held)
    {'a': (1, tensor([1., 1.])), 5: None}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, TypedIds):
        return {"ids": list(value), "types": list(value.types)}
    if type(value) is tuple:
        return [flat(one, tensors, assets) for one in cast("tuple[Any, ...]", value)]
    if isinstance(value, list):
        return {"list": [flat(one, tensors, assets) for one in cast("list[Any]", value)]}
    if isinstance(value, Tensor | np.ndarray):
        name = str(len(tensors))
        array = isinstance(value, np.ndarray)
        tensors[name] = torch.from_numpy(np.ascontiguousarray(value)) if array else value  # pyright: ignore
        return {"array" if array else "tensor": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, Mapping):
        held = cast("Mapping[Any, Any]", value)
        return {"map": [[flat(key, tensors), flat(one, tensors, assets)] for key, one in held.items()]}
    if _code.get() and callable(value) and not dataclasses.is_dataclass(value):
        name = str(len(tensors))
        tensors[name] = code.packed(value)
        return {"code": name}
    name = _NAMES.get(f"{type(value).__module__}:{type(value).__qualname__}")
    if name is not None and dataclasses.is_dataclass(value):
        if assets is not None and name in KEPT:
            assets[cast("Any", value).digest] = value
            return {"asset": cast("Any", value).digest}
        made = [one.name for one in dataclasses.fields(value) if one.init]
        return {"of": name, "fields": {one: flat(getattr(value, one), tensors, assets) for one in made}}
    raise InputError(f"a {type(value).__name__} does not go to workers: %interp disconnect runs this here")


def whole(data: Any, tensors: Mapping[str, Tensor], assets: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Return what `flat` was given.

    Raises
    ------
    ValueError
        It is nothing that `flat` writes.
    """
    if data is None or isinstance(data, bool | int | float | str):
        return data
    if isinstance(data, list):
        return tuple(whole(one, tensors, assets) for one in cast("list[Any]", data))
    match data:
        case {"ids": ids, "types": types}:
            return TypedIds(ids, types)
        case {"list": items}:
            return [whole(one, tensors, assets) for one in items]
        case {"tensor": name}:
            return tensors[name]
        case {"code": name}:
            return code.unpacked(tensors[name])
        case {"asset": digest}:
            return assets[digest]
        case {"array": name}:
            return tensors[name].numpy()
        case {"range": [start, stop, step]}:
            return range(start, stop, step)
        case {"map": items}:
            return {whole(key, tensors): whole(one, tensors, assets) for key, one in items}
        case {"of": name, "fields": fields} if name in KINDS:
            return _kind(name)(**{key: whole(one, tensors, assets) for key, one in fields.items()})
        case _:
            raise ValueError(f"nothing that goes to workers: {data!r:.60}")


@cache
def _kind(name: str) -> Any:
    module, _, kind = KINDS[name].partition(":")
    return getattr(importlib.import_module(module), kind)
