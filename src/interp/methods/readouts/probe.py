"""Linear probes: what a label can be read from, layer by layer, against shuffled labels."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from interp.errors import InputError, Interrupted, closest
from interp.interface.registry import technique
from interp.methods._shared import texts as files
from interp.results import Result, resolve
from interp.spec import Prompt, Variable

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel

    Float = NDArray[np.float64]

_CUTS = 20  # that are tried, where many texts are equal, for one without an empty fold
ProbeSite = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ProbeResult(Result):
    """A linear probe of every layer.

    Attributes
    ----------
    site, position
        The activation, and ``"last"`` or ``"mean"`` of its tokens.
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
        ``float64 [layer, 2]``: 95 % interval of that mean over the folds.
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
        return int(np.nan_to_num(self.score, nan=-math.inf).argmax())

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
        depth = len(self.score)
        chosen = self.best if layer is None else layer
        if not 0 <= chosen < depth:
            raise InputError(f"no layer {chosen}; layers are 0–{depth - 1}")
        if label is None and len(self.classes) > 2:
            raise InputError(f"there are {len(self.classes)} classes; name one: {', '.join(self.classes)}")
        row, sign = 0, 1.0
        if label is not None:
            if label not in self.classes:
                known = ", ".join(self.classes) or "none, since labels are real numbers"
                raise InputError(f"there is no label {label!r}{closest(str(label), self.classes)}; labels are {known}")
            index = self.classes.index(label)
            row, sign = (index, 1.0) if len(self.classes) > 2 else (0, 1.0 if index else -1.0)
        found = sign * self.coef[chosen, row]
        size = float(np.linalg.norm(found))
        if not size or not math.isfinite(size):
            raise InputError(f"the probe of layer {chosen} has no direction; choose another layer")
        return found / size

    def summary(self) -> str:
        """Return the best layer's score beside its control."""
        low, high = self.interval[self.best]
        what = " / ".join(self.classes[:4]) + " …" * (len(self.classes) > 4) if self.classes else "real numbers"
        return (
            f"{self.provenance.model}: {what} from {self.site} ({self.position}), {sum(self.counts)} texts; best layer "
            f"{self.best}: {self.metric} {self.score[self.best]:.3f} [{low:.3f}, {high:.3f}], shuffled labels "
            f"{self.control[self.best]:.3f}"
        )

    def text(self) -> str:
        """Return a line per layer."""
        named = resolve("interp.errors:printable")
        lines = (
            f"L{n:<3} {score:7.3f}  [{low:6.3f}, {high:6.3f}]  shuffled {control:7.3f}"
            for n, (score, (low, high), control) in enumerate(zip(self.score, self.interval, self.control, strict=True))
        )
        return "\n".join([named(super().text().partition("\n")[0]), *lines, *(f"note: {n}" for n in self.notes)])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per layer."""
        import pandas as pd

        return pd.DataFrame(
            {
                "layer": range(len(self.score)),
                self.metric: self.score,
                "low": self.interval[:, 0],
                "high": self.interval[:, 1],
                "balanced accuracy": self.balanced,
                "shuffled labels": self.control,
                "selectivity": self.selectivity,
                "baseline": self.baseline,
            }
        )


@technique(body=None)
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
    folds: int = 5,
    shuffles: int = 3,
    strength: float = 1.0,
    seed: int = 0,
    bos: bool | None = None,
    truncate: bool = False,
) -> ProbeResult:
    """Linear probes: how well a label is read from each layer, cross-validated, beside shuffled labels.

    Parameters
    ----------
    texts
        A list of texts, or a DataFrame; in a magic, the name of a variable.
    labels
        As many labels: names and whole numbers are classes, real numbers are values.
    text
        A file of texts and labels instead: .csv, .tsv, .json or .jsonl.
    column
        The file's or the DataFrame's column that holds the text.
    label
        Its column that holds the label.
    site
        The activation that is read.
    position
        last reads the last token; mean the mean over all tokens but special ones, such as BOS.
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
    from interp.engine.readouts.text_activations import pooled

    if importlib.util.find_spec("sklearn") is None:
        raise InputError("probes need scikit-learn: pip install 'interp[probe]'")
    for name, value, least in (("folds", folds, 2), ("shuffles", shuffles, 1)):
        if value < least:
            raise InputError(f"--{name} {value} is too few; use {least} or more")
    if not 0 < strength < math.inf:
        raise InputError(f"--strength {strength} is no penalty; use a number above 0, such as 1")
    prompts, given = _given(texts, labels, text, column, label)
    target = _target(given)
    encoded = files.encoded(model, [Prompt(one, bos=bos, truncate=truncate) for one in prompts])
    groups = np.unique([str(one.ids) for one in encoded], return_inverse=True)[1]
    _enough(target, groups, folds)
    found = pooled(model, encoded, site, position)
    model.note(found.path, found.notes)
    fits = _Fits(target, groups, folds, shuffles, strength, seed)
    fitted = fits.all(found.values.double().numpy(), model.on_step)
    result = ProbeResult(
        site=site,
        position=position,
        metric="accuracy" if target.classes else "R²",
        classes=target.classes,
        counts=target.counts,
        baseline=max(target.counts) / len(prompts) if target.classes else 0.0,
        notes=tuple(fitted.pop("notes") + _twice(groups)),
        **fitted,
    )
    if fits.interrupt is not None:
        raise Interrupted(result)
    return result


