"""What a configuration asks for beside what the weights hold: compared before a model is built."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

import torch
from safetensors import safe_open

from interp import files
from interp.engine.model.load.source import pickled, suffix_of
from interp.errors import InputError

_INDEX = "model.safetensors.index.json"
# Modules are made one by one, even on the meta device: so many layers or experts are built without asking.
_MODULES = 1024
_MANY = re.compile(r"(layers?|blocks?|experts?|depths?|stages)$")
_SPARE = 2**20  # parameters that a configuration may ask for beyond what is held: heads, new tokens
_TABLES = 2**26  # numbers of positions and masks, which no file holds
_PACKED = 8  # parameters that a quantised checkpoint holds in one number, at most


@dataclass(frozen=True)
class Held:
    """How many tensors a checkpoint holds, and how many numbers in all."""

    tensors: int
    numbers: int

    @classmethod
    def by(cls, shapes: Iterable[Iterable[int]]) -> Held:
        """Return what tensors of these shapes are together."""
        sizes = [math.prod(int(size) for size in shape) for shape in shapes]
        return cls(len(sizes), sum(sizes))

    @classmethod
    def in_files(cls, paths: Iterable[Path]) -> Held:
        """Return what safetensors files say that they hold; no tensor is read."""
        return cls.by(shape for path in paths for shape in _shapes(path))


def _shapes(path: Path) -> Iterator[list[int]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            yield file.get_slice(name).get_shape()


def weights(folder: Path, name: str) -> list[Path]:
    """Return the safetensors files that transformers will read of a folder.

    Raises
    ------
    InputError
        The folder holds an adapter beside the model, or its index or its configuration names what is no safetensors
        file of this folder.
    """
    refuse_adapter_beside(folder, f"{name} holds a model")
    whole, index = folder / "model.safetensors", folder / _INDEX
    if files.there(whole) == "file" or files.there(index) != "file":
        return [whole] if files.there(whole) == "file" else []
    instead = "fetch or save the model again"
    held = files.read_json(index, instead)
    named: Any = cast("dict[str, Any]", held).get("weight_map") if isinstance(held, dict) else None
    if not isinstance(named, dict) or not all(isinstance(one, str) for one in cast("dict[str, Any]", named).values()):
        raise InputError(f"{index} does not say which file holds which weight; {instead}")
    found: list[Path] = []
    for one in sorted(set(cast("dict[str, str]", named).values())):
        if suffix_of(one) != ".safetensors":
            raise pickled(name, f"and its index names {one}")
        parts = {*PurePosixPath(one).parts, *PureWindowsPath(one).parts}
        if ".." in parts or PurePosixPath(one).is_absolute() or PureWindowsPath(one).drive or "\0" in one:
            raise InputError(f"{index.name} of {name} names {one!r}, outside of its folder; {instead}")
        if files.there(folder / one) != "file":
            raise InputError(
                f"the weights of {name} are damaged ({one} is named by their index and is gone); {instead}"
            )
        found.append(folder / one)
    return found


def refuse_adapter_beside(folder: Path, what: str) -> None:
    """Refuse a folder that holds `what` and an adapter: transformers would merge it, or load its base model.

    Raises
    ------
    InputError
        It does.
    """
    if files.there(folder / "adapter_config.json"):
        raise InputError(
            f"{what} and an adapter: move adapter_config.json and adapter_model.safetensors to a folder of their own, "
            "and load the model, with --adapter THAT FOLDER if you want both"
        )


def refuse_larger(name: str, config: Any, held: Held, build: Callable[[], Any]) -> None:
    """Refuse a configuration that asks for a far larger model than its weights hold.

    Parameters
    ----------
    build
        Makes the model of the configuration; called on the meta device, where tensors take no memory.

    Raises
    ------
    InputError
        It does: sizes are missing, or it is another model's.
    """
    advice = "its config.json lacks sizes, or is another model's; give the one that was saved with the weights"
    for key, count in _counts(config.to_dict()):
        if count > max(_MODULES, held.tensors):
            raise InputError(f"{name} has {held.tensors} weights and asks for {key} {count}: {advice}")
    try:
        with torch.device("meta"):
            model = build()
    except Exception:  # a family that cannot be built so says what is wrong when it is loaded
        return
    most = 2 * held.numbers * (_PACKED if getattr(config, "quantization_config", None) else 1)
    for what, tensors, spare in (
        ("parameters", model.parameters(), _SPARE),
        ("numbers in its tables of positions", model.buffers(), _TABLES),
    ):
        asked = sum(tensor.numel() for tensor in tensors)
        if asked > most + spare:
            raise InputError(f"{name} asks for {asked:,} {what} and its weights hold {held.numbers:,}: {advice}")


def _counts(config: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Yield what a configuration, and those inside it, say of how many modules there are."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _counts(cast("dict[str, Any]", value))
        elif isinstance(value, int) and not isinstance(value, bool) and _MANY.search(key):
            yield key, value
