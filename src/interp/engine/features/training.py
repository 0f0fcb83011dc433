"""Training one dictionary on batches of what it reads and what it should write; nothing here knows of a model.

A dictionary gives at most a few of its features to a position, so all of a step but the encoder's own product is of
those few: what they write, and both weights' gradients, are sums over a feature's entries (`embedding_bag`).

TopK and what revives dead features (AuxK) are Gao et al. (2024), "Scaling and evaluating sparse autoencoders";
BatchTopK, and its threshold, Bussmann et al. (2024), "BatchTopK sparse autoencoders"; decoders of norm 1, whose
gradient along themselves is left out, Bricken et al. (2023), "Towards monosemanticity".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from interp.engine.features.dictionary import Act, Dictionary
from interp.engine.features.places import Place

KINDS = ("topk", "batchtopk")
_WARM_UP, _DECAY = 0.05, 0.5  # of the steps: the first ones, whose rate rises, and the last ones, whose rate falls to 0
_IDLE = 0.02  # of all rows that are trained on: a feature that is active in none of so many is dead,
_LEAST_IDLE = 8  # but of no fewer batches
_AUX = 1 / 32  # what the dead features' loss counts beside the others'
_FORGET = 0.99  # of the running threshold, at a step
FIGURES = ("loss", "fvu", "l0", "dead")


@dataclass(frozen=True)
class Recipe:
    """What a training is told.

    Attributes
    ----------
    width, k
        How many features there are, and how many are active at a position: at each one, or with ``"batchtopk"`` in the
        mean over a batch.
    steps, batch
        Steps of Adam, and rows to one.
    rate
        The learning rate between warm-up and decay.
    skip
        Whether a linear map from what is read is added to what is written.
    seed
        Of the first weights.
    """

    width: int = 512
    k: int = 16
    kind: Literal["topk", "batchtopk"] = "topk"
    steps: int = 1000
    batch: int = 2048
    rate: float = 2e-3
    skip: bool = False
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step: up in a straight line, level, and down to 0 in a straight line."""
        up = (step + 1) / max(1.0, _WARM_UP * self.steps)
        down = (self.steps - step) / max(1.0, _DECAY * self.steps)
        return self.rate * min(1.0, up, down)


class Entries(NamedTuple):
    """What is active in a batch, by rows.

    Attributes
    ----------
    starts
        ``int64 [row]``: where each row's entries begin.
    rows, features
        ``int64 [entry]``.
    values
        ``[entry]``.
    """

    starts: Tensor
    rows: Tensor
    features: Tensor
    values: Tensor

    @classmethod
    def topk(cls, pre: Tensor, k: int) -> Entries:
        """Return the k largest of each row of ``[row, feature]``, those below 0 as 0."""
        values, features = pre.topk(min(k, pre.shape[1]), -1, sorted=False)
        count, each = values.shape
        starts = torch.arange(0, count * each, each, device=pre.device)
        rows = torch.arange(count, device=pre.device).repeat_interleave(each)
        return cls(starts, rows, features.flatten(), values.flatten().relu_())

    @classmethod
    def batchtopk(cls, pre: Tensor, k: int) -> Entries:
        """Return the k · rows largest of ``[row, feature]``, and none below 0."""
        count, width = pre.shape
        flat = pre.flatten()
        positive = (flat > 0).nonzero().flatten()
        values = flat[positive]
        if len(values) > k * count:
            chosen = values.topk(k * count, sorted=False).indices.sort().values
            positive, values = positive[chosen], values[chosen]
        rows = positive // width
        starts = torch.searchsorted(rows, torch.arange(count, device=pre.device))
        return cls(starts, rows, positive % width, values)

    def written(self, decoder: Tensor) -> Tensor:
        """Return what ``[feature, dim]`` writes, ``[row, dim]``."""
        return functional.embedding_bag(
            self.features, decoder, self.starts, mode="sum", per_sample_weights=self.values
        )


