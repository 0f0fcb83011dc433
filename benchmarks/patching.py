"""Activation-patching sweeps: transformer-lens' own functions and interp, on the same model, prompts and metric.

The two are interleaved in one process, at one thread, in CPU seconds; the figure is the smallest of the rounds. Printed
for each sweep: the ratio, the largest difference between the two answers, and the distance to the limit, which is the
matrix operations that the exact method needs (counted in a run of it) over the rate of a matrix product measured in the
same run. Sweeps come after one on another pair, so that the first call's comparison with the hooked forward is apart.

``python benchmarks/patching.py [--quick] [--threads N]``; ``--quick`` leaves out what takes the peer minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partialmethod
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import fetch_smollm2
import numpy as np
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from tqdm import tqdm
from transformer_lens import patching as peer

import interp
from interp.engine.model import fingerprint
from interp.engine.transformer.linear import linear
from interp.interface.session import session
from interp.spec import Pair, Prompt

tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)  # type: ignore[method-assign]  # the peer's bars

# sweep → (site, division, the peer's function, bar with a shared prefix, bar with nothing shared)
SWEEPS: dict[str, tuple[str, str, Callable[..., Any], float, float]] = {
    "head z": ("z", "head", peer.get_act_patch_attn_head_out_all_pos, 20, 9),
    "resid_pre": ("resid_pre", "position", peer.get_act_patch_resid_pre, 60, 15),
    "attn_out": ("attn_out", "position", peer.get_act_patch_attn_out, 60, 15),
    "mlp_out": ("mlp_out", "position", peer.get_act_patch_mlp_out, 60, 15),
    "head z × position": ("z", "head-position", peer.get_act_patch_attn_head_out_by_pos, 120, 16),
}


def _linear_count(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * x.numel() * weight.shape[0]


COUNTS = {**flop_registry, torch.ops.mkldnn._linear_pointwise: _linear_count}


class Operations(TorchDispatchMode):
    """Counts floating-point operations of matrix products; torch's own counter hooks every module, which is noticed."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __enter__(self) -> Any:
        # A mode of torch's is kept from interp, which would go through the model's own forward under one.
        self.modes = fingerprint._get_current_dispatch_mode_stack
        fingerprint._get_current_dispatch_mode_stack = list
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        fingerprint._get_current_dispatch_mode_stack = self.modes
        super().__exit__(*raised)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        value = function(*args, **(kwargs or {}))
        count = COUNTS.get(function._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=value)
        return value


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.process_time()
    value = work()
    return time.process_time() - started, value


def pairs_of(vocabulary: int, length: int, first: int, count: int, seed: int) -> list[Pair]:
    """Return random pairs that agree before position `first` and differ there, or from there on where it is 1."""
    chance = np.random.default_rng(seed)
    made: list[Pair] = []
    for _ in range(count):
        clean = chance.integers(5, vocabulary, length)
        corrupted = clean.copy()
        stop = length if first == 1 else first + 1
        corrupted[first:stop] = (clean[first:stop] + 1 + chance.integers(1, vocabulary - 10, stop - first)) % vocabulary
        answer, wrong = (int(n) for n in chance.choice(vocabulary, 2, replace=False))
        made.append(Pair(Prompt(ids=tuple(clean.tolist())), Prompt(ids=tuple(corrupted.tolist())), (answer,), (wrong,)))
    return made


def by_peer(model: Any, pairs: Sequence[Pair], function: Callable[..., Any], at: int = -1) -> np.ndarray:
    """Return the peer's sweep over pairs of one length, measured at the position `at`."""
    clean = torch.tensor([pair.clean.ids for pair in pairs])
    corrupted = torch.tensor([pair.corrupted.ids for pair in pairs])
    right = torch.tensor([pair.answer[0] for pair in pairs])
    wrong = torch.tensor([pair.wrong[0] for pair in pairs])
    rows = torch.arange(len(pairs))

    def difference(logits: torch.Tensor) -> torch.Tensor:
        return (logits[rows, at, right] - logits[rows, at, wrong]).mean()

    with torch.no_grad():
        _, cache = model.bridge.run_with_cache(clean)
        return function(model.bridge, corrupted, cache, difference).numpy()


def by_interp(model: Any, pairs: Sequence[Pair], site: str, by: str) -> np.ndarray:
    model.store.clear()  # otherwise the second round's clean and corrupted runs would be there already
    patched = interp.patch(pairs=pairs, site=site, by=by).patched
    return patched.transpose(0, 2, 1) if by == "head-position" else patched


def gemm_rate() -> float:
    """Return floating-point operations a second of a product of the size that the sweeps are made of."""
    rows, weight = torch.randn(1024, 768), torch.randn(3072, 768)
    best = min(cpu_seconds(lambda: [linear(rows, weight, None) for _ in range(10)])[0] for _ in range(5))
    return 10 * 2 * 1024 * 768 * 3072 / best


def measure(model: Any, length: int, first: int, count: int, names: Sequence[str], rounds: int) -> None:
    vocabulary = model.geometry.d_vocab
    shared = "shared prefix" if first > 1 else "nothing shared"
    print(f"\n{model.name}, {length} tokens, {count} pair(s), {shared} (first difference at {first})")
    pairs = pairs_of(vocabulary, length, first, count, seed=1)
    warm = pairs_of(vocabulary, length, first, count, seed=2)
    for name in names:
        site, by, function, *bars = SWEEPS[name]
        session.use(model.name)
        first_call, _ = cpu_seconds(lambda site=site, by=by: by_interp(model, warm, site, by))
        ours, theirs = [], []
        for _ in range(rounds):
            seconds, answer = cpu_seconds(lambda site=site, by=by: by_interp(model, pairs, site, by))
            ours.append(seconds)
            seconds, expected = cpu_seconds(lambda function=function: by_peer(model, pairs, function))
            theirs.append(seconds)
        with Operations() as counter:
            by_interp(model, pairs, site, by)
        limit = counter.total / gemm_rate()
        bar = bars[0] if first > 1 else bars[1]
        print(
            f"  {name:<18} ratio {min(theirs) / min(ours):6.1f}  (bar {bar:>3} for 15 tokens, 1 pair)   "
            f"to the limit {min(ours) / limit:4.2f}   difference {np.abs(answer - expected).max():.1e}   "
            f"CPU s: peer {min(theirs):7.2f}, interp {min(ours):6.2f}, limit {limit:6.2f}, first {first_call:6.2f}",
            flush=True,
        )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shape = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    small = interp.load(shape, name="random GPT-2 small shape", device="cpu")
    everything = list(SWEEPS)
    most = everything[:4]
    print(f"matrix products at {gemm_rate() / 1e9:.0f} GF/s, {options.threads} thread(s)")
    measure(small, 15, 10, 1, most if options.quick else everything, rounds=2)
    measure(small, 15, 1, 1, most, rounds=2)
    real = interp.load(fetch_smollm2.fetch(), name="SmolLM2", device="cpu")
    measure(real, 15, 10, 1, ["head z"], rounds=1)
    if options.quick:
        return
    measure(small, 15, 1, 1, ["head z × position"], rounds=1)
    measure(small, 15, 10, 8, ["head z", "resid_pre"], rounds=1)
    measure(small, 64, 40, 1, ["head z", "resid_pre"], rounds=1)
    measure(real, 15, 10, 1, ["resid_pre", "attn_out", "mlp_out"], rounds=1)


if __name__ == "__main__":
    main()
