"""A `spec.Metric` on logits, or on the final residual stream of which only the needed logits are computed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.transformer.network import Network
from interp.errors import InputError
from interp.spec import Metric


@dataclass(frozen=True)
class Scorer:
    """A metric for one pair.

    Attributes
    ----------
    answer, wrong
        Token ids.
    clean
        The clean run's log-probabilities, ``[d_vocab]``, for ``kl``.
    """

    metric: Metric
    answer: tuple[int, ...]
    wrong: tuple[int, ...]
    clean: Tensor | None = None

    def with_clean(self, logits: Tensor) -> Scorer:
        """Return a scorer that knows the clean run's distribution of these logits, ``[d_vocab]``, if it asks for it."""
        return replace(self, clean=upcast(logits).log_softmax(-1)) if self.metric.needs_clean else self

    def of_logits(self, logits: Tensor) -> Tensor:
        """Return the metric of logits ``[n, d_vocab]``, as ``[n]``."""
        metric = self.metric
        if metric.function is not None:
            return _called(metric, logits)
        if metric.name == "kl":
            assert self.clean is not None
            logs = logits.log_softmax(-1)
            return (self.clean.exp() * (self.clean - logs)).sum(-1)
        right = logits[:, list(self.answer)]
        if metric.name == "logit":
            return right.logsumexp(-1)
        if metric.name == "logit-diff":
            return right.logsumexp(-1) - logits[:, list(self.wrong)].logsumexp(-1)
        if metric.name == "rank":
            return (logits > right.max(-1, keepdim=True).values).sum(-1).to(logits.dtype)
        logprob = right.logsumexp(-1) - logits.logsumexp(-1)
        return logprob if metric.name == "logprob" else logprob.exp()

    def of_residual(self, network: Network, resid: Tensor) -> Tensor:
        """Return the metric of final residual streams ``[n, d_model]``, as ``[n]``."""
        normed = network.ending(resid)
        if self.metric.function is None and self.metric.name in {"logit", "logit-diff"}:
            logits = network.unembed.columns(normed, [*self.answer, *self.wrong])
            right, wrong = logits.split([len(self.answer), len(self.wrong)], dim=-1)
            if self.metric.name == "logit":
                return right.logsumexp(-1)
            return right.logsumexp(-1) - wrong.logsumexp(-1)
        return torch.cat([self.of_logits(network.unembed(part)) for part in normed.split(memory.LOGIT_ROWS)])


def upcast(logits: Tensor) -> Tensor:
    """Return logits, or what else is to be summed, in single precision at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


class MetricFailed(Exception):
    """A user's metric raised or returned something else than a number for each run; the message is its reason."""


def _called(metric: Metric, logits: Tensor) -> Tensor:
    assert metric.function is not None
    try:
        return checked(metric.function(logits), len(logits), metric.name)
    except Exception as error:
        if memory.is_out_of_memory(error):  # then fewer rows are tried
            raise
        raise MetricFailed(f"{type(error).__name__}: {error}".partition("\n")[0]) from error


def checked(values: Any, count: int, name: str) -> Tensor:
    """Return what a user's metric gave, as ``float [count]``.

    Raises
    ------
    InputError
        It is not one number for each run.
    """
    if isinstance(values, list | tuple) or type(values).__module__ == "numpy":
        values = torch.as_tensor(values)
    if not isinstance(values, Tensor) or values.shape != (count,) or values.is_complex():
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"the metric {name} must return one number for each run, shape ({count},), not {shape}; "
            "it is called with the last position's logits, [batch, d_vocab]"
        )
    return values.to(torch.float64 if values.dtype == torch.float64 else torch.float32)


def require_gradient(metric: Metric, d_vocab: int, device: torch.device) -> None:
    """Refuse a metric that autograd cannot follow from the logits.

    Raises
    ------
    InputError
        ``rank``, or a user's function whose value has no gradient.
    """
    if metric.function is None:
        if metric.name == "rank":
            raise InputError("rank has no gradient to estimate from; use --metric logit-diff, or --method exact")
        return
    logits = torch.zeros(2, d_vocab, device=device, requires_grad=True)
    reason = "its value does not depend on the logits through torch"
    try:
        with torch.enable_grad():
            if _called(metric, logits).requires_grad:
                return
    except MetricFailed as error:
        reason = str(error).removeprefix("InputError: ")
    raise InputError(f"the metric {metric.name} has no gradient to estimate from ({reason}); use --method exact")


def try_out(metric: Metric, d_vocab: int, device: torch.device) -> None:
    """Call a user's metric once on two rows of zeros, before anything long starts.

    Raises
    ------
    InputError
        It raises, or returns something of the wrong shape.
    """
    if metric.function is None:
        return
    reason = ""
    try:
        _called(metric, torch.zeros(2, d_vocab, device=device))
    except MetricFailed as error:
        reason = str(error).removeprefix("InputError: ")
    if reason:
        raise InputError(f"the metric {metric.name} failed on logits [2, {d_vocab}]: {reason}")
