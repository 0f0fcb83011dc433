"""Random sweeps in half precision, without hooks and with them: how many cells lie within twice the measured noise.

    python tools/half_precision_sweeps.py [COUNT] [SEED]

Each sweep draws a family, a dtype, a pair of prompts (their length, which tokens differ), a site and its division, and
a metric. Families with routed experts are counted apart: where rounding chooses other experts, a run is another one.
Exits with 1 where fewer than 99.9 % of the others' cells are within.
"""

from __future__ import annotations

import collections
import os
import random
import sys
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

import numpy as np  # noqa: E402
import torch  # noqa: E402

import interp  # noqa: E402
import zoo  # noqa: E402
from engine.patching.test_noise import routed  # noqa: E402
from engine.transformer.test_every_family import KNOWN  # noqa: E402
from interp.engine.transformer import network  # noqa: E402
from interp.errors import InputError  # noqa: E402
from interp.interface.session import session  # noqa: E402
from interp.sites import AXES, SITES  # noqa: E402
from interp.spec import Pair, Prompt  # noqa: E402

METRICS = ("logit-diff", "logit", "logprob")
TOGETHER = 6  # sweeps on one model


def main() -> int:
    """Run them; return whether too many cells are beyond the noise."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    wanted, seed = (int(given) for given in (*sys.argv[1:], *("1000", "0")[len(sys.argv) - 1 :]))
    draw = random.Random(seed)
    cells: collections.Counter[bool] = collections.Counter()
    beyond: collections.Counter[bool] = collections.Counter()
    done = 0
    while done < wanted:
        family, dtype = draw.choice(KNOWN), draw.choice((torch.bfloat16, torch.float16))
        session.models.clear()
        interp.load(zoo.drawn(family).to(dtype), tokenizer=zoo.tokenizer(family), name=family, device="cpu")
        for _ in range(TOGETHER):
            try:
                far = one(draw)
            except InputError:  # a site or a division that the family lacks
                continue
            done += 1
            cells[routed(family)] += far.size
            beyond[routed(family)] += int((far > 2).sum())
            if (far > 2).any():
                print(f"{family}, {dtype}: {int((far > 2).sum())} of {far.size}, up to {far.max():.2f} times the noise")
    within = {name: 1 - beyond[name] / max(1, cells[name]) for name in (False, True)}
    print(
        f"{done} sweeps, seed {seed}: {100 * within[False]:.3f} % of {cells[False]} cells within twice the noise; "
        f"with routed experts {100 * within[True]:.2f} % of {cells[True]}"
    )
    return within[False] < 0.999


def one(draw: random.Random) -> Any:
    """Return how far the cells of one random sweep are from the hooked ones, in units of the noise."""
    length = draw.randint(4, 12)
    clean = [draw.randrange(5, 120) for _ in range(length)]
    changed = draw.sample(range(1, length), draw.randint(1, 2))
    corrupted = [draw.randrange(5, 120) if at in changed else token for at, token in enumerate(clean)]
    pair = Pair(Prompt(ids=tuple(clean)), Prompt(ids=tuple(corrupted)), *draw.sample(range(5, 120), 2))
    asked: dict[str, Any] = {
        "pairs": [pair],
        "site": draw.choice(sorted(SITES)),
        "by": draw.choice(sorted(AXES)),
        "metric": draw.choice(METRICS),
    }
    lean = interp.patch(**asked)
    if lean.provenance.path != "replay":
        raise InputError("this sweep is by hooks")
    families, network.FAMILIES = network.FAMILIES, {}
    try:
        hooked = interp.patch(**asked)
    finally:
        network.FAMILIES = families
    assert hooked.provenance.path.startswith("hooked")
    return np.abs(lean.patched - hooked.patched) / lean.noise


if __name__ == "__main__":
    sys.exit(main())