def _given(texts: Any, labels: Any, text: str | None, column: str, label: str) -> tuple[list[Any], list[Any]]:
    """Return the texts and as many labels.

    Raises
    ------
    InputError
        None, two of them, or ones that do not go together.
    """
    if (texts is None) == (text is None):
        raise InputError("a probe needs texts and labels: --text FILE --label COLUMN, or interp.probe(texts, labels)")
    if text is not None:
        if labels is not None:
            raise InputError("the file holds the labels: name their column with --label")
        rows = files.rows(text)
        if not all(isinstance(row, Mapping) for row in rows):
            raise InputError(
                f"{text!r} has no columns; a probe needs a .csv, .tsv, .json or .jsonl with texts and labels"
            )
        prompts: list[Any] = [files.cell(row, column, text) for row in rows]
        known = {str(name) for row in rows for name in row}
        if label not in known:
            raise InputError(f"{text!r} has no column {label!r}{closest(label, known)}; name the labels' with --label")
        held: list[Any] = [row.get(label) for row in rows]
    elif hasattr(texts, "columns"):
        for name, flag in ((column, "column"), *(((label, "label"),) if labels is None else ())):
            if name not in texts.columns:
                raise InputError(
                    f"the table has no column {name!r}{closest(name, map(str, texts.columns))}; add {flag}=…"
                )
        prompts, held = _list(texts[column], "texts"), _list(texts[label] if labels is None else labels, "labels")
    else:
        if labels is None:
            raise InputError("a probe needs a label for each text: interp.probe(texts, labels)")
        prompts, held = _list(texts, "texts"), _list(labels, "labels")
    if len(prompts) != len(held):
        raise InputError(f"there are {len(prompts)} texts and {len(held)} labels; give one label for each text")
    odd = next((n for n, one in enumerate(prompts) if not isinstance(one, str)), None)
    if odd is not None:
        raise InputError(f"text {odd} is {type(prompts[odd]).__name__}, not a text")
    return prompts, held


def _list(given: Any, which: str) -> list[Any]:
    if callable(given):
        raise InputError(f"{which} are a list or a table's column, not a function; give [f(text) for text in texts]")
    listed: Any = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(listed, str | bytes | Mapping) or not isinstance(listed, Iterable):
        raise InputError(f"{which} are a list or a table's column, not {type(given).__name__}")
    return list(cast("Iterable[Any]", listed))


@dataclass(frozen=True)
class _Target:
    """What is read: classes by number, or real numbers when there are no `classes`."""

    values: NDArray[Any]
    classes: tuple[str, ...]
    counts: tuple[int, ...]


