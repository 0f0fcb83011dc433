"""What each token adds to a metric, by runs in which tokens are replaced by a baseline: no gradient is taken.

The arithmetic is captum's; a feature of its is a token's whole embedding.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.readouts.saliency import Attributed, Function

_WIDTH = 0.25  # of LIME's kernel over texts, in the cosine distance of which words are there
_PENALTY = 0.01  # of LIME's lasso
OnStep = Callable[[int, int], None]


class _Runs:
    """The metric, without gradients, in batches that fit; it counts its runs."""

    def __init__(self, function: Function, length: int, total: int, on_step: OnStep) -> None:
        self._function, self._total, self._on_step = function, total, on_step
        self.together = max(1, memory.GRADIENT_ROWS // length)
        self.taken = 0

    def __call__(self, embeddings: Tensor) -> Tensor:
        found: list[Tensor] = []

        def some(rows: Any) -> None:
            with torch.no_grad():
                found.append(self._function(embeddings[list(rows)]).detach())

        memory.halving(range(len(embeddings)), self.together, some, embeddings.device)
        self.taken += len(embeddings)
        self._on_step(min(self.taken, self._total), self._total)
        return torch.cat(found)


def attributed(
    method: str,
    function: Function,
    embeddings: Tensor,
    baseline: Tensor,
    samples: int,
    on_step: OnStep = lambda done, total: None,  # noqa: ARG005
) -> Attributed:
    """Return what each token adds by `method`: ``"occlusion"``, ``"kernel-shap"`` or ``"lime"``."""
    if method == "occlusion":
        return occlusion(function, embeddings, baseline, on_step)
    return {"kernel-shap": kernel_shap, "lime": lime}[method](function, embeddings, baseline, samples, on_step)


def occlusion(function: Function, embeddings: Tensor, baseline: Tensor, on_step: OnStep) -> Attributed:
    """Return what the metric loses where one token at a time is the baseline's, ``[position, d_model]`` each.

    Notes
    -----
    Zeiler and Fergus (2014), "Visualizing and Understanding Convolutional Networks", with one token to a window.

    Examples
    --------
    >>> x, b = torch.ones(2, 3), torch.zeros(2, 3)
    >>> occlusion(lambda e: e.sum((1, 2)), x, b, lambda done, total: None).parts.tolist()
    [3.0, 3.0]
    """
    from captum.attr import FeatureAblation

    count = len(embeddings)
    runs = _Runs(function, count, count + 3, on_step)
    method: Any = FeatureAblation(runs)
    with torch.no_grad():
        found = method.attribute(
            embeddings[None],
            baselines=baseline[None],
            feature_mask=torch.arange(count, device=embeddings.device)[None, :, None],
            perturbations_per_eval=runs.together,
        )
    return _whole(found[0, :, 0], runs, embeddings, baseline)


def kernel_shap(function: Function, embeddings: Tensor, baseline: Tensor, samples: int, on_step: OnStep) -> Attributed:
    """Return Shapley values of tokens, each there or the baseline's; they sum to the difference.

    They are exact where there are no more sets of tokens than `samples`, else estimated.

    Notes
    -----
    Lundberg and Lee (2017), "A Unified Approach to Interpreting Model Predictions": a linear model of which tokens are
    there, fitted to sampled sets of them by the Shapley kernel's weights.
    """
    from captum.attr import KernelShap

    changed = (embeddings != baseline).any(-1).nonzero().flatten()
    if 2 ** min(len(changed), 62) <= samples:
        return _enumerated(function, embeddings, baseline, changed, on_step)
    return _sampled(KernelShap, function, embeddings, baseline, samples, on_step)


def lime(function: Function, embeddings: Tensor, baseline: Tensor, samples: int, on_step: OnStep) -> Attributed:
    """Return the weights of a sparse linear model of which tokens are there, fitted near the prompt.

    Notes
    -----
    Ribeiro, Singh and Guestrin (2016), "Why Should I Trust You?": half of the tokens in the mean are there, weighted
    by ``exp(−d² / 0.25²)`` of the cosine distance d to all of them; a lasso with a penalty of 0.01.
    """
    from captum._utils.models.linear_model import SkLearnLasso
    from captum.attr import Lime

    def near(original: Tensor, changed: Tensor, there: Tensor, **_: Any) -> Tensor:  # noqa: ARG001
        distance = 1 - math.sqrt(float(there.double().mean()))
        return torch.tensor([math.exp(-(distance**2) / _WIDTH**2)])

    def made(runs: _Runs) -> Any:
        return Lime(runs, interpretable_model=SkLearnLasso(alpha=_PENALTY), similarity_func=near)

    return _sampled(made, function, embeddings, baseline, samples, on_step)


def _enumerated(
    function: Function, embeddings: Tensor, baseline: Tensor, changed: Tensor, on_step: OnStep
) -> Attributed:
    """Return Shapley values from a run for every set of the tokens that are other ones in the baseline."""
    count = len(changed)
    sets = torch.tensor(list(itertools.product((False, True), repeat=count)), dtype=torch.bool).reshape(-1, count)
    runs = _Runs(function, len(embeddings), len(sets) + 2, on_step)
    values: list[Tensor] = []
    for some in sets.split(runs.together):
        rows = baseline.repeat(len(some), 1, 1)
        there = some.to(embeddings.device)[..., None]
        rows[:, changed] = torch.where(there, embeddings[changed], baseline[changed])
        values.append(runs(rows).double().cpu())
    held, sizes = torch.cat(values), sets.sum(1)
    shares = torch.tensor([1 / (count * math.comb(count - 1, size)) for size in range(count)], dtype=torch.float64)
    parts = torch.zeros(len(embeddings), dtype=torch.float64)
    for at in range(count):
        without = ~sets[:, at]
        # The set with one token more is as many rows further on as that token's digit counts.
        gained = held[without.nonzero().flatten() + 2 ** (count - 1 - at)] - held[without]
        parts[changed[at].cpu()] = (shares[sizes[without]] * gained).sum()
    return _whole(parts, runs, embeddings, baseline)


def _sampled(
    make: Callable[[_Runs], Any],
    function: Function,
    embeddings: Tensor,
    baseline: Tensor,
    samples: int,
    on_step: OnStep,
) -> Attributed:
    """Return the mean of two halves of the samples, the same ones each time; half of what they are apart tells how
    sure it is. Tokens that the baseline shares add nothing by definition.
    """
    runs = _Runs(function, len(embeddings), samples + 2, on_step)
    changed = (embeddings != baseline).any(-1)
    number = (changed.cumsum(0) - 1).clamp(min=0)  # shared tokens go along with any other: they are the same anyway
    halves: list[Tensor] = []
    for half in range(2):
        with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*converge")
            torch.manual_seed(half)
            found = make(runs).attribute(
                embeddings[None],
                baselines=baseline[None],
                feature_mask=number[None, :, None],
                n_samples=-(-samples // 2),
                perturbations_per_eval=runs.together,
                return_input_shape=False,
            )
        halves.append(torch.where(changed.cpu(), found[0].double().cpu()[number.cpu()], 0.0))
    error = float((halves[0] - halves[1]).abs().max()) / 2
    return _whole((halves[0] + halves[1]) / 2, runs, embeddings, baseline, error)


def _whole(parts: Tensor, runs: _Runs, embeddings: Tensor, baseline: Tensor, error: float = 0.0) -> Attributed:
    value, reference = (float(one) for one in runs(torch.stack([embeddings, baseline])))
    return Attributed(parts.detach().double().cpu(), value, reference, runs.taken, error=error)
