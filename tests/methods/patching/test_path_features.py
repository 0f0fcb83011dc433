"""Paths from and to features: every one is what a naive hooked loop gives, with features dense."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import dictionaries
import interp
from engine.features import made, naive
from interp.engine import exactness
from interp.engine.features.dictionary import Dictionary
from interp.engine.features.places import flat
from interp.errors import InputError, Interrupted
from methods.patching.test_patch import Size, build, use

__all__ = ["use"]
pytestmark = pytest.mark.usefixtures("one_thread")

CLEAN, CORRUPTED = [5, 11, 23, 31, 8, 40], [5, 11, 29, 31, 8, 40]
FAMILIES = ("gpt2", "llama", "neox", "gemma2")
KINDS = ("stream", "before", "attention", "heads", "mlp", "neurons", "transcoder", "skip", "clt")
HEAR = {"stream", "before", "transcoder", "skip", "clt"}  # of what is in the stream
BOUND = 5e-5


def logit(logits: Tensor) -> Tensor:
    return logits[:, 7]


def loaded(model: Any, kind: str) -> list[Dictionary]:
    found = [made.every(model, layer)[kind] for layer in range(model.geometry.n_layers)]
    made.load(model, *found)
    return found


class Loop:
    """Every path by itself: one run of the sender, in which a receiver is heard, and one of what it answers."""

    def __init__(self, model: Any, found: list[Dictionary], base: list[int], source: list[int], freeze: str) -> None:
        self.model, self.found, self.base = model, {one.layer: one for one in found}, base
        layers = range(model.geometry.n_layers)
        self.frozen = [f"blocks.{n}.attn.hook_z" for n in layers if freeze != "none"]
        self.frozen += [f"blocks.{n}.hook_mlp_out" for n in layers if freeze == "all"]
        names = [f"blocks.{n}.{rest}" for n in layers for rest in ("attn.hook_z", "hook_mlp_out", "hook_resid_pre")]
        self.own, self.other = self.run(base, [], names)[1], self.run(source, [], names)[1]
        self.codes = {one.layer: [naive.plain(model, ids, one) for ids in (base, source)] for one in found}
        self.units: dict[int, Any] = {}
        for one in found:
            name = one.reads.hook(model)
            self.units[one.layer] = naive.unit(one, flat(one.reads, self.run(base, [], [name])[1][name])[0])

    def run(self, ids: list[int], hooks: list[Any], names: list[str] | tuple[str, ...] = ()) -> Any:
        """Return the logits at the end, and activations as they are after other hooks."""
        held: dict[str, Tensor] = {}

        def keep(tensor: Tensor, hook: Any, name: str) -> None:  # noqa: ARG001
            held[name] = tensor.clone()

        keeping = [(name, partial(keep, name=name)) for name in names]
        with torch.no_grad():
            logits = self.model.bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=[*hooks, *keeping])
        return logits[0, -1], held

    def adding(self, one: Dictionary, feature: int, change: Tensor) -> list[Any]:
        """Return hooks that add what a feature writes for a change of its activation, ``[position]``."""
        unit = self.units[one.layer]

        def add(tensor: Tensor, hook: Any, to: int) -> Tensor:  # noqa: ARG001
            return tensor + (change[:, None] * one.decoders[to][feature] * unit).view(tensor.shape[1:])

        places = enumerate(one.writes)
        return [(place.hook(self.model), partial(add, to=to)) for to, place in places]

    def sends(self, name: str) -> list[Any]:
        if name.startswith("F"):
            layer, feature = map(int, name[1:].split("."))
            one = self.found[layer]
            here, there = self.codes[layer]
            return self.adding(one, feature, there[:, feature] - here[:, feature])
        layer, _, part = name.partition(".")
        place = {"": "blocks.0.hook_resid_pre", "mlp": f"blocks.{layer}.hook_mlp_out"}.get(part)
        place = place or f"blocks.{layer}.attn.hook_z"

        def send(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
            changed = tensor.clone()
            where = (slice(None), slice(None), int(part)) if part.isdigit() else ()
            changed[where] = self.other[place][where]
            return changed

        return [(place, send)]

    def __call__(self, sender: str, receiver: str) -> float:
        held: list[Tensor] = []

        def listen(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001
            held.append(tensor.clone())

        def pin(tensor: Tensor, hook: Any, name: str) -> Tensor:  # noqa: ARG001
            return self.own[name]

        sending = self.sends(sender)
        own_mlp = [name.replace("mlp.hook_post", "hook_mlp_out") for name, _ in sending if "hook_post" in name]
        pins = [(name, partial(pin, name=name)) for name in self.frozen if name not in own_mlp]
        parts = receiver.replace("F", "").split(".")
        if receiver == "logits":
            return float(self.run(self.base, [*pins, *sending])[0][7])
        if receiver.startswith("F"):
            one, feature = self.found[int(parts[0])], int(parts[1])
            name = one.reads.hook(self.model)
            heard = self.run(self.base, [*pins, *sending], [name])[1][name]
            now = naive.encoded(one, flat(one.reads, heard)[0])[:, feature]
            change = now - self.codes[one.layer][0][:, feature]
            return float(self.run(self.base, self.adding(one, feature, change))[0][7])
        name = f"blocks.{parts[0]}." + ("hook_mlp_out" if parts[1] == "mlp" else f"attn.hook_{parts[2]}")
        # What it makes of its input is taken before anything is put there.
        self.run(self.base, [(name, listen), *pins, *sending])

        def answer(tensor: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
            changed = tensor.clone()
            where = () if parts[1] == "mlp" else (slice(None), slice(None), int(parts[1]))
            changed[where] = held[0][where]
            return changed

        return float(self.run(self.base, [(name, answer)])[0][7])


def compare(loop: Loop, result: Any, pair: int = 0, every: int = 1) -> float:
    """Compare paths of a result, of each kind of ends some, and return the largest effect of those."""
    there = np.argwhere(result.exists).tolist()
    largest = 0.0
    for sender, receiver in there[::every]:
        expected = loop(result.senders[sender], result.receivers[receiver])
        found = result.per_pair[pair, sender, receiver]
        assert found == pytest.approx(expected, abs=BOUND), result.name((sender, receiver))
        if result.senders[sender].startswith("F") or result.receivers[receiver].startswith("F"):
            largest = max(largest, abs(found - (result.patched - result.effect)[sender, receiver]))
    return largest


@pytest.mark.parametrize("freeze", ["all", "heads", "none"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_paths_are_those_of_the_naive_loop(family: str, kind: str, freeze: Any, lend: Any) -> None:
    model = lend(family)
    found = loaded(model, kind)
    to = "all,features" if kind in HEAR else "all"
    result: Any = interp.path(CLEAN, CORRUPTED, from_="all,features", to=to, freeze=freeze, metric=logit)
    assert result.provenance.path == "replay"
    assert result.provenance.features == {"made": model.feature_sets["made"].digest}
    assert any(name.startswith("F") for name in result.senders)
    assert any(name.startswith("F") for name in result.receivers) == (kind in HEAR)
    loop = Loop(model, found, CORRUPTED, CLEAN, freeze)
    compare(loop, result, every=41)
    strongest: Any = interp.path(CLEAN, CORRUPTED, from_="F0.*", to="v,logits", freeze=freeze, metric=logit)
    assert compare(loop, strongest, every=5) > 1e-3


@pytest.mark.parametrize("freeze", ["all", "none"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_cross_layer_features_writes_are_seen_from_where_they_are(kind: str, freeze: Any, use: Any) -> None:
    """Three layers: what it writes at the second MLP reaches the third layer, not the second MLP's own readers."""
    model = use(build(kind, Size(layers=3)))
    found = loaded(model, "clt")
    result: Any = interp.path(
        CLEAN, CORRUPTED, from_="F0.*,F1.*", to="1.mlp,2.mlp,2.0.q,F1.*,F2.*,logits", freeze=freeze, metric=logit
    )
    assert result.provenance.path == "replay"
    assert compare(Loop(model, found, CORRUPTED, CLEAN, freeze), result, every=5) > 1e-3


