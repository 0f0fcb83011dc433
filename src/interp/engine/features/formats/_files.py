"""The files of dictionaries, read as plain data: safetensors mapped, no pickle ever run."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from interp import files
from interp.engine.memory import free_bytes, readable
from interp.errors import InputError

_AGAIN = "fetch or save it again"


def config(path: Path) -> dict[str, Any]:
    """Return what a JSON file says by name.

    Raises
    ------
    InputError
        It cannot be read, or is no JSON object.
    """
    said: Any = files.read_json(path, _AGAIN)
    if not isinstance(said, dict):
        raise InputError(f"{path} is no dictionary's configuration: it holds a {type(said).__name__}")
    return said


def names(path: Path) -> frozenset[str]:
    """Return the names of a safetensors file's tensors; none where it cannot be read as one."""
    try:
        with safe_open(path, framework="pt") as file:
            return frozenset(file.keys())
    except (SafetensorError, OSError, ValueError):
        return frozenset()


def safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, mapped: a page is read when it is used.

    Raises
    ------
    InputError
        It is not there, cut off, or none.
    """
    files.file_at(path, _AGAIN)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read as safetensors ({reason}); {_AGAIN}") from None


def npz(path: Path) -> dict[str, Tensor]:
    """Return the arrays of a NumPy archive by name.

    Raises
    ------
    InputError
        It is not there, cut off, holds pickles, or more than memory has room for.
    """
    files.file_at(path, _AGAIN)
    _room(path)
    try:
        with np.load(path, allow_pickle=False) as held:
            return {name: torch.from_numpy(held[name]) for name in held.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).partition("\n")[0]
        if "allow_pickle" in reason or "Object arrays" in reason:
            raise InputError(f"{path} holds pickles, which can run code; save its arrays as numbers") from None
        raise InputError(f"{path} cannot be read as .npz ({reason}); {_AGAIN}") from None


def checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of ``torch.save``, read with ``weights_only``.

    Raises
    ------
    InputError
        It is not there, cut off, or would run code.
    """
    files.file_at(path, _AGAIN)
    _room(path)
    try:
        held: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is a pickle that runs code when it is read; where it was made, save the weights alone: "
            "torch.save(ae.state_dict(), 'ae.pt')"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be read as a file of torch.save ({reason}); {_AGAIN}") from None
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise InputError(f"{path} holds no weights by name; save them with torch.save(ae.state_dict(), 'ae.pt')")
    return {str(name): value.detach() for name, value in held.items()}


def _room(path: Path) -> None:
    """Refuse an archive that unpacks to more than there is memory for."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{path} cannot be read ({error}); {_AGAIN}") from None
    free = free_bytes(torch.device("cpu"))
    if size > free:
        raise InputError(f"{path} holds {readable(size)}, and there is memory for {readable(free)}; free some")
