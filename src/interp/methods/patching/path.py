"""Path patching: through which path one component's output carries the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from interp.errors import InputError, unless_interrupted
from interp.interface.registry import technique
from interp.methods._shared import names, several
from interp.methods._shared import pairs as pairs_of
from interp.methods._shared.features import features_of
from interp.methods._shared.pairs import encode
from interp.methods._shared.patching.effects import patched
from interp.methods._shared.patching.read_at import read_at
from interp.results.effects import PatchedResult
from interp.results.tables import frame_of
from interp.sites import ranges
from interp.spans import Positions
from interp.spec import Components, FeaturesName, MetricName, Node, Pairs, resolve_metric

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.features.dictionary import Dictionary
    from interp.engine.features.held import FeatureSet
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.patching.feature_plan import Features


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PathResult(PatchedResult):
    """Path patching: a `PatchedResult` whose `effect`, `recovery` and the like are ``[sender, receiver]``.

    Attributes
    ----------
    senders, receivers
        What the axes are, from the model's bottom to its top: ``"5.1"``, ``"5.mlp"``, ``"embed"``; ``"8.6.q"``,
        ``"8.mlp"``, ``"logits"``; ``"F5.417"``. Keys and values have the numbers of KV heads.
    freeze
        What lies between a sender and a receiver and was kept as in the base run: ``all``, ``heads`` or ``none``.
    places
        Where each receiver reads what is sent to it: a span's name, or positions; empty where all read it everywhere.
    exists
        ``bool [sender, receiver]``: whether the sender writes below where the receiver reads. All arrays are NaN
        elsewhere, and `done` is true there.
    """

    senders: tuple[str, ...]
    receivers: tuple[str, ...]
    freeze: str
    exists: NDArray[np.bool_]
    places: tuple[str, ...] = ()

    axes: ClassVar[tuple[str, str]] = ("sender", "receiver")
    _html: ClassVar[str] = "interp.views.path:html"
    _svg: ClassVar[str | None] = "interp.views.path:svg"
    _plotly: ClassVar[str | None] = "interp.views.path:plotly"

    def summary(self) -> str:
        """Return how many paths there are and how many of them are done."""
        count, done = int(self.exists.sum()), int((self.done & self.exists).sum())
        senders, receivers = (
            f"{len(names)} {kind}s" if len(names) > 1 else " ".join(names)
            for names, kind in ((self.senders, "sender"), (tuple(dict.fromkeys(self.receivers)), "receiver"))
        )
        there = tuple(dict.fromkeys(self.places))
        receivers += f" at {there[0] if len(there) == 1 else f'each of {len(there)} spans'}" if there else ""
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
        at = f" at {self.places[index[1]]}" if self.places else ""
        return f"{self.senders[index[0]]} → {self.receivers[index[1]]}{at}"

    def _labels(self) -> Mapping[str, Sequence[Any]]:
        where = [f" at {one}" for one in self.places] or [""] * len(self.receivers)
        return {
            "sender": self.senders,
            "receiver": [name + at for name, at in zip(self.receivers, where, strict=True)],
        }

    def _there(self) -> NDArray[np.bool_]:
        return self.exists

    def to_frame(self) -> pd.DataFrame:
        """Return one row per path that exists: sender, receiver, where, patched metric, effect, recovery, interval."""
        sender, receiver = np.nonzero(self.exists)
        ends = {"sender": np.array(self.senders)[sender], "receiver": np.array(self.receivers)[receiver]}
        where = {"at": np.array(self.places)[receiver]} if self.places else {}
        return frame_of(ends | where | self._columns(sender, receiver))


@technique(body=Pairs, forecasts=True, changes=True, per_pair=True)
def path(
    model: LoadedModel,
    pairs: Pairs,
    *,
    from_: Components = "all",
    to: Components = "logits",
    at: Positions = None,
    by: Literal["path", "span"] = "path",
    freeze: Literal["all", "heads", "none"] = "all",
    metric: MetricName | None = None,
    direction: Literal["denoise", "noise"] = "denoise",
    features: FeaturesName | None = None,
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
        Senders: heads (5.1), MLPs (5.mlp), embed, heads, mlps or all, with commas between them; and features of a
        dictionary: F5.417; F5.* and features are those that differ between the prompts, which all does not name.
    to
        Receivers: a head's input (8.6.q, 8.6.k, 8.6.v), an MLP (8.mlp), logits, q, k, v, mlps or all; and features that
        read the stream, whose activation is reached: F8.417; F8.* and features are those that are active in a prompt.
    at
        Positions at which a receiver reads what is sent, by number or by the names of spans, such as S2 or IO,END; it
        reads the base run's stream elsewhere. Everywhere when not given.
    by
        span takes every span by itself, those of --at or all that the prompts have: what of a path goes through it.
    freeze
        What between a sender and a receiver is kept as in the base run.
    metric
        logit-diff, logit, logprob, prob, rank, kl, loss (of the clean text's tokens, or loss:SPAN of a span's), or the
        name of a function of yours, of the last position's logits or of all (function.positions = "all"). Answers may
        be several tokens for logit-diff, logprob and prob: docs/metrics.md.
    direction
        denoise puts the clean output into the corrupted run; noise the reverse.
    features
        A loaded set of features; the one loaded last when not given.

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
    what its heads write. A feature sends the change of what its dictionary writes for it; as a receiver its activation
    becomes what the dictionary reads of the changed stream, and so what it writes. A dictionary of the stream writes
    behind where it reads: there is no path between two of its features.

    Examples
    --------
    >>> interp.path(task="ioi", n=16, from_="all", to="logits").top(1)
    [('2.mlp → logits', 16.59..., 0.54...)]
    >>> features = interp.features_load("bundled")
    >>> interp.path(task="ioi", n=2, from_="F2.*").top(1)
    [('F2.49 → logits', 0.73..., 0.02...)]
    """
    from interp.engine import metrics
    from interp.engine.forecast.costs import foresee
    from interp.engine.patching import path
    from interp.engine.patching.feature_plan import Features

    chosen = resolve_metric(metric or pairs.metric or "logit-diff", several=True)
    ends = _asked(model, from_, to, features)
    senders, receivers = ([], []) if ends.open else ends.found()
    for site in ("resid_pre", "z", "q", "k", "v", "mlp_out"):
        model.require_site(site, range(model.geometry.n_layers))
    encoded = encode(model, pairs, chosen, several=True)
    metrics.try_out(chosen, model.geometry.d_vocab_out, model.device, len(encoded[0].clean.ids))
    cases = pairs_of.cases(model, encoded, chosen, direction)
    known = Features(model, model, cases, ends.dictionaries) if ends.dictionaries else None
    if ends.open:
        senders, receivers = ends.found(known)
    heard = read_at(model, pairs, cases, receivers, at, by, direction)
    receivers, cases = heard.receivers, heard.cases
    job = path.sweep_paths(
        model, cases, senders=senders, receivers=receivers, freeze=freeze, features=known, on_step=model.on_step
    )
    foresee(model, lambda: pairs_of.swept(model, job, encoded))
    swept = several.folded(job.run(), encoded, chosen)
    model.note(swept.path, swept.notes)
    exists = path.reaching(model, senders, receivers, ends.of).numpy()
    found = patched(model, pairs, encoded, swept, chosen, direction, exists=exists)
    notes = [*found["checks"].warnings, *heard.notes]
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
        places=heard.places,
        notes=tuple(notes),
    )
    return unless_interrupted(result, swept.interrupt)


