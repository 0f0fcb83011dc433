"""Where a model came from, as far as another process can load it from there again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Origin:
    """How a model was loaded.

    Attributes
    ----------
    source
        A folder or a file, absolute, or a hub name.
    options
        What `interp.engine.model.load.Options` takes, as plain data.
    fingerprint
        Of the model as it was when it had just been loaded: what every other process must find there too. An empty
        string where the weights stay in their files, which nobody writes to.
    """

    source: str
    options: Mapping[str, Any]
    fingerprint: str
