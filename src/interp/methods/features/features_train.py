"""Training dictionaries of features on texts: transcoders of MLPs, or sparse autoencoders at any site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from interp import files
from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import held_out
from interp.methods._shared import texts as running
from interp.methods._shared.features import features_of
from interp.methods._shared.features_train_result import FeaturesTrainResult
from interp.spec import Indices, Texts, resolve_indices

if TYPE_CHECKING:
    from interp.engine.features.held import FeatureSet
    from interp.engine.features.measure import Measured
    from interp.engine.features.places import Place
    from interp.engine.features.training import Recipe, Trainer
    from interp.engine.forecast.costs import Foresight
    from interp.engine.forecast.work import Work
    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float

_MOST_HELD = 4096  # tokens of texts held out that are measured on,
_SOON = 256  # or so many after an interrupt
_SAVES = 10  # of what was trained so far, in a training
_PASSES = 4  # over a part of the texts, one after the other: running the model costs about as much as a step
_RATE = 0.11  # over √width of what is read: what the weights' entries are like


@technique(body=Texts, name="features-train", forecasts=True)
def features_train(
    model: LoadedModel,
    texts: Texts,
    *,
    site: Literal["mlp", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "neuron"] = "mlp",
    layer: Indices = None,
    width: int = 512,
    k: int = 16,
    kind: Literal["topk", "batchtopk"] = "batchtopk",
    skip: bool = False,
    steps: int = 1000,
    batch: int = 2048,
    rate: float | None = None,
    out: str | None = None,
    seed: int = 0,
) -> FeaturesTrainResult:
    """Train dictionaries of features on texts, one for each layer; they become the current set.

    Parameters
    ----------
    texts
        What is learnt from; the last tenth of the texts is held out to measure on.
    site
        mlp: transcoders, from the MLP's normed input to its output. Any other site: sparse autoencoders of what is
        there.
    layer
        Layers, such as 5 or 0-3; all when not given. All of them are trained from the same forwards.
    width
        Features to a layer.
    k
        Features that are active at a token.
    kind
        topk: k at every token. batchtopk: k in the mean over a batch; a threshold when it is used.
    skip
        Add a linear map from what is read to what is written (a skip transcoder).
    steps
        Steps of Adam; its rate rises over the first twentieth and falls to 0 over the last half.
    batch
        Tokens to a step.
    rate
        The learning rate between; 0.11 / √(width of what is read) when not given.
    out
        A folder to write, in SAELens' format. What was trained so far is in it too, ten times on the way and after
        Ctrl-C: the same command with the same arguments goes on from there.
    seed
        Of the first weights and of the order of texts and tokens.

    Returns
    -------
    FeaturesTrainResult
        ``fvu``, ``l0``, ``dead`` and ``ce_recovered`` are ``[layer]``, on texts held out.

    Raises
    ------
    InputError
        Texts that cannot be used, a layer or site that the model lacks, a folder that is not to be written to.
    Interrupted
        Stopped by Ctrl-C: what was trained so far is the current set, in its ``result``, and in the folder.

    Notes
    -----
    Gao et al. (2024), "Scaling and evaluating sparse autoencoders" (TopK, AuxK); Bussmann et al. (2024), "BatchTopK
    sparse autoencoders"; Dunefsky et al. (2024), "Transcoders find interpretable LLM feature circuits"; Paulo et al.
    (2025), "Transcoders beat sparse autoencoders for interpretability" (skip).

    Examples
    --------
    >>> interp.features_train(["The cat sat on the mat.", "The dog sat on the rug."], width=32, steps=20).fvu.shape
    (4,)
    """
    from interp.engine.features import training
    from interp.engine.forecast.costs import foresee

    asked = {"width": width, "k": k, "steps": steps, "batch": batch}
    for name, value in asked.items():
        if value < 1:
            raise InputError(f"--{name} {value} trains nothing; use 1 or more")
    if k > width:
        raise InputError(f"--k {k} is more than the {width} features that there are; use a smaller --k")
    if rate is not None and not 0 < rate < float("inf"):
        raise InputError(f"--rate {rate} is no learning rate; use a number above 0, such as 0.001")
    if skip and site != "mlp":
        raise InputError(f"--skip is of transcoders (--site mlp); at {site} it would write what it reads")
    layers = resolve_indices(layer, model.geometry.n_layers, "layer")
    folder = None if out is None else _folder(out, layers)
    job = _Job(model, texts, site, layers, folder)
    recipe = training.Recipe(width, k, kind, steps, batch, 0.0, skip, seed)
    foresee(model, lambda: job.foreseen(recipe))
    recipe = replace(recipe, rate=rate or _RATE / job.ready() ** 0.5)
    stopped = job.train(recipe)
    return unless_interrupted(job.finished(stopped), stopped)


def _folder(out: str, layers: Sequence[int]) -> Path:
    """Return a folder that can be written; it is made where it is not there."""
    path = files.path_of(out)
    if files.there(path) == "folder" and not path.is_symlink():
        own = {f"layer_{n}" for n in layers}
        others = sorted(one.name for one in path.glob("layer_*") if one.name not in own)
        if others:
            raise InputError(f"{str(path)!r} holds {others[0]}, of another set; name another folder with --out")
        return path
    target = files.writable(out)
    if files.there(target):
        raise InputError(f"{str(target)!r} is a file; name a folder with --out")
    return target


class _Job:
    """Texts, what is trained on them, and what comes of it."""

    def __init__(
        self, model: LoadedModel, texts: Texts, site: str, layers: tuple[int, ...], folder: Path | None
    ) -> None:
        from interp.engine.features import measure
        from interp.engine.features.places import Place

        self.model, self.layers, self.folder = model, layers, folder
        reads, writes = ("mlp_normed", "mlp_out") if site == "mlp" else (site, site)
        for name in {reads, writes} - {"mlp_normed"}:
            model.require_site(name, layers)
        self.pairs: list[tuple[Place, Place]] = [(Place(n, reads), Place(n, writes)) for n in layers]
        encoded = running.encoded(model, texts.texts)
        self.trained, self.held, self.alone = held_out.split(encoded)
        self.sample = held_out.plain_of(texts.texts, encoded, {one.ids for one in self.held})
        self.places = list(dict.fromkeys(place for pair in self.pairs for place in pair))
        self.first = [int(measure.begins(model, one)) for one in self.trained]
        self.trainers: list[Trainer] = []
        self.resumed = 0

    def foreseen(self, recipe: Recipe) -> tuple[Foresight, Work]:
        """Return the work of all that follows, from the first step on."""
        from interp.engine.features import foreseen

        return foreseen.of_training(
            self.model,
            self.pairs,
            ([one.ids for one in self.trained], self.first),
            [one.ids for one in held_out.first_of(self.held, _MOST_HELD)],
            recipe,
            passes=self._passes(recipe),
            loss=self._predicts,
        )

    def ready(self) -> int:
        """Run the first text, and return how wide what is read is."""
        from interp.engine.features import activations
        from interp.engine.features.places import captured

        values = captured(self.model, self.trained[0], self.places)
        self.reader = activations.Reader(self.model, self.places, [one.ids for one in self.trained])
        self.model.note(self.reader.path, self.reader.notes)
        return values[self.pairs[0][0]].shape[-1]

    def _passes(self, recipe: Recipe) -> int:
        rows = sum(len(one.ids) for one in self.trained)
        return max(1, min(_PASSES, recipe.steps * recipe.batch // rows))

    @property
    def _predicts(self) -> bool:
        """Whether there is a next-token loss to measure."""
        return self.model.geometry.causal and not self.model.lacks_head

    def train(self, recipe: Recipe) -> BaseException | None:
        """Take the steps; return the interrupt that stopped them."""
        from interp.engine.features import activations, checkpoints, training
        from interp.engine.model import hooks

        self.recipe = recipe
        ids = [one.ids for one in self.trained]
        self.stream = activations.Stream(
            self.model,
            self.reader,
            ids,
            self.first,
            batch=recipe.batch,
            seed=recipe.seed,
            passes=self._passes(recipe),
        )
        asked = {
            **vars(recipe),
            "model": self.model.fingerprint(),
            "texts": held_out.digest(ids),
            "layers": self.layers,
        }
        asked |= {"site": [place.point for place in self.pairs[0]]}
        states = None
        if self.folder is not None:
            states = checkpoints.load(self.folder, len(self.pairs), asked, self.model.device)
        if states is None:
            seen = dict(zip(self.places, self.stream.seen(), strict=True))
            for place, rows in seen.items():
                if not bool(rows.isfinite().all()):
                    raise InputError(f"{self.model.name} has NaN or infinity at {place.name}: nothing is learnt there")
            states = [training.beginning(recipe, seen[reads], seen[writes]) for reads, writes in self.pairs]
        self.model.note(self.reader.path + self.stream.where)
        self.trainers = [training.Trainer(recipe, state) for state in states]
        self.resumed = self.steps
        every = max(1, recipe.steps // _SAVES)
        try:
            for number, batch in enumerate(self.stream.batches(self.resumed), self.resumed):
                if number == recipe.steps:
                    break
                rows = dict(zip(self.places, batch, strict=True))
                for trainer, (reads, writes) in zip(self.trainers, self.pairs, strict=True):
                    if len(trainer.history) == number:  # not one that an interrupt came behind
                        hooks.undisturbed(lambda t=trainer, x=rows[reads], y=rows[writes]: t.step(x, y))
                self.model.on_step(number + 1, recipe.steps)
                self.model.on_partial(self._so_far)
                if self.folder is not None and (number + 1) % every == 0:
                    self._keep(asked)
        except KeyboardInterrupt as interrupt:
            if self.folder is not None:
                self._keep(asked)
            return interrupt
        return None

    def _keep(self, asked: dict[str, Any]) -> None:
        from interp.engine.features import checkpoints

        assert self.folder is not None
        self.folder.mkdir(exist_ok=True)
        checkpoints.save(self.folder, self.trainers, asked)

    @property
    def steps(self) -> int:
        """How many steps all of them have taken."""
        return min(len(trainer.history) for trainer in self.trainers)

    def _so_far(self) -> FeaturesTrainResult:
        return self._result([], [f"partial: {self.steps} of {self.recipe.steps} steps"])

    def _result(self, measured: Sequence[Measured], notes: Sequence[str], saved: str = "") -> FeaturesTrainResult:
        figures = np.stack([one.figures()[: self.steps].double().cpu().numpy() for one in self.trainers], axis=-1)
        loss, fvu, l0, dead = figures.swapaxes(0, 1)

        def column(name: str) -> Float:
            return np.array([getattr(one, name) for one in measured] or [np.nan] * len(self.layers), np.float64)

        reads, writes = self.pairs[0]
        return FeaturesTrainResult(
            name=self.name,
            layers=self.layers,
            reads=reads.point,
            writes=writes.point,
            width=self.recipe.width,
            k=self.recipe.k,
            loss=loss,
            batch_fvu=fvu,
            batch_l0=l0,
            batch_dead=dead,
            fvu=column("fvu"),
            l0=column("l0"),
            dead=column("dead"),
            ce_recovered=column("ce_recovered"),
            steps=(self.steps, self.recipe.steps),
            tokens=(self.stream.rows, measured[0].tokens if measured else 0),
            saved=saved,
            notes=tuple(notes),
        )

    @property
    def name(self) -> str:
        """What the set is called."""
        return "trained" if self.folder is None else self.folder.name or "trained"

    def finished(self, stopped: BaseException | None) -> FeaturesTrainResult:
        """Measure what was trained, make it the current set, and save it."""
        import torch

        from interp.engine.features import held as sets
        from interp.engine.features.measure import measure

        seen = dict(zip(self.places, self.stream.seen(), strict=True))
        made = [
            trainer.dictionary(reads, writes, seen[reads]).to(self.model.device, getattr(torch, self.model.dtype))
            for trainer, (reads, writes) in zip(self.trainers, self.pairs, strict=True)
        ]
        held = held_out.first_of(self.held, _MOST_HELD if stopped is None else _SOON)
        loss = stopped is None and self._predicts
        measured = measure(self.model, made, held, loss=loss, on_step=self._measuring)
        made = [_declaring(one, found) for one, found in zip(made, measured, strict=True)]
        own = sets.FeatureSet(
            self.name, "trained here", "SAELens", tuple(made), self.sample, tuple(measured), {"sample": self.sample}
        )
        sets.hold(self.model, own)
        features_of(self.model, own.name)
        notes = ["there is one text alone: what it is worth is measured on what was trained on"] if self.alone else []
        if self.resumed:
            notes.insert(0, f"went on from step {self.resumed} of the training in {self.folder}")
        if stopped is not None:
            on = f", measured on {measured[0].tokens} tokens"
            notes.insert(0, f"partial: interrupted after {self.steps} of {self.recipe.steps} steps{on}")
        if not self.alone and len(held) < len(self.held):
            notes.append(f"measured on {measured[0].tokens} tokens of the last tenth of the texts, which is held out")
        saved = ""
        if self.folder is not None:
            try:
                saved = str(self._save(own, whole=stopped is None))
            except InputError as error:  # what was trained for an hour is not lost for want of a place
                notes.append(f"the dictionaries were not written: {error}; they are the current set all the same")
        return self._result(measured, notes, saved)

    def _measuring(self, done: int, total: int) -> None:
        self.model.on_step(done, total, "measuring")

    def _save(self, own: FeatureSet, *, whole: bool) -> Path:
        from interp.engine.features import checkpoints
        from interp.engine.features.formats import saelens

        assert self.folder is not None
        said = {"sample": list(self.sample), "model": self.model.name, "seed": self.recipe.seed}
        for one in own.dictionaries:
            saelens.write(self.folder / f"layer_{one.layer}", one, said=said)
        if whole:
            (self.folder / checkpoints.FILE).unlink(missing_ok=True)
        return self.folder


def _declaring(one: Any, found: Measured) -> Any:
    figures = {name: float(getattr(found, name)) for name in ("fvu", "l0", "dead", "ce_recovered")}
    return replace(one, declared={name: value for name, value in figures.items() if np.isfinite(value)})
