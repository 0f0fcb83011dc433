"""From a model and a prompt to an attribution graph."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.engine import exactness
from interp.engine.exactness import Refusal, Unreadable
from interp.engine.features.attribution import Reading, Traced, Tracer, trace
from interp.engine.features.frozen import Frozen, stands
from interp.engine.features.influence import Influence
from interp.engine.features.loadings import head_loadings
from interp.engine.features.places import captured, parallel
from interp.engine.features.sources import Sources, sources
from interp.engine.model.tokens import Encoded
from interp.engine.transformer import network
from interp.errors import InputError
from interp.methods._shared.features import features_of
from interp.methods._shared.trace.result import TraceResult

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.exactness import Check
    from interp.engine.features.dictionary import Dictionary
    from interp.engine.features.held import FeatureSet
    from interp.engine.model.loaded import LoadedModel

PROBABILITY, MOST_LOGITS = 0.95, 10  # of the logits that are traced: together, and how many at most
KEY = ("trace",)  # of what is trusted without hooks
_EXACT = ("float32", "float64")
_ROUGH = 0.05  # half of what a forward in half precision may be off, by the size of what is compared
_HEADS = 6  # of an edge's last heads that are kept by name


_STREAMS, _PATTERNS, _GRAPH = "trace:streams", "trace:patterns", "trace:graph"  # in the store


@dataclass(frozen=True)
class Asked:
    """What is traced.

    Attributes
    ----------
    target, against
        Token ids; without a target, the likeliest tokens.
    position
        Whose prediction.
    nodes, edges
        Shares of the influence that are kept.
    most
        Into how many features edges are computed, at most.
    """

    target: int | None
    against: int | None
    position: int
    nodes: float
    edges: float
    most: int


def standing(model: LoadedModel, given: FeatureSet) -> dict[int, Dictionary]:
    """Return layer → the dictionary that stands for its MLP, in the precision that the graph is computed in.

    That is the model's, which may be another one than when they were loaded; single where it is in half.

    Raises
    ------
    InputError
        The set has none: graphs are made of transcoders.
    """
    found = {one.layer: one for one in given.dictionaries if stands(one, parallel=parallel(model))}
    if not found:
        raise InputError(
            f"trace needs features that stand for MLPs (transcoders), and those of {given.name} read "
            f"{', '.join(given.points)}; load or train some: %interp features-train --site mlp"
        )
    dtype = getattr(torch, model.dtype) if model.dtype in _EXACT else torch.float32
    return {layer: one if one.encoder.dtype == dtype else one.to(model.device, dtype) for layer, one in found.items()}


def frozen_run(model: LoadedModel, encoded: Encoded, dictionaries: Mapping[int, Dictionary]) -> Frozen:
    """Return a prompt's run, held; compared with the plain hooked forward on each new state of the model.

    Raises
    ------
    InputError
        It cannot be computed without hooks.
    """
    known = model.recall(encoded.ids, [_STREAMS, _PATTERNS])
    if known is not None:
        with contextlib.suppress(Unreadable):
            net = network.single(network.read(model, half=True))
            return Frozen(net, encoded.ids, dictionaries, known=(known[_STREAMS], known[_PATTERNS]))

    # The model's own run comes first: it refuses what cannot fit, and the other one is compared with it.
    model.activations(encoded, ["last_logits"])

    def lean(check: Check) -> Frozen:
        net = network.single(network.read(model, half=True))
        frozen = Frozen(net, encoded.ids, dictionaries, on_layer=lambda layer: model.alive(f"layer {layer}"))
        held.append(frozen)
        check()
        return frozen

    held: list[Frozen] = []

    def sample() -> Any:
        places = [one.reads for one in dictionaries.values()]
        shown = captured(model, encoded, places)
        for one in dictionaries.values():
            own = held[-1].shown(one.layer, one.reads.point)
            yield exactness.difference(own, shown[one.reads].to(own))
        net = held[-1].network
        logits = model.activations(encoded, ["last_logits"])["last_logits"][0]
        yield exactness.difference(net.unembed(net.final(held[-1].end[-1])), logits.to(held[-1].end))

    done = exactness.run(
        model,
        KEY,
        lean=lean,
        hooked=Refusal("attribution graphs are computed", "features can be patched all the same: %interp patch"),
        sample=sample,
        path="held run",
        length=len(encoded.ids),
        noise=lambda: 0.0 if model.dtype in _EXACT else _ROUGH,
    )
    model.count(1)
    rounded = () if model.dtype in _EXACT else (f"of the model's {model.dtype} weights, computed in float32",)
    model.note(done.path, (*done.notes, *rounded))
    model.keep(encoded.ids, {_STREAMS: done.answer.streams, _PATTERNS: done.answer.patterns})
    return done.answer


def readings(model: LoadedModel, frozen: Frozen, asked: Asked) -> tuple[list[Reading], list[tuple[str, int, float]]]:
    """Return what is read off the end, and (token string, id, probability) of each."""
    net = frozen.network
    logits = net.unembed(net.final(frozen.end[asked.position])).double()
    chances = logits.softmax(-1)
    if asked.target is None:
        order = chances.topk(min(MOST_LOGITS, len(chances)))
        enough = int((order.values.cumsum(0) < PROBABILITY).sum()) + 1
        ids: list[int] = order.indices[:enough].tolist()
    else:
        ids = [asked.target]
    weight, bias, scale = net.unembed.weight, net.unembed.bias, net.unembed.scale

    def reading(index: int) -> Reading:
        direction, more = weight[index] * scale, 0.0 if bias is None else float(bias[index]) * scale
        if asked.against is None:
            direction = direction - weight.mean(0) * scale
            more -= 0.0 if bias is None else float(bias.double().mean()) * scale
        else:
            direction = direction - weight[asked.against] * scale
            more -= 0.0 if bias is None else float(bias[asked.against]) * scale
        return Reading(direction, more, asked.position, float(chances[index]) if asked.target is None else 1.0)

    said = [(model.tokens.string(index), index, float(chances[index])) for index in ids]
    return [reading(index) for index in ids], said


def traced_of(model: LoadedModel, frozen: Frozen, reads: Sequence[Reading], asked: Asked, given: FeatureSet) -> Traced:
    """Return the whole attribution graph, from the store where it has it."""
    key = (given.digest, asked.target, asked.against, asked.position, asked.most)
    names = [(_GRAPH, key, part) for part in ("targets", "edges", "biases", "values")]
    known = model.recall(frozen.ids, names)
    if known is not None:
        return Traced(sources(frozen), tuple(reads), *(known[name] for name in names))
    traced = trace(
        frozen,
        reads,
        most=asked.most,
        on_step=lambda done, total: model.on_step(done, total, f"{done}/{total} features"),
    )
    model.keep(frozen.ids, {name: getattr(traced, name[2]) for name in names})
    return traced


def set_of(model: LoadedModel, result: TraceResult) -> FeatureSet:
    """Return the set of features that a result is of.

    Raises
    ------
    InputError
        It is gone, or has others now.
    """
    name, digest = result.features
    given = features_of(model, name)
    if given.digest != digest:
        raise InputError(f"{name} has other features now than this was traced with; run the cell again")
    return given


def again(model: LoadedModel, result: TraceResult) -> tuple[Traced, FeatureSet]:
    """Return the whole graph that a result is a part of.

    Raises
    ------
    InputError
        Its features are gone, or are others now.
    """
    given = set_of(model, result)
    ids = result.provenance.prompts[0]
    frozen = frozen_run(model, Encoded(ids, result.tokens, {}), standing(model, given))
    target = None if result.target is None else result.target[1]
    against = None if result.against is None else result.against[1]
    asked = Asked(target, against, result.position, *result.kept, result.most)
    given_readings, _ = readings(model, frozen, asked)
    return traced_of(model, frozen, given_readings, asked, given), given


def tracer_of(frozen: Frozen) -> Tracer:
    """Return what gives edges of a held run, row by row."""
    return Tracer(sources(frozen))


def graph(
    model: LoadedModel,
    encoded: Encoded,
    traced: Traced,
    outputs: Sequence[tuple[str, int, float]],
    asked: Asked,
    given: FeatureSet,
) -> TraceResult:
    """Return the part of a graph that is kept, as data."""
    influence = Influence(traced)
    nodes, edges = influence.kept(asked.nodes, asked.edges)
    held, count = traced.sources, len(traced.targets)
    layers, positions = _places(traced)
    # Nodes in the order of the stream: embeddings, then by layer and position, then logits.
    chosen = nodes.nonzero()[:, 0]
    order = torch.argsort(layers[chosen] * (len(encoded.ids) + 1) + positions[chosen], stable=True)
    chosen = chosen[order]
    place = torch.full((len(held),), -1, dtype=torch.int64)
    place[chosen] = torch.arange(len(chosen))
    rows, columns = edges.nonzero(as_tuple=True)
    row_place = torch.full((count + len(outputs),), -1, dtype=torch.int64)
    row_place[:count] = place[traced.targets]
    row_place[count:] = len(chosen) + torch.arange(len(outputs))
    heads, direct = head_loadings(traced, rows, columns)
    top, other = _top(heads.flatten(1))
    first = chosen < held.n_features
    feature = torch.where(first, _of(held.features, chosen, first), -1)
    kind = [_kind(int(number), held.n_features, held.first_embedding) for number in chosen.tolist()]
    nan = float("nan")
    ends = torch.tensor([one.weight for one in traced.readings], dtype=torch.float64)
    last = len(held.frozen)
    shares = influence.share[rows, columns].double() * influence.row_weights[rows]
    return TraceResult(
        tokens=encoded.strings,
        kinds=(*kind, *["logit"] * len(outputs)),
        node_layers=_ints(torch.cat([layers[chosen], torch.full((len(outputs),), last)])),
        node_positions=_ints(torch.cat([positions[chosen], torch.full((len(outputs),), asked.position)])),
        node_features=_ints(torch.cat([feature, torch.full((len(outputs),), -1)])),
        activations=_floats(torch.cat([_of(held.activations, chosen, first, nan), torch.full((len(outputs),), nan)])),
        preactivations=_floats(torch.cat([_of(held.pres, chosen, first, nan), traced.values[count:].float()])),
        influences=torch.cat([influence.nodes[chosen], ends]).cpu().numpy().copy(),
        effects=torch.cat([_effects(traced, ends)[chosen], traced.values[count:].double()]).cpu().numpy().copy(),
        fires=_floats(
            torch.cat([_fires(held, chosen, first), held.activations.new_zeros(len(outputs), held.n_positions)])
        ),
        outputs=tuple(outputs),
        target=None if asked.target is None else (model.tokens.string(asked.target), asked.target),
        against=None if asked.against is None else (model.tokens.string(asked.against), asked.against),
        position=asked.position,
        most=asked.most,
        edge_sources=_ints(place[columns]),
        edge_targets=_ints(row_place[rows]),
        weights=_floats(traced.edges[rows, columns]),
        edge_influences=shares.cpu().numpy().copy(),
        direct=_floats(direct),
        heads=_ints(top.indices),
        loadings=_floats(top.values),
        other=_floats(other),
        n_layers=last,
        n_heads=held.frozen.network.n_heads,
        replacement=influence.replacement,
        completeness=influence.completeness,
        gap=traced.gap,
        active=held.n_features,
        explored=count,
        kept=(asked.nodes, asked.edges),
        features=(given.name, given.digest),
        labels={name: label.brief or label.text for name, label in given.labels.items() if label.rule is not None},
        notes=_notes(traced, held.frozen),
    )


def entries_of(traced: Traced, result: TraceResult) -> dict[int, int]:
    """Return node → the number of its feature among the sources."""
    held = traced.sources
    columns = (held.layers, held.positions, held.features)
    known = {key: n for n, key in enumerate(zip(*(column.tolist() for column in columns), strict=True))}
    where = (result.node_layers, result.node_positions, result.node_features)
    keys = list(zip(*(column.tolist() for column in where), strict=True))
    return {n: known[keys[n]] for n, kind in enumerate(result.kinds) if kind == "feature"}


@dataclass(frozen=True)
class _Top:
    indices: Tensor
    values: Tensor


def _top(heads: Tensor) -> tuple[_Top, Tensor]:
    """Return the heads of the largest shares of each edge, by size, and what the others have together."""
    size = min(_HEADS, heads.shape[1])
    best = heads.abs().topk(size, 1).indices
    values = heads.gather(1, best)
    other = heads.sum(1) - values.sum(1)
    return _Top(torch.where(values == 0, -1, best), values), other


def _effects(traced: Traced, weights: Tensor) -> Tensor:
    """Return what the logits, by their weights, would lose without each source, ``float64 [source]``.

    A feature's activation is taken to follow its pre-activation one to one, as that of an active ReLU does.
    """
    held, count = traced.sources, len(traced.targets)
    edges = traced.edges.double()
    effects = weights @ edges[count:]
    layers = held.layers[traced.targets]
    # From the top down: what a feature does is known before what leads into it.
    for layer in layers.unique().flip(0).tolist():
        own = (layers == layer).nonzero()[:, 0]
        targets = traced.targets[own]
        effects += (effects[targets] / held.activations[targets].double()) @ edges[own]
    return effects


def _fires(held: Sources, chosen: Tensor, first: Tensor) -> Tensor:
    """Return the activation at each position of the features among the `chosen` sources, ``[source, position]``."""
    out = held.activations.new_zeros(len(chosen), held.n_positions)
    # Of a layer's own numbers and the layer, one number.
    keys = held.layers * (int(held.features.max()) + 1 if held.n_features else 1) + held.features
    wanted, rows = keys[chosen[first]].unique(return_inverse=True)
    there = torch.isin(keys, wanted)
    table = out.new_zeros(len(wanted), held.n_positions)
    table[torch.searchsorted(wanted, keys[there]), held.positions[there]] = held.activations[there]
    out[first] = table[rows]
    return out


def _places(traced: Traced) -> tuple[Tensor, Tensor]:
    """Return each source's layer (−1 for embeddings) and position."""
    held = traced.sources
    count = held.n_positions
    every = torch.arange(count)
    errors = torch.arange(len(held.frozen)).repeat_interleave(count)
    layers = torch.cat([held.layers.cpu(), errors, torch.full((count,), -1)])
    return layers, torch.cat([held.positions.cpu(), every.repeat(len(held.frozen)), every])