def test_a_feature_sends_its_decoders_row(lend: Any) -> None:
    """In closed form: into the logits the change of the stream is (a' − a) · decoder, through the final norm."""
    model = lend("llama")
    found = loaded(model, "stream")
    result: Any = interp.path(CLEAN, CORRUPTED, from_="features", metric=logit)
    end: list[Tensor] = []
    last = f"blocks.{model.geometry.n_layers - 1}.hook_resid_post"
    with torch.no_grad():
        model.bridge.run_with_hooks(
            torch.tensor([CORRUPTED]),
            fwd_hooks=[(last, lambda t, hook: end.append(t[0, -1]))],  # noqa: ARG005
        )
    net = model.hf_model
    for n, name in enumerate(result.senders):
        layer, feature = map(int, name[1:].split("."))
        one = found[layer]
        change = naive.plain(model, CLEAN, one)[-1, feature] - naive.plain(model, CORRUPTED, one)[-1, feature]
        with torch.no_grad():
            logits = net.lm_head(net.model.norm(end[0] + change * one.decoders[0][feature]))
        assert result.patched[n, 0] == pytest.approx(float(logits[7]), abs=BOUND)


def test_what_a_dictionary_of_the_stream_reads_of_itself(lend: Any) -> None:
    loaded(lend("llama"), "stream")
    result: Any = interp.path(CLEAN, CORRUPTED, from_="0.mlp,F0.*", to="F0.*,F1.*,1.0.q,1.mlp", metric=logit)
    at = {name: n for n, name in enumerate(result.receivers)}
    exists = dict(zip(result.senders, result.exists, strict=True))
    own = next(name for name in result.receivers if name.startswith("F0."))
    above = next(name for name in result.receivers if name.startswith("F1."))
    assert exists["0.mlp"][at[own]]  # the stream after the layer
    row = next(row for name, row in exists.items() if name.startswith("F0."))
    assert not row[at[own]]
    assert row[at[above]]
    assert row[at["1.0.q"]]
    assert row[at["1.mlp"]]


