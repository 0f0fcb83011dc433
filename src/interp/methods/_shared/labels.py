"""What heads were found to be, kept for the views of the same model in the same state."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

_known: weakref.WeakKeyDictionary[LoadedModel, tuple[object, Mapping[str, str]]] = weakref.WeakKeyDictionary()


def keep(model: LoadedModel, labels: Mapping[str, str]) -> None:
    """Keep labels, head (``"5.1"``) → class, for `model` as it is now; they replace earlier ones."""
    _known[model] = (_state(model), dict(labels))


def of(model: LoadedModel) -> Mapping[str, str]:
    """Return the labels that were last kept for `model`; none where it has changed since."""
    if model not in _known:
        return {}
    state, labels = _known[model]
    return labels if state == _state(model) else {}


def _state(model: LoadedModel) -> object:
    return (model.fingerprint(), model.tokens.bos_id)  # the texts that heads are tried on begin with BOS