def _of(values: Tensor, chosen: Tensor, first: Tensor, otherwise: float = -1) -> Tensor:
    """Return features' values at `chosen` sources, and `otherwise` at those that are no features."""
    out = values.new_full((len(chosen),), otherwise)
    out[first] = values[chosen[first]]
    return out


def _kind(number: int, features: int, embeddings: int) -> str:
    return "feature" if number < features else "error" if number < embeddings else "embedding"


def _ints(values: Tensor) -> np.ndarray[Any, np.dtype[np.int32]]:
    return values.cpu().numpy().astype(np.int32)


def _floats(values: Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return values.float().cpu().numpy().copy()


def _notes(traced: Traced, frozen: Frozen) -> tuple[str, ...]:
    held, notes = traced.sources, list[str]()
    lacking = [str(layer) for layer in range(len(frozen)) if layer not in frozen.dictionaries]
    if lacking:
        one = len(lacking) == 1
        said = f"layer{'' if one else 's'} {', '.join(lacking)} {'has' if one else 'have'} no features here"
        notes.append(f"{said}: what {'its MLP writes' if one else 'their MLPs write'} is error as a whole")
    if len(traced.targets) < held.n_features:
        notes.append(
            f"edges lead into the {len(traced.targets):,} most influential of {held.n_features:,} active features; "
            "the others count as unexplained; --most says how many"
        )
    if frozen.network.unembed.cap is not None:
        notes.append("logits are taken before the soft cap")
    return tuple(notes)
