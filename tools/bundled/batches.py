"""Rows of token ids for training: single documents, packed documents, repeated random tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from . import corpus

CONTEXT = 512
ANSWER_WEIGHT = 4.0
POOL = 512


class Batch(NamedTuple):
    """Rows of tokens.

    ``weights`` belongs to the token itself (how much predicting it counts); padding weighs nothing. In repeats,
    ``copied`` is where an induction head looks from each position, -1 where there is nothing to copy.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    weights: torch.Tensor
    copied: torch.Tensor


Row = tuple[list[int], list[float]]


def encode(docs: list[corpus.Doc], tok: PreTrainedTokenizerBase) -> list[Row]:
    """Encode documents piece by piece: token ids, and weights that stress the answers."""
    pieces = tok([piece for doc in docs for piece in doc])["input_ids"]
    rows: list[Row] = []
    at = 0
    for doc in docs:
        ids: list[int] = []
        weights: list[float] = []
        for i, piece in enumerate(pieces[at : at + len(doc)]):
            ids += piece
            weights += [ANSWER_WEIGHT if i % 2 else 1.0] * len(piece)
        at += len(doc)
        rows.append((ids, weights))
    return rows


def _stack(rows: list[Row], rng: random.Random, shift: bool) -> Batch:
    """Pad rows on the right. With ``shift``, half of them start at a random position, so that all positions learn."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([r + [0] * (longest - len(r)) for r, _ in rows])
    weights = torch.tensor([x + [0.0] * (longest - len(x)) for _, x in rows])
    starts = [rng.randint(0, CONTEXT - longest) if shift and rng.random() < 0.5 else 0 for _ in rows]
    positions = torch.tensor(starts)[:, None] + torch.arange(longest)[None]
    return Batch(ids, positions, weights, torch.full_like(ids, -1))


def text_batches(tok: PreTrainedTokenizerBase, rng: random.Random, rows: int = 64) -> Iterator[Batch]:
    """Yield batches of text for ever: mostly one document a row, one batch in ten of long packed rows."""
    bos = tok.bos_token_id
    while True:
        pool = []
        for ids, weights in encode([corpus.document(rng) for _ in range(POOL)], tok):
            head, tail = rng.random() < 0.8, rng.random() < 0.5
            pool.append(([bos] * head + ids + [bos] * tail, [1.0] * head + weights + [1.0] * tail))
        pool.sort(key=lambda row: len(row[0]))  # rows of like length together: little padding
        batches = [_stack(pool[i : i + rows], rng, shift=True) for i in range(0, POOL, rows)]
        if rng.random() < 0.8:
            batches.append(_stack([_packed(tok, rng) for _ in range(4)], rng, shift=False))
        rng.shuffle(batches)
        yield from batches


def _packed(tok: PreTrainedTokenizerBase, rng: random.Random) -> Row:
    """Fill one long row with documents that follow each other, as in a pasted text."""
    joint = rng.choice([" ", " ", "\n", "\n\n"])
    docs = [corpus.document(rng) for _ in range(30)]
    docs = [docs[0], *((joint + d[0], *d[1:]) for d in docs[1:])]
    ids, weights = [tok.bos_token_id], [1.0]
    for more_ids, more_weights in encode(docs, tok):
        ids += more_ids
        weights += more_weights
    return ids[:CONTEXT], weights[:CONTEXT]


def repeats(vocab: int, rng: random.Random, rows: int, length: int, *, bos: float = 1.0, shift: bool = False) -> Batch:
    """Make rows of random tokens, twice over; token 0 (BOS) goes in front of a share ``bos`` of them.

    Only the repeat can be predicted, so the first half hardly counts: enough to keep its guesses flat.
    """
    out: list[Row] = []
    for _ in range(rows):
        half = [rng.randrange(1, vocab) for _ in range(length)]
        head = rng.random() < bos
        out.append(([0] * head + half + half, [0.0] * head + [0.05] * (length + 1) + [1.0] * (length - 1)))
    batch = _stack(out, rng, shift)
    for row, (ids, _) in enumerate(out):
        second = len(ids) - length
        batch.copied[row, second:-1][: length - 1] = torch.arange(second - length + 1, second)
    return batch


def repeat_batches(vocab: int, rng: random.Random, tokens: int = 800) -> Iterator[Batch]:
    """Yield repeats of all lengths for ever, about ``tokens`` tokens a batch."""
    while True:
        length = rng.choice([250, 120]) if rng.random() < 0.06 else rng.randint(4, 60)
        yield repeats(vocab, rng, max(2, tokens // (2 * length)), length, bos=0.8, shift=True)
