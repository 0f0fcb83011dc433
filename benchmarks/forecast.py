"""What commands take against what was forecast: seconds and peak memory of two dozen, on three models.

Each command is asked with ``dry_run`` and then run, on the bundled model, on a random one of GPT-2's shape and on
SmolLM2; one on other pairs comes before them, so that what a process takes but once is apart. Seconds are those of the
first run; memory is that of a second one, from an empty store and with all comparisons again. Printed for each:
forecast and measured, and their ratio, which is to lie within 0.5–2 for seconds and 0.8–1.5 for memory. Seconds are
those that pass, so that what else the machine does is in them.

``python benchmarks/forecast.py [--threads N] [--only TEXT]``
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fetch_smollm2
import torch
import transformers
from patching import pairs_of

import interp
from interp.engine import exactness
from interp.engine.features import activity
from interp.interface.session import session

SECONDS, MEMORY = (0.5, 2.0), (0.8, 1.5)
LABELLED = ",".join(f"1.{n}" for n in range(40))
Case = tuple[str, Callable[..., Any]]


def texts_of(count: int, longest: int) -> list[str]:
    """Return texts of words that the bundled model knows, in random order."""
    words = [
        "Mary",
        "John",
        "the",
        "store",
        "gave",
        "a",
        "drink",
        "to",
        "house",
        "near",
        "and",
        "went",
        "Tom",
        "cat",
        "sat",
        "on",
        "mat",
        "When",
        "garden",
        "book",
        "park",
    ]
    chance = random.Random(0)
    return [" ".join(chance.choices(words, k=chance.randint(longest // 2, longest))) for _ in range(count)]


def bundled() -> Iterator[Case]:
    """Yield commands on the bundled model."""
    interp.load(device="cpu")
    task: dict[str, Any] = {"task": "ioi", "n": 32}
    interp.patch(task="ioi", n=8, seed=9)
    yield "patch, heads", lambda **k: interp.patch(**task, **k)
    yield "patch, heads × positions", lambda **k: interp.patch(**task, by="head-position", **k)
    yield "attribution, 5 steps", lambda **k: interp.patch(**task, method="attribution", steps=5, **k)
    yield "path, all → logits", lambda **k: interp.path(**task, from_="all", to="logits", **k)
    whole: dict[str, Any] = {"answer": " John and Mary went", "wrong": " Mary and John"}
    pair = ("When John and Mary went to the store, Mary gave a drink to",) * 2
    pair = (pair[0], pair[1].replace(", Mary", ", John"))
    yield "patch, whole answers", lambda **k: interp.patch(*pair, **whole, by="head-position", **k)
    yield "loss, 300 texts", lambda **k: interp.loss(texts_of(300, 100), **k)
    yield "circuit, exact", lambda **k: interp.circuit(**task, method="exact", **k)
    found = interp.circuit(**task, edges=60, method="eap")
    yield "validate", lambda **k: interp.validate(found, n=16, **k)
    interp.features_load("bundled")
    texts = texts_of(300, 40)
    interp.feature("0.1", texts[:3])
    yield "feature, 300 texts", lambda **k: interp.feature("2.17", texts, **k)
    yield "features-label, 40 features", lambda **k: interp.features_label(LABELLED, texts, **k)
    yield "features-train, 4 layers", lambda **k: interp.features_train(texts, width=512, steps=60, **k)
    yield (
        "features-train, resid_post",
        lambda **k: interp.features_train(texts, site="resid_post", layer=1, width=2048, steps=20, **k),
    )


def shaped() -> Iterator[Case]:
    """Yield commands on a random model of GPT-2's shape."""
    torch.manual_seed(0)
    shape = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    interp.load(shape, name="random GPT-2 small shape", device="cpu")
    one, eight, apart = (pairs_of(50257, 15, *rest) for rest in ((10, 1, 1), (10, 8, 3), (1, 1, 5)))
    interp.patch(pairs=pairs_of(50257, 15, 10, 1, 9))
    yield "patch, heads, 1 pair", lambda **k: interp.patch(pairs=one, **k)
    yield "patch, heads, 8 pairs", lambda **k: interp.patch(pairs=eight, **k)
    yield "patch, heads, nothing shared", lambda **k: interp.patch(pairs=apart, **k)
    yield "patch, heads × positions", lambda **k: interp.patch(pairs=one, by="head-position", **k)
    yield "patch, resid_pre, 8 pairs", lambda **k: interp.patch(pairs=eight, site="resid_pre", by="position", **k)
    yield "attribution, 8 pairs", lambda **k: interp.patch(pairs=eight, method="attribution", **k)
    yield "circuit, eap, 8 pairs", lambda **k: interp.circuit(pairs=eight, method="eap", **k)
    yield "path, heads → logits", lambda **k: interp.path(pairs=one, from_="heads", to="logits", **k)
    yield "mediate", lambda **k: interp.mediate(pairs=eight, layer="0-3", **k)


def smollm2() -> Iterator[Case]:
    """Yield commands on SmolLM2."""
    interp.load(fetch_smollm2.fetch(), name="SmolLM2", device="cpu")
    task: dict[str, Any] = {"task": "ioi", "n": 4}
    interp.patch(task="ioi", n=1, seed=9)
    yield "patch, heads", lambda **k: interp.patch(**task, **k)
    yield "patch, mlp_out", lambda **k: interp.patch(**task, site="mlp_out", by="layer", **k)
    yield "attribution", lambda **k: interp.patch(**task, method="attribution", **k)
    yield "ablate, 3 heads", lambda **k: interp.ablate(**task, heads="0.1,5.2,20.3", **k)
    yield "circuit, eap-ig", lambda **k: interp.circuit(**task, **k)


def judged(forecast: float, measured: float, bar: tuple[float, float]) -> tuple[str, bool]:
    """Return the ratio in words, and whether it is within the bar."""
    ratio = forecast / max(measured, 1e-9)
    fits = bar[0] <= ratio <= bar[1]
    return f"{ratio:5.2f}{' ' if fits else '!'}", fits


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--only", default="", help="models whose name holds this alone")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    print(f"forecast ÷ measured; bars: seconds {SECONDS}, memory {MEMORY}")
    within, count = [0, 0], 0
    for cases in (bundled, shaped, smollm2):
        if options.only not in cases.__name__:
            continue
        for name, call in cases():
            model = session.get()
            model.store.clear()
            told, taken = call(dry_run=True), call().provenance
            # Kernels keep memory for each shape that they meet first, for as long as the process lasts.
            model.store.clear()
            exactness.forget(model)
            activity.forget(model)
            most = call().provenance.peak_bytes
            seconds, quick = judged(told.seconds, taken.seconds, SECONDS)
            memory, small = judged(told.peak_bytes, most, MEMORY)
            within, count = [within[0] + quick, within[1] + small], count + 1
            print(
                f"  {model.name:<24} {name:<29} seconds {seconds} ({told.seconds:6.2f} / {taken.seconds:6.2f})   "
                f"memory {memory} ({told.peak_bytes / 1e6:6.1f} / {most / 1e6:6.1f} MB)   "
                f"forwards {told.forwards} / {taken.forwards}",
                flush=True,
            )
        session.models.clear()
    print(f"within the bars: seconds {within[0]} of {count}, memory {within[1]} of {count}")


if __name__ == "__main__":
    main()
