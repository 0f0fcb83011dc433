"""A PEFT adapter: the base model that it names, and merging it into one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from interp import files
from interp.engine.model.load.asked import Held
from interp.engine.model.load.source import Source, pickled, pickles, translated
from interp.errors import InputError


def alone(folder: Path) -> bool:
    """Return whether a folder holds an adapter and no model."""
    return bool(files.there(folder / "adapter_config.json")) and not files.there(folder / "config.json")


def base_of(folder: Path) -> str:
    """Return the path or the hub name of the model that the adapter in `folder` was made for.

    Raises
    ------
    InputError
        It names none, or another adapter, or cannot be read without running code.
    """
    base_name = _config(folder).get("base_model_name_or_path")
    if not base_name or not isinstance(base_name, str):
        raise InputError(
            f"{folder} is an adapter that does not name its base model; load that one with --adapter {folder}"
        )
    _checked(folder)
    base = files.path_of(base_name)
    if alone(base):
        raise InputError(
            f"{folder} names another adapter, {base_name}, as its base model; load the model with --adapter"
        )
    return base_name


def adapted(base: Source, folder: Path) -> Source:
    """Return `base` with the adapter in `folder` merged in; its weights are changed in place."""
    peft = _checked(folder)
    merged: Any = translated(
        f"the adapter {folder.name} does not fit {base.name}",
        # Made without memory, and then of what the file holds: no size of its configuration is believed.
        lambda: _merged(peft.PeftModel.from_pretrained(base.model, folder, low_cpu_mem_usage=True)),
    )
    notes = [*base.notes, f"the adapter {folder.name} was merged into {base.name}"]
    return replace(base, name=f"{base.name}+{folder.name}", model=merged.eval(), notes=notes)


def _merged(model: Any) -> Any:
    refuse_virtual_tokens(model)
    return model.merge_and_unload()


def refuse_virtual_tokens(model: Any) -> None:
    """Refuse prompt, prefix and p-tuning: their virtual tokens are positions that no prompt spells.

    Raises
    ------
    InputError
        `model` is a PEFT model of such a kind.
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        kind = str(getattr(model.active_peft_config.peft_type, "value", "prompt tuning")).lower().replace("_", " ")
        raise InputError(
            f"{kind} puts virtual tokens before every prompt, which have no merge into weights and no text; load the "
            "model itself: interp.load(peft_model.get_base_model())"
        )


def _checked(folder: Path) -> Any:
    """Return the peft package where `folder` holds an adapter that it can read without running code."""
    if files.there(folder / "adapter_config.json") != "file":
        raise InputError(f"{folder} is no adapter folder: it holds no adapter_config.json")
    weights = folder / "adapter_model.safetensors"
    if files.there(weights) != "file":  # PEFT would open adapter_model.bin
        raise pickled(folder.name, f"only {', '.join(pickles(folder)) or 'no weights'}")
    held = translated(f"the weights of {folder.name} are damaged", lambda: Held.in_files([weights]))
    for key in ("r", "num_virtual_tokens", "encoder_hidden_size"):
        size = _config(folder).get(key)
        if isinstance(size, int) and size > held.numbers:
            raise InputError(f"{folder.name} has {held.numbers} weights and asks for {key} {size}; save it again")
    return _peft()


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    held = files.read_json(path, "save the adapter again")
    if not isinstance(held, dict):
        raise InputError(f"{path} is no adapter's configuration: it holds a {type(held).__name__}")
    return cast("dict[str, Any]", held)


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise InputError("adapters need the peft package: pip install peft") from None
    return peft
