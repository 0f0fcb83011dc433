"""Path patching: through which path one component's output carries the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import names
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared.pairs import encode
from interp.methods._shared.patching.effects import patched
from interp.results.effects import PatchedResult
from interp.results.tables import frame_of
from interp.spec import Components, MetricName, Node, Pairs, resolve_metric

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PathResult(PatchedResult):
    """Path patching: a `PatchedResult` whose `effect`, `recovery` and the like are ``[sender, receiver]``.

    Attributes
    ----------
    senders, receivers
        What the axes are, from the model's bottom to its top: ``"5.1"``, ``"5.mlp"``, ``"embed"``; ``"8.6.q"``,
        ``"8.mlp"``, ``"logits"``. Keys and values have the numbers of KV heads.
    freeze
        What lies between a sender and a receiver and was kept as in the base run: ``all``, ``heads`` or ``none``.
    exists
        ``bool [sender, receiver]``: whether the sender writes below where the receiver reads. All arrays are NaN
        elsewhere, and `done` is true there.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    freeze: str
    exists: NDArray[np.bool_]

    axes: ClassVar[tuple[str, str]] = ("sender", "receiver")
    _html: ClassVar[str] = "interp.views.path:html"
    _svg: ClassVar[str | None] = "interp.views.path:svg"
    _plotly: ClassVar[str | None] = "interp.views.path:plotly"

    def summary(self) -> str:
        """Return how many paths there are and how many of them are done."""
        count, done = int(self.exists.sum()), int((self.done & self.exists).sum())
        senders, receivers = (
            f"{len(names)} {kind}s" if len(names) > 1 else " ".join(names)
            for names, kind in ((self.senders, "sender"), (self.receivers, "receiver"))
        )
        named = f"{senders} → {receivers}" + (f", {count} paths" if count > 1 else "")
        part = "" if done == count else f", {done}/{count} done"
        return f"{self.provenance.model}: {named}, {len(self.per_pair)} pairs{part}"

    def name(self, index: Sequence[int]) -> str:
        """Return what the path at `index` is called.

        Examples
        --------
        >>> result.name((0, 0))
        '1.0 → 3.1.q'
        """
        return f"{self.senders[index[0]]} → {self.receivers[index[1]]}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row per path that exists: sender, receiver, patched metric, effect, recovery and interval."""
        sender, receiver = np.nonzero(self.exists)
        ends = {"sender": np.array(self.senders)[sender], "receiver": np.array(self.receivers)[receiver]}
        return frame_of(ends | self._columns(sender, receiver))


