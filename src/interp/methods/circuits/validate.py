"""A circuit's evidence: does it do the task alone, does the task need it, and would a random one do as well?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared.circuit import choice
from interp.methods._shared.circuit.origin import Origin, metric_of
from interp.methods._shared.circuit.report import REMOVABLE, CircuitReport
from interp.methods._shared.circuit.result import ONE_MEAN, CircuitResult
from interp.methods._shared.intervals import interval, of_ratio, too_few
from interp.methods._shared.models import require_causal
from interp.methods._shared.pairs import Encodings, encode, from_task
from interp.methods._shared.trace.result import TraceResult
from interp.results import Provenance, resolve, views_of
from interp.spec import Examples, MetricName, Variable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.engine.circuits.subgraph import Subset
    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float

    Mask = NDArray[np.bool_]

SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # of all edges; Mueller et al. (2025)


@technique(body=None, forecasts=True, changes=True)
def validate(
    model: LoadedModel,
    circuit: Variable,
    *,
    on: Literal["fresh", "same"] | None = None,
    n: int | None = None,
    seed: int | None = None,
    random: int = 20,
    top: int = 50,
    metric: MetricName | None = None,
    paraphrases: Examples | None = None,
    control: Examples | None = None,
) -> CircuitReport | TraceResult:
    """A circuit's evidence: faithfulness, completeness, minimality, random circuits of its size, stability.

    Of an attribution graph: its strongest features taken away and doubled in the model, beside what it foretells; with
    paraphrases of its prompt, how much of it their graphs have too.

    Parameters
    ----------
    circuit
        The circuit or the graph; in a magic, a variable's name. The report's `circuit` is the same with the report.
    on
        fresh pairs of the circuit's task, or the same that it was chosen by; fresh where there is a task.
    n
        How many pairs; as many as it was chosen by, when not given.
    seed
        Of fresh pairs and of what is drawn; the one after the circuit's own when not given, 0 of a graph.
    random
        How many random circuits of its size to compare with; 0 for none.
    top
        How many of its strongest edges (of a graph: features) to take away, one at a time; 0 for none.
    metric
        Another metric than the one it was chosen by, or the name of a function of yours.
    paraphrases
        Of a graph: a file of texts that say what its prompt says, one to a line or a blank line between two, or a list.
    control
        Unrelated prompts, likewise, whose graphs stand beside those; the paraphrases with their tokens in random order
        when not given.

    Returns
    -------
    CircuitReport
        Everything with its interval; nothing as a bare number. Of a graph, the graph with its `check` and, with
        paraphrases, its `stability`.

    Raises
    ------
    InputError
        What is no circuit, has no edges or is another model's, or pairs that cannot be had; a paraphrase that is empty,
        there twice, or behind which the target is another token.
    Interrupted
        Stopped by Ctrl-C: what was found so far is in its ``result``.

    Notes
    -----
    Faithfulness, completeness, minimality: Wang et al. (2022), "Interpretability in the Wild". The curve, CPR and CMD:
    Mueller et al. (2025), "MIB: A Mechanistic Interpretability Benchmark". Random circuits: Shi et al. (2024),
    "Hypothesis Testing the Circuit Hypothesis in LLMs". Every run is exact (`interp.engine.circuits.subgraph`).

    Examples
    --------
    >>> circuit = interp.circuit(task="ioi", n=8, edges=60)
    >>> interp.validate(circuit, n=8).faithfulness
    0.99...
    """
    require_causal(model, "validate")
    if isinstance(circuit, TraceResult):
        of_graph = resolve("interp.methods._shared.trace.validated:asked")
        prompts = {"paraphrases": paraphrases, "control": control, "seed": seed}
        return of_graph(model, circuit, top, {"on": on, "n": n, "metric": metric}, prompts)
    if not isinstance(circuit, CircuitResult):
        raise InputError(f"validate takes a circuit, not a {type(circuit).__name__}; %interp circuit makes one")
    if paraphrases is not None or control is not None:
        raise InputError("--paraphrases are of an attribution graph's prompt; a circuit is judged on pairs: --on, --n")
    made = _Evidence(model, circuit, on=on, n=n, seed=seed, random=random, top=top, metric=metric)
    interrupt = made.run()
    report = made.report()
    # A view of the circuit that is open says so from here on.
    view = views_of(circuit).made
    if view is not None and view.comm is not None:
        view.validated(report.circuit)
    return unless_interrupted(report, interrupt)


def validated(model: LoadedModel, circuit: CircuitResult, **options: Any) -> CircuitResult:
    """Return `circuit` with its evidence; the options are those of `validate`."""
    known = validate.__kwdefaults__ or {}
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        raise InputError(f"validate has no argument {unknown!r}; it takes {', '.join(known)}")
    return cast("CircuitReport", validate(model, circuit, **options)).circuit


class _Evidence:
    """A validation under way: what is asked, and what is found."""

    def __init__(
        self,
        model: LoadedModel,
        circuit: CircuitResult,
        *,
        on: str | None,
        n: int | None,
        seed: int | None,
        random: int,
        top: int,
        metric: Any,
    ) -> None:
        from interp.engine import metrics
        from interp.engine.circuits import edges, foreseen
        from interp.engine.circuits.subgraph import Subset
        from interp.engine.forecast.costs import foresee
        from interp.engine.forecast.work import Stored

        if not circuit.kept.any():
            raise InputError("the circuit has no edges: nothing can be said of it; keep more with --edges")
        if random < 0 or top < 0 or (n is not None and n < 1):
            flag, value = next(
                (f, v) for f, v in (("random", random), ("top", top), ("n", n)) if v is not None and v < (f == "n")
            )
            raise InputError(f"--{flag} {value} is too few; use {1 if flag == 'n' else 0} or more")
        self.started, self.before = time.perf_counter(), model.forwards
        self.model = model
        self.circuit = circuit
        self.top = top
        self.metric = metric_of(circuit, metric)
        self.notes: list[str] = []
        metrics.try_out(self.metric, model.geometry.d_vocab_out, model.device)
        origin = Origin.of(circuit)
        self.pairs = on or ("fresh" if origin.task else "same")
        self.seed = origin.seed + 1 if seed is None else seed
        encoded = self._encoded(origin, n)
        cases = pairs_of.cases(model, encoded, self.metric, "noise", align=origin.align, whole=True)
        mine = [[node.name for node in nodes] for nodes in edges.ends(model)]
        if mine != [list(circuit.writers), list(circuit.readers)]:
            raise InputError(
                f"the circuit is of a model with {len(circuit.writers)} writers and {len(circuit.readers)} inputs, and "
                f"{model.name} has {len(mine[0])} and {len(mine[1])}; use {circuit.provenance.model or 'its own model'}"
            )
        before = circuit.provenance.fingerprint
        if before and before != model.fingerprint():
            self.notes.append("the circuit was found on another model, or on this one in another state")
        self._plan(random, len(cases))
        runs = sum(len(masks) for masks in self.parts.values())
        foresee(model, lambda: foreseen.of_subset(model, cases, circuit.ablation, Stored(model), runs))
        self.subset: Subset = Subset(model, cases, circuit.ablation)

    # -- what is measured --------------------------------------------------------------------------------------------

    def _encoded(self, origin: Origin, n: int | None) -> list[Encodings]:
        """Return the pairs as tokens.

        Raises
        ------
        InputError
            No task to draw fresh pairs from, or no pairs that the circuit was chosen by.
        """
        if self.pairs == "same":
            return origin.encoded(self.model, self.circuit, n, self.metric)
        if not origin.task:
            raise InputError("the circuit's pairs came from no task, so there are no fresh ones; use --on same")
        count = len(self.circuit.checks.clean) if n is None else n
        fresh = from_task(
            self.model, origin.task, n=count, seed=self.seed, corruption=origin.corruption, bos=origin.bos
        )
        encoded = encode(self.model, fresh, self.metric)
        seen = set(self.circuit.provenance.prompts)
        unseen = [e for e in encoded if e.clean.ids not in seen]
        if not unseen:
            raise InputError(
                f"seed {self.seed} of {origin.task} draws only pairs that chose the circuit; use another --seed"
            )
        if len(unseen) < len(encoded):
            left = len(encoded) - len(unseen)
            self.notes.append(f"{left} of the {count} pairs drawn had chosen the circuit and were left out")
        return unseen

    def _plan(self, random: int, pairs: int) -> None:
        """Draw up every run: (part → masks), in the order of what matters most."""
        circuit, total = self.circuit, int(self.circuit.exists.sum())
        chance = np.random.default_rng(self.seed)
        kept = circuit.kept
        self.random = [choice.by_chance(circuit, chance) for _ in range(random)]
        sizes = sorted({max(1, round(share * total)) for share in SHARES[:-1]})
        ranked = [choice.of_size(circuit, size) for size in sizes]
        own = int(kept.sum())
        self.curve = {int(mask.sum()): mask for mask in ranked if 0 < mask.sum() < total and mask.sum() != own}
        self.marginal = [(edge.writer, edge.reader) for edge in circuit.ranked(kept)][: self.top]
        at = {name: n for n, name in enumerate(circuit.writers)}
        to = {name: n for n, name in enumerate(circuit.readers)}
        less: list[Mask] = []
        # Neighbours that differ in high layers alone share the runs of those below.
        self.marginal.sort(key=lambda edge: -to[edge[1]])
        for writer, reader in self.marginal:
            mask = kept.copy()
            mask[at[writer], to[reader]] = False
            less.append(mask)
        exists = circuit.exists
        # CPR ranks by the score, CMD by its size; the same circuit is run once.
        asked = [choice.of_share(circuit, share, absolute=absolute) for absolute in (False, True) for share in SHARES]
        different = {mask.tobytes(): mask for mask in asked}
        place = {key: n for n, key in enumerate(different)}
        self.shares = np.array([place[mask.tobytes()] for mask in asked]).reshape(2, len(SHARES))
        self.parts: dict[str, list[Mask]] = {
            "ends": [exists, np.zeros_like(kept), kept, exists & ~kept],
            "random": self.random,
            "curve": list(self.curve.values()),
            "areas": list(different.values()),
            "marginal": less,
        }
        self.found = {name: np.full((len(masks), pairs), np.nan) for name, masks in self.parts.items()}
        # Of no run, and before them all: a report does not wait for it at a stop.
        self.stability = choice.stability(circuit, self.seed)

    def run(self) -> BaseException | None:
        """Measure everything, or as much as there is until it stops; return the interrupt that stopped it."""
        from interp.engine.patching import driver

        stopped, interrupt = driver.contained(self._runs, self._progress)
        self.model.note(self.subset.path)
        if stopped:
            self.notes.insert(0, f"partial: {stopped}; what was not reached is NaN")
        return interrupt

    def _runs(self) -> None:
        import torch

        total = sum(values.size for values in self.found.values())
        before = 0
        for name, masks in self.parts.items():
            if masks:

                def step(done: int, _: int, before: int = before, name: str = name) -> None:
                    self.model.on_step(before + done, total, name)

                into = torch.from_numpy(self.found[name])
                self.subset.run(torch.from_numpy(np.stack(masks)), on_step=step, into=into)
            before += self.found[name].size

    def _progress(self) -> str:
        done = sum(int(np.isfinite(values).sum()) for values in self.found.values())
        return f"{done}/{sum(values.size for values in self.found.values())}"

    # -- what it says ------------------------------------------------------------------------------------------------

    def report(self) -> CircuitReport:
        """Return what was found."""
        circuit = self.circuit
        whole, nothing, alone, without = self.found["ends"]
        span = whole - nothing
        random = self._share(self.found["random"])
        seconds, forwards = time.perf_counter() - self.started, self.model.forwards - self.before
        return CircuitReport(
            edges=int(circuit.kept.sum()),
            existing=int(circuit.exists.sum()),
            method=circuit.method,
            level=circuit.level,
            metric=self.metric.name,
            ablation=circuit.ablation,
            task=circuit.task,
            pairs=self.pairs,
            seed=self.seed,
            whole=whole,
            nothing=nothing,
            alone=alone,
            without=without,
            faithfulness=float(self._share(alone)),
            faithfulness_interval=self._interval(alone),
            per_pair=_divided(alone - nothing, span),
            left=float(self._share(without)),
            left_interval=self._interval(without),
            left_per_pair=_divided(without - nothing, span),
            random=random,
            random_sizes=np.array([int(mask.sum()) for mask in self.random], dtype=np.int64),
            p_value=_p_value(float(self._share(alone)), random),
            stability=self.stability,
            forwards=forwards,
            seconds=seconds,
            notes=self._said(whole, span),
            provenance=Provenance(
                model=self.model.name, technique="validate", seed=self.seed, forwards=forwards, seconds=seconds
            ),
            _circuit=circuit,
            **self._over_size(),
            **self._without_each(),
        )

    def _share(self, values: Float) -> Float:
        """Return faithfulness, ``[…]``, of metrics ``[…, pair]``."""
        whole, nothing, _, _ = self.found["ends"]
        return _divided((values - nothing).mean(-1), (whole - nothing).mean())

    def _interval(self, values: Float) -> Float:
        """Return the ends of its interval, ``[2, …]``."""
        whole, nothing, _, _ = self.found["ends"]
        return of_ratio(np.moveaxis(values - nothing, -1, 0), whole - nothing)

    def _over_size(self) -> dict[str, Any]:
        """Return the curve over sizes, and its areas."""
        whole, nothing, alone, _ = self.found["ends"]
        sizes = np.array([0, *self.curve, int(self.circuit.kept.sum()), int(self.circuit.exists.sum())])
        order = np.argsort(sizes, kind="stable")
        sizes, metrics = sizes[order], np.stack([nothing, *self.found["curve"], alone, whole])[order]
        signed, absolute = self._share(self.found["areas"])[self.shares]
        return {
            "sizes": sizes,
            "curve": self._share(metrics),
            "curve_interval": self._interval(metrics),
            "ranking": choice.ranking(self.circuit),
            "cpr": float(np.trapezoid(signed, SHARES)),
            "cmd": float(np.trapezoid(np.abs(1 - absolute), SHARES)),
        }

    def _without_each(self) -> dict[str, Any]:
        """Return what the strongest edges take with them, the most first."""
        whole, nothing, alone, _ = self.found["ends"]
        lost = alone - self.found["marginal"]
        marginal = _divided(lost.mean(-1), (whole - nothing).mean())
        names = tuple(f"{writer} → {reader}" for writer, reader in self.marginal)
        order = np.argsort(-np.nan_to_num(marginal, nan=-np.inf), kind="stable")
        return {
            "marginal_edges": tuple(names[n] for n in order),
            "marginal": marginal[order],
            "marginal_interval": of_ratio(lost.T, whole - nothing)[:, order],
            "removable": tuple(name for name, value in zip(names, marginal, strict=True) if value < REMOVABLE),
        }

    def _said(self, whole: Float, span: Float) -> tuple[str, ...]:
        notes = list(self.notes)
        failing = int((whole <= 0).sum())
        if self.metric.name == "logit-diff" and failing:
            notes.append(f"the model prefers the wrong answer in {failing} of {len(whole)} pairs")
        notes += too_few(len(span))
        low, high = interval(span)
        if np.isfinite(span).all() and abs(span.mean()) < 1e-6:
            notes.append("ablating every edge changes nothing: faithfulness divides by that")
        elif low <= 0 <= high:
            notes.append(
                f"all edges together change the metric by {span.mean():+.2f} [{low:+.2f}, {high:+.2f}], which may be "
                "nothing: faithfulness divides by that, so take more pairs, or pairs that the model can do"
            )
        if self.circuit.ablation == "mean" and len({case.source for case in self.subset.cases}) == 1:
            notes.append(ONE_MEAN)
        if self.pairs == "same":
            notes.append("judged on the pairs that chose it, which flatters a circuit")
        return tuple(notes)


def _p_value(faithfulness: float, random: Float) -> float:
    """Return the share of circuits, random ones and this, that are as near to the whole model, which is at 1."""
    known = random[np.isfinite(random)]
    if not len(known):
        return float("nan")
    return float((1 + (np.abs(1 - known) <= abs(1 - faithfulness)).sum()) / (1 + len(known)))


def _divided(above: Any, below: Any) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below, dtype=np.float64)


__all__ = ["REMOVABLE", "CircuitReport", "Origin", "validate", "validated"]
