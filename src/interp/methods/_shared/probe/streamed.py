"""A probe fitted to more rows than should be in memory: they are read some at a time, over and over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from interp.results.tables import Float

_ENTRIES = 2**20  # of rows that are read at once


class Streamed:
    """Logistic or ridge regression of standardised rows, as scikit-learn defines and minimises both.

    Parameters
    ----------
    rows
        ``float32 [text, width]``, in memory or in a file.
    chosen
        The texts that are learnt from.
    labels
        Of all texts: classes by number, or real numbers.
    classes
        How many classes there are; 0 for real numbers.
    strength
        The weights' penalty.
    release
        Called when some rows were read.

    Attributes
    ----------
    coef, intercept
        ``float64 [class, width]`` and ``[class]``, of rows as they are; one row for two classes and for real numbers.

    Notes
    -----
    The loss is the mean over rows plus strength / (2 · rows) · |w|², minimised by L-BFGS from 0 (Liu and Nocedal 1989);
    ridge regression is solved by its normal equations.
    """

    def __init__(
        self,
        rows: NDArray[Any],
        chosen: NDArray[np.int_],
        labels: NDArray[Any],
        classes: int,
        strength: float,
        release: Callable[[], None],
    ) -> None:
        self._release = release
        self._rows, self._labels, self._classes, self._strength = rows, labels, classes, strength
        self._chosen = np.zeros(len(rows), np.bool_)
        self._chosen[chosen] = True
        self._count = len(chosen)
        self._mean, self._scale = np.zeros(rows.shape[1]), np.ones(rows.shape[1])
        self._mean = sum(x.sum(0) for x, _ in self._parts()) / self._count
        spread = np.sqrt(sum(np.square(x).sum(0) for x, _ in self._parts()) / self._count)
        self._scale = np.where(spread > 10 * np.finfo(np.float64).eps * np.abs(self._mean), spread, 1.0)
        weights = self._logistic() if classes else self._ridge()
        self.coef = weights[:, :-1] / self._scale
        self.intercept = weights[:, -1] - self.coef @ self._mean

    def predict(self, chosen: NDArray[np.int_]) -> NDArray[Any]:
        """Return the labels that are said of some rows."""
        size = max(1, _ENTRIES // self._rows.shape[1])
        found: list[NDArray[Any]] = []
        for start in range(0, len(chosen), size):
            scores = self._rows[chosen[start : start + size]].astype(np.float64) @ self.coef.T + self.intercept
            self._release()
            if not self._classes:
                found.append(scores[:, 0])
            elif self._classes == 2:
                found.append((scores[:, 0] > 0).astype(np.int64))
            else:
                found.append(scores.argmax(1))
        return np.concatenate(found)

    def _parts(self) -> Iterator[tuple[Float, NDArray[Any]]]:
        """Yield the chosen rows, standardised, and their labels, some at a time."""
        size = max(1, _ENTRIES // self._rows.shape[1])
        for start in range(0, len(self._rows), size):
            own = self._chosen[start : start + size]
            rows = self._rows[start : start + size][own].astype(np.float64)
            self._release()
            yield (rows - self._mean) / self._scale, self._labels[start : start + size][own]

    def _ridge(self) -> Float:
        width = self._rows.shape[1]
        gram, moment = np.zeros((width, width)), np.zeros(width)
        level = float(self._labels[self._chosen].mean())
        for x, y in self._parts():
            gram += x.T @ x
            moment += x.T @ (y - level)
        from interp.engine import linalg

        found = linalg.solved(gram + self._strength * np.eye(width), moment, "activations")
        return np.append(found, level)[None]

    def _logistic(self) -> Float:
        from scipy.optimize import minimize

        shape = (1 if self._classes == 2 else self._classes), self._rows.shape[1] + 1

        def loss(flat: Float) -> tuple[float, Float]:
            weights = flat.reshape(shape)
            penalty = self._strength / self._count
            total = penalty / 2 * float(np.square(weights[:, :-1]).sum())
            slope = np.zeros(shape)
            slope[:, :-1] = penalty * weights[:, :-1]
            for x, y in self._parts():
                value, error = _errors(x @ weights[:, :-1].T + weights[:, -1], y)
                total += value / self._count
                slope[:, :-1] += error.T @ x / self._count
                slope[:, -1] += error.sum(0) / self._count
            return total, slope.ravel()

        options = {"maxiter": 1000, "maxls": 50, "gtol": 1e-4, "ftol": 64 * np.finfo(np.float64).eps}
        found = minimize(loss, np.zeros(shape[0] * shape[1]), method="L-BFGS-B", jac=True, options=options)
        self._settled(bool(found.success))
        return found.x.reshape(shape)

    def _settled(self, well: bool) -> None:
        if not well:
            import warnings

            from sklearn.exceptions import ConvergenceWarning

            warnings.warn("L-BFGS was stopped before it settled", ConvergenceWarning, stacklevel=2)


def _errors(scores: Float, labels: NDArray[Any]) -> tuple[float, Float]:
    """Return the summed loss of rows, and its slope by their scores."""
    if scores.shape[1] == 1:
        signed = scores[:, 0]
        value = float((np.logaddexp(0, signed) - labels * signed).sum())
        return value, (1 / (1 + np.exp(-signed)) - labels)[:, None]
    from scipy.special import log_softmax

    logs = log_softmax(scores, axis=1)
    rows = np.arange(len(labels))
    error = np.exp(logs)
    error[rows, labels] -= 1
    return -float(logs[rows, labels].sum()), error
