"""Changes of a run: they do what they say, in the order that the forward has, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPTJConfig,
    GptOssConfig,
    OpenAIGPTConfig,
    OPTConfig,
)

import interp
import models
from interp.engine.model.load import Options, load
from interp.engine.model.loaded import LoadedModel
from interp.errors import InputError
from interp.sites import Site
from interp.spec import Intervention, Prompt

IDS = [5, 11, 23, 31, 8, 40, 17, 3]
OTHER = [5, 11, 64, 31, 8, 40, 17, 3]
VOCABULARY = len(models.tokenizer())
ASK = {"clean": Prompt(ids=tuple(IDS)), "corrupted": Prompt(ids=tuple(OTHER)), "answer": 7, "wrong": 9}

WIDE = {"hidden_size": 32, "vocab_size": VOCABULARY, "max_position_embeddings": 48}
DEEP = {"num_hidden_layers": 2, "num_attention_heads": 4}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48, "vocab_size": VOCABULARY}
CONFIGS: dict[str, Callable[[], Any]] = {
    "opt": lambda: OPTConfig(**WIDE, **DEEP, ffn_dim=64, word_embed_proj_dim=32),
    "gptj": lambda: GPTJConfig(**OLD, rotary_dim=4),
    "openai-gpt": lambda: OpenAIGPTConfig(**OLD),
    "gpt-oss": lambda: GptOssConfig(
        **WIDE, **DEEP, intermediate_size=64, num_key_value_heads=2, head_dim=8, num_local_experts=4
    ),
}


@pytest.fixture
def of(clean_session: Any) -> Callable[[str], LoadedModel]:
    """Return ``of(kind)``: a small random model of a family, as the current one."""

    def make(kind: str) -> LoadedModel:
        made = AutoModelForCausalLM.from_config(CONFIGS[kind](), attn_implementation="eager").eval()
        source = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if name.endswith("sinks"):
                    parameter.fill_(2.0)
                elif parameter.dim() > 1 or name.endswith("bias"):
                    parameter.normal_(0.0, 0.3, generator=source)
        model = load(made, tokenizer=models.tokenizer(), name=kind, options=Options(device="cpu"))
        clean_session.models[kind] = model
        clean_session.current = kind
        return model

    return make


def last(model: LoadedModel, *interventions: Intervention) -> torch.Tensor:
    return model.run(IDS, interventions).logits[0, -1]


@pytest.mark.parametrize("first", ["resid_mid", "other"])
@pytest.mark.parametrize("site", ["resid_pre", "attn_out", "z"])
def test_the_middle_becomes_what_it_should_whatever_else_is_changed(site: str, first: str, lend: Any) -> None:
    model = lend("llama")
    value = torch.linspace(-1, 1, model.geometry.d_model)
    middle = Intervention(Site("resid_mid", 1), value=value)
    other = Intervention(Site(site, 1), mode="add", value=0.7)
    asked = [middle, other] if first == "resid_mid" else [other, middle]
    # Whatever the attention adds to whatever was there, the stream is `value` from here on.
    assert torch.allclose(last(model, *asked), last(model, middle), atol=1e-4)
    assert not torch.allclose(last(model, other), last(model), atol=1e-2)


def test_noise_is_the_same_again_and_another_in_another_place(lend: Any) -> None:
    model = lend("gpt2")

    def noise(**where: int) -> torch.Tensor:
        one = Intervention(Site("z", 0), mode="noise", value=1.0, **where)
        name = "blocks.0.attn.hook_z"
        plain = model.run(IDS).activations[name]
        return (model.run(IDS, [one]).activations[name] - plain)[0]

    assert torch.equal(noise(head=1), noise(head=1))
    assert noise(head=1)[:, [0, 2, 3]].abs().max() == 0
    assert not torch.allclose(noise(head=1)[:, 1], noise(head=2)[:, 2], atol=1e-3)


@pytest.mark.parametrize("where", [{"head": (0, 1)}, {"position": [2, 3]}, {"head": (0, 1), "position": (2, 3)}])
def test_one_place_to_an_intervention(where: dict[str, Any], lend: Any) -> None:
    lend("gpt2")
    with pytest.raises(InputError, match=r"one (head|position) to an intervention; give one intervention for each"):
        interp.model.run(IDS, [Intervention(Site("z", 0), mode="zero", **where)])


# -- families in which the bridge shows an activation beside the forward ---------------------------------------------


@pytest.mark.parametrize("kind", ["opt", "gptj"])
def test_a_pattern_that_is_only_shown_cannot_be_changed(kind: str, of: Any) -> None:
    model = of(kind)
    said = f"the pattern of {kind} can be looked at but not changed"
    for ask in (
        lambda: model.run(IDS, [Intervention(Site("pattern", 1), mode="zero")]),
        lambda: interp.patch(**ASK, site="pattern"),
        lambda: interp.patch(**ASK, site="pattern", method="attribution"),
        lambda: interp.ablate(Prompt(ids=tuple(IDS)), knockout="1.2:5->2"),
    ):
        with pytest.raises(InputError, match=said) as refused:
            ask()
        assert "\n" not in str(refused.value)
    assert interp.attention(IDS).pattern.shape == (2, 4, len(IDS), len(IDS))
    estimated = interp.patch(**ASK, method="attribution").estimates
    assert abs(estimated["z"]).max() > 0
    assert abs(interp.patch(**ASK, by="layer").effect).min() > 0


def test_a_stream_that_a_norm_interrupts_cannot_be_changed(of: Any) -> None:
    model = of("openai-gpt")  # its norms stand behind what attention and MLP add
    reasons = {"resid_mid": "can be looked at but not changed", "resid_post": "its forward does not go through it"}
    for site, reason in reasons.items():
        with pytest.raises(InputError, match=f"{site}.*{reason}"):
            interp.patch(**ASK, site=site, by="layer")
        with pytest.raises(InputError, match=f"{site}.*{reason}"):
            model.run(IDS, [Intervention(Site(site, 0), mode="zero")])
    assert interp.patch(**ASK, site="resid_pre", by="layer").recovery == pytest.approx([1, 1], abs=1e-3)


def test_an_encoders_attention_holds_the_stream(lend: Any) -> None:
    model = lend("bert")
    mask = model.tokens.tokenizer.mask_token_id
    pair = {"clean": Prompt(ids=(1, mask, 23, 31, 2)), "corrupted": Prompt(ids=(1, mask, 64, 31, 2))}
    for site in ("attn_out", "resid_mid", "pattern"):
        with pytest.raises(InputError, match=f"the {site} of bert can be looked at but not changed"):
            interp.patch(**pair, answer=7, wrong=9, site=site, by="layer")
    for site in ("resid_pre", "resid_post"):
        swept = interp.patch(**pair, answer=7, wrong=9, site=site, by="layer")
        assert swept.recovery == pytest.approx([1, 1], abs=1e-3)
    assert abs(interp.patch(**pair, answer=7, wrong=9, site="z", by="head").effect).max() > 0


def test_a_cut_edge_beside_a_sink(of: Any) -> None:
    model = of("gpt-oss")  # its softmax has one more score to a head, which no key has
    assert interp.attention(IDS).pattern[1, 2, 7].sum() < 0.999
    found = interp.ablate(Prompt(ids=tuple(IDS)), knockout="1.2:7->2").per_prompt[1, 0]

    # The edge's score is made −∞ where the model itself would mask it.
    attention = model.hf_model.model.layers[1].self_attn
    whole = torch.nn.functional.softmax

    def cut(scores: torch.Tensor, *rest: Any, **options: Any) -> torch.Tensor:
        if scores.dim() == 4 and scores.shape[-1] == len(IDS) + 1 and next(layers) == 1:
            scores = scores.clone()
            scores[:, 2, 7, 2] = float("-inf")
        return whole(scores, *rest, **options)

    assert attention.sinks.shape == (4,)
    layers = iter(range(100))
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "softmax", cut)
        logits = model.hf_model(torch.tensor([IDS])).logits[0]
    assert next(layers) == 2
    expected = torch.nn.functional.cross_entropy(logits[:-1].float(), torch.tensor(IDS[1:]))
    assert found == pytest.approx(float(expected), abs=1e-5)


def test_a_parallel_block_has_no_path_from_its_heads_to_its_mlp(of: Any) -> None:
    of("gptj")
    with pytest.raises(InputError, match="there is no path"):
        interp.path(**ASK, from_="0.1", to="0.mlp")
    assert abs(interp.path(**ASK, from_="0.1", to="1.mlp").effect).max() > 0


def test_an_activation_that_is_not_there_is_the_default(lend: Any) -> None:
    held = lend("gpt2").run(IDS).activations
    assert held.get("blocks.0.hook_resid") is None
    assert held.get("misspelt", 3) == 3
    assert held.get("blocks.0.hook_resid_pre").shape == held.get(("resid_pre", 0)).shape == (1, len(IDS), 32)
    assert (1, 2) not in held
    assert held.get((1, 2), 3) == 3


def test_ids_may_be_numpys(lend: Any) -> None:
    model = lend("gpt2")
    assert torch.equal(model.run(list(np.array(IDS))).logits, model.run(IDS).logits)
    with pytest.raises(InputError, match="a prompt is a text or a list of token ids"):
        model.run([True, False])
