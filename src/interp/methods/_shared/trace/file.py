"""Attribution graphs in files: interp's own JSON, and that of Neuronpedia and circuit-tracer, out and in."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from interp import files
from interp.errors import InputError
from interp.methods._shared.trace import derived
from interp.methods._shared.trace.parts import TraceCheck, TraceStability
from interp.methods._shared.trace.result import TraceResult
from interp.results import Provenance, loading
from interp.results.saving import as_data, as_json

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

# Neuronpedia's words for kinds of nodes; circuit-tracer's of several versions.
_TYPES = {
    "embedding": "embedding",
    "logit": "logit",
    "mlp reconstruction error": "error",
    "mlp_error": "error",
    "cross layer transcoder": "feature",
    "transcoder": "feature",
    "CLT": "feature",
    "PLT": "feature",
}
_KNOWN = {"TraceCheck": TraceCheck, "TraceStability": TraceStability}
_MOST = 200_000  # nodes or edges that a file may have


def write_neuronpedia(result: TraceResult, path: str | os.PathLike[str], scan: str = "") -> Path:
    """Write a graph as Neuronpedia's JSON.

    Parameters
    ----------
    scan
        Neuronpedia's name of the model, such as ``gemma-2-2b``; the model's name here when not given.

    Raises
    ------
    InputError
        The path cannot be written, or does not end in .json.
    """
    target = files.writable(path)
    if target.suffix.lower() != ".json":
        raise InputError(f"Neuronpedia's graphs are .json files, not {target.suffix or 'files without a suffix'}")
    return files.write(target, as_json(as_data(neuronpedia(result, scan))))


def neuronpedia(result: TraceResult, scan: str = "") -> dict[str, Any]:
    """Return a graph as Neuronpedia's JSON has it: ``metadata``, ``qParams``, ``nodes`` and ``links``."""
    ids = _ids(result)
    nodes: list[dict[str, Any]] = []
    total = float(result.influences[[kind != "logit" for kind in result.kinds]].sum()) or 1.0
    # There a node's influence is the share of all influence that the larger ones and itself have.
    order = np.argsort(-result.influences, kind="stable")
    summed = np.empty(len(order))
    summed[order] = np.minimum(np.cumsum(np.where(_of(result, "logit"), 0.0, result.influences)[order]) / total, 1.0)
    probabilities = dict(zip(np.flatnonzero(_of(result, "logit")).tolist(), result.outputs, strict=True))
    kinds = {"feature": "cross layer transcoder", "error": "mlp reconstruction error"}
    for number, node in enumerate(result.nodes):
        token, index, probability = probabilities.get(number, ("", -1, 0.0))
        layer = str(node.layer + 1) if node.kind == "logit" else "E" if node.kind == "embedding" else str(node.layer)
        feature = {
            "feature": _paired(node.layer, node.feature),
            "error": -1,
            "embedding": node.position,
            "logit": index,
        }[node.kind]
        said = result.labels.get(node.name.partition("@")[0], "")
        nodes.append(
            {
                "node_id": ids[number],
                "feature": feature,
                "layer": layer,
                "ctx_idx": node.position,
                "feature_type": kinds.get(node.kind, node.kind),
                "token_prob": probability,
                "is_target_logit": node.kind == "logit",
                "run_idx": 0,
                "reverse_ctx_idx": 0,
                "jsNodeId": f"{layer}_{node.feature}-0",
                "clerp": f'Output "{token}" (p={probability:.3f})' if node.kind == "logit" else said,
                "influence": None if node.kind == "logit" else float(summed[number]),
                "activation": node.activation if node.kind == "feature" else None,
            }
        )
    edges = zip(result.edge_sources.tolist(), result.edge_targets.tolist(), result.weights.tolist(), strict=True)
    names = {name: ids[number] for number, name in enumerate(result.names)}
    return {
        "metadata": {
            "slug": "interp-graph",
            "scan": scan or result.provenance.model,
            "transcoder_list": [result.features[0]],
            "prompt_tokens": list(result.tokens),
            "prompt": "".join(result.tokens),
            "node_threshold": result.kept[0],
            "schema_version": 1,
        },
        "qParams": {
            "linkType": "both",
            "pinnedIds": [names[name] for held in result.groups.values() for name in held],
            "clickedId": "",
            "supernodes": [[name, *(names[one] for one in held)] for name, held in result.groups.items()],
            "sg_pos": "",
        },
        "nodes": nodes,
        "links": [{"source": ids[source], "target": ids[target], "weight": weight} for source, target, weight in edges],
    }


