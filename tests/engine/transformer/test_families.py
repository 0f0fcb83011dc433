"""Families of every kind against Hugging Face's own forward: right, or refused, or said; never wrong in silence."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

import interp
import models
from interp.engine.model.load import Options, load
from interp.errors import InputError
from interp.sites import Site
from interp.spec import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [5, 11, 23, 31, 8, 40, 17, 3, 90, 64, 12, 71]  # longer than every window below
OTHER = [*IDS[:9], 65, *IDS[10:]]
ASK = {"clean": Prompt(ids=tuple(IDS)), "corrupted": Prompt(ids=tuple(OTHER)), "answer": 7, "wrong": 9}

VOCABULARY = len(models.tokenizer())
ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
PLAIN = {
    **ENDS,
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**PLAIN, "num_key_value_heads": 2}
ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 8}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SQUARED = {"query_pre_attn_scalar": 8, "head_dim": 8, "sliding_window": 4}
MULTIPLIED = {"embedding_multiplier": 3.0, "logits_scaling": 4.0, "residual_multiplier": 0.5}
BLOOM = {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}
FALCON = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}

# name → its type, and what differs from the usual.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "biased and tied": (
        "llama",
        {**GROUPED, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "wide heads": ("llama", {**GROUPED, "head_dim": 12}),
    "one KV head": ("llama", {**PLAIN, "num_key_value_heads": 1}),
    "llama 3's rope": ("llama", {**GROUPED, "rope_parameters": ROPE | LLAMA3}),
    "yarn": ("llama", {**GROUPED, "rope_parameters": ROPE | {"rope_type": "yarn"}}),
    "linear rope": ("llama", {**GROUPED, "rope_parameters": ROPE | {"rope_type": "linear"}}),
    "sliding": ("mistral", {**GROUPED, "sliding_window": 4}),
    "sliding in some layers": (
        "qwen3",
        {**GROUPED, "head_dim": 8, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "capped": ("gemma2", {**GROUPED, **SQUARED}),
    "two ropes": ("gemma3_text", {**GROUPED, **SQUARED}),
    "parallel and scaled": ("cohere", GROUPED),
    "multiplied": ("granite", {**GROUPED, **MULTIPLIED, "attention_multiplier": 0.2}),
    "parallel": ("phi", {**PLAIN, "partial_rotary_factor": 0.5}),
    "alibi": ("bloom", BLOOM),
    "one of queries": ("falcon", {**FALCON, "multi_query": True, "parallel_attn": True}),
    "norms behind": ("olmo2", GROUPED),
    "experts": ("mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "no rope in some layers": ("smollm3", GROUPED),
}


def made(name: str) -> Any:
    kind, settings = FAMILIES[name]
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**settings), attn_implementation="eager").eval()
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            drawn = torch.empty_like(parameter).normal_(0.0, 0.25, generator=source)
            parameter.copy_(drawn if parameter.dim() > 1 or key.endswith("bias") else parameter + drawn)
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_it_is_what_hugging_face_computes(name: str, clean_session: Any) -> None:
    hf = made(name)
    with torch.no_grad():
        expected = copy.deepcopy(hf)(torch.tensor([IDS]), output_attentions=True)
    model = load(hf, tokenizer=models.tokenizer(), name="small", options=Options(device="cpu"))
    clean_session.models["small"] = model
    clean_session.current = "small"
    assert model.doubt == ""
    run = model.run(IDS)
    assert torch.allclose(run.logits, expected.logits, atol=1e-4)
    pattern = interp.attention(IDS).pattern
    for layer, weights in enumerate(expected.attentions):
        assert np.abs(pattern[layer] - weights[0].numpy()).max() < 1e-5

    # The whole stream of the clean run is the clean run; a head's part of it is what the hooked forward says.
    for site in ("resid_pre", "resid_mid", "resid_post"):
        if Site(site, 0).hook_name not in model.bridge.hook_dict:
            with pytest.raises(InputError, match=f"has no {site}"):
                interp.patch(**ASK, site=site, by="layer")
            continue
        assert interp.patch(**ASK, site=site, by="layer").recovery == pytest.approx([1, 1], abs=2e-3), site
    swept = interp.patch(**ASK, site="v", by="head")
    assert swept.provenance.path == "replay"
    with torch.no_grad():
        _, source = model.bridge.run_with_cache(torch.tensor([IDS]), names_filter="blocks.0.attn.hook_v")
        value = source["blocks.0.attn.hook_v"]

        def put(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            tensor = tensor.clone()
            tensor[:, :, 0] = value[:, :, 0]
            return tensor

        patched = model.bridge.run_with_hooks(torch.tensor([OTHER]), fwd_hooks=[("blocks.0.attn.hook_v", put)])[0, -1]
    assert swept.patched[0, 0] == pytest.approx(float(patched[7] - patched[9]), abs=1e-4)
