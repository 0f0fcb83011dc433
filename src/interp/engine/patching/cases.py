"""Pairs of prompts, ready to run: token ids, what is measured and where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from interp.engine import exactness
from interp.engine.forecast.work import NOTHING
from interp.engine.metrics import Scorer, upcast
from interp.ids import differing

if TYPE_CHECKING:
    from interp.engine.forecast.work import Stored, Work
    from interp.engine.model.loaded import LoadedModel

Ids = tuple[int, ...]
# A span as a patch takes it: positions of the base run, each with those of the source run whose mean it is given.
Aligned = tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Case:
    """One pair, ready to run.

    Attributes
    ----------
    base, source
        Token ids of the run that is changed and of the run whose activations are put into it.
    scorer
        The metric; for ``kl`` the clean run's distribution is put into it.
    position
        The position whose logits are measured; of several (see `Scorer.positions`) the last.
    clean_base
        Whether the base is the clean run.
    source_position
        The position whose logits are measured in the source run; `position` where the runs are of one length.
    spans
        What is patched span by span.
    aligned
        What each position of the base run is given where the source run stands in for it; ``None`` where that is the
        same position throughout. Without it the runs are of one length.
    heard
        Of paths: for each receiver where it reads what is sent, ``None`` for everywhere; empty where all do so.
    """

    base: Ids
    source: Ids
    scorer: Scorer
    position: int
    clean_base: bool = False
    source_position: int = -1
    spans: tuple[Aligned, ...] = ()
    aligned: Aligned | None = None
    heard: tuple[tuple[int, ...] | None, ...] = ()

    def __post_init__(self) -> None:
        if self.source_position < 0:
            object.__setattr__(self, "source_position", self.position)

    @property
    def last(self) -> bool:
        """Whether the base run is measured at its last position alone."""
        return _last(self.base, self.position, self.scorer)

    @property
    def first(self) -> int:
        """The first position that matters: where the prompts differ, or one that is measured if that is earlier."""
        return min(self.start, self.position + 1 - self.scorer.positions)

    @property
    def start(self) -> int:
        """The first position at which the two prompts differ; their length where they do not."""
        return next(iter(differing(self.base, self.source)), len(self.base))

    def with_clean(self, base: Tensor, source: Tensor) -> Case:
        """Return the case, its metric knowing the clean run's distribution.

        Parameters
        ----------
        base, source
            Logits of the two unpatched runs where they are measured, ``[1, …]``.
        """
        return replace(self, scorer=self.scorer.with_clean((base if self.clean_base else source)[0]))


def unpatched(model: LoadedModel, source_model: LoadedModel, case: Case) -> tuple[Case, Tensor, Tensor]:
    """Run `case` by the plain hooked forward.

    Returns
    -------
    tuple
        The case, its metric ready; the metric of its base run; that of its source run.
    """
    runs = ((model, case.base, case.position), (source_model, case.source, case.source_position))
    logits = [_logits(of, ids, at, case.scorer) for of, ids, at in runs]
    case = case.with_clean(*logits)
    base, source = (case.scorer.of_logits(end)[0] for end in logits)
    return case, base, source


def unpatched_differ(
    model: LoadedModel, source_model: LoadedModel, cases: Sequence[Case], base: Tensor, source: Tensor | None
) -> Iterator[float]:
    """Yield how far the unpatched runs' metrics of a few cases are from the plain hooked forward's.

    Parameters
    ----------
    base, source
        ``float64 [case]``; a source of ``None`` is not compared.
    """
    for number, case in enumerate(cases[: exactness.sample_of(model)]):
        _, *ends = unpatched(model, source_model, case)
        yield exactness.difference(base[number], ends[0])
        if source is not None:
            yield exactness.difference(source[number], ends[1])


def plain_ends(stored: Stored, there: Stored, cases: Iterable[Case]) -> Work:
    """Ask for what `unpatched` runs, of the store as it will be, and return what that adds to its work.

    The source's model has the store `there`.
    """
    before = stored.work
    for case in cases:
        for store, ids, at in ((stored, case.base, case.position), (there, case.source, case.source_position)):
            store.plain(ids, "last_logits" if _last(ids, at, case.scorer) else "logits")
    return stored.work.less(before)


def ready(model: LoadedModel, source_model: LoadedModel, cases: Sequence[Case]) -> list[Case]:
    """Return cases whose metrics know the clean run's distribution, by the plain forward, where they ask for that."""
    return [unpatched(model, source_model, case)[0] if case.scorer.metric.needs_clean else case for case in cases]


def ready_work(stored: Stored, there: Stored, cases: Sequence[Case]) -> Work:
    """Return the work of `ready`."""
    return plain_ends(stored, there, cases) if cases[0].scorer.metric.needs_clean else NOTHING


def measured(cases: Sequence[Case], model: LoadedModel, source_model: LoadedModel) -> exactness.Key:
    """Return what a comparison of such cases depends on, beside the model: the metric, and the source's model."""
    other = None if source_model is model else (id(source_model), source_model.fingerprint())
    beside = ("aligned",) if any(case.aligned is not None for case in cases) else ()
    return exactness.of_metric(cases[0].scorer.metric), other, *beside


def by_length(prompts: Sequence[Sequence[int]]) -> dict[int, list[int]]:
    """Return length → the numbers of the prompts that have it, the shortest first.

    Examples
    --------
    >>> by_length([(1, 2), (3,), (4, 5)])
    {1: [1], 2: [0, 2]}
    """
    found: dict[int, list[int]] = {}
    for number, ids in enumerate(prompts):
        found.setdefault(len(ids), []).append(number)
    return dict(sorted(found.items()))


def by_shape(cases: Sequence[Case]) -> list[list[int]]:
    """Return the numbers of the cases that can run together, the shortest first.

    Their base runs have one length, and so have their source runs where these are aligned.
    """
    shapes = [(len(case.base), -1 if case.aligned is None else len(case.source)) for case in cases]
    return [[number for number, own in enumerate(shapes) if own == shape] for shape in sorted(set(shapes))]


def _last(ids: Sequence[int], position: int, scorer: Scorer) -> bool:
    """Return whether the last position's logits alone are measured."""
    return position == len(ids) - 1 and not scorer.metric.several


def _logits(model: LoadedModel, ids: Sequence[int], position: int, scorer: Scorer) -> Tensor:
    """Return a plain run's logits where they are measured, ``[1, d_vocab]`` or ``[1, position, d_vocab]``."""
    if _last(ids, position, scorer):
        return upcast(model.activations_of(ids, ["last_logits"])["last_logits"])
    return upcast(scorer.measured(model.activations_of(ids, ["logits"])["logits"], position))
