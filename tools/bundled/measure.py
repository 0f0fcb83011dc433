"""What the model can do, each figure with the number of prompts and what chance gives."""

from __future__ import annotations

import random
from typing import Any

import torch
from transformers import GPT2LMHeadModel, PreTrainedTokenizerBase

from . import batches, corpus
from . import words as w

Figure = dict[str, Any]


@torch.no_grad()
def next_logits(
    model: GPT2LMHeadModel, tok: PreTrainedTokenizerBase, prompts: list[str], bos: bool = True
) -> torch.Tensor:
    """Return the logits after each prompt, ``[prompt, token]``."""
    rows = [[tok.bos_token_id] * bos + ids for ids in tok(prompts)["input_ids"]]
    longest = max(map(len, rows))
    out = []
    for i in range(0, len(rows), 256):
        part = rows[i : i + 256]
        ids = torch.tensor([r + [0] * (longest - len(r)) for r in part])
        last = torch.tensor([len(r) - 1 for r in part])
        out.append(model(ids).logits[torch.arange(len(part)), last])
    return torch.cat(out)


def answer_ids(tok: PreTrainedTokenizerBase, answers: list[str]) -> torch.Tensor:
    """Token ids of answers, each of which has to be one token."""
    ids = tok(answers)["input_ids"]
    assert all(len(i) == 1 for i in ids), [a for a, i in zip(answers, ids, strict=True) if len(i) != 1]
    return torch.tensor(ids)[:, 0]


def accuracy(
    model: GPT2LMHeadModel, tok: PreTrainedTokenizerBase, docs: list[corpus.Doc], chance: float, bos: bool = True
) -> Figure:
    """Share of documents whose first answer is the likeliest of all tokens after its prompt."""
    logits = next_logits(model, tok, [d[0] for d in docs], bos)
    answers = answer_ids(tok, [d[1] for d in docs])
    right = logits.argmax(-1) == answers
    probability = logits.softmax(-1)[torch.arange(len(docs)), answers]
    return {
        "value": right.float().mean().item(),
        "n": len(docs),
        "chance": chance,
        "probability": probability.mean().item(),
    }


def _draw(task: corpus.Task, n: int, seed: int, **options: Any) -> list[corpus.Doc]:
    rng = random.Random(seed)
    return [task(rng, True, **options) for _ in range(n)]


def tasks(n: int, seed: int = 1) -> dict[str, tuple[list[corpus.Doc], float]]:
    """Held-out documents of every task with one right answer, and the chance level of each."""
    mat = [
        (f"The {a} sat on the {p}. The {b} sat on the {q}. The {a if first else b} sat on the", f" {p if first else q}")
        for a, p, b, q, first in _cats(n, seed)
    ]
    facts = corpus.all_facts()
    sets: dict[str, tuple[list[corpus.Doc], float]] = {
        "ioi, answer first (ABBA)": (_draw(corpus.ioi, n, seed, order="ABB"), 0.5),
        "ioi, answer second (BABA)": (_draw(corpus.ioi, n, seed, order="BAB"), 0.5),
        "ioi, new template": (_draw(corpus.ioi, n, seed, new_template=True), 0.5),
        "facts, first wording": (facts[: corpus.N_FACTS], 1 / 37),
        "facts, other wordings": (facts[corpus.N_FACTS :], 1 / 37),
        "pronouns of names": (_draw(corpus.pronoun, n, seed), 0.5),
        "cat, mat: who sat where": (mat, 0.5),
    }
    for kind in corpus.BINDINGS:
        sets[f"binding: {kind}"] = ([d[:2] for d in _draw(corpus.bind, n, seed, kind=kind, facts=2)], 0.5)
    return sets


def _cats(n: int, seed: int) -> list[tuple[str, str, str, str, bool]]:
    rng = random.Random(seed)
    out = []
    while len(out) < n:
        a, p = corpus.draw_pair(rng, w.ANIMALS, w.SPOTS, True)
        b, q = corpus.draw_pair(rng, w.ANIMALS, w.SPOTS, True)
        if a != b and p != q:
            out.append((a, p, b, q, rng.random() < 0.5))
    return out


