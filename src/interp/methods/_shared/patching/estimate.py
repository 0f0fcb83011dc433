"""Estimate and verify: attribution patching as a way to do `interp.patch`, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from interp.errors import InputError
from interp.sites import SITES, Site
from interp.spec import Metric

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.attribution import Attributed, Job
    from interp.engine.patching.cases import Aligned
    from interp.engine.patching.waves import Sweep, Swept
    from interp.methods._shared.patching.result import PatchingResult
    from interp.results.tables import Float

_FACTOR = 2.0  # how far an estimate may be from the exact effect, either way, before it is called unsafe
_SMALL = 0.05  # of the largest: smaller effects are not judged by their ratio
_NAMED = 3


@dataclass(frozen=True)
class Agreement:
    """How the estimates of the verified cells compare with their exact effects.

    Attributes
    ----------
    verified
        How many cells were verified.
    rank_correlation
        Spearman's, between estimate and exact effect over the verified cells; NaN below three of them. They are those
        of the largest estimates, so this says nothing about cells whose estimate is wrongly small.
    where, estimate, exact
        The cell where the two are furthest apart, and both there.
    unsafe
        Cells whose estimate has the wrong sign or is off by more than a factor of two. Effects of less than a
        twentieth of the largest are not judged.
    """

    verified: int
    rank_correlation: float
    where: str
    estimate: float
    exact: float
    unsafe: tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """What the gradients say.

    Attributes
    ----------
    asked
        ``float64 [*axes]``: the effect of every cell of what was asked.
    sites
        Site → ``float64 [layer, head]`` or ``[layer, position]``.
    cuts
        ``float64 [layer]``: of every layer, the sum over the whole residual stream before it; none where only spans of
        it are put in.
    found
        As it came from the engine, case by case.
    """

    asked: Float
    sites: Mapping[str, Float]
    cuts: Float
    found: Attributed

    def largest(self, count: int) -> list[int]:
        """Return the `count` cells of the largest estimates, as indices into the flattened answer."""
        size = np.nan_to_num(np.abs(self.asked.reshape(-1)), nan=-1.0)
        return np.argsort(-size, kind="stable")[:count].tolist()

    def unverified(self) -> Swept:
        """Return a sweep in which no cell was computed."""
        from interp.engine.patching import waves

        swept = waves.unfinished(len(self.found.nodes), self.asked.shape)
        swept.path, swept.interrupt = self.found.path, self.found.interrupt
        return self.verified_by(swept)

    def verified_by(self, swept: Swept) -> Swept:
        """Return the sweep that verified these estimates, with how they were made and what it did not get to."""
        found = self.found
        for theirs, ours in ((swept.base, found.base), (swept.source, found.source)):
            unknown = theirs.isnan()
            theirs[unknown] = ours[unknown]
        path = found.path if swept.path == found.path else f"{found.path}; verified by {swept.path}"
        return replace(swept, path=path, notes=[*found.notes, *swept.notes])


def check(
    method: str, steps: int, verify: int, metric: Metric, model: LoadedModel, length: int, *, foreign: bool
) -> None:
    """Refuse flags that do not go together, and metrics without a gradient.

    Raises
    ------
    InputError
        What to type instead is said.
    """
    from interp.engine import metrics

    if steps < 1:
        raise InputError(f"--steps {steps} integrates over nothing; use 1 for first order, or more, such as 5")
    if verify < 0:
        raise InputError(f"--verify {verify} is no number of cells; use 0 for none, or more, such as 20")
    if method != "attribution":
        for flag, value, default in (("--steps", steps, 1), ("--verify", verify, 0)):
            if value != default:
                raise InputError(f"{flag} is for estimates, and an exact sweep has none; add --method attribution")
        return
    if steps > 1 and foreign:
        raise InputError("--steps goes from one prompt to the other in one model; with --from-model leave it out")
    metrics.require_gradient(metric, model.geometry.d_vocab_out, model.device, length)


def estimate(
    model: LoadedModel,
    job: Job,
    merged: Callable[[Attributed], Attributed],
    *,
    site: str,
    by: str,
    layers: Sequence[int],
    length: int,
    spans: Sequence[Sequence[Aligned]],
) -> Estimate:
    """Return the estimated effects of every node, and those of `site` divided as asked.

    Parameters
    ----------
    job
        What estimates them, run by run.
    merged
        Makes estimates over pairs of them.
    length
        Of a division by position.
    spans
        Each pair's.

    Raises
    ------
    InputError
        This model's forward does not show the site.
    """
    from interp.engine.model.interventions import require_read

    require_read(model, [Site(site, layer) for layer in layers])
    by_neuron = by == "neuron"
    found = merged(job.run())
    if any(site not in nodes for nodes in found.nodes):
        raise InputError(f"{site} does not fire in {model.name}; use --method exact")
    rows = list(layers)
    if by_neuron:
        asked = np.mean([each.numpy()[rows] for each in found.neurons], axis=0)
    else:
        each = [nodes[site].numpy()[rows] for nodes in found.nodes]
        own = [spans[number] for number in found.kept]
        asked = np.mean([_divided(site, by, *both) for both in zip(each, own, strict=True)], axis=0)
        asked = asked[..., :length] if "position" in by else asked
    whole = all(case.aligned is None for case in job.given)  # else not all of the stream is put in
    cuts = _cuts(found) if whole else np.zeros(0)
    return Estimate(cast("Float", asked), _summed(found, rows, length), cuts, found)


def _divided(site: str, by: str, nodes: Float, spans: Sequence[Aligned] = ()) -> Float:
    """Return ``[layer, head, position]`` or ``[layer, position]`` summed to the axes that `by` names."""
    if by == "span":
        rows = _divided(site, "position", nodes)
        return np.stack([rows[:, [at for at, _ in span]].sum(1) for span in spans], 1)
    if by == "head-position":
        return nodes
    if by == "layer":
        return nodes.reshape(len(nodes), -1).sum(-1)
    if not SITES[site].headed:
        return nodes
    return nodes.sum(-1) if by == "head" else nodes.sum(1)


def _summed(found: Attributed, rows: Sequence[int], length: int) -> dict[str, Float]:
    lengths = {nodes[site].shape[-1] for nodes in found.nodes for site in nodes}
    summed: dict[str, Float] = {}
    for site in [site for site in found.nodes[0] if all(site in nodes for nodes in found.nodes)]:
        if SITES[site].headed or len(lengths) == 1:
            by = "head" if SITES[site].headed else "position"
            each = [_divided(site, by, nodes[site].numpy()[list(rows)]) for nodes in found.nodes]
            mean: Float = np.mean(each, axis=0)
            summed[site] = mean[:, :length] if by == "position" else mean
    return summed


def _cuts(found: Attributed) -> Float:
    if any("resid_pre" not in nodes for nodes in found.nodes):
        return np.zeros(0)
    return np.mean([nodes["resid_pre"].sum(-1).numpy() for nodes in found.nodes], axis=0)


def room(count: int, sweep: Sweep) -> None:
    """Refuse to verify more cells than a sweep has, before anything runs.

    Raises
    ------
    InputError
        There are fewer.
    """
    size = len(sweep.chosen)
    if count > size:
        raise InputError(f"--verify {count} is more than the {size} cells; use --verify {size} or less")


def with_estimate(result: PatchingResult, estimated: Estimate, steps: int, *, foreign: bool) -> PatchingResult:
    """Return `result` with the estimates in it, and with notes on how far they can be trusted."""
    made = replace(result, method="attribution", estimate=estimated.asked, estimates=estimated.sites)
    stopped = estimated.found.stopped
    first = [f"partial: {stopped}; the estimate is that of these, and none is verified"] if stopped else []
    notes: list[str] = []
    if lost := int((~np.isfinite(estimated.asked)).sum()):
        notes.append(f"the estimate is NaN or infinite in {lost} of {estimated.asked.size} cells")
    notes += _on_agreement(made)
    if not foreign:  # another model's stream does not end at its own metric
        notes += _on_cuts(made, estimated.cuts, steps)
    return replace(made, notes=(*first, *made.notes, *notes))


def agreement(result: PatchingResult) -> Agreement | None:
    """Return how estimate and exact effect compare over the cells that have both; ``None`` where there are none."""
    if result.estimate is None:
        return None
    both = result.done & np.isfinite(result.effect) & np.isfinite(result.estimate)
    if not both.any():
        return None
    guessed, exact = result.estimate[both], result.effect[both]
    names = [result.name(cell) for cell in np.argwhere(both).tolist()]
    size = np.maximum(np.abs(guessed), np.abs(exact))
    near, far = np.minimum(np.abs(guessed), np.abs(exact)), size
    unsafe = (size >= _SMALL * size.max()) & (size > 0) & ((guessed * exact < 0) | (far > _FACTOR * near))
    worst = int(np.abs(guessed - exact).argmax())
    return Agreement(
        verified=len(names),
        rank_correlation=spearman(guessed, exact),
        where=names[worst],
        estimate=float(guessed[worst]),
        exact=float(exact[worst]),
        unsafe=tuple(name for name, flagged in zip(names, unsafe, strict=True) if flagged),
    )


def spearman(one: Float, other: Float) -> float:
    """Return Spearman's rank correlation, equal values at their mean rank; NaN below three values or without spread.

    Examples
    --------
    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([2.0, 30.0, 4.0])), 6)
    0.5
    """
    import pandas as pd

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(pd.Series(one).rank().corr(pd.Series(other).rank()))


def best(result: PatchingResult) -> tuple[Float, Float]:
    """Return effect and recovery, ``[*axes]``, exact where that is known and estimated where it is not."""
    if result.estimate is None:
        return result.effect, result.recovery
    unpatched = result.clean_metric if result.direction == "noise" else result.corrupted_metric
    span = result.clean_metric - result.corrupted_metric
    with np.errstate(divide="ignore", invalid="ignore"):
        recovery = (unpatched + result.estimate - result.corrupted_metric) / span
    return (
        np.where(result.done, result.effect, result.estimate),
        np.where(result.done, result.recovery, recovery),
    )


def _on_agreement(result: PatchingResult) -> list[str]:
    found = agreement(result)
    if found is None:
        return []
    ranks = "" if np.isnan(found.rank_correlation) else f"rank correlation {_number(found.rank_correlation, '.2f')}, "
    cells = f"{found.verified} verified cell{'s' * (found.verified != 1)}"
    notes = [
        f"estimate against exact over {cells}: {ranks}furthest apart at {found.where} "
        f"({_number(found.estimate)} estimated, {_number(found.exact)} exact)"
    ]
    if found.unsafe:
        shown = ", ".join(found.unsafe[:_NAMED]) + (" …" if len(found.unsafe) > _NAMED else "")
        notes.append(
            f"saturation: the estimate has the wrong sign or is off by more than a factor of two in "
            f"{len(found.unsafe)} of them ({shown}); so may those be that were not verified"
        )
    return notes


def _on_cuts(result: PatchingResult, cuts: Float, steps: int) -> list[str]:
    """Say where the sums over a whole residual stream, which must carry all the difference, are far from it."""
    span = result.clean_metric - result.corrupted_metric
    true = -span if result.direction == "noise" else span
    if not len(cuts) or not np.isfinite(true) or abs(true) < 1e-6 or not np.isfinite(cuts).all():
        return []
    ratio = cuts / true
    off = np.flatnonzero((ratio < 1 / _FACTOR) | (ratio > _FACTOR))
    if not len(off):
        return []
    worst = int(off[np.abs(np.log(np.maximum(ratio[off], 1e-12))).argmax()])
    where = f"layer {off[0]}" if len(off) == 1 else f"{len(off)} of {len(cuts)} layers, up to layer {off[-1]}"
    more = "--steps 5 or --verify helps" if steps == 1 else f"more steps than {steps}, or --verify, would help"
    return [
        f"saturation: over the whole residual stream before a layer the estimates should sum to {_number(true)}, and "
        f"are off by more than a factor of two in {where} ({_number(float(cuts[worst]))} before layer {worst}); {more}"
    ]


def _number(value: float, form: str = "+.3g") -> str:
    return format(value, form).replace("-", "−")
