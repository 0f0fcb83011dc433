"""From the values of a sweep over pairs to effects, recoveries and their uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.methods._shared.bootstrap import interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.engine.patching.waves import Swept

    Float = NDArray[np.float64]


@dataclass(frozen=True)
class Recovered:
    """The numbers of a sweep.

    Attributes
    ----------
    per_pair
        ``float64 [pair, *axes]``: the metric of every patched run; NaN where the sweep did not get to.
    patched, effect
        ``float64 [*axes]``: their mean over pairs, and that less the run's that was patched.
    recovery
        ``float64 [*axes]``: (patched − corrupted) / (clean − corrupted), a ratio of means over pairs.
    interval
        ``float64 [2, *axes]``: the 95 % bootstrap interval of `effect`.
    clean, corrupted
        ``float64 [pair]``: the metric of each pair's own runs.
    done
        ``bool [*axes]``: which cells were computed for every pair.
    """

    per_pair: Float
    patched: Float
    effect: Float
    recovery: Float
    interval: Float
    clean: Float
    corrupted: Float
    done: NDArray[np.bool_]


def recovered(swept: Swept, direction: str, *, sure: bool = True) -> Recovered:
    """Return what a sweep's values say; `direction` is ``"denoise"`` (the base is the corrupted run) or ``"noise"``.

    The interval takes longest: without `sure` it is NaN.
    """
    per_pair: Float = swept.values.numpy()
    base, source = swept.base.numpy(), swept.source.numpy()
    clean, corrupted = (base, source) if direction == "noise" else (source, base)
    done = np.asarray(swept.done.numpy().all(axis=0))
    patched = np.where(done, per_pair.mean(axis=0), np.nan)
    each = per_pair - base.reshape(-1, *[1] * (per_pair.ndim - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        recovery = (patched - corrupted.mean()) / (clean.mean() - corrupted.mean())
    return Recovered(
        per_pair=per_pair,
        patched=patched,
        effect=patched - base.mean(),
        recovery=recovery,
        interval=interval(np.where(done, each, np.nan) if sure else each[:1]),
        clean=clean,
        corrupted=corrupted,
        done=done,
    )
