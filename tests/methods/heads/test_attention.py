"""The numbers that describe a head, against patterns for which they are known."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import interp
from interp.errors import InputError
from interp.methods.heads.attention import statistics
from interp.results import as_data


def of(pattern: Any) -> dict[str, float]:
    return {name: float(v[0, 0]) for name, v in statistics(np.asarray(pattern, np.float32)[None, None]).items()}


@given(n=st.integers(1, 40))
def test_the_identity(n: int) -> None:
    assert of(np.eye(n)) == pytest.approx({"entropy": 0, "distance": 0, "focus": 1, "first_token": 1 / n}, abs=1e-6)


@given(n=st.integers(1, 40))
def test_a_uniform_causal_pattern(n: int) -> None:
    rows = np.arange(1, n + 1)
    pattern = np.tril(np.ones((n, n))) / rows[:, None]
    expected = {
        "entropy": np.log(rows).mean(),
        "distance": ((rows - 1) / 2).mean(),
        "focus": (1 / rows).mean(),
        "first_token": (1 / rows).mean(),
    }
    assert of(pattern) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(n=st.integers(1, 40))
def test_a_uniform_pattern_in_both_directions(n: int) -> None:
    expected = {"entropy": np.log(n), "distance": (n * n - 1) / (3 * n), "focus": 1 / n, "first_token": 1 / n}
    assert of(np.full((n, n), 1 / n)) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(n=st.integers(1, 40))
def test_the_previous_token(n: int) -> None:
    pattern = np.eye(n, k=-1)
    pattern[0, 0] = 1
    expected = {"entropy": 0, "distance": (n - 1) / n, "focus": 1, "first_token": min(n, 2) / n}
    assert of(pattern) == pytest.approx(expected, abs=1e-6)


def test_half_and_half() -> None:
    pattern = np.zeros((4, 4))
    pattern[0, 0] = 1
    pattern[1:, 0] = pattern[[1, 2, 3], [1, 2, 3]] = 0.5
    expected = {"entropy": 0.75 * np.log(2), "distance": (0.5 + 1 + 1.5) / 4, "focus": 0.625, "first_token": 0.625}
    assert of(pattern) == pytest.approx(expected)


def test_chosen_layers_and_heads_are_those(lend: Callable[..., Any]) -> None:
    lend("llama")
    whole = interp.attention("When Mary and John")
    part = interp.attention("When Mary and John", layer=[1, 0], head=3)
    assert (part.layers, part.heads) == ((1, 0), (3,))
    assert np.array_equal(part.pattern, whole.pattern[[1, 0]][:, [3]])
    for name in whole.stats:
        assert np.allclose(part.stats[name], whole.stats[name][[1, 0]][:, [3]])
    assert np.array_equal(part.head("0.3"), whole.head("0.3"))
    for wrong in ("0.1", "5.3", "x", "0", "-1.3"):
        with pytest.raises(InputError):
            part.head(wrong)
    table = whole.to_frame()
    assert len(table) == 8
    assert table.entropy[5] == pytest.approx(whole.stats["entropy"][1, 1])


@pytest.mark.parametrize(("arguments", "message"), [({"layer": 2}, "no layer 2"), ({"head": -1}, "no head -1")])
def test_a_layer_or_head_that_is_not_there(lend: Callable[..., Any], arguments: Any, message: str) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=message):
        interp.attention("The cat", **arguments)


def test_nan_is_said(folder: Callable[..., Any], clean_session: Any) -> None:
    import torch

    model = clean_session.load(folder("gpt2"), device="cpu")
    with torch.no_grad():
        model.bridge.blocks[1].attn.q.original_component.weight.fill_(float("nan"))
    assert "NaN" in interp.attention("The cat").notes[0]
    assert "NaN" in interp.predict("The cat").notes[0]


def test_patterns_that_are_large_are_in_a_file(lend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers and pictures; a disk without room is said to be one before anything is run."""
    model = lend("llama")
    ids = [5, 6, 7, 8, 9, 10]
    plain = interp.attention(ids, head=[0, 2, 3])
    model.store.clear()
    one_layer = 4 * model.geometry.n_heads * len(ids) ** 2
    monkeypatch.setattr("interp.methods._shared.patterns._IN_MEMORY", one_layer)
    large = interp.attention(ids, head=[0, 2, 3])
    assert isinstance(large.pattern, np.memmap)
    assert not isinstance(plain.pattern, np.memmap)
    assert "in a temporary file, not in memory" in large.notes[0]
    np.testing.assert_array_equal(large.pattern, plain.pattern)
    for name, values in plain.stats.items():
        np.testing.assert_array_equal(large.stats[name], values)
    assert large.html()
    assert as_data(large)["pattern"] == as_data(plain)["pattern"]
    before = model.forwards
    room = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: room)
    with pytest.raises(InputError, match="choose layers with --layer"):
        interp.attention(ids[:-1], head=[0, 2, 1])
    assert model.forwards == before
