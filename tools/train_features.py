"""Train the dictionaries of features that ship with the bundled model, measure them and write their folder.

    OMP_NUM_THREADS=1 python tools/train_features.py

writes ``src/interp/bundled/features``: a folder for each layer in SAELens' format, in half precision, ``metrics.json``
and ``CARD.md``, whose table is read from it. The same seed gives the same dictionaries on one machine with one number
of threads. What is measured is what was written, read back, on documents that are no part of what was trained on.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

import interp
from bundled import batches, corpus
from interp.engine.features import activations, formats, held
from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.formats import saelens
from interp.engine.features.measure import begins, measure
from interp.engine.features.places import Place
from interp.engine.model import hooks
from interp.engine.model.tokens import Encoded
from interp.spec import Prompt

WIDTH, K = 640, 16
PACKED = 0.008  # rows of 512 tokens, of documents one behind the other, to a document
WITH_BOS = 0.8  # of documents, as in the model's own training
MADE_OF = 20_000  # tokens that what is compared with is made of
CARD = """# Features of the bundled model

{count} transcoders (Dunefsky et al. 2024), one for each layer: from the MLP's normed input (`mlp.hook_in`) to its
output, {width} features each, BatchTopK (Bussmann et al. 2024) with k = {k} in training and a threshold when used;
decoders of norm 1, so that an activation is in units of what is written. Half precision, SAELens' format,
{size:.2f} MB.

Trained on generated documents only (`tools/bundled/corpus.py`), {trained:,} tokens gone through in {steps} steps of
2,048 tokens, seed {seed}, {seconds} seconds of processor time, by

    OMP_NUM_THREADS=1 python tools/train_features.py --seed {seed} --steps {steps}

## What they are worth

On {measured:,} tokens of {prompts:,} texts drawn with another seed, without those that were trained on: the share of
the variance of the MLP's output that is missed (FVU), active features a token (L0), features that are active nowhere in
these texts (dead). CE recovered is on {losses} documents of them, one at a time: of the cross-entropy that zeroing this
MLP costs, the share that comes back when the dictionary's output takes the place of the MLP's.

{table}

- **PCA**: the MLP's output itself, projected on its {k} first principal components.
- **neurons**: the {k} most active neurons of the MLP, through its own output weights, the mean of the others added.
- **random**: a dictionary of the same shape with a random encoder, TopK with k = {k}, its decoder fitted by least
  squares.

On the {rows} rows of 512 tokens among these texts, many documents one behind the other, CE recovered is {packed}
for the layers in turn. A share far from 1, to either side, is one where replacing the MLP changes the loss about as
much as zeroing it does: on such rows the later layers' dictionaries are no stand-in for the MLPs.

## What they are not

- Features of a toy: the model knows no language beyond its generator, and neither do they.
- Not the features of the model. Another seed finds others, and a wider dictionary splits them.
- Not measured against the generator's own variables here.

