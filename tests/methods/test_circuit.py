"""The command: which edges are kept, what is refused, what is said, and what comes back from a file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.engine import edges as engine
from interp.methods.circuit_result import CircuitResult, connected
from interp.results import as_data
from interp.spec import InputError, Interrupted, Pair, Pairs, Prompt
from methods.test_patch import build, use

__all__ = ["use"]
pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN = ((5, 11, 64, 31, 8, 40), (51, 11, 23, 31, 9, 40), (5, 7, 64, 30, 8, 4))
CORRUPTED = ((5, 11, 23, 31, 8, 40), (50, 12, 23, 31, 8, 44), (6, 11, 64, 31, 8, 40))
PAIRS = Pairs(tuple(Pair(Prompt(ids=a), Prompt(ids=b), (7, 12), (9,)) for a, b in zip(CLEAN, CORRUPTED, strict=True)))
METHODS = ("eap", "eap-ig", "exact", "acdc")


@pytest.fixture(params=["gpt2", "llama", "neox"])
def model(request: pytest.FixtureRequest, use: Any) -> Any:
    return use(build(request.param))


@pytest.mark.parametrize("method", METHODS)
def test_the_strongest_edges_on_a_way_to_the_logits(model: Any, method: str) -> None:
    found: CircuitResult = interp.circuit(PAIRS, method=method, edges=20)
    assert found.method == method
    assert np.isfinite(found.scores[found.exists]).all()
    assert np.isnan(found.scores[~found.exists]).all()
    assert 0 < found.kept.sum() <= 20
    again = connected(found.kept, found.writers, found.readers, found.reading)
    assert (again == found.kept).all()
    # One more edge of the ranking, and there are too many: no larger circuit was possible.
    order = [(found.writers.index(e.writer), found.readers.index(e.reader)) for e in found.ranked()]
    sizes: list[int] = []
    mask = np.zeros_like(found.kept)
    for at in order:
        mask[at] = True
        sizes.append(int(connected(mask, found.writers, found.readers, found.reading).sum()))
    assert max(size for size in sizes if size <= 20) == found.kept.sum()
    if method != "acdc":
        assert found.per_pair.shape == (3, *found.exists.shape)
        mean = found.per_pair[:, found.exists].astype(float).mean(0)
        assert np.allclose(mean, found.scores[found.exists], atol=1e-6)
    assert found.clean_metric.shape == found.ablated_metric.shape == (3,)
    assert found.lint.corrupted_metric == pytest.approx(found.ablated_metric.tolist(), abs=1e-4)
    assert found.group_size == model.geometry.n_heads // model.geometry.n_kv_heads


@pytest.mark.usefixtures("model")
def test_a_threshold_keeps_what_reaches_it() -> None:
    found = interp.circuit(PAIRS, method="eap", threshold=0.05)
    assert (np.abs(found.scores[found.kept]) >= 0.05).all()
    assert (found.kept == interp.circuit(PAIRS, method="eap", edges=5).prune(0.05).kept).all()
    acdc = interp.circuit(PAIRS, method="acdc", threshold=0.05)
    assert set(np.unique(acdc.scores[acdc.exists])) <= {0.0, 0.05}
    assert acdc.per_pair.shape[0] == 0
    many = interp.circuit(PAIRS, method="acdc", edges=int(acdc.exists.sum()))
    assert many.kept.any()
    assert (many.scores[many.kept] > 0).all(), "what no threshold left is no part of the circuit"


@pytest.mark.usefixtures("model")
def test_heads_are_ranked_by_what_they_write() -> None:
    found = interp.circuit(PAIRS, method="eap", level="head", edges=60)
    size = np.abs(np.nan_to_num(found.scores).sum(1))[1:]
    there = np.array([name in found.nodes for name in found.writers[1:]])
    # Dead ends are left out, so that one that is not there may be stronger; but none below the weakest was ranked.
    assert 0 < there.sum() < len(there)
    assert 0 < found.kept.sum() <= 60
    assert size[there].max() == size.max() or found.kept.any()
    names = {*found.nodes, "embed", "logits"}
    for writer, reader in zip(*np.nonzero(found.kept), strict=True):
        assert found.writers[writer] in names
        assert names & set(found.reading(found.readers[reader]))


@pytest.mark.usefixtures("model")
@pytest.mark.parametrize("ablation", ["mean", "zero"])
@pytest.mark.parametrize("method", METHODS)
def test_ablations_end_where_all_is_ablated(method: str, ablation: str) -> None:
    found = interp.circuit(PAIRS, method=method, ablation=ablation, edges=20)
    other = interp.circuit(PAIRS, method="acdc", ablation=ablation, threshold=1.0)
    assert found.ablation == ablation
    assert np.allclose(found.ablated_metric, other.ablated_metric, atol=1e-4)
    plain = interp.circuit(PAIRS, method="eap")
    assert np.allclose(found.lint.corrupted_metric, plain.lint.corrupted_metric, atol=1e-4)


def test_positions(use: Any) -> None:
    use(build("gpt2"))
    found = interp.circuit(PAIRS, positions=True)
    assert found.by_position.shape == (*found.exists.shape, 6)
    assert np.allclose(found.by_position.sum(-1)[found.exists], found.scores[found.exists], atol=1e-5)
    assert found.positions == interp.circuit(PAIRS).positions
    assert len(found.positions) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"edges": 5, "threshold": 0.1}, ("--edges", "--threshold", "one of them")),
        ({"edges": 0}, ("--edges 0", "1 or more")),
        ({"threshold": 0.0}, ("--threshold 0", "above 0")),
        ({"threshold": float("nan")}, ("--threshold nan",)),
        ({"steps": 1}, ("--steps 1", "--method eap")),
        ({"method": "acdc", "level": "head"}, ("--level edge",)),
        ({"level": "head", "threshold": 0.1}, ("--edges",)),
        ({"method": "exact", "positions": True}, ("--positions", "eap-ig")),
        ({"method": "eap", "metric": "kl"}, ("kl", "eap-ig")),
        ({"metric": "rank"}, ("rank", "--method exact")),
        ({"metric": "logits"}, ("did you mean",)),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: tuple[str, ...], use: Any) -> None:
    use(build("gpt2"))
    with pytest.raises(InputError) as refusal:
        interp.circuit(PAIRS, **options)
    assert "\n" not in str(refusal.value)
    for word in words:
        assert word in str(refusal.value)


def test_prompts_of_several_lengths(use: Any) -> None:
    use(build("llama"))
    short = Pair(Prompt(ids=(6, 17, 3)), Prompt(ids=(5, 17, 3)), (7,), (9,))
    mixed = Pairs((*PAIRS.pairs, short))
    found = interp.circuit(mixed, method="eap")
    alone = interp.circuit(Pairs((short,)), method="eap")
    assert np.allclose(found.per_pair[3], alone.per_pair[0], atol=1e-6, equal_nan=True)
    exact = interp.circuit(mixed, method="exact")
    assert np.isfinite(exact.scores[exact.exists]).all()
    for options in ({"positions": True}, {"ablation": "mean"}):
        with pytest.raises(InputError, match="3 to 6 tokens"):
            interp.circuit(mixed, method="eap", **options)


def test_saturation_is_said(use: Any) -> None:
    """Where the gradient is nearly 0 at the clean run, first order sees next to nothing of the difference."""
    model = build("gpt2")
    use(model)
    with torch.no_grad():  # far up on the tail of what the answers' odds saturate in: probability next to 1
        model.hf_model.get_parameter("transformer.ln_f.weight").mul_(30)
    given = Pairs(tuple(Pair(p.clean, p.corrupted, (_likeliest(p.clean),), (9,)) for p in PAIRS.pairs[:1]))
    eap = interp.circuit(given, method="eap", metric="prob")
    assert any("saturation" in note and "eap-ig" in note for note in eap.notes), eap.notes
    integrated = interp.circuit(given, metric="prob", steps=64)
    assert not any("saturation" in note for note in integrated.notes), integrated.notes


def _likeliest(prompt: Prompt) -> int:
    return interp.predict(prompt).top[0][1]


def test_an_interrupt_keeps_what_is_finished(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build("gpt2"))
    calls = 0

    def stop(done: int, total: int, said: str = "") -> None:  # noqa: ARG001
        nonlocal calls
        calls += 1
        if done < total:
            raise KeyboardInterrupt

    monkeypatch.setattr("interp.engine.sweep.WAVE_ROWS", 64)
    monkeypatch.setattr(type(model), "on_step", lambda _, *given: stop(*given))
    with pytest.raises(Interrupted) as stopped:
        interp.circuit(PAIRS, method="exact", edges=20)
    found = stopped.value.result
    assert calls
    assert found.notes[0].startswith("partial: interrupted") or any(n.startswith("partial") for n in found.notes)
    unknown = found.exists & np.isnan(found.scores)
    assert unknown.any()
    assert not (found.kept & unknown).any()
    assert found.text()


def test_memory_that_runs_out_halves_the_pairs(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build("llama"))
    whole = interp.circuit(PAIRS, steps=4)
    sizes: list[int] = []
    real = engine._Found.__init__

    def small(self: Any, job: Any, cases: Any, start: int, points: Any, weights: Any) -> None:
        sizes.append(len(cases) * len(points))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("not enough memory")
        real(self, job, cases, start, points, weights)

    monkeypatch.setattr(engine._Found, "__init__", small)
    again = interp.circuit(PAIRS, steps=4)
    assert max(sizes) > 2 >= min(sizes)
    assert np.allclose(again.scores, whole.scores, atol=1e-5, equal_nan=True)


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["eap-ig", "acdc"])
def test_a_file_gives_the_circuit_back(method: str, use: Any, tmp_path: Path) -> None:
    use(build("llama"))
    made = interp.circuit(PAIRS, method=method, edges=30, positions=method == "eap-ig")
    made.groups["early"] = ("0.1", "0.2")
    node = next(name for name in made.nodes if name not in {"embed", "logits"})
    made.function_of(node)
    interp.validate(made, random=2, top=3)
    file = made.save(tmp_path / "c.json")
    found = interp.load_circuit(file)
    assert type(found) is CircuitResult
    for field in dataclasses.fields(CircuitResult):
        if field.name in {"_live", "provenance"}:
            continue
        mine, theirs = getattr(made, field.name), getattr(found, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype
            assert np.array_equal(mine, theirs, equal_nan=mine.dtype != bool), field.name
        else:
            assert as_data(mine) == as_data(theirs), field.name
            assert type(mine) is type(theirs) or field.name == "labels"
    assert as_data(found.provenance) == as_data(made.provenance)
    assert type(found.lint) is type(made.lint)
    assert found.card is not None
    assert made.card is not None
    assert np.array_equal(found.card.whole, made.card.whole)
    assert found.functions[node] == made.functions[node]
    assert found.edges == made.edges
    assert found.prune(0.01).heads == made.prune(0.01).heads
    assert found.html()
    again = found.save(tmp_path / "again.json")
    assert again.read_bytes() == file.read_bytes()


def test_a_circuit_from_a_file_and_the_current_model(use: Any, tmp_path: Path) -> None:
    use(build("gpt2"))
    file = interp.circuit(PAIRS, edges=30).save(tmp_path / "c.json")
    found = interp.load_circuit(file)
    node = next(name for name in found.nodes if name not in {"embed", "logits"})
    with pytest.raises(InputError, match="validate"):
        found.function_of(node)
    interp.validate(found, random=0, top=0)
    assert found.card is not None
    assert found.function_of(node).node == node


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data.pop("group_size"), "lacks group_size"),
        (lambda data: data.update(extra=1), "unknown extra"),
        (lambda data: data["readers"].pop(), "is due"),
        (lambda data: data["scores"][0].__setitem__(0, "much"), "much"),
        (lambda data: data["kept"][0].__setitem__(0, 3), "true nor false"),
        (lambda data: data["lint"].pop("clean"), "clean"),
        (lambda data: data.update(lint=None), "Lint"),
        (lambda data: data.update(method="guess"), "guess"),
        (lambda data: data.update(writers="embed"), "list"),
    ],
)
def test_damaged_files(damage: Any, words: str, use: Any, tmp_path: Path) -> None:
    use(build("gpt2"))
    data = json.loads(interp.circuit(PAIRS, edges=30).save(tmp_path / "c.json").read_text())
    damage(data)
    file = tmp_path / "damaged.json"
    file.write_text(json.dumps(data))
    with pytest.raises(InputError) as refusal:
        interp.load_circuit(file)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_other_files(use: Any, tmp_path: Path) -> None:
    use(build("gpt2"))
    cut = tmp_path / "cut.json"
    cut.write_text(interp.circuit(PAIRS, edges=30).save(tmp_path / "c.json").read_text()[:500])
    other = interp.predict("a").save(tmp_path / "other.json")
    binary = tmp_path / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00")
    listed = tmp_path / "list.json"
    listed.write_text("[1, 2]")
    for path, words in [
        (cut, "JSON"),
        (other, "not a circuit's file"),
        (binary, "JSON"),
        (listed, "not a circuit's file"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.json", "is not there"),
        ("a\0b", "NUL"),
    ]:
        with pytest.raises(InputError) as refusal:
            interp.load_circuit(path)
        assert words in str(refusal.value)
        assert "\n" not in str(refusal.value)


# -- the magic, and the real model -----------------------------------------------------------------------------------


def test_the_magic(shell: Any, use: Any) -> None:
    use(build("gpt2"))
    body = "clean: Mary and John\ncorrupted: John and John\nanswer: Mary\nwrong: John"
    shell.run_cell_magic("interp", "circuit --method eap --edges 12 -o c", body + "\n")
    found = shell.user_ns["c"]
    assert isinstance(found, CircuitResult)
    assert found.kept.sum() <= 12
    assert found.provenance.arguments["edges"] == 12
    assert found.provenance.path == "gradients"
    shown = shell.run_line_magic("interp", "help circuit").text()
    for word in ("--ablation", "--threshold", "eap-ig"):
        assert word in shown


def repeated(count: int, length: int = 50) -> Pairs:
    """Return random tokens twice, the second time cut short, and other tokens before the same end."""
    chance = np.random.default_rng(0)
    made: list[Pair] = []
    for _ in range(count):
        once, other = (chance.choice(np.arange(1000, 40000), length, replace=False).tolist() for _ in range(2))
        stop = length // 2
        end = once[:stop]
        clean, corrupted = (Prompt(ids=(1, *words, *end)) for words in (once, other))
        made.append(Pair(clean, corrupted, (once[stop],), (other[stop],)))
    return Pairs(tuple(made))


def test_smollm2_induction(smollm2: Any) -> None:
    """The two heads of the highest induction scores, on the prompts that those are measured on."""
    found = interp.circuit(repeated(4), steps=5, edges=200)
    assert 0 < found.kept.sum() <= 200
    assert {"18.6", "17.3"} <= set(found.heads), found.heads
    assert found.provenance.path == "gradients"
    assert found.group_size == 3
    card = found.validate(random=20, top=1).card
    assert card.faithfulness > card.random.mean() + 3 * card.random.std()
    looked_up = interp.circuit(task="induction", corruption="other-first", n=4, edges=200)
    assert {"18.6", "17.3"} <= set(looked_up.heads), looked_up.heads
    # Another token in B's place alone keeps what the heads look for and changes what they bring: values are ablated.
    brought = interp.circuit(task="induction", n=4, edges=200)
    assert "18.6" in brought.heads, brought.heads
    assert smollm2.geometry.n_layers == 30