def _target(labels: Sequence[Any]) -> _Target:
    lost = next((n for n, one in enumerate(labels) if _is_lost(one)), None)
    if lost is not None:
        raise InputError(f"text {lost} has no label; give it one, or leave it out")
    numbers = [_number(one) for one in labels]
    if len(labels) and all(number is not None for number in numbers):
        values = np.array(numbers, np.float64)
        if not np.isfinite(values).all():
            raise InputError("a label is infinite; give finite numbers")
        if (values % 1 != 0).any():
            if (values == values[0]).all():
                raise InputError(f"every label is {labels[0]}; a probe needs values that differ")
            return _Target(values, (), (len(labels),))
    # A whole number that pandas made a float of is the number; a text stays as it is spelled.
    spelled = [str(int(one)) if isinstance(one, float | np.floating) and one % 1 == 0 else str(one) for one in labels]
    names = sorted(set(spelled), key=lambda name: (_number(name) is None, _number(name) or 0.0, name))
    if len(names) < 2:
        raise InputError(
            f"there is one label alone, {names[0]!r}; a probe needs two" if names else "there are no texts"
        )
    place = {name: n for n, name in enumerate(names)}
    values = np.array([place[name] for name in spelled])
    counts: list[int] = np.bincount(values).tolist()
    return _Target(values, tuple(names), tuple(counts))


def _is_lost(label: Any) -> bool:
    try:
        return label is None or label == "" or bool(label != label) or math.isnan(_number(label) or 0.0)
    except (TypeError, ValueError):  # pandas' NA is neither equal to itself nor not
        return True


def _number(value: Any) -> float | None:
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _enough(target: _Target, groups: NDArray[np.int_], folds: int) -> None:
    """Refuse fewer texts, equal ones counted once, than there are folds.

    Raises
    ------
    InputError
        A class has fewer different texts than folds, or real numbers have fewer than two for each fold.
    """
    if not target.classes:
        different = len(np.unique(groups))
        if different < 2 * folds:
            raise InputError(f"{different} different texts are too few for {folds} folds; give {2 * folds} or more")
        return
    counts = [len(np.unique(groups[target.values == n])) for n in range(len(target.classes))]
    fewest = counts.index(min(counts))
    if counts[fewest] < folds:
        more = f"use --folds {counts[fewest]}, or " if counts[fewest] > 1 else ""
        what = "different text" if target.counts[fewest] > counts[fewest] else "text"
        raise InputError(
            f"label {target.classes[fewest]!r} has {counts[fewest]} {what}{'s' * (counts[fewest] != 1)} and there are "
            f"{folds} folds; {more}give more texts"
        )


def _twice(groups: NDArray[np.int_]) -> list[str]:
    again = len(groups) - len(np.unique(groups))
    return [f"{again} texts are there more than once: equal texts are in one fold"] if again else []


def _padded(rows: Sequence[Any], count: int) -> Float:
    """Return `rows` as an array of `count` rows, NaN behind the last."""
    found = np.array(rows, np.float64)
    return np.concatenate([found, np.full((count - len(found), *found.shape[1:]), np.nan)])


