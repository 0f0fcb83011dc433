"""A metric as a function of the token embeddings, and what each of them adds to it, by gradients."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from interp.engine import exactness, memory
from interp.engine.metrics import Scorer, upcast
from interp.engine.model import hooks
from interp.engine.transformer import network
from interp.engine.transformer.forward import forward
from interp.errors import InputError
from interp.ids import types_of

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

# Embeddings ``[n, position, d_model]`` → the metric, ``[n]``.
Function = Callable[[Tensor], Tensor]
Value = TypeVar("Value")

_LEAST = 8  # gradients in a piece of the way
_FURTHER = 3  # times as many gradients as asked for, besides, before the gap is left
_COMPLETE = 0.01
_EXACT = 1e-4  # what rounding makes of a sum of logits
_ROUGH = 1e-2  # what half precision makes of the same embeddings, or of the same metric
_EMBEDDED = "embed.hook_out"


@dataclass(frozen=True)
class Attributed:
    """What each position adds.

    Attributes
    ----------
    parts
        ``float64 [position]``: summed over the embedding's dimensions.
    value, reference
        The metric of the embeddings and of the baseline.
    steps
        At how many points gradients were taken, or how often the model ran.
    error
        Of samples: half of the largest difference of two halves of them.
    interrupt
        What stopped it before the parts met the difference, or had all the gradients that they may take.
    """

    parts: Tensor
    value: float
    reference: float
    steps: int
    interrupt: KeyboardInterrupt | None = None
    error: float = 0.0

    def packed(self) -> Tensor:
        """Return all of it as one tensor, for the store."""
        return torch.cat([self.parts, self.parts.new_tensor([self.value, self.reference, self.steps, self.error])])

    @classmethod
    def of(cls, packed: Tensor) -> Attributed:
        """Return what `packed` holds."""
        value, reference, steps, error = packed[-4:].tolist()
        return cls(packed[:-4].cpu().clone(), value, reference, int(steps), error=error)


class Embedded:
    """The metric of a prompt on a model, as a function of the prompt's token embeddings.

    Positions are added as the model adds them, so that a baseline's zero stands for no word rather than no place.

    Attributes
    ----------
    tokens
        ``[position, d_model]``: the prompt's own token embeddings.
    scale
        With hooks, what the model multiplies embeddings by on their way into the residual stream (Granite), where the
        bridge's hook stands behind that; 1 elsewhere. Gradient times input is the same at any scale.
    path
        ``"gradients"``, or ``"hooked: why"``.

    Raises
    ------
    InputError
        With its own embeddings put back, the model says something else than it did.
    """

    def __init__(
        self,
        model: LoadedModel,
        ids: tuple[int, ...],
        position: int,
        scorer: Scorer,
        logits: Tensor,
        functions: Mapping[str, hooks.Hook] | None = None,
        *,
        together: bool = True,
    ) -> None:
        """Read the model; `logits`, ``[d_vocab]``, are its own, which what is read here must give.

        With `functions` on its hooks they are those of a run with them; `together` says whether these do to each of
        several rows what they do to it alone.
        """
        self.functions, self.together = dict(functions or {}), together
        self.model, self.ids, self.position, self.scorer = model, ids, position, scorer
        self.scale = 1.0
        self._network: network.Network | None = None
        self.tokens = self.embed(ids)
        if self.functions:
            self._put_back(logits)
            self.path, self.notes = "hooked: interventions", ()
            return
        done = exactness.run(
            model,
            ("saliency", exactness.of_metric(scorer.metric)),
            lean=self._read,
            hooked=lambda fallback: self._put_back(logits),  # noqa: ARG005
            sample=lambda: [self._off(logits)],
            path="gradients",
            length=len(ids),
        )
        self.path, self.notes = done.path, done.notes

    def _read(self, check: exactness.Check) -> None:  # noqa: ARG002
        self._network = network.read(self.model, encoders=())
        self.tokens = self.embed(self.ids)

    def _put_back(self, logits: Tensor) -> None:
        """Find what embeddings are multiplied by, and see that the model with its own put back is the model."""
        self._network = None
        self.tokens = self.embed(self.ids)
        held = self.model.activations_of(self.ids, [_EMBEDDED])[_EMBEDDED][0].float()
        scale = float(held.norm() / self.tokens.float().norm())
        if held.isfinite().all() and torch.allclose(
            held, self.tokens.float() * scale, rtol=_ROUGH, atol=_ROUGH * float(held.abs().max())
        ):
            self.scale, self.tokens = scale, self.tokens * scale
        if not self.model.hf_model.training and self._off(logits) > _ROUGH:
            raise InputError(
                f"with its own token embeddings put back {self.model.name} says something else: it, or a hook, "
                "changes them on the way; take the hook off, or use --method rollout"
            )

    def _off(self, logits: Tensor) -> float:
        """Return how far the metric of the prompt's own embeddings is from that of the model's own logits."""
        with torch.no_grad():
            found = float(self(self.tokens[None])[0])
        return exactness.difference(found, float(self.scorer.of_logits(upcast(logits[None]))[0]))

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return the metric, ``[n]``, of token embeddings ``[n, position, d_model]``."""
        if self._network is not None:
            self.model.count(1)
            ids, types = self._tensor(self.ids), types_of(self.ids)
            end = forward(self._network, resid=self._network.embed.stream(embeddings, ids, types))
            return self.scorer.of_residual(self._network, end[:, self.position])

        if not self.together and len(embeddings) > 1:
            return torch.cat([self(one[None]) for one in embeddings])
        own = self.functions.get(_EMBEDDED)

        def put(tensor: Tensor, hook: HookPoint) -> Tensor:
            rows = embeddings.to(tensor)
            changed = None if own is None else own(rows, hook)
            return rows if changed is None else changed

        causal = self.model.geometry.causal
        put_in = {**self.functions, _EMBEDDED: put}
        rows = [self.ids] * len(embeddings)
        logits = self.model.forward(rows, put_in, last_only=causal, gradients=torch.is_grad_enabled())
        return self.scorer.of_logits(upcast(logits[:, -1 if causal else self.position]))

    def embed(self, ids: tuple[int, ...]) -> Tensor:
        """Return token embeddings, ``[position, d_model]``, without positions."""
        return self._rows(self._tensor(ids)).detach() * self.scale

    def mean(self) -> Tensor:
        """Return the mean embedding of the vocabulary, ``[d_model]``."""
        return mean_embedding(self._rows, self.model.geometry.d_vocab, self.model.device) * self.scale

    def _rows(self, ids: Tensor) -> Tensor:
        """Return tokens' rows as what this is a function of has them: a module may scale them itself (Gemma)."""
        if self._network is not None:
            return self._network.embed.weight[ids]
        embed: Any = self.model.bridge.embed
        return embed.original_component(ids)

    def _tensor(self, ids: tuple[int, ...]) -> Tensor:
        return torch.tensor(ids, device=self.model.device)


