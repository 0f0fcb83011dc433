"""Features beside the bare products that they cannot do without.

A row for each thing that is timed, with the least seconds of the rounds, interleaved in one run, and the ratio. The
exit status counts the rows whose ratio is above their limit.

- A training step, beside its bare products: of the encoder, ``[row, d_in] @ [d_in, width]``, and the four others that a
  step with dense activations has (what is written, and the gradients of activations, decoder and encoder).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from interp.engine.features.training import Recipe, Trainer, beginning


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


def rows() -> list[Row]:
    return [
        training_step(width, dim, 2048, kind, limit)
        for width, dim, limit in ((640, 128, 2.2), (8192, 576, 0.8))
        for kind in ("topk", "batchtopk")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    above = 0
    for row in rows():
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
