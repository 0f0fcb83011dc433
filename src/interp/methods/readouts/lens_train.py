"""Training a tuned lens: for each place in the residual stream an affine map to where the last layer leaves it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp import files
from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import texts as running
from interp.results import Result
from interp.results.tables import frame_of
from interp.spec import Indices, Texts, resolve_indices

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float


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
    from interp.engine.readouts import foreseen, lens_training, translators

    for name, value in (("steps", steps), ("batch", batch)):
        if value < 1:
            raise InputError(f"--{name} {value} trains nothing; use 1 or more")
    if not 0 < rate < float("inf"):
        raise InputError(f"--rate {rate} is no learning rate; use a number above 0, such as 0.001")
    if out is not None and files.writable(out).suffix.lower() != ".safetensors":
        raise InputError(f"a lens is saved as .safetensors; write --out {Path(out).stem or 'lens'}.safetensors")
    layers = resolve_indices(layer, model.geometry.n_layers, "layer")
    split = lens_training.split([one.ids for one in running.encoded(model, texts.texts)], seed)
    lengths = (list(map(len, split.trained)), list(map(len, split.measured)))
    foresee(model, lambda: foreseen.of_lens(model, lengths, layers=len(layers), steps=steps, batch=batch))
    asked = lens_training.Asked(split, model.geometry.d_model, len(layers), steps, batch, rate, seed)
    trained, stopped = lens_training.trained(model, asked, layers)
    layers = trained.layers
    notes = ["there is one text alone: the divergences are on what was trained on"] if split.alone else []
    if stopped is not None:
        notes.insert(0, f"partial: interrupted {trained.part(asked)}")
    saved = ""
    if out is not None:
        try:
            saved = str(translators.save(out, trained.pairs(), model))
        except InputError as error:  # what was trained for an hour is not lost for want of a place
            notes.append(f"the lens was not written: {error}; save(…) of this result writes it")
    result = LensTrainResult(
        layers=layers,
        weights=trained.weights.float().cpu().numpy().copy(),
        biases=trained.biases.float().cpu().numpy().copy(),
        logit_kl=trained.logit_kl,
        tuned_kl=trained.tuned_kl,
        loss=trained.losses,
        steps=len(trained.losses),
        tokens=split.sizes,
        saved=saved,
        notes=tuple(notes),
    )
    return unless_interrupted(result, stopped)
