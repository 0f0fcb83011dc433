"""The real models, fetched once into a cache outside the checkout; a test that cannot have them fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fetch_gemma3
import fetch_smollm2

PROMPT = "The capital of France is"
STORE = "When Mary and John went to the store, John gave a drink to"


@cache
def _loaded(folder: Path) -> Any:
    from interp.engine.model.load import Options, load

    return load(folder, options=Options(device="cpu"))


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """Return the folder of SmolLM2-135M-Instruct, dequantised to float32."""
    return fetch_smollm2.fetch()


@pytest.fixture(scope="session")
def gguf_file() -> Path:
    """Return SmolLM2's GGUF file."""
    return fetch_smollm2.fetch_gguf()


@pytest.fixture(scope="session")
def gemma3_file() -> Path:
    """Return Gemma 3 270M's GGUF file."""
    return fetch_gemma3.fetch()


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """Return the folder of MiniLM, a BERT-type encoder without a language-model head."""
    return fetch_smollm2.fetch_minilm()


@pytest.fixture
def smollm2(smollm2_folder: Path, clean_session: Any) -> Any:
    """Return SmolLM2 as the current model, shared by all tests, with an empty store."""
    return _current(smollm2_folder, clean_session)


@pytest.fixture
def minilm(minilm_folder: Path, clean_session: Any) -> Any:
    """Return MiniLM as the current model, shared by all tests, with an empty store."""
    return _current(minilm_folder, clean_session)


def _current(folder: Path, session: Any) -> Any:
    model = _loaded(folder)
    model.store.clear()
    session.models[model.name] = model
    session.current = model.name
    return model


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Run torch on one thread: a small model gains nothing from more, and waits for them where cores are busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
