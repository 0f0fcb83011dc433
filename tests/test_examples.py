"""The examples in docstrings, run as they are written, on the bundled model."""

from __future__ import annotations

import builtins
import doctest
import importlib
import io
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import dictionaries
import interp
from interp.tasks import _registry as task_registry

SOURCE = Path(interp.__file__).parent
MODULES = sorted(
    ".".join(("interp", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for path in SOURCE.rglob("*.py")
)
LINE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
REVIEWS = "text,label\na great film,1\na dull film,0\n"

# Commands that take seconds.
SLOW = ("selfcheck", "investigat", "probe", "validate", "mediate", "checks.task")

# What an example of a Result's method calls `result`, by the module of its class.
RESULTS: dict[str, Callable[[], Any]] = {
    "interp.methods._shared.circuit.selfcheck_result": lambda: interp.selfcheck(
        program="induction", ablation="corrupted", n=2
    ),
    "interp.methods._shared.investigation.result": lambda: interp.investigate(
        "When Mary and John went to the store, John gave a drink to", candidates=8
    ),
    "interp.methods.heads.attention": lambda: interp.attention("The cat sat"),
    "interp.methods._shared.feature_result": lambda: feature(),
    "interp.methods._shared.loss_result": lambda: interp.loss("The capital of France is Paris."),
    "interp.methods._shared.patching.result": lambda: interp.patch(task="ioi", n=2),
    "interp.methods.patching.mediate": lambda: interp.mediate(task="ioi", n=6),
    "interp.methods.patching.path": lambda: interp.path(task="ioi", n=2, from_="1.0", to="3.1.q"),
    "interp.methods.readouts.dla": lambda: interp.dla("The capital of France is", answer=" Paris"),
    "interp.methods.readouts.lens": lambda: interp.lens("The capital of France is", target=" Paris"),
    "interp.methods.readouts.lens_train": lambda: interp.lens_train(["The cat sat on the mat."], steps=2),
    "interp.methods._shared.feature_labels": lambda: labelled(),
    "interp.methods.features.features_train": lambda: interp.features_train(["A cat sat."], width=32, steps=2),
    "interp.methods.readouts.neurons": lambda: interp.neurons("1.*", ["Once upon a time there was a cat"]),
    "interp.methods._shared.saliency_result": lambda: interp.saliency("The capital of France is", answer=" Paris"),
    "interp.methods.text.steer": lambda: interp.steer("I am", layer=2, toward="I love you", against="I hate you"),
    "interp.methods._shared.generate_trace_result": lambda: interp.generate("The capital of France is", trace=True),
    "interp.methods._shared.circuit.result": lambda: interp.circuit(task="induction", n=2, edges=100),
    "interp.methods.readouts.probe": lambda: interp.probe(
        [f"a {word} {noun}" for word in ("great", "dull") for noun in ("film", "book", "song", "game", "play")],
        ["good"] * 5 + ["bad"] * 5,
    ),
    "interp.methods._shared.trace.result": lambda: traced(),
    "interp.methods._shared.trace.score_result": lambda: traced(head="2.0", from_=-1, to=2),
    "interp.results.base": lambda: interp.attention("Alice met Bob", layer=1),
    "interp.results.verified": lambda: interp.attention("Alice met Bob", layer=1),
}


def labelled() -> Any:
    interp.features_load("bundled")
    return interp.features_label("2.17", ["The cat sat on the mat.", "The dog sat on the rug."])


def feature() -> Any:
    interp.features_load("bundled")
    return interp.feature("2.17", ["The cat sat on the mat.", "The dog sat on the rug."])


def traced(**options: Any) -> Any:
    interp.features_load("bundled")
    return interp.trace("The cat sat on the", **options)


@cache
def bundled() -> Any:
    return interp.load(device="cpu")


@pytest.fixture
def model(clean_session: Any) -> Iterator[Any]:
    """Yield the bundled model, the same for every example, as the current one."""
    held = bundled()
    clean_session.models[held.name] = held
    clean_session.current = held.name
    state = held.fingerprint()
    yield held
    if clean_session.models.get(held.name) is held:
        assert held.fingerprint() == state, "an example changed the model that it shares with others"
    else:  # an example of loading has put another one in its place
        bundled.cache_clear()
        result_of.cache_clear()


def classifier() -> dict[str, Any]:
    """Return a small classifier of two classes with random weights, and its tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    import models

    tokenizer = models.tokenizer(encoder=True)
    config = BertConfig(
        num_hidden_layers=1, num_attention_heads=2, hidden_size=16, intermediate_size=16, vocab_size=len(tokenizer)
    )
    return {"classifier": BertForSequenceClassification(config).eval(), "tokenizer": tokenizer}


@cache
def result_of(module: str) -> Any:
    return RESULTS[module]()


def examples() -> list[Any]:
    found: list[Any] = []
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        module = importlib.import_module(name)
        for test in finder.find(module, name):
            if any(not example.options.get(doctest.SKIP) for example in test.examples):
                marks = [pytest.mark.slow] if any(part in test.name for part in SLOW) else []
                found.append(pytest.param(test, id=test.name.removeprefix("interp."), marks=marks))
    return found


@pytest.mark.parametrize("test", examples())
def test_an_example_gives_what_it_says(
    test: doctest.DocTest, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    import torch

    monkeypatch.chdir(tmp_path)
    (tmp_path / "reviews.csv").write_text(REVIEWS)
    (tmp_path / "stories.txt").write_text("Once upon a time there was a cat.\n")
    dictionaries.written(tmp_path / "dictionaries", model.geometry.d_model)
    module = test.name
    while module not in MODULES:
        module = module.rpartition(".")[0]
    names: dict[str, Any] = {"interp": interp, "np": np, "torch": torch, "model": model}
    if module in RESULTS and any("result" in example.source for example in test.examples):
        names["result"] = result_of(module)
    if module == "interp.methods.readouts.saliency_of_classifier":
        names |= classifier()
    test.globs = {**names, **vars(importlib.import_module(module))}
    said = io.StringIO()
    monkeypatch.setattr(task_registry, "_tasks", dict(task_registry._tasks))  # an example may declare a task
    monkeypatch.setattr(builtins, "_", None, raising=False)  # an example's value goes there; IPython minds it
    failed, tried = doctest.DocTestRunner(optionflags=LINE, verbose=False).run(test, out=said.write, clear_globs=False)
    assert tried > 0
    assert failed == 0, said.getvalue()


def test_no_example_that_help_prints_is_skipped() -> None:
    from interp.interface import registry

    skipped = [name for name, command in registry.commands().items() if "+SKIP" in (command.function.__doc__ or "")]
    assert skipped == []
