"""The report's picture: whole in both themes, complete on its own, with values that are missing and hostile words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interp.methods.circuits.validate import CircuitReport
from interp.results import Provenance
from views.pictures import HOSTILE


def report(pairs: int = 6, count: int = 20, **fields: Any) -> CircuitReport:
    """Return a report of a circuit that goes 0.8 of the way, without a model."""
    source = np.random.default_rng(0)
    each = source.normal(0.8, 0.1, pairs)
    sizes = np.array([0, 70, 140, 353, 707, 1413, 3533, 7065, 14130, 35326, 70651])
    curve = np.minimum(1.0, np.log1p(sizes) / np.log1p(7065))
    given: dict[str, Any] = {
        "edges": 353,
        "existing": 70651,
        "method": "eap-ig",
        "level": "edge",
        "metric": "logit-diff",
        "ablation": "corrupted",
        "task": "induction",
        "pairs": "fresh",
        "seed": 1,
        "whole": np.full(pairs, 5.0),
        "nothing": np.full(pairs, -5.0),
        "alone": 10 * each - 5,
        "without": np.full(pairs, -4.9),
        "faithfulness": float(each.mean()),
        "faithfulness_interval": np.array([0.7, 0.9]),
        "per_pair": each,
        "left": 0.01,
        "left_interval": np.array([0.0, 0.02]),
        "left_per_pair": np.full(pairs, 0.01),
        "sizes": sizes,
        "curve": curve,
        "curve_interval": np.stack([curve - 0.1, curve + 0.1]),
        "ranking": "absolute score",
        "cpr": 0.91,
        "cmd": 0.09,
        "marginal_edges": tuple(f"{n}.3 → {n + 1}.2.q" for n in range(8)),
        "marginal": np.linspace(0.3, -0.01, 8),
        "marginal_interval": np.stack([np.linspace(0.2, -0.02, 8), np.linspace(0.4, 0.0, 8)]),
        "removable": ("6.3 → 7.2.q", "7.3 → 8.2.q"),
        "random": source.normal(0.02, 0.02, count),
        "random_sizes": np.full(count, 353),
        "p_value": 1 / 21,
        "stability": source.uniform(0.4, 0.8, 100),
        "forwards": 1234,
        "seconds": 56.7,
        "provenance": Provenance(model="smollm2", technique="validate"),
    }
    return CircuitReport(**given | fields)


def drawn(svg: str) -> list[tuple[float, str]]:
    """Return each text's x and content, groups' places added."""
    found: list[tuple[float, str]] = []

    def walk(element: ElementTree.Element, x: float) -> None:
        moved = re.search(r"translate\(([-\d.]+)", element.get("transform", ""))
        x += float(moved[1]) if moved else 0.0
        if element.tag.endswith("text"):
            found.append((x + float(element.get("x", 0)), "".join(element.itertext())))
        for child in element:
            walk(child, x)

    walk(ElementTree.fromstring(svg), 0.0)
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_says_everything_inside_its_frame(theme: str) -> None:
    made = report()
    svg = made.svg(theme)
    texts = drawn(svg)
    said = " ".join(content for _, content in texts)
    for word in ("sufficiency", "necessity", "CPR 0.910, CMD 0.090", "p = 0.048", "6.3\u00a0→\u00a07.2.q", "Jaccard"):
        assert word in said, word
    for word in ("induction", "logit-diff", "corrupted ablation", "n = 6", "seed 1", "1,234 forwards, 56.7 s"):
        assert word in said, word
    assert "all ablated −5.00" in said
    wide = float(ElementTree.fromstring(svg).get("width", 0))
    assert wide <= 1120
    assert max(x + 5.4 * len(content) for x, content in texts if len(content) > 40) <= wide
    assert made.png(theme)[:4] == b"\x89PNG"
    assert ("#1e1f22" in svg) == (theme == "dark")


def test_the_curve_marks_the_circuit_and_the_random_ones() -> None:
    svg = report().svg()
    assert svg.count("<circle") == 11 + 1 + 6 + 6 + 20  # points, the ring, both rows of pairs, random circuits
    assert "random, 353" in svg
    alone = report(count=0, p_value=float("nan"))
    assert "random, 353" not in alone.svg()
    assert "random circuits were not run" in alone.text()


def test_what_was_not_reached_is_left_out() -> None:
    nan = float("nan")
    missing = report(
        curve=np.full(11, nan),
        curve_interval=np.full((2, 11), nan),
        marginal=np.full(8, nan),
        removable=(),
        random=np.full(20, nan),
        cpr=nan,
        cmd=nan,
        notes=("partial: interrupted after 30/500; what was not reached is NaN",),
    )
    assert "partial" in missing.html()
    assert missing.svg("dark").startswith("<svg")
    assert "edges were not removed" in missing.text()


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_words_of_others_are_text(word: str) -> None:
    made = report(metric=word, task=word, provenance=Provenance(model=word, technique="validate"))
    page = made.html()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert "\x1b" not in made.text()
    ElementTree.fromstring(made.svg())


def test_a_long_name_leaves_a_report_that_can_be_read() -> None:
    assert float(ElementTree.fromstring(report(task="x" * 10_000).svg()).get("height", 0)) < 1000


def test_a_page_has_the_picture_and_runs_nothing() -> None:
    page = replace(report(), notes=("a note",)).html()
    assert page.startswith('<div class="interp-frame ')
    assert "a note" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