def load_graph(path: str | os.PathLike[str]) -> TraceResult:
    """Return an attribution graph from a file: Neuronpedia's or circuit-tracer's JSON, or what ``save`` wrote as JSON.

    It is bound to no model. Of Neuronpedia's, what the file does not say is NaN: heads' shares, replacement,
    completeness.

    Parameters
    ----------
    path
        The JSON file.

    Raises
    ------
    InputError
        There is no such file, or it holds no attribution graph.

    Examples
    --------
    >>> interp.load_graph("graph.json")  # doctest: +SKIP
    """
    instead = "give the path of a graph's JSON file"
    saved, name = loading.opened(path, instead), files.path_of(path).name
    if {"edge_sources", "kinds"} <= set(saved.fields):
        return cast("TraceResult", loading.built(TraceResult, saved, {}, _KNOWN))
    try:
        if {"nodes", "links"} <= set(saved.fields):
            return _from_neuronpedia(saved.fields)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise InputError(
            f"{name} holds no attribution graph that can be read: {type(error).__name__} {error}"
        ) from None
    raise InputError(f"{name} holds no attribution graph: it has neither nodes and links nor what interp writes")


def _ids(result: TraceResult) -> list[str]:
    found: list[str] = []
    outputs = iter(result.outputs)
    prompts = result.provenance.prompts
    tokens = prompts[0] if prompts else (0,) * len(result.tokens)
    for node in result.nodes:
        if node.kind == "feature":
            found.append(f"{node.layer}_{node.feature}_{node.position}")
        elif node.kind == "error":
            found.append(f"0_{node.layer}_{node.position}")
        elif node.kind == "embedding":
            found.append(f"E_{tokens[node.position]}_{node.position}")
        else:
            found.append(f"{node.layer + 1}_{next(outputs)[1]}_{node.position}")
    # An error of layer l at p is written as feature l of layer 0 is: where there is one, it gets another name.
    taken = {one for one, kind in zip(found, result.kinds, strict=True) if kind != "error"}
    return [
        f"0_error{one[1:]}" if kind == "error" and one in taken else one
        for one, kind in zip(found, result.kinds, strict=True)
    ]


