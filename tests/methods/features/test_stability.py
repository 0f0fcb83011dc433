"""How stable attribution graphs are over paraphrases: closed forms, planted graphs, compiled programs, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import interp
from interp import truth
from interp.engine.features import held
from interp.engine.features.components import neurons
from interp.engine.transformer import network
from interp.errors import InputError, Interrupted
from interp.methods._shared.intervals import interval
from interp.methods._shared.trace import stability, validated
from interp.methods._shared.trace.parts import FIGURES
from interp.methods._shared.trace.result import TraceResult
from methods.features.test_trace import PROMPT, graph, model
from views.traces import EDGES, NODES, planted

__all__ = ["graph", "model"]

OTHERS = [
    "When John and Mary went to the store, John gave a drink to",
    "Then Mary and John went to the park, and John gave a ball to",
    "While Mary and John were at the store, John handed a drink to",
    "After Mary and John went to the house, John gave a snack to",
]


def figures(found: TraceResult) -> Any:
    assert found.stability is not None
    return found.stability


# -- two graphs ------------------------------------------------------------------------------------------------------


def test_figures_of_planted_graphs_in_closed_form() -> None:
    # Features 0.7 (0.4), 0.3 (0.1) and 1.7 (0.6); edges 0.7 → 1.7 and 0.3 → 1.7 between features.
    one = planted()
    # Here 0.7 twice, at two positions (0.1 each), 1.7 (0.6), 1.9 (0.2): 0.7 → 1.7 twice, 1.9 has no edge.
    nodes = [NODES[0], ("feature", 0, 1, 7, 0.1, 1.0), ("feature", 0, 3, 7, 0.1, 1.0)]
    nodes += [("feature", 1, 3, 7, 0.6, 1.0), ("feature", 1, 4, 9, 0.2, 1.0), NODES[6]]
    other = planted(nodes, [(1, 3, 1.0, 0.1), (2, 3, 1.0, 0.1), (3, 5, 1.0, 0.3), (4, 5, 1.0, 0.2)])
    p, q = {"0.7": 0.4 / 1.1, "0.3": 0.1 / 1.1, "1.7": 0.6 / 1.1}, {"0.7": 0.2, "1.7": 0.6, "1.9": 0.2}
    names = sorted({*p, *q})
    least, most = (sum(pick(p.get(n, 0), q.get(n, 0)) for n in names) for pick in (min, max))
    # Ranks over 0.3, 0.7, 1.7, 1.9: of p 2, 3, 4, 1; of q 1, 2.5, 4, 2.5.
    ranks = np.corrcoef([2, 3, 4, 1], [1, 2.5, 4, 2.5])[0, 1]
    expected = [least / most, 1.0 / 1.1, 1 / 2, ranks]
    np.testing.assert_allclose(stability.alike(one, other), expected, rtol=1e-12)
    assert stability.alike(one, other)[[0, 2, 3]].tolist() == stability.alike(other, one)[[0, 2, 3]].tolist()


def test_a_graph_and_itself_are_alike_to_the_bit() -> None:
    assert stability.alike(planted(), planted()).tolist() == [1.0] * 4


def test_where_in_the_prompt_a_feature_stands_does_not_matter() -> None:
    tokens = [f" w{n}" for n in range(9)]
    moved = [(kind, layer, position + 3, *rest) for kind, layer, position, *rest in NODES]
    assert stability.alike(planted(), planted(moved, EDGES, tokens)).tolist() == [1.0] * 4


def test_graphs_without_a_feature_in_common_have_nothing() -> None:
    other = [(kind, layer, at, number + 100 * (kind == "feature"), *rest) for kind, layer, at, number, *rest in NODES]
    found = stability.alike(planted(), planted(other))
    assert found[:3].tolist() == [0, 0, 0]
    assert found[3] < 0
    errors = [("error" if kind == "feature" else kind, *rest) for kind, *rest in NODES]
    assert np.isnan(stability.alike(planted(errors), planted(errors))).all()


# -- over paraphrases ------------------------------------------------------------------------------------------------


def test_the_same_prompt_gives_the_same_graph(model: Any, graph: TraceResult) -> None:
    found = model.operate("x", {}, lambda _: validated._beside(model, graph, OTHERS[:1], None, 0))
    again = model.operate("x", {}, lambda _: validated._graph(model, graph, model.encode(interp.Prompt(PROMPT)), found))
    assert again.names == graph.names
    assert stability.alike(graph, again).tolist() == [1.0] * 4


def test_each_paraphrase_is_traced_as_the_graph_was(model: Any, graph: TraceResult) -> None:
    told = interp.validate(graph, top=2, paraphrases=OTHERS, dry_run=True)
    found = interp.validate(graph, top=2, paraphrases=OTHERS)
    held = figures(found)
    assert told.forwards == found.provenance.forwards > 0
    assert found.check is not None
    assert held.shuffled
    assert [text.endswith(other) for text, other in zip(held.paraphrases, OTHERS, strict=True)] == [True] * 4
    for n, other in enumerate(OTHERS):
        alone = interp.trace(other, target=" Mary", against=" John")
        assert held.paraphrased[n].tolist() == stability.alike(graph, alone).tolist()
        assert held.values[n] == alone.preactivations[-1]
    for n, text in enumerate(held.controls):  # the paraphrase's own tokens, the BOS first
        ids, own = (model.encode(interp.Prompt(text, bos=False)).ids for text in (text, held.paraphrases[n]))
        assert ids[0] == own[0] == model.tokens.bos_id
    for n, figure in enumerate(FIGURES):
        mean = held.of(figure)
        assert mean.mean == pytest.approx(held.paraphrased[:, n].mean())
        low, high = interval(held.paraphrased[:, n])
        assert mean.low == max(low, -1.0 if figure == "ranks" else 0.0)
        assert mean.high == min(high, 1.0)
    table = held.to_frame()
    assert list(table.kind) == ["paraphrase"] * 4 + ["control"] * 4
    assert list(table.columns[2:]) == list(FIGURES)
    lines = found.text().split("\n")
    assert lines[1] == "stability over 4 paraphrases, beside 4 with shuffled tokens"
    assert lines[2].startswith(f"  influence   {held.of('influence').said}")
    # The validated graph is of its own prompt, not of a paraphrase, and can be asked on.
    assert found.provenance.prompts[0] == graph.provenance.prompts[0]
    assert found.moved(found.top(1)[0][0], -1)
    again = interp.validate(graph, top=0, paraphrases=OTHERS)
    assert again.check is None
    assert figures(again).control.tolist() == held.control.tolist()
    other = interp.validate(graph, top=0, paraphrases=OTHERS, seed=1)
    assert figures(other).controls != held.controls
    assert figures(other).paraphrased.tolist() == held.paraphrased.tolist()


def test_controls_of_ones_own_and_few_paraphrases(model: Any, graph: TraceResult) -> None:
    found = interp.validate(graph, top=0, paraphrases=OTHERS[:2], control=["The weather in Paris is", "One day the"])
    held = figures(found)
    assert not held.shuffled
    assert len(held.control) == 2
    assert np.isnan(held.of("influence").low)
    assert any("2 paraphrases are too few" in note for note in found.notes)
    assert "2 unrelated prompts" in found.text()
    assert found.prune(0.5).stability is None
    assert model is not None


def test_a_magic_reads_a_file_with_one_to_a_line(shell: Any, graph: TraceResult, tmp_path: Path) -> None:
    path = tmp_path / "others.txt"
    path.write_text("\n".join(OTHERS) + "\n", "utf-8")
    shell.user_ns["g"] = graph
    shell.run_cell(f"%interp validate g --top 0 --paraphrases {path} -o v").raise_error()
    assert [text.partition(">")[2] for text in figures(shell.user_ns["v"]).paraphrases] == OTHERS


@pytest.mark.usefixtures("model")
def test_a_file_keeps_what_was_found(graph: TraceResult, tmp_path: Path) -> None:
    found = interp.validate(graph, top=2, paraphrases=OTHERS[:3])
    back = interp.load_graph(found.save(tmp_path / "g.json"))
    one, other = figures(found), figures(back)
    for name in ("paraphrases", "controls", "shuffled"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("paraphrased", "control", "values"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert back.check is not None
    assert found.check is not None
    np.testing.assert_array_equal(back.check.measured, found.check.measured)
    assert back.text().split("\n")[1:6] == found.text().split("\n")[1:6]
    assert interp.load_graph(graph.save(tmp_path / "plain.json")).stability is None
    data = json.loads((tmp_path / "g.json").read_text("utf-8"))
    data["stability"]["paraphrased"] = data["stability"]["paraphrased"][:1]
    (tmp_path / "g.json").write_text(json.dumps(data), "utf-8")
    with pytest.raises(InputError, match="do not fit"):
        interp.load_graph(tmp_path / "g.json")


def test_an_interrupt_leaves_those_that_are_done(
    model: Any, graph: TraceResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = validated._graph, list[int]()

    def stopping(*given: Any) -> TraceResult:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(validated, "_graph", stopping)
    with pytest.raises(Interrupted) as stop:
        interp.validate(graph, top=0, paraphrases=OTHERS)
    found = stop.value.result
    assert (len(figures(found).paraphrases), len(figures(found).controls)) == (2, 1)
    assert found.notes[0].startswith("partial: interrupted after 2 of 4")
    assert model is not None


def test_what_is_refused(model: Any, graph: TraceResult) -> None:
    for words, message in (
        ({"paraphrases": []}, "no texts"),
        ({"paraphrases": ""}, "--paraphrases is empty"),
        ({"paraphrases": [OTHERS[0], " "]}, "paraphrase 1: it is blank; leave it out"),
        ({"paraphrases": [OTHERS[0], ""]}, "paraphrase 1: "),
        ({"paraphrases": [OTHERS[0], OTHERS[1], OTHERS[0]]}, "paraphrase 2 is the same as paraphrase 0; leave it out"),
        ({"paraphrases": [PROMPT]}, "paraphrase 0 is the graph's own prompt"),
        ({"paraphrases": OTHERS, "control": [OTHERS[1]]}, "control 0 is the same as paraphrase 1"),
        ({"control": OTHERS}, "give --paraphrases too"),
        ({"seed": 3}, "give --paraphrases too"),
        ({"paraphrases": OTHERS, "on": "same"}, "is for circuits"),
    ):
        with pytest.raises(InputError, match=message):
            interp.validate(graph, **words)
    typed = interp.trace(PROMPT, target="Mary")
    with pytest.raises(InputError, match=r"paraphrase 1: target 'Mary' is .* behind it"):
        interp.validate(typed, paraphrases=[OTHERS[0], f"{OTHERS[1]} ("])
    early = interp.trace(PROMPT, target=" Mary", position=-2)
    with pytest.raises(InputError, match="trace the prompt up to there"):
        interp.validate(early, paraphrases=OTHERS)
    with pytest.raises(InputError, match="a circuit is judged on pairs"):
        interp.validate(interp.circuit(task="ioi", n=2, edges=20, method="eap"), paraphrases=OTHERS)
    import torch

    with torch.no_grad():
        next(model.hf_model.parameters()).add_(0.01)
    with pytest.raises(InputError, match="trace it again"):
        interp.validate(graph, paraphrases=OTHERS)


# -- truth -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("clean_session", "one_thread")
def test_a_compiled_programs_graph_is_the_same_for_other_names() -> None:
    made = truth.build("ioi")
    loaded = interp.load(made.bridge(), name="ioi", device="cpu")
    net = network.read(loaded)
    own = tuple(neurons(net, layer) for layer in range(loaded.geometry.n_layers))
    held.hold(loaded, held.FeatureSet("neurons", "tests", "", own))
    found: dict[tuple[int, ...], set[tuple[int, ...]]] = {}
    for pair in made.pairs(300, seed=1).pairs:
        subject, answer = pair.wrong[0], pair.answer[0]
        shape = tuple(-1 if token == subject else token for token in pair.clean.ids)
        found.setdefault((answer, *shape), set()).add(pair.clean.ids)
    (answer, *_), rows = max(found.items(), key=lambda item: (len(item[1]), item[0]))
    first, *renamed = sorted(rows)
    assert len(renamed) >= 4
    graph = interp.trace(interp.Prompt(ids=first), target=int(answer))
    kept = figures(interp.validate(graph, top=0, paraphrases=[interp.Prompt(ids=ids) for ids in renamed]))
    for figure in ("influence", "top edges", "ranks"):
        n = FIGURES.index(figure)
        assert kept.paraphrased[:, n].min() > kept.control[:, n].max(), figure
    assert kept.of("top edges").mean > max(0.4, 2 * kept.of("top edges", control=True).mean)
