"""Training a tuned lens: for each place in the residual stream an affine map to where the last layer leaves it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp import files
from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import texts as running
from interp.results import Result
from interp.results.tables import frame_of
from interp.sites import Site
from interp.spec import Indices, Texts, resolve_indices

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.lens import Readout
    from interp.results.tables import Float

# Streams that are there at once, in bytes: minibatches are drawn from them, and then the next texts are run.
_POOL = 256 * 2**20
_HELD = 0.1  # of the texts' tokens, which are not trained on but measured on
_MOST_HELD = 1024
_SOON = 0.5  # seconds that an interrupted training goes on measuring,
_FEW = 16  # so many tokens at a time


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LensTrainResult(Result):
    """A tuned lens.

    Attributes
    ----------
    layers
        The places that are mapped: i is before layer i, which is after layer i − 1 (0 is the embedding).
    weights, biases
        ``float32 [layer, d_model, d_model]`` and ``[layer, d_model]``: a stream h is read as ``h + W h + b``.
    logit_kl, tuned_kl
        ``float64 [layer]``: mean divergence from the model's end distribution on the texts held out, in nats, without
        and with the map.
    loss
        ``float64 [step, layer]``: mean divergence on each step's tokens.
    steps
        How many steps were taken; fewer than asked for after an interrupt.
    tokens
        How many tokens were trained on, and how many held out.
    saved
        The file that was written, or an empty string.
    """

    layers: tuple[int, ...]
    weights: NDArray[np.float32]
    biases: NDArray[np.float32]
    logit_kl: Float
    tuned_kl: Float
    loss: Float
    steps: int
    tokens: tuple[int, int]
    saved: str = ""

    _html: ClassVar[str] = "interp.views.kit.table:html"

    def summary(self) -> str:
        """Return what was trained and what it gained."""
        return (
            f"{self.provenance.model}: tuned lens of {len(self.layers)} layers, {self.steps} steps; mean divergence "
            f"{self.logit_kl.mean():.3f} → {self.tuned_kl.mean():.3f} nats" + (f", in {self.saved}" * bool(self.saved))
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per place: where it is, and its divergence from the end without and with its map."""
        where = ["embedding" if n == 0 else f"after layer {n - 1}" for n in self.layers]
        return frame_of(
            {"place": self.layers, "stream": where, "logit lens kl": self.logit_kl, "tuned lens kl": self.tuned_kl}
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the lens as .safetensors for ``lens --from``, or the result as the other suffixes do.

        Raises
        ------
        InputError
            As `Result.save`; or the model is gone or has changed, whose fingerprint goes into the file.

        Examples
        --------
        >>> result.save("lens.safetensors").name
        'lens.safetensors'
        """
        if files.path_of(path).suffix.lower() != ".safetensors":
            return super().save(path)

        def write(model: LoadedModel) -> Path:
            import torch

            from interp.engine.readouts import translators

            both = zip(self.weights, self.biases, strict=True)
            pairs = {n: (torch.tensor(w), torch.tensor(b)) for n, (w, b) in zip(self.layers, both, strict=True)}
            return translators.save(path, pairs, model)

        return self._run(write, "a lens' file, which names its model,")


@technique(body=Texts, name="lens-train", forecasts=True)
def lens_train(
    model: LoadedModel,
    texts: Texts,
    *,
    out: str | None = None,
    layer: Indices = None,
    steps: int = 250,
    batch: int = 128,
    rate: float = 1e-3,
    seed: int = 0,
) -> LensTrainResult:
    """Train a tuned lens on texts: affine maps that bring each layer's prediction closest to the model's own.

    Parameters
    ----------
    texts
        What the lens learns from; a tenth of it is held out to measure on.
    out
        The .safetensors file to write.
    layer
        Layers whose input is mapped, as lens --at pre counts: 0 is the embedding; all when not given.
    steps
        Steps of Adam; its rate falls linearly to 0.
    batch
        Tokens to a step.
    rate
        The first step's learning rate.
    seed
        Of the order of texts and tokens.

    Returns
    -------
    LensTrainResult
        ``logit_kl`` and ``tuned_kl`` are ``[layer]``, on the tokens held out.

    Raises
    ------
    InputError
        Texts that cannot be used, a layer that the model lacks, a file that must not be written.
    Interrupted
        Stopped by Ctrl-C: what was trained so far is in its ``result``, and in the file.

    Notes
    -----
    Belrose et al. (2023), "Eliciting Latent Predictions from Transformers with the Tuned Lens": each map minimises the
    divergence Σ p_end (ln p_end − ln p) of what the model's own final norm and unembedding make of the mapped stream.

    Examples
    --------
    >>> interp.lens_train(["The cat sat on the mat.", "The dog sat on the rug."], steps=20).tuned_kl.shape
    (4,)
    """
    from interp.engine.forecast.costs import foresee
    from interp.engine.readouts import foreseen, lens, translators

    for name, value in (("steps", steps), ("batch", batch)):
        if value < 1:
            raise InputError(f"--{name} {value} trains nothing; use 1 or more")
    if not 0 < rate < float("inf"):
        raise InputError(f"--rate {rate} is no learning rate; use a number above 0, such as 0.001")
    if out is not None and files.writable(out).suffix.lower() != ".safetensors":
        raise InputError(f"a lens is saved as .safetensors; write --out {Path(out).stem or 'lens'}.safetensors")
    layers = resolve_indices(layer, model.geometry.n_layers, "layer")
    prompts = [one.ids for one in running.encoded(model, texts.texts)]
    found = lens.readout(model)
    streams = _Streams(model, layers, prompts, seed)
    lengths = (list(map(len, streams.trained)), list(map(len, streams.measured)))
    foresee(model, lambda: foreseen.of_lens(model, lengths, layers=len(layers), steps=steps, batch=batch))
    held = streams.held()
    lens.require(model, found, held[-1, -1].to(found.weight.dtype), streams.logits)
    training = _Training(found, len(layers), model.geometry.d_model, steps, batch, rate)
    stopped = training.run(streams.pools(), seed, model.on_step)
    pairs = {n: (training.weights[k].detach(), training.biases[k].detach()) for k, n in enumerate(layers)}
    measured, count = _measured(found, held, layers, pairs, _SOON if stopped is not None else math.inf)
    notes = ["there is one text alone: the divergences are on what was trained on"] if streams.alone else []
    if stopped is not None:
        few = f", measured on {count} of {streams.sizes[1]} tokens" if count < streams.sizes[1] else ""
        notes.insert(0, f"partial: interrupted after {len(training.losses)} of {steps} steps{few}")
    saved = ""
    if out is not None:
        try:
            saved = str(translators.save(out, pairs, model))
        except InputError as error:  # what was trained for an hour is not lost for want of a place
            notes.append(f"the lens was not written: {error}; save(…) of this result writes it")
    result = LensTrainResult(
        layers=layers,
        weights=training.weights.detach().float().cpu().numpy().copy(),
        biases=training.biases.detach().float().cpu().numpy().copy(),
        logit_kl=measured[0],
        tuned_kl=measured[1],
        loss=np.array(training.losses, np.float64).reshape(-1, len(layers)),
        steps=len(training.losses),
        tokens=streams.sizes,
        saved=saved,
        notes=tuple(notes),
    )
    return unless_interrupted(result, stopped)


class _Streams:
    """The residual streams of the texts, a part of them at a time."""

    def __init__(
        self, model: LoadedModel, layers: Sequence[int], prompts: Sequence[tuple[int, ...]], seed: int
    ) -> None:
        self.model = model
        self.sites = [Site("resid_pre", n).hook_name for n in layers]
        self.sites.append(Site("resid_post", model.geometry.n_layers - 1).hook_name)
        order = [prompts[int(n)] for n in np.random.default_rng(seed).permutation(len(prompts))]
        different = list(dict.fromkeys(order))
        count = sum(map(len, different))
        split, seen = 0, 0
        while split < len(different) - 1 and seen < min(_MOST_HELD, _HELD * count):
            seen += len(different[split])
            split += 1
        self.alone = not split
        self.measured = different[:split] or order
        held = set(different[:split])
        self.trained = [ids for ids in order if ids not in held]
        self.sizes = (sum(map(len, self.trained)), sum(map(len, self.measured)))
        self.logits: Any = None

    def held(self) -> Tensor:
        """Return the streams that are measured on, ``[layer + 1, token, d_model]``, the end last."""
        import torch

        return torch.cat([self._of(ids) for ids in self.measured], dim=1)

    def pools(self) -> Iterator[Tensor]:
        """Yield the streams that are trained on, as many texts together as fit, over and over."""
        import torch

        element = 4 * self.model.geometry.d_model * len(self.sites)
        pool: list[Tensor] = []
        whole = _POOL // element >= self.sizes[0]
        while True:
            for ids in self.trained:
                pool.append(self._of(ids))
                if sum(part.shape[1] for part in pool) >= _POOL // element:
                    yield torch.cat(pool, dim=1)
                    pool = []
            if pool:
                joined = torch.cat(pool, dim=1)
                pool = []
                yield joined
                while whole:  # all texts fit: they are run once
                    yield joined

    def _of(self, ids: tuple[int, ...]) -> Tensor:
        import torch

        from interp.engine.metrics import upcast

        kept: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(tensor: Tensor, hook: Any) -> None:  # noqa: ARG001
                kept[name] = tensor[0].detach().clone()

            return hook

        logits = self.model.forward([ids], {name: keep(name) for name in self.sites})
        self.model.note("forward")
        self.logits = logits[0, -1]
        return upcast(torch.stack([kept[name] for name in self.sites]))


class _Training:
    """The maps, their optimiser, and what every step gave."""

    def __init__(self, found: Readout, count: int, width: int, steps: int, batch: int, rate: float) -> None:
        import torch

        from interp.engine.metrics import upcast

        device, dtype = found.weight.device, upcast(found.weight[:0]).dtype
        self.found, self.steps, self.batch, self.rate = found, steps, batch, rate
        self.weights: Tensor = torch.zeros(count, width, width, device=device, dtype=dtype).requires_grad_()
        self.biases: Tensor = torch.zeros(count, width, device=device, dtype=dtype).requires_grad_()
        self.optimiser: torch.optim.Adam = torch.optim.Adam([self.weights, self.biases], lr=rate)
        self.losses: list[list[float]] = []

    def run(self, pools: Iterator[Tensor], seed: int, on_step: Callable[[int, int], None]) -> BaseException | None:
        """Take the steps; return the interrupt that stopped them."""
        from interp.engine.model import hooks

        draw = np.random.default_rng(seed)
        try:
            while len(self.losses) < self.steps:
                pool = next(pools)
                order = draw.permutation(pool.shape[1])
                for start in range(0, len(order), self.batch):
                    if len(self.losses) == self.steps:
                        break
                    tokens = pool[:, order[start : start + self.batch]]
                    self.losses.append(hooks.guarded(lambda tokens=tokens: self._step(tokens), gradients=True))
                    on_step(len(self.losses), self.steps)
        except KeyboardInterrupt as interrupt:
            return interrupt
        return None

    def _step(self, tokens: Tensor) -> list[float]:
        """Take one step on streams ``[layer + 1, token, d_model]``; return each layer's mean divergence."""
        import torch

        from interp.engine.metrics import upcast

        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * (1 - len(self.losses) / self.steps)
        end = upcast(self.found.logits(tokens[-1].to(self.found.weight.dtype))).log_softmax(-1).detach()
        chances = end.exp()
        own = (chances * end).sum(-1).mean()
        losses: list[float] = []
        slopes: list[tuple[Tensor, Tensor]] = []
        # Layer by layer: the logits of one are there at a time.
        for stream, weight, bias in zip(tokens[:-1], self.weights, self.biases, strict=True):
            weight, bias = weight.detach().requires_grad_(), bias.detach().requires_grad_()
            moved = (stream + stream @ weight.T + bias).to(self.found.weight.dtype)
            logs = upcast(self.found.logits(moved)).log_softmax(-1)
            loss = own - (chances * logs).sum(-1).mean()
            slopes.append(torch.autograd.grad(loss, [weight, bias]))  # pyright: ignore[reportArgumentType]
            losses.append(float(loss.detach()))
        self.weights.grad = torch.stack([weight for weight, _ in slopes])
        self.biases.grad = torch.stack([bias for _, bias in slopes])
        self.optimiser.step()
        return losses


def _measured(
    found: Readout, held: Tensor, layers: Sequence[int], pairs: dict[int, tuple[Tensor, Tensor]], within: float
) -> tuple[tuple[Float, Float], int]:
    """Return the mean divergences on tokens held out, ``[layer]``, without and with the maps, and on how many.

    All of them, or as many as `within` seconds allow: somebody who has pressed Ctrl-C waits.
    """
    import torch

    from interp.engine.readouts import lens, translators

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
