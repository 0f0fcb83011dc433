"""Attribution patching of nodes: transformer-lens' own `attribution_patch` and interp, side by side.

Same model (random, of GPT-2 small's shape), prompts and metric, interleaved in one process, at one thread, in CPU
seconds; the figure is the smallest of the rounds. The peer estimates embeddings, heads' z and MLP outputs; interp every
site. Printed: the ratio to the command (`interp.patch`, with the model's fingerprint and the checks of the pairs), the
ratio to the estimate alone, the largest difference between the two answers as a part of the largest node, and the
distance of the estimate to the limit: the matrix operations that it did over the rate of a large matrix product
measured in the same run, which products of a few rows do not reach.

``python benchmarks/attribution.py [--rounds N]``
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
from transformer_lens.tools.analysis.attribution_patching import attribution_patch

import interp
from interp.engine.metrics import Scorer
from interp.engine.patching import attribution
from interp.engine.patching.cases import Case
from interp.spec import Metric, Pair, Pairs

LENGTH = 15
BARS = {1: 2.5, 8: 3.0}


def by_peer(model: Any, pairs: Sequence[Pair]) -> Any:
    clean = torch.tensor([pair.clean.ids for pair in pairs])
    corrupted = torch.tensor([pair.corrupted.ids for pair in pairs])
    right, wrong = pairs[0].answer[0], pairs[0].wrong[0]

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return (logits[..., -1, right] - logits[..., -1, wrong]).sum()

    return attribution_patch(model.bridge, clean, corrupted, metric)


def by_command(model: Any, pairs: Sequence[Pair], site: str, by: str) -> np.ndarray:
    model.store.clear()
    return interp.patch(Pairs(tuple(pairs)), site=site, by=by, method="attribution").estimate


def cases_of(pairs: Sequence[Pair]) -> list[Case]:
    return [
        Case(pair.corrupted.ids, pair.clean.ids, Scorer(Metric(), pair.answer, pair.wrong), LENGTH - 1)
        for pair in pairs
    ]


def apart(model: Any, pairs: Sequence[Pair], nodes: Any) -> float:
    """Return the largest difference of any node, as a part of the largest."""
    ours = {
        "embed": by_command(model, pairs, "resid_pre", "position"),
        "attn_head_out": by_command(model, pairs, "z", "head-position"),
        "mlp_out": by_command(model, pairs, "mlp_out", "position"),
    }
    worst = largest = 0.0
    for node, expected in nodes.items():
        if node.kind == "embed":
            # GPT-2's stream before layer 0 is the word's embedding and the position's, which both prompts share.
            found = ours["embed"][0, node.position]
        elif node.kind == "attn_head_out":
            found = ours["attn_head_out"][node.layer, node.head, node.position]
        else:
            found = ours["mlp_out"][node.layer, node.position]
        worst, largest = max(worst, abs(found - expected)), max(largest, abs(expected))
    return worst / largest


def measure(model: Any, count: int, first: int, rounds: int) -> None:
    drawn = pairs_of(model.geometry.d_vocab, LENGTH, first, count, seed=3)
    pairs = [Pair(pair.clean, pair.corrupted, drawn[0].answer, drawn[0].wrong) for pair in drawn]
    cases = cases_of(pairs)
    by_command(model, pairs, "z", "head")  # the first call compares with the hooked forward
    command, alone, peer, nodes = [], [], [], {}
    for _ in range(rounds):
        command.append(cpu_seconds(lambda: by_command(model, pairs, "z", "head"))[0])
        seconds = model.operate("patch", {}, lambda _: cpu_seconds(lambda: attribution.attribute(model, cases))[0])
        alone.append(seconds)
        seconds, answer = cpu_seconds(lambda: by_peer(model, pairs))
        peer.append(seconds)
        nodes = answer.node_scores
    with Operations() as counter:
        model.operate("patch", {}, lambda _: attribution.attribute(model, cases))
    limit = counter.total / gemm_rate()
    shared = f"first difference at {first}" if first > 1 else "nothing shared"
    print(
        f"{count} pair{'s' * (count > 1)}, {shared:<22} ratio {min(peer) / min(command):4.2f} (bar {BARS[count]})   "
        f"the estimate alone {min(peer) / min(alone):4.2f}, to its limit {min(alone) / limit:4.2f}   "
        f"difference {apart(model, pairs, nodes):.1e}   "
        f"CPU s: peer {min(peer):5.2f}, command {min(command):5.2f}, estimate {min(alone):5.2f}, limit {limit:5.2f}",
        flush=True,
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    model = interp.load(shape, name="random GPT-2 small shape", device="cpu")
    print(f"{model.name}, {LENGTH} tokens; matrix products at {gemm_rate() / 1e9:.0f} GF/s, 1 thread")
    for count in BARS:
        for first in (10, 1):
            measure(model, count, first, options.rounds)


if __name__ == "__main__":
    main()