def sets_of_answers(model: GPT2LMHeadModel, tok: PreTrainedTokenizerBase, n: int, seed: int = 1) -> dict[str, Figure]:
    """Tasks with many right answers: the number of the verb, the sign of an adjective, the skew of professions."""
    out: dict[str, Figure] = {}
    groups = {
        "verb agrees": (corpus.agreement, [" is", " was"], [" are", " were"]),
        "sentiment": (corpus.sentiment, [f" {x}" for x in w.GOOD], [f" {x}" for x in w.BAD]),
    }
    for name, (task, left, right) in groups.items():
        docs = _draw(task, n, seed)
        p = next_logits(model, tok, [d[0] for d in docs]).softmax(-1)
        a, b = p[:, answer_ids(tok, left)].sum(-1), p[:, answer_ids(tok, right)].sum(-1)
        truth = torch.tensor([d[1] in left for d in docs])
        out[name] = {"value": ((a > b) == truth).float().mean().item(), "n": n, "chance": 0.5}
    prompts = [t.format(n=f"The {job}") for job in w.JOBS for t in ("{n} said that", "{n} thinks that")]
    p = next_logits(model, tok, prompts).softmax(-1)[:, answer_ids(tok, [" she", " he"])]
    found = (p[:, 0] / p.sum(-1)).view(-1, 2).mean(-1)
    error = (found - torch.tensor(list(w.JOBS.values()))).abs().mean().item()
    even = sum(abs(share - 0.5) for share in w.JOBS.values()) / len(w.JOBS)
    out["she-share of a profession, mean error"] = {"value": error, "n": len(prompts), "chance": even}
    return out


def greater_than(model: GPT2LMHeadModel, tok: PreTrainedTokenizerBase, n: int, seed: int = 1) -> dict[str, Figure]:
    """Probability of end years after the start year, among two-digit tokens; high starts show what low ones hide.

    Chance is what a guess gives that does not look at the start: the mean distribution over all prompts.
    """
    rng = random.Random(seed)
    starts = [rng.randint(2, 97) for _ in range(n)]
    prompts = [corpus.years(rng, True, start=s)[0] for s in starts]
    digits = answer_ids(tok, [f"{i:02d}" for i in range(100)])
    p = next_logits(model, tok, prompts).softmax(-1)[:, digits]
    later = torch.arange(100)[None] > torch.tensor(starts)[:, None]
    high = torch.tensor(starts) >= 60
    right, blind = (p * later).sum(-1), (p.mean(0) * later).sum(-1)
    return {
        "greater-than, all starts": {"value": right.mean().item(), "n": n, "chance": blind.mean().item()},
        "greater-than, starts from 60 on": {
            "value": right[high].mean().item(),
            "n": int(high.sum()),
            "chance": blind[high].mean().item(),
        },
    }


@torch.no_grad()
def repetition(model: GPT2LMHeadModel, rows: int, length: int = 50, seed: int = 1) -> dict[str, Any]:
    """Loss on both halves of repeated random tokens after BOS, and what each head attends to there.

    ``induction`` is the mean attention from the repeat to the token after the first occurrence, ``previous`` from
    any token to the one before it, ``duplicate`` from the repeat to the first occurrence; each ``[layer][head]``.
    """
    ids = batches.repeats(model.config.vocab_size, random.Random(seed), rows, length).ids
    kind = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the only one that gives attention patterns
    out = model(ids, output_attentions=True)
    model.set_attn_implementation(kind)
    loss = torch.nn.functional.cross_entropy(out.logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    pattern = torch.stack(out.attentions, 1)  # row, layer, head, query, key

    def stripe(offset: int, start: int) -> list[list[float]]:
        scores = pattern.diagonal(-offset, -2, -1)[..., start - offset :].mean((0, -1))
        return [[round(x, 3) for x in heads] for heads in scores.tolist()]

    return {
        "first": loss[:, :length].mean().item(),
        "repeat": loss[:, length + 1 :].mean().item(),
        "induction": stripe(length - 1, length + 1),
        "previous": stripe(1, 2),
        "duplicate": stripe(length, length + 1),
    }


def everything(model: GPT2LMHeadModel, tok: PreTrainedTokenizerBase, n: int = 500) -> dict[str, Any]:
    """Measure it all; ``n`` is the number of held-out prompts of each task."""
    figures: dict[str, Figure] = {}
    for name, (docs, chance) in tasks(n).items():
        figures[name] = accuracy(model, tok, docs, chance)
        figures[name]["without_bos"] = accuracy(model, tok, docs, chance, bos=False)["value"]
    figures |= sets_of_answers(model, tok, n) | greater_than(model, tok, n)
    docs = tasks(n)["ioi, answer first (ABBA)"][0]
    top = next_logits(model, tok, [d[0] for d in docs]).topk(10).indices
    names = answer_ids(tok, [f" {x}" for x in w.NAMES])
    share = torch.isin(top, names).float().mean().item()
    figures["names among the top 10 of ioi"] = {"value": share, "n": n, "chance": len(names) / len(tok)}
    return {"figures": figures, "repeats": {"rows": 64, "length": 50, **repetition(model, 64)}}
