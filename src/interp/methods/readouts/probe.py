"""Linear probes: what a label can be read from, layer by layer, against shuffled labels."""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unknown, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import named_positions
from interp.methods._shared.features import features_of
from interp.methods._shared.intervals import too_few
from interp.methods._shared.probe.features import read as of_features
from interp.methods._shared.probe.fits import Fits
from interp.methods._shared.probe.labels import enough, groups_of, joined, target_of, twice
from interp.methods._shared.probe.prompts import prompts
from interp.results import Result, resolve
from interp.results.tables import frame_of
from interp.sites import FEATURES, ranges
from interp.spans import Positions
from interp.spec import FeaturesName, Indices, Variable, resolve_indices

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float

ProbeSite = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "features"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ProbeResult(Result):
    """A linear probe of every layer.

    Attributes
    ----------
    site, position
        The activation, and ``"last"`` or ``"mean"`` of its tokens.
    at
        Of which of them: what the positions, or the span, are called; empty for all.
    metric
        ``"accuracy"``, or ``"R²"`` where the labels are real numbers.
    classes
        The labels' names, in order; empty for real numbers.
    counts
        How many texts of each class, or of all.
    scores
        ``float64 [layer, fold]``: of each fold's held-out texts.
    score
        ``float64 [layer]``: their mean.
    interval
        ``float64 [layer, 2]``: 95 % interval of that mean over the folds; NaN for fewer than four.
    balanced
        ``float64 [layer]``: mean over classes of the share found, over the folds; NaN for real numbers.
    control
        ``float64 [layer]``: the same score with shuffled labels, mean over the shuffles.
    controls
        ``float64 [layer, shuffle]``: of each of them.
    baseline
        The share of the most frequent class; 0 for R², which is that of the mean.
    coef, intercept
        ``float64 [layer, class, d_model]`` and ``[layer, class]`` of the probe fitted to all texts, of activations as
        they are; one row for two classes (positive towards the second) and for real numbers.
    layers
        The layers of the first axis; all when empty.
    features
        Of a probe of features, each layer's, which are the last axis of `coef`; 0 stands there behind them.
    """

    site: str
    position: str
    metric: str
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    scores: Float
    score: Float
    interval: Float
    balanced: Float
    control: Float
    controls: Float
    baseline: float
    coef: Float
    intercept: Float
    layers: tuple[int, ...] = ()
    features: tuple[tuple[str, ...], ...] = ()
    at: str = ""

    _html: ClassVar[str] = "interp.views.probe:html"
    _svg: ClassVar[str | None] = "interp.views.probe:svg"
    _plotly: ClassVar[str | None] = "interp.views.probe:plotly"

    @property
    def accuracy(self) -> Float:
        """``float64 [layer]``: the score, where it is one of classes.

        Raises
        ------
        InputError
            The labels are real numbers.
        """
        if not self.classes:
            raise InputError("the labels are real numbers, which have no accuracy; score is R²")
        return self.score

    @property
    def selectivity(self) -> Float:
        """``float64 [layer]``: score less control (Hewitt and Liang 2019)."""
        return self.score - self.control

    @property
    def best(self) -> int:
        """The layer with the highest score, the first of equals."""
        return self.numbers[self.row]

    @property
    def numbers(self) -> tuple[int, ...]:
        """The layers of the first axis."""
        return self.layers or tuple(range(len(self.score)))

    @property
    def row(self) -> int:
        """Where on that axis the best layer is."""
        return int(np.nan_to_num(self.score, nan=-math.inf).argmax())

    def top(self, n: int = 10, layer: int | None = None, label: str | None = None) -> list[tuple[str, float]]:
        """Return the `n` features with the largest weights towards a label: (name, weight of an activation of 1).

        Parameters
        ----------
        layer, label
            As for `direction`.

        Raises
        ------
        InputError
            It is no probe of features, or no such layer or label.
        """
        if not self.features:
            raise InputError(f"this is a probe of {self.site}; of --site features top() names the strongest")
        row, weights = self._towards(layer, label)
        order = np.argsort(-np.abs(weights), kind="stable")[:n]
        names = self.features[row]
        return [(names[at], float(weights[at])) for at in order.tolist() if at < len(names)]

    def direction(self, layer: int | None = None, label: str | None = None) -> Float:
        """Return the unit vector, ``float64 [d_model]``, along which a layer's activations move towards a label.

        Parameters
        ----------
        layer
            The best one when not given.
        label
            One of several classes; of two, the second when not given.

        Raises
        ------
        InputError
            No such layer or label, none named of several, or a probe that found nothing.

        Examples
        --------
        >>> interp.steer("I think", layer=2, direction=result.direction(2)).layer
        2
        """
        if self.features:
            raise InputError("a probe of features has weights of features, which top() names, and no direction")
        row, found = self._towards(layer, label)
        size = float(np.linalg.norm(found))
        if not size or not math.isfinite(size):
            raise InputError(f"the probe of layer {self.numbers[row]} has no direction; choose another layer")
        return found / size

    def _towards(self, layer: int | None, label: str | None) -> tuple[int, Float]:
        """Return a layer's place on the first axis, and its weights towards a label."""
        chosen = self.best if layer is None else layer
        if chosen not in self.numbers:
            raise InputError(f"no layer {chosen}; layers are {ranges(self.numbers).replace('-', '–')}")
        if label is None and len(self.classes) > 2:
            raise InputError(f"there are {len(self.classes)} classes; name one: {', '.join(self.classes)}")
        row, sign = 0, 1.0
        if label is not None:
            if label not in self.classes:
                known = ", ".join(self.classes) or "none, since labels are real numbers"
                raise unknown("label", label, self.classes, f"labels are {known}")
            index = self.classes.index(label)
            row, sign = (index, 1.0) if len(self.classes) > 2 else (0, 1.0 if index else -1.0)
        place = self.numbers.index(chosen)
        return place, sign * self.coef[place, row]

    def summary(self) -> str:
        """Return the best layer's score beside its control."""
        sure = _between(*self.interval[self.row])
        where = f"{self.position} of {self.at}" if self.at else self.position
        what = " / ".join(self.classes[:4]) + " …" * (len(self.classes) > 4) if self.classes else "real numbers"
        return (
            f"{self.provenance.model}: {what} from {self.site} ({where}), {sum(self.counts)} texts; best layer "
            f"{self.best}: {self.metric} {self.score[self.row]:.3f}{sure}, shuffled labels "
            f"{self.control[self.row]:.3f}"
        )

    def text(self) -> str:
        """Return a line per layer."""
        named = resolve("interp.errors:printable")
        lines = (
            f"L{n:<3} {score:7.3f} {_between(low, high, 6)}  shuffled {control:7.3f}"
            for n, score, (low, high), control in zip(
                self.numbers, self.score, self.interval, self.control, strict=True
            )
        )
        return "\n".join([named(super().text().partition("\n")[0]), *lines, *(f"note: {n}" for n in self.notes)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per layer."""
        return frame_of(
            {
                "layer": self.numbers,
                self.metric: self.score,
                "low": self.interval[:, 0],
                "high": self.interval[:, 1],
                "balanced accuracy": self.balanced,
                "shuffled labels": self.control,
                "selectivity": self.selectivity,
                "baseline": self.baseline,
            }
        )


def _nothing() -> None:
    """Keep what is in memory, which no file has."""


def _between(low: float, high: float, width: int = 0) -> str:
    """Return an interval in words, or nothing where there is none."""
    return f" [{low:{width}.3f}, {high:{width}.3f}]" if math.isfinite(low) else ""


@technique(body=None, changes=True)
def probe(
    model: LoadedModel,
    texts: Variable = None,
    labels: Variable = None,
    *,
    text: str | None = None,
    column: str = "text",
    label: str = "label",
    site: ProbeSite = "resid_post",
    position: Literal["last", "mean"] = "last",
    at: Positions = None,
    layer: Indices = None,
    task: Annotated[str, "task"] | None = None,
    n: int = 32,
    folds: int = 5,
    shuffles: int = 3,
    strength: float = 1.0,
    seed: int = 0,
    bos: bool | None = None,
    truncate: bool = False,
    features: FeaturesName | None = None,
) -> ProbeResult:
    """Linear probes: how well a label is read from each layer, cross-validated, beside shuffled labels.

    Parameters
    ----------
    texts
        A list of texts, or a DataFrame; or pairs, such as a task's; in a magic, the name of a variable.
    labels
        As many labels: names and whole numbers are classes, real numbers are values. Pairs without labels are told
        apart: their prompts are of the classes clean and corrupted; with a label for each pair, clean prompts are read.
    text
        A file of texts and labels instead: .csv, .tsv, .json or .jsonl.
    column
        The file's or the DataFrame's column that holds the text.
    label
        Its column that holds the label.
    site
        The activation that is read; or features: those of loaded dictionaries, as far as they are active in any text.
    position
        last reads the last token; mean the mean over all tokens but special ones, such as BOS.
    at
        Of which tokens: the last, or the mean, of a span's by its name, such as S2, or of positions; texts are read for
        marks then, [Mary]{IO}. Of all when not given.
    layer
        Layers, such as 5, 0-3 or 0,5,7; all when not given. Of each, one vector per text is kept.
    task
        A task whose pairs are told apart instead of texts.
    n
        How many pairs the task makes.
    folds
        Into how many parts the texts are cut, each of them held out once; equal texts are in one part.
    shuffles
        How many times the labels are shuffled for the control.
    strength
        The weights' penalty: scikit-learn's 1 / C, or Ridge's alpha.
    seed
        Of the folds and the shuffles.
    bos
        Put the tokenizer's BOS in front (default: as the model's config says).
    truncate
        Cut texts that are longer than the context window.
    features
        With --site features: a loaded set of features; the one loaded last when not given.

    Returns
    -------
    ProbeResult
        ``accuracy`` (``score``), ``control`` and ``balanced`` are ``float64 [layer]``, ``interval`` ``[layer, 2]``;
        ``direction(layer)`` is a unit vector ``[d_model]``.

    Raises
    ------
    InputError
        Texts and labels that do not go together, a class with fewer different texts than folds, a site that the model
        lacks, or scikit-learn is missing.
    Interrupted
        Stopped by Ctrl-C once a layer was fitted: those that were are in its ``result``. While the texts are still run
        there is nothing to keep.

    Notes
    -----
    Alain and Bengio (2016), "Understanding intermediate layers using linear classifier probes"; the control and
    selectivity, score less control, after Hewitt and Liang (2019), "Designing and Interpreting Probes with Control
    Tasks", here with labels shuffled among the texts. Activations are standardised within each fold; logistic
    regression, or ridge regression for real numbers. The interval is a t interval over the folds whose variance is
    enlarged by 1 / (folds − 1), since folds share what they learn from (Nadeau and Bengio 2003, "Inference for the
    Generalization Error").

    Examples
    --------
    >>> texts = [f"a {word} {noun}" for word in ("great", "dull") for noun in ("film", "book", "song", "game", "play")]
    >>> r = interp.probe(texts, ["good"] * 5 + ["bad"] * 5)
    >>> r.accuracy.shape, r.direction(r.best, "good").shape
    ((4,), (128,))
    """
    from interp.engine import linalg
    from interp.engine.readouts.text_activations import pooled

    if importlib.util.find_spec("sklearn") is None:
        raise InputError("probes need scikit-learn: pip install 'interp[probe]'")
    for name, value, least in (("folds", folds, 2), ("shuffles", shuffles, 1)):
        if value < least:
            raise InputError(f"--{name} {value} is too few; use {least} or more")
    if not 0 < strength < math.inf:
        raise InputError(f"--strength {strength} is no penalty; use a number above 0, such as 1")
    if features is not None and site != FEATURES.name:
        raise InputError(f"--features names a set of dictionaries, and {site} has none; add --site features")
    given_set = features_of(model, features) if site == FEATURES.name else None
    layers = None if layer is None else resolve_indices(layer, model.geometry.n_layers, "layer")
    asked = prompts(
        model, texts, labels, text, column, label, task=task, n=n, seed=seed, at=at, bos=bos, truncate=truncate
    )
    target = target_of(asked.labels)
    places = asked.positions(at)
    equal = groups_of(asked.ids)
    groups = joined(equal, asked.together)
    enough(target, groups, folds)
    codes = None if given_set is None else of_features(model, asked.ids, given_set, position, places, layers)
    if codes is None:
        found = pooled(model, asked.ids, site, position, places, layers)
        model.note(found.path, found.notes)
        values, release = found.values.numpy(), found.release
    else:
        values, layers, release = codes.values, codes.layers, _nothing
        for number, rows in zip(layers, values, strict=True):
            linalg.finite(rows, f"activations of {site} in layer {number}")
    fits = Fits(target, groups, folds, shuffles, strength, seed, release)
    fitted = fits.all(values, model.on_step)
    result = ProbeResult(
        site=site,
        position=position,
        metric="accuracy" if target.classes else "R²",
        classes=target.classes,
        counts=target.counts,
        baseline=max(target.counts) / len(groups) if target.classes else 0.0,
        layers=layers or (),
        features=() if codes is None else codes.names,
        at="" if at is None else named_positions.named(at),
        notes=tuple(fitted.pop("notes") + twice(equal) + too_few(folds, "folds") + asked.notes(at, position)),
        **fitted,
    )
    return unless_interrupted(result, fits.interrupt)
