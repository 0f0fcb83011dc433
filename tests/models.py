"""Small random models with small tokenizers, saved as Hugging Face folders: made in seconds, the same every time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

BOS = "<|bos|>"
MASK = "[MASK]"
N_CTX = 48
LAYERS = 2
HEADS = 4
WIDTH = 32

_TEXT = [
    "When Mary and John went to the store, John gave a drink to Mary.",
    "The capital of France is Paris, and the cat sat on the mat.",
    "one two three four five six seven eight nine ten",
] * 4


def tokenizer(*, bos: bool = True, encoder: bool = False, added: Sequence[str] = ()) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of about 340 tokens that spells every text.

    Parameters
    ----------
    bos
        Whether it has a BOS token.
    encoder
        Whether it wraps a text in [CLS] … [SEP] and two in [CLS] … [SEP] … [SEP], and has [MASK], as BERT's does.
    added
        Whole strings that become one token each.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = [*([BOS] if bos and not encoder else []), *(["[PAD]", "[CLS]", "[SEP]", MASK] if encoder else [])]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(_TEXT, trainer)
    bpe.add_tokens([AddedToken(text, normalized=False) for text in added])
    names: dict[str, Any] = {"bos_token": BOS, "eos_token": BOS} if bos and not encoder else {}
    if encoder:
        ends = [(name, bpe.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        bpe.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
        )
        names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": MASK, "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, clean_up_tokenization_spaces=False, **names)


def gpt2(vocabulary: int) -> PreTrainedModel:
    """Return a GPT-2 type model: learned positions."""
    config = GPT2Config(n_layer=LAYERS, n_head=HEADS, n_embd=WIDTH, n_positions=N_CTX, vocab_size=vocabulary)
    return _seeded(GPT2LMHeadModel, config)


def llama(vocabulary: int) -> PreTrainedModel:
    """Return a Llama type model: rotary positions, two query heads to one KV head."""
    config = LlamaConfig(
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=N_CTX,
        vocab_size=vocabulary,
    )
    return _seeded(LlamaForCausalLM, config)


def neox(vocabulary: int) -> PreTrainedModel:
    """Return a NeoX type model: attention and MLP in parallel, part of each head rotary."""
    config = GPTNeoXConfig(
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=N_CTX,
        vocab_size=vocabulary,
        use_parallel_residual=True,
    )
    return _seeded(GPTNeoXForCausalLM, config)


def bert(vocabulary: int) -> PreTrainedModel:
    """Return a BERT type model: it reads in both directions."""
    config = BertConfig(
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=N_CTX,
        vocab_size=vocabulary,
    )
    return _seeded(BertForMaskedLM, config)


def gemma2(vocabulary: int) -> PreTrainedModel:
    """Return a Gemma 2 type model: norms behind attention and MLP, scaled embeddings, capped scores and logits."""
    config = Gemma2Config(
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        head_dim=WIDTH // HEADS,
        query_pre_attn_scalar=WIDTH // HEADS,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=N_CTX,
        vocab_size=vocabulary,
        final_logit_softcapping=3.0,
        attn_logit_softcapping=10.0,
        sliding_window=N_CTX // 2,
    )
    return _seeded(Gemma2ForCausalLM, config)


def cohere(vocabulary: int) -> PreTrainedModel:
    """Return a Cohere type model: attention and MLP in parallel, LayerNorms without bias, scaled logits."""
    config = CohereConfig(
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=N_CTX,
        vocab_size=vocabulary,
        logit_scale=0.25,
    )
    return _seeded(CohereForCausalLM, config)


def bloom(vocabulary: int) -> PreTrainedModel:
    """Return a BLOOM type model: a norm behind the embedding, no positions but ALiBi's."""
    return _seeded(
        BloomForCausalLM, BloomConfig(n_layer=LAYERS, n_head=HEADS, hidden_size=WIDTH, vocab_size=vocabulary)
    )


def granite(vocabulary: int) -> PreTrainedModel:
    """Return a Granite type model: embeddings, what layers add, and logits are scaled."""
    config = GraniteConfig(
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        max_position_embeddings=N_CTX,
        vocab_size=vocabulary,
        embedding_multiplier=2.0,
        residual_multiplier=0.5,
        attention_multiplier=0.3,
        logits_scaling=4.0,
    )
    return _seeded(GraniteForCausalLM, config)


FAMILIES = {
    "gpt2": gpt2,
    "llama": llama,
    "neox": neox,
    "bert": bert,
    "gemma2": gemma2,
    "cohere": cohere,
    "bloom": bloom,
    "granite": granite,
}


def save(folder: Path, family: str, *, bos: bool = True, added: Sequence[str] = ()) -> Path:
    """Write a model of `family` and its tokenizer to `folder`, as safetensors, and return the folder."""
    tok = tokenizer(bos=bos, encoder=family == "bert", added=added)
    FAMILIES[family](len(tok)).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def _seeded(kind: Any, config: Any) -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(config)
        # The initial weights are so small that every head attends evenly: spread them.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 0.2)
    return model.eval()
