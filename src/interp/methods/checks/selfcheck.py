"""Methods that find circuits, scored on this machine against models whose circuit is known by construction."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import command
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared.circuit.scored import scores_by
from interp.methods._shared.circuit.selfcheck_result import BARS, METHODS, SelfcheckResult, rounded
from interp.methods._shared.intervals import LEAST, jackknifed, too_few
from interp.methods._shared.pairs import encode
from interp.results import Provenance
from interp.spec import Metric

if TYPE_CHECKING:
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.cases import Case
    from interp.engine.pool.protocol import Pool, Reply
    from interp.interface.session import Session
    from interp.results.tables import Float
    from interp.truth import Compiled

    Scores = Callable[[], Float]

_WEAK = 0.98  # a method's lowest below it is explained, whether it reaches a bar or not
_WHY = {
    "eap": "the clean run's slope is small where a softmax is nearly sure",
    "eap-ig": "slopes on the way from the ablated to the clean run vanish, or cancel where a head turns on the way",
}


def auroc(scores: Float, true: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: how often a true one has the larger score, ties counted half.

    Examples
    --------
    >>> auroc(np.array([0.9, 0.1, 0.5, 0.1]), np.array([True, False, False, True]))
    0.625
    """
    above, below = scores[true][:, None], scores[~true]
    return float(((above > below) + 0.5 * (above == below)).mean())


@command
def selfcheck(
    session: Session,
    *,
    program: Literal["reverse", "histogram", "induction", "ioi"] | None = None,
    ablation: Literal["corrupted", "mean", "zero"] | None = None,
    n: int = 16,
    seed: int = 0,
) -> SelfcheckResult:
    """Score the circuit methods on this machine, on small models whose true edges are known by construction.

    Each model is a program compiled into weights: a few heads and MLPs compute it, and all others are distractors with
    random weights. An edge is true where its reader reads a variable that its writer writes and that the ablation
    changes; false where it reads none. An edge that carries what is the same after the ablation (a position, in the
    corrupted prompt and in the mean) has no single-edge truth and is left out. No variable has two writers, so there
    are no OR-gates. Edges are ranked by the size of their score. No model has to be loaded, and none of yours is used.

    Parameters
    ----------
    program
        One of the compiled models; all when not given.
    ablation
        What an ablated edge carries; all three, one after the other, when not given.
    n
        How many pairs each model is run on.
    seed
        Of the pairs, and of the random scores.

    Returns
    -------
    SelfcheckResult
        AUROC and seconds per model, ablation and method.

    Raises
    ------
    InputError
        Fewer than two pairs.

    Notes
    -----
    ``exact`` ablates every edge by itself; ``acdc`` has thresholds at 1 to 60 % of the metric; ``eap-ig`` has as many
    gradients as it needs; ``random`` is the mean of 200 draws; ``trace`` is an attribution graph by the MLPs' own
    neurons, which are perfect transcoders here, summed over positions and features: it holds what heads attend to, so
    its truth is of edges into values, MLPs and logits whose variable comes to the output by these alone, whatever the
    ablation. Bars: exact and acdc 0.95, eap-ig 0.90, trace 0.99. Lindner et al. (2023), "Tracr: Compiled Transformers
    as a Laboratory for Interpretability"; Conmy et al. (2023) score ACDC by its edges' ROC curve.

    Examples
    --------
    >>> interp.selfcheck(program="induction", ablation="corrupted", n=2).misses()
    []
    """
    from interp import truth
    from interp.engine.patching import driver

    if n < 2:
        raise InputError(f"the mean ablation needs two pairs or more, not {n}; use --n 16")
    programs = tuple(truth.PROGRAMS) if program is None else (program,)
    ablations = truth.ABLATIONS if ablation is None else (ablation,)
    started = time.perf_counter()
    found = _nothing(programs, ablations, n, seed)
    watcher = session.on_step

    def step(said: str) -> None:
        if watcher is not None:
            watcher(int(np.isfinite(found.auroc).sum()), found.auroc.size, said)

    path, lives = "", list[str]()

    def run() -> None:
        nonlocal path
        if session.pool is not None:
            path = _shared(session.pool, found, step, lives)
            return
        for place, name in enumerate(programs):
            _check(truth.build(name), found, place, step)

    stopped, interrupt = driver.contained(
        run, lambda: f"{int(np.isfinite(found.auroc).sum())} of {found.auroc.size} scores"
    )
    notes = [*([f"partial: {stopped}"] if stopped else []), *_explained(found), *too_few(n), *lives]
    provenance = replace(found.provenance, path=path, seconds=time.perf_counter() - started)
    result = replace(found, notes=tuple(notes), provenance=provenance)
    return unless_interrupted(result, interrupt)


