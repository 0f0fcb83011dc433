"""The probes of all layers: cross-validated, with shuffled labels beside them, and fitted to all texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.methods._shared.intervals import LEAST
from interp.methods._shared.probe.streamed import Streamed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.methods._shared.probe.labels import Target
    from interp.results.tables import Float

LARGEST = 2**24  # activations of a layer that are fitted at once: more are read some at a time
_CUTS = 20  # that are tried, where many texts are equal, for one without an empty fold


def _padded(rows: Sequence[Any], count: int) -> Float:
    """Return `rows` as an array of `count` rows, NaN behind the last."""
    found = np.array(rows, np.float64)
    return np.concatenate([found, np.full((count - len(found), *found.shape[1:]), np.nan)])


class _Whole:
    """A probe fitted by scikit-learn; see `Streamed`."""

    def __init__(
        self, rows: NDArray[Any], chosen: NDArray[np.int_], labels: NDArray[Any], classes: bool, strength: float
    ) -> None:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        last: Any = LogisticRegression(C=1 / strength, max_iter=1000) if classes else Ridge(alpha=strength)
        self._rows = rows
        self._made: Any = make_pipeline(StandardScaler(), last).fit(rows[chosen].astype(np.float64), labels[chosen])
        self.coef: Float = np.atleast_2d(last.coef_) / self._made.steps[0][1].scale_
        self.intercept: Float = np.atleast_1d(last.intercept_) - self.coef @ self._made.steps[0][1].mean_

    def predict(self, chosen: NDArray[np.int_]) -> NDArray[Any]:
        """Return the labels that are said of some rows."""
        return self._made.predict(self._rows[chosen].astype(np.float64))


class Fits:
    """The probes of all layers, and the interrupt that stopped them.

    Parameters
    ----------
    release
        Lets go of the memory of rows that are in a file.
    """

    def __init__(
        self,
        target: Target,
        groups: NDArray[np.int_],
        folds: int,
        shuffles: int,
        strength: float,
        seed: int,
        release: Callable[[], None],
    ) -> None:
        self._release = release
        self.target, self.groups, self.folds, self.strength, self.seed = target, groups, folds, strength, seed
        self.interrupt: KeyboardInterrupt | None = None
        chance = np.random.default_rng(seed)
        self.shuffled = [chance.permutation(target.values) for _ in range(shuffles)]

    def all(self, values: NDArray[Any], on_step: Any) -> dict[str, Any]:
        """Return the arrays of a ProbeResult for activations ``[layer, text, d_model]``, and ``notes``."""
        import warnings

        from sklearn.exceptions import ConvergenceWarning

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

    def _fitted(self, rows: NDArray[Any], chosen: NDArray[np.int_], labels: NDArray[Any]) -> _Whole | Streamed:
        if rows.size > LARGEST:
            return Streamed(rows, chosen, labels, len(self.target.classes), self.strength, self._release)
        return _Whole(rows, chosen, labels, bool(self.target.classes), self.strength)

    def _scores(self, rows: NDArray[Any], labels: NDArray[Any]) -> tuple[Float, float]:
        """Return each fold's score, and the mean balanced accuracy."""
        from sklearn.metrics import r2_score, recall_score

        found: list[float] = []
        even: list[float] = []
        for train, test in self._cut(labels):
            said = self._fitted(rows, train, labels).predict(test)
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

    def _weights(self, rows: NDArray[Any]) -> tuple[Float, Float]:
        """Return the weights of the probe fitted to all texts, of activations that are not standardised."""
        fitted = self._fitted(rows, np.arange(len(rows)), self.target.values)
        return fitted.coef, fitted.intercept

    def _interval(self, scores: Float) -> Float:
        from scipy.stats import t

        folds = scores.shape[1]
        if folds < LEAST:
            return np.full((len(scores), 2), np.nan)
        spread = scores.std(1, ddof=1) * math.sqrt(1 / folds + 1 / (folds - 1))
        half = float(t.ppf(0.975, folds - 1)) * spread
        ends = np.stack([scores.mean(1) - half, scores.mean(1) + half], 1)
        return np.clip(ends, 0, 1) if self.target.classes else np.minimum(ends, 1)
