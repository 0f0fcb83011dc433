"""Trainings of dictionaries in one file, from which they go on: weights, Adam's moments, and what was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp import files
from interp.engine.features.training import Trainer
from interp.errors import InputError

FILE = "training.safetensors"
FORMAT = "interp features in training"


def save(folder: Path, trainers: Sequence[Trainer], asked: Mapping[str, Any]) -> None:
    """Write trainings and what was asked for, in one step: whatever ends it, the folder has the old file or the new.

    Raises
    ------
    InputError
        The folder cannot be written to.
    """
    held = {
        f"{number}/{name}": tensor.detach().cpu().contiguous()
        for number, trainer in enumerate(trainers)
        for name, tensor in trainer.state().items()
    }

    def write(place: Path) -> None:
        try:
            save_file(held, place, metadata={"format": FORMAT, "asked": json.dumps(asked, sort_keys=True)})
        except SafetensorError as error:
            raise OSError(str(error)) from None

    files.write(folder / FILE, write)


def load(folder: Path, count: int, asked: Mapping[str, Any], device: torch.device) -> list[dict[str, Tensor]] | None:
    """Return the states of `count` trainings that were asked for in the same way; ``None`` where there are none.

    Raises
    ------
    InputError
        The file there is damaged, or of a training that was asked for otherwise.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            about = cast("dict[str, str]", file.metadata() or {})
            # Copies, which lie as tensors of torch's own do: products of others may round differently.
            held: dict[str, Tensor] = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        before = cast("dict[str, Any]", json.loads(about["asked"]))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is no training to go on with ({reason}); remove it, or name another folder") from None
    # As the file has them: tuples are lists there.
    now = json.loads(json.dumps(asked))
    other = [name for name in now if before.get(name) != now[name]]
    if other:
        raise InputError(
            f"{str(folder)!r} holds another training, of other {', '.join(other)}; name another folder with --out, or "
            f"remove {FILE} there"
        )
    return [{name.partition("/")[2]: held[name] for name in held if name.startswith(f"{n}/")} for n in range(count)]
