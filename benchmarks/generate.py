"""What a trace costs: `generate --trace` beside `generate` alone, on the bundled model and on SmolLM2, in turns.

Both write the same tokens from an empty store, at one thread. Printed: the CPU seconds of each and their ratio, which
is to be at most 1.5.

``python benchmarks/generate.py [--n TOKENS] [--rounds N]``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fetch_smollm2
import torch

import interp
from interp.interface.session import session

LIMIT = 1.5
STORY = "When Mary and John went to the store, John gave a drink to"


def seconds(**options: Any) -> float:
    """Return the CPU seconds that a text takes from an empty store."""
    session.get().store.clear()
    start = time.process_time()
    interp.generate(STORY, temperature=1.5, seed=4, **options)
    return time.process_time() - start


def main() -> None:
    """Time both on each model, in turns, and print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=60, help="new tokens")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in ("bundled", str(fetch_smollm2.fetch())):
        interp.load(name, device="cpu")
        seconds(n=2, trace=True)
        turns = [(seconds(n=given.n), seconds(n=given.n, trace=True)) for _ in range(given.rounds)]
        alone, traced = (statistics.median(side) for side in zip(*turns, strict=True))
        print(f"{session.current}: alone {alone:.2f} s, traced {traced:.2f} s, ratio {traced / alone:.2f} (≤ {LIMIT})")


if __name__ == "__main__":
    main()
