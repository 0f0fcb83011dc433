"""Training one dictionary on batches of what it reads and what it should write; nothing here knows of a model.

A dictionary gives at most a few of its features to a position, so all of a step but the encoder's own product is of
those few: what they write, and both weights' gradients, are sums over a feature's entries (`embedding_bag`).

TopK and what revives dead features (AuxK) are Gao et al. (2024), "Scaling and evaluating sparse autoencoders";
BatchTopK, and its threshold, Bussmann et al. (2024), "BatchTopK sparse autoencoders"; decoders of norm 1, whose
gradient along themselves is left out, Bricken et al. (2023), "Towards monosemanticity".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
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
_BLUR = 0.1  # of random directions, in those that features begin with: rows are often the same
_MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's, as torch calls them
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

    def chosen(self, pre: Tensor) -> Entries:
        """Return what is active in training, of ``[row, width]``."""
        return (Entries.topk if self.kind == "topk" else Entries.batchtopk)(pre, self.k)

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
        return functional.embedding_bag(self.features, decoder, self.starts, mode="sum", per_sample_weights=self.values)


def gradients(entries: Entries, read: Tensor, slope: Tensor, decoder: Tensor) -> dict[str, Tensor]:
    """Return the weights' gradients where ``entries.written(decoder)`` has the gradient `slope`, ``[row, dim]``.

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
    return {"encoder": summed(read, own), "bias": bias, "decoder": summed(slope, entries.values[order])}


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


def beginning(recipe: Recipe, read: Tensor, written: Tensor) -> dict[str, Tensor]:
    """Return what a training begins with, of rows that were seen beforehand, ``[row, d_in]`` and ``[row, d_out]``.

    Each feature reads what one row is, and writes what belongs to it; so hardly any begins dead.
    """
    with _exactly(read):
        return _beginning(recipe, read, written)


