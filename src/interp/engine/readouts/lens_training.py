"""What a tuned lens learns: each layer's map by itself, so that layers are shards.

Every map takes the same steps on the same tokens, whichever others are trained beside it: Adam goes element by element.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from interp.engine.metrics import upcast
from interp.engine.model import hooks
from interp.engine.pool import sharing
from interp.engine.pool.texts import Ids, packed, unpacked
from interp.engine.readouts import lens, translators
from interp.sites import Site

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.pool.protocol import Pool
    from interp.engine.readouts.lens import Readout
    from interp.results.tables import Float

# Streams that are there at once, in bytes: minibatches are drawn from them, and then the next texts are run.
_POOL = 256 * 2**20
_HELD = 0.1  # of the texts' tokens, which are not trained on but measured on
_MOST_HELD = 1024
_SOON = 0.5  # seconds that an interrupted training goes on measuring,
_FEW = 16  # so many tokens at a time
_SHARDS = 8  # at most: each runs the texts anew, which a map's training is long beside


@dataclass(frozen=True)
class Split:
    """Texts that are trained on, others that are measured on, and whether these are the same for want of others."""

    trained: Sequence[Ids]
    measured: Sequence[Ids]
    alone: bool

    @property
    def sizes(self) -> tuple[int, int]:
        """How many tokens both have."""
        return sum(map(len, self.trained)), sum(map(len, self.measured))


@dataclass(frozen=True)
class Asked:
    """A training.

    Attributes
    ----------
    texts
        What it learns from.
    width, places
        Numbers of a stream, and how many maps there are in all: they say how many tokens are there at once.
    steps, batch, rate
        Of Adam; `rate` falls linearly to 0.
    seed
        Of the order of tokens.
    """

    texts: Split
    width: int
    places: int
    steps: int
    batch: int
    rate: float
    seed: int

    @property
    def together(self) -> int:
        """How many tokens' streams are there at once."""
        return _POOL // (4 * self.width * (self.places + 1))

    def plain(self) -> dict[str, Any]:
        """Return it as what can be sent."""
        texts = self.texts
        numbers = {name: getattr(self, name) for name in ("width", "places", "steps", "batch", "rate", "seed")}
        return {
            **numbers,
            "alone": texts.alone,
            "trained": packed(texts.trained),
            "measured": packed(texts.measured),
        }

    @classmethod
    def of(cls, sent: Mapping[str, Any]) -> Asked:
        """Return what was sent."""
        numbers = dict(sent)
        trained, measured = (unpacked(numbers.pop(name)) for name in ("trained", "measured"))
        return cls(Split(trained, measured, numbers.pop("alone")), **numbers)


