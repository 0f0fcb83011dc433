"""Which heads read what which earlier heads write: Q-, K- and V-composition of all pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared.models import opened
from interp.results import Result
from interp.results.tables import lines_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.network import Network
    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ComposeResult(Result):
    """Composition of every pair of heads.

    Attributes
    ----------
    scores
        ``"q"``, ``"k"``, ``"v"`` → ``float64 [layer, head, reader's layer, reader's head]``: the ratio of Frobenius
        norms less `baseline`; NaN where the reader is not in a later layer.
    baseline
        What two unrelated heads have: the root of the expected squared ratio when what one reads is turned at random,
        which is 1/√d_model exactly, whatever the two matrices are.
    """

    scores: Mapping[str, Float]
    baseline: float

    _html: ClassVar[str] = "interp.views.compose:html"
    _svg: ClassVar[str | None] = "interp.views.compose:svg"

    def summary(self) -> str:
        """Return the strongest pair of each kind."""
        best = [
            f"{kind.upper()} {a} → {b} {value:+.3f}" for kind in self.scores for _, a, b, value in self.top(1, kind)
        ]
        return f"{self.provenance.model}: {', '.join(best) or 'one layer: nothing composes'}"

    def top(self, n: int = 10, kind: str | None = None) -> list[tuple[str, str, str, float]]:
        """Return the strongest pairs, of one kind or of all: (kind, head, reader, score), strongest first.

        Raises
        ------
        InputError
            A kind that was not computed.

        Examples
        --------
        >>> interp.compose().top(1, "k")
        [('k', '0.0', '1.0', 0.127...)]
        """
        if kind is not None and kind not in self.scores:
            raise InputError(f"{kind!r} was not computed; this result holds {', '.join(self.scores)}")
        found: list[tuple[str, str, str, float]] = []
        for name in self.scores if kind is None else (kind,):
            values = self.scores[name]
            flat = np.where(np.isfinite(values), values, -np.inf).reshape(-1)
            for index in np.argsort(-flat, kind="stable")[:n]:
                a, b, c, d = np.unravel_index(int(index), values.shape)
                if np.isfinite(flat[index]):
                    found.append((name, f"{a}.{b}", f"{c}.{d}", float(flat[index])))
        return sorted(found, key=lambda pair: -pair[3])[:n]

    def _lines(self) -> list[str]:
        return lines_of(("kind", "head", "read by", "score"), self.top(5))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per pair and kind: kind, layer, head, reader's layer and head, score; strongest first."""
        import pandas as pd

        parts: list[pd.DataFrame] = []
        names = ["layer", "head", "reader_layer", "reader_head"]
        for kind, values in self.scores.items():
            where = np.argwhere(np.isfinite(values))
            part = pd.DataFrame(where, columns=names)
            part.insert(0, "kind", kind)
            part["score"] = values[tuple(where.T)]
            parts.append(part)
        return pd.concat(parts).sort_values("score", ascending=False, kind="stable", ignore_index=True)


@technique(body=None)
def compose(model: LoadedModel, *, kind: Literal["q", "k", "v"] | None = None) -> ComposeResult:
    """Composition of all pairs of heads: how much a later head's queries, keys and values read what an earlier writes.

    Parameters
    ----------
    kind
        q, k or v; all three when not given.

    Returns
    -------
    ComposeResult
        ``scores`` by kind, ``float64 [layer, head, reader's layer, reader's head]``, with the baseline taken off.

    Raises
    ------
    InputError
        A model whose weights are not of a known layout.
    Interrupted
        Stopped by Ctrl-C: the scores of the layers so far are in its ``result``.

    Notes
    -----
    Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits": ‖W_OV R‖ / (‖W_OV‖ ‖R‖), where R is what
    the reader makes of the residual stream. Norm gains are folded in, and so is a LayerNorm's centring of what is read;
    rotary positions are left out. A high score says that the weights fit each other, not that the model uses it: patch
    the path to see that.

    Examples
    --------
    >>> interp.compose(kind="k").top(1)
    [('k', '0.0', '1.0', 0.127...)]
    """
    from interp.engine.readouts import ov_qk

    net = opened(model, "composition")
    g = model.geometry
    kinds = ov_qk.KINDS if kind is None else (kind,)
    scores = {name: np.full((g.n_layers, g.n_heads, g.n_layers, g.n_heads), np.nan) for name in kinds}
    baseline = g.d_model**-0.5
    notes, reached = list(_notes(net)), 0
    interrupt: KeyboardInterrupt | None = None
    try:
        with ov_qk.unmixed(model.device):
            for layer, found in ov_qk.composition(net, kinds):
                for name, ratios in found.items():
                    scores[name][:layer, :, layer] = ratios.double().cpu().numpy() - baseline
                reached = layer
                model.on_step(layer, g.n_layers - 1)
    except KeyboardInterrupt as stopped:
        if not reached:
            raise
        interrupt = stopped
        notes.insert(0, f"partial: interrupted after {reached} of {g.n_layers - 1} layers of readers; the rest is NaN")
    return unless_interrupted(ComposeResult(scores=scores, baseline=baseline, notes=tuple(notes)), interrupt)


def _notes(net: Network) -> Iterator[str]:
    if len(net.layers) == 1:
        yield "a model of one layer has no pair of heads that could compose"
    elif not all(layer.norm1.rms for layer in net.stored):
        yield "what a head reads is centred, as its LayerNorm does: what only shifts the mean composes with none"
