"""Run many random sequences of edits on tiny models, and count answers that were true only before an edit.

    python tools/edit_sequences.py [SEQUENCES] [SECONDS] [SEED]

A sequence is one to four edits of ``tests/engine/model/edits*.py``, drawn with a seed. After each edit what interp
answers (from the store, where it takes its answer from there) is compared, bit for bit, with what the bridge computes
at that moment. What an edit did outside its model is put back after its sequence; a model is made anew after eight of
them, or once it can no longer run. Exits with 1 where any answer was stale.
"""

from __future__ import annotations

import collections
import os
import random
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

import torch  # noqa: E402

import models  # noqa: E402
from engine.model import edits_of_code, edits_of_objects  # noqa: E402
from engine.model.edits import EDITS, Inapplicable, Subject  # noqa: E402
from interp.engine.model.load import Options, load  # noqa: E402

IDS = [5, 90, 33, 171, 40, 2]
SITES = ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern", "blocks.1.hook_resid_post", "logits"]
FAMILIES = ("gpt2", "llama", "neox", "gemma2", "bloom", "bert")
LIFE = 8  # sequences that one model lives through


def main() -> int:
    """Run them; return whether any answer was stale."""
    assert edits_of_code
    assert edits_of_objects
    warnings.simplefilter("ignore")
    wanted, seconds, seed = (
        int(given) for given in (*sys.argv[1:], *("20000", "1000000000", "0")[len(sys.argv) - 1 :])
    )
    draw = random.Random(seed)
    names = sorted(EDITS)
    done = asked = refused = stored = 0
    used: collections.Counter[str] = collections.Counter()
    stale: list[str] = []
    start = time.monotonic()
    made: Subject | None = None
    while done < wanted and time.monotonic() - start < seconds:
        if made is None or done % LIFE == 0:
            family = draw.choice(FAMILIES)
            made = Subject(load(models.FAMILIES[family](340), name=family, options=Options(device="cpu")), family)
        told = [made.family]
        runs = True
        try:
            if compare(made)[0] == "stale":  # what was put back is the state of before, and its answers with it
                stale.append(f"{made.family}, after it was put back")
                print("STALE:", stale[-1], flush=True)
            for name in draw.choices(names, k=draw.randint(1, 4)):
                try:
                    EDITS[name].apply(made)
                except Inapplicable:
                    continue
                except (RuntimeError, TypeError, AttributeError, ValueError, LookupError, AssertionError):
                    continue  # impossible after another
                used[name] += 1
                told.append(name)
                asked += 1
                verdict, hit = compare(made)
                stored += hit
                if verdict == "stale":
                    stale.append(" → ".join(told))
                    print("STALE:", stale[-1], flush=True)
                if verdict != "same":
                    runs = False
                    refused += verdict == "cannot run"
                    break
        except Exception as error:
            runs = False
            print("could not go on:", " → ".join(told), repr(error)[:150], flush=True)
        for undo in reversed(made.undo):
            undo()
        made.undo.clear()
        done += 1
        if not runs:
            made = None
        if done % 500 == 0:
            print(f"{done} sequences, {asked} answers, {time.monotonic() - start:.0f} s", flush=True)
    took = time.monotonic() - start
    print(f"{done} sequences in {took:.0f} s ({done / took:.1f} a second), of {len(used)} kinds of edit")
    print(f"{asked} answers after an edit, {stored} from the store, {refused} that the bridge itself cannot run")
    print(f"{len(stale)} stale")
    return 1 if stale else 0


def context(made: Subject) -> Any:
    """Return what runs around a forward."""
    return torch.autocast("cpu", made.autocast or torch.bfloat16, enabled=made.autocast is not None)


def answer(made: Subject) -> dict[str, torch.Tensor]:
    """Return what interp answers."""
    with context(made):
        return made.model.activations_of(IDS, SITES)


def computed(made: Subject) -> dict[str, torch.Tensor]:
    """Return what the bridge computes now."""
    kept: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor, hook: Any) -> None:
        kept[hook.name] = tensor.detach().clone()

    recording = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    points = [made.bridge.hook_dict[name] for name in SITES[:-1]]
    for point in points:
        point.add_hook(keep)
    try:
        with context(made):
            logits = made.bridge(torch.tensor([IDS]))
    finally:
        torch.set_grad_enabled(recording)
        for point in points:
            point.fwd_hooks.pop().hook.remove()
    return {name: kept[point.name] for name, point in zip(SITES[:-1], points, strict=True)} | {"logits": logits}


def compare(made: Subject) -> tuple[str, bool]:
    """Return ``"same"``, ``"stale"``, ``"random"`` or ``"cannot run"``, and whether the answer came from the store."""
    try:
        expected = computed(made)
    except Exception:  # an edit, or several, that the bridge itself cannot run
        try:
            answer(made)
        except Exception:
            return "cannot run", False
        return "stale", False
    forwards = made.model.forwards
    found = answer(made)
    hit = made.model.forwards == forwards
    if all(torch.equal(found[name].nan_to_num(), expected[name].nan_to_num()) for name in SITES):
        return "same", hit
    again = computed(made)
    same = all(torch.equal(again[name].nan_to_num(), expected[name].nan_to_num()) for name in SITES)
    return ("stale", hit) if same or hit else ("random", hit)


if __name__ == "__main__":
    sys.exit(main())
