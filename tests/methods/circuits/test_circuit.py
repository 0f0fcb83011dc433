"""The command: which edges are kept, what is refused, what is said, and what comes back from a file."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

import interp
from interp.engine.circuits.edge_products import EdgeProducts
from interp.engine.circuits.subgraph import Subset
from interp.engine.metrics import Scorer
from interp.engine.model.hooks import census
from interp.engine.patching.cases import Case
from interp.errors import InputError, Interrupted
from interp.interface.session import session
from interp.methods._shared.circuit import choice
from interp.methods._shared.circuit.result import CircuitResult
from interp.results import as_data
from interp.spec import Metric, Pair, Pairs, Prompt
from methods.patching.test_patch import build, use

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
    again = found.connected(found.kept)
    assert (again == found.kept).all()
    # One more edge of the ranking, and there are too many: no larger circuit was possible.
    order = [(found.writers.index(e.writer), found.readers.index(e.reader)) for e in found.ranked()]
    sizes: list[int] = []
    mask = np.zeros_like(found.kept)
    for at in order:
        mask[at] = True
        sizes.append(int(found.connected(mask).sum()))
    assert max(size for size in sizes if size <= 20) == found.kept.sum()
    if method != "acdc":
        assert found.per_pair.shape == (3, *found.exists.shape)
        mean = found.per_pair[:, found.exists].astype(float).mean(0)
        assert np.allclose(mean, found.scores[found.exists], atol=1e-6)
    assert found.clean_metric.shape == found.ablated_metric.shape == (3,)
    assert found.checks.corrupted_metric == pytest.approx(found.ablated_metric.tolist(), abs=1e-4)
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
    assert np.allclose(found.checks.corrupted_metric, plain.checks.corrupted_metric, atol=1e-4)


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
        ({"among": 50}, ("--among", "acdc", "eap-ig")),
        ({"method": "acdc", "among": 0}, ("--among 0", "1 or more")),
        ({"method": "acdc", "among": 9, "metric": "rank"}, ("rank", "gradient")),
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


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_what_lies_on_a_way_is_what_networkx_finds(kind: str, use: Any) -> None:
    use(build(kind))
    found = interp.circuit(PAIRS, method="eap", edges=5)
    chance = np.random.default_rng(0)
    sizes: list[int] = []
    for share in (0.02, 0.05, 0.1, 0.3) * 5:
        mask = found.exists & (chance.random(found.exists.shape) < share)
        ways = nx.DiGraph()  # from a writer to an input of its own to the nodes that this input belongs to
        ways.add_nodes_from([("w", "embed"), ("r", "logits")])
        for writer, reader in zip(*np.nonzero(mask), strict=True):
            ways.add_edge(("w", found.writers[writer]), ("r", found.readers[reader]))
        for reader in found.readers:
            ways.add_edges_from((("r", reader), ("w", node)) for node in found.reading(reader) if node != "logits")
        fed, used = nx.descendants(ways, ("w", "embed")) | {("w", "embed")}, nx.ancestors(ways, ("r", "logits"))
        expected = np.zeros_like(mask)
        for writer, reader in zip(*np.nonzero(mask), strict=True):
            into = ("r", found.readers[reader])
            expected[writer, reader] = ("w", found.writers[writer]) in fed and into in used | {("r", "logits")}
        assert (found.connected(mask) == expected).all()
        sizes.append(int(expected.sum()))
    assert 0 in sizes
    assert max(sizes) > 10


def without(model: Any, pair: Pair, node: str) -> float:
    """Return the metric of a clean run in which all that a node writes is that of the corrupted run, by hooks."""
    layer, _, part = node.partition(".")
    name = "blocks.0.hook_resid_pre"
    if part:
        name = f"blocks.{layer}.hook_mlp_out" if part == "mlp" else f"blocks.{layer}.attn.hook_z"
    held: list[torch.Tensor] = []
    clean, corrupted = (torch.tensor([prompt.ids]) for prompt in (pair.clean, pair.corrupted))

    def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        tensor = tensor.clone()
        at = (slice(None), slice(None), int(part)) if part.isdigit() else ()
        tensor[at] = held[0][at]
        return tensor

    with torch.no_grad():
        model.bridge.run_with_hooks(corrupted, fwd_hooks=[(name, lambda t, hook: held.append(t.clone()))])  # noqa: ARG005
        logits = model.bridge.run_with_hooks(clean, fwd_hooks=[(name, put)])[0, -1]
    return float(logits[[7, 12]].logsumexp(0) - logits[9])


def test_nodes_are_ranked_by_their_own_ablation(model: Any) -> None:
    found = interp.circuit(PAIRS, method="exact", level="head", edges=60)
    assert found.per_node.shape == (3, len(found.writers))
    for n, pair in enumerate(PAIRS.pairs):
        for name in ("embed", "0.1", "0.mlp", "1.3"):
            expected = found.clean_metric[n] - without(model, pair, name)
            assert found.per_node[n, found.writers.index(name)] == pytest.approx(expected, abs=5e-5), name
    summed = np.nansum(found.per_pair, axis=2)
    assert np.abs(found.per_node - summed).max() > 0.01, "edges by themselves do not add up to a node"
    assert (choice.of_size(found, int(found.kept.sum())) == found.kept).all()
    other = dataclasses.replace(found, per_node=found.per_node[:, ::-1].copy())
    assert (choice.of_size(other, 60) != found.kept).any()
    pruned = found.prune(0.01)
    assert (pruned.level, pruned.per_node.shape) == ("edge", (0, 0))
    assert (choice.of_size(pruned, int(pruned.kept.sum())) == pruned.kept).all()
    for method in ("eap", "eap-ig"):
        estimated = interp.circuit(PAIRS, method=method, level="head", edges=60)
        assert np.allclose(estimated.per_node, np.nansum(estimated.per_pair, axis=2), atol=1e-6)
    assert interp.circuit(PAIRS, method="eap").per_node.size == 0


def test_acdc_begins_with_what_an_estimate_leaves(use: Any) -> None:
    use(build("llama"))
    first = choice.of_size(interp.circuit(PAIRS), 60)
    found = interp.circuit(PAIRS, method="acdc", among=60, threshold=0.05)
    assert (found.scores[found.exists & ~first] == 0).all()
    assert 0 < (found.scores > 0).sum() < first.sum()
    assert any("began with" in note and "by EAP-IG" in note for note in found.notes)
    # One by one, from there.
    whole = dataclasses.replace(found, kept=first)
    runs = session.get().operate("test", {}, lambda _: Subset(session.get(), cases(), "corrupted"))

    def mean(mask: Any) -> float:
        return float(session.get().operate("test", {}, lambda _: runs.run(torch.tensor(mask)[None])).mean())

    kept = whole.kept.copy()
    value = mean(kept)
    for reader in reversed(range(kept.shape[1])):
        for writer in reversed(range(kept.shape[0])):
            if kept[writer, reader]:
                less = kept.copy()
                less[writer, reader] = False
                now = mean(less)
                if abs(now - value) < 0.05:
                    kept, value = less, now
    assert ((found.scores > 0) == kept).all()


def cases() -> list[Case]:
    return [
        Case(a, b, Scorer(Metric(), (7, 12), (9,)), 5, clean_base=True) for a, b in zip(CLEAN, CORRUPTED, strict=True)
    ]


def test_acdc_that_takes_long_says_so_first(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build("gpt2"))
    monkeypatch.setattr("interp.methods.circuits.circuit._LONG", 0.0)
    with pytest.warns(UserWarning, match=r"edges one by one for 1 threshold: about [\d.]+ s; a smaller --among"):
        interp.circuit(PAIRS, method="acdc", threshold=0.5)


def test_acdc_interrupted_does_not_know_what_it_did_not_try(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build("gpt2"))

    def stop(done: int, total: int, said: str = "") -> None:  # noqa: ARG001
        if done > total * 3 / 4:
            raise KeyboardInterrupt

    whole = interp.circuit(PAIRS, method="acdc")
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "on_step", lambda _, *given: stop(*given))
        with pytest.raises(Interrupted) as stopped:
            interp.circuit(PAIRS, method="acdc")
    found = stopped.value.result
    unknown = found.exists & np.isnan(found.scores)
    total = 12 * found.exists.sum()
    said = re.match(
        rf"partial: interrupted after ([\d,]+)/{total:,} decisions; (\d+) edges have no score", found.notes[0]
    )
    assert said
    assert 3 / 4 < int(said[1].replace(",", "")) / total < 0.9
    assert int(said[2]) == unknown.sum()
    assert unknown.any()
    known = found.exists & ~unknown
    assert (found.scores[known] == whole.scores[known]).all()
    assert (whole.scores[unknown] < found.scores[known].min()).all()
    assert found.kept.any()
    assert not (found.kept & unknown).any()
    with monkeypatch.context() as patch:
        patch.setattr(type(model), "on_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted) as stopped:
            interp.circuit(PAIRS, method="acdc", threshold=0.1)
    few = stopped.value.result
    whole = interp.circuit(PAIRS, method="acdc", threshold=0.1)
    decided = few.exists & np.isfinite(few.scores)
    assert f"after {decided.sum()}/{few.exists.sum()} decisions" in few.notes[0]
    assert 0 < decided.sum() < few.exists.sum()
    assert (few.scores[decided] == whole.scores[decided]).all()
    assert not any("keep more" in note for note in few.notes)


def test_what_a_reader_would_not_expect_is_said(use: Any) -> None:
    use(build("gpt2"))
    found = interp.circuit(PAIRS, metric="kl", edges=10)
    assert (np.array([edge.score for edge in found.edges[:3]]) < 0).all()
    assert any("an edge that helps has a score below 0" in note for note in found.notes)
    assert "blue: it helps; red: it works against the answer" in found.svg()
    assert "red: it helps; blue: it works against the answer" in interp.circuit(PAIRS, edges=10).svg()
    alone = interp.circuit(Pairs(PAIRS.pairs[:1]), ablation="mean", edges=10)
    same = interp.circuit(Pairs(PAIRS.pairs[:1]), edges=10)
    assert np.allclose(alone.ablated_metric, same.ablated_metric, atol=1e-5)
    assert any("mean over one corrupted prompt" in note for note in alone.notes)
    for note in interp.circuit(PAIRS, ablation="mean", edges=10).notes:
        assert "below 0" not in note
        assert "mean over one" not in note


def test_scores_that_are_no_numbers_keep_nothing_and_say_why(use: Any) -> None:
    model = use(build("gpt2"))
    with torch.no_grad():
        model.hf_model.get_parameter("transformer.ln_f.bias").fill_(float("nan"))
    found = interp.circuit(PAIRS, method="eap")
    assert not found.kept.any()
    assert f"the scores of {found.exists.sum():,} edges are NaN or infinite" in found.notes[0]
    assert not any("keep more" in note for note in found.notes)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_and_hooks_of_the_users_stay_as_they_are(method: str, use: Any) -> None:
    model = use(build("llama"))
    first, second, third, *_ = model.hf_model.parameters()
    first.requires_grad_(True)
    second.requires_grad_(False)
    third.requires_grad_(True)
    third.grad = torch.full_like(third, 3.0)
    hooks, state = census(model.modules()), model.fingerprint()
    with torch.no_grad():
        found = interp.circuit(PAIRS, method=method, edges=20)
    again = interp.circuit(PAIRS, method=method, edges=20)
    assert np.array_equal(found.scores, again.scores, equal_nan=True)
    assert [one.requires_grad for one in (first, second, third)] == [True, False, True]
    assert first.grad is None
    assert bool((third.grad == 3).all())
    assert (census(model.modules()), model.fingerprint()) == (hooks, state)
    assert torch.is_grad_enabled()


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

    monkeypatch.setattr("interp.engine.memory.WAVE_ROWS", 64)
    monkeypatch.setattr(type(model), "on_step", lambda _, *given: stop(*given))
    with pytest.raises(Interrupted) as stopped:
        interp.circuit(PAIRS, method="exact", edges=20)
    found = stopped.value.result
    assert calls
    assert found.notes[0].startswith("partial: interrupted")
    unknown = found.exists & np.isnan(found.scores)
    assert unknown.any()
    assert not (found.kept & unknown).any()
    assert found.text()


def test_memory_that_runs_out_halves_the_pairs(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build("llama"))
    whole = interp.circuit(PAIRS, steps=4)
    sizes: list[int] = []
    real = EdgeProducts.run

    def small(self: Any, points: Any) -> None:
        sizes.append(len(self.cases) * len(points))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("not enough memory")
        real(self, points)

    monkeypatch.setattr(EdgeProducts, "run", small)
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
    made = interp.validate(made, random=2, top=3).circuit
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
    assert type(found.checks) is type(made.checks)
    assert found.report is not None
    assert made.report is not None
    assert np.array_equal(found.report.whole, made.report.whole)
    assert found.functions[node] == made.functions[node]
    assert found.edges == made.edges
    assert found.prune(0.01).heads == made.prune(0.01).heads
    assert found.html()
    again = found.save(tmp_path / "again.json")
    assert again.read_bytes() == file.read_bytes()


def test_a_file_holds_the_edges_for_others_and_is_small(use: Any, tmp_path: Path) -> None:
    use(build("gpt2"))
    made = interp.circuit(PAIRS, method="eap", edges=30)
    file = made.save(tmp_path / "c.json")
    held = json.loads(file.read_text())
    assert held["edges"] == [list(edge) for edge in made.edges]
    del held["interp"]  # what every result's file says of itself, however large it is
    assert len(json.dumps(held)) < len(json.dumps(as_data(made))) / 2


def test_a_circuit_from_a_file_and_the_current_model(use: Any, tmp_path: Path) -> None:
    use(build("gpt2"))
    file = interp.circuit(PAIRS, edges=30).save(tmp_path / "c.json")
    found = interp.load_circuit(file)
    node = next(name for name in found.nodes if name not in {"embed", "logits"})
    with pytest.raises(InputError, match="validate"):
        found.function_of(node)
    bound = interp.validate(found, random=0, top=0).circuit
    assert found.report is None
    assert bound.report is not None
    assert bound.function_of(node).node == node


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data.pop("group_size"), "lacks group_size"),
        (lambda data: data.update(extra=1), "unknown extra"),
        (lambda data: data["readers"].pop(), "is due"),
        (lambda data: data.update(scores=[["much"]]), "much"),
        (lambda data: data.update(kept=[[3]]), "array of bool"),
        (lambda data: data["checks"].pop("clean"), "clean"),
        (lambda data: data.update(checks=None), "PairChecks"),
        (lambda data: data.update(method="guess"), "guess"),
        (lambda data: data.update(writers="embed"), "list"),
        (lambda data: data.update(format=3), "format is 3"),
        (lambda data: data.pop("format"), "format is None"),
        (lambda data: data["scores"].update(zlib="AAAA"), "cannot be unpacked"),
        (lambda data: data["scores"].update(zlib="ä"), "ASCII"),
        (lambda data: data["scores"].update(zlib=3), "bytes-like"),
        (lambda data: data["scores"].update(dtype="<f4"), "'<f4' where '<f8' is due"),
        (lambda data: data["scores"].update(dtype="|O"), "'|O' where '<f8' is due"),
        (lambda data: data["scores"].update(shape=[1, 2]), "where 16 are due"),
        (lambda data: data["scores"].update(shape=[-1, 2]), "negative"),
        (lambda data: data["scores"].update(shape=[2**62, 2**62]), "fewer are due"),
        (lambda data: data["scores"].update(shape=[2**40]), "are due"),
        (lambda data: data["scores"].pop("shape"), "shape"),
        (lambda data: data["exists"].update(zlib=data["per_pair"]["zlib"]), "are due"),
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
        (listed, "no result's file"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.json", "there is no file"),
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
    """The two heads of the highest induction scores, on the prompts that those are measured on.

    One gradient finds them there; the integral, which takes a hundred on these prompts, is for the shorter ones below.
    """
    found = interp.circuit(repeated(4), method="eap", edges=200)
    assert 0 < found.kept.sum() <= 200
    assert {"18.6", "17.3"} <= set(found.heads), found.heads
    assert found.provenance.path == "gradients"
    assert found.group_size == 3
    looked_up = interp.circuit(task="induction", corruption="other-first", n=4, edges=200)
    assert {"18.6", "17.3"} <= set(looked_up.heads), looked_up.heads
    report = looked_up.validate(random=8, top=0).report
    assert report.faithfulness > report.random.mean() + 3 * report.random.std()
    # Another token in B's place alone keeps what the heads look for and changes what they bring: values are ablated.
    brought = interp.circuit(task="induction", n=4, edges=200)
    assert "18.6" in brought.heads, brought.heads
    assert smollm2.geometry.n_layers == 30