def _beginning(recipe: Recipe, read: Tensor, written: Tensor) -> dict[str, Tensor]:
    scales = Scales.of(read, written)
    read, written = scales.made(read, written)
    draw = torch.Generator().manual_seed(recipe.seed)
    order = torch.randperm(len(read), generator=draw)
    chosen = order.repeat(-(-recipe.width // len(read)))[: recipe.width].to(read.device)
    noise = torch.randn(recipe.width, read.shape[1] + written.shape[1], generator=draw).to(read)
    parts = noise.split([read.shape[1], written.shape[1]], 1)
    encoder, decoder = (
        _unit(_unit(rows[chosen]) + _BLUR * _unit(part)) for rows, part in zip((read, written), parts, strict=True)
    )
    some = slice(0, recipe.batch)
    made = recipe.chosen(read[some] @ encoder.T).written(decoder)
    encoder *= (made * written[some]).sum() / made.square().sum().clamp_min(1e-12)
    return {
        "encoder": encoder.contiguous(),
        "bias": encoder.new_zeros(recipe.width),
        "decoder": decoder.contiguous(),
        "decoder_bias": written.new_zeros(written.shape[1]),
        **({"skip": read.new_zeros(read.shape[1], written.shape[1])} if recipe.skip else {}),
        **{f"scales.{one.name}": getattr(scales, one.name) for one in fields(scales)},
        "idle": torch.zeros(recipe.width, dtype=torch.int64, device=read.device),
        "history": read.new_zeros(0, len(FIGURES)),
    }


class Trainer:
    """A dictionary's weights in training, its optimiser, and what every step gave.

    Parameters
    ----------
    recipe
        What it is told.
    state
        What `beginning` gives, or `state` gave; its tensors become the trainer's own.

    Attributes
    ----------
    weights
        Name → what is trained, as `Dictionary` has it, but of what is brought to scale.
    idle
        ``int64 [width]``: rows since each feature was active.
    history
        For each step the `FIGURES` of its batch, ``[4]``.
    """

    def __init__(self, recipe: Recipe, state: Mapping[str, Tensor]) -> None:
        self.recipe = recipe
        self.scales = Scales(*(state[f"scales.{one.name}"] for one in fields(Scales)))
        names = ("encoder", "bias", "decoder", "decoder_bias", *(["skip"] if recipe.skip else []))
        self.weights = {name: state[name] for name in names}
        self.idle = state["idle"]
        self.history = list(state["history"].unbind(0))
        self.optimiser = torch.optim.Adam(self.weights.values(), lr=recipe.rate, fused=True)
        for name, weight in self.weights.items():
            held = {part: state[f"{part}.{name}"] for part in _MOMENTS if f"{part}.{name}" in state}
            if held:
                count = torch.tensor(float(len(self.history)), device=weight.device)
                self.optimiser.state[weight] = {"step": count, **held}

    def state(self) -> dict[str, Tensor]:
        """Return all that goes on from here in the same way, bit for bit."""
        moments = {
            f"{part}.{name}": self.optimiser.state[weight][part]
            for name, weight in self.weights.items()
            for part in _MOMENTS
            if weight in self.optimiser.state
        }
        scales = {f"scales.{one.name}": getattr(self.scales, one.name) for one in fields(Scales)}
        return {**self.weights, **moments, **scales, "idle": self.idle, "history": self.figures()}

    def figures(self) -> Tensor:
        """Return the `FIGURES` of every step so far, ``[step, 4]``."""
        return torch.stack(self.history) if self.history else self.idle.new_zeros(0, len(FIGURES)).float()

    def pre(self, read: Tensor) -> Tensor:
        """Return pre-activations, ``[row, width]``; the product is in bfloat16 where that is a device's fast one."""
        encoder, bias = self.weights["encoder"], self.weights["bias"]
        if read.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False):
            return (read.bfloat16() @ encoder.bfloat16().T).float().add_(bias)
        return torch.addmm(bias, read, encoder.T)

    def step(self, read: Tensor, written: Tensor) -> None:
        """Take one step on rows, ``[row, d_in]`` and ``[row, d_out]``."""
        with _exactly(read):
            self._step(read, written)

    def _step(self, read: Tensor, written: Tensor) -> None:
        recipe, w = self.recipe, self.weights
        read, written = self.scales.made(read, written)
        pre = self.pre(read)
        entries = recipe.chosen(pre)
        made = entries.written(w["decoder"]) + w["decoder_bias"]
        if recipe.skip:
            made += read @ w["skip"]
        left = written - made
        slope = left * (-2 / left.numel())
        found = {**gradients(entries, read, slope, w["decoder"]), "decoder_bias": slope.sum(0)}
        if recipe.skip:
            found["skip"] = read.T @ slope
        self.idle += len(read)
        self.idle[entries.features[entries.values > 0]] = 0
        dead = self.idle > max(_IDLE * recipe.steps, _LEAST_IDLE) * recipe.batch
        self._revive(pre, dead, read, left, found)
        self._apply(found)
        loss, spread = left.square().mean(), (written - written.mean(0)).square().mean()
        active = (entries.values > 0).sum() / len(read)
        self.history.append(torch.stack([loss, loss / spread, active, dead.float().mean()]))

    def _revive(self, pre: Tensor, dead: Tensor, read: Tensor, left: Tensor, found: dict[str, Tensor]) -> None:
        """Add the gradients by which dead features learn to write what is left."""
        numbers = dead.nonzero().flatten()
        if not len(numbers):
            return
        entries = Entries.topk(pre[:, numbers], min(len(numbers), max(1, read.shape[1] // 2)))
        decoder = self.weights["decoder"][numbers]
        missed = left - entries.written(decoder)
        slope = missed * (-2 * _AUX / missed.numel()) / left.square().mean().clamp_min(1e-12)
        for name, more in gradients(entries, read, slope, decoder).items():
            found[name][numbers] += more

    def _apply(self, found: Mapping[str, Tensor]) -> None:
        """Take Adam's step, and bring decoders back to norm 1."""
        decoder = self.weights["decoder"]
        for name, weight in self.weights.items():
            weight.grad = found[name]
        along = (found["decoder"] * decoder).sum(1, keepdim=True)
        decoder.grad = found["decoder"] - along * decoder
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(len(self.history))
        self.optimiser.step()
        decoder /= decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)

    def dictionary(self, reads: Place, writes: Place, read: Tensor) -> Dictionary:
        """Return what is trained as a dictionary of what is not brought to scale; its activations are in units of that.

        Parameters
        ----------
        read
            ``[row, d_in]``: what BatchTopK's threshold is taken from, the mean of the least activation of a batch.
        """
        w, scales, recipe = self.weights, self.scales, self.recipe
        ratio = scales.size_out / scales.size_in
        act = Act("topk", k=recipe.k)
        if recipe.kind == "batchtopk":
            with _exactly(read):
                act = Act("jumprelu", threshold=self._threshold(read)[None])
        skip = ratio * w["skip"] if recipe.skip else None
        bias = scales.mean_out + scales.size_out * w["decoder_bias"]
        return Dictionary(
            kind="sae" if reads == writes else "transcoder",
            reads=reads,
            writes=(writes,),
            encoder=ratio * w["encoder"],
            bias=scales.size_out * w["bias"] - w["encoder"] @ (ratio * scales.mean_in),
            decoders=(w["decoder"].clone(),),
            decoder_biases=(bias if skip is None else bias - scales.mean_in @ skip,),
            act=act,
            skip=skip,
        )

    def _threshold(self, read: Tensor) -> Tensor:
        parts = ((part - self.scales.mean_in) / self.scales.size_in for part in read.split(self.recipe.batch))
        active = [self.recipe.chosen(self.pre(part)).values for part in parts]
        least = [values.min() for values in active if len(values)] or [read.new_zeros(())]
        return torch.stack(least).mean() * self.scales.size_out


def _exactly(rows: Tensor) -> torch.autocast:
    """Return a scope in which products are of the precision of their factors, whatever the user has switched on."""
    return torch.autocast(rows.device.type, enabled=False)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
