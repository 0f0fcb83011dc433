"""What a file of a result holds, and how it is written: whole or not at all."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from interp.errors import InputError


def as_json(value: Any) -> bytes:
    """Return what JSON can hold as a file's bytes."""
    # Half a surrogate pair has no bytes in UTF-8; its escape is what JSON writes for it.
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "backslashreplace")


def own_fields(value: Any) -> list[tuple[str, Any]]:
    """Return what a dataclass holds, by name; what begins with an underscore is not data."""
    return [(f.name, getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")]


def as_data(value: Any, arrays: bool = True) -> Any:
    """Return `value` as what JSON can hold; arrays become nested lists, or are left out.

    NaN and infinities become the strings ``"nan"``, ``"inf"`` and ``"-inf"``, which JSON has no numbers for.
    """
    if isinstance(value, np.ndarray):
        return as_data(value.tolist()) if arrays else None
    if isinstance(value, np.generic):
        return as_data(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        held = [(k, v) for k, v in own_fields(value) if arrays or not isinstance(v, np.ndarray)]
        return {k: as_data(v, arrays) for k, v in held}
    if isinstance(value, Mapping):
        return {str(k): as_data(v, arrays) for k, v in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [as_data(v, arrays) for v in cast("list[Any]", value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return repr(value)


def as_npz(value: Any) -> bytes:
    """Return a dataclass as an npz file's bytes: its arrays by name, all else as JSON under ``meta``."""
    arrays: dict[str, Any] = {}
    for name, held in own_fields(value):
        if isinstance(held, np.ndarray):
            arrays[name] = held
        elif isinstance(held, Mapping):
            inner = cast("Mapping[Any, Any]", held)
            if any(isinstance(v, np.ndarray) for v in inner.values()):
                arrays |= {f"{name}_{key}": v for key, v in inner.items()}
    rest = {name: held for name, held in as_data(value, arrays=False).items() if name not in arrays}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays, meta=np.array(json.dumps(rest)))
    return buffer.getvalue()


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a Path that is safe to write to.

    Raises
    ------
    InputError
        A NUL in the name, a relative path with ``..``, a symbolic link, a folder, or a folder that does not exist.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise InputError("a file name cannot hold a NUL character")
    target = Path(text).expanduser()
    if ".." in target.parts:
        raise InputError(f"{text!r} climbs out of its folder; type the full path instead")
    if target.is_symlink():
        raise InputError(f"{text!r} is a symbolic link; type the path of the file itself")
    if target.is_dir():
        raise InputError(f"{text!r} is a folder; add a file name")
    if not target.parent.is_dir():
        raise InputError(f"there is no folder {str(target.parent)!r}; make it first")
    return target


def write_atomically(target: Path, content: bytes) -> None:
    """Replace `target` with `content` in one step, so that a full disk leaves the old file as it was."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
