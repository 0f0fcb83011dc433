"""One side of `commits`: what the benchmarks time of interp, a turn at a time, with the interp of one source tree.

``python benchmarks/turns.py TREE``: writes the cases' names as a line of JSON, then for each number that it reads runs
that case and writes its CPU seconds. Pairs, models and calls are those of TREE's own benchmarks, whose peers stay out.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

# Before this file's own folder: the benchmarks are the tree's.
sys.path.insert(0, sys.argv[1] + "/tools")
sys.path.insert(0, sys.argv[1] + "/benchmarks")

import attribution
import edges
import fetch_smollm2
import patching
import torch
import transformers

import interp

SHARED = {1: "nothing shared", 10: "prefix of 10", 40: "prefix of 40"}
Work = Callable[[], Any]


def sweeps(model: Any, length: int, first: int, count: int, names: tuple[str, ...]) -> Iterator[tuple[str, Work]]:
    """Give `patching`'s sweeps."""
    pairs = patching.pairs_of(model.geometry.d_vocab, length, first, count, seed=1)
    for name in names:
        site, by, *_ = patching.SWEEPS[name]
        yield (
            f"patching: {name}, {length} tokens, {SHARED[first]}, {count} pair(s)",
            lambda site=site, by=by: patching.by_interp(model, pairs, site, by),
        )


def estimates(model: Any, count: int, first: int) -> Iterator[tuple[str, Work]]:
    """Give the estimates of nodes and of edges: the command, and the estimate alone."""
    drawn = patching.pairs_of(model.geometry.d_vocab, attribution.LENGTH, first, count, seed=3)
    pairs = [type(p)(p.clean, p.corrupted, drawn[0].answer, drawn[0].wrong) for p in drawn]
    what = f"{SHARED[first]}, {count} pair(s)"
    yield f"attribution: command, {what}", lambda: attribution.by_command(model, pairs, "z", "head")
    yield f"attribution: estimate, {what}", lambda: node_estimate(model, pairs)
    yield f"edges: command, {what}", lambda: (model.store.clear(), edges.by_command(drawn))
    yield f"edges: estimate, {what}", lambda: edges.estimate(model, drawn)
    yield f"edges: five points, {what}", lambda: edges.estimate(model, drawn, steps=5)


def node_estimate(model: Any, pairs: Any) -> Any:
    """Return the estimate of nodes alone; trees from before it was a function of its benchmark spell it out."""
    if hasattr(attribution, "estimate"):
        return attribution.estimate(model, pairs)
    cases = attribution.cases_of(pairs)
    return model.operate("patch", {}, lambda _: attribution.attribution.attribute(model, cases))


def lenses(model: Any, length: int) -> tuple[str, Work]:
    """Give `lens`' command on a prompt of random tokens, with an empty store."""
    ids = torch.randint(100, model.geometry.d_vocab - 100, (length,), generator=torch.manual_seed(0)).tolist()
    return f"lens: {length} tokens", lambda: (model.store.clear(), interp.lens(ids))


def cases(small: Any, real: Any) -> Iterator[tuple[Any, str, Work]]:
    """Give every case: its model, its name and what is timed."""
    everything = tuple(patching.SWEEPS)
    for length, first, count, names in (
        (15, 10, 1, everything),
        (15, 1, 1, everything[:4]),
        (15, 10, 8, ("head z", "resid_pre")),
        (64, 40, 1, ("head z", "resid_pre")),
    ):
        yield from ((small, f"GPT-2 shape, {name}", work) for name, work in sweeps(small, length, first, count, names))
    for count in (1, 8):
        for first in (10, 1):
            yield from ((small, f"GPT-2 shape, {name}", work) for name, work in estimates(small, count, first))
    yield from ((real, f"SmolLM2, {name}", work) for name, work in sweeps(real, 15, 10, 1, everything[:4]))
    yield from ((real, f"SmolLM2, {name}", work) for name, work in (lenses(real, length) for length in (16, 64, 256)))


def main() -> None:
    # What others print must not come between the lines of the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    small = interp.load(shape, name="random GPT-2 small shape", device="cpu")
    real = interp.load(fetch_smollm2.fetch(), name="SmolLM2", device="cpu")
    made = list(cases(small, real))
    gc.collect()
    gc.freeze()
    print(json.dumps([name for _, name, _ in made]), file=answers)
    for line in sys.stdin:
        model, _, work = made[int(line)]
        interp.use(model.name)
        gc.collect()
        print(json.dumps(patching.cpu_seconds(work)[0]), file=answers)


if __name__ == "__main__":
    main()
