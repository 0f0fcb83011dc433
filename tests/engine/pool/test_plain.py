"""What goes to workers: values come back as they were, and nothing but what is named is ever made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.dictionaries import transcoder

from interp.engine.features.dictionary import Act, Dictionary, Taken
from interp.engine.metrics import Scorer
from interp.engine.patching.cases import Case
from interp.engine.pool.plain import flat, whole
from interp.errors import InputError
from interp.ids import TypedIds
from interp.metric import Metric
from interp.sites import Site
from interp.spec import Intervention, Node

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(VALUES)
def test_any_nest_of_plain_values_comes_back(value: Any) -> None:
    assert whole(flat(value, {}), {}) == value


def test_what_the_engine_asks_with_comes_back() -> None:
    scorer = Scorer(Metric("kl"), (1, 2), (3,), torch.randn(5), 2, (7, 8))
    case = Case((1, 2), TypedIds((1, 3), (0, 1)), scorer, 1, True, 1, (((0, (1, 2)),),), None, (None, (1,)))
    held: dict[str, torch.Tensor] = {}
    found = whole(flat({"case": case, "at": range(2, 9, 3), 4: Node("q", 1, 2)}, held), held)
    assert found["at"] == range(2, 9, 3)
    assert found[4] == Node("q", 1, 2)
    made = found["case"]
    assert made.source.types == (0, 1)
    assert torch.equal(made.scorer.clean, scorer.clean)
    assert (made.base, made.spans, made.heard, made.scorer.metric) == (case.base, case.spans, case.heard, scorer.metric)
    array = np.arange(6, dtype=np.float16).reshape(2, 3).T
    held = {}
    assert np.array_equal(whole(flat((array, np.float32(2)), held), held)[0], array)
    change = Intervention(Site("z", 1), head=1, mode="add", value=torch.ones(3))
    held = {}
    again = whole(flat(change, held), held)
    assert (again.site, again.head, again.mode) == (change.site, 1, "add")


def test_a_dictionary_is_kept_by_its_digest() -> None:
    own = transcoder(4)
    tensors: dict[str, torch.Tensor] = {}
    assets: dict[str, Any] = {}
    data = flat({"one": own, "two": own}, tensors, assets)
    assert not tensors
    assert assets == {own.digest: own}
    assert whole(data, {}, assets)["two"] is own
    sent = flat(own, tensors)
    made = whole(sent, tensors)
    assert isinstance(made, Dictionary)
    assert isinstance(made.act, Act)
    assert isinstance(made.taken, Taken)
    assert made.digest == own.digest


def test_code_does_not_travel_and_nothing_else_is_made() -> None:
    with pytest.raises(InputError, match="a function does not go to workers"):
        flat(Metric("mine", flat), {})
    with pytest.raises(InputError, match="a PosixPath does not go"):
        flat({"x": __import__("pathlib").Path()}, {})
    for data in ({"of": "Path", "fields": {}}, {"other": 1}, {"of": "Case"}, 1j):
        with pytest.raises((ValueError, TypeError)):
            whole(data, {})