@pytest.mark.parametrize("freeze", ["all", "none"])
@pytest.mark.parametrize("kind", ["before", "neurons", "heads", "skip", "clt"])
def test_with_hooks_it_is_the_same(kind: str, freeze: Any, lend: Any, monkeypatch: Any) -> None:
    from interp.engine import exactness
    from interp.engine.transformer import network

    loaded(lend("llama"), kind)
    to = "1.0.q,1.mlp,logits" + (",F1.*" if kind in HEAR else "")
    asked = dict[str, Any](from_="F0.*,0.1,0.mlp", to=to, freeze=freeze, metric=logit)
    pairs = [(CLEAN, CORRUPTED), ([7, 12, 9, 21], [7, 3, 9, 21])]
    lean: Any = interp.path(pairs=pairs, **asked)

    def unreadable(*_: Any, **__: Any) -> Any:
        raise exactness.Unreadable("not now")

    monkeypatch.setattr(network, "read", unreadable)
    hooked: Any = interp.path(pairs=pairs, **asked)
    assert (lean.provenance.path, hooked.provenance.path) == ("replay", "hooked: not now")
    assert np.array_equal(lean.exists, hooked.exists)
    np.testing.assert_allclose(hooked.per_pair, lean.per_pair, atol=BOUND, rtol=0)


def test_a_wrong_replay_is_noticed(lend: Any, monkeypatch: Any) -> None:
    from interp.engine.patching.path_features import FeatureEnds

    model = lend("gpt2")
    found = loaded(model, "transcoder")
    exactness.forget(model)
    own = FeatureEnds._unit
    monkeypatch.setattr(FeatureEnds, "_unit", lambda self, difference: 1.5 * own(self, difference))
    result: Any = interp.path(CLEAN, CORRUPTED, from_="F0.*", to="logits,1.mlp", metric=logit)
    assert result.provenance.path.startswith("hooked: the forward without hooks differed by")
    compare(Loop(model, found, CORRUPTED, CLEAN, "all"), result, every=5)
    exactness.forget(model)


def test_with_nothing_frozen_a_path_to_the_logits_is_patching_the_feature(lend: Any) -> None:
    model = lend("llama")
    made.load(model, dictionaries.perfect(model.geometry.d_model))
    path: Any = interp.path(CLEAN, CORRUPTED, from_="features", freeze="none", metric=logit)
    patch: Any = interp.patch(CLEAN, CORRUPTED, site="features", by="feature", layer=0, metric=logit)
    moving = [n for n, effect in enumerate(patch.effect) if f"F{patch.features[n]}" in path.senders or effect != 0]
    assert path.senders == tuple(f"F{patch.features[n]}" for n in moving)
    assert len(path.senders) > model.geometry.d_model
    np.testing.assert_allclose(path.patched[:, 0], patch.patched[moving], atol=BOUND, rtol=0)


