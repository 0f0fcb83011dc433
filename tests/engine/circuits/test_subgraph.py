"""Runs of circuits against the definition on hooks, input by input, and ACDC against the one-by-one algorithm."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from interp.engine import memory
from interp.engine.circuits.acdc import acdc, survived
from interp.engine.circuits.subgraph import Subset
from interp.engine.metrics import Scorer
from interp.engine.model.loaded import LoadedModel
from interp.engine.patching import path
from interp.engine.patching.cases import Case, unpatched
from interp.errors import InputError
from interp.spec import Metric
from methods.patching.test_patch import Size, build, logits_of

pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 5e-5  # of a logit
KINDS = [
    ("gpt2", {}),
    ("llama", {}),  # two query heads to one of keys and values
    ("neox", {}),  # attention and MLP side by side
    ("neox", {"use_parallel_residual": False}),
    ("qwen3", {}),  # norms of q and k per head
]
ONE = ((5, 11, 64, 31, 8, 40), (5, 11, 23, 31, 8, 40))
FIRST = ((51, 11, 23, 31, 9, 40), (50, 11, 23, 31, 8, 40))
SHORT = ((6, 17, 3), (5, 17, 3))


def case(ids: tuple[tuple[int, ...], tuple[int, ...]], metric: str = "logit-diff") -> Case:
    return Case(*ids, Scorer(Metric(metric), (7, 12), (9,)), len(ids[0]) - 1, clean_base=True)


CASES = [case(ONE), case(FIRST), case(SHORT)]


def made(model: LoadedModel, cases: Sequence[Case], ablation: str = "corrupted") -> Subset:
    return model.operate("circuit", {}, lambda _: Subset(model, cases, ablation))


def asked(subset: Subset, masks: torch.Tensor, **options: Any) -> torch.Tensor:
    return subset.model.operate("circuit", {}, lambda _: subset.run(masks, **options))


def drawn(subset: Subset, count: int, share: float = 0.6, seed: int = 0) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return (torch.rand(count, *subset.exists.shape, generator=source) < share) & subset.exists


@pytest.fixture(params=KINDS, ids=str)
def model(request: pytest.FixtureRequest) -> Any:
    kind, extra = request.param
    return build(kind, Size(layers=3), **extra)


# -- the reference: every input is written by a hook, as the sum of what this very run has written -------------------


class Naive:
    def __init__(self, model: LoadedModel, subset: Subset, cases: Sequence[Case]) -> None:
        self.model, self.subset, self.cases = model, subset, cases
        self.depth = model.geometry.n_layers
        self.w = {node.name: n for n, node in enumerate(subset.writers)}
        self.r = {node.name: n for n, node in enumerate(subset.readers)}

    def names(self) -> list[str]:
        inside = [f"blocks.{n}.{site}" for n in range(self.depth) for site in ("attn.hook_z", "hook_mlp_out")]
        return ["blocks.0.hook_resid_pre", *inside]

    def bias(self, layer: int, module: str) -> torch.Tensor:
        block = self.model.bridge.blocks[layer]
        part = block.attn.o if module == "o" else dict(block.mlp.named_children())["out"]
        held = getattr(part.original_component, "bias", None)
        return torch.zeros(self.model.geometry.d_model) if held is None else held.detach()

    def written(self, held: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        if name == "embed":
            return held["blocks.0.hook_resid_pre"][0]
        layer, part = name.split(".")
        if part == "mlp":
            return held[f"blocks.{layer}.hook_mlp_out"][0]
        z = held[f"blocks.{layer}.attn.hook_z"][0][:, int(part)]
        return z @ self.model.bridge.blocks[int(layer)].attn.W_O[int(part)].detach()

    def ablated(self, number: int, name: str) -> torch.Tensor:
        def of(ids: Sequence[int]) -> torch.Tensor:
            held: dict[str, torch.Tensor] = {}
            hooks = [(n, lambda t, hook, n=n: held.__setitem__(n, t.detach().clone())) for n in self.names()]  # noqa: ARG005
            logits_of(self.model, ids, hooks)
            return self.written(held, name)

        if self.subset.ablation == "corrupted":
            return of(self.cases[number].source)
        if self.subset.ablation == "mean":
            return torch.stack([of(one.source) for one in self.cases]).mean(0)
        layer, _, part = name.partition(".")
        return self.bias(int(layer), "down") if part == "mlp" else torch.zeros(self.model.geometry.d_model)

    def __call__(self, number: int, mask: torch.Tensor) -> float:
        """Return one pair's metric where only the edges of `mask` are kept."""
        one, held = self.cases[number], dict[str, torch.Tensor]()
        below = {name: self.ablated(number, name) for name in self.w}
        beside = path.parallel(self.model)

        def read(reader: str) -> torch.Tensor:
            node = self.subset.readers[self.r[reader]]
            blocks = self.depth if node.kind == "logits" else node.layer + (node.kind == "mlp" and not beside)
            total = sum(self.bias(layer, "o") for layer in range(blocks)) + torch.zeros(
                len(one.base), self.model.geometry.d_model
            )
            for name, n in self.w.items():
                if self.subset.exists[n, self.r[reader]]:
                    total = total + (self.written(held, name) if mask[n, self.r[reader]] else below[name])
            return total

        def inputs(layer: int, kind: str, heads: int) -> Any:
            def write(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
                return torch.stack([read(f"{layer}.{head}.{kind}") for head in range(heads)], 1)[None].expand_as(tensor)

            return write

        g, hooks = self.model.geometry, list[Any]()
        for name in self.names():
            hooks.append((name, lambda t, hook, n=name: held.__setitem__(n, t.detach().clone())))  # noqa: ARG005
        for layer in range(self.depth):
            for kind, heads in (("q", g.n_heads), ("k", g.n_kv_heads), ("v", g.n_kv_heads)):
                hooks.append((f"blocks.{layer}.attn.hook_{kind}_input", inputs(layer, kind, heads)))
            hooks.append((f"blocks.{layer}.hook_mlp_in", lambda t, hook, n=layer: read(f"{n}.mlp")[None]))  # noqa: ARG005
        hooks.append((f"blocks.{self.depth - 1}.hook_resid_post", lambda t, hook: read("logits")[None]))  # noqa: ARG005
        bridge = self.model.bridge
        bridge.set_use_split_qkv_input(True)
        bridge.set_use_hook_mlp_in(True)
        try:
            logits = logits_of(self.model, one.base, hooks)
        finally:
            bridge.set_use_split_qkv_input(False)
            bridge.set_use_hook_mlp_in(False)
        return float(one.scorer.of_logits(logits[one.position][None])[0])


@pytest.mark.parametrize("ablation", ["corrupted", "mean", "zero"])
def test_any_subset_is_the_naive_one(model: LoadedModel, ablation: str) -> None:
    cases = CASES[:2] if ablation == "mean" else CASES
    subset = made(model, cases, ablation)
    masks = torch.cat([drawn(subset, 3), drawn(subset, 2, 0.1, seed=1), subset.whole[None], subset.nothing[None]])
    found = asked(subset, masks)
    naive = Naive(model, subset, cases)
    expected = torch.tensor([[naive(n, mask) for n in range(len(cases))] for mask in masks])
    assert (found - expected).abs().max() < BOUND
    assert found.std(0).min() > 1e-2  # the subsets do differ
    assert subset.forwards >= found.numel()


def test_all_edges_are_the_model_and_none_the_ablated_run(model: LoadedModel) -> None:
    subset = made(model, CASES)
    whole, nothing = asked(subset, torch.stack([subset.whole, subset.nothing]))
    for n, one in enumerate(CASES):
        for found, ids in ((whole, one.base), (nothing, one.source)):
            expected = one.scorer.of_logits(logits_of(model, ids)[-1][None])[0]
            assert abs(float(found[n]) - float(expected)) < BOUND


def test_one_edge_less_is_path_patching(model: LoadedModel) -> None:
    subset = made(model, CASES)
    edges = subset.exists.nonzero()
    masks = subset.exists.repeat(len(edges), 1, 1)
    masks[torch.arange(len(edges)), edges[:, 0], edges[:, 1]] = False
    found = asked(subset, masks)
    for n, one in enumerate(CASES):
        swept = model.operate(
            "path",
            {},
            lambda _, one=one: path.sweep_paths(
                model, [one], senders=subset.writers, receivers=subset.readers, freeze="all"
            ).run(),
        )
        assert (found[:, n] - swept.values[0][edges[:, 0], edges[:, 1]]).abs().max() < BOUND


@pytest.mark.parametrize("metric", ["logit", "logprob", "prob", "rank", "kl"])
def test_metrics(metric: str) -> None:
    model = build("llama", Size(layers=3))
    cases = [case(ONE, metric), case(SHORT, metric)]
    subset = made(model, cases)
    whole, nothing = asked(subset, torch.stack([subset.whole, subset.nothing]))
    for n, one in enumerate(cases):
        _, base, source = unpatched(model, model, one)
        assert abs(float(whole[n] - base)) < BOUND
        assert abs(float(nothing[n] - source)) < BOUND
    if metric == "kl":
        assert whole.abs().max() < 1e-5 < nothing.min()


def test_batches_and_neighbours_make_no_difference(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    subset = made(model, CASES)
    high = subset.exists.repeat(6, 1, 1)
    for n in range(6):  # what differs in the top layer alone shares the runs below
        high[n, n, -1] = high[n, n + 1, -2] = False
    masks = torch.cat([high, drawn(subset, 4)])
    together = asked(subset, masks)
    monkeypatch.setattr(Subset, "_together", lambda *_: 1)
    assert (asked(subset, masks) - together).abs().max() < 1e-5
    assert torch.equal(asked(subset, masks, which=[2, 0]), asked(subset, masks)[:, [2, 0]])


def test_memory_runs_out(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    subset, own, sizes = made(model, CASES), Subset._values, list[int]()
    masks = drawn(subset, 5)
    expected = asked(subset, masks)

    def failing(self: Subset, batch: Any, masks: torch.Tensor, at: torch.Tensor, of: torch.Tensor) -> torch.Tensor:
        sizes.append(len(at))
        if len(at) > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")
        return own(self, batch, masks, at, of)

    monkeypatch.setattr(Subset, "_values", failing)
    assert (asked(subset, masks) - expected).abs().max() < 1e-5
    assert max(sizes) > 2 >= sizes[-1]
    monkeypatch.setattr(memory, "free_bytes", lambda _: 0)
    sizes.clear()
    asked(subset, masks)
    assert set(sizes) == {1}


def test_an_interrupt_leaves_what_is_done(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    subset = made(model, CASES)
    monkeypatch.setattr(Subset, "_together", lambda *_: 2)
    masks = drawn(subset, 8)
    found = torch.full((8, 3), float("nan"), dtype=torch.float64)

    def stop(done: int, total: int) -> None:
        assert total == 24
        if done >= 6:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        asked(subset, masks, on_step=stop, into=found)
    assert int((~found.isnan()).sum()) == 6
    whole = asked(subset, masks)
    assert (found - whole)[~found.isnan()].abs().max() < 1e-5


def test_what_cannot_be_run_is_refused(lend: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="must have one length"):
        made(build("gpt2"), CASES, "mean")
    with pytest.raises(InputError, match="an encoder's stream is no sum"):
        made(lend("bert"), CASES)


# -- ACDC ----------------------------------------------------------------------------------------------------


def one_by_one(subset: Subset, threshold: float) -> torch.Tensor:
    """Return what is left by the algorithm as it is written, one run for each edge."""
    kept = subset.whole
    value = float(asked(subset, kept[None]).mean())
    for reader in reversed(range(len(subset.readers))):
        for writer in reversed(range(len(subset.writers))):
            if subset.exists[writer, reader]:
                without = kept.clone()
                without[writer, reader] = False
                now = float(asked(subset, without[None]).mean())
                if abs(now - value) < threshold:
                    kept, value = without, now
    return kept


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_acdc_is_the_one_by_one_algorithm(kind: str) -> None:
    model = build(kind, Size(layers=2, seed=3))
    subset = made(model, CASES[:2])
    thresholds = [0.03, 1.0, 0.2]
    steps: list[tuple[int, int]] = []
    before = subset.forwards
    kept = model.operate("circuit", {}, lambda _: acdc(subset, thresholds, lambda *step: steps.append(step)))
    ran = subset.forwards - before
    for found, threshold in zip(kept, thresholds, strict=True):
        assert torch.equal(found, one_by_one(subset, threshold))
    sizes = kept.sum((1, 2)).tolist()
    assert sizes[1] < sizes[2] < sizes[0] < int(subset.exists.sum())
    edges = int(subset.exists.sum())
    assert steps[-1] == (3 * edges, 3 * edges)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    print(f"{kind}: {edges} edges, 3 thresholds, {ran} runs of {2 * 3 * edges} one by one")
    score = survived(kept, thresholds, subset.exists)
    assert torch.equal(score.isnan(), ~subset.exists)
    assert torch.equal(score == 1.0, kept[1])
    assert ((score == 0) == (~kept.any(0) & subset.exists)).all()


def test_a_chain_of_removals_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays at one threshold stays at the next; a chain without a bound would have a mask for half of them."""
    model = build("gpt2", Size(layers=2, seed=3))
    subset = made(model, CASES[:1])
    held: list[int] = []
    own = Subset.run

    def watched(self: Subset, masks: torch.Tensor, **options: Any) -> torch.Tensor:
        held.append(len(masks))
        return own(self, masks, **options)

    monkeypatch.setattr(Subset, "run", watched)
    thresholds = [1e-3, 5e-4]
    whole = model.operate("circuit", {}, lambda _: acdc(subset, thresholds))
    assert max(held) > 10
    held.clear()
    monkeypatch.setattr("interp.engine.circuits.acdc._MASKS", 6 * subset.exists.numel())
    kept = model.operate("circuit", {}, lambda _: acdc(subset, thresholds))
    assert max(held) == 6
    assert torch.equal(kept, whole)


def test_acdc_interrupted_keeps_every_decision() -> None:
    model = build("gpt2", Size(layers=2, seed=3))
    subset = made(model, CASES[:2])
    edges = int(subset.exists.sum())
    into: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def stop(done: int, total: int) -> None:  # noqa: ARG001
        if done > edges + 10:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        model.operate("circuit", {}, lambda _: acdc(subset, [0.01, 0.5], stop, into))
    assert set(into) == {0, 1}
    for number, threshold in enumerate([0.01, 0.5]):
        stays, decided = into[number]
        assert torch.equal(stays, one_by_one(subset, threshold) & decided)
    assert torch.equal(into[1][1], subset.exists)
    assert 10 < int(into[0][1].sum()) < edges
