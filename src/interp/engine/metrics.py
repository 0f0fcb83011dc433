"""A `spec.Metric` on logits, or on the final residual stream of which only the needed logits are computed.

Most metrics are of one position's logits. Some are of several, the last of which is the case's own position: the
log-probability of an answer of several tokens that stands behind the prompt, the loss of a text, and a user's function
of all logits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine import memory
from interp.engine.transformer.network import Network
from interp.errors import InputError
from interp.metric import WHOLE, Metric


@dataclass(frozen=True)
class Scorer:
    """A metric for one pair.

    Attributes
    ----------
    answer, wrong
        Token ids.
    clean
        The clean run's log-probabilities, ``[d_vocab]``, for ``kl``.
    positions
        How many positions are measured, the case's own the last of them.
    following
        The tokens that these positions are to predict: a whole answer, or a text's own.
    """

    metric: Metric
    answer: tuple[int, ...] = ()
    wrong: tuple[int, ...] = ()
    clean: Tensor | None = None
    positions: int = 1
    following: tuple[int, ...] = ()

    def measured(self, rows: Tensor, position: int) -> Tensor:
        """Return what is measured of ``[n, position, …]``: ``[n, …]`` of one position, of several ``[n, position, …]``.

        Parameters
        ----------
        position
            The last position that is measured.
        """
        if not self.metric.several:
            return rows[:, position]
        return rows[:, position + 1 - self.positions : position + 1]

    def with_clean(self, logits: Tensor) -> Scorer:
        """Return a scorer that knows the clean run's distribution of these logits, ``[d_vocab]``, if it asks for it."""
        return replace(self, clean=upcast(logits).log_softmax(-1)) if self.metric.needs_clean else self

    def of_logits(self, logits: Tensor) -> Tensor:
        """Return the metric of logits as `measured` gives them, as ``[n]``."""
        metric = self.metric
        if metric.function is not None:
            return _called(metric, logits)
        if metric.several:
            wanted = torch.tensor(self.following, device=logits.device).repeat(len(logits))
            # Over rows that lie side by side: torch sums over a stride with a thousand times the rounding.
            found = -functional.cross_entropy(logits.flatten(0, 1), wanted, reduction="none")
            return self._of_tokens(found.view(len(logits), -1))
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
        """Return the metric of final residual streams as `measured` gives them, as ``[n]``."""
        if self.metric.several:
            return self._of_streams(network, resid)
        normed = network.ending(resid)
        if self.metric.function is None and self.metric.name in {"logit", "logit-diff"}:
            logits = network.unembed.columns(normed, [*self.answer, *self.wrong])
            right, wrong = logits.split([len(self.answer), len(self.wrong)], dim=-1)
            if self.metric.name == "logit":
                return right.logsumexp(-1)
            return right.logsumexp(-1) - wrong.logsumexp(-1)
        return torch.cat([self.of_logits(network.unembed(part)) for part in normed.split(memory.LOGIT_ROWS)])

    def _of_streams(self, network: Network, resid: Tensor) -> Tensor:
        """Return the metric of ``[n, position, d_model]``; no more logits are there at once than have to be."""
        if self.metric.function is not None:  # it is given all of a run's
            runs = resid.split(max(1, memory.LOGIT_ROWS // self.positions))
            return torch.cat([self.of_logits(network.unembed(network.ending(run))) for run in runs])
        wanted = torch.tensor(self.following, device=resid.device).repeat(len(resid))
        both = zip(resid.flatten(0, 1).split(memory.LOGIT_ROWS), wanted.split(memory.LOGIT_ROWS), strict=True)
        found = [
            -functional.cross_entropy(network.unembed(network.ending(rows)), ids, reduction="none")
            for rows, ids in both
        ]
        return self._of_tokens(torch.cat(found).view(len(resid), -1))

    def _of_tokens(self, logprobs: Tensor) -> Tensor:
        """Return the metric of the tokens' log-probabilities, ``[n, token]``."""
        summed = logprobs.double().sum(-1)
        return summed if self.metric.name == WHOLE else -summed / self.positions


def upcast(logits: Tensor) -> Tensor:
    """Return logits, or what else is to be summed, in single precision at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


class MetricFailed(Exception):
    """A user's metric raised or returned something else than a number for each run; the message is its reason."""


def _called(metric: Metric, logits: Tensor) -> Tensor:
    assert metric.function is not None
    try:
        return checked(metric.function(logits), len(logits), metric.name, several=metric.several)
    except Exception as error:
        if memory.is_out_of_memory(error):  # then fewer rows are tried
            raise
        raise MetricFailed(f"{type(error).__name__}: {error}".partition("\n")[0]) from error


def checked(values: Any, count: int, name: str, *, several: bool = False) -> Tensor:
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
            + (
                "it is called with the logits of all positions, [batch, position, d_vocab]"
                if several
                else "it is called with the last position's logits, [batch, d_vocab]; one of all positions' says so: "
                f"{name}.positions = 'all'"
            )
        )
    return values.to(torch.float64 if values.dtype == torch.float64 else torch.float32)


def require_gradient(metric: Metric, d_vocab: int, device: torch.device, length: int = 1) -> None:
    """Refuse a metric that autograd cannot follow from the logits; `length` positions, where it is of all of them.

    Raises
    ------
    InputError
        ``rank``, or a user's function whose value has no gradient.
    """
    if metric.function is None:
        if metric.name == "rank":
            raise InputError("rank has no gradient to estimate from; use --metric logit-diff, or --method exact")
        return
    logits = _zeros(metric, d_vocab, device, length).requires_grad_()
    reason = "its value does not depend on the logits through torch"
    try:
        with torch.enable_grad():
            if _called(metric, logits).requires_grad:
                return
    except MetricFailed as error:
        reason = str(error).removeprefix("InputError: ")
    raise InputError(f"the metric {metric.name} has no gradient to estimate from ({reason}); use --method exact")


def _zeros(metric: Metric, d_vocab: int, device: torch.device, length: int) -> Tensor:
    return torch.zeros(*((2, length, d_vocab) if metric.several else (2, d_vocab)), device=device)


def try_out(metric: Metric, d_vocab: int, device: torch.device, length: int = 1) -> None:
    """Call a user's metric once on two rows of zeros, before anything long starts.

    Parameters
    ----------
    length
        How many positions they have, where it is a metric of all of them.

    Raises
    ------
    InputError
        It raises, or returns something of the wrong shape.
    """
    if metric.function is None:
        return
    reason = ""
    try:
        _called(metric, _zeros(metric, d_vocab, device, length))
    except MetricFailed as error:
        reason = str(error).removeprefix("InputError: ")
    if reason:
        shape = f"[2, {length}, {d_vocab}]" if metric.several else f"[2, {d_vocab}]"
        raise InputError(f"the metric {metric.name} failed on logits {shape}: {reason}")
