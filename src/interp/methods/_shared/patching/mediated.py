"""What `interp.mediate` makes of a sweep, and which features it asks about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.methods._shared import names
from interp.methods._shared.features import features_of
from interp.methods._shared.intervals import interval
from interp.methods._shared.intervals import too_few as no_interval
from interp.methods._shared.pairs import Encodings, check
from interp.methods._shared.patching.effects import rounding
from interp.methods._shared.patching.features_swept import dictionaries_of
from interp.methods._shared.permutation import assignments, corrector, sign_flips, too_few
from interp.sites import FEATURES
from interp.spec import Metric

if TYPE_CHECKING:
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.waves import Swept
    from interp.results.tables import Float


def features_asked(
    model: LoadedModel, site: str, feature: Any, features: str | None, layer: Any
) -> dict[Dictionary, list[int]]:
    """Return the features that are mediators, by dictionary; of one that stands for all of its features, none.

    Raises
    ------
    InputError
        A feature or a set that is not there, or flags that do not go together.
    """
    from interp.engine.features.edits import sites_of

    if site != FEATURES.name:
        flag = "--feature" if feature is not None else "--features"
        if feature is not None or features is not None:
            raise InputError(f"{flag} is about features, and {site} has none; add --site features")
        return {}
    if feature is None:
        found: dict[Dictionary, list[int]] = {one: [] for one in dictionaries_of(model, features, layer)}
    else:
        if layer is not None:
            raise InputError("--feature names its layer already; leave --layer out")
        given, found = features_of(model, features), {}
        for one, number in sorted(map(given.feature, names.words(feature, "--feature")), key=lambda own: own[0].layer):
            found.setdefault(one, []).append(number)
    for one in found:
        sites_of(one)
    return found


def cells_of(asked: Mapping[Dictionary, Sequence[int]], known: Sequence[str]) -> list[int] | None:
    """Return where the features asked for stand among those that are active; ``None`` for all of them.

    Raises
    ------
    InputError
        One of them is not active in any of the prompts.
    """
    wanted = [f"F{one.layer}.{number}" for one, numbers in asked.items() for number in numbers]
    absent = next((name for name in wanted if name not in known), None)
    if absent is not None:
        raise InputError(f"{absent} is active in none of the prompts: nothing goes through it; name another feature")
    return [known.index(name) for name in dict.fromkeys(wanted)] or None


def effects(
    model: LoadedModel,
    encoded: Sequence[Encodings],
    swept: Swept,
    metric: Metric,
    correction: str,
    count: int,
) -> dict[str, Any]:
    """Return the fields of a `MediationResult` that are made of a sweep, its pairs denoised and then noised.

    Parameters
    ----------
    count
        How many mediators are tested.
    """
    pairs = len(encoded)
    patched = [swept.values[:pairs].numpy(), swept.values[pairs:].numpy()]  # indirect, direct
    corrupted: Float = swept.base[:pairs].numpy()
    clean: Float = swept.source[:pairs].numpy()
    reached = np.asarray(swept.done.numpy().all(0))
    across = corrupted.reshape(-1, *[1] * (patched[0].ndim - 1))
    each = [np.where(reached, values - across, np.nan) for values in patched]
    total = clean - corrupted
    indirect, direct = (values.mean(0) for values in each)
    draws = assignments(len(encoded), count)
    p = np.full(indirect.shape, np.nan)
    corrected = p.copy()
    known = np.isfinite(indirect)
    if known.any():
        p[known] = sign_flips(each[0][:, known], draws)
        corrected[known] = corrector(correction)(p[known])
    checks = check(model, encoded, metric, clean.tolist(), corrupted.tolist())
    notes = list(checks.warnings)
    lost = reached & ~known
    if lost.any():
        notes.append(f"the metric is NaN or infinite for {int(lost.sum())} mediators")
    notes += [*no_interval(len(encoded)), *too_few(len(encoded), count, draws, correction)]
    noise = swept.noise / np.sqrt(pairs)
    below = int((np.abs(indirect[known]) < noise).sum())
    notes += rounding(model, noise, f"{below:,} of {int(known.sum()):,} indirect effects are")
    if swept.stopped:
        notes.insert(
            0, f"partial: {swept.stopped}; mediators that were not reached, both ways and for all pairs, are NaN"
        )
    whole = np.isfinite(total).all()
    return {
        "metric": metric.name,
        "total": float(total.mean()),
        "total_interval": interval(total),
        "total_p": float(sign_flips(total[:, None], draws)[0]) if whole else float("nan"),
        "indirect": indirect,
        "direct": direct,
        "interaction": total.mean() - direct - indirect,
        "indirect_interval": interval(each[0]),
        "direct_interval": interval(each[1]),
        "p": p,
        "corrected": corrected,
        "draws": min(draws, 2 ** len(encoded)),
        "per_pair_total": total,
        "per_pair_indirect": each[0],
        "per_pair_direct": each[1],
        "clean_metric": float(clean.mean()),
        "corrupted_metric": float(corrupted.mean()),
        "done": reached,
        "checks": checks,
        "notes": tuple(notes),
    }
