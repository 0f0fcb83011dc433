"""The picture of losses: surprise is loud, the expected is quiet, and every number is under the pointer."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from interp.methods._shared.loss_result import LossResult
from interp.results import Provenance
from interp.views import loss as view
from views.pictures import HOSTILE


def made(lengths: tuple[int, ...] = (6,), tokens: tuple[str, ...] = (), **fields: Any) -> LossResult:
    """Return losses that rise from 0 on in each text."""
    starts = np.array([0, *np.cumsum(lengths)], np.int64)
    count = int(starts[-1])
    at = np.concatenate([np.arange(n) for n in lengths])
    values = np.where(at == 0, np.nan, (at - 1) * 1.5)
    per_text = np.array([np.nanmean(values[a:b]) for a, b in pairwise(starts)])
    ids = np.where(at == 0, -1, 5)[:, None].repeat(2, 1)
    nothing = np.full(2, np.nan)
    given: dict[str, Any] = {
        "tokens": tokens or tuple(f" t{n}" for n in range(count)),
        "ids": np.arange(count),
        "starts": starts,
        "loss": values,
        "rank": np.where(at == 0, -1, at * 10),
        "top_ids": ids,
        "top_probabilities": np.where(ids < 0, np.nan, 0.25).astype(np.float32),
        "names": {5: " <b>five"},
        "repeated": at == 3,
        "per_text": per_text,
        "mean": float(np.nanmean(values)),
        "mean_interval": nothing,
        "repeated_mean": 3.0,
        "repeated_interval": nothing,
        "other_mean": 2.0,
        "other_interval": nothing,
        "in_context": None,
        "in_context_interval": nothing,
        "against_loss": np.full(count, np.nan),
        "provenance": Provenance(model="test-model", technique="loss"),
    }
    return LossResult(**(given | fields))


def painted(svg: str) -> list[int]:
    """Return the step of each token's colour, in their order."""
    return [int(step) for step in re.findall(r'rx="3" style="fill:var\(--interp-s(\d+)\)', svg)]


def test_the_louder_the_less_expected() -> None:
    page = made((8,)).html()
    steps = painted(page)
    assert steps == sorted(steps)
    assert len(steps) == 6  # neither the first token nor one of no loss is coloured
    # In proportion to the loss: the lift that other colours have would make small losses louder.
    assert np.diff(steps).max() - np.diff(steps).min() <= 1


def test_every_token_says_its_loss_rank_and_what_was_likelier() -> None:
    page = made().html()
    titles = re.findall("<title>(.*?)</title>", page)
    assert titles[0].endswith("nothing predicts it")
    assert "loss 1.5000 · p 0.22 · rank 20" in titles[2]
    assert "likeliest: ␣&lt;b&gt;five 0.250, ␣&lt;b&gt;five 0.250" in titles[2]
    assert "a repeated bigram" in titles[3]
    assert "a repeated bigram" not in titles[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_drawing_is_whole_and_runs_nothing(theme: str) -> None:
    count = len(HOSTILE)
    result = made((count,), HOSTILE, against="<i>other", against_loss=np.linspace(0, 2, count), source="<u>.csv")
    drawing = result.svg(theme)
    ElementTree.fromstring(drawing)
    for text in (drawing, result.html()):
        assert "<script" not in text
        assert "<img src=x" not in text
        assert "<i>other" not in text
        assert "<u>.csv" not in text


def test_several_texts_are_ranked_and_the_worst_are_written_out() -> None:
    result = made((3, 9, 5, 7))
    page = result.html()
    order = [page.index(f"Text {n}, ") for n in (1, 3, 2)]
    assert order == sorted(order)
    assert "Text 0, " not in page
    assert "the 3 texts of the largest mean loss are written out" in page
    assert page.index("Texts by their mean loss") < order[0]
    assert "no interval" not in page
    sure = made((3, 9, 5, 7), mean_interval=np.array([1.0, 4.0])).html()
    assert "95 % interval over 4 texts" in sure
    assert "95 % interval 2.72 to 54.60" in sure


def test_a_long_text_is_cut_and_its_chart_has_means() -> None:
    result = made((900,), loss=np.array([np.nan, *np.linspace(6, 2, 899)]))
    page = result.html()
    assert "its first 600 tokens" in page
    assert "the first 600 tokens of a text are written out" in page
    assert "Loss over positions, 23 to a point" in page
    assert len(re.findall("<circle", page)) == 40


def test_what_is_gained_in_context_is_in_the_footer() -> None:
    page = made(in_context=-0.25, in_context_interval=np.array([-0.5, -0.1])).html()
    assert "token 500 less token 50 <b>−0.250</b>" in page
    assert "[−0.500, −0.100]" in page
    assert "token 500" not in made().html()


def test_the_plotly_figure_has_a_line_for_each_text() -> None:
    figure = view.plotly(made((4, 6)), theme="dark")
    assert [len(one.x) for one in figure.data] == [4, 6]
    np.testing.assert_allclose(figure.data[1].y[1:], [0, 1.5, 3, 4.5, 6])


def test_two_tokens_and_nan_are_drawn() -> None:
    assert "Loss over positions" not in made((2,)).html()
    lost = made((4,), loss=np.full(4, np.nan), mean=float("nan"), repeated_mean=None, other_mean=None)
    assert "not a number" in lost.html()
