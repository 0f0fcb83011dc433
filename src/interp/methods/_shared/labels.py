"""What heads were found to be, kept for the views of the same model in the same state."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_known: weakref.WeakKeyDictionary[LoadedModel, tuple[str, Mapping[str, str]]] = weakref.WeakKeyDictionary()


def keep(model: LoadedModel, labels: Mapping[str, str]) -> None:
    """Keep labels, head (``"5.1"``) → class, for `model` as it is now; they replace earlier ones."""
    _known[model] = (model.fingerprint(), dict(labels))


def of(model: LoadedModel) -> Mapping[str, str]:
    """Return the labels that were last kept for `model`; none where it has changed since."""
    if model not in _known:
        return {}
    state, labels = _known[model]
    return labels if state == model.fingerprint() else {}
