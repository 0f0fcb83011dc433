"""selfcheck: methods reach their bars on compiled models, a miss is explained, an interrupt keeps what is there."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import interp
from interp import truth
from interp.engine.circuits import eap, edges, exact
from interp.engine.circuits.subgraph import Subset
from interp.engine.model import load
from interp.errors import InputError, Interrupted
from interp.interface.registry import find
from interp.interface.session import session
from interp.methods._shared.circuit.selfcheck_result import rounded
from interp.methods._shared.intervals import interval
from interp.methods.checks import selfcheck as module
from interp.methods.checks.selfcheck import BARS, METHODS, SelfcheckResult, auroc

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole() -> SelfcheckResult:
    return interp.selfcheck()


def of(result: SelfcheckResult, method: str) -> Any:
    return result.auroc[..., result.methods.index(method)]


def test_every_method_reaches_its_bar(whole: SelfcheckResult) -> None:
    assert whole.programs == tuple(truth.PROGRAMS)
    assert whole.ablations == truth.ABLATIONS
    assert (of(whole, "exact") >= 0.95).all()
    assert (of(whole, "acdc") >= 0.95).all()
    assert (of(whole, "eap-ig") >= 0.90).all()
    assert np.abs(of(whole, "random") - 0.5).max() < 0.05
    assert (of(whole, "trace") >= 0.99).all()
    assert whole.misses() == []
    assert np.isfinite(whole.seconds).all()
    assert (whole.true >= 4).all()
    assert (whole.false > 20 * whole.true).all()
    assert (whole.undefined[:, whole.ablations.index("zero")] == 0).all()
    assert (whole.undefined[:, whole.ablations.index("corrupted")] > 0).all()


def test_what_a_gradient_cannot_see_is_told(whole: SelfcheckResult) -> None:
    """EAP is worse than EAP-IG where a softmax is saturated, and the note names the edge that it loses."""
    column = whole.methods.index("eap")
    worst = np.unravel_index(int(whole.auroc[..., column].argmin()), whole.auroc.shape[:2])
    assert whole.auroc[(*worst, column)] < 0.95 < whole.auroc[(*worst, whole.methods.index("eap-ig"))]
    where = f"{whole.programs[worst[0]]} {whole.ablations[worst[1]]} eap"
    edge, score, exact, above = whole.hidden[where]
    assert score < 0.1 < 2 < exact
    assert above > 10
    assert any(note.startswith("eap has") and edge in note and "nearly sure" in note for note in whole.notes)


def test_eap_ig_cancels_where_the_name_mover_turns() -> None:
    """The reason for EAP-IG's lowest score, as the program says: two slots of opposite signs, and no third."""
    made = truth.build("ioi")
    model = load.load(made.bridge(), options=load.Options())
    cases = module.cases_of(model, made, 16, 0)
    found = model.operate("test", {}, lambda _: eap.attribute_edges(model, cases, steps=5, positions=True))
    writer = [node.name for node in found.writers].index("embed")
    reader = [node.name for node in found.readers].index("2.1.v")
    assert found.by_position is not None
    slots = found.by_position[writer, reader][[2, 4]]
    assert slots.prod() < 0
    assert abs(float(slots.sum())) < 0.1 * float(slots.abs().min())
    measured = model.operate("test", {}, lambda _: exact.exact_edges(model, cases)).scores
    assert float(measured[writer, reader]) > 5


def test_every_worst_is_explained_with_its_interval(whole: SelfcheckResult) -> None:
    """A method's lowest is told with how far it hangs on the pairs that were drawn; near 1 there is nothing to tell."""
    assert whole.auroc[..., whole.methods.index("eap-ig")].min() > 0.98
    explained = {"eap": "nearly sure"}
    for column, method in enumerate(whole.methods):
        worst = np.unravel_index(int(whole.auroc[..., column].argmin()), whole.auroc.shape[:2])
        value, (low, high) = whole.auroc[(*worst, column)], whole.interval[(slice(None), *worst, column)]
        said = f"{method} has {rounded(value)} [{low:.2f}, {high:.2f}] on {whole.programs[worst[0]]}"
        notes = [note for note in whole.notes if note.startswith(f"{method} has")]
        if method in explained:
            assert value < 0.98
            assert low < value < high
            assert [note for note in notes if note.startswith(said) and explained[method] in note], whole.notes
        else:
            assert not notes, notes
        assert np.isfinite(whole.interval[..., column]).all() == (method in {"exact", "eap", "eap-ig", "trace"})
    assert not any("below 0.90" in note for note in whole.notes)
    table = whole.to_frame()
    assert (table.low.dropna() <= table.high.dropna()).all()


def test_the_interval_is_the_jackknifes() -> None:
    each = np.random.default_rng(0).normal([1.0, 0.5, 0.0, 0.2, 0.0], 0.7, (12, 5))
    true = np.array([True, True, False, False, False])
    whole = auroc(np.abs(each.mean(0)), true)
    pseudo = [12 * whole - 11 * auroc(np.abs(np.delete(each, n, 0).mean(0)), true) for n in range(12)]
    expected = interval(np.array(pseudo)) - np.mean(pseudo) + whole
    assert np.allclose(module._over_pairs(each, true), np.clip(expected, 0, 1))
    assert np.allclose(module._over_pairs(each[[0] * 5], true), auroc(np.abs(each[0]), true), rtol=1e-12)
    assert np.isnan(module._over_pairs(each[:3], true)).all()


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores = generator.integers(0, 6, 30).astype(float)
        true = generator.random(30) < 0.3
        pairs = [(a > b) + 0.5 * (a == b) for a in scores[true] for b in scores[~true]]
        assert auroc(scores, true) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(np.array([3.0, 2.0, 1.0]), np.array([True, False, False])) == 1.0
    assert auroc(np.array([1.0, 1.0]), np.array([True, False])) == 0.5


