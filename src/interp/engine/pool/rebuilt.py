"""A model that no file holds: as what it is made of, from which another process makes one of the same shape.

Only classes of transformers and transformer-lens' own model are made so, from their configurations; the weights follow
as those that were changed, and the fingerprint says whether the two are one.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import transformers
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from interp.engine.model.load import Options, load
from interp.engine.pool.tokenizer_files import tokenizer_files, tokenizer_of
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_NATIVE = "NativeModel"
_SIZES = ("d_model", "d_head", "n_layers", "n_ctx")  # without which there is no configuration
_PLAIN = (bool, int, float, str, type(None))


def description(model: LoadedModel) -> dict[str, Any] | None:
    """Return what a model in memory is made of, as plain data; ``None`` of one that nobody else can make."""
    held: Any = model.hf_model
    kind, config = type(held).__name__, getattr(held, "config", None)
    device = str(model.device)
    if kind == _NATIVE:
        own = {name: _plain(value) for name, value in vars(held.cfg).items() if name != "device"}
        numpy = [name for name, value in vars(held.cfg).items() if isinstance(value, np.float64)]
        called = model.bridge.cfg.model_name
        said = {"kind": kind, "config": own, "numpy": numpy, "called": called}
        return {**said, "device": device, "tokenizer": _files(model)}
    if getattr(transformers, kind, None) is not type(held) or not isinstance(config, transformers.PreTrainedConfig):
        return None
    said = {**config.to_dict(), "transformers_version": config.transformers_version}
    return {
        "kind": kind,
        "config_kind": type(config).__name__,
        "config": {name: _plain(value) for name, value in said.items()},
        "names": sorted(vars(config)),
        "dtype": _plain(held.dtype),
        "device": device,
        "tokenizer": _files(model),
    }


def rebuilt(name: str, made_of: Mapping[str, Any]) -> LoadedModel:
    """Make a model of a `description`, whose weights are still any.

    Raises
    ------
    InputError
        It is of a class that is not made here.
    """
    kind, given = made_of["kind"], made_of["config"]
    tokenizer = tokenizer_of({file: base64.b64decode(content) for file, content in made_of["tokenizer"].items()})
    options = Options(device=made_of["device"])
    if kind == _NATIVE:
        config = TransformerBridgeConfig(**{size: given[size] for size in _SIZES}, act_fn=given["act_fn"])
        vars(config).update({**given, "dtype": getattr(torch, given["dtype"]), "device": made_of["device"]})
        vars(config).update({name: np.float64(given[name]) for name in made_of["numpy"]})  # a hash tells them apart
        bridge = cast("Any", TransformerBridge).boot_native(config, tokenizer=tokenizer, model_name=made_of["called"])
        return load(bridge.eval(), name=name, options=options)
    found, of = getattr(transformers, kind, None), getattr(transformers, made_of["config_kind"], None)
    if not (
        isinstance(found, type)
        and issubclass(found, transformers.PreTrainedModel)
        and isinstance(of, type)
        and issubclass(of, transformers.PreTrainedConfig)
    ):
        raise InputError(f"a {kind} is no model of transformers' here: workers need the same version as the notebook")
    made: Any = of.from_dict(dict(given))
    for extra in set(vars(made)) - set(made_of["names"]):  # what reading it adds
        delattr(made, extra)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, made_of["dtype"]))  # one that is asked for is written into its settings
    try:
        model = cast("Any", found)(made).to(made_of["device"])
    finally:
        torch.set_default_dtype(before)
    return load(model, tokenizer=tokenizer, name=name, options=options)


def _plain(value: Any) -> Any:
    """Return a setting as JSON has it.

    Raises
    ------
    InputError
        It is none that could be written down.
    """
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in cast("list[Any]", value)]
    if isinstance(value, _PLAIN):
        return value
    raise InputError(f"a setting of the model's is a {type(value).__name__}, which does not go to workers")


def _files(model: LoadedModel) -> dict[str, str]:
    files = tokenizer_files(model.tokens.tokenizer)
    return {name: base64.b64encode(content).decode() for name, content in files.items()}
