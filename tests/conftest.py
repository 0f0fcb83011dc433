"""Shared fixtures: a shell with the extension loaded, a clean session, and small random models."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# A job in the background is started with interrupts ignored; the tests of interrupts need Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)
pytest.register_assert_rewrite("faults.harness")
pytest_plugins = ["real"]  # the fixtures of real weights


# What asks for one of these needs weights that are fetched; tests/real.py makes them.
REAL = {"smollm2", "smollm2_folder", "smollm2_words", "gguf_file", "gemma3_file", "minilm", "minilm_folder"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs real weights or a browser, and what goes through every command; other slow tests say so."""
    for item in items:
        given: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
        # Some ask for a fixture by the name that they are parametrised with.
        if REAL & {*getattr(item, "fixturenames", ()), *(value for value in given.values() if isinstance(value, str))}:
            item.add_marker(pytest.mark.real)
        if Path(__file__).parent / "browser" in item.path.parents:
            item.add_marker(pytest.mark.browser)
        # Hundreds of commands, models and faults: minutes in all, though each is quick.
        if Path(__file__).parent / "faults" in item.path.parents and "name" in given:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Look for no garbage while tests are collected: what that makes stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="module", autouse=True)
def _nothing_of_earlier_files_is_looked_through() -> None:
    """Let collections pass over what is there when a file begins.

    All files' tests and the libraries are a million objects and more, which each collection would look through for a
    second; letting go of a model is a collection.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return ``folder(family, bos=True, added=())``: a model saved as a Hugging Face folder, made once."""
    made: dict[Any, Path] = {}

    def of(family: str = "gpt2", *, bos: bool = True, added: Sequence[str] = ()) -> Path:
        import models

        key = (family, bos, tuple(added))
        if key not in made:
            name = family if bos else f"{family}-no-bos"
            made[key] = models.save(tmp_path_factory.mktemp("models") / name, family, bos=bos, added=added)
        return made[key]

    return of


@pytest.fixture(scope="session")
def _engine_models(folder: Callable[..., Path]) -> Callable[..., Any]:
    made: dict[Any, Any] = {}

    def of(family: str = "gpt2", *, bos: bool = True, added: Sequence[str] = ()) -> Any:
        from interp.engine.model.load import Options, load

        key = (family, bos, tuple(added))
        if key not in made:
            made[key] = load(folder(family, bos=bos, added=added), options=Options(device="cpu"))
        return made[key]

    return of


@pytest.fixture
def clean_session() -> Iterator[Any]:
    """Yield the session with no model in it and the default settings, and empty it again."""
    from interp.interface.session import Settings, session

    def empty() -> None:
        session.models.clear()
        session.current = None
        session.kept = []
        session.settings = Settings()
        session.on_step = None
        if session.pool is not None:
            session.pool.close()
            session.pool = None

    empty()
    yield session
    empty()


@pytest.fixture(scope="module")
def _states() -> dict[Any, str]:
    """Of each model that tests of a file share: its fingerprint."""
    return {}


@pytest.fixture
def lend(
    clean_session: Any, _engine_models: Callable[..., Any], _states: dict[Any, str]
) -> Iterator[Callable[..., Any]]:
    """Return ``lend(family, bos=True, added=())``: a loaded model shared by all tests, as the current one.

    Whoever changes its weights, its hooks or its shape, or unloads it, loads an own one from `folder` instead.
    """
    from interp.methods._shared import features

    lent: list[Any] = []

    def of(family: str = "gpt2", **kind: Any) -> Any:
        model = _engine_models(family, **kind)
        model.store.clear()
        # Not a part of what happened to be free when the first test asked, nor what an earlier test has set.
        model.store.set_budget(1 << 28, 0)
        for name in features.names(model):
            features.unloaded(model, name)
        clean_session.models[model.name] = model
        clean_session.current = model.name
        if model not in _states:
            _states[model] = model.fingerprint()
        lent.append(model)
        return model

    yield of
    for model in lent:
        model.store.clear()
        before, _states[model] = _states[model], model.fingerprint()
        assert _states[model] == before, "a test changed a model that it shares with others"


@pytest.fixture
def interrupts_in_collections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an interrupt be that lands while objects are collected, where it can be raised to nobody.

    What reports it takes a while, in which the next one may land.
    """
    told = sys.unraisablehook

    def tell(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            told(unraisable)

    monkeypatch.setattr(sys, "unraisablehook", tell)


@pytest.fixture
def every_sweep_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep nothing of where a sweep's interventions end: what is asked again is run again."""
    monkeypatch.setattr(importlib.import_module("interp.engine.patching.ends"), "_SHARE", float("inf"))


@pytest.fixture(scope="session")
def _one_shell() -> Any:
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    # The libraries' own objects need no looking through again: a collection then takes milliseconds.
    importlib.import_module("interp.engine.model.load")
    gc.collect()
    gc.freeze()
    importlib.import_module("torch").set_num_threads(1)  # threads that wait for a busy core cost more than they give
    config = Config()
    config.HistoryManager.enabled = False
    return InteractiveShell.instance(config=config)


@pytest.fixture
def shell(_one_shell: Any, clean_session: Any) -> Iterator[Any]:  # noqa: ARG001
    """Yield an IPython shell with the extension loaded and nothing of an earlier test in its namespace."""
    before = set(_one_shell.user_ns)
    _one_shell.run_line_magic("load_ext", "interp")
    yield _one_shell
    if "interp" in _one_shell.extension_manager.loaded:
        _one_shell.run_line_magic("unload_ext", "interp")
    _one_shell.config.pop("Interp", None)  # or the next test's extension is configured with it
    for name in set(_one_shell.user_ns) - before:
        del _one_shell.user_ns[name]
        _one_shell.user_ns_hidden.pop(name, None)
    hook = _one_shell.displayhook
    hook._ = hook.__ = hook.___ = ""
    _one_shell.push({"_": "", "__": "", "___": ""}, interactive=False)
    _one_shell.user_ns["_oh"].clear()
