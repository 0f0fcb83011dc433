"""The logit lens over every layer, beside the bare matrix products that it cannot do without.

Prints, for SmolLM2 (30 layers) and prompts of several lengths, the CPU seconds of the whole command with an empty store
and of the unembedding's matrix products alone, ``[layer · position, d_model] @ [d_model, d_vocab]``, at one thread and
interleaved in one run, the smallest of the rounds; the ratio; and what the projection takes in memory beyond what was
there, beside what all the logits would. The exit status counts the lengths whose ratio is above the limit.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fetch_smollm2
import psutil
import torch

import interp
from interp.engine.readouts import lens

LIMIT = 2.2


def cpu_seconds(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def peak(work: Callable[[], Any]) -> int:
    """Return by how many bytes the process grew at most while `work` ran."""
    process, done = psutil.Process(), threading.Event()
    before = most = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not done.wait(0.002):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return most - before


def measure(model: Any, length: int, rounds: int) -> bool:
    ids = torch.randint(100, model.geometry.d_vocab - 100, (length,), generator=torch.manual_seed(0)).tolist()
    depth, width, vocabulary = model.geometry.n_layers, model.geometry.d_model, model.geometry.d_vocab
    rows = torch.randn(depth * length, width)
    weight = lens.readout(model).weight
    block = torch.empty(len(rows) * lens.COLUMNS)

    def products() -> None:
        for start in range(0, vocabulary, lens.COLUMNS):
            part = weight[start : start + lens.COLUMNS]
            torch.mm(rows, part.T, out=block[: len(rows) * len(part)].view(len(rows), -1))

    def ours() -> None:
        model.store.clear()
        interp.lens(ids)

    taken = [(cpu_seconds(ours), cpu_seconds(products)) for _ in range(rounds + 1)][1:]
    best, bare = (min(column) for column in zip(*taken, strict=True))
    streams = torch.randn(depth, length, width)
    grown = peak(lambda: lens.project(lens.readout(model), streams, streams[-1], target=5, top=5))
    everything = 4 * depth * length * vocabulary
    print(
        f"  {length:4} tokens × {depth} layers   ratio {best / bare:4.2f} (limit {LIMIT})   CPU s: lens {best:6.2f}, "
        f"products {bare:6.2f}   memory {grown / 1e6:6.0f} MB, all logits {everything / 1e6:7.0f} MB",
        flush=True,
    )
    return best / bare <= LIMIT


def main() -> int:
    """Measure every length; return how many miss the limit."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--lengths", type=int, nargs="*", default=[16, 64, 256])
    arguments.add_argument("--rounds", type=int, default=3)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    model = interp.load(fetch_smollm2.fetch(), name="SmolLM2", device="cpu")
    print(f"{model.name}, {model.dtype}, one thread, {options.rounds} rounds")
    return sum(not measure(model, length, options.rounds) for length in options.lengths)


if __name__ == "__main__":
    sys.exit(main())
