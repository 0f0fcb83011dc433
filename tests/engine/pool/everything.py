"""Every command that goes to a pool, once, on a model that knows English: for pools that are dear to start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

import interp
from engine.pool.test_claims import bits
from interp.engine import memory
from interp.engine.circuits import pooled as circuits
from interp.engine.features import activations, activity, reading
from interp.engine.interchange import run as interchange
from interp.engine.patching import attribution_pooled, pooled
from interp.engine.readouts import text_passes
from interp.interface.session import session
from interp.methods._shared.heads import scores

PROMPT = "When Mary and John went to the store, John gave a drink to"
TEXTS = [
    f"{who} {did} the {what}{more}."
    for who in ("Anna", "The old man", "A dog")
    for did in ("saw", "took", "lost")
    for what, more in (("key", ""), ("bread", " and ran away"), ("letter", " in the morning"))
]
LABELS = ["saw" if " saw " in text else "other" for text in TEXTS]
CLAIM = "variable: name = {IO}\ncarried by: resid_post layer 2 at {S2}\nswap name -> the answer becomes the other name"

Call = tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]]

COMMANDS: Mapping[str, Call] = {
    "patch": (interp.patch, (), {"task": "ioi", "n": 4}),
    "attribution": (interp.patch, (), {"task": "ioi", "n": 4, "method": "attribution"}),
    "path": (interp.path, (), {"task": "ioi", "n": 4, "from_": "1.0,2.0", "to": "3.0.q,logits"}),
    "ablate": (interp.ablate, (), {"task": "ioi", "n": 4, "heads": "1.0,2.0", "mode": "mean"}),
    "mediate": (interp.mediate, (), {"task": "ioi", "n": 4}),
    "circuit-exact": (interp.circuit, (), {"task": "ioi", "n": 2, "method": "exact", "level": "head", "edges": 20}),
    "circuit-eap": (interp.circuit, (), {"task": "ioi", "n": 3, "method": "eap", "edges": 20}),
    "circuit-eap-ig": (interp.circuit, (), {"task": "ioi", "n": 3, "method": "eap-ig", "steps": 3, "edges": 20}),
    "circuit-acdc": (interp.circuit, (), {"task": "ioi", "n": 2, "method": "acdc", "threshold": 0.5, "among": 60}),
    "validate": (lambda **how: interp.validate(found(), **how), (), {"random": 2, "top": 3, "n": 2}),
    "heads": (interp.heads, (), {"n": 4}),
    "roles": (interp.heads, (), {"task": "ioi", "n": 4}),
    "lens-train": (interp.lens_train, (TEXTS,), {"steps": 5, "batch": 32}),
    "probe": (interp.probe, (TEXTS, LABELS), {"folds": 2, "shuffles": 1}),
    "neurons": (interp.neurons, ("1.*", TEXTS), {}),
    "claim": (interp.claim, (CLAIM,), {"task": "ioi", "n": 8, "controls": "labels,random,below"}),
    "claims": (interp.claims, (), {}),  # the one above
    "investigate": (interp.investigate, (PROMPT,), {"candidates": 6, "verify": 4, "heads": 1}),
    "feature": (interp.feature, ("2.3", TEXTS), {}),
    "features-label": (interp.features_label, ("2.3,2.7", TEXTS), {}),
    "patch-features": (interp.patch, (), {"task": "ioi", "n": 1, "site": "features", "layer": 2}),
    "features-train": (interp.features_train, (TEXTS,), {"layer": 1, "width": 16, "k": 4, "steps": 6, "batch": 32}),
    "selfcheck": (interp.selfcheck, (), {"program": "induction", "n": 2}),
}
# What is asked otherwise of a model of thirty layers, which would take minutes.
LARGER: Mapping[str, Mapping[str, Any]] = {
    "patch": {"layer": "9,20", "n": 2},
    "attribution": {"n": 2},
    "path": {"from_": "5.0,6.1", "to": "20.0.q,logits", "n": 2},
    "ablate": {"heads": "5.0,6.1"},
    "mediate": {"n": 1},
    "circuit-eap": {"level": "head"},
    "circuit-eap-ig": {"level": "head"},
    "circuit-acdc": {"n": 1, "among": 20},
    "lens-train": {"steps": 2, "layer": "3,9"},
}
SMALL_ONLY = ("circuit-exact", "validate")  # of 45,000 edges, of which the fewest are none


def found() -> Any:
    """Return a circuit, found without a pool."""
    pool, session.pool = session.pool, None
    circuit = interp.circuit(task="ioi", n=2, method="eap", edges=20)
    session.pool = pool
    return circuit


def cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make shards so small that a few prompts fill several."""
    for module, name, size in (
        (pooled, "ROWS", 200),
        (attribution_pooled, "ROWS", 200),
        (circuits, "ROWS", 500),
        (memory, "GRADIENT_ROWS", 30),
        (scores, "_TOGETHER", 200),
        (text_passes, "TOKENS", 60),
        (reading, "_CHUNK", 60),
        (activations, "_PARTS", 2),
        (interchange, "SHARD", 20),
        (interchange, "_PROMPTS", 5),
    ):
        monkeypatch.setattr(module, name, size)


def asked(name: str, pool: Any, **more: Any) -> Any:
    """Return all that a command's result says, computed anew in a pool."""
    session.pool = pool
    for model in session.models.values():
        model.store.clear()
        activity.forget(model)
    function, body, how = COMMANDS[name]
    result = function(*body, **{**how, **more})
    session.pool = None
    return bits(result)
