"""Features beside the bare products that they cannot do without.

A row for each thing that is timed, with the least seconds of the rounds, interleaved in one run, and the ratio. The
exit status counts the rows whose ratio is above their limit.

- A training step, beside its bare products: of the encoder, ``[row, d_in] @ [d_in, width]``, and the four others that a
  step with dense activations has (what is written, and the gradients of activations, decoder and encoder).
- A pass over texts that gathers all that `feature` shows of a dictionary of the bundled model's last layer, beside the
  model's own forward of the same batches.
- What all layers' features of 64 tokens are, beside the encoders' products alone.
- An attribution graph of 2,000 features on a random model of SmolLM2's shape, beside its batched backward passes alone:
  the same readings carried down, with nothing credited on the way.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

import interp
from interp.engine import memory
from interp.engine.features.activity import read
from interp.engine.features.attribution import BATCH, Reading, Tracer, trace
from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.frozen import Frozen
from interp.engine.features.places import Place
from interp.engine.features.sources import sources
from interp.engine.features.training import Recipe, Trainer, beginning
from interp.engine.model.load import Options, load
from interp.engine.transformer import network


@dataclass(frozen=True)
class Row:
    """What is timed, what beside, and how much longer it may take."""

    name: str
    work: Callable[[], Any]
    bare: Callable[[], Any]
    limit: float


def seconds(work: Callable[[], Any]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def training_step(width: int, dim: int, batch: int, kind: str, limit: float) -> Row:
    """Return a step of a transcoder's training beside its five dense products."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = torch.randn(4 * batch, dim, device=device)
    recipe = Recipe(width, 32, kind, steps=1000, batch=batch)  # pyright: ignore[reportArgumentType]
    trainer = Trainer(recipe, beginning(recipe, rows, rows))
    read, pre = rows[:batch], torch.randn(batch, width, device=device)
    weight = torch.randn(width, dim, device=device)

    def bare() -> None:
        _ = read @ weight.T  # pre-activations
        _ = pre @ weight  # what is written
        _ = read @ weight.T  # gradient of activations
        _ = pre.T @ read  # of the decoder
        _ = pre.T @ read  # of the encoder

    return Row(
        f"training step, {kind}, {width:,} features of {dim}, {batch:,} tokens",
        lambda: trainer.step(read, read),
        bare,
        limit,
    )