def _nothing(programs: Sequence[str], ablations: Sequence[str], n: int, seed: int) -> SelfcheckResult:
    """Return a result in which nothing is reached yet."""
    shape = (len(programs), len(ablations))
    counts = np.zeros((3, *shape), dtype=np.int64)
    return SelfcheckResult(
        programs=tuple(programs),
        ablations=tuple(ablations),
        methods=METHODS,
        auroc=np.full((*shape, len(METHODS)), np.nan),
        interval=np.full((2, *shape, len(METHODS)), np.nan),
        seconds=np.full((*shape, len(METHODS)), np.nan),
        true=counts[0],
        false=counts[1],
        undefined=counts[2],
        hidden={},
        pairs=n,
        seed=seed,
        provenance=Provenance(technique="selfcheck", seed=seed),
    )


_ARRAYS = ("auroc", "interval", "seconds", "true", "false", "undefined")


def _shared(pool: Pool, found: SelfcheckResult, step: Callable[[str], None], lives: list[str]) -> str:
    """Score each model with each ablation as a shard, and return what a provenance says of that.

    Parameters
    ----------
    lives
        Is given what is worth knowing of the workers.
    """
    from interp.engine.pool import plain, sharing

    cells = [(p, a) for p in range(len(found.programs)) for a in range(len(found.ablations))]
    asked = {"pairs": found.pairs, "seed": found.seed}
    shards = [{**asked, "program": found.programs[p], "ablation": found.ablations[a]} for p, a in cells]
    tasks = {number: sharing.task("selfcheck", shard) for number, shard in enumerate(shards)}
    hidden: dict[int, dict[str, Any]] = {}
    notes: dict[str, None] = {}

    def take(number: int, future: Future[Reply]) -> None:
        reply = future.result()
        value = plain.whole(reply.head["value"], reply.tensors)
        p, a = cells[number]
        for name in _ARRAYS:
            held = getattr(found, name)
            held[(slice(None), p, a) if name == "interval" else (p, a)] = value[name]
        hidden[number] = value["hidden"]
        notes.update(dict.fromkeys(sharing.lives(reply)))
        step(f"selfcheck: on {pool.name}")

    step(f"selfcheck: on {pool.name}")
    try:
        sharing.each(pool, tasks.items(), take)
    finally:
        for number in sorted(hidden):
            found.hidden.update(hidden[number])
        lives.extend(notes)
    return sharing.said(len(tasks), pool).strip()


def scored(
    models: Sequence[LoadedModel], step: Callable[[], None], *, program: str, ablation: str, pairs: int, seed: int
) -> dict[str, Any]:
    """Return what a worker finds of one model and one ablation: arrays of `SelfcheckResult` without these axes."""
    from interp import truth

    del models  # it makes its own
    found = _nothing((program,), (ablation,), pairs, seed)
    _check(truth.build(program), found, 0, lambda _: step())
    arrays = {name: getattr(found, name) for name in _ARRAYS}
    cut = {name: held[:, 0, 0] if name == "interval" else held[0, 0] for name, held in arrays.items()}
    return {**cut, "hidden": found.hidden}


def _explained(found: SelfcheckResult) -> list[str]:
    """Return what is below its bar, and every method's worst, each with the true edge that it puts lowest."""
    weak = found.misses()
    for column, method in enumerate(found.methods):
        held = found.auroc[..., column]
        if method != "random" and np.isfinite(held).any() and np.nanmin(held) < _WEAK:
            p, a = (int(n) for n in np.unravel_index(int(np.nanargmin(held)), held.shape))
            weak.append((found.programs[p], found.ablations[a], method, float(held[p, a])))
    notes: list[str] = []
    for program, ablation, method, value in dict.fromkeys(weak):
        at = (slice(None), found.programs.index(program), found.ablations.index(ablation), found.methods.index(method))
        low, high = found.interval[at]
        between = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
        edge, score, exact, above = found.hidden[f"{program} {ablation} {method}"]
        bar = f", below {found.bars[method]:.2f}" if value < found.bars[method] else ""
        why = f": {_WHY[method]}" if method in _WHY else ""
        notes.append(
            f"{method} has {rounded(value)}{between} on {program}, {ablation} ablation{bar}: {edge} is true and scores "
            f"{score:.2g}, less than {above} false edges, where ablating it costs {exact:.2g}{why}"
        )
    return notes