class Gradients(NamedTuple):
    """Of the weights, as they are shaped."""

    encoder: Tensor
    bias: Tensor
    decoder: Tensor


def gradients(entries: Entries, read: Tensor, slope: Tensor, decoder: Tensor) -> Gradients:
    """Return the gradients where ``entries.written(decoder)`` has the gradient `slope`, ``[row, dim]``.

    The encoder's are those of the entries alone, as are its bias's: what is not active has none.
    """
    with torch.enable_grad():
        values = entries.values.detach().requires_grad_()
        written = entries._replace(values=values).written(decoder)
        (own,) = torch.autograd.grad(written, values, slope)
    own = torch.where(entries.values > 0, own, own.new_zeros(()))
    order = entries.features.argsort(stable=True)  # by feature: every sum is in the order of rows, on any device
    counts = torch.bincount(entries.features, minlength=len(decoder))
    starts, rows, own = counts.cumsum(0) - counts, entries.rows[order], own[order]

    def summed(of: Tensor, weights: Tensor) -> Tensor:
        return functional.embedding_bag(rows, of, starts, mode="sum", per_sample_weights=weights)

    bias = torch.segment_reduce(own, "sum", lengths=counts)
    return Gradients(summed(read, own), bias, summed(slope, entries.values[order]))


@dataclass(frozen=True)
class Scales:
    """What is read and what is written, brought to mean 0 and a mean square of 1 a dim.

    Attributes
    ----------
    mean_in, mean_out
        ``[d_in]`` and ``[d_out]``.
    size_in, size_out
        ``[]``.
    """

    mean_in: Tensor
    size_in: Tensor
    mean_out: Tensor
    size_out: Tensor

    @classmethod
    def of(cls, read: Tensor, written: Tensor) -> Scales:
        """Return them for rows that were seen."""
        found: list[Tensor] = []
        for rows in (read, written):
            mean = rows.double().mean(0)
            size = (rows.double() - mean).square().mean().sqrt()
            found += [mean.to(rows), torch.where(size > 0, size, size.new_ones(())).to(rows)]
        return cls(*found)

    def made(self, read: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows brought to scale."""
        return (read - self.mean_in) / self.size_in, (written - self.mean_out) / self.size_out


class Trainer:
    """A dictionary's weights in training, its optimiser, and what every step gave.

    Parameters
    ----------
    recipe
        What it is told.
    read, written
        Rows seen beforehand, ``[row, d_in]`` and ``[row, d_out]``: what the scales are taken from, and the first
        weights: each feature begins as what one row reads, and writes what belongs to it.

    Attributes
    ----------
    encoder, bias, decoder, decoder_bias, skip
        As `Dictionary` has them, but of what is brought to scale; `skip` is zero where there is none.
    idle
        ``int64 [width]``: rows since each feature was active.
    threshold
        ``[]``: BatchTopK's.
    """

    def __init__(self, recipe: Recipe, read: Tensor, written: Tensor) -> None:
        self.recipe = recipe
        self.scales = Scales.of(read, written)
        read, written = self.scales.made(read, written)
        draw = torch.Generator().manual_seed(recipe.seed)
        chosen = _different(read, recipe.width, draw)
        noise = torch.randn(recipe.width, read.shape[1] + written.shape[1], generator=draw).to(read)
        self.encoder = _unit(_unit(read[chosen]) + 0.1 * _unit(noise[:, : read.shape[1]]))
        self.decoder = _unit(_unit(written[chosen]) + 0.1 * _unit(noise[:, read.shape[1] :]))
        self.bias = self.encoder.new_zeros(recipe.width)
        self.decoder_bias = written.new_zeros(written.shape[1])
        self.skip = read.new_zeros(read.shape[1], written.shape[1] if recipe.skip else 0)
        self.idle = torch.zeros(recipe.width, dtype=torch.int64, device=read.device)
        self.threshold = read.new_zeros(())
        some = slice(0, recipe.batch)
        made = self.chosen(self.pre(read[some])).written(self.decoder)
        self.encoder *= (made * written[some]).sum() / made.square().sum().clamp_min(1e-12)
        self.encoder = self.encoder.contiguous()
        self.optimiser = torch.optim.Adam(self.weights, lr=recipe.rate, fused=True)
        self.history: list[Tensor] = []

    @property
    def weights(self) -> list[Tensor]:
        """What is trained."""
        return [self.encoder, self.bias, self.decoder, self.decoder_bias, *([self.skip] * self.recipe.skip)]

    def pre(self, read: Tensor) -> Tensor:
        """Return pre-activations, ``[row, width]``; the product is in bfloat16 where that is a device's fast one."""
        if read.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False):
            return (read.bfloat16() @ self.encoder.bfloat16().T).float().add_(self.bias)
        return torch.addmm(self.bias, read, self.encoder.T)

    def chosen(self, pre: Tensor) -> Entries:
        """Return what is active in training."""
        return (Entries.topk if self.recipe.kind == "topk" else Entries.batchtopk)(pre, self.recipe.k)

    def step(self, read: Tensor, written: Tensor) -> None:
        """Take one step on rows, ``[row, d_in]`` and ``[row, d_out]``."""
        read, written = self.scales.made(read, written)
        pre = self.pre(read)
        entries = self.chosen(pre)
        made = entries.written(self.decoder) + self.decoder_bias
        if self.recipe.skip:
            made += read @ self.skip
        left = written - made
        loss = left.square().mean()
        slope = left * (-2 / left.numel())
        found = gradients(entries, read, slope, self.decoder)
        self._note(entries)
        dead = self.idle > max(_IDLE * self.recipe.steps, _LEAST_IDLE) * self.recipe.batch
        self._revive(pre, dead, read, left, found)
        self._apply(found, slope, read)
        spread = (written - written.mean(0)).square().mean()
        active = (entries.values > 0).sum() / len(read)
        self.history.append(torch.stack([loss, loss / spread, active, dead.float().mean()]))

    def _note(self, entries: Entries) -> None:
        """Count the rows that features were idle in, and bring the threshold up to date."""
        self.idle += self.recipe.batch
        self.idle[entries.features[entries.values > 0]] = 0
        if self.recipe.kind == "batchtopk" and len(entries.values):
            least = entries.values.min()
            self.threshold = torch.lerp(least, self.threshold, _FORGET) if self.history else least

    def _revive(self, pre: Tensor, dead: Tensor, read: Tensor, left: Tensor, found: Gradients) -> None:
        """Add the gradients by which dead features learn to write what is left."""
        numbers = dead.nonzero().flatten()
        if not len(numbers):
            return
        entries = Entries.topk(pre[:, numbers], min(len(numbers), max(1, read.shape[1] // 2)))
        decoder = self.decoder[numbers]
        missed = left - entries.written(decoder)
        slope = missed * (-2 * _AUX / missed.numel()) / left.square().mean().clamp_min(1e-12)
        for own, more in zip(found, gradients(entries, read, slope, decoder), strict=True):
            own[numbers] += more

    def _apply(self, found: Gradients, slope: Tensor, read: Tensor) -> None:
        """Take Adam's step, and bring decoders back to norm 1."""
        along = (found.decoder * self.decoder).sum(1, keepdim=True)
        self.encoder.grad, self.bias.grad = found.encoder, found.bias
        self.decoder.grad = found.decoder - along * self.decoder
        self.decoder_bias.grad = slope.sum(0)
        if self.recipe.skip:
            self.skip.grad = read.T @ slope
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(len(self.history))
        self.optimiser.step()
        self.decoder /= self.decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _different(rows: Tensor, count: int, draw: torch.Generator) -> Tensor:
    """Return the numbers of `count` rows, none twice where there are enough."""
    order = torch.randperm(len(rows), generator=draw)
    return order.repeat(-(-count // len(rows)))[:count].to(rows.device)
