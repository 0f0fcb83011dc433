"""A tokenizer as the files that it is saved as, and back."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from interp.engine.model.load.source import offline
from interp.errors import InputError


def tokenizer_files(tokenizer: Any) -> dict[str, bytes]:
    """Return the files that a tokenizer is saved as: name → content; none of none."""
    if tokenizer is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="interp-tokenizer-") as folder:
        tokenizer.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir()) if path.is_file()}


def tokenizer_of(held: Mapping[str, bytes]) -> Any:
    """Return the tokenizer that `tokenizer_files` wrote; ``None`` of no files.

    Raises
    ------
    InputError
        One of the names is no plain file's.
    """
    if not held:
        return None
    folder = tempfile.mkdtemp(prefix="interp-tokenizer-")
    try:
        for name, content in held.items():
            if Path(name).name != name:
                raise InputError(f"{name!r} is no file of a tokenizer")
            (Path(folder) / name).write_bytes(content)
        with offline():
            read = transformers.AutoTokenizer.from_pretrained(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(read, shutil.rmtree, folder, ignore_errors=True)  # a bridge reads it once more, by its path
    return read
