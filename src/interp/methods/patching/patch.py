"""Activation patching: which activation carries the answer from one prompt to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, cast

import numpy as np

from interp.errors import InputError, Interrupted
from interp.interface.registry import technique
from interp.methods._shared.models import predicted
from interp.methods._shared.pairs import Encodings, Lint, encode, lint
from interp.methods._shared.patching import estimate
from interp.methods._shared.patching.activations import likeliest
from interp.methods._shared.patching.recovery import recovered
from interp.results import Result, strongest
from interp.sites import axes
from interp.spec import Indices, Metric, MetricName, ModelName, Pairs, resolve_indices, resolve_metric

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.sweep import Swept

    Float = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PatchingResult(Result):
    """A sweep of activation patching.

    Attributes
    ----------
    site, by, metric, direction
        What was patched, how it was divided, what was measured, and which run was patched (``denoise``: clean
        activations into the corrupted run; ``noise``: the reverse).
    axes
        The names of the arrays' axes, such as ``("layer", "head")``.
    layers
        The layers of the first axis.
    positions
        The token strings of the first pair's patched prompt, for a division by position.
    patched
        ``float64 [*axes]``: the metric of every patched run, mean over pairs; NaN where the sweep did not get to.
    effect
        ``float64 [*axes]``: `patched` less the metric of the run that was patched.
    recovery
        ``float64 [*axes]``: (patched − corrupted) / (clean − corrupted), a ratio of means over pairs: 0 nothing,
        1 clean behaviour restored, negative works against it.
    interval
        ``float64 [2, *axes]``: the 95 % bootstrap interval of `effect` over pairs; NaN for a single pair.
    per_pair
        ``float64 [pair, *axes]``: `patched` of each pair.
    clean_metric, corrupted_metric
        Mean over pairs.
    done
        ``bool [*axes]``: which cells were computed for every pair.
    lint
        The pairs, token by token, with warnings.
    task
        The task that the pairs came from, or an empty string.
    method
        ``"exact"``, or ``"attribution"``: then `estimate` is everywhere, and the rest where it was verified.
    estimate
        ``float64 [*axes]``: attribution patching's estimate of `effect`; ``None`` for an exact sweep.
    estimates
        Site → ``float64 [layer, head]`` (sites with heads) or ``[layer, position]``: the estimate of every node of
        every site, mean over pairs; empty for an exact sweep. By position, pairs must have one length.
    """

    site: str
    by: str
    metric: str
    direction: str
    axes: tuple[str, ...]
    layers: tuple[int, ...]
    positions: tuple[str, ...]
    patched: Float
    effect: Float
    recovery: Float
    interval: Float
    per_pair: Float
    clean_metric: float
    corrupted_metric: float
    done: NDArray[np.bool_]
    lint: Lint
    task: str = ""
    method: str = "exact"
    estimate: Float | None = None
    estimates: Mapping[str, Float] = field(default_factory=dict[str, "Float"])

    _html: ClassVar[str] = "interp.views.patching:html"
    _svg: ClassVar[str | None] = "interp.views.patching:svg"
    _plotly: ClassVar[str | None] = "interp.views.patching:plotly"
    _widget: ClassVar[str | None] = "interp.widgets.patching:PatchingWidget"

    def summary(self) -> str:
        """Return what was patched and how much of it is done."""
        size = " × ".join(map(str, self.patched.shape))
        done = int(self.done.sum())
        part = "" if self.done.all() else f", {done}/{self.done.size} done"
        if self.estimate is not None:
            part = f", estimated; {done} verified" if done else ", estimated"
        return f"{self.provenance.model}: {self.site} by {self.by}, {size}, {len(self.per_pair)} pairs{part}"

    @property
    def agreement(self) -> estimate.Agreement | None:
        """How the estimates compare with the exact effects of the verified cells; ``None`` where there are none."""
        return estimate.agreement(self)

    def name(self, index: Sequence[int]) -> str:
        """Return what the cell at `index` is called: a head ``"5.1"``, or ``"L5 position 3"``.

        Examples
        --------
        >>> result.name((2, 1))
        '2.1'
        """
        at = dict(zip(self.axes, index, strict=True))
        layer = self.layers[at["layer"]]
        if "head" in at:
            head = f"{layer}.{at['head']}"
            return f"{head} position {at['position']}" if "position" in at else head
        if "neuron" in at:
            return f"L{layer} neuron {at['neuron']}"
        return f"L{layer} position {at['position']}" if "position" in at else f"L{layer}"

    def top(self, n: int = 10) -> list[tuple[str, float, float]]:
        """Return the `n` cells of the largest effect either way: (name, effect, recovery), strongest first.

        Of an estimate, a verified cell is here with its exact effect; the name of another ends in `` (estimated)``.

        Examples
        --------
        >>> result.top(1)
        [('2.0', ...)]
        """
        effect, recovery = estimate.best(self)
        guessed = " (estimated)" if self.estimate is not None else ""
        named = [(c, self.name(c) + ("" if self.done[c] else guessed)) for c in strongest(effect, n)]
        return [(name, float(effect[c]), float(recovery[c])) for c, name in named]

    def likeliest(self, index: Sequence[int], top: int = 5) -> list[tuple[str, float, float]]:
        """Return what the model says next on the first pair with the cell at `index` patched; needs the model loaded.

        Returns
        -------
        list
            (token string, probability unpatched, probability patched): the `top` of both runs, the likeliest of the
            patched one first.

        Raises
        ------
        InputError
            The model is gone, busy, or has changed since, or its forward is not known here.

        Examples
        --------
        >>> result.likeliest((2, 0))[0]
        (' Henry', ...)
        """
        if self._live is None:
            raise InputError("what the patched model says needs the model; run the cell again")

        def run(model: LoadedModel) -> list[tuple[str, float, float]]:
            return likeliest(model, self, index, top)

        return self._live.run(run)

    def to_frame(self) -> pd.DataFrame:
        """Return one row per cell: its axes, the patched metric, effect, recovery, interval and, if any, estimate."""
        import pandas as pd

        grid = np.indices(self.patched.shape).reshape(len(self.axes), -1)
        table = pd.DataFrame(dict(zip(self.axes, grid, strict=True)))
        table["layer"] = [self.layers[index] for index in grid[0]]
        if self.positions and "position" in self.axes:
            table["token"] = [self.positions[index] for index in grid[self.axes.index("position")]]
        for name in ("patched", "effect", "recovery"):
            table[name] = getattr(self, name).reshape(-1)
        table["low"], table["high"] = self.interval.reshape(2, -1)
        if self.estimate is not None:
            table["estimate"] = self.estimate.reshape(-1)
        return table


@technique(body=Pairs)
def patch(
    model: LoadedModel,
    pairs: Pairs,
    *,
    site: str = "z",
    by: Literal["layer", "head", "position", "head-position", "neuron"] = "head",
    metric: MetricName | None = None,
    direction: Literal["denoise", "noise"] = "denoise",
    layer: Indices = None,
    from_model: ModelName | None = None,
    method: Literal["exact", "attribution"] = "exact",
    steps: int = 1,
    verify: int = 0,
) -> PatchingResult:
    """Activation patching: put one run's activations into the other, one place at a time.

    Parameters
    ----------
    pairs
        Clean and corrupted prompts of one length, with answers.
    site
        resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v (before rotary), pattern or neuron.
    by
        How the site is divided.
    metric
        logit-diff, logit, logprob, prob, rank, kl, or the name of a function of yours.
    direction
        denoise puts clean activations into the corrupted run; noise the reverse.
    layer
        Layers to sweep, such as 5, 0-3 or 0,5,7; all when not given.
    from_model
        Another loaded model of the same shape whose activations on the same prompt are put in.
    method
        exact patches every cell, attribution estimates the effect of every node of every site from one gradient.
    steps
        Of an estimate: at how many points between the two prompts gradients are taken, 1 for first order.
    verify
        Of an estimate: how many of the cells where it is largest are patched exactly too.

    Returns
    -------
    PatchingResult
        Arrays over the axes that `by` names. Of an estimate, `effect` and the like are NaN but in the verified cells.

    Raises
    ------
    InputError
        Prompts that do not line up, answers that are not one token, a site that the model lacks, a metric without a
        gradient where one is needed, or flags that do not go together.

    Notes
    -----
    Meng et al. (2022), "Locating and Editing Factual Associations in GPT"; Heimersheim and Nanda (2024), "How to Use
    and Interpret Activation Patching". Every cell is exact: the replay's values are those of the hooked forward.
    Estimates: Nanda (2023), "Attribution Patching"; Syed et al. (2023); with more steps, the integral along the way
    from one prompt's embeddings to the other's (`interp.engine.attribution.attribute` says how).

    Examples
    --------
    >>> interp.patch("When John and Mary went to the store, Mary gave a drink to",
    ...              "When John and Mary went to the store, John gave a drink to",
    ...              answer=" John", wrong=" Mary").top(1)
    [('2.0', 19.79..., 0.42...)]
    """
    from interp.engine import metrics
    from interp.engine.patching import sweep

    chosen = resolve_metric(metric or pairs.metric or "logit-diff")
    axes(site, by)
    layers = resolve_indices(layer, model.geometry.n_layers, "layer")
    sweep.require(model, site)
    metrics.try_out(chosen, model.geometry.d_vocab, model.device)
    encoded = encode(model, pairs, chosen)
    other = _other(model, cast("LoadedModel | None", from_model))
    estimate.check(method, steps, verify, chosen, model, foreign=other is not model)
    lengths = {len(e.clean.ids) for e in encoded}
    if len(lengths) > 1 and "position" in by:
        raise InputError(
            f"the pairs have {min(lengths)} to {max(lengths)} tokens; by position they must have one length"
        )
    clean_base = direction == "noise" or other is not model
    cases = [
        sweep.Case(
            base=(e.clean if clean_base else e.corrupted).ids,
            source=(e.corrupted if direction == "noise" else e.clean).ids,
            scorer=metrics.Scorer(chosen, e.answer, e.wrong),
            position=predicted(model, e.clean),
            clean_base=direction == "noise",
        )
        for e in encoded
    ]
    shown = encoded[0].clean if clean_base else encoded[0].corrupted
    positions = shown.strings if "position" in by else ()

    estimated: estimate.Estimate | None = None
    if method == "attribution":
        estimate.room(model, cases, verify, site, by, layers)
        estimated = estimate.estimate(
            model, cases, site=site, by=by, layers=layers, steps=steps, source_model=other, on_step=model.on_step
        )

    def made(swept: Swept, whole: bool = True) -> PatchingResult:
        asked = {"site": site, "by": by, "direction": direction, "other": "" if other is model else other.name}
        result = _result(model, pairs, encoded, swept, chosen, layers, positions, **asked, whole=whole)
        if estimated is None:
            return result
        return estimate.with_estimate(result, estimated, steps, foreign=other is not model)

    if estimated is not None and not verify:
        swept = estimated.unverified()
    else:
        swept = sweep.sweep(
            model,
            cases,
            site=site,
            by=by,
            layers=layers,
            source_model=other,
            cells=None if estimated is None else estimated.strongest(verify),
            on_step=model.on_step,
            on_partial=lambda swept: model.on_partial(lambda: made(swept.so_far(), whole=False)),
        )
        swept = swept if estimated is None else estimated.beside(swept)
    model.note(swept.path, swept.notes)
    result = made(swept)
    if swept.interrupt is not None:
        raise Interrupted(result)
    return result


def _result(
    model: LoadedModel,
    pairs: Pairs,
    encoded: Sequence[Encodings],
    swept: Swept,
    metric: Metric,
    layers: tuple[int, ...],
    positions: tuple[str, ...],
    *,
    site: str,
    by: str,
    direction: str,
    other: str = "",
    whole: bool = True,
) -> PatchingResult:
    """Return a sweep's numbers; while it runs (not `whole`), without what takes long: intervals and warnings."""
    found = recovered(swept, direction, sure=whole)
    patched, done = found.patched, found.done
    checked = lint(model, encoded, metric, found.clean.tolist(), found.corrupted.tolist(), warn=whole, other=other)
    finite = np.isfinite(patched) | ~done
    notes = list(checked.warnings)
    if not finite.all():
        first = layers[int(np.argwhere(~finite)[0][0])]
        notes.append(f"the metric is NaN or infinite in {int((~finite).sum())} cells, first in layer {first}")
    if swept.stopped:
        notes.insert(0, f"partial: {swept.stopped}; cells that were not reached are NaN")
    return PatchingResult(
        site=site,
        by=by,
        metric=metric.name,
        direction=direction,
        axes=axes(site, by),
        layers=layers,
        positions=positions,
        patched=patched,
        effect=found.effect,
        recovery=found.recovery,
        interval=found.interval,
        per_pair=found.per_pair,
        clean_metric=float(found.clean.mean()),
        corrupted_metric=float(found.corrupted.mean()),
        done=done,
        lint=checked,
        task=pairs.task,
        notes=tuple(notes),
    )


def _other(model: LoadedModel, named: LoadedModel | None) -> LoadedModel:
    if named is None:
        return model
    ours, theirs = model.geometry, named.geometry
    if (ours.n_layers, ours.n_heads, ours.n_kv_heads, ours.d_model) != (
        theirs.n_layers,
        theirs.n_heads,
        theirs.n_kv_heads,
        theirs.d_model,
    ):
        raise InputError(f"{named.name} is not of the shape of {model.name}: its activations do not fit")
    return named
