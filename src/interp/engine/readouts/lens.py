"""Residual streams read as predictions: the model's own final norm and unembedding, a block of vocabulary at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from interp.engine.model import hooks
from interp.engine.transformer.families import FAMILIES
from interp.engine.transformer.families._encoder import Encoder
from interp.engine.transformer.families._family import Constant, plain
from interp.errors import InputError

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel

# Of logits that are there at once: three such blocks are all the memory that a lens over any prompt and vocabulary
# takes. A matrix product of so many rows is at its full rate; of more, a stop would lose more.
COLUMNS = 2048
ROWS = 512
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_ROUGH = 0.1  # of the logits' spread, for what is computed in half precision


@dataclass(frozen=True)
class Readout:
    """How a model makes logits of its residual stream: ``after(norm(x) @ weight.T + bias)``.

    Attributes
    ----------
    norm
        The final norm; for a BERT-type model its whole prediction head before the vocabulary.
    weight, bias
        ``[d_vocab, d_model]`` and ``[d_vocab]`` or ``None``.
    after
        What becomes of each logit: a soft cap, ``c tanh(x / c)`` (Gemma 2), or a scale (Cohere); ``None`` where nothing
        does.
    """

    norm: Callable[[Tensor], Tensor]
    weight: Tensor
    bias: Tensor | None
    after: Callable[[Tensor], Tensor] | None = None

    def logits(self, stream: Tensor) -> Tensor:
        """Return the logits, ``[…, d_vocab]``, of residual streams ``[…, d_model]``."""
        return self.finished(functional.linear(self.norm(stream), self.weight, self.bias))

    def finished(self, raw: Tensor) -> Tensor:
        """Return the logits of what the unembedding gives, of any shape."""
        return raw if self.after is None else self.after(raw)


def readout(model: LoadedModel) -> Readout:
    """Return how `model` makes logits, of its weights as they are now.

    Raises
    ------
    InputError
        It has no language-model head, or one that is not a plain matrix.
    """
    if model.lacks_head:
        raise InputError(
            f"the checkpoint of {model.name} holds no language-model head ({model.lacks_head}): nothing reads its "
            "residual stream as tokens"
        )
    bridge: Any = model.bridge
    unembed = getattr(getattr(bridge, "unembed", None), "original_component", None)
    final = getattr(getattr(bridge, "ln_final", None), "original_component", None)
    weight = getattr(unembed, "weight", None)
    if not isinstance(weight, Tensor) or not weight.is_floating_point() or final is None:
        raise InputError(f"{model.name} has no final norm and unembedding that could read its residual stream")
    bias = getattr(unembed, "bias", None)
    if bias is not None and not bias.any():
        bias = None  # transformer-lens gives one of zeros to a model that has none
    norm: Callable[[Tensor], Tensor] = Constant(final)
    home = model.device
    if type(final) is torch.nn.LayerNorm:  # Nemotron's adds 1 to its gain
        eps, shape = epsilon(bridge.ln_final), final.normalized_shape
        held: Any = final
        gain, shift = (None if one is None else one.detach().to(home) for one in (held.weight, held.bias))
        norm = lambda x: functional.layer_norm(x, shape, gain, shift, eps)  # noqa: E731
    if hasattr(bridge, "mlm_head"):
        norm = _head(model, norm)
    return Readout(
        # Some keep a wider stream than their weights (Mamba), and their heads take it as narrow as those.
        lambda stream: norm(stream).to(weight.dtype),
        weight.detach().to(home),
        None if bias is None else bias.detach().to(home),
        _after(bridge),
    )


def _after(bridge: Any) -> Callable[[Tensor], Tensor] | None:
    """Return what the architecture does to each logit after its unembedding; ``None`` where it does nothing."""
    after: Callable[[Tensor], Tensor] = bridge.adapter.apply_output_logits_transform
    sample = torch.linspace(-50, 50, 8)
    return None if torch.equal(after(sample), sample) else after


def epsilon(norm: Any) -> float:
    """Return what a bridge's norm adds to the variance: its module's own, unless it computes the norm itself."""
    module = norm.original_component
    own = float(getattr(module, "variance_epsilon", getattr(module, "eps", 0.0)))
    native = norm.use_native_layernorm_autograd or getattr(norm.config, "layer_norm_folding", False)
    return own if native else float(getattr(norm.config, "eps", own))


def _head(model: LoadedModel, final: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Return an encoder's prediction head before the vocabulary: a dense layer, its activation, a norm."""
    act, dense = head_activation(model), Constant(cast("Any", model.bridge).mlm_head.original_component)
    return lambda stream: final(act(dense(stream)))