def _paired(layer: int, feature: int) -> int:
    """Return Cantor's number of a pair."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def _of(result: TraceResult, kind: str) -> NDArray[np.bool_]:
    return np.array([one == kind for one in result.kinds])


def _from_neuronpedia(data: Mapping[str, Any]) -> TraceResult:
    nodes, links = _listed(data, "nodes"), _listed(data, "links")
    said = cast("Mapping[str, Any]", data.get("metadata") or {})
    tokens = tuple(str(token) for token in said["prompt_tokens"])
    kinds = [_TYPES[str(node["feature_type"])] for node in nodes]
    depth = max(int(node["layer"]) for node, kind in zip(nodes, kinds, strict=True) if kind == "logit") - 1
    order = sorted(range(len(nodes)), key=lambda n: (_layer(nodes[n], kinds[n], depth), int(nodes[n]["ctx_idx"])))
    nodes, kinds = [nodes[n] for n in order], [kinds[n] for n in order]
    place = {str(node["node_id"]): number for number, node in enumerate(nodes)}
    if len(place) != len(nodes):
        raise InputError("two nodes of the graph have one node_id")
    count = len(links)
    groups = {
        str(held[0]): tuple(str(one) for one in held[1:])
        for held in cast("Sequence[Sequence[Any]]", (data.get("qParams") or {}).get("supernodes") or ())
    }
    logits = [node for node, kind in zip(nodes, kinds, strict=True) if kind == "logit"]
    layers = np.array([_layer(node, kind, depth) for node, kind in zip(nodes, kinds, strict=True)], np.int32)
    positions = np.array([int(node["ctx_idx"]) for node in nodes], np.int32)
    features = np.array(
        [int(str(n["node_id"]).split("_")[1]) if k == "feature" else -1 for n, k in zip(nodes, kinds, strict=True)],
        np.int32,
    )
    activations = np.array([_number(node.get("activation")) for node in nodes], np.float32)
    influences = _own_influences(nodes, kinds)
    sources, targets = (np.array([place[str(link[end])] for link in links], np.int32) for end in ("source", "target"))
    weights = np.array([_number(link["weight"]) for link in links], np.float32)
    result = TraceResult(
        tokens=tokens,
        kinds=tuple(kinds),
        node_layers=layers,
        node_positions=positions,
        node_features=features,
        activations=activations,
        preactivations=np.full(len(nodes), np.nan, np.float32),
        influences=influences,
        effects=derived.effects(kinds, layers, activations, influences, sources, targets, weights),
        fires=derived.fires(kinds, layers, positions, features, activations, len(tokens)),
        outputs=tuple((_token(node), int(node["feature"]), _number(node.get("token_prob"))) for node in logits),
        position=int(logits[0]["ctx_idx"]),
        most=0,
        edge_sources=sources,
        edge_targets=targets,
        weights=weights,
        edge_influences=np.abs(weights.astype(np.float64)),
        direct=np.full(count, np.nan, np.float32),
        heads=np.zeros((count, 0), np.int32),
        loadings=np.zeros((count, 0), np.float32),
        other=np.full(count, np.nan, np.float32),
        n_layers=depth,
        n_heads=1,
        replacement=math.nan,
        completeness=math.nan,
        gap=math.nan,
        active=kinds.count("feature"),
        explored=kinds.count("feature"),
        kept=(_number(said.get("node_threshold") or 1.0), 1.0),
        features=(str(said.get("scan", "")), ""),
        provenance=Provenance(model=str(said.get("scan", "")), technique="trace"),
        notes=("from a file of Neuronpedia's: heads' shares, replacement and completeness are not in it",),
    )
    names = dict(zip(place, result.names, strict=True))
    for name, held in groups.items():
        if len(held) > 1:  # of one node there it is but a pin
            result.groups[name] = tuple(names[one] for one in held)
    said_of = {result.names[place[str(n["node_id"])]].partition("@")[0]: str(n.get("clerp") or "") for n in nodes}
    named = {name for name, kind in zip(result.names, kinds, strict=True) if kind == "feature"}
    kept = {name: text for name, text in said_of.items() if text and any(one.startswith(f"{name}@") for one in named)}
    object.__setattr__(result, "labels", kept)
    return result


def _listed(data: Mapping[str, Any], which: str) -> list[Mapping[str, Any]]:
    held = data[which]
    if not isinstance(held, list) or not held or len(cast("list[Any]", held)) > _MOST:
        raise InputError(f"the graph's {which} are no list of 1 to {_MOST:,}")
    return cast("list[Mapping[str, Any]]", held)


def _layer(node: Mapping[str, Any], kind: str, depth: int) -> int:
    return -1 if kind == "embedding" else depth if kind == "logit" else int(node["layer"])


def _token(node: Mapping[str, Any]) -> str:
    """Return the token of a logit: what stands in quotes in its label, else its id."""
    said = str(node.get("clerp") or node.get("token_str") or "")
    return said[said.find('"') + 1 : said.rfind('"')] if said.count('"') > 1 else said or str(node["feature"])


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _own_influences(nodes: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> NDArray[np.float64]:
    """Return nodes' own shares, of the shares that they have together with all larger ones."""
    summed = np.array([_number(node.get("influence")) for node in nodes])
    order = np.argsort(summed, kind="stable")
    own = np.empty(len(nodes))
    own[order] = np.diff(np.nan_to_num(summed[order], nan=0.0), prepend=0.0)
    ends = np.array([kind == "logit" for kind in kinds])
    own[ends] = [_number(node.get("token_prob")) for node, end in zip(nodes, ends, strict=True) if end]
    return np.maximum(own, 0.0)


def fields_of(data: Mapping[str, Any], size: int) -> dict[str, Any]:  # noqa: ARG001
    """Return a file's fields of a graph; empty arrays of a file that says no shapes have the one that is due."""
    held = dict(data)
    count, shape = len(held["weights"]), (len(held["kinds"]), len(held["tokens"]))
    for name, dtype in (("heads", np.int32), ("loadings", np.float32)):
        if not isinstance(held[name], np.ndarray):
            held[name] = np.array(held[name], dtype=np.float64).astype(dtype).reshape(count, -1 if count else 0)
    if not isinstance(held["fires"], np.ndarray):
        held["fires"] = np.array(held["fires"], dtype=np.float64).astype(np.float32).reshape(shape)
    return held
