"""What networks are made of: embeddings, norms, rotary turns, and what adds to the stream or reads logits off it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.transformer.linear import Activation, Linear, Pack, X

HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Norm:
    """LayerNorm (`rms` false) or RMSNorm over the last axis.

    Attributes
    ----------
    wide
        Whether half precision is rounded to after the gain, as Gemma's does, and not before, as Llama's.
    """

    weight: Tensor
    bias: Tensor | None
    eps: float
    rms: bool
    wide: bool = False

    def __call__(self, x: X) -> X:
        return x.each(self._of) if isinstance(x, Pack) else self._of(x)

    def _of(self, x: Tensor) -> Tensor:
        if x.dtype in HALF and (self.rms or self.wide):
            return self._of_half(x)
        if self.rms:
            return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)

    def _of_half(self, x: Tensor) -> Tensor:
        """Return the norm as Hugging Face's own modules round it: they compute in single precision."""
        single, shape = x.float(), self.weight.shape
        gain = self.weight.float() if self.wide else None
        if not self.rms:
            bias = None if self.bias is None else self.bias.float()
            return functional.layer_norm(single, shape, gain, bias, self.eps).to(x.dtype)
        unit = functional.rms_norm(single, shape, gain, self.eps).to(x.dtype)
        return unit if self.wide else unit * self.weight

    def size(self, x: Tensor) -> Tensor:
        """Return what ``x``, ``[…, d_model]``, is divided by: ``[…]``."""
        centred = x if self.rms else x - x.mean(-1, keepdim=True)
        return (centred.square().mean(-1) + self.eps).sqrt()

    def slope(self, x: Tensor, change: Tensor) -> Tensor:
        """Return by how much the norm of `x` changes with `change`, to first order; both ``[…, d_model]``."""
        unit = (x if self.rms else x - x.mean(-1, keepdim=True)) / self.size(x)[..., None]
        moved = change if self.rms else change - change.mean(-1, keepdim=True)
        moved = moved - unit * (unit * moved).mean(-1, keepdim=True)
        return moved / self.size(x)[..., None] * self.weight

    def back(self, x: Tensor, slope: Tensor) -> Tensor:
        """Return gradients before the norm of those after it, ``[…, row, d_model]``, at `x`, ``[row, d_model]``.

        `slope` is written to.
        """
        centred = x if self.rms else x - x.mean(-1, keepdim=True)
        scale = torch.rsqrt(centred.square().mean(-1, keepdim=True) + self.eps)
        unit = centred * scale
        slope = slope.mul_(self.weight)
        if not self.rms:
            slope = slope.sub_(slope.mean(-1, keepdim=True))
        along = torch.einsum("...nd,nd->...n", slope, unit) / x.shape[-1]
        return slope.sub_(along[..., None] * unit).mul_(scale)


@dataclass(frozen=True)
class Identity(Norm):
    """No norm at all; `weight` is ones, so that what folds a gain folds none."""

    def _of(self, x: Tensor) -> Tensor:
        return x

    def size(self, x: Tensor) -> Tensor:
        """Return ones, ``[…]``."""
        return torch.ones_like(x[..., 0])

    def slope(self, x: Tensor, change: Tensor) -> Tensor:  # noqa: ARG002
        """Return `change`."""
        return change

    def back(self, x: Tensor, slope: Tensor) -> Tensor:  # noqa: ARG002
        """Return `slope`."""
        return slope


@dataclass(frozen=True)
class Rotation:
    """The turn of some positions' queries and keys; `cos` and `sin` are ``[position, rotated dims]``.

    Attributes
    ----------
    pairs
        Whether neighbouring dims turn together, as GPT-J has them, instead of halves, as Llama and NeoX do.
    """

    cos: Tensor
    sin: Tensor
    pairs: bool = False

    def at(self, places: slice | Tensor) -> Rotation:
        """Return the turn of those positions alone, in that order."""
        return Rotation(self.cos[places], self.sin[places], self.pairs)

    def __call__(self, x: Tensor) -> Tensor:
        """Turn the first dims of each head of ``[…, position, head, d_head]``."""
        width = self.cos.shape[-1]
        turned, rest = x[..., :width], x[..., width:]
        if self.pairs:
            swapped = torch.stack([-turned[..., 1::2], turned[..., ::2]], dim=-1).flatten(-2)
        else:
            half = width // 2
            swapped = torch.cat([-turned[..., half:], turned[..., :half]], dim=-1)
        # Some families turn in single precision, whatever the model's.
        rotated = (turned * self.cos[:, None] + swapped * self.sin[:, None]).to(x.dtype)
        return rotated if rest.shape[-1] == 0 else torch.cat([rotated, rest], dim=-1)


@dataclass(frozen=True)
class _OfLinear:
    """What is made of a linear layer's output."""

    linear: Linear

    @property
    def weight(self) -> Tensor:
        """``[out, in]``."""
        return self.linear.weight

    @property
    def bias(self) -> Tensor | None:
        """``[out]``."""
        return self.linear.bias


