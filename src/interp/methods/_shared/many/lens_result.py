"""What each layer's residual stream predicts over many prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.errors import InputError, closest
from interp.methods._shared.many.dla_result import Token, named
from interp.methods._shared.many.result import ManyResult, Spread, spread
from interp.results.tables import frame_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.results.tables import Float

_READ = {
    "probability": "target_probability",
    "rank": "target_rank",
    "difference": "difference",
    "entropy": "entropy",
    "kl": "kl",
}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LensManyResult(ManyResult):
    """What each layer's residual stream predicts, in each of many prompts.

    Attributes
    ----------
    kind, at
        As in `LensResult`.
    layers
        The layers of the arrays' axis.
    by, places
        How prompts line up, ``"span"``, ``"position"``, ``"end"`` or ``"answer"`` (the position of the answer alone),
        and what lines up; of a span its last token is read.
    measured
        The place of the answer; the last one where it stands nowhere alike.
    targets, wrongs
        (string, id) of the token that is followed in each prompt, and of the one that it is held against, if any.
    ids, probabilities
        ``int64`` and ``float32 [prompt, layer, place, k]``: the likeliest tokens, likeliest first.
    names
        Token id → string, of every id in `ids`.
    entropy, kl
        ``float64 [prompt, layer, place]``, in nats, as in `LensResult`.
    target_probability, target_rank
        ``float32`` and ``int64 [prompt, layer, place]``; rank 0 is the top.
    difference
        ``float64 [prompt, layer, place]``: the target's logit less that of the wrong answer; ``None`` without one.
    """

    kind: str
    at: str
    layers: tuple[int, ...]
    by: str
    places: tuple[str, ...]
    measured: int
    targets: tuple[Token, ...]
    wrongs: tuple[Token, ...] = ()
    ids: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    names: Mapping[int, str] = field(default_factory=dict[int, str])
    entropy: Float
    kl: Float
    target_probability: NDArray[np.float32]
    target_rank: NDArray[np.int64]
    difference: Float | None = None

    _html: ClassVar[str] = "interp.views.many_lens:html"
    _svg: ClassVar[str | None] = "interp.views.many_lens:svg"
    _plotly: ClassVar[str | None] = "interp.views.many_lens:plotly"

    @property
    def what(self) -> str:
        """What is followed, in words."""
        return named(self.targets, self.wrongs)

    def spread(self, read: str) -> Spread:
        """Return the mean over prompts of what was read, ``[layer, place]``, and how sure it is.

        Parameters
        ----------
        read
            ``"probability"``, ``"rank"``, ``"difference"``, ``"entropy"`` or ``"kl"``.

        Raises
        ------
        InputError
            It is none of them, or there is no wrong answer to differ from.

        Examples
        --------
        >>> interp.lens(task="ioi", n=4).spread("rank").mean.shape
        (4, 4)
        """
        if read not in _READ:
            raise InputError(f"{read!r} is none of {', '.join(_READ)}{closest(read, _READ)}")
        each = getattr(self, _READ[read])
        if each is None:
            raise InputError("there is no logit difference without a wrong answer; add --wrong")
        return spread(each)

    def on_top(self) -> Float:
        """Return the share of prompts whose target is the likeliest token, ``float64 [layer, place]``."""
        return (self.target_rank == 0).mean(0)

    def summary(self) -> str:
        """Return the kind of lens, its size, and what becomes of the target where the answer stands."""
        here = (-1, self.measured)
        found = self.spread("probability")
        over = ""
        if self.difference is not None:
            apart = self.spread("difference")
            over = f", logit difference {apart.mean[here]:+.3f} ± {apart.standard_error[here]:.3f}"
        where = {"pre": "before", "mid": "in the middle of", "post": "after"}[self.at]
        return (
            f"{self.provenance.model}: {self.kind} lens, {len(self.layers)} layers × {len(self.places)} places over "
            f"{self.over}; {self.what} {where} layer {self.layers[-1]}: probability {found.mean[here]:.3f} ± "
            f"{found.standard_error[here]:.3f}, rank {self.spread('rank').mean[here]:.1f}{over}"
        )

    def text(self) -> str:
        """Return what becomes of the target layer by layer, where the answer stands."""
        chance, rank, top = self.spread("probability"), self.spread("rank"), self.on_top()
        lines: list[str] = []
        for n, layer in enumerate(self.layers):
            here = (n, self.measured)
            line = f"L{layer:<3} probability {chance.mean[here]:.4f} ± {chance.standard_error[here]:.4f}"
            line += f", rank {rank.mean[here]:.1f} ± {rank.standard_error[here]:.1f}, on top in {top[here]:.0%}"
            lines.append(line)
        return "\n".join([super().text(), *lines])

    def to_frame(self) -> pd.DataFrame:
        """Return one row per prompt, layer and place: likeliest token, entropy, divergence, target, difference."""
        prompt, layer, place = (grid.reshape(-1) for grid in np.indices(self.kl.shape))
        held = {} if self.difference is None else {"logit difference": self.difference.reshape(-1)}
        return frame_of(
            {
                "prompt": self.numbers[prompt],
                "layer": np.array(self.layers)[layer],
                "place": [self.places[n] for n in place],
                "top": [self.names[index] for index in self.ids[..., 0].reshape(-1).tolist()],
                "probability": self.probabilities[..., 0].reshape(-1),
                "entropy": self.entropy.reshape(-1),
                "kl": self.kl.reshape(-1),
                "target probability": self.target_probability.reshape(-1),
                "target rank": self.target_rank.reshape(-1),
                **held,
            }
        )