@technique(body=Pairs, forecasts=True)
def path(
    model: LoadedModel,
    pairs: Pairs,
    *,
    from_: Components = "all",
    to: Components = "logits",
    freeze: Literal["all", "heads", "none"] = "all",
    metric: MetricName | None = None,
    direction: Literal["denoise", "noise"] = "denoise",
) -> PathResult:
    """Path patching: let one component's output from the other run reach one input of another, and nothing else.

    For a path from a sender to a receiver the base run (the corrupted prompt's, for ``denoise``) is run with one thing
    changed: the residual stream that the receiver alone reads, at every position, is what would stand there if the
    sender's output were the source run's. What the receiver writes then goes through the model above as it may. What
    lies between the two is, with ``freeze="all"``, kept as in the base run: the receiver's input changes by the
    sender's own difference between the runs, along the residual stream directly. With ``"heads"`` heads are kept and
    MLPs answer (Wang et al.'s choice). With ``"none"`` heads and MLPs between answer: every route from the sender to
    the receiver counts, but what the sender changes elsewhere does not; into the logits this is activation patching of
    the sender.

    Parameters
    ----------
    pairs
        Clean and corrupted prompts of one length, with answers.
    from_
        Senders: heads (5.1), MLPs (5.mlp), embed, heads, mlps or all, with commas between them.
    to
        Receivers: a head's input (8.6.q, 8.6.k, 8.6.v), an MLP (8.mlp), logits, q, k, v, mlps or all.
    freeze
        What between a sender and a receiver is kept as in the base run.
    metric
        logit-diff, logit, logprob, prob, rank, kl, or the name of a function of yours.
    direction
        denoise puts the clean output into the corrupted run; noise the reverse.

    Returns
    -------
    PathResult
        Arrays over senders and receivers.

    Raises
    ------
    InputError
        A sender or receiver that is not there, a path that does not exist, prompts that do not line up.

    Notes
    -----
    Wang et al. (2022), "Interpretability in the Wild: a Circuit for Indirect Object Identification in GPT-2 small";
    Goldowsky-Dill et al. (2023), "Localizing Model Behavior with Path Patching". Every value is exact. A head's keys
    and values are those of its KV head, which other heads may read too. In a parallel block a layer's MLP does not read
    what its heads write.

    Examples
    --------
    >>> interp.path(task="ioi", n=16, from_="all", to="logits").top(1)
    [('2.mlp → logits', 16.59..., 0.54...)]
    """
    from interp.engine import metrics
    from interp.engine.forecast.costs import foresee
    from interp.engine.patching import path

    chosen = resolve_metric(metric or pairs.metric or "logit-diff")
    senders, receivers = _ends(model, from_, to)
    for site in ("resid_pre", "z", "q", "k", "v", "mlp_out"):
        model.require_site(site, range(model.geometry.n_layers))
    metrics.try_out(chosen, model.geometry.d_vocab_out, model.device)
    encoded = encode(model, pairs, chosen)
    cases = pairs_of.cases(model, encoded, chosen, direction)
    job = path.sweep_paths(model, cases, senders=senders, receivers=receivers, freeze=freeze, on_step=model.on_step)
    foresee(model, lambda: pairs_of.swept(model, job, encoded))
    swept = job.run()
    model.note(swept.path, swept.notes)
    exists = path.reaching(model, senders, receivers).numpy()
    found = patched(model, pairs, encoded, swept, chosen, direction, exists=exists)
    notes = list(found["checks"].warnings)
    lost = found["done"] & exists & ~np.isfinite(found["patched"])
    if lost.any():
        notes.append(f"the metric is NaN or infinite on {int(lost.sum())} paths")
    if swept.stopped:
        notes.insert(0, f"partial: {swept.stopped}; paths that were not reached are NaN")
    result = PathResult(
        **found,
        senders=tuple(node.name for node in senders),
        receivers=tuple(node.name for node in receivers),
        freeze=freeze,
        exists=exists,
        notes=tuple(notes),
    )
    return unless_interrupted(result, swept.interrupt)


def _ends(model: LoadedModel, from_: object, to: object) -> tuple[list[Node], list[Node]]:
    """Return senders and receivers, less those of a group that no path begins or ends at.

    Raises
    ------
    InputError
        A name that is none, or one by one named ends without a path between them.
    """
    from interp.engine.patching import path

    given, sent = names.senders(from_, model.geometry)
    asked, received = names.receivers(to, model.geometry)
    senders, receivers = path.ordered(model, given, asked)
    exists = path.reaching(model, senders, receivers)
    begun, ended = exists.any(dim=1).tolist(), exists.any(dim=0).tolist()
    above = [node for node, there in zip(senders, begun, strict=True) if node in sent and not there]
    below = [node for node, there in zip(receivers, ended, strict=True) if node in received and not there]
    if above:
        read = receivers[-1].name if len(receivers) == 1 else "every one of the receivers"
        raise InputError(f"there is no path: {above[0].name} writes above where {read} reads; name a lower sender")
    if below:
        sender = senders[0].name if len(senders) == 1 else "every one of the senders"
        raise InputError(f"there is no path: {below[0].name} reads below where {sender} writes; name a higher receiver")
    if not any(begun):
        raise InputError("there is no path between these; name a sender that is below the receiver")
    return (
        [node for node, there in zip(senders, begun, strict=True) if there],
        [node for node, there in zip(receivers, ended, strict=True) if there],
    )