@pytest.mark.parametrize("direction", ["denoise", "noise"])
def test_pairs_and_directions(direction: Any, lend: Any) -> None:
    model = lend("neox")
    found = loaded(model, "skip")
    pairs = [(CLEAN, CORRUPTED), ([7, 12, 9, 21], [7, 3, 9, 21])]
    result: Any = interp.path(pairs=pairs, from_="F0.*", to="F1.*,logits", direction=direction, metric=logit)
    for number, (clean, corrupted) in enumerate(pairs):
        base, source = (clean, corrupted) if direction == "noise" else (corrupted, clean)
        loop = Loop(model, found, base, source, "all")
        for sender, receiver in np.argwhere(result.exists).tolist()[::17]:
            expected = loop(result.senders[sender], result.receivers[receiver])
            assert result.per_pair[number, sender, receiver] == pytest.approx(expected, abs=BOUND)


def test_names(lend: Any) -> None:
    model = lend("llama")
    found = loaded(model, "transcoder")
    clean, corrupted = (naive.plain(model, ids, found[0]) for ids in (CLEAN, CORRUPTED))
    moving = (clean != corrupted).any(0)
    result: Any = interp.path(CLEAN, CORRUPTED, from_="f0.*", to="F1.3,logits", metric=logit)
    assert result.senders == tuple(f"F0.{n}" for n in moving.nonzero()[:, 0].tolist())
    assert result.receivers == ("F1.3", "logits")
    named: Any = interp.path(CLEAN, CORRUPTED, from_=result.senders[0], to="F1.3", features="made", metric=logit)
    assert named.patched.item() == pytest.approx(result.patched[0, 0], abs=1e-6)
    every: Any = interp.path(CLEAN, CORRUPTED, from_="embed,features", to="features", metric=logit)
    assert {name[:2] for name in every.senders} == {"em", "F0"}  # of layer 1 nothing is above
    assert {name[:2] for name in every.receivers} == {"F0", "F1"}
    assert interp.path(CLEAN, CORRUPTED, metric=logit).provenance.features == {}


@pytest.mark.parametrize("count", [1, 20])
def test_pictures(count: int, lend: Any, tmp_path: Any) -> None:
    loaded(lend("llama"), "stream")
    both = "F0.*,0.1", "F1.*,1.0.q,logits"
    for from_, to in (both, (both[0], "logits"), ("embed", "F1.*"), ("F0.*", "F1.3")):
        result: Any = interp.path(pairs=[(CLEAN, CORRUPTED)] * count, from_=from_, to=to, metric=logit)
        drawn = result.save(tmp_path / "paths.svg").read_text("utf-8")
        for end in result.top(1)[0][0].split(" → "):
            assert interp.spec.Node.parse(end).drawn in drawn
        assert result.html()
        assert result.to_plotly().data


def test_forecasts(lend: Any) -> None:
    model = lend("llama")
    loaded(model, "stream")
    asked = dict[str, Any](from_="features", to="features,logits", freeze="heads", metric=logit)
    told = interp.path(CLEAN, CORRUPTED, **asked, dry_run=True)
    assert told.path == "without hooks"
    model.store.clear()
    taken: Any = interp.path(CLEAN, CORRUPTED, **asked)
    assert told.forwards == taken.provenance.forwards


