"""Circuits: which edges between heads and MLPs carry a task's answer."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import labels, span_places
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared.circuit import choice, foreseen
from interp.methods._shared.circuit.result import LESS_IS_BETTER, ONE_MEAN, CircuitResult
from interp.methods._shared.circuit.unchosen import circuit_of
from interp.methods._shared.models import require_causal
from interp.methods._shared.pairs import Encodings, check, encode
from interp.results.costs import lasting
from interp.spec import Metric, MetricName, Pairs, resolve_metric

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.circuits.edges import EdgeScores
    from interp.engine.circuits.subgraph import Subset
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Case
    from interp.engine.patching.driver import OnStep
    from interp.results.tables import Float

EDGES = 200  # kept when neither a number nor a threshold is given
POINTS = 12  # thresholds that ACDC is run with where none is given
_LEAST, _MOST = 1e-3, 0.5  # the smallest and the largest of them, as parts of what all edges together carry
_SHARED = 0.25  # of a run for each edge: measured 0.18–0.23, where runs share what is below and some edges need none
_LONG = 600.0  # seconds


@technique(body=Pairs, forecasts=True, changes=True)
def circuit(
    model: LoadedModel,
    pairs: Pairs,
    *,
    method: Literal["eap-ig", "eap", "acdc", "exact"] = "eap-ig",
    edges: int | None = None,
    threshold: float | None = None,
    level: Literal["edge", "head"] = "edge",
    steps: int | None = None,
    among: int | None = None,
    ablation: Literal["corrupted", "mean", "zero"] = "corrupted",
    metric: MetricName | None = None,
    positions: bool = False,
    align: Literal["last", "mean", "each"] = "last",
) -> CircuitResult:
    """A task's circuit: every edge between heads, MLPs, embedding and logits scored, and the strongest kept.

    An edge is what one head, MLP or the embedding writes, as one input reads it: a head's queries, keys or values, an
    MLP, the logits. Its score is what the clean prompt's metric loses when this edge alone is ablated: above 0 it
    helps. The circuit is the strongest edges, either way, that lie on a way from the embedding to the logits.

    Parameters
    ----------
    pairs
        Clean and corrupted prompts, with answers. Those of one length line up token by token, others by spans: pieces
        marked as [Mary]{IO}, or what both begin with, what differs, and what both end with.
    method
        eap-ig estimates from gradients between ablated and clean, eap from the clean run's alone (it misses what is
        saturated there), exact ablates each edge by itself, acdc takes edges away one after the other. These two run
        the model for every edge: minutes for thousands of them, hours for tens of thousands.
    edges
        How many edges the circuit may have; 200 when neither this nor a threshold is given.
    threshold
        Keep the edges whose score is this or more, either way; for acdc the one that it is run with.
    level
        edge ranks edges; head ranks heads and MLPs, by what the metric loses when all that they write is ablated (run
        by exact, else the sum of the estimates), and keeps all edges between them.
    steps
        Of eap-ig: at how many points gradients are taken; as many as the integral needs when not given.
    among
        Of acdc: how many edges it begins with, the strongest by eap-ig, all others ablated; all when not given.
    ablation
        What an ablated edge carries: its value in the corrupted run, the mean over corrupted prompts, or zero.
    metric
        logit-diff, logit, logprob, prob, kl, or the name of a function of yours.
    positions
        Whether the scores' parts at each position are kept; for estimates, on clean prompts of one length.
    align
        Where a pair's prompts have different lengths: what the tokens of a span carry along an ablated edge. last gives
        its last token what the other prompt's has and leaves the rest as it is, mean gives every token the other's
        mean, each refuses.

    Returns
    -------
    CircuitResult
        All scores, the circuit's `edges`, `nodes` and `heads`; `validate()` gives its evidence.

    Raises
    ------
    InputError
        Flags that do not go together, prompts that do not line up, a metric without a gradient where one is needed.
    Interrupted
        Stopped by Ctrl-C in an exact sweep or ACDC: what was scored so far is in its ``result``.

    Notes
    -----
    EAP: Syed, Rager and Conmy (2023), "Attribution Patching Outperforms Automated Circuit Discovery". EAP-IG: Hanna,
    Pezzelle and Belinkov (2024), "Have Faith in Faithfulness"; `interp.engine.circuits.eap.attribute_edges` says
    along which path. ACDC: Conmy et al. (2023), "Towards Automated Circuit Discovery"; without a threshold it is run
    with a dozen, and an edge's score is the largest that it survives. That it may begin with what an estimate leaves:
    Syed et al.

    A norm after the attention (Gemma 2 and 3, OLMo 2 and 3) divides all heads of a layer by one size, and so belongs to
    what reads them: exact scores and runs apply it to the heads that an input keeps and the ablated others; estimates
    take it to first order at the clean run.

    Examples
    --------
    >>> interp.circuit(task="induction", n=8, edges=20).heads
    ['0.0', '1.0', '2.0']
    """
    from interp.engine import metrics
    from interp.engine.forecast.costs import foresee

    require_causal(model, "circuit")
    chosen = resolve_metric(metric or pairs.metric or "logit-diff")
    _check(method, edges, threshold, level, steps, among, positions, chosen)
    metrics.try_out(chosen, model.geometry.d_vocab_out, model.device)
    if method in {"eap", "eap-ig"} or among is not None:
        metrics.require_gradient(chosen, model.geometry.d_vocab_out, model.device)
    for site in ("resid_pre", "z", "q", "k", "v", "mlp_out"):
        model.require_site(site, range(model.geometry.n_layers))
    encoded = encode(model, pairs, chosen, lengths=True)
    cases = pairs_of.cases(model, encoded, chosen, "noise", align=align, whole=True)

    def result(scored: EdgeScores, notes: Sequence[str] = ()) -> CircuitResult:
        said = _notes(cases, ablation, chosen, method)
        said += span_places.of_two_lengths(cases, align) if ablation == "corrupted" else ()
        made = _result(model, pairs, encoded, scored, chosen, [*said, *notes])
        return replace(made, method=method, steps=scored.steps, ablation=ablation, level=level)

    foresee(
        model,
        lambda: foreseen.of_circuit(
            model,
            cases,
            encoded,
            method,
            ablation=ablation,
            steps=steps,
            among=among,
            level=level,
            positions=positions,
            tried=POINTS if threshold is None else 1,
            part=_SHARED,
        ),
    )
    if method == "acdc":
        first = None
        if among is not None:
            estimated = _estimated(model, cases, ablation, steps)
            if estimated.interrupt is not None:
                raise estimated.interrupt
            first = choice.of_size(result(estimated), among)
        scored, notes = _acdc(model, cases, ablation, threshold, first)
        made = result(scored, notes)
    elif method == "exact":
        made, scored = _exact(model, cases, ablation, level, result)
    else:
        scored = _estimated(model, cases, ablation, steps if method == "eap-ig" else 1, positions=positions)
        made = result(scored)
        if all(case.aligned is None for case in cases):  # else the embedding does not carry all the difference
            made = replace(made, notes=(*made.notes, *choice.saturation(made, steps)))
        if level == "head":
            made = replace(made, per_node=np.nansum(made.per_pair, axis=2))
    model.note(scored.path, scored.notes)
    made = replace(made, kept=_kept(made, edges, threshold))
    if not made.kept.any() and np.isfinite(made.scores[made.exists]).all():
        what = f"--threshold {threshold:g}" if threshold is not None else f"--edges {EDGES if edges is None else edges}"
        made = replace(made, notes=(*made.notes, f"no edges lie on a way to the logits with {what}: keep more"))
    return unless_interrupted(made, scored.interrupt)


def _check(
    method: str,
    edges: int | None,
    threshold: float | None,
    level: str,
    steps: int | None,
    among: int | None,
    positions: bool,
    metric: Metric,
) -> None:
    """Refuse flags that say nothing or do not go together.

    Raises
    ------
    InputError
        What to type instead is said.
    """
    if edges is not None and threshold is not None:
        raise InputError("--edges and --threshold each say how large the circuit is; give one of them")
    if edges is not None and edges < 1:
        raise InputError(f"--edges {edges} keeps nothing; use 1 or more")
    if threshold is not None and not 0 < threshold < float("inf"):
        raise InputError(f"--threshold {threshold:g} is no size of a score; use a number above 0, such as 0.01")
    if among is not None and method != "acdc":
        raise InputError(
            f"--among is where acdc begins; {method} scores every edge: leave it out, or use --method acdc"
        )
    if among is not None and among < 1:
        raise InputError(f"--among {among} leaves nothing to begin with; use 1 or more, such as 1000")
    if steps is not None and steps < 2 and (method == "eap-ig" or among is not None):
        raise InputError(f"--steps {steps} is no path; use 2 or more, such as 5, or --method eap for one gradient")
    if level == "head" and method == "acdc":
        raise InputError("acdc takes away edges, not heads; use --level edge, or --method eap-ig")
    if level == "head" and threshold is not None:
        raise InputError("--threshold is for the scores of edges; with --level head say how many, with --edges")
    if positions and method in {"acdc", "exact"}:
        raise InputError(f"{method} ablates an edge at all positions at once; leave --positions out, or use eap-ig")
    if method == "eap" and metric.needs_clean:
        raise InputError("kl has no slope in the clean run, where it is 0; use --method eap-ig, or --metric logit-diff")


def _estimated(
    model: LoadedModel, cases: Sequence[Case], ablation: str, steps: int | None, *, positions: bool = False
) -> EdgeScores:
    from interp.engine.circuits.eap import attribute_edges

    return attribute_edges(model, cases, ablation=ablation, steps=steps, positions=positions, on_step=model.on_step)


def _exact(
    model: LoadedModel,
    cases: Sequence[Case],
    ablation: str,
    level: str,
    result: Callable[[EdgeScores], CircuitResult],
) -> tuple[CircuitResult, EdgeScores]:
    """Ablate every edge by itself and, where nodes are ranked, all that each writes."""
    from interp.engine.circuits.exact import exact_edges
    from interp.engine.circuits.subgraph import Subset

    per_node = np.zeros((0, 0), np.float32)
    if level == "head":
        per_node = Subset(model, cases, ablation).nodes(on_step=model.on_step).float().numpy()
    scored = exact_edges(model, cases, ablation=ablation, on_step=_remaining(model))
    return replace(result(scored), per_node=per_node), scored


def _acdc(
    model: LoadedModel, cases: Sequence[Case], ablation: str, threshold: float | None, first: NDArray[np.bool_] | None
) -> tuple[EdgeScores, list[str]]:
    """Return for each edge the largest threshold that it survives, and what is worth knowing.

    `first` are the edges to begin with, ``bool [writer, reader]``; all where there are none.
    """
    import torch

    from interp.engine.circuits import edges as engine
    from interp.engine.circuits.acdc import acdc, survived
    from interp.engine.circuits.subgraph import Subset
    from interp.engine.patching import driver

    subset = Subset(model, cases, ablation)
    ends = subset.run(torch.stack([subset.whole, subset.nothing]))
    span = abs(float(ends[0].mean() - ends[1].mean()))
    grid = [threshold] if threshold is not None else (span * np.geomspace(_LEAST, _MOST, POINTS)).tolist()
    if not all(size > 0 for size in grid):
        raise InputError("ablating all edges changes nothing in the metric, so there is no scale; give a --threshold")
    begin = subset.exists if first is None else torch.from_numpy(first)
    _warn_of_hours(subset, begin, len(grid))
    left: dict[int, tuple[Tensor, Tensor]] = {}
    total = len(grid) * int(begin.sum())
    stopped, interrupt = driver.contained(
        lambda: acdc(subset, grid, on_step=_remaining(model), into=left, among=begin),
        lambda: f"{sum(int(decided.sum()) for _, decided in left.values()):,}/{total:,} decisions",
    )
    began = f"ACDC began with the strongest {int(begin.sum()):,} edges by EAP-IG; what it never had scores 0"
    notes = [] if first is None else [began]
    if threshold is None:
        shown = f"{min(grid):.2g} to {max(grid):.2g}"
        notes.append(
            f"ACDC was run with {len(grid)} thresholds from {shown}; an edge's score is the largest it survives"
        )
    scored = engine.EdgeScores(
        subset.writers,
        subset.readers,
        subset.exists,
        per_pair=torch.zeros(0, *subset.exists.shape),
        by_position=None,
        clean=ends[0],
        ablated=ends[1],
        source=ends[1] if ablation == "corrupted" else engine.corrupted(model, subset.net, subset.cases),
        path=subset.path,
        stopped=stopped,
        interrupt=interrupt,
    )
    kept = torch.stack([*(stays for stays, _ in left.values()), subset.nothing])
    scored.whole = survived(kept, [*(grid[number] for number in left), 0.0], subset.exists)
    smallest = min(range(len(grid)), key=grid.__getitem__)
    _, decided = left.get(smallest, (None, subset.nothing))
    # What no threshold has kept so far, a smaller one may keep that was not reached, or not finished.
    scored.whole[(scored.whole == 0) & begin & ~decided] = float("nan")
    return scored, notes


def _warn_of_hours(subset: Subset, begin: Tensor, thresholds: int) -> None:
    """Say how long ACDC takes from `begin`, ``bool [writer, reader]``, where that is long."""
    edges = int(begin.sum())
    started = time.perf_counter()
    subset.run(begin[None])
    seconds = (time.perf_counter() - started) * edges * thresholds * _SHARED
    if seconds > _LONG:
        fewer = "--among 1000 begins with the strongest by eap-ig" if edges > 1000 else "a smaller --among is quicker"
        warnings.warn(
            f"acdc decides {edges:,} edges one by one for {thresholds} threshold{'s' * (thresholds > 1)}: about "
            f"{lasting(seconds)}; {fewer}, and one --threshold is a twelfth of what is tried without",
            stacklevel=2,
        )


def _remaining(model: LoadedModel) -> OnStep:
    """Return what tells whoever watches how far a long method is, and how long it still takes."""
    started = time.perf_counter()

    def step(done: int, total: int) -> None:
        seconds = (time.perf_counter() - started) * (total - done) / max(1, done)
        model.on_step(done, total, f"about {lasting(seconds)} left" if done < total else "")

    return step


def _notes(cases: Sequence[Case], ablation: str, metric: Metric, method: str) -> list[str]:
    """Return what a reader of the scores would not expect."""
    found: list[str] = []
    if ablation == "mean" and len({case.source for case in cases}) == 1:
        found.append(ONE_MEAN)
    if metric.function is None and metric.name in LESS_IS_BETTER and method != "acdc":
        found.append(f"{metric.name} grows where the answer is lost: an edge that helps has a score below 0")
    return found


def _result(
    model: LoadedModel,
    pairs: Pairs,
    encoded: Sequence[Encodings],
    scored: EdgeScores,
    metric: Metric,
    notes: Sequence[str],
) -> CircuitResult:
    """Return the scores as a circuit of no edges."""
    shape = model.geometry
    exists = scored.exists.numpy()
    checks = check(model, encoded, metric, scored.clean.tolist(), scored.source.tolist())
    scores: Float = scored.scores.numpy()
    lost = int((exists & ~np.isfinite(scores)).sum())
    first: list[str] = []
    if scored.stopped:
        first.append(f"partial: {scored.stopped}; {lost:,} edges have no score and are not kept")
    elif lost:
        first.append(f"the scores of {lost:,} edges are NaN or infinite and are not kept")
    return circuit_of(
        scored,
        shape.n_heads // shape.n_kv_heads,
        metric=metric.name,
        positions=encoded[0].clean.strings,
        checks=checks,
        task=pairs.task,
        labels=dict(labels.of(model)),
        notes=(*first, *checks.warnings, *notes),
    )


def _kept(result: CircuitResult, edges: int | None, threshold: float | None) -> NDArray[np.bool_]:
    """Return the circuit's edges; none whose score is not known, or 0, which is what did not survive ACDC."""
    if threshold is not None:
        return result.prune(threshold).kept
    strong = choice.of_size(result, EDGES if edges is None else edges)
    known = strong & np.isfinite(result.scores) & ((result.scores != 0) | (result.level == "head"))
    return known if (known == strong).all() else result.connected(known)