@dataclass(frozen=True)
class Output(_OfLinear):
    """What a half block adds to the residual stream: a linear layer's output, normed where `norm` is, times `scale`."""

    norm: Norm | None = None
    scale: float = 1.0

    @property
    def gain(self) -> Tensor | None:
        """What each dim of the product is multiplied by, ``[d_model]``, apart from the norm's size; ``None``: by 1."""
        if self.norm is None:
            return None if self.scale == 1.0 else self.weight.new_full((len(self.weight),), self.scale)
        return self.norm.weight * self.scale

    def __call__(self, x: X) -> X:
        return self.settled(self.linear(x))

    def settled(self, raw: X) -> X:
        """Return what is added to the stream, of the linear layer's output."""
        normed = raw if self.norm is None else self.norm(raw)
        if self.scale == 1.0:
            return normed
        return normed.each(lambda rows: rows * self.scale) if isinstance(normed, Pack) else normed * self.scale

    def size(self, x: Tensor) -> Tensor | None:
        """Return what the norm divides the output of `x`, ``[…, in]``, by: ``[…]``; ``None`` where there is no norm."""
        return None if self.norm is None else self.norm.size(self.linear(x))

    def change(self, x: Callable[[], Tensor], raw: Tensor) -> Tensor:
        """Return by how much what is added changes where the linear layer's output of `x` becomes `raw` more."""
        if self.norm is None:
            return raw if self.scale == 1.0 else raw * self.scale
        before = self.linear(x())
        return (self.norm(before + raw) - self.norm(before)) * self.scale

    def slope(self, x: Tensor, raw: Tensor) -> Tensor:
        """Return the same to first order: linear in `raw`."""
        if self.norm is None:
            return raw if self.scale == 1.0 else raw * self.scale
        return self.norm.slope(self.linear(x), raw) * self.scale


@dataclass(frozen=True)
class Embedding:
    """What the residual stream begins with: tokens' rows, times `scale`, normed where `norm` is, and positions' rows.

    BERT's has rows of tokens' types besides, and a norm of the sum.

    Attributes
    ----------
    weight
        ``[vocab, d_model]``.
    scale
        One number, in the weight's dtype, where the model rounds it to that; ``None``: 1.
    positions
        ``[position, d_model]``; ``None`` where positions are no part of the stream.
    padding
        A token that takes no position: it has row 0 of `positions` wherever it stands, and the others count from 1.
    types
        ``[type, d_model]``: of tokens' types, such as which of two sentences they are of.
    after
        The norm of the sum.
    """

    weight: Tensor
    scale: Tensor | float | None = None
    norm: Norm | None = None
    positions: Tensor | None = None
    padding: int | None = None
    types: Tensor | None = None
    after: Norm | None = None

    def __call__(self, ids: Tensor, types: Sequence[int] = ()) -> Tensor:
        """Return the stream before layer 0, ``[position, d_model]``, of token ids ``[position]``.

        Parameters
        ----------
        types
            The tokens' types; all are 0 where none are given.
        """
        return self.stream(functional.embedding(ids, self.weight), ids, types)

    def stream(self, rows: Tensor, ids: Tensor, types: Sequence[int] = ()) -> Tensor:
        """Return the stream before layer 0 of tokens' rows, ``[…, position, d_model]``, that stand for `ids`."""
        total = self.words(rows)
        if self.types is not None:
            total = total + self.types[list(types) or [0]]
        if self.positions is not None:
            total = total + self.positions[self._places(ids)]
        return total if self.after is None else self.after(total)

    def _places(self, ids: Tensor) -> slice | Tensor:
        """Return which row of `positions` each token has."""
        if self.padding is None:
            return slice(len(ids))
        counted = ids != self.padding
        return counted.cumsum(0) * counted

    def words(self, rows: Tensor) -> Tensor:
        """Return what tokens' rows, ``[…, d_model]``, put into the stream, without positions."""
        scaled = rows if self.scale is None else rows * self.scale
        return scaled if self.norm is None else self.norm(scaled)


@dataclass(frozen=True)
class Transform:
    """What an encoder's prediction head does to the stream before its final norm: a linear layer, then `act`."""

    linear: Linear
    act: Activation

    def __call__(self, x: Tensor) -> Tensor:
        """Return ``[…, d_model]``, of the same."""
        return self.linear(x, self.act)


@dataclass(frozen=True)
class Unembed(_OfLinear):
    """The logits of what the final norm gives: a linear layer's, times `scale`, then softly held within ± `cap`."""

    scale: float = 1.0
    cap: float | None = None

    def __call__(self, normed: Tensor) -> Tensor:
        """Return the logits, ``[…, d_vocab]``."""
        return self._settled(self.linear(normed))

    def columns(self, normed: Tensor, ids: Sequence[int]) -> Tensor:
        """Return the logits of some tokens alone, ``[…, token]``."""
        logits = normed @ self.weight[ids].T
        return self._settled(logits if self.bias is None else logits + self.bias[ids])

    def kept(self, normed: Tensor, ids: Tensor | None = None) -> Tensor | None:
        """Return what part of logits the cap lets through, ``[…, token]``; ``None`` where there is no cap.

        Parameters
        ----------
        ids
            ``int64 […, token]``: of which tokens, row by row; of all when not given.
        """
        if self.cap is None:
            return None
        if ids is None:
            raw = self.linear(normed)
        else:
            raw = (normed[..., None, :] * self.weight[ids]).sum(-1)
            raw = raw if self.bias is None else raw + self.bias[ids]
        raw = raw * self.scale
        return torch.where(raw == 0, torch.ones_like(raw), capped(raw, self.cap) / raw)

    def _settled(self, logits: Tensor) -> Tensor:
        logits = logits if self.scale == 1.0 else logits * self.scale
        return capped(logits, self.cap)


def capped(x: Tensor, cap: float | None) -> Tensor:
    """Return values softly held within ± `cap`; as they are where that is ``None``."""
    return x if cap is None else torch.tanh(x / cap) * cap
