"""Causal mediation: how much of an input's effect goes through a component, and how much past it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unknown, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import names, several
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared.pairs import encode
from interp.methods._shared.patching import features_swept, mediated
from interp.methods._shared.permutation import LEVEL, corrector
from interp.results.effects import EffectsResult
from interp.results.per_pair import PairTable
from interp.results.tables import frame_of, lines_of
from interp.sites import axes, find
from interp.spec import Components, FeaturesName, HeadNames, Indices, MetricName, Pairs, SiteName, plain, resolve_metric

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel
    from interp.results.tables import Float


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class MediationResult(EffectsResult):
    """Total, natural direct and natural indirect effects of the change from the corrupted to the clean prompt.

    With m(x, c) the metric on prompt x while the component has the value of prompt c's run:

    - total = m(clean, clean) − m(corrupted, corrupted);
    - indirect = m(corrupted, clean) − m(corrupted, corrupted), which is denoising activation patching;
    - direct = m(clean, corrupted) − m(corrupted, corrupted): the prompt changes, the mediator is held;
    - interaction = total − direct − indirect, which is 0 in a linear model.

    Attributes
    ----------
    site, by, axes, layers
        What the mediators are, and the axes of the arrays, such as ``("layer", "head")``.
    features
        Of features, the names of the axis, such as ``"F2.417"``: those that are active in any run.
    total, total_interval, total_p
        Mean over pairs, its 95 % interval ``float64 [2]``, its p-value.
    indirect, direct, interaction
        ``float64 [*axes]``: means over pairs; NaN for what was not asked or not reached.
    indirect_interval, direct_interval
        ``float64 [2, *axes]``: 95 % intervals over pairs; NaN for fewer than four pairs.
    p, corrected
        ``float64 [*axes]``: two-sided p-values of the indirect effects by sign-flip permutation over pairs, and after
        the correction for that many tests.
    correction, draws
        ``holm``, ``fdr_bh``, ``bonferroni`` or ``none``; how many assignments of signs were counted.
    per_pair_total, per_pair_indirect, per_pair_direct
        ``float64 [pair]`` and ``[pair, *axes]``.
    done
        ``bool [*axes]``: what was computed for every pair, both ways.
    """

    site: str
    by: str
    axes: tuple[str, ...]
    layers: tuple[int, ...]
    total: float
    total_interval: Float
    total_p: float
    indirect: Float
    direct: Float
    interaction: Float
    indirect_interval: Float
    direct_interval: Float
    p: Float
    corrected: Float
    correction: str
    draws: int
    per_pair_total: Float
    per_pair_indirect: Float
    per_pair_direct: Float
    features: tuple[str, ...] = ()

    _html: ClassVar[str] = "interp.views.mediate:html"
    _svg: ClassVar[str | None] = "interp.views.mediate:svg"
    _plotly: ClassVar[str | None] = "interp.views.mediate:plotly"

    @property
    def significant(self) -> NDArray[np.bool_]:
        """``bool [*axes]``: whether the corrected p-value is at most 0.05."""
        return self.corrected <= LEVEL

    @property
    def proportion(self) -> Float:
        """``float64 [*axes]``: the indirect effect as a part of the total, a ratio of means over pairs."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.indirect / self.total

    def name(self, index: Sequence[int]) -> str:
        """Return what the mediator at `index` is called.

        Examples
        --------
        >>> result.name((2, 1))
        '2.1'
        """
        if self.features:
            return self.features[index[0]]
        layer = self.layers[index[0]]
        return f"{layer}.{index[1]}" if len(index) == 2 else f"L{layer} {self.site}"

    def top(self, n: int = 10) -> list[tuple[str, float, float, float]]:
        """Return the `n` mediators of the largest indirect effect either way: (name, indirect, direct, corrected p).

        Examples
        --------
        >>> result.top(1)
        [('2.0', ...)]
        """
        return [
            (self.name(c), float(self.indirect[c]), float(self.direct[c]), float(self.corrected[c]))
            for c in self.strongest(n)
        ]

    def _lines(self) -> list[str]:
        return lines_of(("strongest", "indirect", "direct", "corrected p"), self.top(5))

    def _ranked(self) -> Float:
        return self.indirect

    def _pairs(self) -> PairTable:
        own: Mapping[str, Sequence[Any]] = {"layer": self.layers, "feature": self.features}
        sizes = zip(self.axes, self.indirect.shape, strict=True)
        axes = {"pair": range(len(self.per_pair_total))} | {name: own.get(name, range(n)) for name, n in sizes}
        each = {"indirect": self.per_pair_indirect, "direct": self.per_pair_direct}
        return PairTable(axes, {**each, "total": self.per_pair_total}, {name: f"per_pair_{name}" for name in each})

    def index(self, mediator: Any) -> tuple[int, ...]:
        """Return where a mediator stands in the arrays: given as ``"2.0"``, (2, 0), or a layer's number.

        Raises
        ------
        InputError
            There is none of that name or place.

        Examples
        --------
        >>> result.index("2.0")
        (2, 0)
        """
        given = plain(mediator)
        if isinstance(given, str):
            named = {self.name(at): at for at in np.ndindex(self.indirect.shape)}
            found = re.sub(r"L(\d+)H(\d+)", r"\1.\2", given)  # as it is drawn
            if found not in named:
                raise unknown("mediator", given, named, f"name one of to_frame(), such as {next(iter(named))}")
            return named[found]
        at: Any = (given,) if isinstance(given, int) else plain(given) if isinstance(given, list | tuple) else ()
        at = tuple(map(plain, at))
        inside = [isinstance(n, int) and 0 <= n < size for n, size in zip(at, self.indirect.shape, strict=False)]
        if len(at) != self.indirect.ndim or not all(inside):
            example = self.name((0,) * self.indirect.ndim)
            raise InputError(
                f"{mediator!r} is no mediator here; they go by {', '.join(self.axes)}, such as {example!r}"
            )
        return at

    def runs(self, index: Any) -> pd.DataFrame:
        """Return the four runs of each pair that one mediator's effects are made of; it is named as `index` reads it.

        Returns
        -------
        DataFrame
            ``pair``; ``prompt`` and ``mediator``: 1 as in the clean run, 0 as in the corrupted; ``metric``: of that
            run, less that of the pair's corrupted run.

        Raises
        ------
        InputError
            The mediator was not asked for, or not reached.
        """
        at = self.index(index)
        if not self.done[at]:
            raise InputError(f"{self.name(at)} was not computed; choose one of to_frame()")
        total, indirect, direct = self.per_pair_total, self.per_pair_indirect[:, *at], self.per_pair_direct[:, *at]
        columns = [(0, 0, np.zeros_like(total)), (0, 1, indirect), (1, 0, direct), (1, 1, total)]
        rows = [
            {"pair": pair, "prompt": prompt, "mediator": mediator, "metric": float(values[pair])}
            for pair in range(len(total))
            for prompt, mediator, values in columns
        ]
        return frame_of(rows)

    def to_dowhy(self, index: Any) -> Any:
        """Return one mediator's `runs` as a DoWhy model, whose estimators and refuters then apply.

        The mediator is its treatment, the metric its outcome, the prompt a common cause of both. Adjusting for the
        prompt, linear regression gives (indirect + total − direct) / 2: the indirect effect where nothing interacts.

        Returns
        -------
        dowhy.CausalModel

        Raises
        ------
        InputError
            DoWhy is not installed, or the mediator was not computed.

        Notes
        -----
        Sharma and Kiciman (2020), "DoWhy: An End-to-End Library for Causal Inference".

        Examples
        --------
        >>> causal = result.to_dowhy("9.9")  # doctest: +SKIP
        >>> found = causal.identify_effect()  # doctest: +SKIP
        >>> causal.estimate_effect(found, method_name="backdoor.linear_regression").value  # doctest: +SKIP
        1.84
        """
        data = self.runs(index)
        try:
            dowhy: Any = importlib.import_module("dowhy")
        except ImportError:
            raise InputError("a DoWhy model needs dowhy: pip install 'interp[dowhy]'") from None
        return dowhy.CausalModel(data=data, treatment="mediator", outcome="metric", common_causes=["prompt"])

    def summary(self) -> str:
        """Return how many mediators there are and how many are significant."""
        count = int(self.done.sum())
        found = int(self.significant.sum())
        return (
            f"{self.provenance.model}: {count} mediators ({self.site} by {self.by}), {len(self.per_pair_total)} pairs, "
            f"total {self.total:+.3f}, {found} significant ({self.correction})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Return one row per mediator, with its effects, intervals, p-values and the share of the total."""
        cells = np.argwhere(self.done)
        where = tuple(cells.T)
        low, high = self.indirect_interval[:, *where]
        direct_low, direct_high = self.direct_interval[:, *where]
        return frame_of(
            {
                "mediator": [self.name(tuple(cell)) for cell in cells.tolist()],
                "indirect": self.indirect[where],
                "low": low,
                "high": high,
                "direct": self.direct[where],
                "direct low": direct_low,
                "direct high": direct_high,
                "interaction": self.interaction[where],
                "proportion": self.proportion[where],
                "p": self.p[where],
                "corrected p": self.corrected[where],
            }
        )


@technique(body=Pairs, forecasts=True, changes=True, per_pair=True)
def mediate(
    model: LoadedModel,
    pairs: Pairs,
    *,
    site: SiteName = "z",
    head: HeadNames | None = None,
    feature: Components | None = None,
    features: FeaturesName | None = None,
    layer: Indices = None,
    metric: MetricName | None = None,
    correction: Literal["holm", "fdr_bh", "bonferroni", "none"] = "holm",
) -> MediationResult:
    """Causal mediation: the total effect of the prompt, and what of it goes through each component and past it.

    Parameters
    ----------
    pairs
        Clean and corrupted prompts of one length, with answers; the cause is the change from corrupted to clean.
    site
        z, q, k, v and pattern are divided by head, neuron by neuron, features of loaded dictionaries by feature, the
        others by layer; at all positions.
    head
        Heads, such as 5.1,5.7; all when not given.
    feature
        With --site features: features, such as 5.417,5.3; all that are active in a prompt when not given.
    features
        With --site features: a loaded set of features; the one loaded last when not given.
    layer
        Layers, such as 5, 0-3 or 0,5,7; all when not given.
    metric
        logit-diff, logit, logprob, prob, rank, kl, loss (of the clean text's tokens, or loss:SPAN of a span's), or the
        name of a function of yours, of the last position's logits or of all (function.positions = "all"). Answers may
        be several tokens for logit-diff, logprob and prob: docs/metrics.md.
    correction
        Of the p-values, for as many tests as there are mediators: holm, fdr_bh (Benjamini and Hochberg), bonferroni or
        none.

    Returns
    -------
    MediationResult
        Arrays over the mediators.

    Raises
    ------
    InputError
        Prompts that do not line up, a component that is not there, or a correction without statsmodels.
    Interrupted
        Stopped by Ctrl-C: what was computed so far is in its ``result``.

    Notes
    -----
    Pearl (2001), "Direct and Indirect Effects"; Vig et al. (2020), "Investigating Gender Bias in Language Models Using
    Causal Mediation Analysis". Every effect is exact: the indirect one is denoising patching, the direct one is noising
    patching less the corrupted run; of a feature that is its activation's, with what its dictionary does not explain as
    it is in the run. Intervals are over pairs, by Student's t without the skewness (Hall
    1992). p-values are by sign-flip permutation over pairs, of the indirect effects; they assume that without an effect
    a pair's is as likely up as down.

    Examples
    --------
    >>> interp.mediate(task="ioi", n=12).top(1)
    [('2.0', 12.04..., 17.01..., 0.0078125)]
    """
    from interp.engine import metrics
    from interp.engine.forecast.costs import foresee
    from interp.engine.patching import sweep

    chosen = resolve_metric(metric or pairs.metric or "logit-diff", several=True)
    corrector(correction)
    kind = find(site)
    by = "head" if kind.headed else kind.parts or "layer"
    named = axes(site, by)
    layers, heads = names.heads_of_site(model.geometry, site, head, layer)
    chosen_features = mediated.features_asked(model, site, feature, features, layer)
    if not chosen_features:
        model.require_site(site, layers)
    encoded = encode(model, pairs, chosen, several=True)
    metrics.try_out(chosen, model.geometry.d_vocab_out, model.device, len(encoded[0].clean.ids))

    # Both ways in one sweep: it goes from layer to layer, so that what an interrupt leaves is whole for its mediators.
    ways = ("denoise", "noise")
    cases = [case for way in ways for case in pairs_of.cases(model, encoded, chosen, way)]
    if chosen_features:
        layers = tuple(one.layer for one in chosen_features)
        over = features_swept.Asked(model, model, cases, list(chosen_features), by)
        of = tuple(f"F{name}" for name in over.names)
        cells = mediated.cells_of(chosen_features, of)
        shape, job = (len(of),), over.sweep(cells=cells, on_step=model.on_step)
    else:
        of, shape = (), sweep.shape_of(model, site, by, layers, 1)
        cells = None if heads is None else [layers.index(at) * shape[1] + number for at, number in heads]
        job = sweep.sweep(model, cases, site=site, by=by, layers=layers, cells=cells, on_step=model.on_step)
    count = int(np.prod(shape)) if cells is None else len(cells)
    foresee(model, lambda: pairs_of.swept(model, job, encoded))
    swept = several.folded(job.run(), encoded, chosen, ways=len(ways))
    model.note(swept.path, swept.notes)
    result = MediationResult(
        **mediated.effects(model, encoded, swept, chosen, correction, count),
        site=site,
        by=by,
        axes=named,
        layers=layers,
        features=of,
        correction=correction,
        task=pairs.task,
    )
    return unless_interrupted(result, swept.interrupt)
