"""A PEFT adapter: the base model that it names, and merging it into one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from interp.engine.model.load.source import Source, pickled, pickles, reason_of, translated
from interp.errors import InputError


def base_of(folder: Path) -> str:
    """Return the path or the hub name of the model that the adapter in `folder` was made for.

    Raises
    ------
    InputError
        It names none, or another adapter, or cannot be read without running code.
    """
    path = folder / "adapter_config.json"
    try:
        base_name = json.loads(path.read_text("utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be read: {reason_of(error)}") from None
    if not base_name:
        raise InputError(
            f"{folder} is an adapter that does not name its base model; load that one with --adapter {folder}"
        )
    _checked(folder)
    base = Path(str(base_name)).expanduser()
    if (base / "adapter_config.json").exists() and not (base / "config.json").exists():
        raise InputError(
            f"{folder} names another adapter, {base_name}, as its base model; load the model with --adapter"
        )
    return str(base_name)


def adapted(base: Source, folder: Path) -> Source:
    """Return `base` with the adapter in `folder` merged in; its weights are changed in place."""
    peft = _checked(folder)
    merged: Any = translated(
        f"the adapter {folder.name} does not fit {base.name}",
        lambda: peft.PeftModel.from_pretrained(base.model, folder).merge_and_unload(),
    )
    notes = [*base.notes, f"the adapter {folder.name} was merged into {base.name}"]
    return replace(base, name=f"{base.name}+{folder.name}", model=merged.eval(), notes=notes)


def _checked(folder: Path) -> Any:
    """Return the peft package where `folder` holds an adapter that it can read without running code."""
    if not (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder} is no adapter folder: it holds no adapter_config.json")
    if not (folder / "adapter_model.safetensors").exists():  # PEFT would open adapter_model.bin
        raise pickled(folder.name, f"only {', '.join(pickles(folder)) or 'no weights'}")
    return _peft()


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise InputError("adapters need the peft package: pip install peft") from None
    return peft
