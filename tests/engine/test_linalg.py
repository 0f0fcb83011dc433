"""Decompositions get finite matrices: LAPACK ends the process where there is a NaN."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
import models
from interp.engine import linalg
from interp.errors import InputError

SOURCE = Path(interp.__file__).parent
# What calls LAPACK, of torch, numpy or scipy.
CALLS = re.compile(
    r"\b(?:torch|np|numpy|scipy)\.(?:linalg\.)?"
    r"(?:eig\w*|svd\w*|qr|solve\w*|lstsq|inv\w*|pinv\w*|cholesky\w*|lu\w*|schur|matrix_rank|slogdet|det|logdet|roots)\("
)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["eigenvalues", "qr", "triangle", "svd"])
def test_what_is_not_finite_is_refused_by_name(name: str, bad: float) -> None:
    matrix = torch.eye(4)
    getattr(linalg, name)(matrix, "these weights")
    matrix[1, 2] = bad
    with pytest.raises(InputError, match="these weights hold NaN or infinity"):
        getattr(linalg, name)(matrix, "these weights")


def test_nothing_else_calls_lapack() -> None:
    own = {SOURCE / "engine" / "linalg.py", SOURCE / "truth" / "compile.py"}  # numbers of its own, drawn
    found = [path.name for path in SOURCE.rglob("*.py") if path not in own and CALLS.search(path.read_text("utf-8"))]
    assert found == []
    assert CALLS.search((SOURCE / "engine" / "linalg.py").read_text("utf-8")), (
        "nothing would be found: this tests nothing"
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("family", ["gpt2", "llama", "neox"])
def test_no_kernel_dies_of_weights_that_are_not_finite(family: str, bad: float, clean_session: Any) -> None:
    model = models.FAMILIES[family](len(models.tokenizer()))
    loaded = clean_session.load(model, tokenizer=models.tokenizer(), device="cpu")
    with torch.no_grad():
        for parameter in loaded.hf_model.parameters():
            if parameter.dim() == 2:
                parameter[0, 0] = bad
    asked = {
        "ov": lambda: interp.ov("0.0", svd=2),
        "qk": lambda: interp.qk("0.0", svd=2),
        "heads": lambda: interp.heads(),
        "compose": lambda: interp.compose(),
        "probe": lambda: interp.probe(["a b", "b c", "c d", "d e"] * 3, ["x", "y", "x", "y"] * 3, folds=2),
    }
    for name, ask in asked.items():
        with pytest.raises(InputError) as refusal:
            ask()
        assert "NaN or infinity" in str(refusal.value), name
        assert "\n" not in str(refusal.value)
