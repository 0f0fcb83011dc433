"""Train the small model that ships with interp, measure it and write its folder.

    python tools/train_bundled.py --steps 6000 --out src/interp/bundled

writes ``model/`` (weights in half precision, configuration, tokenizer), ``history.json`` (what happened during
training) and ``metrics.json`` (the table that it prints). The same seed and number of steps give the same model on one
machine; ``--minutes`` instead trains for a given time.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from bundled import batches, corpus, measure, tokenizer

RATE = 1.5e-3


def make_tokenizer(seed: int) -> PreTrainedTokenizerBase:
    """Build the tokenizer from a sample of the text."""
    rng = random.Random(seed)
    return tokenizer.build_tokenizer(("".join(corpus.document(rng)) for _ in range(20_000)), corpus.word_list())


def make_model(vocab: int, layers: int, heads: int, width: int) -> GPT2LMHeadModel:
    """Make the untrained model.

    Position embeddings start as sines and cosines (and are trained like the rest), so that "one before" is the same
    rotation everywhere: attention to the previous token is learned once instead of once per position.
    """
    config = GPT2Config(
        vocab_size=vocab, n_positions=batches.CONTEXT, n_embd=width, n_layer=layers, n_head=heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        initializer_range=0.03,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    for block in model.transformer.h:
        block.mlp.act = torch.nn.GELU(approximate="tanh")  # the same function as GPT-2's, in one kernel
    rate = 2.5 * torch.exp(-math.log(250) * torch.arange(width // 2) / (width // 2))  # a third tells neighbours apart
    angle = torch.arange(batches.CONTEXT)[:, None] * rate[None]
    with torch.no_grad():
        model.transformer.wte.weight.normal_(std=0.05)
        model.transformer.wpe.weight.copy_(0.07 * torch.cat([angle.sin(), angle.cos()], -1))
    return model


def weighted_loss(model: GPT2LMHeadModel, batch: batches.Batch) -> torch.Tensor:
    """Cross-entropy of the next token, weighted by how much each token counts."""
    return cross_entropy(model(batch.ids, position_ids=batch.positions, use_cache=False).logits, batch)


def cross_entropy(logits: torch.Tensor, batch: batches.Batch) -> torch.Tensor:
    """Weigh the surprise of each token but the first."""
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten(), reduction="none")
    weights = batch.weights[:, 1:].flatten()
    return (loss * weights).sum() / weights.sum()


def guided_loss(model: GPT2LMHeadModel, batch: batches.Batch, weight: float) -> torch.Tensor:
    """Loss on repeats plus ``weight`` times the surprise of two heads' attention.

    Head 0.0 is drawn to the previous token, head 1.0 from the repeat to the token after the first occurrence.
    """
    model.set_attn_implementation("eager")  # the only one that gives attention patterns
    out = model(batch.ids, position_ids=batch.positions, use_cache=False, output_attentions=True)
    model.set_attn_implementation("sdpa")
    row, query = (batch.copied >= 0).nonzero(as_tuple=True)
    previous = out.attentions[0][:, 0].diagonal(-1, -2, -1)
    induction = out.attentions[1][row, 0, query, batch.copied[row, query]]
    attention = -(previous + 1e-4).log().mean() - (induction + 1e-4).log().mean()
    return cross_entropy(out.logits, batch) + weight * attention


def save(model: GPT2LMHeadModel, tok: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the model in half precision, as an ordinary Hugging Face folder."""
    half = GPT2LMHeadModel(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
    tok.save_pretrained(folder)


def train(
    model: GPT2LMHeadModel, tok: PreTrainedTokenizerBase, args: argparse.Namespace
) -> tuple[GPT2LMHeadModel, dict[str, Any]]:
    """Train, and note what happened every ``args.every`` steps."""
    decay = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.98))
    text = batches.text_batches(tok, random.Random(args.seed + 1))
    repeats = batches.repeat_batches(len(tok), random.Random(args.seed + 2), args.repeat_tokens)
    rows: list[dict[str, Any]] = []
    start, tokens, step, running = time.time(), 0, 0, 0.0
    while True:
        done = step / args.steps if args.steps else (time.time() - start) / (60 * args.minutes)
        if step % args.every == 0 or done >= 1:
            seen = measure.repetition(model, 8, seed=3)
            row = {"step": step, "tokens": tokens, "loss": running or None, "repeat_loss": seen["repeat"]}
            row["in_context_score"] = seen["repeat"] - seen["first"]
            rows.append(row | {k: seen[k] for k in ("induction", "previous")})
            best = {k: max(map(max, seen[k])) for k in ("induction", "previous")}
            if step % (10 * args.every) == 0:
                print(
                    f"{step:6d} {done:5.1%} {time.time() - start:6.0f} s {tokens / 1e6:6.2f} M  text {running:.3f}  "
                    f"halves {seen['first']:.2f} {seen['repeat']:.2f}  best heads {best}",
                    flush=True,
                )
        if args.look and step and (step % args.look == 0):
            figures = measure.everything(model, tok, 200)["figures"]
            print("   ", {k: round(v["value"], 2) for k, v in figures.items()}, flush=True)
            save(model, tok, args.out / "model")
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = args.rate * min((step + 1) / 100, 1, 2 * (1 - done) + 0.01)
        optimizer.zero_grad(set_to_none=True)
        batch, other = next(text), next(repeats)
        loss = weighted_loss(model, batch)
        guide = args.guide * max(0.0, 1 - done / 0.3)
        repeat_loss = guided_loss(model, other, guide) if guide else weighted_loss(model, other)
        (loss + args.repeat_share * repeat_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running = loss.item() if not running else 0.98 * running + 0.02 * loss.item()
        tokens += batch.ids.numel() + other.ids.numel()
        step += 1
    return model, {"steps": step, "tokens": tokens, "seconds": time.time() - start, "rows": rows}


def table(metrics: dict[str, Any]) -> str:
    """Lay the measured figures out as Markdown."""
    lines = ["| measure | value | without BOS | n | chance |", "|---|---|---|---|---|"]
    for name, f in metrics["figures"].items():
        bare = f"{f['without_bos']:.3f}" if "without_bos" in f else ""
        lines.append(f"| {name} | {f['value']:.3f} | {bare} | {f['n']} | {f['chance']:.3f} |")
    r = metrics["repeats"]
    for name in ("first", "repeat"):
        lines.append(f"| loss on repeated random tokens, {name} half | {r[name]:.3f} | | {r['rows']} rows | |")
    for name in ("previous", "induction", "duplicate"):
        best = sorted(((s, f"{i}.{j}") for i, hs in enumerate(r[name]) for j, s in enumerate(hs)), reverse=True)[:3]
        scores = ", ".join(f"{head} {score:.2f}" for score, head in best)
        lines.append(f"| best {name}-token heads | {scores} | | {r['rows']} rows | {1 / r['length']:.2f} |")
    return "\n".join(lines)


def rounded(value: Any) -> Any:
    """Round every float of nested data: the files are read by people and travel in the wheel."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Train, save, load what was saved, measure that, print the table."""
    parser = argparse.ArgumentParser(description="Train the bundled model.")
    parser.add_argument("--steps", type=int, default=0, help="train for so many steps (reproducible)")
    parser.add_argument("--minutes", type=float, default=40.0, help="without --steps: train for so long")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/interp/bundled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--repeat-tokens", type=int, default=800, help="tokens of a batch of repeated random tokens")
    parser.add_argument("--repeat-share", type=float, default=1.0, help="weight of their loss beside the text's")
    parser.add_argument("--guide", type=float, default=0.3, help="initial weight of the attention guide; 0: none")
    parser.add_argument("--every", type=int, default=10, help="steps between two rows of the history")
    parser.add_argument("--look", type=int, default=1000, help="steps between two rounds of measures and saves")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    tok = make_tokenizer(args.seed)
    assert tok.convert_tokens_to_ids(tokenizer.BOS) == tok.bos_token_id == 0
    model = make_model(len(tok), args.layers, args.heads, args.width)
    print(f"{len(tok)} tokens, {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    model, history = train(model, tok, args)
    folder = args.out / "model"
    save(model, tok, folder)
    shipped = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    metrics = measure.everything(shipped, AutoTokenizer.from_pretrained(folder))
    metrics |= {k: history[k] for k in ("steps", "tokens", "seconds")} | {"seed": args.seed}
    (args.out / "metrics.json").write_text(json.dumps(rounded(metrics), indent=1) + "\n")
    (args.out / "history.json").write_text(json.dumps(rounded(history), separators=(",", ":")) + "\n")
    print(table(metrics))


if __name__ == "__main__":
    main()