@dataclass(frozen=True)
class Trained:
    """Maps.

    Attributes
    ----------
    layers
        Whose.
    weights, biases
        ``[layer, d_model, d_model]`` and ``[layer, d_model]``.
    losses
        ``float64 [step, layer]``.
    logit_kl, tuned_kl
        ``float64 [layer]``, on `measured` of the tokens held out.
    """

    layers: tuple[int, ...]
    weights: Tensor
    biases: Tensor
    losses: Float
    logit_kl: Float
    tuned_kl: Float
    measured: int

    def pairs(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Return each layer's weight and bias."""
        return {n: (self.weights[k], self.biases[k]) for k, n in enumerate(self.layers)}

    def part(self, asked: Asked) -> str:
        """Return how much of what was asked for this is."""
        if len(self.layers) < asked.places:
            return f"when {len(self.layers)} of {asked.places} layers had been trained"
        count, most = self.measured, asked.texts.sizes[1]
        few = f", measured on {count} of {most} tokens" if count < most else ""
        return f"after {len(self.losses)} of {asked.steps} steps{few}"


def split(prompts: Sequence[Ids], seed: int) -> Split:
    """Divide texts, so that none is both trained on and measured on; of one text alone both are all of it."""
    order = [prompts[int(n)] for n in np.random.default_rng(seed).permutation(len(prompts))]
    different = list(dict.fromkeys(order))
    count = sum(map(len, different))
    first, seen = 0, 0
    while first < len(different) - 1 and seen < min(_MOST_HELD, _HELD * count):
        seen += len(different[first])
        first += 1
    held = set(different[:first])
    return Split([ids for ids in order if ids not in held], different[:first] or order, alone=not first)


def trained(model: LoadedModel, asked: Asked, layers: tuple[int, ...]) -> tuple[Trained, BaseException | None]:
    """Train the maps of `layers`, here or in the command's pool; return them, and the interrupt that stopped them.

    Raises
    ------
    InputError
        The model's logits are not what its final norm and unembedding make of its last stream.
    KeyboardInterrupt
        Before there was anything to keep.
    """
    pool = sharing.pool_of(model)
    if pool is not None:
        return _shared(pool, model, asked, layers)
    found, stopped = _alone(model, asked, layers, model.on_step)
    model.note("forward")
    return found, stopped


def _shared(
    pool: Pool, model: LoadedModel, asked: Asked, layers: tuple[int, ...]
) -> tuple[Trained, BaseException | None]:
    groups = [layers[own.start : own.stop] for own in sharing.slices(len(layers), -(-len(layers) // _SHARDS))]
    sent = asked.plain()
    done: dict[int, Trained] = {}

    def take(number: int, value: Mapping[str, Any]) -> None:
        done[number] = Trained(layers=groups[number], **value)
        model.on_step(sum(len(one.layers) for one in done.values()), len(layers))

    stopped: BaseException | None = None
    where = f" on {pool.name}"
    try:
        where = sharing.run(
            pool, "lens", [model], [{"asked": sent, "layers": group} for group in groups], take, way=None
        )
    except KeyboardInterrupt as interrupt:
        if not done:
            raise
        stopped = interrupt
    model.note(f"forward{where}")
    parts = [done[number] for number in sorted(done)]
    whole = Trained(
        layers=tuple(n for part in parts for n in part.layers),
        weights=torch.cat([part.weights for part in parts]),
        biases=torch.cat([part.biases for part in parts]),
        losses=np.concatenate([part.losses for part in parts], axis=1),
        logit_kl=np.concatenate([part.logit_kl for part in parts]),
        tuned_kl=np.concatenate([part.tuned_kl for part in parts]),
        measured=parts[0].measured,
    )
    return whole, stopped


def shard(
    models: Sequence[LoadedModel], step: Callable[[], None], *, asked: Mapping[str, Any], layers: Sequence[int]
) -> dict[str, Any]:
    """Return the maps of some layers, as a worker trains them."""

    def tell(*_: object) -> None:
        step()

    found, stopped = _alone(models[0], Asked.of(asked), tuple(layers), tell)
    if stopped is not None:
        raise stopped
    names = ("weights", "biases", "losses", "logit_kl", "tuned_kl", "measured")
    held = {name: getattr(found, name) for name in names}
    return held | {name: held[name].cpu() for name in ("weights", "biases")}


def _alone(
    model: LoadedModel, asked: Asked, layers: tuple[int, ...], on_step: Callable[[int, int], None]
) -> tuple[Trained, BaseException | None]:
    found = lens.readout(model)
    streams = _Streams(model, layers)
    held = streams.of(asked.texts.measured)
    lens.require(model, found, held[-1, -1].to(found.weight.dtype), streams.logits)
    training = _Training(found, len(layers), asked)
    stopped = training.run(streams.pools(asked.texts.trained, asked.together), on_step)
    weights, biases = training.weights.detach(), training.biases.detach()
    pairs = {n: (weights[k], biases[k]) for k, n in enumerate(layers)}
    measured, count = _measured(found, held, layers, pairs, _SOON if stopped is not None else math.inf)
    losses = np.array(training.losses, np.float64).reshape(-1, len(layers))
    return Trained(layers, weights, biases, losses, *measured, count), stopped


class _Streams:
    """The residual streams of texts, ``[layer + 1, token, d_model]``, the end last."""

    def __init__(self, model: LoadedModel, layers: Sequence[int]) -> None:
        self._model = model
        self._sites = [Site("resid_pre", n).hook_name for n in layers]
        self._sites.append(Site("resid_post", model.geometry.n_layers - 1).hook_name)
        self.logits: Any = None

    def of(self, texts: Sequence[Ids]) -> Tensor:
        """Return those of all tokens of texts."""
        return torch.cat([self._one(ids) for ids in texts], dim=1)

    def pools(self, texts: Sequence[Ids], together: int) -> Iterator[Tensor]:
        """Yield those of as many texts as have `together` tokens, over and over."""
        pool: list[Tensor] = []
        whole = together >= sum(map(len, texts))
        while True:
            for ids in texts:
                pool.append(self._one(ids))
                if sum(part.shape[1] for part in pool) >= together:
                    yield torch.cat(pool, dim=1)
                    pool = []
            if pool:
                joined = torch.cat(pool, dim=1)
                pool = []
                yield joined
                while whole:  # all texts fit: they are run once
                    yield joined

    def _one(self, ids: Ids) -> Tensor:
        kept: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001
                kept[name] = tensor[0].detach().clone()

            return hook

        logits = self._model.forward([ids], {name: keep(name) for name in self._sites})
        self.logits = logits[0, -1]
        return upcast(torch.stack([kept[name] for name in self._sites]))


class _Training:
    """The maps, their optimiser, and what every step gave."""

    def __init__(self, found: Readout, count: int, asked: Asked) -> None:
        device, dtype = found.weight.device, upcast(found.weight[:0]).dtype
        width = asked.width
        self._found, self._asked = found, asked
        self.weights: Tensor = torch.zeros(count, width, width, device=device, dtype=dtype).requires_grad_()
        self.biases: Tensor = torch.zeros(count, width, device=device, dtype=dtype).requires_grad_()
        self._optimiser: torch.optim.Adam = torch.optim.Adam([self.weights, self.biases], lr=asked.rate)
        self.losses: list[list[float]] = []

    def run(self, pools: Iterator[Tensor], on_step: Callable[[int, int], None]) -> BaseException | None:
        """Take the steps; return the interrupt that stopped them."""
        steps, batch = self._asked.steps, self._asked.batch
        draw = np.random.default_rng(self._asked.seed)
        try:
            while len(self.losses) < steps:
                pool = next(pools)
                order = draw.permutation(pool.shape[1])
                for start in range(0, len(order), batch):
                    if len(self.losses) == steps:
                        break
                    tokens = pool[:, order[start : start + batch]]
                    self.losses.append(hooks.guarded(lambda tokens=tokens: self._step(tokens), gradients=True))
                    on_step(len(self.losses), steps)
        except KeyboardInterrupt as interrupt:
            return interrupt
        return None

    def _step(self, tokens: Tensor) -> list[float]:
        """Take one step on streams ``[layer + 1, token, d_model]``; return each layer's mean divergence."""
        for group in self._optimiser.param_groups:
            group["lr"] = self._asked.rate * (1 - len(self.losses) / self._asked.steps)
        end = upcast(self._found.logits(tokens[-1].to(self._found.weight.dtype))).log_softmax(-1).detach()
        chances = end.exp()
        own = (chances * end).sum(-1).mean()
        losses: list[float] = []
        slopes: list[tuple[Tensor, Tensor]] = []
        # Layer by layer: the logits of one are there at a time.
        for stream, weight, bias in zip(tokens[:-1], self.weights, self.biases, strict=True):
            weight, bias = weight.detach().requires_grad_(), bias.detach().requires_grad_()
            moved = (stream + stream @ weight.T + bias).to(self._found.weight.dtype)
            logs = upcast(self._found.logits(moved)).log_softmax(-1)
            loss = own - (chances * logs).sum(-1).mean()
            slopes.append(torch.autograd.grad(loss, [weight, bias]))  # pyright: ignore[reportArgumentType]
            losses.append(float(loss.detach()))
        self.weights.grad = torch.stack([weight for weight, _ in slopes])
        self.biases.grad = torch.stack([bias for _, bias in slopes])
        self._optimiser.step()
        return losses


def _measured(
    found: Readout, held: Tensor, layers: Sequence[int], pairs: dict[int, tuple[Tensor, Tensor]], within: float
) -> tuple[tuple[Float, Float], int]:
    """Return the mean divergences on tokens held out, ``[layer]``, without and with the maps, and on how many.

    All of them, or as many as `within` seconds allow: somebody who has pressed Ctrl-C waits.
    """
    begun = time.monotonic()
    held = held.to(found.weight.dtype)
    size = held.shape[1] if math.isinf(within) else _FEW

    def divergence(streams: Tensor, end: Tensor) -> Float:
        return lens.project(found, streams, end, target=0, top=1).kl

    parts: list[tuple[Float, Float]] = []
    for some in held.split(size, dim=1):
        moved = [translators.affine(*pairs[n])(rows) for n, rows in zip(layers, some[:-1], strict=True)]
        parts.append((divergence(some[:-1], some[-1]), divergence(torch.stack(moved), some[-1])))
        if time.monotonic() - begun > within:
            break
    without, mapped = (np.concatenate(columns, axis=1) for columns in zip(*parts, strict=True))
    return (without.mean(1), mapped.mean(1)), without.shape[1]