def reading(width: int, tokens: int, limit: float) -> Row:
    """Return a pass over random texts of 8 to 60 tokens for a random dictionary, beside bare forwards."""
    model = interp.load(device="cpu")
    last, dim = model.geometry.n_layers - 1, model.geometry.d_model
    draw = torch.Generator().manual_seed(0)
    encoder, decoder = (torch.randn(width, dim, generator=draw) / dim**0.5 for _ in range(2))
    one = Dictionary(
        "transcoder", Place(last, "mlp_normed"), (Place(last, "mlp_out"),), encoder, torch.zeros(width), (decoder,),
        (None,), act=Act("topk", k=16),
    )  # fmt: skip
    lengths = torch.randint(8, 61, (tokens // 34,), generator=draw).tolist()
    texts = [tuple(torch.randint(1, model.geometry.d_vocab, (n,), generator=draw).tolist()) for n in lengths]
    batches = [
        torch.tensor(some)
        for _, own in itertools.groupby(sorted(texts, key=len), len)
        for some in batched(list(own), memory.ROWS)
    ]
    keys = itertools.count()  # a pass that was made is not made again

    def run() -> None:
        key = next(keys)
        model.operate(
            "pass", {}, lambda _: read(model, [(one, [0])], texts, [0] * len(texts), key=key, context=10, seed=0)
        )

    def bare() -> None:
        with torch.no_grad():
            for ids in batches:
                model.hf_model(ids)

    return Row(f"a pass for {width:,} features over {sum(lengths):,} tokens", run, bare, limit)


def batched(texts: list[tuple[int, ...]], rows: int) -> Iterator[list[tuple[int, ...]]]:
    step = max(1, rows // len(texts[0]))
    for first in range(0, len(texts), step):
        yield texts[first : first + step]


DEPTH, DIM, FEATURES = 30, 576, 4096  # SmolLM2's


def transcoders() -> list[Dictionary]:
    chance = torch.Generator().manual_seed(0)

    def made(layer: int) -> Dictionary:
        rows = [torch.randn(FEATURES, DIM, generator=chance) / DIM**0.5 for _ in range(2)]
        places = Place(layer, "mlp_normed"), (Place(layer, "mlp_out"),)
        return Dictionary(
            "transcoder", *places, rows[0], torch.zeros(FEATURES), (rows[1],), (None,), act=Act("topk", k=16)
        )

    return [made(layer) for layer in range(DEPTH)]


def encoding(limit: float) -> Row:
    """Return the encoding of 64 tokens by every layer's dictionary, beside the products."""
    read, dictionaries = torch.randn(64, DIM), transcoders()

    def bare() -> None:
        for one in dictionaries:
            _ = read @ one.encoder.T

    return Row(
        f"encoding 64 tokens, {DEPTH} × {FEATURES:,} features, top 16",
        lambda: [one.encode(read) for one in dictionaries],
        bare,
        limit,
    )


def graph(limit: float, count: int = 2000, length: int = 16) -> Row:
    """Return an attribution graph, beside the readings that it carries down."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=DIM,
        intermediate_size=1536,
        num_hidden_layers=DEPTH,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=1000,
        tie_word_embeddings=True,
    )
    model = load(LlamaForCausalLM(config), name="random", options=Options(device="cpu"))
    net = network.read(model)
    frozen = Frozen(net, tuple(range(1, length + 1)), dict(enumerate(transcoders())))
    reading = Reading(net.unembed.weight[3] - net.unembed.weight[4], 0.0, length - 1, 1.0)
    with torch.no_grad():
        traced = trace(frozen, [reading], most=count)
        tracer, held = Tracer(sources(frozen)), traced.sources
        batches: list[tuple[int, dict[int, torch.Tensor], int]] = []
        for some in traced.targets.split(BATCH):
            layers = held.layers[some]
            joined: dict[int, torch.Tensor] = {}
            for layer in layers.unique().tolist():
                own = (layers == layer).nonzero()[:, 0]
                more = torch.zeros(len(some), length, DIM)
                at = held.positions[some[own]]
                more[own, at] = tracer.reads(layer, held.features[some[own]], at)[0]
                joined[layer] = more
            batches.append((int(layers.max()) + 1, joined, len(some)))

    def bare() -> None:
        with torch.no_grad():
            for top, joined, size in batches:
                start = torch.zeros(size, length, DIM)
                frozen.back(start, top, lambda layer, slope, joined=joined: joined.get(layer))  # noqa: ARG005

    return Row(
        f"graph of {count:,} features, {length} tokens, {DEPTH} × {FEATURES:,}",
        lambda: trace(frozen, [reading], most=count),
        bare,
        limit,
    )


def rows() -> list[Row]:
    return [
        encoding(1.3),
        graph(2.5),
        *(
            training_step(width, dim, 2048, kind, limit)
            for width, dim, limit in ((640, 128, 2.2), (8192, 576, 0.8))
            for kind in ("topk", "batchtopk")
        ),
        reading(512, 100_000, 2.0),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="the rows whose names begin so")
    args = parser.parse_args()
    above = 0
    for row in rows():
        if not row.name.startswith(args.only):
            continue
        least = {"work": float("inf"), "bare": float("inf")}
        for _ in range(args.rounds):
            least["work"] = min(least["work"], seconds(row.work))
            least["bare"] = min(least["bare"], seconds(row.bare))
        ratio = least["work"] / least["bare"]
        above += ratio > row.limit
        print(f"{row.name}: {least['work'] * 1e3:.1f} ms, bare {least['bare'] * 1e3:.1f} ms, {ratio:.2f} times")
    sys.exit(above)


if __name__ == "__main__":
    main()
