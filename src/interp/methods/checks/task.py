"""A task's prompt pairs for the current model, with what is worth knowing about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from interp.interface.registry import technique
from interp.methods._shared.models import logits_of
from interp.methods._shared.pairs import check, encode
from interp.results import Result
from interp.results.effects import PairChecks
from interp.results.tables import lines_of
from interp.spec import Metric, Pair, Pairs

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class TaskResult(Result):
    """A task's pairs.

    Attributes
    ----------
    task
        Its name, or an empty string for pairs of one's own.
    pairs
        The pairs; their slots are positions as the model counts them, BOS included.
    metric
        The metric that the task is measured with.
    checks
        The pairs token by token, with the model's own behaviour on them.
    """

    task: str
    pairs: tuple[Pair, ...]
    metric: str
    checks: PairChecks

    _html: ClassVar[str] = "interp.views.kit.table:html"

    def summary(self) -> str:
        """Return how many pairs there are and how the model does on them."""
        clean, corrupted = self.checks.clean_metric, self.checks.corrupted_metric
        named = f"{self.task}, " if self.task else ""
        return (
            f"{self.provenance.model}: {named}{len(self.pairs)} pairs, {self.metric} "
            f"clean {sum(clean) / len(clean):+.2f}, corrupted {sum(corrupted) / len(corrupted):+.2f}"
        )

    def _lines(self) -> list[str]:
        metrics = zip(self.checks.clean, self.checks.clean_metric, self.checks.corrupted_metric, strict=False)
        rows = [("".join(tokens), float(a), float(b)) for tokens, a, b in list(metrics)[:4]]
        return lines_of(("clean prompt", "clean", "corrupted"), rows)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per pair: prompts, differing positions, answers, clean and corrupted metric."""
        return self.checks.to_frame()


@technique(body=Pairs, changes=True)
def task(model: LoadedModel, pairs: Pairs) -> TaskResult:
    """A task's prompt pairs, or pairs of your own, with how the model does on them.

    Parameters
    ----------
    pairs
        Clean and corrupted prompts of one length, with answers.

    Returns
    -------
    TaskResult
        ``pairs``, ``checks`` and ``to_frame()``; give ``pairs`` to `interp.patch`.

    Raises
    ------
    InputError
        Prompts that do not line up, or answers that are not one token.

    Examples
    --------
    >>> interp.task("ioi", n=32, seed=0).pairs[0].answer
    (' Adam',)
    """
    from interp.engine.metrics import Scorer

    metric = Metric(pairs.metric or "logit-diff")
    encoded = encode(model, pairs, metric)
    scorers = [Scorer(metric, e.answer, e.wrong) for e in encoded]

    def measured(which: str) -> list[float]:
        runs = zip(scorers, encoded, strict=True)
        return [float(s.of_logits(logits_of(model, getattr(e, which)).float()[None])[0]) for s, e in runs]

    checks = check(model, encoded, metric, measured("clean"), measured("corrupted"))
    return TaskResult(task=pairs.task, pairs=pairs.pairs, metric=metric.name, checks=checks, notes=checks.warnings)
