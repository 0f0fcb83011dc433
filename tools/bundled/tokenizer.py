"""A byte-level BPE whose words are single tokens and which still encodes any Unicode text."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

BOS = "<|endoftext|>"
# GPT-2's split, but digits go in pairs: " 1732" is " 17" + "32".
SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def build_tokenizer(texts: Iterable[str], words: Iterable[str], merges: int = 200) -> PreTrainedTokenizerFast:
    """Make the tokenizer.

    Parameters
    ----------
    texts
        Sample of the training text: each of its pre-tokens becomes a token.
    words
        Words that become tokens whether the sample has them or not, taken literally (leading space included).
    merges
        Number of learned sub-word merges, which unknown words are spelled with.
    """
    split = _pre_tokenizer()
    whole = {piece for text in (*texts, *words) for piece, _ in split.pre_tokenize_str(text)}
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = split
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=256 + merges, initial_alphabet=alphabet, show_progress=False)
    learner.train_from_iterator(sorted(words), trainer)
    vocab = {BOS: 0}
    pieces = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    for piece in [*pieces, *sorted(whole)]:
        vocab.setdefault(piece, len(vocab))
    known = json.loads(learner.to_str())["model"]["merges"]
    # ignore_merges: a pre-token that is in the vocabulary is that token, without a chain of merges leading to it.
    tok = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(pair) for pair in known], ignore_merges=True))
    tok.pre_tokenizer = split
    tok.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tok, bos_token=BOS, eos_token=BOS, unk_token=BOS, pad_token=BOS, model_max_length=512,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
