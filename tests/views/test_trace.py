"""The drawing of an attribution graph: where things lie, what is drawn, and that it says what the data says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from interp.errors import InputError
from interp.methods._shared.trace.result import TraceResult
from interp.results import Provenance
from interp.views import trace as pictures
from interp.views import trace_drawing, trace_report, trace_stability
from interp.views.trace_groups import collapsed
from interp.views.trace_labels import NONE, place
from interp.views.trace_layout import EDGES, LEFT, NEVER, NODES, Arrangement, arrange
from views.pictures import HOSTILE
from views.traces import check, planted, random, stable

SHAPES = {
    "planted": planted,
    "usual": lambda: random(4, 15, 50, 200),
    "many logits": lambda: random(3, 9, 40, 120, logits=10),
    "long prompt": lambda: random(6, 300, 120, 400),
    "large": lambda: random(26, 40, 900, 4000),
}


@pytest.fixture(params=SHAPES)
def result(request: pytest.FixtureRequest) -> TraceResult:
    return SHAPES[request.param]()


def half(drawn: Arrangement, node: int) -> tuple[float, float]:
    return float(drawn.wide[node]) / 2, trace_drawing.reach(drawn, node)


def test_tokens_go_across_and_layers_up_and_no_mark_is_on_another(result: TraceResult) -> None:
    drawn = arrange(result)
    for a in range(len(drawn.names)):
        for b in range(a):
            (wide, high), (wide_, high_) = half(drawn, a), half(drawn, b)
            apart = abs(drawn.x[a] - drawn.x[b]) >= wide + wide_, abs(drawn.y[a] - drawn.y[b]) >= high + high_
            assert any(apart), (drawn.names[a], drawn.names[b])
            if drawn.layers[a] > drawn.layers[b]:
                assert drawn.y[a] < drawn.y[b]
            if "logit" not in (drawn.kinds[a], drawn.kinds[b]) and drawn.positions[a] > drawn.positions[b]:
                assert drawn.x[a] > drawn.x[b]
    assert (drawn.x - drawn.wide / 2).min() >= LEFT - 1
    assert (drawn.x + drawn.wide / 2).max() <= drawn.width
    assert drawn.y.min() > 10
    assert drawn.y.max() < drawn.foot
    assert drawn.rows[0][0].startswith("logit")
    assert drawn.rows[-1][0] == "embed"


def test_the_most_influential_edges_come_first_and_every_node_leads_on(result: TraceResult) -> None:
    drawn = arrange(result)
    assert len(drawn.sources) <= EDGES
    assert len(drawn.names) <= NODES + 20
    assert drawn.total == len(result.weights)
    strongest = int(np.argmax(result.edge_influences))
    ends = result.names[result.edge_sources[strongest]], result.names[result.edge_targets[strongest]]
    names = [(drawn.names[a], drawn.names[b]) for a, b in zip(drawn.sources, drawn.targets, strict=True)]
    leads = {int(source) for source in result.edge_sources}
    onward = [n for n, name in enumerate(drawn.names) if result.number(name) in leads]
    for count in {1, 5, drawn.opens, len(names)}:
        sources = set(drawn.sources[:count].tolist())
        dangling = {int(t) for t in drawn.targets[:count] if int(t) in onward} - sources
        assert not dangling, "what is drawn leads on, where it leads anywhere"
        shown = set(drawn.shown(count))
        assert shown >= sources | set(drawn.targets[:count].tolist())
        extra = shown - sources - set(drawn.targets[:count].tolist())
        assert all(drawn.kinds[n] == "logit" for n in extra)
    assert ends in names[: len(result.tokens) + 40]
    assert float(drawn.shares.sum()) <= 1 + 1e-9


def test_titles_stand_on_nothing_while_they_stand(result: TraceResult) -> None:
    drawn = arrange(result)
    titled = [n for n in range(len(drawn.names)) if drawn.sides[n] != NONE]
    assert titled
    for count in (drawn.opens, len(drawn.sources)):
        boxes = []
        for n in titled:
            if drawn.until[n] < count or drawn.first[n] > count:
                continue
            x, y, anchor = place(drawn, n)
            long = 5.4 * len(drawn.titles[n])
            left = {"start": x, "end": x - long}.get(anchor, x - long / 2)
            boxes.append((n, left, y - 8, left + long, y + 1))
        for n, left, top, right, low in boxes:
            for other in drawn.shown(count):
                wide, high = half(drawn, other)
                x, y = drawn.x[other], drawn.y[other]
                clear = x + wide <= left or x - wide >= right or y + high <= top or y - high >= low
                assert other == n or clear, (drawn.names[n], drawn.names[other])
            for m, left_, top_, right_, low_ in boxes:
                assert m == n or right_ <= left or left_ >= right or low_ <= top or top_ >= low


def test_a_graph_without_edges_says_so() -> None:
    bare = planted(edges=[])
    assert "no edge is in this graph" in bare.svg()
    assert "0 of 0 edges" in bare.html()


def test_groups_are_one_pill_and_their_edges_are_joined() -> None:
    result = planted()
    result.groups["the names"] = ["embed@2", "0.7@2"]
    whole = arrange(result)
    drawn = collapsed(whole, result.groups)
    group = drawn.names.index("the names")
    assert drawn.kinds[group] == "group"
    assert drawn.titles[group] == "the names (2)"
    assert [drawn.first[drawn.names.index(name)] for name in ("embed@2", "0.7@2")] == [NEVER, NEVER]
    joined = [
        (drawn.names[a], drawn.names[b], float(w))
        for a, b, w in zip(drawn.sources, drawn.targets, drawn.weights, strict=True)
        if group in (a, b)
    ]
    assert joined == [("the names", "1.7@4", pytest.approx(1.2))], "what is within is not drawn"
    assert drawn.effects[group] == pytest.approx(2.7)
    np.testing.assert_array_equal(drawn.x[:-1], whole.x)
    assert "the names (2)" in result.svg()
    assert "the names (2)" not in pictures.svg(result, unfolded=["the names"])
    with pytest.raises(InputError, match="no group 'the name'"):
        pictures.svg(result, unfolded=["the name"])


def test_groups_that_lie_at_one_place_do_not_cover_each_other() -> None:
    result = random(4, 15, 60, 300)
    inside = [name for name, position in zip(result.names, result.node_positions, strict=True) if position > 11]
    inside = [name for name in inside if not name.startswith("logit")]
    for n in range(3):
        result.groups[f"a group with a name {n}"] = inside[2 * n : 2 * n + 2]
    drawn = collapsed(arrange(result), result.groups)
    pills = [n for n, kind in enumerate(drawn.kinds) if kind == "group"]
    assert len(pills) == 3
    for a in pills:
        for b in pills:
            if a < b and drawn.y[a] == drawn.y[b]:
                assert abs(drawn.x[a] - drawn.x[b]) >= (drawn.wide[a] + drawn.wide[b]) / 2
        assert drawn.x[a] + drawn.wide[a] / 2 <= drawn.width + 1


def test_marks_and_edges_have_the_colours_of_their_signs() -> None:
    drawn = arrange(planted())
    ends = trace_drawing.ends(drawn)
    raising, lowering = (drawn.names.index(name) for name in ("embed@2", "embed@4"))
    assert "towards" in trace_drawing.mark(drawn, raising, ends[1])
    assert "against" in trace_drawing.mark(drawn, lowering, ends[1])
    error = trace_drawing.mark(drawn, drawn.names.index("0.error@4"), ends[1])
    assert re.findall(r"fill:(?!none|var\(--interp-bg\))", error) == [], "hollow"
    levels = [trace_drawing.level(drawn, edge, ends[0]) for edge in range(len(drawn.sources))]
    assert [np.sign(level) for level in levels] == np.sign(drawn.weights).tolist()
    sizes = np.abs(levels)[np.argsort(-drawn.shares)]
    assert (np.diff(sizes) <= 0).all(), "as wide as they are influential"


def test_what_is_not_chosen_or_pinned_is_dim() -> None:
    result = planted()
    whole = pictures.svg(result)
    assert "opacity:0.14" not in whole
    chosen = pictures.svg(result, chosen="1.7@4")
    assert "opacity:0.14" in chosen
    assert "stroke:#3453d6" in chosen, "it is ringed"
    drawn = arrange(result)
    number = drawn.names.index("0.7@2")
    edges = pictures.through(drawn, len(drawn.sources), [number])
    ends = {(drawn.names[int(drawn.sources[n])], drawn.names[int(drawn.targets[n])]) for n in edges}
    way = ("embed@2", "0.7@2", "1.7@4", "logit: Mary")
    assert ends == set(pairwise(way))
    assert pictures.svg(result, pinned=["0.7@2"]) != whole
    with pytest.raises(InputError, match="no node '9\\.9@9'"):
        pictures.svg(result, chosen="9.9@9")


def test_the_words_are_the_results_numbers() -> None:
    labels = {"1.7": "a name that came before"}
    result = replace(planted(), labels=labels, notes=("a <note>",), against=(" John", 5))
    page = result.html()
    assert "5 of 7" not in page
    assert "7 of 7 edges" in page
    assert "100 %" in page
    for said in ("0.75", "0.80", "0.80 and 0.98", "30 of 40", "2.0e−07", "a name that came before", "a &lt;note&gt;"):
        assert said in page, said
    assert "fires most at ␣Mary" in page, "where a feature has no label"
    rows = trace_report.rows(result)
    assert [row.name for row in rows] == [name for name, _ in result.top(10)]
    assert rows[0].token == "␣John 4"
    assert rows[0].effect == "+2.000"
    assert "red: raises ␣Mary over ␣John; blue: lowers it" in page
    assert "test-model · Mary over John · 5 tokens" in page


def test_fewer_edges_are_drawn_where_fewer_are_asked_for() -> None:
    result = random(4, 15, 50, 200)
    assert "40 of 200 edges" in result.svg()
    few = pictures.svg(result, edges=3)
    assert "3 of 200 edges" in few
    assert len(few) < len(result.svg())


def test_what_was_measured_is_drawn_with_its_misses() -> None:
    result = random(3, 9, 60, 150)
    checked = replace(result, check=check(result))
    assert trace_report.measured(result) is None
    page = checked.html()
    assert "20 features taken away and doubled" in page
    assert checked.check is not None
    logits = np.array([checked.kinds[n] == "logit" for n in checked.check.nodes])
    for chosen in (logits, ~logits):
        correlation, signs, count = checked.check.of(chosen)
        assert f"Pearson {correlation:.2f}".replace("-", "−") in page
        assert f"the sign agrees in {100 * signs:.0f} %" in page
        assert f"of n = {count:,} changes" in page
    drawn = trace_report.measured(checked)
    assert drawn is not None
    dots, misses = drawn.body.count("h0"), drawn.body.count("a3 3 0 1 0 6 0")
    assert checked.check.foretold.size == 40 * 39
    assert "(1,500 drawn)" in drawn.body
    assert dots + misses == 1500 + 40
    assert abs(dots - misses) < 100
    assert len(drawn.body.encode()) < 100_000


def test_stability_is_drawn_beside_its_controls_and_claimed_only_where_it_was_found() -> None:
    plain = planted()
    assert trace_stability.drawing(plain) is None
    assert "not measured" in plain.html()
    assert "interp.validate(g, paraphrases=[…]) measures it" in plain.html()
    assert "Alike in graphs" not in plain.svg()
    result = stable(plain, paraphrases=6, controls=3)
    held = result.stability
    assert held is not None
    page, drawn = result.html(), trace_stability.drawing(result)
    assert drawn is not None
    assert "not measured" not in page
    assert "Alike in graphs of 6 paraphrases; grey: of 3 with shuffled tokens; bar: mean; line: 95 % interval" in page
    assert drawn.body.count("<circle") == 4 * (6 + 3)
    for n, figure in enumerate(held.figures):
        for control, values in ((False, held.paraphrased), (True, held.control)):
            said = held.of(figure, control=control).said.replace("-", "−")
            assert said in page
            assert said.startswith(f"{values[:, n].mean():.2f}".replace("-", "−"))
            assert ("[" in said) == (not control), "an interval of four prompts or more"
    assert "line:" not in trace_stability.caption(stable(plain, paraphrases=3))
    unknown = replace(held, paraphrased=np.full((6, 4), np.nan), control=np.zeros((0, 4)), controls=())
    assert "unknown" in replace(plain, stability=unknown).html()
    ElementTree.fromstring(replace(plain, stability=unknown).svg())
    ElementTree.fromstring(result.svg("dark"))


def test_hostile_tokens_and_labels_stay_text() -> None:
    tokens = HOSTILE[:21]
    nodes = [("feature", 0, n, n, 0.5, 1.0) for n in range(len(tokens))]
    nodes += [("embedding", -1, n, -1, 0.5, -1.0) for n in range(len(tokens))]
    nodes.append(("logit", 2, len(tokens) - 1, -1, 1.0, 1.0))
    edges = [(n, len(nodes) - 1, 1.0, 0.1) for n in range(2 * len(tokens))]
    result = planted(nodes, edges, tokens)
    result = replace(
        result,
        outputs=((tokens[0], 3, 0.5),),
        against=(tokens[3], 4),
        labels={"0.1": tokens[1], "0.2": tokens[5]},
        features=(tokens[1], "x"),
        provenance=Provenance(model=tokens[1], technique="trace"),
    )
    for theme in ("light", "dark"):
        ElementTree.fromstring(result.svg(theme))
    page = result.html()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "\u202e" not in page


def test_no_text_is_smaller_than_nine_pixels() -> None:
    for page in (planted().svg(), planted().html()):
        sizes = [float(size) for size in re.findall(r"font(?:-size)?:\s*([\d.]+)px", page)]
        assert sizes
        assert min(sizes) >= 9
