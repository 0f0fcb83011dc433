"""Where a model came from, so that another one like it can be loaded."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp import files
from interp.errors import InputError


@dataclass(frozen=True)
class Origin:
    """What a model was loaded from, and how.

    Attributes
    ----------
    source
        The folder, file or hub name; of an object in memory a weak reference to it, which does not keep it alive.
    tokenizer
        The one that was given beside an object; else ``None``.
    options
        The `load.Options`, without who watches.
    fingerprint
        Of the model as it had just been loaded, which is what another process must find there too; an empty string of
        an object, and where the weights stay in their files, which nobody writes to.
    """

    source: str | weakref.ref[Any]
    tokenizer: Any
    options: Any
    fingerprint: str = ""

    @property
    def path(self) -> Path | None:
        """The folder or file that it was read from; ``None`` where it came from the hub or from memory."""
        if not isinstance(self.source, str):
            return None
        path = files.path_of(self.source)
        return path.absolute() if files.there(path) else None

    @property
    def repository(self) -> str | None:
        """The hub's name of it; ``None`` where it came from elsewhere."""
        return self.source if isinstance(self.source, str) and self.path is None else None

    def object(self) -> Any:
        """Return the source, to load from once more.

        Raises
        ------
        InputError
            It was an object in memory, which is gone.
        """
        if isinstance(self.source, str):
            return self.source
        held = self.source()
        if held is None:
            raise InputError("the object that the model was loaded from is gone; load it again and keep it")
        return held