def mean_embedding(rows: Callable[[Tensor], Tensor], count: int, device: torch.device) -> Tensor:
    """Return the mean, ``[d_model]``, of what an embedding gives for the ids below `count`."""
    total: Any = 0
    for ids in torch.arange(count, device=device).split(4096):
        total = total + rows(ids).detach().double().sum(0)
    return total / count


def integrated(
    function: Function,
    embeddings: Tensor,
    baseline: Tensor,
    steps: int,
    on_step: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Attributed:
    """Integrate the gradients along the straight line from `baseline` to `embeddings`, ``[position, d_model]`` each.

    The line is one piece at first. While the parts miss the difference between its ends by more than 1 %, the piece
    that misses most of its own is halved, with up to `_FURTHER` times `steps` gradients more: a sharp turn, such as
    that of a norm next to zero, then takes many points and the rest of the way few.

    Notes
    -----
    Sundararajan, Taly and Yan (2017), "Axiomatic Attribution for Deep Networks"; Gauss-Legendre points.

    Examples
    --------
    >>> x, b = torch.ones(2, 3), torch.zeros(2, 3)
    >>> integrated(lambda e: e.sum((1, 2)), x, b, 8).parts.round(decimals=6).tolist()
    [3.0, 3.0]
    """
    way = embeddings - baseline
    values: dict[float, float] = {}
    batch = max(1, min(memory.GRADIENT_ROWS // len(embeddings), steps))
    taken = 0

    def value(at: float) -> float:
        if at not in values:
            with torch.no_grad():
                values[at] = float(function((baseline + at * way)[None])[0])
        return values[at]

    def piece(start: float, stop: float, points: int, seen: _Points) -> tuple[float, float, float, Tensor]:
        """Return how much is missed (its size, less than zero for the heap), the two ends, and the parts."""
        nodes, weights = np.polynomial.legendre.leggauss(points)
        at = torch.tensor((start + stop + (stop - start) * nodes) / 2, device=way.device)
        shares = torch.tensor(weights * (stop - start) / 2)

        def gradients(some: Sequence[int]) -> None:
            nonlocal taken
            here = at[list(some), None, None].to(way.dtype)
            x = (baseline + here * way).requires_grad_()
            slopes = torch.autograd.grad(function(x).sum(), x)[0]
            seen.add(shares[list(some)], (slopes * way).detach().double().sum(-1).cpu())
            taken += len(some)
            on_step(taken, max(taken, steps))

        # Each batch is spread over the way: what an interrupt leaves is a coarser integral of the whole of it.
        stride = -(-points // batch)
        order = [n for first in range(stride) for n in range(first, points, stride)]
        memory.halving(order, batch, gradients, way.device)
        return -abs(value(stop) - value(start) - float(seen.parts.sum())), start, stop, seen.parts

    def missed() -> float:
        return abs(value(1.0) - value(0.0) - sum(float(parts.sum()) for *_, parts in pieces))

    whole = _Points()
    stopped: KeyboardInterrupt | None = None
    pieces: list[tuple[float, float, float, Tensor]] = []
    try:
        pieces = [piece(0.0, 1.0, steps, whole)]
        allowed = max(_COMPLETE * abs(value(1.0) - value(0.0)), _EXACT)
        points = max(_LEAST, steps // 4)
        while taken + 2 * points <= (1 + _FURTHER) * steps and missed() > allowed:
            _, start, stop, _ = pieces[0]
            middle = (start + stop) / 2
            halves = [piece(*ends, points, _Points()) for ends in ((start, middle), (middle, stop))]
            pieces = [*pieces[1:], *halves]  # in one step: an interrupt finds the whole way
            heapq.heapify(pieces)
    except KeyboardInterrupt as interrupt:
        if not whole.share:
            raise
        stopped = interrupt
    parts = torch.stack([parts for *_, parts in pieces]).sum(0) if pieces else whole.parts / whole.share
    return Attributed(parts, value(1.0), value(0.0), taken, stopped)


class _Points:
    """The points of a piece of the way so far.

    Attributes
    ----------
    parts
        ``float64 [position]``: gradients times the way, by the points' shares.
    share
        What the shares sum to: the length of the piece, once it is whole.
    """

    def __init__(self) -> None:
        self.parts = torch.zeros(())
        self.share = 0.0

    def add(self, shares: Tensor, parts: Tensor) -> None:
        """Take points' shares ``[point]`` and parts ``[point, position]`` in."""
        self.parts, self.share = self.parts + shares.double() @ parts, self.share + float(shares.sum())


def gradient_times_input(function: Function, embeddings: Tensor) -> Attributed:
    """Return each position's Σ x · ∂m/∂x, the first-order estimate of what taking its embedding away would change."""
    from captum.attr import InputXGradient

    method: Any = InputXGradient(function)
    found = method.attribute(embeddings[None].clone().requires_grad_())
    with torch.no_grad():
        value, reference = (float(function(x[None])[0]) for x in (embeddings, torch.zeros_like(embeddings)))
    return Attributed(found[0].detach().double().sum(-1).cpu(), value, reference, 1)


# What multiplies by constants or picks; with what captum has a rule for, all that DeepLIFT is exact on.
_LINEAR = (
    nn.Linear,
    nn.Embedding,
    nn.Dropout,
    nn.Identity,
    nn.Conv1d,
    nn.AvgPool1d,
    nn.AdaptiveAvgPool1d,
    nn.Flatten,
    nn.BatchNorm1d,
)


def deeplift(classifier: nn.Module, function: Function, embeddings: Tensor, baseline: Tensor) -> Attributed:
    """Return DeepLIFT's parts by the rescale rule, for a classifier made of what the rule is exact on.

    Raises
    ------
    InputError
        One of the classifier's parts has no such rule; it is named.

    Notes
    -----
    Shrikumar, Greenside and Kundaje (2017), "Learning Important Features Through Propagating Activation Differences".
    """
    from captum.attr import DeepLift
    from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR

    known = (*_LINEAR, *SUPPORTED_NON_LINEAR)
    leaves = [module for module in classifier.modules() if not any(True for _ in module.children())]
    strange = next((type(module).__name__ for module in leaves if not isinstance(module, known)), None)
    if strange is not None:
        raise InputError(
            f"DeepLIFT has no rule for {strange}, which {type(classifier).__name__} holds; use method='ig'"
        )

    class Whole(nn.Module):
        """The metric as a module, which captum needs; the classifier's own modules are inside."""

        def __init__(self) -> None:
            super().__init__()
            self.classifier = classifier

        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    method: Any = DeepLift(Whole())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")  # and it takes them off again
        found = method.attribute(embeddings[None].clone().requires_grad_(), baselines=baseline[None])
    with torch.no_grad():
        value, reference = (float(function(x[None])[0]) for x in (embeddings, baseline))
    return Attributed(found[0].detach().double().sum(-1).cpu(), value, reference, 1)


def with_gradients(work: Callable[[], Value]) -> Value:
    """Return what `work` computes with autograd on, its switch put back whatever happens.

    Raises
    ------
    InputError
        Inside ``torch.inference_mode``, where there is no autograd.
    """
    if torch.is_inference_mode_enabled():
        raise InputError(
            "there are no gradients inside torch.inference_mode; use torch.no_grad there, or --method rollout"
        )
    return hooks.guarded(work, gradients=True)
