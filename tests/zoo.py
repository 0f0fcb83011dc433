"""A zoo: small random models of every family that people have, made of configurations alone, the same every time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import transformers
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

import models

VOCABULARY = len(models.tokenizer())
ENCODED = len(models.tokenizer(encoder=True))

_ENDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
_PLAIN = {
    **_ENDS,
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "max_position_embeddings": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_GROUPED = {**_PLAIN, "num_key_value_heads": 2}
_FALCON = {**_ENDS, "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_SQUARED = {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6}
_MULTIPLIED = {
    "embedding_multiplier": 2.0,
    "residual_multiplier": 0.5,
    "attention_multiplier": 0.2,
    "logits_scaling": 4.0,
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
}
_OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48, "vocab_size": VOCABULARY, **_ENDS}
_ENCODER = {**_PLAIN, "vocab_size": ENCODED, "pad_token_id": 0}

# name → Hugging Face's type of configuration, its class of model, and the settings.
_MADE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("llama", "LlamaForCausalLM", _GROUPED),
    "mistral": ("mistral", "MistralForCausalLM", {**_GROUPED, "sliding_window": 6}),
    "ministral3": ("ministral3", "Ministral3ForCausalLM", {**_GROUPED, "head_dim": 8}),
    "mixtral": ("mixtral", "MixtralForCausalLM", {**_GROUPED, "num_local_experts": 4}),
    "qwen2": ("qwen2", "Qwen2ForCausalLM", _GROUPED),
    "qwen3": ("qwen3", "Qwen3ForCausalLM", {**_GROUPED, "head_dim": 8}),
    "qwen2_moe": (
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        {**_GROUPED, **_EXPERTS, "shared_expert_intermediate_size": 24},
    ),
    "qwen3_moe": ("qwen3_moe", "Qwen3MoeForCausalLM", {**_GROUPED, **_EXPERTS, "head_dim": 8}),
    "qwen3_next": (
        "qwen3_next",
        "Qwen3NextForCausalLM",
        {
            **_GROUPED,
            **_EXPERTS,
            "head_dim": 8,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "shared_expert_intermediate_size": 24,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "gemma": ("gemma", "GemmaForCausalLM", {**_GROUPED, "head_dim": 8}),
    "gemma2": (
        "gemma2",
        "Gemma2ForCausalLM",
        {**_GROUPED, **_SQUARED, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 4.0},
    ),
    "gemma3_text": ("gemma3_text", "Gemma3ForCausalLM", {**_GROUPED, **_SQUARED}),
    "phi": ("phi", "PhiForCausalLM", {**_PLAIN, "partial_rotary_factor": 0.5}),
    "phi3": ("phi3", "Phi3ForCausalLM", {**_GROUPED, "original_max_position_embeddings": 48}),
    "phimoe": ("phimoe", "PhimoeForCausalLM", {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt2": ("gpt2", "GPT2LMHeadModel", _OLD),
    "openai-gpt": ("openai-gpt", "OpenAIGPTLMHeadModel", _OLD),
    "gpt_bigcode": ("gpt_bigcode", "GPTBigCodeForCausalLM", _OLD),
    "gptj": ("gptj", "GPTJForCausalLM", {**_OLD, "rotary_dim": 4}),
    "codegen": ("codegen", "CodeGenForCausalLM", {**_OLD, "rotary_dim": 4, "n_ctx": 48}),
    "gpt_neo": (
        "gpt_neo",
        "GPTNeoForCausalLM",
        {
            **_ENDS,
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "max_position_embeddings": 48,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 6,
        },
    ),
    "gpt_neox": ("gpt_neox", "GPTNeoXForCausalLM", {**_PLAIN, "use_parallel_residual": True}),
    "opt": (
        "opt",
        "OPTForCausalLM",
        {**{k: v for k, v in _PLAIN.items() if k != "intermediate_size"}, "ffn_dim": 40, "word_embed_proj_dim": 32},
    ),
    "xglm": (
        "xglm",
        "XGLMForCausalLM",
        {
            **_ENDS,
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "num_layers": 2,
            "attention_heads": 4,
            "ffn_dim": 40,
            "max_position_embeddings": 48,
        },
    ),
    "bloom": (
        "bloom",
        "BloomForCausalLM",
        {**_ENDS, "vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4},
    ),
    "falcon": (
        "falcon",
        "FalconForCausalLM",
        {**_FALCON, "multi_query": True, "parallel_attn": True},
    ),
    "falcon_alibi": (
        "falcon",
        "FalconForCausalLM",
        {**_FALCON, "alibi": True, "multi_query": False, "parallel_attn": False},
    ),
    "mpt": (
        "mpt",
        "MptForCausalLM",
        {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 48},
    ),
    "stablelm": ("stablelm", "StableLmForCausalLM", {**_GROUPED, "partial_rotary_factor": 0.5}),
    "olmo": ("olmo", "OlmoForCausalLM", _GROUPED),
    "olmo2": ("olmo2", "Olmo2ForCausalLM", _GROUPED),
    "olmo3": ("olmo3", "Olmo3ForCausalLM", {**_GROUPED, "sliding_window": 6}),
    "olmoe": ("olmoe", "OlmoeForCausalLM", {**_GROUPED, "num_experts": 4, "num_experts_per_tok": 2}),
    "cohere": ("cohere", "CohereForCausalLM", _GROUPED),
    "cohere2": ("cohere2", "Cohere2ForCausalLM", {**_GROUPED, "sliding_window": 6}),
    "granite": ("granite", "GraniteForCausalLM", {**_GROUPED, **_MULTIPLIED}),
    "granitemoe": (
        "granitemoe",
        "GraniteMoeForCausalLM",
        {**_GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "smollm3": ("smollm3", "SmolLM3ForCausalLM", _GROUPED),
    "starcoder2": ("starcoder2", "Starcoder2ForCausalLM", {**_GROUPED, "sliding_window": 6}),
    "gpt_oss": (
        "gpt_oss",
        "GptOssForCausalLM",
        {**_GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 6},
    ),
    "deepseek_v2": ("deepseek_v2", "DeepseekV2ForCausalLM", {**_PLAIN, **_LATENT, "num_key_value_heads": 4}),
    "deepseek_v3": ("deepseek_v3", "DeepseekV3ForCausalLM", {**_PLAIN, **_LATENT, "num_key_value_heads": 4}),
    "nemotron": ("nemotron", "NemotronForCausalLM", _GROUPED),
    "glm": ("glm", "GlmForCausalLM", {**_GROUPED, "head_dim": 8}),
    "glm4": ("glm4", "Glm4ForCausalLM", {**_GROUPED, "head_dim": 8}),
    "seed_oss": ("seed_oss", "SeedOssForCausalLM", {**_GROUPED, "head_dim": 8}),
    "arcee": ("arcee", "ArceeForCausalLM", _GROUPED),
    "ernie4_5": ("ernie4_5", "Ernie4_5ForCausalLM", {**_GROUPED, "head_dim": 8}),
    "exaone4": ("exaone4", "Exaone4ForCausalLM", {**_GROUPED, "sliding_window": 6}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", {**_GROUPED, "head_dim": 8}),
    "apertus": ("apertus", "ApertusForCausalLM", _GROUPED),
    "lfm2": (
        "lfm2",
        "Lfm2ForCausalLM",
        {**_GROUPED, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    ),
    "mamba": (
        "mamba",
        "MambaForCausalLM",
        {**_ENDS, "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2},
    ),
    "mamba2": (
        "mamba2",
        "Mamba2ForCausalLM",
        {
            **_ENDS,
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 1,
            "chunk_size": 8,
        },
    ),
    "rwkv": (
        "rwkv",
        "RwkvForCausalLM",
        {**_ENDS, "vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 48},
    ),
    "bert": ("bert", "BertForMaskedLM", _ENCODER),
    "bert_pretraining": ("bert", "BertForPreTraining", _ENCODER),
    "bert_nsp": ("bert", "BertForNextSentencePrediction", _ENCODER),
    "bert_qa": ("bert", "BertForQuestionAnswering", _ENCODER),
    "bert_tokens": ("bert", "BertForTokenClassification", _ENCODER),
    "bert_choice": ("bert", "BertForMultipleChoice", _ENCODER),
    "bert_classifier": ("bert", "BertForSequenceClassification", _ENCODER),
    "bert_decoder": ("bert", "BertLMHeadModel", {**_ENCODER, "is_decoder": True}),
    "bert_base": ("bert", "BertModel", _ENCODER),
    "roberta": ("roberta", "RobertaForMaskedLM", {**_ENCODER, "pad_token_id": 1, "max_position_embeddings": 50}),
    "distilbert": (
        "distilbert",
        "DistilBertForMaskedLM",
        {
            "vocab_size": ENCODED,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": 48,
        },
    ),
    "albert": ("albert", "AlbertForMaskedLM", {**_ENCODER, "embedding_size": 16}),
    "electra": ("electra", "ElectraForMaskedLM", {**_ENCODER, "embedding_size": 16}),
    "modernbert": ("modernbert", "ModernBertForMaskedLM", {**_ENCODER, "cls_token_id": 1, "sep_token_id": 2}),
    "t5": (
        "t5",
        "T5ForConditionalGeneration",
        {"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    ),
    "bart": (
        "bart",
        "BartForCausalLM",
        {
            **_ENDS,
            "vocab_size": VOCABULARY,
            "d_model": 32,
            "decoder_layers": 2,
            "encoder_layers": 2,
            "decoder_attention_heads": 4,
            "encoder_attention_heads": 4,
            "decoder_ffn_dim": 48,
            "encoder_ffn_dim": 48,
            "max_position_embeddings": 48,
        },
    ),
    "llama_classifier": ("llama", "LlamaForSequenceClassification", _GROUPED),
    "llama_base": ("llama", "LlamaModel", _GROUPED),
    "gpt2_double": ("gpt2", "GPT2DoubleHeadsModel", _OLD),
    "vit": (
        "vit",
        "ViTForImageClassification",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "image_size": 32,
            "patch_size": 16,
        },
    ),
    "llava": ("llava", "LlavaForConditionalGeneration", {}),
}

_DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers")


def _huggingface(kind: str, name: str, settings: Mapping[str, Any], one_layer: bool = False) -> Any:
    if one_layer:
        settings = {key: 1 if key in _DEPTH else value for key, value in settings.items()}
        settings |= {"layer_types": settings["layer_types"][-1:]} if "layer_types" in settings else {}
        settings |= {"attention_types": [[["global"], 1]]} if "attention_types" in settings else {}
    if kind == "llava":
        text = transformers.LlamaConfig(**_GROUPED)
        vision = transformers.CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=32,
            patch_size=16,
        )
        config: Any = transformers.LlavaConfig(text_config=text, vision_config=vision)
    else:
        config = transformers.CONFIG_MAPPING[kind](**settings)
    return spread(getattr(transformers, name)(config))


def _native(one_layer: bool = False, **settings: Any) -> Any:
    settings |= {"n_layers": 1} if one_layer else {}
    sizes = {"n_layers": 2, "n_heads": 4, "d_model": 32, "d_head": 8, "d_mlp": 48, "n_ctx": 48, "act_fn": "gelu"}
    config = TransformerBridgeConfig(
        **{**sizes, "d_vocab": VOCABULARY, "architecture": "TransformerLensNative"} | settings
    )
    bridge = spread(TransformerBridge.boot_native(config))
    bridge.tokenizer = models.tokenizer()
    return bridge


def spread(model: Any) -> Any:
    """Return a model with weights so far apart that its heads and MLPs do something, the same every time."""
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point():
                parameter.copy_(torch.empty_like(parameter, dtype=torch.float32).normal_(0.0, 0.2, generator=source))
    return model.eval()


def settings(family: str) -> dict[str, Any]:
    """Return the settings of a model of Hugging Face's."""
    return dict(_MADE[family][2])


