"""Activation patching from a terminal: which heads and MLPs carry an answer from one prompt into another's run.

    python activation_patching.py            # on the model that comes with interp
    python activation_patching.py gpt2       # on any other that interp.load takes

It prints what was measured, and writes `ioi_patching_results.png` and `factual_patching_results.png`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import interp

TOP = 5
RULE = "=" * 70


def experiment(title: str, clean: str, corrupted: str, answer: str, wrong: str, picture: str) -> Path:
    """Put every head's, then every MLP's activations of the clean run into the corrupted one; print and draw it."""
    print(f"{title}\n{RULE}\n")
    heads = interp.patch(clean, corrupted, answer=answer, wrong=wrong)
    # Which token each answer is: for one that is no single token, the first.
    ids = {said: index for said, _, index in heads.tokens_taken}
    print(f"Clean prompt: {clean}\nCorrupted prompt: {corrupted}")
    print(f"Correct answer: {answer!r} (token {ids[answer]})\nIncorrect answer: {wrong!r} (token {ids[wrong]})\n")

    print("1. Baselines")
    print(f"   Clean logit difference: {heads.clean_metric:+.3f}")
    print(f"   Corrupted logit difference: {heads.corrupted_metric:+.3f}\n")

    print(f"2. Heads: {heads.effect.size} patched, one at a time")
    ranked = [(name, recovery) for name, _, recovery in heads.top(TOP)]
    for place, (name, recovery) in enumerate(ranked, 1):
        layer, head = name.split(".")
        print(f"   {place}. Layer {layer:>2}, Head {head:>2}: {recovery:+.3f} recovery")

    mlps = interp.patch(clean, corrupted, answer=answer, wrong=wrong, site="mlp_out", by="layer")
    print(f"\n3. MLPs: {mlps.effect.size} patched, one at a time")
    for name, _, recovery in mlps.top(TOP):
        print(f"   Layer {name.removeprefix('L'):>2}: {recovery:+.3f} recovery")

    written = heads.save(picture)
    print(f"\nThe heatmap of all heads: {written.name}\n")
    return written


def main(model: str | None = None) -> None:
    """Run both experiments."""
    interp.load(model)
    experiment(
        "INDIRECT OBJECT: WHO GETS THE DRINK?",
        "When Mary and John went to the store, Mary gave a drink to",
        "When John and Mary went to the store, John gave a drink to",
        " John",
        " Mary",
        "ioi_patching_results.png",
    )
    experiment(
        "FACTS: THE CAPITAL OF WHICH COUNTRY?",
        "The capital of France is",
        "The capital of Italy is",
        " Paris",
        " Rome",
        "factual_patching_results.png",
    )


if __name__ == "__main__":
    main(*sys.argv[1:2])