class _Fits:
    """The probes of all layers, and the interrupt that stopped them."""

    def __init__(
        self, target: _Target, groups: NDArray[np.int_], folds: int, shuffles: int, strength: float, seed: int
    ) -> None:
        self.target, self.groups, self.folds, self.strength, self.seed = target, groups, folds, strength, seed
        self.interrupt: KeyboardInterrupt | None = None
        chance = np.random.default_rng(seed)
        self.shuffled = [chance.permutation(target.values) for _ in range(shuffles)]

    def all(self, values: Float, on_step: Any) -> dict[str, Any]:
        """Return the arrays of a ProbeResult for activations ``[layer, text, d_model]``, and ``notes``."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning

        lost = [layer for layer, rows in enumerate(values) if not np.isfinite(rows).all()]
        if lost:
            raise InputError(f"the activations are NaN or infinite from layer {lost[0]} on; a probe cannot read them")
        found: list[tuple[Any, ...]] = []  # of each layer
        notes: list[str] = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            try:
                for layer, rows in enumerate(values):
                    score, even = self._scores(rows, self.target.values)
                    control = [float(self._scores(rows, labels)[0].mean()) for labels in self.shuffled]
                    found.append((score, even, control, *self._weights(rows)))
                    on_step(layer + 1, len(values))
            except KeyboardInterrupt as interrupt:
                if not found:
                    raise
                self.interrupt = interrupt
                notes.append(f"partial: interrupted after {len(found)}/{len(values)} layers; the others are NaN")
        hasty = sum(issubclass(one.category, ConvergenceWarning) for one in caught)
        if hasty:
            notes.append(f"{hasty} fits had not settled when they were stopped; raise --strength")
        table, balanced, controls, coef, intercept = (_padded(rows, len(values)) for rows in zip(*found, strict=True))
        return {
            "scores": table,
            "score": table.mean(1),
            "interval": self._interval(table),
            "balanced": balanced,
            "control": controls.mean(1),
            "controls": controls,
            "coef": coef,
            "intercept": intercept,
            "notes": notes,
        }

    def _model(self) -> Any:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        last: Any = (
            LogisticRegression(C=1 / self.strength, max_iter=1000)
            if self.target.classes
            else Ridge(alpha=self.strength)
        )
        return make_pipeline(StandardScaler(), last)

    def _scores(self, rows: Float, labels: NDArray[Any]) -> tuple[Float, float]:
        """Return each fold's score, and the mean balanced accuracy."""
        from sklearn.metrics import r2_score, recall_score

        found: list[float] = []
        even: list[float] = []
        for train, test in self._cut(labels):
            said = self._model().fit(rows[train], labels[train]).predict(rows[test])
            if self.target.classes:
                found.append(float((said == labels[test]).mean()))
                # Of the classes that are in this fold: equal texts stay together, and may leave one out.
                even.append(float(recall_score(labels[test], said, labels=np.unique(labels[test]), average="macro")))
            else:
                found.append(float(r2_score(labels[test], said)))
        return np.array(found), float(np.mean(even)) if even else math.nan

    def _cut(self, labels: NDArray[Any]) -> list[tuple[NDArray[np.int_], NDArray[np.int_]]]:
        """Return each fold's texts to learn from and to test on; equal texts are in one fold, which learns of none."""
        from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

        again = len(np.unique(self.groups)) < len(self.groups)
        kinds: tuple[Any, Any] = (StratifiedGroupKFold, GroupKFold) if again else (StratifiedKFold, KFold)
        for attempt in range(_CUTS):
            cut = kinds[not self.target.classes](self.folds, shuffle=True, random_state=self.seed + attempt)
            parts = list(cut.split(labels, labels, self.groups))
            if all(len(test) and len(np.unique(labels[train])) > 1 for train, test in parts):
                return parts
        raise InputError("so many texts are equal that a fold is empty or has one label; use fewer --folds")

    def _weights(self, rows: Float) -> tuple[Float, Float]:
        """Return the weights of the probe fitted to all texts, of activations that are not standardised."""
        fitted = self._model().fit(rows, self.target.values)
        scaler, last = (step for _, step in fitted.steps)
        coef = np.atleast_2d(last.coef_) / scaler.scale_
        return coef, np.atleast_1d(last.intercept_) - coef @ scaler.mean_

    def _interval(self, scores: Float) -> Float:
        from scipy.stats import t

        folds = scores.shape[1]
        spread = scores.std(1, ddof=1) * math.sqrt(1 / folds + 1 / (folds - 1))
        half = float(t.ppf(0.975, folds - 1)) * spread
        ends = np.stack([scores.mean(1) - half, scores.mean(1) + half], 1)
        return np.clip(ends, 0, 1) if self.target.classes else np.minimum(ends, 1)