License: that of the package.
"""


def texts(seed: int, tokens: int) -> list[Prompt]:
    """Draw documents and rows of documents, about so many tokens of them."""
    rng = random.Random(seed)
    tokenizer = interp.model.tokens.tokenizer
    found: list[Prompt] = []
    count = 0
    while count < tokens:
        if rng.random() < PACKED:
            ids, _ = batches._packed(tokenizer, rng)
            found.append(Prompt(ids=tuple(ids)))
            count += len(ids)
        else:
            text = "".join(corpus.document(rng))
            found.append(Prompt(text, bos=None if rng.random() < WITH_BOS else False))
            count += len(tokenizer(text)["input_ids"]) + 1
    return found


def compared(model: Any, prompts: Sequence[Encoded], seed: int) -> dict[str, list[Dictionary]]:
    """Return what dictionaries are compared with, by layer, made of prompts: see the card."""
    draw = torch.Generator().manual_seed(seed)
    found: dict[str, list[Dictionary]] = {"PCA": [], "neurons": [], "random": []}
    layers, points = range(model.geometry.n_layers), ("mlp_normed", "mlp_out", "neuron")
    places = [Place(layer, point) for layer in layers for point in points]
    ids, first = [one.ids for one in prompts], [int(begins(model, one)) for one in prompts]
    reader = activations.Reader(model, places, ids)
    seen = activations.Stream(model, reader, ids, first, batch=2048, seed=seed).seen()
    rows = dict(zip(places, seen, strict=True))
    for layer in layers:
        read, out, neuron = (Place(layer, point) for point in points)
        x, y, n = rows[read], rows[out], rows[neuron]
        mean = y.mean(0)
        _, _, axes = torch.linalg.svd(y - mean, full_matrices=False)
        both = torch.cat([axes[:K], -axes[:K]])  # activations are never below 0
        pca = Dictionary("sae", out, (out,), both, -(both @ mean), (both,), (mean,))
        weight = model.hf_model.transformer.h[layer].mlp.c_proj.weight.detach().float()
        eye = torch.eye(len(weight))
        own = Dictionary(
            "transcoder", neuron, (out,), eye, torch.zeros(len(eye)), (weight,), (None,), act=Act("topk", k=K)
        )
        own = replace(own, decoder_biases=((y - own.output(own.encode(n), n)).mean(0),))
        directions = torch.nn.functional.normalize(torch.randn(WIDTH, x.shape[1], generator=draw), dim=1)
        chance = Dictionary(
            "transcoder", read, (out,), directions, -(directions @ x.mean(0)), (directions,), (mean,),
            act=Act("topk", k=K),
        )  # fmt: skip
        codes = torch.cat([chance.encode(x).dense(), torch.ones(len(x), 1)], 1)
        gram = codes.T @ codes + 1e-3 * torch.eye(WIDTH + 1)
        fitted = torch.linalg.solve(gram, codes.T @ y)
        chance = replace(chance, decoders=(fitted[:-1].contiguous(),), decoder_biases=(fitted[-1],))
        for name, one in zip(found, (pca, own, chance), strict=True):
            found[name].append(one)
    return found


def measured(
    model: Any, sets: dict[str, list[Dictionary]], prompts: Sequence[Encoded], alone: Sequence[Encoded]
) -> dict[str, list[dict[str, float]]]:
    """Return what each dictionary is worth on prompts, the loss on documents that stand alone."""
    every = [one for made in sets.values() for one in made]
    found = measure(model, every, prompts, loss=False)
    recovered = [one.ce_recovered for one in measure(model, every, alone)]
    rows = iter([asdict(replace(one, ce_recovered=ce)) for one, ce in zip(found, recovered, strict=True)])
    return {name: [next(rows) for _ in made] for name, made in sets.items()}


def table(metrics: dict[str, Any]) -> str:
    """Lay the measured figures out as Markdown."""
    names = {"features": "**features**", **{name: name for name in ("PCA", "neurons", "random")}}
    lines = ["| layer | | FVU | L0 | dead | CE recovered |", "|---|---|---|---|---|---|"]
    for layer in range(len(metrics["features"])):
        for name, shown in names.items():
            row = metrics[name][layer]
            dead = f"{row['dead']:.1%}" if name in {"features", "random"} else ""
            lines.append(
                f"| {layer} | {shown} | {row['fvu']:.3f} | {row['l0']:.1f} | {dead} | {row['ce_recovered']:.3f} |"
            )
    return "\n".join(lines)


def trained(model: Any, args: argparse.Namespace) -> None:
    """Train, and write the dictionaries and what is known of their training."""
    begun = time.process_time()
    given = texts(2 * args.seed + 1, args.tokens)
    result = interp.features_train(given, width=WIDTH, k=K, kind="batchtopk", steps=args.steps, seed=args.seed)
    print(result.to_frame(), flush=True)
    made = held.current(model)
    args.out.mkdir(exist_ok=True)
    for one in made.dictionaries:
        shipped = one.to(torch.device("cpu"), torch.float16)
        saelens.write(args.out / f"layer_{one.layer}", shipped, said={"sample": list(made.sample), "seed": args.seed})
    said = {
        "seed": args.seed, "steps": args.steps, "width": WIDTH, "k": K, "tokens": args.tokens,
        "trained": result.tokens[0], "seconds": round(time.process_time() - begun),
    }  # fmt: skip
    (args.out / "metrics.json").write_text(json.dumps(said, indent=1) + "\n")


def judged(model: Any, folder: Path, tokens: int, losses: int) -> dict[str, Any]:
    """Measure the dictionaries in a folder on documents that are no part of what they were trained on."""
    said = json.loads((folder / "metrics.json").read_text())
    seed = said["seed"]
    known = set(texts(2 * seed + 1, said["tokens"]))
    fresh = [one for one in texts(2 * seed + 2, tokens) if one not in known]
    prompts = [model.encode(one) for one in fresh]
    alone = [encoded for one, encoded in zip(fresh, prompts, strict=True) if one.ids is None][:losses]
    packed = [encoded for one, encoded in zip(fresh, prompts, strict=True) if one.ids is not None]
    read = formats.read(folder, formats.Wanted({"mlp_normed": 128, "mlp_out": 128}, model.geometry.n_layers))
    own = [one.to(model.device, torch.float32) for one in read.dictionaries]

    def work() -> dict[str, Any]:
        others = compared(model, [model.encode(one) for one in texts(2 * seed + 3, MADE_OF)], seed)
        behind = [one.ce_recovered for one in measure(model, own, packed)]
        return {**measured(model, {"features": own, **others}, prompts, alone), "packed": behind}

    found = model.operate("train-features", {}, lambda operation: hooks.guarded(work))  # noqa: ARG005
    for one, row in zip(read.dictionaries, found["features"], strict=True):
        declared = {name: round(row[name], 4) for name in ("fvu", "l0", "dead", "ce_recovered")}
        about = {"sample": list(read.said["sample"]), "seed": seed}
        saelens.write(folder / f"layer_{one.layer}", replace(one, declared=declared), said=about)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.parent != folder)
    own_keys = ("seed", "steps", "width", "k", "tokens", "trained", "seconds")
    counts = {"size": size, "prompts": len(prompts), "losses": len(alone), "rows": len(packed)}
    return {**{name: said[name] for name in own_keys}, **counts, **_rounded(found)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Train, save, read what was saved, measure that, write the card."""
    parser = argparse.ArgumentParser(description="Train the bundled model's features.")
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=280_000, help="of what is trained on, and the tenth held out")
    parser.add_argument("--measured", type=int, default=30_000, help="tokens to measure on")
    parser.add_argument("--losses", type=int, default=200, help="documents whose loss is measured")
    parser.add_argument("--again", action="store_true", help="measure what is there again, and train nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "src/interp/bundled/features")
    args = parser.parse_args()
    model = interp.load(device="cpu")
    if not args.again:
        trained(model, args)
    metrics = judged(model, args.out, args.measured, args.losses)
    (args.out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    (args.out / "CARD.md").write_text(card(metrics))
    print(card(metrics))


def card(metrics: dict[str, Any]) -> str:
    """Return the card of what was measured."""
    own = metrics["features"]
    packed = ", ".join(f"{one:.3f}" for one in metrics["packed"])
    words = metrics | {
        "size": metrics["size"] / 1e6, "count": len(own), "measured": own[0]["tokens"], "packed": packed,
        "table": table(metrics),
    }  # fmt: skip
    return CARD.format(**words)


if __name__ == "__main__":
    main()
