"""A live view as a page of its own: all that it asks is answered there, and nothing but its own script runs."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
from widgets.conftest import made
from widgets.pages import taken_apart

HOSTILE = ("</script><script>window.ran = 1</script>", "<!--", "$x^2$", "\u2028\u2029", "\ud800", "\u202etfel", "\x00")


def read(page: Path) -> tuple[str, dict[str, Any], str]:
    """Return a page, its data and its script."""
    text = page.read_text("utf-8")
    parts = taken_apart(text)
    return text, parts.data, parts.code


def test_a_page_is_small_and_holds_every_head(tmp_path: Path) -> None:
    result = made(12, 12, 64)
    text, data, _ = read(result.save(tmp_path / "a.html"))
    assert len(text.encode()) <= 2_000_000
    heads = [name for name in data["answers"] if name.startswith("head ")]
    assert len(heads) == 144
    answer = data["answers"]['head {"head":7,"layer":3,"mode":"pattern"}']
    flat = np.frombuffer(base64.b64decode(answer["buffers"][0]["$bytes"]), "<f2")
    np.testing.assert_allclose(flat, result.pattern[3, 7][np.tril_indices(64)], atol=1e-3)


def test_only_its_own_script_may_run_and_nothing_is_fetched(tmp_path: Path) -> None:
    text, _, script = read(made(2, 2, 5).save(tmp_path / "a.html"))
    assert "interpAlone.start(" in script
    assert "connect-src" not in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)


def test_no_token_can_leave_its_place(tmp_path: Path) -> None:
    result = made(1, 2, len(HOSTILE), strings=HOSTILE, notes=HOSTILE[:1])
    text, data, _ = read(result.save(tmp_path / "a.html"))
    assert text.count("<script") == text.count("</script") == 2
    assert data["traits"]["meta"]["tokens"][2] == "$x^2$"


@pytest.fixture
def bundled(clean_session: Any) -> Any:
    return clean_session.load(device="cpu")


def test_a_sweep_holds_its_planes(bundled: Any, tmp_path: Path) -> None:
    result = interp.patch(task="ioi", n=2, by="head-position", layer="1-2")
    _, data, _ = read(result.save(tmp_path / "a.html"))
    layers, heads, positions = result.effect.shape
    assert len(data["answers"]) == layers + heads + positions
    assert bundled.name in json.dumps(data["traits"])


def test_a_circuit_s_nodes_say_what_they_do_or_why_not(bundled: Any, clean_session: Any, tmp_path: Path) -> None:
    circuit = interp.circuit(task="ioi", n=2, edges=20)
    _, data, _ = read(circuit.save(tmp_path / "a.html"))
    nodes = {name for name in data["traits"]["graph"]["nodes"] if name != "logits"}
    said = {name: answer for name, answer in data["answers"].items() if name.startswith("function ")}
    assert len(said) == len(nodes)
    assert any(answer["data"]["promotes"] for answer in said.values() if "data" in answer)
    clean_session.unload(bundled.name)
    _, data, _ = read(circuit.save(tmp_path / "b.html"))
    assert {"error"} == set().union(*(data["answers"][name] for name in said))


def test_a_view_that_was_saved_is_closed_and_the_shown_one_stays(tmp_path: Path) -> None:
    result = made(2, 2, 5)
    shown = result.widget
    result.save(tmp_path / "a.html")
    assert result.widget is shown
    assert shown.comm is not None


def test_what_has_no_live_view_is_a_picture(bundled: Any, tmp_path: Path) -> None:  # noqa: ARG001
    text = interp.tokens("The cat").save(tmp_path / "a.html").read_text("utf-8")
    assert "<script" not in text