@pytest.mark.parametrize("at", [0, 2, 5])
def test_memory_runs_out(at: int, lend: Any, monkeypatch: Any) -> None:
    from interp.engine import memory
    from interp.engine.transformer import incremental

    loaded(lend("llama"), "clt")
    asked = dict[str, Any](from_="features,0.1", to="features,1.mlp,logits", metric=logit)
    whole: Any = interp.path(CLEAN, CORRUPTED, **asked)
    monkeypatch.setattr(memory, "WAVE_ROWS", 200)
    own, calls = incremental.replay, [-1]

    def failing(*given: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return own(*given, **more)

    monkeypatch.setattr(incremental, "replay", failing)
    parts: Any = interp.path(CLEAN, CORRUPTED, **asked)
    assert calls[0] > at
    assert parts.done.all()
    np.testing.assert_allclose(parts.per_pair, whole.per_pair, atol=BOUND, rtol=0)


def test_a_stopped_sweep_keeps_what_is_done(lend: Any, clean_session: Any, monkeypatch: Any) -> None:
    from interp.engine import memory

    loaded(lend("llama"), "stream")
    asked = dict[str, Any](from_="features", to="features,logits", metric=logit)
    whole: Any = interp.path(CLEAN, CORRUPTED, **asked)
    monkeypatch.setattr(memory, "WAVE_ROWS", 20)

    def stop(done: int, *_: Any) -> None:
        if done > 20:
            raise KeyboardInterrupt

    clean_session.on_step = stop
    with pytest.raises(Interrupted) as caught:
        interp.path(CLEAN, CORRUPTED, **asked)
    part: Any = caught.value.result
    there = part.done & part.exists
    assert 0 < there.sum() < part.exists.sum()
    np.testing.assert_allclose(part.patched[there], whole.patched[there], atol=BOUND, rtol=0)
    assert part.html()


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("stream", {"from_": "F0.99"}, "no feature 99 in layer 0; they are 0–23"),
        ("stream", {"from_": "F7.3"}, "made has no features of layer 7"),
        ("stream", {"from_": "F7.*"}, "made has no features of layer 7"),
        ("stream", {"from_": "F0.3", "to": "F0.4"}, "there is no path: F0.3 writes above where F0.4 reads"),
        ("stream", {"from_": "F1.3", "to": "F0.4"}, "there is no path: F1.3 writes above where F0.4 reads"),
        ("stream", {"from_": "F0.*", "pairs": [(CLEAN, CLEAN)]}, "no feature of layer 0 differs between the prompts"),
        ("stream", {"from_": "feature"}, r"is no sender \(did you mean features\?\)"),
        ("stream", {"to": "F0.x"}, r"or a feature \(F8.417\)"),
        ("stream", {"features": "made"}, "--features names the set that features are of: say which with --from F2.417"),
        ("stream", {"from_": "F0.3", "features": "mde"}, r"no features are called 'mde' \(did you mean made\?\)"),
        ("attention", {"to": "F1.3"}, r"no path ends at F1.3: it reads attn_out, .* heads of layer 1 .*--to 1.0.q"),
        ("heads", {"to": "F1.*"}, r"no path ends at F1.\d+: it reads z, .* heads of layer 1 make, and not the stream"),
        ("neurons", {"to": "F1.3"}, r"no path ends at F1.3: it reads neuron, .* MLP of layer 1 makes.*--to 1.mlp"),
    ],
)
def test_what_cannot_be_asked(kind: str, options: dict[str, Any], said: str, lend: Any) -> None:
    loaded(lend("gpt2"), kind)
    with pytest.raises(InputError, match=said) as caught:
        interp.path(**dict[str, Any]({"metric": logit, "pairs": [(CLEAN, CORRUPTED)]}, **options))
    assert len(str(caught.value).splitlines()) == 1


def test_what_has_no_place_to_write(lend: Any) -> None:
    model = lend("gpt2")
    with pytest.raises(InputError, match=r"no features are loaded for .*; type %interp features-load"):
        interp.path(CLEAN, CORRUPTED, from_="F0.3", metric=logit)
    made.load(model, made.sae(0, 32, "mlp_normed"))
    with pytest.raises(InputError, match="can be looked at but not changed: nothing in the model writes there"):
        interp.path(CLEAN, CORRUPTED, from_="F0.3", metric=logit)


def test_smollm2(smollm2: Any) -> None:
    width = smollm2.geometry.d_model
    found = [made.sae(12, width, "resid_post", act=made.jump), made.random(16, width, act=made.jump)]
    made.load(smollm2, *found)
    result: Any = interp.path(task="ioi", n=1, from_="F12.*,14.3", to="F16.*,18.2.q,20.mlp,logits", metric=logit)
    assert result.provenance.path == "replay"
    clean, corrupted = map(list, result.provenance.tokens)
    loop = Loop(smollm2, found, corrupted, clean, "all")
    for sender, receiver in [*result.strongest(4), *np.argwhere(result.exists).tolist()[::97]]:
        expected = loop(result.senders[sender], result.receivers[receiver])
        assert result.per_pair[0, sender, receiver] == pytest.approx(expected, abs=5e-4)  # its logits are near 20
    print(f"SmolLM2: {int(result.exists.sum())} paths in {result.provenance.seconds:.1f} s, {result.top(1)}")
