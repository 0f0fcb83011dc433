"""interp: mechanistic interpretability of transformer language models, in a notebook.

``%load_ext interp`` gives the ``%interp`` and ``%%interp`` magics; ``import interp`` gives the same as Python:
``interp.load(…)``, ``interp.attention("…")``, ``interp.model.bridge``. Names are looked up when they are used, so that
importing interp imports no torch.
"""

from __future__ import annotations

import functools
import pkgutil
import sys
from typing import TYPE_CHECKING, Any

# At once and not when it is used: importing the module of that name would else put the module in its place.
from interp.selection import selection as selection

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

_NAMED = {
    "InputError": "interp.errors:InputError",
    "OutOfMemory": "interp.errors:OutOfMemory",
    "Claim": "interp.claim_language:Claim",
    "Intervention": "interp.spec:Intervention",
    "Mark": "interp.spans:Mark",
    "Metric": "interp.spec:Metric",
    "Pair": "interp.spec:Pair",
    "Prompt": "interp.spec:Prompt",
    "Site": "interp.sites:Site",
    "Result": "interp.results:Result",
    "Turn": "interp.chats:Turn",
    "compare": "interp.results.comparison:compare",
    "load_result": "interp.interface.saved:load_result",
    "load_circuit": "interp.methods._shared.circuit.file:load_circuit",
    "load_labels": "interp.methods._shared.feature_labels:load_labels",
    "load_graph": "interp.methods._shared.trace.file:load_graph",
    "saliency_of_classifier": "interp.methods.readouts.saliency_of_classifier:saliency_of_classifier",
    "technique": "interp.interface.registry:technique",
}


@functools.cache
def _parts() -> frozenset[str]:
    return frozenset(part.name for part in pkgutil.iter_modules(__path__))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("interp")
    # `from interp import registry` asks here first; only an AttributeError makes Python look for the submodule.
    if name.startswith("_") or name in _parts():
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    if name in _NAMED:
        from interp.results import resolve

        return resolve(_NAMED[name])
    from interp.interface.session import bound, session

    if name == "model":
        return session.get()
    if name == "load":
        return _telling(session.load, name)
    from interp.errors import closest
    from interp.hints import ALIASES, HINTS
    from interp.interface import registry

    known = registry.commands()
    plainly = name.replace("_", "-")
    found = known.get(plainly) or known.get(ALIASES.get(plainly, ""))
    if found is None and name in HINTS:
        raise AttributeError(f"interp has no {name!r}: {HINTS[name]}")
    if found is None:
        raise AttributeError(f"interp has no {name!r}{closest(name, [*known, *_NAMED, 'model', 'load'])}")
    return _telling(bound(found, session), found.name)


def _telling(call: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return `call`; in a notebook it says how far it is."""
    if "IPython" not in sys.modules:
        return call
    from interp.magics.called import telling

    return telling(call, name)


def __dir__() -> list[str]:
    from interp.interface import registry

    return sorted([*_NAMED, "model", "selection", *(name.replace("-", "_") for name in registry.commands())])


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics and the completer; doing so again replaces them."""
    from interp.magics import install

    install(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magics and the completer out; loaded models stay loaded."""
    from interp.magics import uninstall

    uninstall(shell)
