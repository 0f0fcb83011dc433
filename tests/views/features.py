"""Features of known shape, made without a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.methods._shared.favourites import Favourite
from interp.methods._shared.feature_result import Exemplar, FeatureResult
from interp.results import Provenance

TOKENS = (" When", " Mary", " and", " John", " went", ",", " Mary", " gave", " it")


def exemplar(activation: float, decile: int, tokens: Sequence[str] = TOKENS, peak: int = 3, **given: Any) -> Exemplar:
    """Return a place whose activation falls off to its left and is 0 to its right."""
    around = [activation / 2 ** (peak - n) if n <= peak else 0.0 for n in range(len(tokens))]
    fields = {"times": 1, "text": decile, "position": 20 + peak, **given}
    return Exemplar(activation, decile, tuple(tokens), tuple(around), peak, **fields)


def planted(*, each: int = 2, tokens: Sequence[str] = TOKENS, **given: Any) -> FeatureResult:
    """Return a feature with some places of every tenth: activations 4, 3.96 … and as many in every bar."""
    exemplars = [
        exemplar(0.4 * decile - 0.04 * n, decile, tokens, min(3, len(tokens) - 1), times=1 + (n == 1), text=n)
        for decile in range(10, 0, -1)
        for n in range(each)
    ]
    ranked = tuple((name, 0.5 - 0.1 * n) for n, name in enumerate(tokens[:6]))
    fields: dict[str, Any] = {
        "name": "1.7",
        "of": "planted",
        "kind": "transcoder",
        "reads": "mlp_in",
        "writes": "mlp_out",
        "label": "the token is a name",
        "label_scores": {"precision": 0.5, "recall": 1.0, "F1": 0.67},
        "fired": 100,
        "tokens_read": 2000,
        "texts": 30,
        "mean": 2.0,
        "most": 4.0,
        "edges": 4.0 * 2.0 ** (np.arange(-10, 1) / 4),
        "histogram": np.full(10, 10, np.int64),
        "exemplars": tuple(exemplars),
        "promoted": ranked,
        "suppressed": tuple((name, -value) for name, value in ranked),
        "tokens": ranked,
        "heads": (("L0H1", 1.5), ("L0H0", 0.5)),
        "near": (("1.9", 0.7),),
        "together": (("1.3", 0.4), ("1.4", 0.2)),
        "shares": (0.5, 0.25),
        "direction": np.ones(8, np.float32),
        "site": "resid_post",
        "source": "",
        "provenance": Provenance(model="test", technique="feature"),
    }
    return FeatureResult(**{**fields, **given})


def optimised(**given: Any) -> FeatureResult:
    """Return one with an input that was found by gradients."""
    found = Favourite("1.7", (" Anna", " Bob"), (4, 5), (0.5, 6.0), (1.0, 6.0))
    return planted(favourite=found, **given)


def silent(**given: Any) -> FeatureResult:
    """Return one that is never active."""
    empty = {"exemplars": (), "together": (), "shares": (), "fired": 0, "mean": 0.0, "most": 0.0}
    return planted(label="", label_scores={}, edges=np.zeros(1), histogram=np.zeros(0, np.int64), **empty, **given)


def random(texts: int = 40, context: int = 10, each: int = 10, **given: Any) -> FeatureResult:
    """Return one as large ones are: long contexts, many bars."""
    rng = np.random.default_rng(0)
    words = [" Mary", " gave", " the", " drink", " to", " John", ".", "\n", " antidisestablishment", " café"]
    exemplars = []
    for decile in range(10, 0, -1):
        for value in sorted(rng.uniform(decile - 1, decile, each), reverse=True):
            count = 2 * context + 1
            around = rng.uniform(0, value, count) * (rng.random(count) < 0.3)
            around[context] = value
            picked = tuple(words[n] for n in rng.integers(0, len(words), count))
            at = int(rng.integers(0, texts)), context + int(rng.integers(0, 900))
            exemplars.append(Exemplar(float(value), decile, picked, tuple(around.tolist()), context, 1, *at))
    edges = 10 * 2.0 ** (np.arange(-48, 1) / 4)
    counts = rng.integers(0, 10_000, 48)
    more = {"edges": edges, "histogram": counts, "exemplars": tuple(exemplars), "most": 10.0, "texts": texts}
    return planted(**{**more, **given})
