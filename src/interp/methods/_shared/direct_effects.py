"""What each component writes into a logit: the walk from the logit back to the embedding, with norms frozen.

1. The logit reads the last residual stream along a direction d: the unembedding's row (or the difference of two), taken
   back through the final norm with its scale σ as in this run: (x − mean x) / σ · w + b is read along
   (w d − mean(w d)) / σ, and b · d is a part of its own.
2. From the last layer to the first, what a component adds to the stream is measured along d: an MLP's output, and of a
   head z · (W_O d), which divides over the positions that it read from as α · (v W_O d).
3. A norm behind a component (Gemma 2), or behind each sum (BERT), takes d back through itself in the same way.
4. What is left at the bottom is the embedding's. The parts sum to the logit (Elhage et al. 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from interp.sites import Site
from interp.spec import Node

if TYPE_CHECKING:
    from torch import Tensor

    from interp.engine.features.held import FeatureSet
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.lens import Readout
    from interp.results.tables import Float

# What the residual stream begins with → the component's name.
_STARTS = {"embed": "embed", "pos_embed": "pos_embed", "token_type_embed": "type_embed"}


def place(name: str) -> tuple[str, int | None, int | None]:
    """Return a component's kind, layer and head.

    Examples
    --------
    >>> place("5.1"), place("mlp 3"), place("embed")
    (('head', 5, 1), ('mlp', 3, None), ('embed', None, None))
    """
    if "." in name:
        node = Node.parse(name)
        return node.kind, node.layer, node.head
    kind, space, number = name.partition(" ")
    return kind, int(number) if space else None, None


def sites(model: LoadedModel) -> list[str]:
    """Return the names of the activations that the parts are read off.

    Raises
    ------
    InputError
        The model lacks one.
    """
    bridge: Any = model.bridge
    layers = range(model.geometry.n_layers)
    parts = ["z", "v", "pattern", *(["mlp_out"] if "mlp_out" in model.sites else [])]  # some are attention alone
    for name in parts:
        model.require_site(name, layers)
    each = [Site(name, n).hook_name for n in layers for name in parts]
    each += [Site("neuron", n).hook_name for n in layers if model.neurons(n)]  # routed experts have none of that name
    # hook_pos_embed is another name of the rotary tables where positions are not learned.
    start = [f"{name}.hook_out" for name in _STARTS if hasattr(bridge, name)]
    found = [*each, *start, *(f"{name}.hook_in" for name in _later_norms(bridge))]
    return [*found, Site("resid_post", layers[-1]).hook_name, "last_logits"]


def _later_norms(bridge: Any) -> list[str]:
    """Return the norms that stand behind parts of the residual stream, besides the final one.

    BERT's stand behind each sum, Gemma 2's behind what attention or MLP adds, BLOOM's and BERT's behind the embedding.
    """
    names = ("ln1", "ln2") if hasattr(bridge, "mlm_head") else ("ln1_post", "ln2_post")
    found = [f"blocks.{n}.{name}" for n, block in enumerate(bridge.blocks) for name in names if hasattr(block, name)]
    return [*found, *(["embed_ln"] if hasattr(bridge, "embed_ln") else [])]


@dataclass(frozen=True)
class Run:
    """A prompt's activations, and the position that is attributed."""

    model: LoadedModel
    held: Mapping[str, Tensor]
    at: int

    @property
    def end(self) -> Tensor:
        """The last residual stream, ``[position, d_model]``."""
        return self.held[Site("resid_post", self.model.geometry.n_layers - 1).hook_name][0]

    @property
    def headed(self) -> bool:
        """Whether a prediction head, as BERT's, stands between the stream and the final norm."""
        return hasattr(self.model.bridge, "mlm_head")

    def has(self, name: str, layer: int) -> bool:
        """Whether a layer has that activation."""
        return Site(name, layer).hook_name in self.held

    def of(self, name: str, layer: int) -> Tensor:
        """Return an activation without its batch axis."""
        return self.held[Site(name, layer).hook_name][0]


@dataclass(frozen=True)
class Parts:
    """What each component adds; the fields are those of a `DLAResult`."""

    contributions: dict[str, float]
    heads: Float
    per_position: Float
    neurons: tuple[tuple[str, float], ...]
    each_neuron: Mapping[int, Tensor]  # layer → float64 [neuron]
    slopes: Mapping[tuple[str, int], Tensor]  # site, layer → the direction along which what is written there counts