def _check(made: Compiled, found: SelfcheckResult, number: int, step: Callable[[str], None]) -> None:
    """Score every method on one compiled model, and write it into `found`."""
    from interp.engine.model.load import Options, load

    name = made.program.name
    model = load(made.bridge(), name=name, options=Options())

    def all_of_them() -> None:
        cases = cases_of(model, made, found.pairs, found.seed)
        for place, ablation in enumerate(found.ablations):
            edges, true = _edges(made, ablation, found, (number, place))
            exact: Float | None = None
            for column, method in enumerate(found.methods):
                step(f"{name}, {ablation} ablation, {method}")
                started = time.perf_counter()
                of = _carried(made) if method == "trace" else (edges, true)
                scores, each = scores_by(method, model, cases, of[0], ablation=ablation, seed=found.seed)
                found.seconds[number, place, column] = time.perf_counter() - started
                found.interval[:, number, place, column] = _over_pairs(each, of[1])
                scores = np.abs(scores)
                exact = scores if exact is None else exact
                values = [auroc(some, of[1]) for some in scores.reshape(-1, len(of[1]))]
                found.auroc[number, place, column] = float(np.mean(values))
                if method != "random":
                    costs = dict(zip(edges, exact.tolist(), strict=True))
                    _note_lowest(found, f"{name} {ablation} {method}", of[0], scores, costs, of[1])
        step(name)

    model.operate("selfcheck", {}, lambda _: all_of_them())
    model.close()


def _over_pairs(each: Float, true: NDArray[np.bool_]) -> Float:
    """Return the 95 % interval of the AUROC of mean scores, of ``each [pair, edge]``; NaN of fewer than four pairs."""
    if len(each) < LEAST:
        return np.full(2, np.nan)
    total = each.sum(0)
    without = np.array([auroc(np.abs(total - own), true) for own in each])
    return np.clip(jackknifed(auroc(np.abs(total), true), without), 0, 1)


def _edges(
    made: Compiled, ablation: str, found: SelfcheckResult, at: tuple[int, int]
) -> tuple[list[tuple[str, str]], NDArray[np.bool_]]:
    """Return the edges whose truth is defined, and which of them are true; their numbers go into `found`."""
    truth = made.truth(ablation)
    edges = [edge for edge, true in truth.items() if true is not None]
    true = np.array([bool(truth[edge]) for edge in edges])
    found.true[at], found.false[at], found.undefined[at] = true.sum(), (~true).sum(), len(truth) - len(edges)
    return edges, true


def _carried(made: Compiled) -> tuple[list[tuple[str, str]], NDArray[np.bool_]]:
    """Return the edges whose truth is defined where what heads attend to is held, and which of them are true."""
    truth = made.carried_truth()
    edges = [edge for edge, true in truth.items() if true is not None]
    return edges, np.array([bool(truth[edge]) for edge in edges])


def _note_lowest(
    found: SelfcheckResult,
    where: str,
    edges: Sequence[tuple[str, str]],
    scores: Float,
    exact: Mapping[tuple[str, str], float],
    true: NDArray[np.bool_],
) -> None:
    lowest = int(np.where(true, scores, np.inf).argmin())
    above = int((scores[~true] >= scores[lowest]).sum())
    if above:
        found.hidden[where] = (
            " → ".join(edges[lowest]),
            float(scores[lowest]),
            exact.get(edges[lowest], math.nan),
            above,
        )


def cases_of(model: LoadedModel, made: Compiled, n: int, seed: int) -> list[Case]:
    """Return a compiled model's pairs, ready to run."""
    metric = Metric()
    return pairs_of.cases(model, encode(model, made.pairs(n, seed), metric), metric, "noise")


__all__ = ["BARS", "METHODS", "SelfcheckResult", "auroc", "selfcheck"]
