"""The demo notebooks, executed by a kernel as a user's first run would be."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import fetch_smollm2
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

DEMO = Path(__file__).parents[2] / "demo"
NOTEBOOKS = sorted(path.stem for path in DEMO.glob("*.ipynb"))


@cache
def run(name: str) -> Any:
    notebook = nbformat.read(DEMO / f"{name}.ipynb", as_version=4)
    if "INTERP_SMOLLM2" in str(notebook):
        os.environ["INTERP_SMOLLM2"] = str(fetch_smollm2.fetch())
    if "INTERP_MINILM" in str(notebook):
        os.environ["INTERP_MINILM"] = str(fetch_smollm2.fetch_minilm())
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=str(DEMO))
    return notebook


@pytest.fixture
def executed() -> Any:
    return run("quickstart")


def outputs(notebook: Any, source: str) -> list[Any]:
    found = [cell for cell in notebook.cells if cell.cell_type == "code" and source in cell.source]
    assert found, f"no cell holds {source!r}"
    return [output for cell in found for output in cell.outputs]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_code_cell_ran_without_an_error(name: str) -> None:
    code = [cell for cell in run(name).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    kinds = {output.output_type for cell in code for output in cell.outputs}
    assert "error" not in kinds
    assert not [o for cell in code for o in cell.outputs if o.output_type == "stream"], "something was printed"


def plain(cell: Any) -> str:
    return " ".join(output.data.get("text/plain", "") for output in cell.outputs if "data" in output)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_figures_in_the_prose_are_the_measured_ones(name: str) -> None:
    """Every figure in bold stands in the outputs above it, back to the text before, but for its rounding."""
    shown = ""
    for cell in run(name).cells:
        if cell.cell_type == "code":
            shown += plain(cell) + " "
            continue
        measured = [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", shown)]
        for said in re.findall(r"\*\*([-+−]?\d+(?:\.\d+)?)\*\*", cell.source):
            value = float(said.replace("−", "-"))
            unit = 10.0 ** -len(said.partition(".")[2])
            assert any(abs(value - number) <= unit for number in measured), f"{said} in {cell.source[:60]!r}: {shown}"
        shown = ""


def test_the_predictions_are_the_measured_ones(executed: Any) -> None:
    texts = [output.data["text/plain"] for output in outputs(executed, "%%interp predict")]
    assert "' Paris'" in texts[0]
    assert "' Mary'" in texts[1]


def test_the_pictures_are_inline_and_contact_nothing(executed: Any) -> None:
    shown = [output.data["text/html"] for output in outputs(executed, "%%interp") if "text/html" in output.data]
    assert len(shown) == 4
    for html in shown:
        assert "<script" not in html
        assert 'src="http' not in html
        assert "url(http" not in html


def test_the_same_question_runs_no_forward(executed: Any) -> None:
    assert outputs(executed, ".provenance.forwards")[0].data["text/plain"] == "0"


def test_the_readouts_are_the_measured_ones() -> None:
    notebook = run("readouts")
    assert abs(float(outputs(notebook, "dla.total - dla.logit")[0].data["text/plain"])) < 1e-4
    heads = "".join(str(output.data) for output in outputs(notebook, "%interp heads"))
    assert "L18H6 0." in heads  # the strongest induction head
    assert "L16H0 0." in heads  # the strongest previous-token head


def test_the_circuits_are_the_measured_ones() -> None:
    notebook = run("circuits")
    shown = "".join(str(output.data) for output in outputs(notebook, "%interp validate"))
    assert shown.count("this one is nearer to the whole model than all of them") >= 2
    assert "writer='0.0', reader='1.0.k'" in str(outputs(notebook, ".endswith")[0].data)  # previous token → induction
    assert float(outputs(notebook, "corrcoef")[0].data["text/plain"]) > 0.8


def test_by_hand_and_by_command_are_the_same() -> None:
    notebook = run("from-transformer-lens")

    def result(source: str) -> str:
        *_, output = outputs(notebook, source)  # a call that took long has said so before
        return output.data["text/plain"]

    assert result("run.logits == logits") == "(True, True)"
    assert result("patched.logits == by_hand") == "(True, False)"
    patched, cell = eval(result("patch_one"))
    assert patched == pytest.approx(cell, abs=1.1e-3)
    assert all(by_hand == by_lens for by_hand, by_lens, _ in eval(result("ln_final(cache")))
    logit, total = (eval(result("products ="))[name] for name in ("logit", "dla"))
    assert logit == pytest.approx(total, abs=1.1e-3)
    stripe, scores = eval(result("stripe = "))
    np.testing.assert_allclose(stripe, scores, atol=0.011)
    ours, full = (np.array(part) for part in eval(result("full = "), {"array": np.array, "float32": "float32"}))
    np.testing.assert_allclose(ours, full, atol=1.1e-3)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_committed_without_outputs(name: str) -> None:
    notebook = nbformat.read(DEMO / f"{name}.ipynb", as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]
