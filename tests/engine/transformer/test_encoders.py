"""Encoders: what is computed without hooks is Hugging Face's own, and what the hooked forward gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
import zoo
from engine.transformer.test_every_family import BOUND, apart, divisions
from interp.engine import exactness
from interp.engine.model.interventions import unread
from interp.engine.model.load import Options, load
from interp.engine.transformer import network
from interp.engine.transformer.forward import forward
from interp.errors import InputError
from interp.ids import TypedIds
from interp.methods._shared.models import way
from interp.sites import SITES, Site
from interp.spec import Pair, Pairs, Prompt

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

FAMILIES = ["bert", "roberta", "distilbert"]
MASK = 3
# The mask stands before, between and after what differs; 1 is [CLS], and of this RoBERTa the padding token too.
IDS = ((1, 9, 12, 33, MASK, 50, 61, 2), (1, MASK, 30, 7, 1, 51, 60, 20, 2), (1, 8, 9, 30, MASK, 2))
OTHER = ((1, 9, 13, 33, MASK, 50, 62, 2), (1, MASK, 30, 7, 1, 77, 60, 20, 2), (1, 88, 9, 30, MASK, 2))
PAIRS = [Pairs((Pair(Prompt(ids=one), Prompt(ids=other), (5,), (4,)),)) for one, other in zip(IDS, OTHER, strict=True)]
# No size is another's.
SIZES = {
    **dict.fromkeys(("hidden_size", "dim"), 30),
    **dict.fromkeys(("intermediate_size", "hidden_dim"), 44),
    **dict.fromkeys(("num_hidden_layers", "n_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_heads"), 5),
}


def made(family: str) -> Any:
    """Return an encoder of Hugging Face's with odd sizes, and an activation function that is not the usual one."""
    odd = {key: SIZES[key] for key in zoo.settings(family) if key in SIZES}
    act = {"activation": "relu"} if family == "distilbert" else {"hidden_act": "gelu_new"}
    return zoo.drawn(family, **odd, **act)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    return load(
        made(request.param),
        tokenizer=zoo.tokenizer(request.param),
        name=request.param,
        options=Options(device="cpu"),
    )


@pytest.fixture(autouse=True)
def current(model: Any, clean_session: Any) -> None:
    clean_session.models[model.name] = model
    clean_session.current = model.name


@pytest.fixture
def by_hooks(monkeypatch: pytest.MonkeyPatch, model: Any) -> Any:
    def without() -> None:
        model.store.clear()
        monkeypatch.setattr(network, "FAMILIES", {})

    return without


