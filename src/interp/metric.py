"""What a run is scored by: plain data, which the engine measures with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from interp.errors import InputError, unknown

LOSS = "loss"
METRICS = ("logit-diff", "logit", "logprob", "prob", "rank", "kl", LOSS)
WHOLE = "whole answer"  # log-probability of an answer of several tokens: what the metrics in `OF_WHOLE` are made of
OF_WHOLE = ("logit-diff", "logprob", "prob")


@dataclass(frozen=True)
class Metric:
    """What is measured on a run's logits.

    `name` is one of `METRICS`, or the name of `function`, which takes the last position's logits ``[batch, d_vocab]``
    and returns ``[batch]``. Answers may be sets of tokens: ``logit`` is then the log of the sum of exponentials,
    ``logit-diff`` the log of the odds between the two sets, ``prob`` and ``logprob`` of the whole set, ``rank`` of its
    best token (0 is the top). ``kl`` is the Kullback–Leibler divergence from the clean run's distribution, in nats.
    ``loss`` is the mean over positions of −ln p of the clean text's next token, in nats; ``loss:NAME`` is that of the
    tokens of one span.

    Parameters
    ----------
    positions
        ``"all"`` for a function of all logits, ``[batch, position, d_vocab]``. A function that has an attribute
        `positions` says so itself.

    Raises
    ------
    InputError
        Other positions than these.

    Examples
    --------
    >>> Metric().name
    'logit-diff'
    >>> Metric("peak", lambda logits: logits.amax((1, 2)), positions="all").several
    True
    """

    name: str = "logit-diff"
    function: Callable[..., Any] | None = None
    positions: str = "last"

    def __post_init__(self) -> None:
        if self.positions not in {"last", "all"}:
            raise InputError(f"the positions of the metric {self.name} are 'last' or 'all', not {self.positions!r}")

    @property
    def several(self) -> bool:
        """Whether it is measured at several positions."""
        if self.function is not None:
            return self.positions == "all"
        return self.of_text or self.name == WHOLE

    @property
    def of_text(self) -> bool:
        """Whether it is the loss of the text that is read."""
        return self.function is None and self.name.partition(":")[0] == LOSS

    @property
    def span(self) -> str:
        """The span whose loss it is; an empty string for the whole text."""
        return self.name.partition(":")[2] if self.of_text else ""

    @property
    def needs_answer(self) -> bool:
        """Whether a pair must say which answer is right."""
        return self.function is None and self.name != "kl" and not self.of_text

    @property
    def needs_wrong(self) -> bool:
        """Whether a pair must say which answer is wrong."""
        return self.function is None and self.name == "logit-diff"

    @property
    def needs_clean(self) -> bool:
        """Whether it is measured from the clean run's distribution."""
        return self.function is None and self.name == "kl"


def resolve_metric(given: Any, *, several: bool = False) -> Metric:
    """Return a metric by its name, or the user's function as one.

    Parameters
    ----------
    several
        Whether one that is measured at several positions is taken.

    Raises
    ------
    InputError
        A name that is none, or several positions where one is measured.
    """
    found = given if isinstance(given, Metric) else _metric(given)
    if found.several and not several:
        raise InputError(
            f"the metric {found.name} is measured at many positions, as patch, ablate, mediate and path do; here it is "
            "one of the last position's logits, such as logit-diff"
        )
    return found


def _metric(given: Any) -> Metric:
    if callable(given):
        return Metric(getattr(given, "__name__", "function"), given, getattr(given, "positions", "last"))
    if isinstance(given, str):
        given = metric_name(given)
    if given not in METRICS and not (isinstance(given, str) and given.startswith(f"{LOSS}:") and given[5:]):
        raise unknown("metric", given, METRICS, f"use {', '.join(METRICS)} or a function")
    return Metric(name=given)


def metric_name(given: str) -> str:
    """Return a metric's name as it is written here: Python spells it with underscores; a span's name stays as it is.

    Examples
    --------
    >>> metric_name("Logit_Diff"), metric_name("loss:IO")
    ('logit-diff', 'loss:IO')
    """
    name, colon, span = given.partition(":")
    return name.lower().replace("_", "-") + colon + span