def attributed(run: Run, found: Readout, right: int, wrong: int | None, top: int) -> Parts:
    """Walk from the logit back to the embedding with the direction that the logit reads, norms frozen."""
    import torch

    bridge: Any = run.model.bridge
    geometry = run.model.geometry
    group = geometry.n_heads // geometry.n_kv_heads
    direction, biases = _start(run, found, right, wrong)
    heads = torch.zeros(geometry.n_layers, geometry.n_heads, dtype=torch.float64)
    sources = torch.zeros(*heads.shape, len(run.end), dtype=torch.float64)
    neurons: list[tuple[float, int, int]] = []
    each_neuron: dict[int, Tensor] = {}
    others: dict[str, float] = {}
    slopes: dict[tuple[str, int], Tensor] = {}
    at = run.at
    for layer in reversed(range(geometry.n_layers)):
        block = bridge.blocks[layer]
        slopes["resid_post", layer] = direction
        direction = _back(run, f"blocks.{layer}.ln2", direction, biases)
        slopes["mlp_out", layer] = slopes["resid_mid", layer] = direction
        if run.has("mlp_out", layer):
            others[f"mlp {layer}"] = float(run.of("mlp_out", layer)[at].double() @ direction)
        # Granite's hooks of what a half block adds show it with the factor, those of heads and neurons without.
        factor = float(getattr(block, "residual_contribution_scale", 1.0))
        written = factor * _back(run, f"blocks.{layer}.ln2_post", direction, biases)
        if run.has("neuron", layer):
            acting = run.of("neuron", layer)[at]
            slopes["neuron", layer] = _times(block.mlp.W_out.double(), written)
            each = (acting * _times(block.mlp.W_out, written.to(acting.dtype))).double()
            each_neuron[layer] = each.cpu()
            best = each.abs().topk(min(top, len(each))).indices.tolist()
            neurons += [(float(each[n]), layer, n) for n in best]
        direction = _back(run, f"blocks.{layer}.ln1", direction, biases)
        slopes["attn_out", layer] = slopes["resid_pre", layer] = direction
        written = factor * _back(run, f"blocks.{layer}.ln1_post", direction, biases)
        reads = _times(block.attn.W_O.double(), written)  # [head, d_head]
        slopes["z", layer] = reads.flatten()
        heads[layer] = (run.of("z", layer)[at].double() * reads).sum(-1).cpu()
        value = run.of("v", layer).double().repeat_interleave(group, dim=1)  # [position, head, d_head]
        seen = run.of("pattern", layer)[:, at].double()  # [head, position]
        sources[layer] = (seen * torch.einsum("phd,hd->hp", value, reads)).cpu()
        bias = getattr(block.attn, "b_O", None)
        if bias is not None:
            others[f"attn_bias {layer}"] = float(_times(bias.double(), written))
    direction = _back(run, "embed_ln", direction, biases)
    starts = {
        name: float(run.held[f"{site}.hook_out"][0, at].double() @ direction)
        for site, name in _STARTS.items()
        if f"{site}.hook_out" in run.held
    }
    neurons.sort(key=lambda item: -abs(item[0]))
    contributions = dict(starts)
    for layer in range(geometry.n_layers):
        contributions |= {f"{layer}.{head}": float(heads[layer, head]) for head in range(geometry.n_heads)}
        contributions |= {name: others[name] for name in (f"attn_bias {layer}", f"mlp {layer}") if name in others}
    return Parts(
        contributions=contributions | biases,
        heads=heads.numpy().copy(),
        per_position=sources.numpy().copy(),
        neurons=tuple((f"L{layer} neuron {n}", value) for value, layer, n in neurons[:top]),
        each_neuron=each_neuron,
        slopes=slopes,
    )


def of_features(
    run: Run, ids: Sequence[int], given: FeatureSet, slopes: Mapping[tuple[str, int], Tensor], top: int
) -> tuple[tuple[str, float], ...]:
    """Return the features with the largest parts, strongest first: a · decoder along what the logit reads there.

    A feature's part is one of what stands where its dictionary writes: an MLP's output, the stream. The rest of that is
    what the dictionary does not explain, and its bias.

    Parameters
    ----------
    ids
        The prompt's.
    """
    import torch

    from interp.engine.features.coded import coded

    found: list[tuple[float, str]] = []
    for one, held in zip(given.dictionaries, coded(run.model, ids, given.dictionaries), strict=True):
        codes = held.codes.cut(run.at, run.at + 1)
        unit = held.unit.expand(len(held.codes), 1)[run.at].double()
        parts = torch.zeros_like(codes.values, dtype=torch.float64)
        for to, place in enumerate(one.writes):
            if (place.point, place.layer) in slopes:
                slope = slopes[place.point, place.layer]
                parts += codes.values.double() * unit * (one.atoms(codes.features, to).double() @ slope)
        for n in parts.abs().topk(min(top, len(parts))).indices.tolist():
            found.append((float(parts[n]), f"F{one.layer}.{int(codes.features[n])}"))
    found.sort(key=lambda item: -abs(item[0]))
    return tuple((name, part) for part, name in found[:top])


