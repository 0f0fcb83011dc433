"""The circuit's drawing: where things lie, what is drawn, and that it says what the data says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from interp.errors import InputError
from interp.methods._shared.circuit.result import CircuitResult
from interp.results import Provenance
from interp.views import circuit as pictures
from interp.views.circuit_layout import EDGES, HALF, NODES, Arrangement, arrange, collapsed
from views.circuits import SMALL, planted, random
from views.pictures import HOSTILE

SHAPES = {
    "small": lambda: planted(SMALL),
    "two hundred": lambda: random(30, 9, 200, group=3),
    "large": lambda: random(24, 16, 800),
}


@pytest.fixture(params=SHAPES)
def result(request: pytest.FixtureRequest) -> CircuitResult:
    return SHAPES[request.param]()


def layer(node: str) -> float:
    first = node.partition(".")[0]
    return {"embed": -1.0, "logits": np.inf}.get(first) if not first.isdigit() else float(first)  # type: ignore[return-value]


def test_rows_are_layers_and_no_pill_is_on_another(result: CircuitResult) -> None:
    drawn = arrange(result)
    assert set(drawn.nodes) == set(result.nodes)
    for a in range(len(drawn.nodes)):
        for b in range(a):
            # Above each other as their layers are; an MLP may stand above the heads that it reads.
            if layer(drawn.nodes[b]) < layer(drawn.nodes[a]):
                assert drawn.y[b] > drawn.y[a]
            beside = abs(drawn.x[a] - drawn.x[b]) >= (drawn.wide[a] + drawn.wide[b]) / 2
            assert beside or abs(drawn.y[a] - drawn.y[b]) >= 2 * HALF, (drawn.nodes[a], drawn.nodes[b])
    assert (drawn.x - drawn.wide / 2).min() >= 38, "the rows' names have their place"
    assert (drawn.x + drawn.wide / 2).max() <= drawn.width
    assert (drawn.y + HALF).max() <= drawn.height
    assert (drawn.y - HALF).min() >= 0


def test_each_edge_goes_up_from_what_writes_to_what_reads(result: CircuitResult) -> None:
    drawn = arrange(result)
    assert {curve.edges[0] for curve in drawn.curves} == set(range(len(drawn.edges)))
    assert sorted(drawn.edges) == sorted(result.edges)
    for curve in drawn.curves:
        (edge,) = curve.edges
        assert drawn.nodes[curve.source] == drawn.edges[edge].writer
        assert drawn.nodes[curve.target] in result.reading(drawn.edges[edge].reader)
        assert (len(curve.path) - 1) % 3 == 0
        assert curve.path[0].tolist() == [drawn.x[curve.source], drawn.y[curve.source] - HALF]
        assert abs(curve.path[-1][0] - drawn.x[curve.target]) <= drawn.wide[curve.target] / 2
        ends = curve.path[::3]
        assert all(lower[1] >= upper[1] for lower, upper in pairwise(ends))


def test_a_shared_key_is_drawn_to_each_of_its_heads_that_are_there() -> None:
    edges = {("embed", "2.1.k"): 1.0, ("2.3", "logits"): 1.0, ("2.5", "logits"): 1.0, ("embed", "logits"): 0.1}
    drawn = arrange(planted(edges, heads=6, group=3))
    shared = next(n for n, edge in enumerate(drawn.edges) if edge.reader == "2.1.k")
    targets = [drawn.nodes[curve.target] for curve in drawn.curves if curve.edges == (shared,)]
    assert targets == ["2.3", "2.5"]


@pytest.mark.parametrize("count", [1, 3, 17, 60, 150])
def test_every_place_of_the_slider_is_a_circuit(count: int) -> None:
    result = random(12, 8, 200, group=2, seed=3)
    drawn = arrange(result)
    shown = drawn.shown(count)
    assert shown >= min(count, len(drawn.edges))
    held = np.zeros_like(result.kept)
    for edge in drawn.edges[:shown]:
        held[result.writers.index(edge.writer), result.readers.index(edge.reader)] = True
    whole = result.connected(held)
    assert (whole == held).all(), "an edge leads nowhere"
    # And it is the one that the threshold gives: all stronger edges that lie on a way.
    least = min(abs(edge.score) for edge in drawn.edges[:shown])
    assert (result.prune(least).kept & result.kept == held).all()


def test_edges_that_make_a_way_together_come_together() -> None:
    drawn = arrange(planted(SMALL))
    assert [drawn.shown(n) for n in range(len(SMALL) + 2)] == [0, 3, 3, 3, 4, 7, 7, 7, 9, 9, 9]
    first = {(edge.writer, edge.reader) for edge in drawn.edges[:3]}
    assert first == {("embed", "1.0.k"), ("1.0", "2.1.k"), ("2.1", "logits")}


def test_large_circuits_are_cut_to_what_can_be_drawn_and_stay_circuits() -> None:
    result = random(20, 12, 9000)
    drawn = arrange(result)
    assert result.kept.sum() > EDGES
    assert EDGES * 0.9 < len(drawn.edges) <= EDGES
    assert len(drawn.nodes) <= NODES
    assert drawn.upto[-1] == len(drawn.edges)
    many = random(50, 20, 2500, seed=1)
    many = replace(many, kept=many.exists & (many.scores > np.nanquantile(many.scores, 0.8)))
    assert len(arrange(many).nodes) <= NODES + 1


def test_an_order_of_few_crossings() -> None:
    # Two columns that never meet; whatever the names, each stays on its side.
    edges: dict[tuple[str, str], float] = {}
    for column in ([(0, 0), (1, 3), (2, 0), (3, 3)], [(0, 3), (1, 0), (2, 3), (3, 0)]):
        edges[("embed", f"{column[0][0]}.{column[0][1]}.v")] = 0.5
        for (a, b), (c, d) in pairwise(column):
            edges[(f"{a}.{b}", f"{c}.{d}.v")] = 1.0
        edges[(f"{column[-1][0]}.{column[-1][1]}", "logits")] = 0.5
    drawn = arrange(planted(edges))
    x = dict(zip(drawn.nodes, drawn.x, strict=True))
    sides = {np.sign(x[a] - x[b]) for a, b in (("0.0", "0.3"), ("1.3", "1.0"), ("2.0", "2.3"), ("3.3", "3.0"))}
    assert len(sides) == 1


def test_a_group_is_one_pill_and_its_edges_are_joined() -> None:
    result = planted(SMALL)
    whole = arrange(result)
    folded = collapsed(whole, {"the pair": ("1.0", "2.1")})
    assert folded.nodes[-1] == "the pair"
    assert folded.nodes[:-1] == whole.nodes
    assert (folded.x[:-1] == whole.x).all()
    assert (folded.y[:-1] == whole.y).all()
    ends = {(folded.nodes[c.source], folded.nodes[c.target]): c for c in folded.curves}
    assert ("1.0", "2.1") not in ends
    joined = ends["embed", "the pair"]
    assert {(whole.edges[n].writer, whole.edges[n].reader) for n in joined.edges} == {
        ("embed", "1.0.k"),
        ("embed", "2.1.q"),
    }
    place = folded.x[-1], folded.y[-1]
    assert place in list(zip(whole.x, whole.y, strict=True)), "in the place of a member"
    assert collapsed(whole, {"gone": ("5.3", "5.2")}).nodes == whole.nodes


def test_colours_widths_and_their_order() -> None:
    steps = [pictures.step(score, 1.0) for score in (1.0, 0.5, 0.1, 1e-9, -1e-9, -1.0, 7.0)]
    assert steps[0] == steps[-1] == -cast(int, steps[-2]) == pictures.STEPS
    assert steps == sorted(steps[:-1], reverse=True) + steps[-1:]  # type: ignore[type-var]
    assert steps[3] == pictures.FAINTEST
    assert pictures.step(float("nan"), 1.0) is None
    assert pictures.width(pictures.STEPS) == pictures.WIDEST > pictures.width(12) > pictures.width(pictures.FAINTEST)


def test_what_a_node_writes_counts_each_edge_once() -> None:
    edges = {("embed", "2.1.k"): 1.0, ("2.3", "logits"): 0.5, ("2.5", "logits"): 0.25, ("embed", "logits"): 0.1}
    drawn = arrange(planted(edges, heads=6, group=3))
    total = {drawn.nodes[node]: value for node, value in pictures.writes(drawn, len(drawn.edges)).items()}
    assert total == pytest.approx({"embed": 1.1, "2.3": 0.5, "2.5": 0.25})


def texts(drawing: str) -> list[str]:
    tree = ElementTree.fromstring(drawing)
    return ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_picture_names_its_nodes_and_the_numbers_of_its_edges(theme: str) -> None:
    result = planted(SMALL)
    drawing = result.svg(theme)
    found = texts(drawing)
    for pill in ("embed", "1.0", "2.1", "mlp 0", "logits", "+1.000", "−0.400", "2.1 → logits"):
        assert pill in found
    assert any("induction · EAP-IG · corrupted-prompt ablation · 1 pair · 9 edges" in line for line in found)
    assert any("not validated: %interp validate" in line for line in found)
    assert "var(--" not in drawing
    assert result.html().count("not validated") == 2, "on the page, and in the picture for a page that is not trusted"


def test_fewer_edges_a_chosen_node_and_unfolded_groups() -> None:
    result = planted(SMALL)
    few = texts(pictures.svg(result, edges=3))
    assert "mlp 0" not in few
    assert any("3 of 9 edges" in line for line in few)
    plain = result.svg()
    assert "opacity:0.16" not in plain
    assert "opacity:0.16" in pictures.svg(result, chosen="2.1")
    result.groups["the pair"] = ("1.0", "2.1")
    assert "the pair" in texts(result.svg())
    assert "the pair" not in texts(pictures.svg(result, unfolded=["the pair"]))
    assert "1.0" in texts(pictures.svg(result, unfolded=["the pair"]))
    with pytest.raises(InputError, match=r"no group 'the pear'.*the pair"):
        pictures.svg(result, unfolded=["the pear"])
    with pytest.raises(InputError, match=r"no node '9\.9'"):
        pictures.svg(result, chosen="9.9")


def test_the_footer_is_the_reports() -> None:
    report = SimpleNamespace(
        faithfulness=0.913,
        faithfulness_interval=np.array([0.87, 0.94]),
        cpr=1.62,
        cmd=float("nan"),
        stability=np.array([0.8, 0.84]),
        marginal_edges=("a → b",) * 50,
        removable=("a → b",) * 2,
        whole=np.zeros(32),
        pairs="fresh",
        chance=lambda: "0.08 ± 0.05",
    )
    said = "".join(lead + bold + "|" for lead, bold, _ in pictures.evidence(planted(SMALL, report=cast(Any, report))))
    assert said == (
        "faithfulness 0.91 [0.87, 0.94]|matched random 0.08 ± 0.05|CPR 1.62|CMD not reached|"
        "stability (Jaccard, 2 resamples) 0.82|removable edges 2 of 50 tested|32 fresh pairs|"
    )


def test_an_edge_without_a_number_is_hatched_and_an_empty_circuit_says_so() -> None:
    broken = planted({**SMALL, ("embed", "logits"): float("nan")})
    drawing = broken.svg()
    assert "stroke-dasharray:3 3" in drawing
    assert "not a number" not in drawing.split("<title>")[0]
    empty = planted({})
    assert arrange(empty).nodes == ()
    assert "no edge is in this circuit" in empty.svg()
    assert "no edge is in this circuit" in empty.html()


def test_nothing_that_is_shown_becomes_markup() -> None:
    for text in HOSTILE:
        result = planted(SMALL, task=text[:200], notes=(text,), provenance=Provenance(model=text, technique="circuit"))
        drawing = result.svg()
        ElementTree.fromstring(drawing)
        assert not re.search(r"<(script|img|a |b )", drawing + result.html().replace("<img class", ""))
        assert not set("\u202e\x00\x1b\ufeff") & set(drawing)


def test_the_same_circuit_has_the_same_drawing() -> None:
    result = random(12, 8, 200)

    def numbers(drawn: Arrangement) -> list[float]:
        return [*drawn.x, *drawn.y, *(value for curve in drawn.curves for value in curve.path.reshape(-1))]

    assert numbers(arrange(result)) == numbers(arrange(replace(result)))
