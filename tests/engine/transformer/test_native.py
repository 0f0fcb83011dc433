"""Native bridges: no Hugging Face configuration, no tokenizer, and maybe no norms; read, patched and differentiated."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge.sources.native import boot

import interp
from interp import truth
from interp.engine.circuits.eap import attribute_edges
from interp.engine.metrics import Scorer
from interp.engine.model import load
from interp.engine.model.loaded import LoadedModel
from interp.engine.patching.cases import Case
from interp.engine.transformer import network
from interp.engine.transformer.forward import forward
from interp.errors import InputError
from interp.interface.session import session
from interp.spec import Metric, Pair, Pairs, Prompt
from truth.naive import Naive

PLAIN: dict[str, Any] = {
    "n_layers": 2,
    "n_heads": 4,
    "d_model": 16,
    "d_head": 4,
    "d_mlp": 24,
    "d_vocab": 11,
    "n_ctx": 12,
    "act_fn": "gelu",
    "normalization_type": None,
}
READABLE: dict[str, dict[str, Any]] = {
    "no norm": {},
    "relu": {"act_fn": "relu"},
    "layer norm": {"normalization_type": "LN"},
    "rms norm": {"normalization_type": "RMS"},
    "gated": {"gated_mlp": True, "act_fn": "silu"},
    "grouped": {"n_key_value_heads": 2},
    "no MLP": {"attn_only": True, "normalization_type": "LN"},
    "unscaled": {"use_attn_scale": True, "attn_scale": 3.0},
}
UNREADABLE: dict[str, tuple[dict[str, Any], str]] = {
    "rotary": ({"positional_embedding_type": "rotary"}, "neighbouring dims"),
    "capped": ({"output_logits_soft_cap": 30.0}, "capped"),
    "no gain": ({"normalization_type": "LNPre"}, "no gain"),
    "a norm inside": ({"normalization_type": "LN", "act_fn": "solu_ln"}, "norm inside"),
}
IDS = (1, 2, 3, 4, 5, 2, 7)
OTHER = (1, 2, 6, 4, 5, 9, 7)
PAIRS = Pairs((Pair(Prompt(ids=IDS), Prompt(ids=OTHER), (3,), (4,)),))


def native(**settings: Any) -> LoadedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bridge = boot(TransformerBridgeConfig(**PLAIN | settings))
        with torch.no_grad():
            for parameter in bridge.parameters():
                parameter.normal_(0.0, 0.2)
    return load.load(bridge.eval(), name="native", options=load.Options())


@pytest.fixture
def own() -> Any:
    """Give a way to make a model the session's own; it is taken out again."""
    before = (dict(session.models), session.current)

    def take(model: LoadedModel) -> LoadedModel:
        session.models[model.name], session.current = model, model.name
        return model

    yield take
    session.models, session.current = before


@pytest.mark.parametrize("kind", READABLE)
def test_the_lean_forward_is_the_bridges(kind: str) -> None:
    model = native(**READABLE[kind])
    net = network.read(model)
    ids = torch.tensor([IDS, OTHER])
    with torch.no_grad():
        logits = net.unembed(net.final(forward(net, ids)))
        expected = model.bridge.forward(ids, return_type="logits")
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", READABLE)
def test_patches_and_paths_are_those_of_the_hooked_forward(kind: str, own: Any, monkeypatch: Any) -> None:
    own(native(**READABLE[kind]))
    calls = [
        lambda: interp.patch(PAIRS, site="z", by="head"),
        lambda: interp.patch(PAIRS, site="resid_pre", by="position"),
        lambda: interp.path(PAIRS, to="all", freeze="all"),
        lambda: interp.path(PAIRS, to="q,k,v", freeze="none"),
    ]
    if kind == "no MLP":  # paths are between heads and MLPs
        with pytest.raises(InputError, match="has no mlp_out; it has resid_pre"):
            calls.pop()()
        calls = calls[:2]
    lean = [call() for call in calls]
    assert {result.provenance.path for result in lean} == {"replay"}
    monkeypatch.setattr(network, "read", unreadable)
    for call, found in zip(calls, lean, strict=True):
        hooked = call()
        assert hooked.provenance.path.startswith("hooked")
        torch.testing.assert_close(
            torch.tensor(found.patched), torch.tensor(hooked.patched), rtol=1e-4, atol=1e-4, equal_nan=True
        )


def unreadable(model: LoadedModel, **_: Any) -> network.Network:  # noqa: ARG001
    raise network.Unreadable("for the test")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_settings_without_a_place_in_a_layer_go_by_hooks(kind: str, own: Any) -> None:
    settings, reason = UNREADABLE[kind]
    model = own(native(**settings))
    with pytest.raises(network.Unreadable, match=reason):
        network.read(model)
    result = interp.patch(PAIRS, site="z", by="head")
    assert result.provenance.path.startswith("hooked")
    assert reason in result.provenance.path


def test_a_model_in_training_mode_is_said_to_be() -> None:
    model = native()
    model.bridge.train()
    with pytest.raises(network.Unreadable, match="training"):
        network.read(model)


def test_a_text_says_what_to_give(own: Any) -> None:
    own(native())
    with pytest.raises(InputError, match="token ids"):
        interp.predict("The cat")
    assert interp.predict(IDS).provenance.model == "native"


def test_direct_effects_add_up_without_norms(own: Any) -> None:
    model = own(native())
    result = interp.dla(IDS)
    logits = model.run(IDS).logits[0, -1]
    assert result.logit == pytest.approx(float(logits[logits.argmax()]), abs=1e-4)


@pytest.mark.parametrize("ablation", ["corrupted", "mean", "zero"])
def test_edge_gradients_through_no_norm_are_autograds(ablation: str) -> None:
    made = truth.build("induction")
    model = load.load(made.bridge(), options=load.Options())
    pairs = made.pairs(3).pairs
    cases = [
        Case(pair.clean.ids, pair.corrupted.ids, Scorer(Metric(), pair.answer, pair.wrong), 11, clean_base=True)  # pyright: ignore[reportArgumentType]
        for pair in pairs
    ]
    found = model.operate("test", {}, lambda _: attribute_edges(model, cases, ablation=ablation))
    net, rows = Naive(made), torch.arange(3)
    clean = torch.tensor([case.base for case in cases])
    carried = net.carried(torch.tensor([case.source for case in cases]), ablation)
    written = net.run(clean)[1]
    answer, wrong = (torch.tensor([getattr(pair, which)[0] for pair in pairs]) for which in ("answer", "wrong"))
    at = {node.name: n for n, node in enumerate(found.writers)}
    to = {node.name: n for n, node in enumerate(found.readers)}
    edges = list(made.truth(ablation))
    leaves = {edge: torch.zeros_like(written[edge[0]]).requires_grad_() for edge in edges}
    logits = net.run(clean, shifts=leaves)[0]
    metric = (logits[rows, answer] - logits[rows, wrong]).sum()
    for edge, slope in zip(edges, torch.autograd.grad(metric, list(leaves.values())), strict=True):
        expected = ((written[edge[0]] - carried[edge[0]]) * slope).sum((1, 2))
        score = found.per_pair[:, at[edge[0]], to[edge[1]]].double()
        torch.testing.assert_close(score, expected, rtol=1e-3, atol=1e-3)