def _start(run: Run, found: Readout, right: int, wrong: int | None) -> tuple[Tensor, dict[str, float]]:
    """Return the direction that the logit reads in the last residual stream, and what biases after it add.

    What a cap or a scale makes of a logit is frozen at the ratio of this run.
    """
    import torch
    from torch.nn import functional

    rows = [right] if wrong is None else [right, wrong]
    signs = torch.tensor([1.0, -1.0][: len(rows)], dtype=torch.float64, device=found.weight.device)
    normed = found.norm(run.end[run.at])
    bias = None if found.bias is None else found.bias[rows]
    raw = functional.linear(normed, found.weight[rows], bias).double()
    if found.after is not None:
        signs = signs * found.after(raw) / raw
    direction = signs @ found.weight[rows].double()
    biases: dict[str, float] = {}
    if bias is not None:
        biases["unembed_bias"] = float(signs @ bias.double())
    bridge: Any = run.model.bridge
    stream = run.end[run.at]
    if not run.headed:
        direction, added = _frozen(bridge.ln_final, stream, direction)
        return direction, biases if added is None else {"norm_bias": added, **biases}
    from interp.engine.readouts.lens import head_activation
    from interp.engine.transformer.families._family import Constant

    dense = bridge.mlm_head.original_component
    before = Constant(dense)(stream)
    after = head_activation(run.model)(before)
    direction, added = _frozen(bridge.ln_final, after, direction)
    direction = direction * (after.double() / before.double()).nan_to_num()
    biases["head_bias"] = float(_times(dense.bias.double(), direction))
    return _times(dense.weight.double().T, direction), {"norm_bias": added or 0.0, **biases}


def _back(run: Run, name: str, direction: Tensor, biases: dict[str, float]) -> Tensor:
    """Return the direction before the norm `name`, and add its bias's part to `biases`; as it is without that norm."""
    stream = run.held.get(f"{name}.hook_in")
    if stream is None:
        return direction
    moved, added = _frozen(run.model.bridge.get_submodule(name), stream[0, run.at], direction)
    if added is not None:
        biases["norm_bias"] = biases.get("norm_bias", 0.0) + added
    return moved


def _frozen(norm: Any, stream: Tensor, direction: Tensor) -> tuple[Tensor, float | None]:
    """Return the direction before a norm with its scale as it is for `stream`, and what the norm's bias adds.

    LayerNorm: (x − mean x) / σ · w + b, so x is read along (w d − mean(w d)) / σ. RMSNorm has neither mean nor bias;
    some (Gemma's) keep their gain w as w − 1. A model without norms reads x along d.
    """
    import torch

    from interp.engine.readouts.lens import epsilon

    module = norm.original_component
    if isinstance(module, torch.nn.Identity):
        return direction, None
    x = stream.double()
    weight = getattr(module, "weight", None)
    gain = (
        torch.ones_like(x) if weight is None else weight.double().to(x.device)
    )  # OLMo's LayerNorm has neither gain nor bias
    scaled = direction * (1 + gain if norm.uses_weight_offset else gain)
    if norm.uses_rms_norm:
        return scaled / (x.square().mean() + epsilon(norm)).sqrt(), None
    sigma = (x.var(unbiased=False) + epsilon(norm)).sqrt()
    bias = getattr(module, "bias", None)
    return (scaled - scaled.mean()) / sigma, None if bias is None else float(_times(bias.double(), direction))


def _times(weight: Tensor, vector: Tensor) -> Tensor:
    """Return ``weight @ vector`` where the vector is; the weights of some layers may be on another device."""
    return (weight @ vector.to(weight.device)).to(vector.device)


def frozen_note(run: Run, found: Readout) -> str:
    """Return in words what was kept as in this run."""
    frozen = [
        "the scale of the final norm",
        *(["those of the norms behind a component"] if _later_norms(run.model.bridge) else []),
        *(["the head's activation"] if run.headed else []),
        *(["what caps or scales the logits"] if found.after is not None else []),
    ]
    return f"direct effects only, with {', '.join(frozen)} as in this run"