def head_activation(model: LoadedModel) -> Callable[[Tensor], Tensor]:
    """Return the activation function of an encoder's prediction head.

    Raises
    ------
    InputError
        The encoder is of a family that is not known.
    """
    family = FAMILIES.get(model.family)
    if not isinstance(family, Encoder):
        raise InputError(f"the prediction head of {model.name} is not known: nothing reads its residual stream")
    return plain(family.act(model.bridge.original_model))


def require(model: LoadedModel, found: Readout, end: Tensor, logits: Tensor) -> None:
    """Refuse a readout that does not give the model's own logits.

    Parameters
    ----------
    end
        The last position's residual stream after the last layer, ``[d_model]``.
    logits
        The model's own logits there, ``[d_vocab]``.

    Raises
    ------
    InputError
        The two differ: the model does something else to its logits, or a hook of the user's own changes them.
    """
    with_head = detached(lambda: found.logits(end)).float()
    own = logits.float()
    scale = float(own.max() - own.min())
    difference = float((with_head - own).abs().max()) / (scale or 1.0)
    if difference > _TOLERANCE.get(found.weight.dtype, _ROUGH):  # NaN is for the result to tell
        raise InputError(
            f"the logits of {model.name} are not its final norm and unembedding of the residual stream (they differ "
            f"by {difference:.0%} of their spread): it does more to them, or a hook does, and a lens would be wrong"
        )


def detached(work: Callable[[], Any]) -> Any:
    """Return what `work` computes without a gradient, with the gradients' switch put back whatever happens."""
    return hooks.guarded(work)


@dataclass(frozen=True)
class Projected:
    """What residual streams predict, ``[layer, position]`` each; the best tokens have the axis ``k`` besides.

    The axis of positions is as long as what was reached before an interrupt, where one came.

    Attributes
    ----------
    ids, probabilities
        The likeliest tokens, likeliest first.
    entropy
        Of the whole distribution, in nats.
    kl
        Kullback–Leibler divergence of it from the end's distribution, Σ p_end (ln p_end − ln p), in nats.
    target_probability, target_rank
        Of the target; rank 0 is the top, and −1 stands where the logits are NaN.
    """

    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    entropy: NDArray[np.float64]
    kl: NDArray[np.float64]
    target_probability: NDArray[np.float32]
    target_rank: NDArray[np.int64]
    interrupt: KeyboardInterrupt | None = None


