"""heads, path, ablate and mediate on SmolLM2, beside transformer-lens' own function or the hooked loop.

Both run in one process, at one thread, in CPU seconds, on the same prompts; printed are their ratio and the largest
difference between the answers. ``heads`` gives eight scores with spread and chance, its peer three without: they are
compared as commands, not cell by cell.

``python benchmarks/readouts.py``: about two minutes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fetch_smollm2
import numpy as np
import torch
from transformer_lens import patching
from transformer_lens.head_detector import detect_head

import interp

HEADS, LAYERS, PAIRS = "16.0,17.3,18.6", (17, 18), 2
SENDER = (27, 0)


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    value = work()
    return time.process_time() - started, value


def line(name: str, ours: float, theirs: float, peer: str, difference: float | None = None) -> None:
    apart = "" if difference is None else f"   largest difference {difference:.1g}"
    print(f"{name:8} {theirs / ours:6.1f} × as fast as {peer}{apart}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    model = interp.load(fetch_smollm2.fetch(), device="cpu")
    bridge, tokens = model.bridge, model.tokens
    pairs = interp.task("ioi", n=PAIRS, seed=0).pairs
    sides = [[tokens.encode(prompt).ids for prompt in (pair.clean, pair.corrupted)] for pair in pairs]
    answers = [tuple(tokens.tokenizer(one[0])["input_ids"][-1] for one in (pair.answer, pair.wrong)) for pair in pairs]

    def run(ids: Any, hooks: Any = ()) -> torch.Tensor:
        with torch.no_grad():
            return bridge.run_with_hooks(torch.tensor([ids]), fwd_hooks=list(hooks), return_type="logits")[0, -1]

    def difference(logits: torch.Tensor, pair: int) -> float:
        return float(logits[answers[pair][0]] - logits[answers[pair][1]])

    def z(layer: int) -> str:
        return f"blocks.{layer}.attn.hook_z"

    def put(head: int, value: Any) -> Callable[..., torch.Tensor]:
        def write(tensor: torch.Tensor, hook: Any) -> torch.Tensor:  # noqa: ARG001
            tensor = tensor.clone()
            tensor[:, :, head] = value if isinstance(value, float) else value[:, :, head]
            return tensor

        return write

    # The first call of each compares itself with the hooked forward; these are those after it.
    small = {"task": "ioi", "n": 1, "seed": 9}
    interp.ablate(**small, heads=HEADS), interp.mediate(**small, layer=LAYERS[0])
    interp.path(**small, from_=f"{SENDER[0]}.{SENDER[1]}", to="q")

    seconds, _ = cpu_seconds(lambda: interp.heads(n=3))
    words = [" ".join(t for t in np.random.default_rng(s).choice(["cat", "dog", "sun"], 25)) for s in range(3)]
    kinds = ("previous_token_head", "duplicate_token_head", "induction_head")
    peer, _ = cpu_seconds(lambda: [detect_head(bridge, f"{w} {w}", kind) for w in words for kind in kinds])
    line("heads", seconds, peer, "transformer-lens' detect_head, 3 patterns of 3 texts as long")

    parts = [tuple(map(int, name.split("."))) for name in HEADS.split(",")]
    conditions = [[], *([part] for part in parts), parts]

    def loop() -> np.ndarray:
        return np.array(
            [
                [
                    difference(run(clean, [(z(at), put(h, 0.0)) for at, h in some]), n)
                    for n, (clean, _) in enumerate(sides)
                ]
                for some in conditions
            ]
        )

    seconds, found = cpu_seconds(lambda: interp.ablate(pairs=pairs, heads=HEADS, metric="logit-diff"))
    peer, expected = cpu_seconds(loop)
    line("ablate", seconds, peer, "the hooked loop", float(np.abs(found.per_prompt - expected).max()))

    def both() -> np.ndarray:
        effects = np.zeros((2, len(LAYERS), model.geometry.n_heads))
        for n, (clean, corrupted) in enumerate(sides):
            for way, (base, source) in enumerate(((corrupted, clean), (clean, corrupted))):
                _, held = bridge.run_with_cache(torch.tensor([source]), names_filter=[z(at) for at in LAYERS])
                for row, at in enumerate(LAYERS):
                    for h in range(model.geometry.n_heads):
                        effects[way, row, h] += difference(run(base, [(z(at), put(h, held[z(at)]))]), n) / PAIRS
        return effects - np.mean([difference(run(corrupted), n) for n, (_, corrupted) in enumerate(sides)])

    seconds, found = cpu_seconds(lambda: interp.mediate(pairs=pairs, layer=LAYERS, metric="logit-diff"))
    peer, expected = cpu_seconds(both)
    apart = max(np.abs(found.indirect - expected[0]).max(), np.abs(found.direct - expected[1]).max())
    line("mediate", seconds, peer, "the hooked loop", float(apart))

    def direct() -> torch.Tensor:
        clean, corrupted = (torch.tensor([ids]) for ids in sides[0])
        with torch.no_grad():
            caches = [bridge.run_with_cache(ids)[1] for ids in (clean, corrupted)]
            return patching.get_act_patch_direct_path(
                bridge, corrupted, *caches, lambda x: x[0, -1, answers[0][0]] - x[0, -1, answers[0][1]], *SENDER, "q",
                verbose=False,
            )  # fmt: skip

    name = f"{SENDER[0]}.{SENDER[1]}"
    seconds, found = cpu_seconds(lambda: interp.path(pairs=pairs[:1], from_=name, to="q", metric="logit-diff"))
    peer, expected = cpu_seconds(direct)
    apart = max(
        abs(float(found.patched[0, n]) - float(expected[tuple(map(int, to.split(".")[:2]))]))
        for n, to in enumerate(found.receivers)
        if found.exists[0, n]
    )
    line("path", seconds, peer, "transformer-lens' get_act_patch_direct_path", apart)


if __name__ == "__main__":
    main()