@pytest.mark.parametrize("ids", IDS)
def test_its_forward_is_hugging_faces(model: Any, ids: tuple[int, ...]) -> None:
    assert model.doubt == ""
    assert way(model) == "without hooks"
    net, hf = network.read(model, encoders=()), made(model.name)
    hf.set_attn_implementation("eager")
    with torch.no_grad():
        expected = hf(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
        patterns: list[torch.Tensor] = []
        streams: list[torch.Tensor] = []
        end = forward(
            net,
            edits={
                "pattern": lambda layer, tensor: patterns.append(tensor),  # noqa: ARG005
                "resid_pre": lambda layer, tensor: streams.append(tensor),  # noqa: ARG005
            },
            resid=net.begin([ids]),
        )
        fused = forward(net, resid=net.begin([ids]))
    assert apart(net.unembed(net.ending(end)), expected.logits) < BOUND
    assert apart(end, fused) < BOUND
    for found, own in zip(patterns, expected.attentions, strict=True):
        assert apart(found, own) < BOUND
    for found, own in zip([*streams, end], expected.hidden_states, strict=True):
        assert apart(found, own) < BOUND


@pytest.mark.parametrize("pairs", PAIRS)
def test_sweeps_are_the_hooked_ones(model: Any, by_hooks: Any, pairs: Pairs) -> None:
    asked = [each for each in divisions() if not unread(model, Site(each[0], 0))]
    missing = {"resid_mid", "pattern"} | ({"attn_out"} if model.name != "distilbert" else set())
    assert {site for site, _ in asked} == set(SITES) - missing
    lean = {each: interp.patch(pairs=pairs, site=each[0], by=each[1]) for each in asked}
    assert {each: result.provenance.path for each, result in lean.items()} == dict.fromkeys(asked, "replay")
    by_hooks()
    for each, result in lean.items():
        hooked = interp.patch(pairs=pairs, site=each[0], by=each[1])
        assert hooked.provenance.path.startswith("hooked")
        assert np.abs(result.patched - hooked.patched).max() < BOUND, each
        assert each[1] == "layer" or np.abs(result.effect).max() > 100 * BOUND, each


def test_what_no_hook_can_change_is_refused_as_ever(model: Any) -> None:
    for site in set(SITES) - {site for site, _ in divisions() if not unread(model, Site(site, 0))}:
        with pytest.raises(InputError, match="can be looked at but not changed"):
            interp.patch(pairs=PAIRS[0], site=site, by="layer")


def test_several_pairs_of_several_lengths_are_swept_together(model: Any) -> None:
    together = interp.patch(pairs=Pairs(tuple(pair for one in PAIRS for pair in one.pairs)), by="head")
    assert together.provenance.path == "replay"
    for number, pairs in enumerate(PAIRS):
        model.store.clear()
        alone = interp.patch(pairs=pairs, by="head")
        assert np.abs(together.per_pair[number] - alone.per_pair[0]).max() < BOUND


@pytest.mark.parametrize("metric", ["kl", "logprob", "rank"])
def test_metrics_of_the_whole_vocabulary_go_through_the_head(by_hooks: Any, metric: str) -> None:
    lean = interp.patch(pairs=PAIRS[0], metric=metric)
    assert lean.provenance.path == "replay"
    by_hooks()
    assert np.abs(lean.patched - interp.patch(pairs=PAIRS[0], metric=metric).patched).max() < BOUND


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_in_half_precision_cells_lie_within_twice_the_noise(
    model: Any, clean_session: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    half = load(
        made(model.name).to(dtype), tokenizer=model.tokens.tokenizer, name="half", options=Options(device="cpu")
    )
    clean_session.models["half"], clean_session.current = half, "half"
    asked = [("z", "head"), ("resid_pre", "position"), ("mlp_out", "position"), ("q", "head"), ("v", "head-position")]
    lean = {each: interp.patch(pairs=PAIRS[0], site=each[0], by=each[1]) for each in asked}
    assert {result.provenance.path for result in lean.values()} == {"replay"}
    monkeypatch.setattr(network, "FAMILIES", {})
    far: list[float] = []
    for (site, by), result in lean.items():
        hooked = interp.patch(pairs=PAIRS[0], site=site, by=by)
        assert hooked.provenance.path.startswith("hooked")
        assert hooked.noise == result.noise > 0
        far += (np.abs(result.patched - hooked.patched) / result.noise).ravel().tolist()
    assert np.mean(np.array(far) <= 2) >= 0.999


@pytest.mark.parametrize("steps", [1, 3])
def test_estimates_of_sites_are_the_hooked_ones(by_hooks: Any, steps: int) -> None:
    def estimates() -> list[Any]:
        asked = {"method": "attribution", "steps": steps}
        return [
            interp.patch(pairs=PAIRS[0], site=site, by=by, **asked)
            for site, by in (("z", "head"), ("mlp_out", "layer"), ("neuron", "neuron"), ("resid_pre", "position"))
        ]

    lean = estimates()
    assert {result.provenance.path for result in lean} == {"gradients"}
    by_hooks()
    for one, hooked in zip(lean, estimates(), strict=True):
        assert hooked.provenance.path.startswith("hooked")
        assert one.estimates.keys() - {"pattern"} == hooked.estimates.keys()
        assert np.abs(one.estimate - hooked.estimate).max() < BOUND


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_ablations_are_the_hooked_ones(by_hooks: Any, mode: str) -> None:
    def ablated() -> Any:
        return interp.ablate(pairs=PAIRS[0], heads="0.1,2.4", mlps="1", mode=mode)

    lean = ablated()
    assert lean.provenance.path == "forward"
    by_hooks()
    hooked = ablated()
    assert hooked.provenance.path.startswith("hooked")
    assert np.abs(lean.values - hooked.values).max() < BOUND


def test_a_lens_reads_the_stream_by_the_models_own_head(model: Any) -> None:
    prompt = Prompt(ids=IDS[0])
    net, hf = network.read(model, encoders=()), made(model.name)
    found = interp.lens(prompt, top=4)
    with torch.no_grad():
        streams = hf(torch.tensor([IDS[0]]), output_hidden_states=True).hidden_states[1:]
        chances = net.unembed(net.ending(torch.cat(streams))).softmax(-1)
        end = hf(torch.tensor([IDS[0]])).logits[0].softmax(-1)
    best = chances.topk(4)
    assert (found.ids == best.indices.numpy()).all()
    assert np.abs(found.probabilities - best.values.numpy()).max() < BOUND
    assert apart(chances[-1], end) < BOUND


def test_direct_effects_go_back_through_the_head_and_every_norm(model: Any) -> None:
    parts = interp.dla(Prompt(ids=IDS[0]), answer=5, wrong=4)
    with torch.no_grad():
        logits = made(model.name)(torch.tensor([IDS[0]])).logits[0, IDS[0].index(MASK)]
    assert parts.logit == pytest.approx(float(logits[5] - logits[4]), abs=1e-4)
    assert parts.total == pytest.approx(parts.logit, abs=1e-4)


def test_types_of_two_sentences_reach_a_sweep(model: Any, by_hooks: Any) -> None:
    if model.name != "bert":
        pytest.skip("it tells no types of tokens apart")
    types = (0, 0, 0, 0, 0, 1, 1, 1)
    pair = Pair(Prompt(ids=TypedIds(IDS[0], types)), Prompt(ids=TypedIds(OTHER[0], types)), (5,), (4,))
    asked = [("z", "head"), ("resid_pre", "position"), ("k", "head-position")]
    lean = [interp.patch(pairs=Pairs((pair,)), site=site, by=by) for site, by in asked]
    bare = interp.patch(pairs=PAIRS[0])
    assert {result.provenance.path for result in lean} == {"replay"}
    assert np.abs(lean[0].patched - bare.patched).max() > 100 * BOUND
    by_hooks()
    for (site, by), result in zip(asked, lean, strict=True):
        hooked = interp.patch(pairs=Pairs((pair,)), site=site, by=by)
        assert np.abs(result.patched - hooked.patched).max() < BOUND


def test_what_counts_on_a_sum_is_for_other_models(model: Any) -> None:
    for read in (network.read, network.weights):
        with pytest.raises(exactness.Unreadable, match="an encoder's stream is no sum"):
            read(model)
    with pytest.raises(exactness.Unreadable, match="its hooks show resid_mid normed"):
        network.read(model, encoders=("z", "resid_mid"))


@pytest.mark.parametrize("setting", ["is_decoder", "add_cross_attention"])
def test_a_decoder_is_read_by_hooks(model: Any, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    if model.name == "distilbert":
        pytest.skip("there is none")
    monkeypatch.setattr(model.hf_model.config, setting, True)
    assert way(model).startswith("with hooks: its ")
