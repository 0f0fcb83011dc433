"""Ablation against the bridge's own hooked forward, and every number that is made of its runs."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn import functional

import interp
from interp.engine.metrics import Scorer
from interp.engine.model.loaded import LoadedModel
from interp.engine.patching import ablation
from interp.engine.transformer import network
from interp.engine.transformer.families._family import Family
from interp.errors import InputError, Interrupted
from interp.spec import Metric, Prompt, Texts
from methods.patching.test_patch import FIRST, ONE, SHORT, Asked, Size, build, captured, closed_form, logits_of, use

__all__ = ["use"]
pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 5e-5  # of a logit, or of a nat
THIRD = Asked((50, 12, 23, 31, 8, 41), (51, 12, 23, 31, 9, 41), (7, 12), (9,))
LONG = (5, 11, 23, 31, 8, 40, 17, 60, 3)
TEXTS = Texts(
    (Prompt(ids=LONG), Prompt(ids=(9, 14, 80, 2, 5, 6, 90, 33, 21)), Prompt(ids=(12, 13, 14, 15, 16, 17, 1, 2, 3)))
)


def ablated(asked: Sequence[Asked], **options: Any) -> Any:
    return interp.ablate(pairs=[pair.pair for pair in asked], **options)


def z(layer: int) -> str:
    return f"blocks.{layer}.attn.hook_z"


def filling(head: tuple[int, int] | None, mlp: int | None, value: torch.Tensor) -> tuple[str, Any]:
    """Return a hook that puts `value` in the place of a head's z or an MLP's output."""

    def write(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        changed = tensor.clone()
        changed[(slice(None), slice(None), head[1]) if head else ()] = value
        return changed

    return (z(head[0]) if head else f"blocks.{mlp}.hook_mlp_out", write)


def metric_of(model: LoadedModel, pair: Asked, hooks: Sequence[Any], metric: str = "logit-diff") -> float:
    clean = logits_of(model, pair.clean)[-1]
    return closed_form(metric, logits_of(model, pair.clean, hooks)[-1], pair.answer, pair.wrong, clean)


def loss_of(model: LoadedModel, ids: Sequence[int], hooks: Sequence[Any] = ()) -> float:
    logits = logits_of(model, ids, hooks).double()
    return float(functional.cross_entropy(logits[:-1], torch.tensor(list(ids[1:]))))


def own(model: LoadedModel, ids: Sequence[int], head: tuple[int, int] | None, mlp: int | None) -> torch.Tensor:
    name = z(head[0]) if head else f"blocks.{mlp}.hook_mlp_out"
    held = captured(model, ids, [name])[name][0]
    return held[:, head[1]] if head else held


# Each component as it is named and as the reference takes it.
PARTS = {"0.1": ((0, 1), None), "1.2": ((1, 2), None), "0.mlp": (None, 0), "1.mlp": (None, 1)}
ASK = {"heads": "0.1,1.2", "mlps": [0, 1]}
FAMILIES = pytest.mark.parametrize(
    ("kind", "extra"),
    [("gpt2", {}), ("llama", {}), ("neox", {}), ("neox", {"use_parallel_residual": False}), ("qwen3", {})],
    ids=str,
)


@pytest.mark.parametrize("way", ["forward", "hooked"])
@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
@FAMILIES
def test_runs_are_those_of_hooks(
    kind: str, extra: dict[str, Any], mode: str, way: str, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = use(build(kind, **extra))
    if way == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
    pairs = [ONE, FIRST, THIRD]
    result = ablated(pairs, mode=mode, seed=3, **ASK)
    assert result.provenance.path.startswith(way)
    assert result.provenance.seed == 3
    assert result.components == tuple(PARTS)
    assert result.conditions == ("unablated", *PARTS, "all")
    every = [ids for pair in pairs for ids in (pair.clean, pair.corrupted)]
    samples = [ablation.Sample(pair.clean, 5, Scorer(Metric())) for pair in pairs]
    taken = ablation.donors(samples, every, exact=True, seed=3)
    means = {n: torch.stack([own(model, ids, *part) for ids in every]).mean(0) for n, part in PARTS.items()}
    for number, pair in enumerate(pairs):
        assert every[taken[number]] != pair.clean

        def value(name: str, number: int = number) -> torch.Tensor:
            if mode == "mean":
                return means[name]
            return own(model, every[taken[number]], *PARTS[name]) * (mode == "resample")

        hooks = {name: filling(*part, value(name)) for name, part in PARTS.items()}
        expected = [metric_of(model, pair, ())]
        expected += [metric_of(model, pair, [hook]) for hook in hooks.values()]
        expected.append(metric_of(model, pair, list(hooks.values())))
        assert np.abs(result.per_prompt[:, number] - expected).max() < BOUND
    assert np.abs(result.effect[1:]).min() > 1e-4


@FAMILIES
def test_the_loss_on_texts(kind: str, extra: dict[str, Any], use: Any) -> None:
    model = use(build(kind, **extra))
    lengths = Texts((*TEXTS.texts, Prompt(ids=LONG[:4])))
    for mode in ("zero", "mean"):
        result = interp.ablate(lengths, mode=mode, **ASK)
        assert result.metric == "loss"
        assert result.provenance.path == "forward"
        prompts = [prompt.ids for prompt in lengths.texts]
        held = {n: [own(model, ids, *part) for ids in prompts] for n, part in PARTS.items()}
        for number, ids in enumerate(prompts):

            def value(name: str, ids: Any = ids, held: Any = held, mode: str = mode) -> torch.Tensor:
                if mode == "zero":
                    return torch.zeros(())
                first = torch.stack([one[0] for one in held[name]]).mean(0)
                rest = torch.cat([one[1:] for one in held[name]]).mean(0)
                return torch.stack([first, *[rest] * (len(ids) - 1)])

            hooks = {name: filling(*part, value(name)) for name, part in PARTS.items()}
            expected = [loss_of(model, ids), *(loss_of(model, ids, [hook]) for hook in hooks.values())]
            expected.append(loss_of(model, ids, list(hooks.values())))
            assert np.abs(result.per_prompt[:, number] - expected).max() < BOUND, (mode, ids)
        # A text counts by its tokens.
        assert result.weights.tolist() == [8, 8, 8, 3]
        assert np.allclose(result.values, (result.per_prompt * result.weights).sum(1) / 27)
    assert "the first apart" in result.replacement
    assert "position by position" in interp.ablate(TEXTS, mode="mean", **ASK).replacement


CUTS = "0.1:5->2,1.3:4->0,1.3:*->3"


@pytest.mark.parametrize("way", ["forward", "hooked"])
@FAMILIES
def test_a_knockout_is_a_hook_on_the_scores(
    kind: str, extra: dict[str, Any], way: str, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = use(build(kind, **extra))
    if way == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
    result = ablated([ONE, FIRST], knockout=CUTS)
    assert result.provenance.path.startswith(way)
    assert result.components == tuple(CUTS.split(","))
    assert result.replacement.startswith("edges cut")

    def cut(layer: int, head: int, queries: Sequence[int], key: int) -> tuple[str, Any]:
        def write(scores: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            changed = scores.clone()
            changed[:, head, list(queries), key] = float("-inf")
            return changed

        return f"blocks.{layer}.attn.hook_attn_scores", write

    hooks = [cut(0, 1, [5], 2), cut(1, 3, [4], 0), cut(1, 3, [4, 5], 3)]
    for number, pair in enumerate([ONE, FIRST]):
        expected = [metric_of(model, pair, ()), *(metric_of(model, pair, [hook]) for hook in hooks)]
        expected.append(metric_of(model, pair, hooks))
        assert np.abs(result.per_prompt[:, number] - expected).max() < BOUND
    assert np.abs(result.effect).max() > 1e-3
    both = ablated([ONE], heads="0.0", mlps=1, knockout="1.3:4->0")
    assert both.components == ("0.0", "1.mlp", "1.3:4->0")
    together = [filling((0, 0), None, torch.zeros(())), filling(None, 1, torch.zeros(())), hooks[1]]
    assert abs(both.per_prompt[-1, 0] - metric_of(model, ONE, together)) < BOUND


def along(model: LoadedModel, ids: Sequence[int], site: str, layer: int, vector: torch.Tensor) -> torch.Tensor:
    """Return the residual stream's coordinate along a vector of length 1, ``[position]``."""
    name = f"blocks.{layer}.hook_{site}"
    return captured(model, ids, [name])[name][0] @ vector


