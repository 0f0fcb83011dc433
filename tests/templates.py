"""Chat templates in the formats of four families and one that drops thoughts, and what each writes, piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, processors, trainers
from tokenizers import decoders as decoding
from tokenizers import models as tokenizing
from transformers import PreTrainedTokenizerFast

import models

BOS, EOS = models.BOS, "</s>"
Message = dict[str, str]
Piece = tuple[str, str]  # whose it is, what is written

CHATML = (
    "{% for m in messages %}"
    "{% if loop.first and m['role'] != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% set first = '' %}"
    "{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] | trim + '\\n\\n' %}"
    "{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('turns must alternate') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) + '\\n' }}"
    "{{ (first if loop.first else '') + m['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% set before = '' %}{% if messages[0]['role'] == 'system' %}"
    "{% set before = messages[0]['content'] + '\\n\\n' %}{% set messages = messages[1:] %}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + (before if loop.first else '') + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('only one system turn, and that first') }}{% endif %}{% endfor %}"
)
# What an assistant thought before it answered is not shown to it again.
THINKING = CHATML.replace(
    "m['content']", "(m['content'].split('</think>')[-1].lstrip('\\n') if m['role'] == 'assistant' else m['content'])"
)
TEMPLATES = {"chatml": CHATML, "gemma": GEMMA, "llama": LLAMA, "mistral": MISTRAL, "thinking": THINKING}
ENDS = {
    "chatml": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "llama": "<|eot_id|>",
    "mistral": EOS,
    "thinking": "<|im_end|>",
}
SPECIAL = (
    EOS,
    "<|im_start|>",
    "<|im_end|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)


def _framed(start: str, end: str, trim: bool, names: dict[str, str]) -> Callable[[Sequence[Message]], list[Piece]]:
    def pieces(chat: Sequence[Message]) -> list[Piece]:
        found: list[Piece] = []
        for n, m in enumerate(chat):
            said = m["content"].strip() if trim else m["content"]
            found += [("", start.format(names.get(m["role"], m["role"]))), (str(n), said), ("", end)]
        return found

    return pieces


def pieces(name: str, chat: Sequence[Message], going_on: bool) -> list[Piece]:
    """Return what a template writes: whose each piece is, the number of a turn, or nothing for the template."""
    if name == "mistral":
        found = [("", BOS)]
        system = chat[0] if chat[0]["role"] == "system" else None
        for n, m in enumerate(chat):
            if m["role"] == "user":
                found.append(("", "[INST] "))
                found += [("0", system["content"]), ("", "\n\n")] if system is not None and n == 1 else []
                found += [(str(n), m["content"]), ("", " [/INST]")]
            elif m["role"] == "assistant":
                found += [("", " "), (str(n), m["content"]), ("", EOS)]
        return found[:-1] if going_on else found
    if name == "gemma":
        frame = _framed("<start_of_turn>{}\n", "<end_of_turn>\n", True, {"assistant": "model"})
        found = [("", BOS), *frame(chat)]
        if chat[0]["role"] == "system":
            (_, system, _), (start, *rest) = found[1:4], found[4:]
            found = [("", BOS), start, system, ("", "\n\n"), *rest]
        header = "<start_of_turn>model\n"
    elif name == "llama":
        found = [("", BOS), *_framed("<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>", True, {})(chat)]
        header = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    else:
        found = _framed("<|im_start|>{}\n", "<|im_end|>\n", False, {})(chat)
        default = [("", "<|im_start|>system\nYou help.<|im_end|>\n")] if chat[0]["role"] != "system" else []
        found = [*default, *found]
        header = "<|im_start|>assistant\n"
    return found[:-1] if going_on else [*found, ("", header)]


@cache
def tokenizer(name: str, kind: str = "bytes") -> Any:
    """Return a tokenizer with a template: byte-level, or with ▁ for spaces and BOS in front, as Llama 2's is."""
    if kind == "bytes":
        found = models.tokenizer(added=SPECIAL)
    else:
        bpe = Tokenizer(tokenizing.BPE(unk_token="<unk>", fuse_unk=True))
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        bpe.decoder = decoding.Sequence([decoding.Replace("▁", " "), decoding.Fuse()])
        bpe.train_from_iterator(
            ["When Mary and John went to the store, the cat sat.", "[INST] Hello [/INST]"] * 4,
            trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", BOS], show_progress=False),
        )
        bpe.add_tokens([AddedToken(text, normalized=False) for text in SPECIAL])
        first = [(BOS, bpe.token_to_id(BOS))]
        bpe.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=first)
        found = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BOS, unk_token="<unk>")
    found.eos_token = EOS
    found.chat_template = TEMPLATES[name]
    return found
