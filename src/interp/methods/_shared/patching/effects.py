"""From the values of a sweep over pairs to the fields of a `PatchedResult`: means, recoveries, their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.methods._shared.intervals import interval, of_ratio, too_few
from interp.methods._shared.pairs import check

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.waves import Swept
    from interp.methods._shared.pairs import Encodings
    from interp.spec import Metric, Pairs


def patched(
    model: LoadedModel,
    pairs: Pairs,
    encoded: Sequence[Encodings],
    swept: Swept,
    metric: Metric,
    direction: str,
    *,
    exists: NDArray[np.bool_] | None = None,
    whole: bool = True,
    other: str = "",
) -> dict[str, Any]:
    """Return the fields of a `PatchedResult`, and the notes that every one has.

    Parameters
    ----------
    direction
        ``"denoise"`` (the base is the corrupted run) or ``"noise"``.
    exists
        ``bool [*axes]``: the cells that there are; all where not given. The others are NaN, and done.
    whole
        Without it, as while a sweep runs, what takes longest is left out: intervals (NaN) and warnings.
    other
        The name of the model whose activations were put in, if it was another one.
    """
    per_pair = swept.values.numpy()
    base, source = swept.base.numpy(), swept.source.numpy()
    clean, corrupted = (base, source) if direction == "noise" else (source, base)
    done = np.asarray(swept.done.numpy().all(axis=0))
    mean = np.where(done, per_pair.mean(axis=0), np.nan)
    each = np.where(done, per_pair - base.reshape(-1, *[1] * (per_pair.ndim - 1)), np.nan)
    each = each if whole else each[:1]
    with np.errstate(divide="ignore", invalid="ignore"):
        recovery = (mean - corrupted.mean()) / (clean.mean() - corrupted.mean())
    numbers = {
        "patched": mean,
        "effect": mean - base.mean(),
        "recovery": recovery,
        "interval": interval(each),
        "recovery_interval": of_ratio(each, clean - corrupted) + (direction == "noise"),
        "per_pair": per_pair,
    }
    if exists is not None:
        numbers = {name: np.where(exists, values, np.nan) for name, values in numbers.items()}
        done = done | ~exists
    noise = swept.noise / np.sqrt(len(per_pair))
    checks = check(model, encoded, metric, clean.tolist(), corrupted.tolist(), warn=whole, other=other)
    if whole and done.any():
        below = int((np.abs(numbers["effect"][done]) < noise).sum())
        rounded = rounding(model, noise, f"{below:,} of {int(done.sum()):,} effects are")
        checks = replace(checks, warnings=(*checks.warnings, *too_few(len(per_pair)), *rounded))
    return {
        **numbers,
        "metric": metric.name,
        "direction": direction,
        "clean_metric": float(clean.mean()),
        "corrupted_metric": float(corrupted.mean()),
        "done": done,
        "checks": checks,
        "task": pairs.task,
        "noise": float(noise),
    }


def rounding(model: LoadedModel, noise: float, what: str) -> tuple[str, ...]:
    """Return a note on what is below the noise of half precision; none where there is no noise."""
    if not noise:
        return ()
    return (f"{what} below {noise:.2g}, which is what rounding to {model.dtype} makes of nothing; float32 shows more",)
