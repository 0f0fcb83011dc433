"""Edge attribution: transformer-lens' own `attribution_patch` at edge granularity and interp, side by side.

Same model (random, of GPT-2 small's shape), pairs and metric, interleaved in one process, at one thread, in CPU
seconds; the figure is the smallest of the rounds. The peer takes the gradient in the corrupted run, so interp is given
the pairs the other way round and its sign is turned; the peer keeps positions apart, and they are summed here. Printed:
the ratio to the command (`interp.circuit` with all that it does: the model's fingerprint, the checks of the pairs, the
choice of the strongest edges), the ratio to the estimate alone, the largest difference between the answers as a part of
the largest edge, and the distance of the estimate to the limit: the matrix operations that it did over the rate of a
large matrix product measured in the same run.

``python benchmarks/edges.py [--rounds N] [--pairs 1,8]``
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from patching import Operations, cpu_seconds, gemm_rate, pairs_of
from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch

import interp
from interp.engine.circuits import eap, edges
from interp.engine.metrics import Scorer
from interp.engine.patching.cases import Case
from interp.spec import Metric, Pair, Pairs

LENGTH = 15
BAR = 15.0
_KINDS = {"q_input": ".q", "k_input": ".k", "v_input": ".v"}


def by_peer(model: Any, pairs: Sequence[Pair]) -> Any:
    clean = torch.tensor([pair.clean.ids for pair in pairs])
    corrupted = torch.tensor([pair.corrupted.ids for pair in pairs])
    right, wrong = pairs[0].answer[0], pairs[0].wrong[0]

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (logits[..., -1, right] - logits[..., -1, wrong]).sum()

    return attribution_patch(model.bridge, clean, corrupted, metric, EdgeAttributionConfig("edge"))


def estimate(model: Any, pairs: Sequence[Pair], steps: int = 1) -> edges.EdgeScores:
    """Return our estimate with the gradient of the corrupted run, as the peer's is."""
    cases = [
        Case(pair.corrupted.ids, pair.clean.ids, Scorer(Metric(), pair.answer, pair.wrong), LENGTH - 1)
        for pair in pairs
    ]
    return model.operate("circuit", {}, lambda _: eap.attribute_edges(model, cases, steps=steps))


def by_command(pairs: Sequence[Pair]) -> Any:
    return interp.circuit(Pairs(tuple(pairs)), method="eap")


def named(node: Any) -> str:
    """Return our name of a peer's node."""
    if node.kind in {"embed", "logits"}:
        return node.kind
    if node.kind in {"mlp_out", "mlp_in"}:
        return f"{node.layer}.mlp"
    return f"{node.layer}.{node.head}{_KINDS.get(node.kind, '')}"


def apart(ours: edges.EdgeScores, theirs: Any) -> float:
    """Return the largest difference of any edge, as a part of the largest."""
    row = {node.name: n for n, node in enumerate(ours.writers)}
    column = {node.name: n for n, node in enumerate(ours.readers)}
    summed = np.zeros(ours.exists.shape)
    for (writer, reader), value in theirs.edge_scores.items():
        summed[row[named(writer)], column[named(reader)]] += value
    found = -np.nan_to_num(ours.scores.numpy())
    return float(np.abs(found - summed).max() / np.abs(summed).max())


def measure(model: Any, count: int, first: int, rounds: int) -> None:
    drawn = pairs_of(model.geometry.d_vocab, LENGTH, first, count, seed=3)
    pairs = [Pair(pair.clean, pair.corrupted, drawn[0].answer, drawn[0].wrong) for pair in drawn]
    by_command(pairs)  # the first call compares with the hooked forward
    command, alone, along, peer = [], [], [], []
    ours = theirs = None
    for _ in range(rounds):
        model.store.clear()
        command.append(cpu_seconds(lambda: by_command(pairs))[0])
        seconds, ours = cpu_seconds(lambda: estimate(model, pairs))
        alone.append(seconds)
        along.append(cpu_seconds(lambda: estimate(model, pairs, steps=5))[0])
        seconds, theirs = cpu_seconds(lambda: by_peer(model, pairs))
        peer.append(seconds)
    assert ours is not None
    with Operations() as counter:
        estimate(model, pairs)
    limit = counter.total / gemm_rate()
    shared = f"first difference at {first}" if first > 1 else "nothing shared"
    print(
        f"{count} pair{'s' * (count > 1)}, {shared:<22} ratio {min(peer) / min(command):5.1f} (bar {BAR:.0f})   "
        f"the estimate alone {min(peer) / min(alone):5.1f}, to its limit {min(alone) / limit:4.2f}   "
        f"difference {apart(ours, theirs):.1e}   CPU s: peer {min(peer):6.2f}, command {min(command):5.2f}, "
        f"estimate {min(alone):5.2f}, limit {limit:5.2f}, five points {min(along):5.2f}",
        flush=True,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--pairs", default="1,8")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    model = interp.load(shape, name="random GPT-2 small shape", device="cpu")
    print(f"{model.name}, {LENGTH} tokens; matrix products at {gemm_rate() / 1e9:.0f} GF/s, 1 thread")
    for count in map(int, options.pairs.split(",")):
        for first in (1, 10):
            measure(model, count, first, options.rounds)


if __name__ == "__main__":
    main()