def project(
    found: Readout,
    streams: Tensor,
    end: Tensor,
    target: int,
    top: int,
    on_step: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> Projected:
    """Read residual streams as predictions, without ever holding the logits of all of them.

    The vocabulary goes by in blocks of columns; of each block the sums that softmax, entropy and divergence need, the
    best tokens and the count above the target are kept. An interrupt leaves the positions that were read; before the
    first of them there is nothing to leave.

    Parameters
    ----------
    streams
        ``[layer, position, d_model]``.
    end
        The residual stream after the last layer, ``[position, d_model]``.
    target
        A token id.
    top
        How many of the likeliest tokens to keep.
    """
    length = end.shape[0]
    size = max(1, ROWS // (len(streams) + 1))
    starts = range(0, length, size)
    parts: list[Projected] = []

    def work() -> None:
        for done, start in enumerate(starts):
            rows = torch.cat([streams[:, start : start + size], end[None, start : start + size]])
            parts.append(_block(found, rows, target, min(top, len(found.weight))))
            on_step(done + 1, len(starts))

    interrupt: KeyboardInterrupt | None = None
    try:
        detached(work)
    except KeyboardInterrupt as stopped:
        if not parts:
            raise
        interrupt = stopped
    names = [name for name in Projected.__dataclass_fields__ if name != "interrupt"]
    joined = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names)
    return Projected(*joined, interrupt=interrupt)


def difference(found: Readout, streams: Tensor, target: int, wrong: int) -> NDArray[np.float64]:
    """Return the logit of one token less that of another that residual streams give, in the streams' own shape.

    Parameters
    ----------
    streams
        ``[layer, position, d_model]``.
    """
    both = torch.tensor([target, wrong], device=found.weight.device)
    weight, bias = found.weight[both], None if found.bias is None else found.bias[both]
    rows = streams.flatten(0, 1).split(ROWS)

    def work() -> Tensor:
        logits = [found.finished(functional.linear(found.norm(some), weight, bias)).double() for some in rows]
        return torch.cat([some[:, 0] - some[:, 1] for some in logits])

    return detached(work).view(streams.shape[:2]).cpu().numpy().copy()


def _block(found: Readout, streams: Tensor, target: int, top: int) -> Projected:
    """Read ``[layer + 1, position, d_model]``, the end last, whose own prediction is not returned."""
    depth, length = streams.shape[:2]
    rows = found.norm(streams.flatten(0, 1))
    count, vocabulary = len(rows), len(found.weight)
    exact = torch.float64 if rows.dtype == torch.float64 else torch.float32
    columns = min(COLUMNS, vocabulary)
    logits, weights, scratch = (rows.new_empty(count * columns, dtype=exact) for _ in range(3))
    sums = rows.new_zeros(count, 3, dtype=torch.float64)  # of e^(x − peak), of that times x, of the end's times x
    peak = rows.new_full((count,), float("-inf"), dtype=exact)
    best = rows.new_full((count, top), float("-inf"), dtype=exact)
    ids = torch.zeros(count, top, dtype=torch.int64, device=rows.device)
    above = rows.new_zeros(count, dtype=torch.float64)
    mark = _columns(found, rows, target, target + 1, rows.new_empty(count, dtype=exact))[:, 0]
    for start in range(0, vocabulary, columns):
        stop = min(start + columns, vocabulary)
        x, e, y = (buffer[: count * (stop - start)].view(count, -1) for buffer in (logits, weights, scratch))
        _columns(found, rows, start, stop, x)
        values, places = x.topk(min(top, stop - start), dim=-1)
        best, order = torch.cat([best, values], -1).topk(top, dim=-1)
        ids = torch.cat([ids, places + start], -1).gather(-1, order)
        before, peak = peak, best[:, 0]
        shrunk = (before - peak).exp().double()
        torch.sub(x, peak[:, None], out=e).exp_()
        sums[:, :2] *= shrunk[:, None]
        sums[:, 2] *= shrunk[-length:].repeat(depth)
        sums[:, 0] += e.sum(-1)
        sums[:, 1] += torch.mul(e, x, out=y).sum(-1)
        grouped = (part.view(depth, length, -1) for part in (x, y))
        sums[:, 2] += torch.mul(e[-length:], next(grouped), out=next(grouped)).sum(-1).flatten()
        higher = torch.gt(x, mark[:, None], out=y)
        if start <= target < stop:
            higher[:, target - start] = 0  # the same logit, computed twice, may differ by rounding
        above += higher.sum(-1)
    logs = peak.double() + sums[:, 0].log()
    entropy = logs - sums[:, 1] / sums[:, 0]
    last = slice(count - length, count)
    crossed = sums[:, 2] / sums[last, 0].repeat(depth)
    kl = (logs - crossed - entropy[last].repeat(depth)).clamp(min=0)

    def shaped(tensor: Tensor) -> NDArray[Any]:
        # A copy: an array over a tensor's own memory would keep the tensor alive in every result.
        return tensor.view(depth, length, *tensor.shape[1:])[:-1].cpu().numpy().copy()

    return Projected(
        ids=shaped(ids),
        probabilities=shaped((best.double() - logs[:, None]).exp().float()),
        entropy=shaped(entropy),
        kl=shaped(kl),
        target_probability=shaped((mark.double() - logs).exp().float()),
        target_rank=shaped(torch.where(logs.isnan(), -1, above).long()),
    )


def _columns(found: Readout, rows: Tensor, start: int, stop: int, out: Tensor) -> Tensor:
    """Write the logits of the tokens from `start` to `stop` to `out`, ``[row, token]``, and return it."""
    out = out.view(len(rows), -1)
    weight, bias = found.weight[start:stop], None if found.bias is None else found.bias[start:stop]
    if rows.dtype != out.dtype:  # half precision is rounded as the model rounds it
        return out.copy_(found.finished(functional.linear(rows, weight, bias)))
    torch.mm(rows, weight.T, out=out)
    if bias is not None:
        out.add_(bias)
    return out if found.after is None else out.copy_(found.after(out))