def put(site: str, layer: int, vector: torch.Tensor, value: torch.Tensor) -> list[tuple[str, Any]]:
    """Return hooks that make `value`, ``[position]``, the residual stream's coordinate along `vector`."""

    def change(stream: torch.Tensor) -> torch.Tensor:
        return stream + (value - stream @ vector)[..., None] * vector

    if site != "resid_mid":
        return [(f"blocks.{layer}.hook_{site}", lambda tensor, hook: change(tensor))]  # noqa: ARG005
    before: list[torch.Tensor] = []

    def remember(tensor: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
        before[:] = [tensor]

    def write(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
        return change(before[0] + tensor) - before[0]

    return [(f"blocks.{layer}.hook_resid_pre", remember), (f"blocks.{layer}.hook_attn_out", write)]


@pytest.mark.parametrize("way", ["forward", "hooked"])
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post"])
@FAMILIES
def test_a_direction_is_projected_out(
    kind: str, extra: dict[str, Any], site: str, way: str, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = use(build(kind, **extra))
    if site == "resid_mid" and "blocks.0.hook_resid_mid" not in model.bridge.hook_dict:
        with pytest.raises(InputError, match="has no resid_mid"):
            ablated([ONE], direction=np.ones(model.geometry.d_model), layer=0, site=site)
        return
    if way == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
    given = torch.randn(2, model.geometry.d_model, generator=torch.Generator().manual_seed(1)) * 7
    vectors = given / given.norm(dim=1, keepdim=True)
    pairs = [ONE, FIRST]
    every = [ids for pair in pairs for ids in (pair.clean, pair.corrupted)]
    for mode in ("zero", "mean"):
        result = ablated(pairs, direction=given.numpy(), layer=[0, 1], site=site, heads="1.2", mode=mode)
        assert result.provenance.path.startswith(way)
        assert result.components == ("1.2", "0.direction", "1.direction")
        for number, pair in enumerate(pairs):

            def value(layer: int, mode: str = mode) -> torch.Tensor:
                means = [along(model, ids, site, layer, vectors[layer]) for ids in every]
                return torch.stack(means).mean(0) * (mode == "mean")

            head = torch.stack([own(model, ids, (1, 2), None) for ids in every]).mean(0) * (mode == "mean")
            hooks = [[filling((1, 2), None, head)], *(put(site, n, vectors[n], value(n)) for n in (0, 1))]
            expected = [metric_of(model, pair, ()), *(metric_of(model, pair, hook) for hook in hooks)]
            expected.append(metric_of(model, pair, [hook for part in hooks for hook in part]))
            assert np.abs(result.per_prompt[:, number] - expected).max() < BOUND, (mode, number)
        assert np.abs(result.effect[1:]).min() > 1e-4
    # Its length and its sign are nothing to what is projected out.
    turned = ablated(pairs, direction=-3 * given[1].numpy(), layer=1, site=site)
    plain = ablated(pairs, direction=given, layer=1, site=site)
    assert np.abs(turned.per_prompt - plain.per_prompt).max() < BOUND


def test_a_probes_direction_is_taken_out_where_it_was_found(shell: Any, lend: Any) -> None:
    model = lend("llama")
    texts = [f"{word} {n}" for n in range(8) for word in ("the cat sat", "Mary went")]
    probe = interp.probe(texts, ["cat", "Mary"] * 8, site="resid_pre")
    shell.user_ns["found"] = probe
    ran = shell.run_cell("%%interp ablate --direction found --layer 1\nMary gave the drink to John")
    ran.raise_error()
    result = ran.result
    assert result.components == ("1.direction",)
    vector = torch.tensor(probe.direction(1), dtype=torch.float32)
    ids = result.provenance.tokens[0]
    expected = [loss_of(model, ids), loss_of(model, ids, put("resid_pre", 1, vector, torch.zeros(())))]
    assert np.abs(result.per_prompt[:, 0] - expected).max() < BOUND
    assert "L1 direction" in result.html()
    assert "L1 direction" in result.svg()
    best = interp.ablate("Mary gave the drink to John", direction=probe)
    assert best.components == (f"{probe.best}.direction",)
    other = interp.ablate("Mary gave the drink to John", direction=probe, site="resid_post")
    assert any("--site resid_pre" in note for note in other.notes)
    for options, words in (
        ({"direction": np.ones(model.geometry.d_model)}, "--layer 5"),
        ({"direction": np.zeros(model.geometry.d_model), "layer": 0}, "is zero"),
        ({"direction": np.ones(3), "layer": 0}, "the residual stream has"),
        ({"direction": "text", "layer": 0}, "array of numbers"),
        ({"direction": probe, "layer": 9}, "layers are 0–1"),
        ({"layer": 1, "heads": "0.0"}, "--direction"),
        ({"site": "resid_pre", "heads": "0.0"}, "--direction"),
    ):
        with pytest.raises(InputError, match=words):
            interp.ablate("Mary gave the drink to John", **options)


@pytest.mark.parametrize("way", ["forward", "hooked"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_noise_has_the_components_own_deviation(kind: str, way: str, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build(kind))
    if way == "hooked":
        monkeypatch.setattr(network, "FAMILIES", {})
    drawn: list[torch.Tensor] = []
    randn = torch.randn

    def watched(*arguments: Any, **options: Any) -> torch.Tensor:
        drawn.append(randn(*arguments, **options))
        return drawn[-1].clone()

    monkeypatch.setattr(ablation.torch, "randn", watched)
    result = ablated([ONE], heads="1.2", mode="noise", seed=1)
    held = torch.stack([own(model, ids, (1, 2), None) for ids in (ONE.clean, ONE.corrupted)])
    noise = (
        drawn[-1]
        * torch.tensor([float(held[:, 0].std(correction=0)), *[float(held[:, 1:].std(correction=0))] * 5])[:, None]
    )
    noisy = filling((1, 2), None, own(model, ONE.clean, (1, 2), None) + noise)
    assert abs(result.per_prompt[1, 0] - metric_of(model, ONE, [noisy])) < BOUND
    monkeypatch.undo()
    again = ablated([ONE], heads="1.2", mode="noise", seed=1)
    assert np.allclose(again.per_prompt, result.per_prompt, atol=BOUND)
    other = ablated([ONE], heads="1.2", mode="noise", seed=2)
    assert abs(other.values[1] - result.values[1]) > 1e-4
    # Together with others a component's noise is the same.
    whole = ablated([ONE], heads="1.2,1.2", mode="noise", seed=1)
    assert whole.components == ("1.2",)


def test_what_is_not_additive(use: Any) -> None:
    use(build("llama"))
    pairs = [ONE, FIRST, THIRD, ONE]
    result = ablated(pairs, heads=["0.0", "0.1", "1.1"])
    effects = result.values - result.values[0]
    assert np.allclose(result.effect, effects)
    assert result.additive == pytest.approx(result.values[0] + effects[1:4].sum())
    assert result.superadditive == pytest.approx(effects[4] - effects[1:4].sum())
    assert abs(result.superadditive) > 1e-3
    assert np.allclose(result.values, result.per_prompt.mean(1))
    for (low, high), middle in (
        (result.value_interval, result.values),
        (result.effect_interval, result.effect),
        (result.additive_interval, result.additive),
        (result.superadditive_interval, result.superadditive),
    ):
        assert np.all(low <= middle + 1e-9)
        assert np.all(middle <= high + 1e-9)
    assert (result.effect_interval[:, 0] == 0).all()
    frame = result.to_frame()
    assert list(frame["without"]) == ["unablated", "0.0", "0.1", "1.1", "all", "all, if additive", "all − Σ each"]
    assert frame["effect"].iloc[-1] == result.superadditive
    assert frame["logit-diff"].iloc[5] == result.additive
    single = ablated([ONE], heads="0.0")
    assert single.conditions == ("unablated", "0.0")
    assert len(single.to_frame()) == 2
    assert np.isnan(single.value_interval).all()
    assert single.superadditive == 0


@pytest.mark.parametrize("metric", ["logit", "logprob", "prob", "rank", "kl"])
def test_metrics(metric: str, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build("llama"))
    for families in (network.FAMILIES, {}):
        monkeypatch.setattr(network, "FAMILIES", families)
        result = ablated([ONE, SHORT], heads="0.1", metric=metric)
        for number, pair in enumerate([ONE, SHORT]):
            hook = filling((0, 1), None, torch.zeros(()))
            expected = [metric_of(model, pair, hooks, metric) for hooks in ((), [hook])]
            assert np.abs(result.per_prompt[:, number] - expected).max() < BOUND
    assert metric != "kl" or abs(result.values[0]) < BOUND


# -- texts -----------------------------------------------------------------------------------------------------------

STORY = "Mary gave the drink to John.\n\n\nThe cat sat on the mat.\nThe capital of France is Paris.\n"


def test_texts_from_files_lists_and_columns(lend: Any, tmp_path: Any) -> None:
    lend("gpt2")
    parts = ["Mary gave the drink to John.", "The cat sat on the mat.\nThe capital of France is Paris."]
    listed = interp.ablate(parts, heads="0.1")
    assert listed.per_prompt.shape == (2, 2)
    files = {
        "a.txt": STORY,
        "a.json": json.dumps(parts),
        "b.json": json.dumps([{"text": part} for part in parts]),
        "a.jsonl": "\n".join(json.dumps({"text": part, "n": 1}) for part in parts),
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
        result = interp.ablate(text=str(tmp_path / name), heads="0.1")
        assert np.array_equal(result.per_prompt, listed.per_prompt), name
        assert result.task == name
    table = pd.DataFrame({"text": parts, "story": parts})
    table.to_csv(tmp_path / "a.csv")
    assert np.array_equal(interp.ablate(text=str(tmp_path / "a.csv"), heads="0.1").per_prompt, listed.per_prompt)
    named = interp.ablate(text=str(tmp_path / "a.csv"), column="story", heads="0.1")
    assert np.array_equal(named.per_prompt, listed.per_prompt)
    assert np.array_equal(interp.ablate(table["story"], heads="0.1").per_prompt, listed.per_prompt)
    assert np.array_equal(interp.ablate(tmp_path / "a.txt", heads="0.1").per_prompt, listed.per_prompt)
    assert interp.ablate(text=str(tmp_path / "a.txt"), n=1, heads="0.1").per_prompt.shape == (2, 1)
    assert interp.ablate(parts[0], heads="0.1").per_prompt.shape == (2, 1)
    for name, content, words in (
        ("none.txt", None, "there is no file"),
        ("empty.txt", " \n", "holds no text"),
        ("bad.json", "{", "is not JSON"),
        ("one.json", "{}", "must hold a list"),
        ("key.json", '[{"a": "b c"}]', "has no column 'text'; it has a"),
        ("bytes.txt", b"\xff\xfe\xfa", "is not UTF-8"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(InputError, match=words):
            interp.ablate(text=str(tmp_path / name), heads="0.1")


def test_a_head_can_be_named_as_it_is_drawn(lend: Any) -> None:
    lend("gpt2")
    drawn, typed = (interp.ablate("Mary gave the drink", heads=name) for name in ("L1H0,l0h3", "1.0,0.3"))
    assert drawn.components == typed.components == ("1.0", "0.3")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "say what to ablate: --heads 9.9,10.0, --mlps 3, or --knockout"),
        ({"heads": "99.1"}, "no layer 99; layers are 0–1"),
        ({"heads": "9"}, "--heads '9' is no head; type its layer and number, such as 1.0"),
        ({"heads": "1.4"}, "no head 4; heads are 0–3"),
        ({"heads": "1.-1"}, "is no head"),
        ({"heads": ""}, "--heads names nothing"),
        ({"mlps": 2}, "no mlp 2; mlps are 0–1"),
        ({"knockout": "1.1:14"}, "--knockout '1.1:14' is no edge; type head:query->key, such as 1.0:14->2"),
        ({"knockout": "1.9:4->2"}, "no head 9"),
        ({"knockout": "1.1:2->4"}, "position 2 does not see position 4"),
        ({"knockout": "1.1:4->*"}, "cuts every key of the query"),
        ({"knockout": "1.1:0->0"}, "cuts every key of query 0 in 1.1"),
        ({"knockout": "1.1:1->0,1.1:1->1"}, "cuts every key of query 1"),
        ({"knockout": "1.1:99->0"}, "beyond the prompt, whose positions are 0–5"),
        ({"knockout": "1.1:*->5"}, "beyond the prompt, whose positions are 0–5"),
        ({"heads": "0.0", "mode": "zeros"}, "did you mean zero"),
        ({"heads": "0.0", "metric": "los"}, "there is no metric"),
    ],
)
def test_what_cannot_be_ablated(options: dict[str, Any], words: str, use: Any) -> None:
    model = use(build("llama"))
    before = model.forwards
    with pytest.raises(InputError) as caught:
        ablated([ONE], **options)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert model.forwards == before


def test_texts_that_cannot_be_measured(use: Any, lend: Any) -> None:
    use(build("llama"))
    for given, options, words in (
        (Texts((Prompt(ids=(5,)),)), {}, "a single token, which predicts nothing"),
        (Texts((Prompt(ids=LONG),)), {"mode": "resample"}, "no other prompt of 9 tokens"),
        (Texts((Prompt(ids=LONG),)), {"metric": "logit"}, "measured by their loss"),
        ([], {}, "there are no texts"),
        ([5], {}, "a single token, which predicts nothing"),
        ([2.5], {}, "float is neither"),
    ):
        with pytest.raises(InputError, match=words):
            interp.ablate(given, heads="0.0", **options)
    with pytest.raises(InputError, match="takes one of them"):
        interp.ablate("a text", heads="0.0", text="a.txt")
    lend("bert")
    with pytest.raises(InputError, match="reads in both directions"):
        interp.ablate("a text", heads="0.0")


# -- runs that break off ---------------------------------------------------------------------------------------------


def test_memory_runs_out_at_every_step(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build("llama"))
    pairs = [ONE, FIRST, THIRD]
    expected = ablated(pairs, **ASK)
    plain = ablation.forward
    for k in range(60):
        calls: list[int] = []

        def failing(*arguments: Any, k: int = k, calls: list[int] = calls, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == k + 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return plain(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(ablation, "forward", failing)
            result = ablated(pairs, **ASK)
        if len(calls) <= k:
            break
        assert np.abs(result.per_prompt - expected.per_prompt).max() < BOUND
        assert result.notes == expected.notes
    assert 3 < len(calls) < 60


def test_what_is_done_is_kept(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build("gpt2"))
    pairs = [ONE, FIRST]
    expected = ablated(pairs, **ASK)
    plain = ablation.forward
    for failure in ("interrupt", "memory"):
        calls: list[int] = []

        def failing(*arguments: Any, failure: str = failure, calls: list[int] = calls, **options: Any) -> Any:
            calls.append(1)
            if len(calls) > 3:
                if failure == "memory":
                    raise MemoryError
                signal.raise_signal(signal.SIGINT)
            return plain(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(ablation, "forward", failing)
            if failure == "memory":
                result = ablated(pairs, **ASK)
            else:
                with pytest.raises(Interrupted) as stopped:
                    ablated(pairs, **ASK)
                result = stopped.value.result
        done = np.isfinite(result.per_prompt)
        assert 0 < done.sum() < done.size
        assert np.abs(result.per_prompt - expected.per_prompt)[done].max() < BOUND
        (partial,) = (note for note in result.notes if note.startswith("partial: "))
        assert f"{done.sum()}/{done.size}" in partial
        assert f"{done.sum()}/{done.size} done" in result.summary()
        assert result.html()
        assert result.svg()
        assert len(result.to_frame()) == 8


def test_the_plotly_figure_shows_every_change(use: Any) -> None:
    use(build("llama"))
    result = ablated([ONE, FIRST] * 2, heads="0.0,0.1", mlps=1)
    (bars,) = result.to_plotly(theme="dark").data
    assert list(bars.y) == ["L0H0", "L0H1", "L1 MLP", "all together", "sum of each"]
    np.testing.assert_allclose(list(bars.x), [*result.effect[1:], result.additive - result.values[0]])
    np.testing.assert_allclose(np.array(bars.error_x.array[:4]) + bars.x[:4], result.effect_interval[1, 1:])
    assert np.isnan(bars.error_x.array[4]), "the sum has no interval, and none is drawn"
    (single,) = ablated([ONE], heads="0.0").to_plotly().data
    assert list(single.x) == [result.per_prompt[1, 0] - result.per_prompt[0, 0]]
    with pytest.raises(InputError, match="theme"):
        result.to_plotly(theme="blue")


def test_a_wrong_forward_is_noticed(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build("llama"))
    monkeypatch.setattr(Family, "scale", lambda self, attention, index, d_head: 1.1 * d_head**-0.5)  # noqa: ARG005
    result = ablated([ONE], heads="0.1")
    assert result.provenance.path.startswith("hooked: the forward without hooks differed by")
    hook = filling((0, 1), None, torch.zeros(()))
    assert np.abs(result.per_prompt[:, 0] - [metric_of(model, ONE, ()), metric_of(model, ONE, [hook])]).max() < BOUND


def test_hooks_of_the_users_own_take_part(use: Any) -> None:
    model = use(build("gpt2", Size(layers=3)))
    plain = ablated([ONE], heads="0.1")
    model.bridge.add_hook("blocks.1.hook_mlp_out", lambda tensor, hook: tensor * 0.5)  # noqa: ARG005
    try:
        result = ablated([ONE], heads="0.1")
    finally:
        model.bridge.reset_hooks()
    assert result.provenance.path == "hooked: hooks of the user's own"
    assert np.abs(result.values - plain.values).max() > 1e-3


# -- a model that has learned something ------------------------------------------------------------------------------


def test_smollm2(smollm2: LoadedModel) -> None:
    result = interp.ablate(task="ioi", n=4, heads="23.3,20.0", mode="mean")
    assert result.provenance.path == "forward"
    assert result.task == "ioi"
    print(f"SmolLM2 ioi: {result}, all − Σ {result.superadditive:+.3f}, {result.provenance.seconds:.1f} s")
    assert result.effect[1] < 0
    text = "The capital of France is Paris, and the capital of Germany is Berlin."
    loss = interp.ablate(text, heads="23.3", mlps=0)
    ids = loss.provenance.tokens[0]
    hooks = [filling((23, 3), None, torch.zeros(())), filling(None, 0, torch.zeros(()))]
    expected = [loss_of(smollm2, ids), loss_of(smollm2, ids, hooks[:1]), loss_of(smollm2, ids, hooks[1:])]
    expected.append(loss_of(smollm2, ids, hooks))
    assert np.abs(loss.per_prompt[:, 0] - expected).max() < 2e-4
    assert loss.values[0] < 3
    assert loss.values[2] > loss.values[0] + 1
    print(f"SmolLM2 loss: {loss.values.round(3).tolist()} nats per token")


def test_more_texts_than_are_held_give_what_they_give_together(
    lend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.methods._shared import texts

    lend("gpt2")
    path = tmp_path / "many.txt"
    path.write_text("\n".join(f"Text {n} says that the {'big ' * (n % 5)}cat sat." for n in range(60)))
    calls: dict[str, dict[str, Any]] = {"heads": {"heads": "0.1,1.0"}, "edges": {"knockout": "0.1:2->1"}}
    for asked in calls.values():
        together = interp.ablate(text=str(path), n=60, **asked)
        with monkeypatch.context() as few:
            few.setattr(texts, "HELD", 16)
            apart = interp.ablate(text=str(path), n=60, **asked)
        assert np.allclose(apart.per_prompt, together.per_prompt, atol=1e-5)
        assert np.array_equal(apart.weights, together.weights)
        assert (apart.values.shape, apart.task, apart.replacement) == (
            together.values.shape,
            together.task,
            together.replacement,
        )
        assert len(apart.provenance.tokens) == 16
        assert any("first 16 of 60" in note for note in apart.notes)
    path.write_text("\n".join([*("A text of some words" for _ in range(40)), "x " * 5000]))
    monkeypatch.setattr(texts, "HELD", 16)
    with pytest.raises(InputError, match="text 40: "):
        interp.ablate(text=str(path), n=60, heads="0.1")
