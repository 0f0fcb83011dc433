"""Points laid out in the plane by UMAP or t-SNE, with the clusters that HDBSCAN finds there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST = 10
_SMALLEST = 5


@dataclass(frozen=True)
class Clusters:
    """A map.

    Attributes
    ----------
    kind, of
        ``umap`` or ``tsne``, and what the points are: ``neurons`` or ``tokens``.
    places
        ``float32 [point, 2]``.
    labels
        ``int64 [point]``: the cluster, −1 for none.
    names
        What each point is: a neuron ``"5.123"``, or a token string.
    """

    kind: str
    of: str
    places: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return int(self.labels.max(initial=-1)) + 1


Layout = Callable[["NDArray[np.float32]", str, Sequence[str], Sequence[str], int], Clusters]


def embedder(kind: str) -> Layout:
    """Return ``layout(activations [token, neuron], of, neurons, tokens, seed)``.

    Raises
    ------
    InputError
        The packages are not there.
    """
    try:
        import hdbscan

        if kind == "umap":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import umap as library
        else:
            import sklearn.manifold as library
    except ImportError as error:
        raise InputError(f"clusters need {error.name or kind}: pip install 'interp[cluster]'") from None

    def layout(
        activations: NDArray[np.float32], of: str, neurons: Sequence[str], tokens: Sequence[str], seed: int
    ) -> Clusters:
        from interp.engine import linalg

        spread = linalg.finite(activations, "the neurons' activations").std(0)
        # Every neuron counts alike, whatever its scale; one that does nothing says nothing.
        scaled = (activations - activations.mean(0)) / np.where(spread > 0, spread, 1)
        rows = scaled.T if of == "neurons" else scaled
        names = neurons if of == "neurons" else tokens
        if len(rows) < _LEAST:
            raise InputError(
                f"{len(rows)} {of} are too few to cluster; name {_LEAST} or more (5.* is all of a layer), or more text"
            )
        places = _placed(library, kind, np.ascontiguousarray(rows, np.float32), seed)
        finder: Any = hdbscan.HDBSCAN(min_cluster_size=max(_SMALLEST, len(rows) // 50))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            labels = finder.fit_predict(places.astype(np.float64))
        return Clusters(kind, of, places, np.asarray(labels, np.int64), tuple(names))

    return layout


def _placed(library: Any, kind: str, rows: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    count = len(rows)
    if kind == "umap":
        made = library.UMAP(n_neighbors=min(15, count - 1), random_state=seed, n_jobs=1)
    else:
        made = library.TSNE(perplexity=min(30.0, (count - 1) / 3), random_state=seed, init="random")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(made.fit_transform(rows), np.float32)