@dataclass(frozen=True)
class _Asked:
    """The ends that are asked for, of which those that features are active at are known once the prompts are run."""

    model: LoadedModel
    senders: names.Ends
    receivers: names.Ends
    dictionaries: tuple[Dictionary, ...]

    @property
    def open(self) -> bool:
        """Whether all features are meant that are active."""
        return bool(self.senders.layers or self.receivers.layers)

    @property
    def of(self) -> dict[int, Dictionary]:
        """Layer → the dictionary that features are of."""
        return {one.layer: one for one in self.dictionaries}

    def found(self, features: Features | None = None) -> tuple[list[Node], list[Node]]:
        """Return senders and receivers, less those of a group that no path begins or ends at.

        Raises
        ------
        InputError
            One by one named ends without a path between them, or features of which none does anything.
        """
        from interp.engine.patching import path_ends

        model, of = self.model, self.of
        moving, active = (features.moving, features.active) if features is not None else ((), ())
        sent = {*self.senders.nodes, *self._every(self.senders.layers, moving, "differs between")}
        received = {*self.receivers.nodes, *self._every(self.receivers.layers, active, "is active in")}
        for node in sorted(received, key=lambda node: (node.layer, node.head)):
            if node.kind == "feature":
                path_ends.require_stream(node, of[node.layer])
        senders, receivers = path_ends.ordered(model, list(sent), list(received), of)
        exists = path_ends.reaching(model, senders, receivers, of)
        begun, ended = exists.any(dim=1).tolist(), exists.any(dim=0).tolist()
        sure = self.senders.chosen, self.receivers.chosen
        above = [node for node, there in zip(senders, begun, strict=True) if node in sure[0] and not there]
        below = [node for node, there in zip(receivers, ended, strict=True) if node in sure[1] and not there]
        if above:
            read = receivers[-1].name if len(receivers) == 1 else "every one of the receivers"
            raise InputError(f"there is no path: {above[0].name} writes above where {read} reads; name a lower sender")
        if below:
            sender = senders[0].name if len(senders) == 1 else "every one of the senders"
            raise InputError(
                f"there is no path: {below[0].name} reads below where {sender} writes; name a higher receiver"
            )
        if not any(begun):
            raise InputError("there is no path between these; name a sender that is below the receiver")
        return (
            [node for node, there in zip(senders, begun, strict=True) if there],
            [node for node, there in zip(receivers, ended, strict=True) if there],
        )

    def _every(self, layers: Sequence[int], there: Sequence[Tensor], which: str) -> list[Node]:
        """Return the features of some layers that are `there`, by dictionary, ``int64 [feature]``."""
        found = [
            Node("feature", one.layer, number)
            for one, own in zip(self.dictionaries, there, strict=False)
            if one.layer in layers
            for number in own.tolist()
        ]
        if layers and there and not found:
            raise InputError(f"no feature of layer {ranges(set(layers))} {which} the prompts; name other layers")
        return found


def _asked(model: LoadedModel, from_: object, to: object, features: str | None) -> _Asked:
    """Return what the names mean.

    Raises
    ------
    InputError
        A name that is none, or a set of features of which none is an end.
    """
    from interp.engine.features.edits import sites_of

    def loaded() -> FeatureSet:
        return features_of(model, features)

    sent, received = names.senders(from_, model.geometry, loaded), names.receivers(to, model.geometry, loaded)
    layers = sorted({*sent.featured, *received.featured})
    if features is not None and not layers:
        raise InputError("--features names the set that features are of: say which with --from F2.417 or --to F2.417")
    dictionaries = tuple(loaded().at(layer) for layer in layers)
    for one in dictionaries:
        sites_of(one)
    return _Asked(model, sent, received, dictionaries)