def drawn(family: str, **settings: Any) -> Any:
    """Return a model of Hugging Face's with nothing at its initial value: gains, biases and sinks neither."""
    kind, name, usual = _MADE[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _huggingface(kind, name, {**usual, **settings})
    source = torch.Generator().manual_seed(zlib.crc32(family.encode()))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.empty_like(parameter).normal_(0.0, 0.3, generator=source))
    return model


# name → a function that makes the model; with ``one_layer=True`` one of a single layer.
FAMILIES: dict[str, Callable[..., Any]] = {
    **{name: partial(_huggingface, *made) for name, made in _MADE.items()},
    "native": _native,
    "native_rms": partial(_native, normalization_type="RMS"),
    "native_no_norm": partial(_native, normalization_type=None),
    "native_attention_only": partial(_native, attn_only=True),
    "native_one_layer_attention_only": partial(_native, n_layers=1, attn_only=True, normalization_type=None),
    "native_fewer_outputs": partial(_native, d_vocab_out=VOCABULARY - 40),
    "native_more_outputs": partial(_native, d_vocab_out=VOCABULARY + 40),
    "native_bidirectional": partial(_native, attention_dir="bidirectional"),
}

ENCODERS = frozenset(name for name, (_, _, settings) in _MADE.items() if settings.get("vocab_size") == ENCODED)


def tokenizer(family: str) -> Any:
    """Return the tokenizer of a model of `family`."""
    return models.tokenizer(encoder=family in ENCODERS)