def test_it_needs_no_model_and_leaves_those_there_alone() -> None:
    before = dict(session.models), session.current
    result = interp.selfcheck(program="reverse", ablation="corrupted", n=4)
    assert (dict(session.models), session.current) == before
    assert not find("selfcheck").needs_model
    assert (result.programs, result.ablations) == (("reverse",), ("corrupted",))
    assert result.auroc.shape == (1, 1, len(METHODS))
    assert result.code() == "interp.selfcheck(program='reverse', ablation='corrupted', n=4)"
    assert result.provenance.seed == 0
    assert result.provenance.seconds > 0
    again = interp.selfcheck(program="reverse", ablation="corrupted", n=4)
    assert np.array_equal(again.auroc, result.auroc)


def test_programs_are_those_there_are() -> None:
    assert find("selfcheck").parameter("program").choices == tuple(truth.PROGRAMS)
    assert find("selfcheck").parameter("ablation").choices == truth.ABLATIONS
    with pytest.raises(InputError, match="did you mean induction"):
        interp.selfcheck(program="inducton")
    for n in (1, 0, -3):
        with pytest.raises(InputError, match="two pairs or more"):
            interp.selfcheck(n=n)


def test_a_miss_is_shown_and_explained(monkeypatch: Any) -> None:
    """A method that answers wrongly falls below its bar, and the note names a true edge."""
    true = exact.exact_edges

    def wrong(*args: Any, **options: Any) -> edges.EdgeScores:
        made = true(*args, **options)
        made.per_pair = 1 / (1e-3 + made.per_pair.abs())
        return made

    monkeypatch.setattr(exact, "exact_edges", wrong)
    result = interp.selfcheck(program="histogram", ablation="zero", n=4)
    assert [miss[:3] for miss in result.misses()] == [("histogram", "zero", "exact")]
    assert result.misses()[0][3] < 0.1
    assert any(
        "exact has 0." in note and "below 0.95" in note and "is true and scores" in note for note in result.notes
    )
    assert "below 0.95" in result.text()
    assert "var(--interp-nan)" in result.html()


def test_what_is_below_a_bar_does_not_read_as_reaching_it() -> None:
    assert (rounded(0.94996), rounded(0.95), rounded(1.0)) == ("0.949", "0.950", "1.000")


def test_text_and_table(whole: SelfcheckResult) -> None:
    lines = whole.text().splitlines()
    assert lines[1].split() == ["ablation", *METHODS, "true", "false", "undefined"]
    assert lines[2].split()[:3] == ["reverse", "corrupted", "1.000"]
    assert lines[14].split()[0] == "seconds"
    assert repr(whole).startswith("SelfcheckResult(4 models × 3 ablations, lowest edge AUROC: exact ")
    table = whole.to_frame()
    assert len(table) == 4 * 3 * len(METHODS)
    row = table[(table.model == "ioi") & (table.ablation == "zero") & (table.method == "acdc")].iloc[0]
    assert (row.auroc, row.bar, row.true, row.false, row.undefined) == (1.0, BARS["acdc"], 9, 470, 0)


def test_pictures_and_files(whole: SelfcheckResult, tmp_path: Any) -> None:
    for theme in ("light", "dark"):
        picture = whole.svg(theme)
        assert picture.count(">corrupted<") == 4
        assert "var(--" not in picture
        assert whole.png(theme)[:4] == b"\x89PNG"
    assert ">induction<" in whole.html()
    whole.save(tmp_path / "check.json")
    held = json.loads((tmp_path / "check.json").read_text())
    assert held["methods"] == list(METHODS)
    assert np.asarray(held["auroc"]).shape == whole.auroc.shape
    whole.save(tmp_path / "check.npz")
    assert np.array_equal(np.load(tmp_path / "check.npz")["auroc"], whole.auroc)


def test_an_interrupt_keeps_what_was_scored(monkeypatch: Any) -> None:
    def stop(*args: Any, **options: Any) -> Any:  # noqa: ARG001
        raise KeyboardInterrupt

    monkeypatch.setattr(Subset, "run", stop)
    with pytest.raises(Interrupted) as stopped:
        interp.selfcheck(program="induction", n=4)
    result = stopped.value.result
    assert np.isfinite(result.auroc).sum() == 1
    assert result.notes[0] == "partial: interrupted after 1 of 18 scores"
    assert result.provenance.technique == "selfcheck"
    assert "–" in result.text()
    assert result.png()[:4] == b"\x89PNG"


def test_steps_are_told(monkeypatch: Any) -> None:
    said: list[tuple[int, int, str]] = []

    def step(done: int, total: int, what: str) -> None:
        said.append((done, total, what))

    monkeypatch.setattr(session, "on_step", step)
    interp.selfcheck(program="induction", ablation="zero", n=2)
    assert [done for done, _, _ in said] == [0, 1, 2, 3, 4, 5, 6]
    assert {total for _, total, _ in said} == {6}
    assert said[1][2] == "induction, zero ablation, acdc"
