"""A circuit's evidence: does it do the task alone, does the task need it, and would a random one do as well?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from interp.methods import circuit_choice
from interp.methods.circuit_result import CircuitResult
from interp.methods.circuits import require_causal
from interp.methods.pairing import Encodings, encode, from_task
from interp.methods.patch import resolve_metric
from interp.methods.predict import predicted
from interp.methods.resampling import of_ratio
from interp.registry import technique
from interp.results import Provenance, Result
from interp.spec import InputError, Interrupted, Metric, MetricName, Pair, Pairs, Prompt, Variable, printable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model import LoadedModel
    from interp.engine.subset import Subset

    Float = NDArray[np.float64]
    Mask = NDArray[np.bool_]

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of all edges; Mueller et al. (2025)
REMOVABLE = 0.01  # of faithfulness: what a single edge takes with it when it goes, at the least
_RESAMPLES = 100


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Card(Result):
    """The evidence for a circuit.

    All faithfulness here is (m − m(∅)) / (m(M) − m(∅)), a ratio of means over pairs: 1 is the whole model's metric,
    m(M), and 0 that with every edge ablated, m(∅). Intervals are 95 % bootstrap intervals over pairs. What was not
    reached is NaN.

    Attributes
    ----------
    edges, existing
        How many edges the circuit has, and the model.
    method, level
        How it was found; see `CircuitResult`.
    metric, ablation, task
        What was measured, what an ablated edge carries (the ``mean`` is over these pairs), on what task.
    pairs
        Which pairs: ``fresh`` ones, drawn with `seed`, or the ``same`` that the circuit was chosen by.
    seed
        Of the pairs, and of what is drawn besides.
    whole, nothing, alone, without
        ``float64 [pair]``: the metric of the whole model, with every edge ablated, of the circuit alone (all other
        edges ablated) and of the model without the circuit's edges.
    faithfulness, faithfulness_interval, per_pair
        Of the circuit alone: how far it is sufficient. `per_pair` is ``float64 [pair]``.
    left, left_interval, left_per_pair
        Of the model without the circuit's edges: 0 where the circuit is complete, and so necessary.
    sizes, curve, curve_interval
        ``int64 [point]``, ``float64 [point]``, ``float64 [2, point]``: faithfulness of the circuits that the same
        ranking makes of fewer and of more edges; the first point is no edge, the last all of them.
    ranking
        By what: ``absolute score`` (an edge that works against the answer counts as much as one for it).
    cpr, cmd
        The areas under the curve, ∫ f dk, and between it and 1, ∫ |1 − f| dk, over the share k of edges.
    marginal_edges, marginal, marginal_interval
        The strongest edges, and ``float64 [edge]``, ``[2, edge]``: what faithfulness loses without each alone.
    removable
        Those of them whose loss is below `REMOVABLE`, each by itself.
    random, random_sizes
        ``float64 [circuit]``, ``int64 [circuit]``: faithfulness and size of random circuits; `matching` says how alike.
    p_value
        The share of circuits, random ones and this, that are as faithful as this: never 0.
    stability
        ``float64 [resample]``: the Jaccard index of this circuit's edges and of those that its scores make on pairs
        drawn anew; none where scores are not per pair.
    forwards, seconds
        Runs of one prompt, and wall-clock time.
    """

    edges: int
    existing: int
    method: str
    level: str
    metric: str
    ablation: str
    task: str
    pairs: str
    seed: int
    whole: Float
    nothing: Float
    alone: Float
    without: Float
    faithfulness: float
    faithfulness_interval: Float
    per_pair: Float
    left: float
    left_interval: Float
    left_per_pair: Float
    sizes: NDArray[np.int64]
    curve: Float
    curve_interval: Float
    ranking: str
    cpr: float
    cmd: float
    marginal_edges: tuple[str, ...]
    marginal: Float
    marginal_interval: Float
    removable: tuple[str, ...]
    random: Float
    random_sizes: NDArray[np.int64]
    p_value: float
    stability: Float
    forwards: int
    seconds: float

    matching: ClassVar[str] = (
        "of one size, on whole ways to the logits, the strongest by scores dealt anew among inputs of the same kind"
    )
    _html: ClassVar[str] = "interp.views.card:html"
    _svg: ClassVar[str | None] = "interp.views.card:svg"

    def summary(self) -> str:
        """Return the circuit's size, its faithfulness and how random ones do."""
        where = f"{self.task}, " if self.task else ""
        return (
            f"{self.provenance.model}: {where}{self.edges:,} of {self.existing:,} edges, faithfulness "
            f"{spread(self.faithfulness, self.faithfulness_interval)}, random circuits {self.chance()}"
        )

    def chance(self) -> str:
        """Return the random circuits' mean and standard deviation in words."""
        known = self.random[np.isfinite(self.random)]
        if len(known) < 2:
            return "not run"
        sd = float(known.std(ddof=1))
        return f"{_two(known.mean())} ± {f'{sd:.2f}' if sd >= 0.005 else f'{sd:.0e}'}"

    def says(self) -> list[tuple[str, str, str]]:
        """Return the card's lines: (name, value, what it says)."""
        count = len(self.whole)
        chosen = {"fresh": "fresh pairs, which did not choose the circuit", "same": "the pairs that chose the circuit"}
        lines = [
            (
                "measured",
                f"{printable(self.metric)}, n = {count}",
                f"{chosen[self.pairs]}{self._drawn()}; "
                f"{self.ablation} ablation; whole model {self.whole.mean():.2f}, all ablated {self.nothing.mean():.2f}",
            ),
            (
                "faithfulness",
                spread(self.faithfulness, self.faithfulness_interval),
                f"sufficiency: the circuit alone goes {_two(self.faithfulness)} of the way from all ablated to the "
                "whole model",
            ),
            (
                "completeness",
                spread(self.left, self.left_interval),
                f"necessity: without the circuit's edges, the model still goes {_two(self.left)} of that way",
            ),
            ("random", self.chance(), self._standing()),
            (
                "over size",
                f"CPR {self.cpr:.3f}, CMD {self.cmd:.3f}",
                f"areas of faithfulness over the share of edges, ranked by {self.ranking}",
            ),
            ("minimality", self._minimal(), self._spare()),
        ]
        if len(self.stability):
            low, high = np.quantile(self.stability, [0.025, 0.975])
            lines.append(
                (
                    "stability",
                    f"{self.stability.mean():.2f} [{low:.2f}, {high:.2f}]",
                    f"Jaccard index of the edges over {len(self.stability)} bootstrap resamples of the pairs that "
                    "chose them",
                )
            )
        else:
            why = "ACDC scores no pair by itself" if self.method == "acdc" else "there is one pair, or none by itself"
            lines.append(("stability", "not defined", why))
        lines.append(("run", f"{self.forwards:,} forwards, {self.seconds:.1f} s", f"seed {self.seed}"))
        return lines

    def _drawn(self) -> str:
        return f" (task {printable(self.task)}, seed {self.seed})" if self.pairs == "fresh" else ""

    def _standing(self) -> str:
        known = int(np.isfinite(self.random).sum())
        if known < 2:
            return "random circuits were not run"
        above = int((self.random >= self.faithfulness).sum())
        stands = "above all of them" if not above else f"below {above} of them"
        low, high = int(self.random_sizes.min()), int(self.random_sizes.max())
        sizes = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        return f"{known} circuits of {sizes} edges ({self.matching}): this one is {stands}, p = {self.p_value:.3f}"

    def _minimal(self) -> str:
        known = int(np.isfinite(self.marginal).sum())
        return f"{known - len(self.removable)} of {known}" if known else "not run"

    def _spare(self) -> str:
        known = int(np.isfinite(self.marginal).sum())
        if not known:
            return "edges were not removed"
        named = ", ".join(self.removable[:6]) + (f" and {len(self.removable) - 6} more" * (len(self.removable) > 6))
        spare = f"removable, each by itself: {named}" if self.removable else "none is removable by itself"
        return f"of the strongest edges take {REMOVABLE:g} of faithfulness or more with them; {spare}"

    def text(self) -> str:
        """Return the card's lines."""
        lines = [f"  {name:<13} {value:<22} {said}" for name, value, said in self.says()]
        first, *notes = super().text().split("\n")
        return "\n".join([first, *lines, *notes])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per finding: name, value, the ends of its interval, and what it says."""
        import pandas as pd

        nan = (float("nan"), float("nan"))
        known = self.random[np.isfinite(self.random)]
        around = (float(known.min()), float(known.max())) if len(known) else nan
        stable = (float(self.stability.min()), float(self.stability.max())) if len(self.stability) else nan
        said = {name: words for name, _, words in self.says()}
        rows = [
            ("faithfulness", self.faithfulness, *self.faithfulness_interval, said["faithfulness"]),
            ("completeness", self.left, *self.left_interval, said["completeness"]),
            ("random", float(known.mean()) if len(known) else float("nan"), *around, said["random"]),
            ("p value", self.p_value, *nan, said["random"]),
            ("CPR", self.cpr, *nan, said["over size"]),
            ("CMD", self.cmd, *nan, said["over size"]),
            ("removable", float(len(self.removable)), *nan, said["minimality"]),
            ("stability", float(self.stability.mean()) if len(self.stability) else nan[0], *stable, said["stability"]),
        ]
        return pd.DataFrame(rows, columns=["finding", "value", "low", "high", "what it says"])


def spread(value: float, ends: Float) -> str:
    """Return a value and its interval, where it has one.

    Examples
    --------
    >>> spread(0.5, np.array([0.4, 0.6]))
    '0.50 [0.40, 0.60]'
    """
    return f"{_two(value)} [{_two(ends[0])}, {_two(ends[1])}]" if np.isfinite(ends).all() else _two(value)


def _two(value: float) -> str:
    """Return a number with two decimals, and no minus before a zero."""
    return f"{round(float(value), 2) + 0.0:.2f}"


@technique(body=None)
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
) -> Card:
    """A circuit's evidence: faithfulness, completeness, minimality, random circuits of its size, stability.

    Parameters
    ----------
    circuit
        The circuit; in a magic, the name of a variable. It holds the card from then on, as ``circuit.card``.
    on
        fresh pairs of the circuit's task, or the same that it was chosen by; fresh where there is a task.
    n
        How many pairs; as many as it was chosen by, when not given.
    seed
        Of fresh pairs and of what is drawn; the one after the circuit's own when not given.
    random
        How many random circuits of its size to compare with; 0 for none.
    top
        How many of its strongest edges to take away, one at a time; 0 for none.
    metric
        Another metric than the one it was chosen by, or the name of a function of yours.

    Returns
    -------
    Card
        Everything with its interval; nothing as a bare number.

    Raises
    ------
    InputError
        What is no circuit, has no edges or is another model's, or pairs that cannot be had.
    Interrupted
        Stopped by Ctrl-C: what was found so far is in its ``result``.

    Notes
    -----
    Faithfulness, completeness, minimality: Wang et al. (2022), "Interpretability in the Wild". The curve, CPR and CMD:
    Mueller et al. (2025), "MIB: A Mechanistic Interpretability Benchmark". Random circuits: Shi et al. (2024),
    "Hypothesis Testing the Circuit Hypothesis in LLMs". Every run is exact (`interp.engine.subset`).

    Examples
    --------
    >>> circuit = interp.circuit(task="ioi", n=8, edges=60)  # doctest: +SKIP
    >>> interp.validate(circuit, n=8).faithfulness  # doctest: +SKIP
    0.98
    """
    require_causal(model, "validate")
    if not isinstance(circuit, CircuitResult):
        raise InputError(f"validate takes a circuit, not a {type(circuit).__name__}; %interp circuit makes one")
    made = _Evidence(model, circuit, on=on, n=n, seed=seed, random=random, top=top, metric=metric)
    interrupt = made.run()
    card = made.card()
    object.__setattr__(circuit, "card", card)  # the one thing that is found out later about a circuit as it is
    if interrupt is not None:
        raise Interrupted(card)
    return card


def validated(model: LoadedModel, circuit: CircuitResult, **options: Any) -> CircuitResult:
    """Return `circuit` with its evidence; the options are those of `validate`."""
    other = replace(circuit, groups=dict(circuit.groups), functions=dict(circuit.functions))
    known = validate.__kwdefaults__ or {}
    unknown = next((name for name in options if name not in known), None)
    if unknown is not None:
        raise InputError(f"validate has no argument {unknown!r}; it takes {', '.join(known)}")
    validate(model, other, **options)
    return other


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
        from interp.engine import metrics, sweep
        from interp.engine.subset import Subset

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
        self.metric = _metric(circuit, metric)
        self.notes: list[str] = []
        metrics.try_out(self.metric, model.geometry.d_vocab, model.device)
        origin = Origin.of(circuit)
        self.pairs = on or ("fresh" if origin.task else "same")
        self.seed = origin.seed + 1 if seed is None else seed
        encoded = self._encoded(origin, n)
        cases = [
            sweep.Case(
                base=e.clean.ids,
                source=e.corrupted.ids,
                scorer=metrics.Scorer(self.metric, e.answer, e.wrong),
                position=predicted(model, e.clean),
                clean_base=True,
            )
            for e in encoded
        ]
        self.subset: Subset = Subset(model, cases, circuit.ablation)
        mine = [[node.name for node in nodes] for nodes in (self.subset.writers, self.subset.readers)]
        if mine != [list(circuit.writers), list(circuit.readers)]:
            raise InputError(
                f"the circuit is of a model with {len(circuit.writers)} writers and {len(circuit.readers)} inputs, and "
                f"{model.name} has {len(mine[0])} and {len(mine[1])}; use {circuit.provenance.model or 'its own model'}"
            )
        before = circuit.provenance.fingerprint
        if before and before != model.fingerprint():
            self.notes.append("the circuit was found on another model, or on this one in another state")
        self._plan(random)

    # -- what is measured --------------------------------------------------------------------------------------------

    def _encoded(self, origin: Origin, n: int | None) -> list[Encodings]:
        """Return the pairs as tokens.

        Raises
        ------
        InputError
            No task to draw fresh pairs from, or no pairs that the circuit was chosen by.
        """
        if self.pairs == "same":
            return encode(self.model, origin.pairs(self.circuit, n), self.metric)
        if not origin.task:
            raise InputError("the circuit's pairs came from no task, so there are no fresh ones; use --on same")
        count = len(self.circuit.lint.clean) if n is None else n
        fresh = from_task(
            self.model, origin.task, n=count, seed=self.seed, corruption=origin.corruption, bos=origin.bos
        )
        encoded = encode(self.model, fresh, self.metric)
        seen = {tuple(ids) for ids in self.circuit.provenance.tokens}
        unseen = [e for e in encoded if e.clean.ids not in seen]
        if not unseen:
            raise InputError(
                f"seed {self.seed} of {origin.task} draws only pairs that chose the circuit; use another --seed"
            )
        if len(unseen) < len(encoded):
            left = len(encoded) - len(unseen)
            self.notes.append(f"{left} of the {count} pairs drawn had chosen the circuit and were left out")
        return unseen

    def _plan(self, random: int) -> None:
        """Draw up every run: (part → masks), in the order of what matters most."""
        circuit, total = self.circuit, int(self.circuit.exists.sum())
        chance = np.random.default_rng(self.seed)
        kept = circuit.kept
        self.random = [circuit_choice.by_chance(circuit, chance) for _ in range(random)]
        sizes = sorted({max(1, round(share * total)) for share in FRACTIONS})
        ranked = [circuit_choice.strongest(circuit, size) for size in sizes]
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
        self.parts: dict[str, list[Mask]] = {
            "ends": [exists, np.zeros_like(kept), kept, exists & ~kept],
            "random": self.random,
            "curve": list(self.curve.values()),
            "marginal": less,
        }
        pairs = len(self.subset.cases)
        self.found = {name: np.full((len(masks), pairs), np.nan) for name, masks in self.parts.items()}

    def run(self) -> BaseException | None:
        """Measure everything, or as much as there is until it stops; return the interrupt that stopped it."""
        from interp.engine import sweep

        stopped, interrupt = sweep.contained(self._runs, self._progress)
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

    def card(self) -> Card:
        """Return what was found."""
        circuit = self.circuit
        whole, nothing, alone, without = self.found["ends"]
        span = whole - nothing

        def share(values: Float) -> Float:
            """Return faithfulness, ``[…]``, of metrics ``[…, pair]``."""
            return _divided((values - nothing).mean(-1), span.mean())

        def sure(values: Float) -> Float:
            return of_ratio(np.moveaxis(values - nothing, -1, 0), span, self.seed)

        faithfulness = float(share(alone))
        random = share(self.found["random"])
        sizes = np.array([0, *self.curve, int(circuit.kept.sum()), int(circuit.exists.sum())])
        metrics = np.stack([nothing, *self.found["curve"], alone, whole])
        order = np.argsort(sizes, kind="stable")
        sizes, metrics = sizes[order], metrics[order]
        curve = share(metrics)
        lost = alone - self.found["marginal"]
        marginal = _divided(lost.mean(-1), span.mean())
        names = tuple(f"{writer} → {reader}" for writer, reader in self.marginal)
        spare = tuple(name for name, value in zip(names, marginal, strict=True) if value < REMOVABLE)
        strength = np.argsort(-np.nan_to_num(marginal, nan=-np.inf), kind="stable")
        seconds, forwards = time.perf_counter() - self.started, self.model.forwards - self.before
        shares = sizes / sizes[-1]
        known = random[np.isfinite(random)]
        return Card(
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
            faithfulness=faithfulness,
            faithfulness_interval=sure(alone),
            per_pair=_divided(alone - nothing, span),
            left=float(share(without)),
            left_interval=sure(without),
            left_per_pair=_divided(without - nothing, span),
            sizes=sizes,
            curve=curve,
            curve_interval=sure(metrics),
            ranking="absolute score",
            cpr=float(np.trapezoid(curve, shares)),
            cmd=float(np.trapezoid(np.abs(1 - curve), shares)),
            marginal_edges=tuple(names[n] for n in strength),
            marginal=marginal[strength],
            marginal_interval=of_ratio(lost.T, span, self.seed)[:, strength],
            removable=spare,
            random=random,
            random_sizes=np.array([int(mask.sum()) for mask in self.random], dtype=np.int64),
            p_value=float((1 + (known >= faithfulness).sum()) / (1 + len(known))) if len(known) else float("nan"),
            stability=self._stability(),
            forwards=forwards,
            seconds=seconds,
            notes=self._said(whole, span),
            provenance=Provenance(
                model=self.model.name, technique="validate", seed=self.seed, forwards=forwards, seconds=seconds
            ),
        )

    def _stability(self) -> Float:
        """Return the Jaccard index with the circuits that resampled pairs choose."""
        circuit, kept = self.circuit, self.circuit.kept
        each = np.nan_to_num(circuit_choice.of_pairs(circuit))
        if circuit.method == "acdc" or len(each) < 2:
            return np.zeros(0)
        chance, size, count = np.random.default_rng(self.seed), int(kept.sum()), len(each)
        found = np.zeros(_RESAMPLES)
        for n in range(_RESAMPLES):
            share = chance.multinomial(count, np.full(count, 1 / count)) / count
            scores = np.tensordot(share.astype(np.float32), each, axes=1)
            mask = circuit_choice.strongest(circuit, size, scores.astype(np.float64))
            found[n] = (mask & kept).sum() / (mask | kept).sum()
        return found

    def _said(self, whole: Float, span: Float) -> tuple[str, ...]:
        notes = list(self.notes)
        failing = int((whole <= 0).sum())
        if self.metric.name == "logit-diff" and failing:
            notes.append(f"the model prefers the wrong answer in {failing} of {len(whole)} pairs")
        if np.isfinite(span).all() and abs(span.mean()) < 1e-6:
            notes.append("ablating every edge changes nothing: faithfulness divides by that")
        if self.pairs == "same":
            notes.append("judged on the pairs that chose it, which flatters a circuit")
        return tuple(notes)


def _divided(above: Any, below: Any) -> Float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(above / below, dtype=np.float64)


def _metric(circuit: CircuitResult, given: Any) -> Metric:
    """Return the metric to measure with: the circuit's own when none is given.

    Raises
    ------
    InputError
        No such metric, or the circuit's own was a function that is gone.
    """
    if given is not None:
        return resolve_metric(given)
    own = circuit.provenance.arguments.get("metric")
    if callable(own) or isinstance(own, Metric):
        return resolve_metric(own)
    try:
        return resolve_metric(circuit.metric)
    except InputError:
        raise InputError(
            f"the circuit was chosen by {circuit.metric}, a function of yours; name it again with --metric"
        ) from None


@dataclass(frozen=True)
class Origin:
    """Where a circuit's pairs came from.

    Attributes
    ----------
    task, seed, corruption, bos
        As the command was given them; an empty task for pairs of one's own.
    """

    task: str
    seed: int
    corruption: str | None
    bos: bool | None

    @classmethod
    def of(cls, circuit: CircuitResult) -> Origin:
        """Return where the pairs of `circuit` came from, as its provenance says."""
        said: Mapping[str, Any] = circuit.provenance.arguments
        task = said.get("task") or ""
        seed = circuit.provenance.seed
        drawn = int(said.get("seed", 0 if seed is None else seed))
        return cls(str(task), drawn, said.get("corruption"), said.get("bos"))

    @staticmethod
    def pairs(circuit: CircuitResult, n: int | None) -> Pairs:
        """Return the pairs that chose `circuit`, as token ids; the first `n` of them.

        Raises
        ------
        InputError
            It does not hold them, or fewer.
        """
        lint, ids = circuit.lint, circuit.provenance.tokens
        count = len(lint.clean)
        if len(ids) < 2 * count or not count:
            raise InputError("the circuit does not say which pairs chose it; find it again, or use --on fresh")
        if n is not None and n > count:
            raise InputError(f"the circuit was chosen by {count} pairs; --n {n} needs --on fresh, and a task")
        found = [
            Pair(
                Prompt(ids=tuple(ids[2 * number])),
                Prompt(ids=tuple(ids[2 * number + 1])),
                tuple(index for _, index in lint.answer[number]),
                tuple(index for _, index in lint.wrong[number]),
            )
            for number in range(count if n is None else n)
        ]
        return Pairs(tuple(found), task=circuit.task)


__all__ = ["REMOVABLE", "Card", "Origin", "validate", "validated"]
