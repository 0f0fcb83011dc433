"""Path patching against its definition, one path at a time on hooks, and against transformer-lens' own."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens import patching

import interp
from interp.engine import memory
from interp.engine.model.loaded import LoadedModel
from interp.engine.transformer import incremental, network
from interp.engine.transformer.families._family import Family
from interp.errors import InputError, Interrupted
from methods.patching.test_patch import FIRST, ONE, SHORT, Asked, Size, build, closed_form, logits_of, use

__all__ = ["use"]
pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 1e-4  # of a logit
KINDS = [
    ("gpt2", {}),
    ("llama", {}),  # two query heads to one of keys and values
    ("neox", {}),  # attention and MLP side by side
    ("neox", {"use_parallel_residual": False}),
    ("qwen3", {}),  # norms of q and k per head
]


def asked_of(pairs: Sequence[Asked], **options: Any) -> Any:
    return interp.path(pairs=[pair.pair for pair in pairs], **options)


# -- the reference: what a sender writes is added where one receiver reads, through transformer-lens' own gates --------


def reads(receiver: str, depth: int) -> tuple[str, int | None]:
    """Return the hook at which a receiver reads the stream before its norm, and its head."""
    if receiver == "logits":
        return f"blocks.{depth - 1}.hook_resid_post", None
    parts = receiver.split(".")
    if parts[1] == "mlp":
        return f"blocks.{parts[0]}.hook_mlp_in", None
    return f"blocks.{parts[0]}.attn.hook_{parts[2]}_input", int(parts[1])


def writes(sender: str) -> tuple[str, int | None]:
    """Return the hook at which a sender writes, and its head."""
    if sender == "embed":
        return "blocks.0.hook_resid_pre", None
    layer, part = sender.split(".")
    return (f"blocks.{layer}.hook_mlp_out", None) if part == "mlp" else (f"blocks.{layer}.attn.hook_z", int(part))


class Naive:
    """Every path by itself, on hooks."""

    def __init__(self, model: LoadedModel, base: Sequence[int], source: Sequence[int]) -> None:
        self.model, self.base = model, base
        self.depth = model.geometry.n_layers
        layers = range(self.depth)
        names = ["blocks.0.hook_resid_pre", *(f"blocks.{n}.hook_mlp_out" for n in layers)]
        self.names = [*names, *(f"blocks.{n}.attn.hook_z" for n in layers)]
        self.own, self.other = self.captured(base, self.names), self.captured(source, self.names)

    def captured(self, ids: Sequence[int], names: Sequence[str], hooks: Sequence[Any] = ()) -> dict[str, torch.Tensor]:
        held: dict[str, torch.Tensor] = {}
        keeping = [(n, lambda t, hook, n=n: held.__setitem__(n, t.detach().clone())) for n in names]  # noqa: ARG005
        logits_of(self.model, ids, [*hooks, *keeping])
        return held

    def direct(self, sender: str, receiver: str) -> torch.Tensor:
        """Return the logits where the receiver reads the sender's own difference too."""
        name, head = writes(sender)
        change = self.other[name] - self.own[name]
        if head is not None:
            layer = int(sender.split(".")[0])
            change = change[:, :, head] @ self.model.bridge.blocks[layer].attn.W_O[head]
        place, part = reads(receiver, self.depth)

        def add(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            changed = tensor.clone()
            changed[(slice(None), slice(None), part) if part is not None else ()] += change
            return changed

        return logits_of(self.model, self.base, [(place, add)])[-1]

    def answered(self, sender: str, receiver: str, frozen: bool) -> torch.Tensor:
        """Return the logits where the receiver reads what it reads when all between (or all but heads) answers."""
        name, head = writes(sender)
        place, part = reads(receiver, self.depth)

        def send(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            changed = tensor.clone()
            where = (slice(None), slice(None), head) if head is not None else ()
            changed[where] = self.other[name][where]
            return changed

        def pinned(z: str) -> Any:
            return lambda tensor, hook: self.own[z]  # noqa: ARG005

        hooks: list[Any] = [(z, pinned(z)) for z in self.names if frozen and z.endswith("hook_z")]
        arrived = self.captured(self.base, [place], [*hooks, (name, send)])[place]

        def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            changed = tensor.clone()
            where = (slice(None), slice(None), part) if part is not None else ()
            changed[where] = arrived[where]
            return changed

        return logits_of(self.model, self.base, [(place, put)])[-1]

    def __call__(self, sender: str, receiver: str, freeze: str) -> torch.Tensor:
        bridge = self.model.bridge
        bridge.set_use_split_qkv_input(True)
        bridge.set_use_hook_mlp_in(True)
        try:
            if freeze == "all":
                return self.direct(sender, receiver)
            return self.answered(sender, receiver, freeze == "heads")
        finally:
            bridge.set_use_split_qkv_input(False)
            bridge.set_use_hook_mlp_in(False)


def compare(model: LoadedModel, pairs: Sequence[Asked], result: Any, freeze: str, every: int = 1) -> float:
    worst, checked = 0.0, 0
    for number, pair in enumerate(pairs):
        runs = (pair.clean, pair.corrupted) if result.direction == "noise" else (pair.corrupted, pair.clean)
        naive = Naive(model, *runs)
        clean = logits_of(model, pair.clean)[-1]
        for n, (s, r) in enumerate(np.argwhere(result.exists).tolist()):
            if n % every:
                continue
            logits = naive(result.senders[s], result.receivers[r], freeze)
            expected = closed_form(result.metric, logits, pair.answer, pair.wrong, clean)
            apart = abs(result.per_pair[number, s, r] - expected)
            assert apart < BOUND, (result.name((s, r)), result.per_pair[number, s, r], expected)
            worst, checked = max(worst, apart), checked + 1
    print(f"{model.name} {freeze}: {checked} paths, largest difference {worst:.1e}")
    return worst


@pytest.mark.parametrize("freeze", ["all", "heads", "none"])
@pytest.mark.parametrize(("kind", "extra"), KINDS, ids=str)
def test_every_path_is_the_naive_one(kind: str, extra: dict[str, Any], freeze: str, use: Any) -> None:
    model = use(build(kind, Size(layers=3), **extra))
    pairs = [FIRST, SHORT]
    result = asked_of(pairs, from_="all", to="all", freeze=freeze)
    assert result.provenance.path == "replay"
    compare(model, pairs, result, freeze, every=3)
    geometry = model.geometry
    assert len(result.senders) == 1 + 3 * geometry.n_heads + 3
    # Every input reads the embedding; the logits read all.
    assert len(result.receivers) == 3 * (geometry.n_heads + 2 * geometry.n_kv_heads + 1) + 1
    assert result.exists[0].all()
    assert result.exists[:, -1].all()
    assert np.isfinite(result.patched[result.exists]).all()
    for array in (result.patched, result.effect, result.recovery):
        assert np.isnan(array[~result.exists]).all()
    assert result.done.all()
    assert np.median(np.abs(result.effect[result.exists])) > 1e-3


@pytest.mark.parametrize("beside", [True, False])
def test_what_a_block_reads_of_itself(beside: bool, use: Any) -> None:
    use(build("neox", use_parallel_residual=beside))
    result = asked_of([ONE], from_="all", to="all")
    at = {name: n for n, name in enumerate(result.senders)}
    to = {name: n for n, name in enumerate(result.receivers)}
    assert result.exists[at["0.1"], to["0.mlp"]] == (not beside) if "0.mlp" in to else beside
    assert not result.exists[at["1.1"], to["1.0.q"]]
    assert result.exists[at["0.mlp"], to["1.0.v"]]
    assert not result.exists[at["0.mlp"], to["0.mlp"]]


@pytest.mark.parametrize(("kind", "inputs"), [("gpt2", "qkv"), ("llama", "q"), ("neox", "qkv")])
def test_transformer_lens_direct_path_patching(kind: str, inputs: str, use: Any) -> None:
    model = use(build(kind, Size(layers=3)))
    bridge = model.bridge
    clean, corrupted = torch.tensor([ONE.clean]), torch.tensor([ONE.corrupted])
    with torch.no_grad():
        _, clean_cache = bridge.run_with_cache(clean)
        _, corrupted_cache = bridge.run_with_cache(corrupted)

        def difference(logits: torch.Tensor) -> torch.Tensor:
            return logits[0, -1, ONE.answer[0]] - logits[0, -1, ONE.wrong[0]]

        for letter in inputs:
            for head in (0, 3):
                theirs = patching.get_act_patch_direct_path(
                    bridge, corrupted, clean_cache, corrupted_cache, difference, 0, head, letter, verbose=False
                )
                ours = asked_of([ONE], from_=f"0.{head}", to=letter)
                assert len(ours.receivers) == 2 * model.geometry.n_heads
                for column, name in enumerate(ours.receivers):
                    layer, number, _ = name.split(".")
                    assert abs(ours.patched[0, column] - float(theirs[int(layer), int(number)])) < BOUND, name
    assert np.abs(ours.effect).max() > 1e-3


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_with_nothing_frozen_a_path_to_the_logits_is_activation_patching(kind: str, use: Any) -> None:
    use(build(kind, Size(layers=3)))
    options = {"pairs": [ONE.pair, FIRST.pair]}
    heads = interp.path(**options, from_="heads", to="logits", freeze="none")
    assert np.abs(heads.patched[:, 0] - interp.patch(**options, site="z").patched.reshape(-1)).max() < BOUND
    mlps = interp.path(**options, from_="mlps", freeze="none")
    assert np.abs(mlps.patched[:, 0] - interp.patch(**options, site="mlp_out", by="layer").patched).max() < BOUND
    assert abs(interp.path(**options, from_="embed", freeze="none").recovery[0, 0] - 1) < 1e-3


@pytest.mark.parametrize("metric", ["logit-diff", "logit", "logprob", "prob", "kl"])
@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_metrics_and_directions(metric: str, direction: str, use: Any) -> None:
    model = use(build("llama"))
    pairs = [FIRST, ONE] * 2
    result = asked_of(pairs, from_="heads,embed", to="1.1.k,1.2.q,1.mlp,logits", metric=metric, direction=direction)
    compare(model, pairs, result, "all")
    base = [pair.clean if direction == "noise" else pair.corrupted for pair in pairs]
    unpatched = [
        closed_form(metric, logits_of(model, ids)[-1], p.answer, p.wrong, logits_of(model, p.clean)[-1])
        for ids, p in zip(base, pairs, strict=True)
    ]
    assert np.allclose((result.patched - result.effect)[result.exists], np.mean(unpatched), atol=BOUND)
    assert (result.interval[0] <= result.effect + 1e-9)[result.exists].all()
    assert (result.effect <= result.interval[1] + 1e-9)[result.exists].all()


# -- the hooked forward ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze", ["all", "heads", "none"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox"])
def test_a_model_that_the_network_cannot_read(
    kind: str, freeze: str, use: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = use(build(kind))
    expected = asked_of([ONE, SHORT], from_="all", to="all", freeze=freeze)
    monkeypatch.setattr(network, "FAMILIES", {})
    result = asked_of([ONE, SHORT], from_="all", to="all", freeze=freeze)
    assert result.provenance.path.startswith("hooked: the replay does not know")
    assert np.array_equal(result.exists, expected.exists)
    assert np.nanmax(np.abs(result.per_pair - expected.per_pair)) < BOUND
    compare(model, [ONE], asked_of([ONE], from_="0.1,embed", to="all", freeze=freeze), freeze)


def test_a_wrong_replay_is_noticed(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = use(build("llama"))
    monkeypatch.setattr(Family, "scale", lambda self, attention, index, d_head: 1.1 * d_head**-0.5)  # noqa: ARG005
    result = asked_of([ONE], from_="all", to="all")
    assert result.provenance.path.startswith("hooked: the forward without hooks differed by")
    compare(model, [ONE], result, "all", every=5)


def test_hooks_of_the_users_own_take_part(use: Any) -> None:
    model = use(build("gpt2"))
    plain = asked_of([ONE], from_="0.1", to="all")
    model.bridge.add_hook("blocks.1.hook_mlp_out", lambda tensor, hook: tensor * 0.5)  # noqa: ARG005
    try:
        result = asked_of([ONE], from_="0.1", to="all")
    finally:
        model.bridge.reset_hooks()
    assert result.provenance.path == "hooked: hooks of the user's own"
    assert np.nanmax(np.abs(result.patched - plain.patched)) > 1e-3


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_and_groups(use: Any) -> None:
    use(build("llama", Size(layers=3)))
    result = asked_of([ONE], from_="m1, 1.0,embed,0.mlp", to="2.3.q,2.1.k,2.1.v,mlp2,logits")
    assert result.senders == ("embed", "0.mlp", "1.0", "1.mlp")
    assert result.receivers == ("2.3.q", "2.1.k", "2.1.v", "2.mlp", "logits")
    assert result.exists.all()
    listed = asked_of(
        [ONE], from_=["1.mlp", "1.0", "embed", "0.mlp"], to=("2.3.q", "2.1.k", "2.1.v", "2.mlp", "logits")
    )
    assert np.array_equal(listed.patched, result.patched)
    # A group holds what there is a path to or from.
    above = asked_of([ONE], from_="1.0", to="all")
    assert set(above.receivers) == {
        "1.mlp", *(f"2.{h}.q" for h in range(4)), *(f"2.{h}.{x}" for h in range(2) for x in "kv"), "2.mlp", "logits",
    }  # fmt: skip
    below = asked_of([ONE], from_="all", to="1.0.q")
    assert set(below.senders) == {"embed", *(f"0.{h}" for h in range(4)), "0.mlp"}
    frame = result.to_frame()
    assert list(frame.columns) == ["sender", "receiver", "patched", "effect", "recovery", "low", "high"]
    assert len(frame) == 20
    best = result.top(1)[0]
    at = np.unravel_index(np.abs(result.effect).argmax(), result.effect.shape)
    assert best == (result.name(at), result.effect[at], result.recovery[at])
    assert best[0] == f"{result.senders[at[0]]} → {result.receivers[at[1]]}"


@pytest.mark.parametrize(
    ("from_", "to", "words"),
    [
        ("x", "logits", r"--from 'x' is no sender; type a head \(5.1\)"),
        ("head", "logits", "did you mean heads"),
        ("5", "logits", "is no sender"),
        ("99.1", "logits", "no layer 99; layers are 0–1"),
        ("1.4", "logits", "no head 4; heads are 0–3"),
        ("1.0.q", "logits", "is an input; what writes is the head: type 1.0"),
        ("mlp9", "logits", "no layer 9"),
        ("", "logits", "--from names nothing"),
        ("0.0", "1.2", r"three inputs: type 1.2.q, 1.1.k or 1.1.v"),
        ("0.0", "1.2.k", r"no head 2; heads are 0–1 \(of keys and values\)"),
        ("0.0", "1.2.v", r"heads are 0–1 \(of keys and values\)"),
        ("0.0", "1.9.q", "no head 9; heads are 0–3"),
        ("0.0", "logit", "did you mean logits"),
        ("0.0", "1.0.z", "is no receiver"),
        ("1.0", "0.0.q", r"there is no path: 1.0 writes above where 0.0.q reads"),
        ("0.0,1.0", "1.1.q", r"there is no path: 1.0 writes above"),
        ("1.0", "0.0.q,logits", r"there is no path: 0.0.q reads below where 1.0 writes"),
        (5, "logits", "--from takes names"),
        ([5], "logits", "5 is none"),
    ],
)
def test_names_that_are_not_there(from_: Any, to: Any, words: str, use: Any) -> None:
    model = use(build("llama"))
    before = model.forwards
    with pytest.raises(InputError, match=words) as caught:
        asked_of([ONE], from_=from_, to=to)
    assert len(str(caught.value).splitlines()) == 1
    assert model.forwards == before


# -- sweeps that break off ---------------------------------------------------------------------------------------------


class Raising:
    def __init__(self, function: Any, at: Any, raise_: Any) -> None:
        self.function, self.at, self.raise_, self.calls = function, at, raise_, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        if self.at(self.calls - 1):
            self.raise_()
        return self.function(*arguments, **options)


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("freeze", ["all", "none"])
def test_memory_runs_out_at_every_step(freeze: str, use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build("llama"))
    monkeypatch.setattr(memory, "WAVE_ROWS", 20)
    options = {"from_": "all", "to": "1.0.q,1.mlp,logits", "freeze": freeze}
    expected = asked_of([ONE, SHORT], **options)
    for k in range(100):
        failing = Raising(incremental.replay, lambda n, k=k: n == k, out_of_memory)
        with monkeypatch.context() as patch:
            patch.setattr(incremental, "replay", failing)
            result = asked_of([ONE, SHORT], **options)
        if failing.calls <= k:
            break
        assert result.done.all(), result.notes
        assert np.nanmax(np.abs(result.per_pair - expected.per_pair)) < BOUND
    assert 3 < k < 100


def test_an_interrupt_keeps_what_is_done(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    use(build("gpt2"))
    monkeypatch.setattr(memory, "WAVE_ROWS", 20)
    expected = asked_of([ONE, SHORT], from_="all", to="all")
    seen = set()
    for k in range(1, 8):
        stopping = Raising(incremental.replay, lambda n, k=k: n == k, lambda: signal.raise_signal(signal.SIGINT))
        with monkeypatch.context() as patch:
            patch.setattr(incremental, "replay", stopping)
            with pytest.raises(Interrupted) as stopped:
                asked_of([ONE, SHORT], from_="all", to="all")
        result = stopped.value.result
        assert result.notes[0].startswith("partial: interrupted after ")
        finished = np.isfinite(result.per_pair)
        assert np.abs(result.per_pair - expected.per_pair)[finished].max(initial=0) < BOUND
        assert np.isnan(result.patched[~result.done]).all()
        assert f"{int((result.done & result.exists).sum())}/{int(result.exists.sum())} done" in result.summary()
        result.html(), result.svg(), result.to_frame()
        seen.add(int(finished.sum()))
    assert len(seen) > 3


# -- a model that has learned something --------------------------------------------------------------------------------


def test_smollm2(smollm2: LoadedModel) -> None:
    result = interp.path(task="ioi", n=4, from_="all", to="logits")
    assert result.provenance.path == "replay"
    assert result.provenance.seed == 0
    assert len(result.senders) == 30 * 9 + 30 + 1
    assert np.isfinite(result.patched).all()
    print(f"SmolLM2 ioi: {result.top(3)}, clean {result.clean_metric:.2f}, {result.provenance.seconds:.1f} s")
    strongest = result.top(1)[0][0].split(" ")[0]
    ids = result.provenance.tokens
    pair = Asked(tuple(ids[0]), tuple(ids[1]), (result.checks.answer[0][0][1],), (result.checks.wrong[0][0][1],))
    naive = Naive(smollm2, pair.corrupted, pair.clean)
    value = closed_form("logit-diff", naive(strongest, "logits", "all"), pair.answer, pair.wrong, None)
    assert abs(result.per_pair[0, result.senders.index(strongest), 0] - value) < 5 * BOUND  # its logits are near 20
    inner = interp.path(pairs=[pair.pair], from_="16.0,12.mlp", to="18.2.k,20.4.q,20.mlp")
    for s, r in np.ndindex(*inner.patched.shape):
        logits = naive(inner.senders[s], inner.receivers[r], "all")
        assert abs(inner.patched[s, r] - closed_form("logit-diff", logits, pair.answer, pair.wrong, None)) < 5 * BOUND


def test_the_plotly_figure_shows_every_path(use: Any) -> None:
    use(build("llama"))
    result = asked_of([ONE, FIRST], from_="heads", to="q,logits")
    (heat,) = result.to_plotly().data
    there = result.exists & result.done
    np.testing.assert_allclose(np.array(heat.z)[there], result.recovery[there])
    assert np.isnan(np.array(heat.z)[~there]).all()
    assert (len(heat.y), len(heat.x)) == result.exists.shape
    assert heat.zmax == -heat.zmin > 0
    lone = asked_of([ONE, FIRST], from_="heads", to="logits")
    (bars,) = lone.to_plotly(theme="dark").data
    np.testing.assert_allclose(list(bars.x), lone.recovery[:, 0])
    assert list(bars.y)[:2] == ["L0H0", "L0H1"]
