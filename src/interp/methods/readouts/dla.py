"""Direct logit attribution: what each component writes into a token's logit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from interp.errors import InputError
from interp.interface.registry import technique
from interp.methods._shared.models import predicted
from interp.methods._shared.pairs import one_token
from interp.results import Result, resolve
from interp.sites import Site
from interp.spec import Prompt

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.lens import Readout

    Float = NDArray[np.float64]

# Of the sum of the parts' sizes: what rounding in the model's own dtype can make the parts miss its logit by.
_EXACT = ("float32", "float64")
_ROUNDING, _ROUGH = 1e-5, 0.05
# What the residual stream begins with → the component's name.
_STARTS = {"embed": "embed", "pos_embed": "pos_embed", "token_type_embed": "type_embed"}


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class DLAResult(Result):
    """What each component adds to a logit, or to the difference of two.

    Attributes
    ----------
    tokens
        The prompt's token strings.
    position
        Whose prediction this is; counted from 0.
    answer, wrong
        (string, id); `wrong` is ``None`` where a single logit is attributed.
    contributions
        Component → its part, in logits. Disjoint: ``embed``, ``pos_embed``, every head (``"5.1"``), ``attn_bias 5``,
        ``mlp 5``, ``norm_bias``, ``unembed_bias``, those that the model has. They sum to `total`.
    heads
        ``float64 [layer, head]``: the heads' parts.
    per_position
        ``float64 [layer, head, position]``: a head's part by the position that it read it from, α · (v W_O), with the
        value's own bias; sums over positions to `heads`.
    neurons
        (``"L5 neuron 123"``, part) of the neurons with the largest parts, strongest first; each is inside its MLP's.
    total
        Sum of the contributions.
    logit
        The model's own logit, or difference.
    """

    tokens: tuple[str, ...]
    position: int
    answer: tuple[str, int]
    wrong: tuple[str, int] | None = None
    contributions: Mapping[str, float] = field(default_factory=dict[str, float])
    heads: Float
    per_position: Float
    neurons: tuple[tuple[str, float], ...] = ()
    total: float
    logit: float

    _html: ClassVar[str] = "interp.views.dla:html"
    _svg: ClassVar[str | None] = "interp.views.dla:svg"
    _plotly: ClassVar[str | None] = "interp.views.dla:plotly"

    def __post_init__(self) -> None:
        if len(self.tokens) != self.per_position.shape[-1]:
            raise InputError(f"{len(self.tokens)} tokens do not fit {self.per_position.shape[-1]} positions")

    def summary(self) -> str:
        """Return the logit and its largest part."""
        over = f" over {self.wrong[0]!r}" if self.wrong else ""
        name, value = self.top(1)[0]
        return (
            f"{self.provenance.model}: {self.answer[0]!r}{over} at position {self.position}: {self.logit:+.3f}, "
            f"most of it from {name} {value:+.3f}"
        )

    def text(self) -> str:
        """Return the ten largest parts, one to a line."""
        shown = resolve("interp.errors:printable")
        return "\n".join([super().text(), *(f"{value:+9.3f}  {shown(name)}" for name, value in self.top(10))])

    def top(self, n: int = 10) -> list[tuple[str, float]]:
        """Return the `n` largest parts either way: (component, part), strongest first.

        Examples
        --------
        >>> result.top(1)
        [('mlp 3', 6.80...)]
        """
        order = sorted(self.contributions.items(), key=lambda item: -abs(np.nan_to_num(item[1], nan=-1.0)))
        return order[:n]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per component: component, kind, layer, head, contribution."""
        import pandas as pd

        rows: list[tuple[str, str, int | None, int | None, float]] = []
        for name, value in self.contributions.items():
            kind, layer, head = place(name)
            rows.append((name, kind, layer, head, value))
        table = pd.DataFrame(rows, columns=["component", "kind", "layer", "head", "contribution"])
        return table.astype({"layer": "Int64", "head": "Int64"})


def place(name: str) -> tuple[str, int | None, int | None]:
    """Return a component's kind, layer and head.

    Examples
    --------
    >>> place("5.1"), place("mlp 3"), place("embed")
    (('head', 5, 1), ('mlp', 3, None), ('embed', None, None))
    """
    layer, dot, head = name.partition(".")
    if dot:
        return "head", int(layer), int(head)
    kind, space, number = name.partition(" ")
    return kind, int(number) if space else None, None


@technique(body=Prompt)
def dla(
    model: LoadedModel,
    prompt: Prompt,
    *,
    answer: str | None = None,
    wrong: str | None = None,
    position: int | None = None,
    top: int = 10,
) -> DLAResult:
    """Direct logit attribution: what each head, MLP, embedding and bias adds to a logit, or to a difference of two.

    Parameters
    ----------
    prompt
        The text.
    answer
        The token, such as " Mary"; the model's own answer when not given.
    wrong
        The token whose logit is taken off, such as " John".
    position
        The position whose prediction is attributed, −1 for the last; the one that predict answers when not given.
    top
        How many neurons to keep.

    Returns
    -------
    DLAResult
        ``contributions`` is component → part, and sums to ``total``, which is the model's ``logit``.

    Raises
    ------
    InputError
        A prompt, token or position that cannot be used, or a model whose layers do more than add to the residual
        stream.

    Notes
    -----
    Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits". The final norm's scale is frozen at this
    run; LayerNorm's centering is part of the direction that the parts are measured along. So are frozen, where a model
    has them: norms behind a part (BERT, Gemma 2, BLOOM's embedding), the activation of BERT's head, and a soft cap or a
    scale of the logits (Gemma 2, Cohere), each part then in units of the logit that comes out.

    Examples
    --------
    >>> interp.dla("The capital of France is", answer=" Paris").top(2)
    [('mlp 3', 6.80...), ('1.0', 4.39...)]
    """
    from interp.engine.readouts import lens as engine

    if top < 1:
        raise InputError(f"--top {top} keeps no neuron; use 1 or more")
    encoded = model.encode(prompt)
    length = len(encoded.ids)
    if position is not None and not -length <= position < length:
        raise InputError(f"no position {position}; positions are 0–{length - 1}, and −1 is the last")
    at = predicted(model, encoded) if position is None else position % length
    ids = [
        None if given is None else one_token(model, prompt.text or "", given, which)
        for which, given in (("answer", answer), ("wrong answer", wrong))
    ]
    found = engine.readout(model)
    run = _Run(model, model.activations(encoded, _sites(model)), at)
    engine.require(model, found, run.end[-1], run.held["last_logits"][0])
    logits: Tensor = engine.detached(lambda: found.logits(run.end[at])).double()
    right = int(logits.argmax()) if ids[0] is None else ids[0]
    if right == ids[1]:
        raise InputError(f"answer and wrong answer are both {model.tokens.string(right)!r}; they must differ")
    parts = engine.detached(lambda: _attributed(run, found, right, ids[1], top))
    total = float(sum(parts.contributions.values()))
    logit = float(logits[right] - (0.0 if ids[1] is None else logits[ids[1]]))
    return DLAResult(
        tokens=encoded.strings,
        position=at,
        answer=(model.tokens.string(right), right),
        wrong=None if ids[1] is None else (model.tokens.string(ids[1]), ids[1]),
        contributions=parts.contributions,
        heads=parts.heads,
        per_position=parts.per_position,
        neurons=parts.neurons,
        total=total,
        logit=logit,
        notes=_notes(model, _frozen_note(run, found), parts.contributions, total, logit),
    )


def _sites(model: LoadedModel) -> list[str]:
    bridge: Any = model.bridge
    layers = range(model.geometry.n_layers)
    each = [Site(name, n).hook_name for n in layers for name in ("z", "v", "pattern", "mlp_out", "neuron")]
    # hook_pos_embed is another name of the rotary tables where positions are not learned.
    start = [f"{name}.hook_out" for name in _STARTS if hasattr(bridge, name)]
    found = [*each, *start, *(f"{name}.hook_in" for name in _later_norms(bridge))]
    absent = [name for name in found if name not in bridge.hook_dict]
    if absent:
        raise InputError(
            f"{model.name} has no {absent[0]}: its layers are not attention and MLP, which dla takes apart"
        )
    return [*found, Site("resid_post", layers[-1]).hook_name, "last_logits"]


def _later_norms(bridge: Any) -> list[str]:
    """Return the norms that stand behind parts of the residual stream, besides the final one.

    BERT's stand behind each sum, Gemma 2's behind what attention or MLP adds, BLOOM's and BERT's behind the embedding.
    """
    names = ("ln1", "ln2") if hasattr(bridge, "mlm_head") else ("ln1_post", "ln2_post")
    found = [f"blocks.{n}.{name}" for n, block in enumerate(bridge.blocks) for name in names if hasattr(block, name)]
    return [*found, *(["embed_ln"] if hasattr(bridge, "embed_ln") else [])]


@dataclass(frozen=True)
class _Run:
    """A prompt's activations, and the position that is attributed."""

    model: LoadedModel
    held: Mapping[str, Tensor]
    at: int

    @property
    def end(self) -> Tensor:
        return self.held[Site("resid_post", self.model.geometry.n_layers - 1).hook_name][0]

    @property
    def headed(self) -> bool:
        """Whether a prediction head, as BERT's, stands between the stream and the final norm."""
        return hasattr(self.model.bridge, "mlm_head")

    def of(self, name: str, layer: int) -> Tensor:
        """Return an activation without its batch axis."""
        return self.held[Site(name, layer).hook_name][0]


@dataclass(frozen=True)
class _Parts:
    contributions: dict[str, float]
    heads: Float
    per_position: Float
    neurons: tuple[tuple[str, float], ...]


def _attributed(run: _Run, found: Readout, right: int, wrong: int | None, top: int) -> _Parts:
    """Walk from the logit back to the embedding with the direction that the logit reads, norms frozen."""
    import torch

    bridge: Any = run.model.bridge
    geometry = run.model.geometry
    group = geometry.n_heads // geometry.n_kv_heads
    direction, biases = _start(run, found, right, wrong)
    heads = torch.zeros(geometry.n_layers, geometry.n_heads, dtype=torch.float64)
    sources = torch.zeros(*heads.shape, len(run.end), dtype=torch.float64)
    neurons: list[tuple[float, int, int]] = []
    others: dict[str, float] = {}
    at = run.at
    for layer in reversed(range(geometry.n_layers)):
        block = bridge.blocks[layer]
        direction = _back(run, f"blocks.{layer}.ln2", direction, biases)
        others[f"mlp {layer}"] = float(run.of("mlp_out", layer)[at].double() @ direction)
        written = _back(run, f"blocks.{layer}.ln2_post", direction, biases)
        acting = run.of("neuron", layer)[at]
        each = (acting * (block.mlp.W_out @ written.to(acting.dtype))).double()
        best = each.abs().topk(min(top, len(each))).indices.tolist()
        neurons += [(float(each[n]), layer, n) for n in best]
        direction = _back(run, f"blocks.{layer}.ln1", direction, biases)
        written = _back(run, f"blocks.{layer}.ln1_post", direction, biases)
        reads = block.attn.W_O.double() @ written  # [head, d_head]
        heads[layer] = (run.of("z", layer)[at].double() * reads).sum(-1).cpu()
        value = run.of("v", layer).double().repeat_interleave(group, dim=1)  # [position, head, d_head]
        seen = run.of("pattern", layer)[:, at].double()  # [head, position]
        sources[layer] = (seen * torch.einsum("phd,hd->hp", value, reads)).cpu()
        bias = getattr(block.attn, "b_O", None)
        if bias is not None:
            others[f"attn_bias {layer}"] = float(bias.double() @ written)
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
    return _Parts(
        contributions=contributions | biases,
        heads=heads.numpy().copy(),
        per_position=sources.numpy().copy(),
        neurons=tuple((f"L{layer} neuron {n}", value) for value, layer, n in neurons[:top]),
    )


def _start(run: _Run, found: Readout, right: int, wrong: int | None) -> tuple[Tensor, dict[str, float]]:
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
    from transformers.activations import ACT2FN

    dense = bridge.mlm_head.original_component
    before = dense(stream)
    after = ACT2FN[bridge.original_model.config.hidden_act](before)
    direction, added = _frozen(bridge.ln_final, after, direction)
    direction = direction * (after.double() / before.double()).nan_to_num()
    biases["head_bias"] = float(dense.bias.double() @ direction)
    return dense.weight.double().T @ direction, {"norm_bias": added or 0.0, **biases}


def _back(run: _Run, name: str, direction: Tensor, biases: dict[str, float]) -> Tensor:
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
    gain = module.weight.double()
    scaled = direction * (1 + gain if norm.uses_weight_offset else gain)
    if norm.uses_rms_norm:
        return scaled / (x.square().mean() + epsilon(norm)).sqrt(), None
    sigma = (x.var(unbiased=False) + epsilon(norm)).sqrt()
    bias = getattr(module, "bias", None)
    return (scaled - scaled.mean()) / sigma, None if bias is None else float(bias.double() @ direction)


def _frozen_note(run: _Run, found: Readout) -> str:
    frozen = [
        "the scale of the final norm",
        *(["those of the norms behind a component"] if _later_norms(run.model.bridge) else []),
        *(["the head's activation"] if run.headed else []),
        *(["what caps or scales the logits"] if found.after is not None else []),
    ]
    return f"direct effects only, with {', '.join(frozen)} as in this run"


def _notes(model: LoadedModel, frozen: str, parts: Mapping[str, float], total: float, logit: float) -> tuple[str, ...]:
    """Return what is worth knowing; refuse a model whose parts do not add up to its logit.

    Raises
    ------
    InputError
        They do not, and neither hooks of the user's own nor rounding can be why.
    """
    if not np.isfinite(total):
        return (frozen, f"the parts are NaN or infinite, first in {_first(parts)}")
    gap = abs(total - logit)
    size = sum(abs(value) for value in parts.values())
    if gap <= 1e-4 + _ROUNDING * size:
        return (frozen,)
    said = f"the parts add up to {total:+.4f} and the model's own logit is {logit:+.4f}"
    if model.user_hooks():
        return (frozen, f"{said}: hooks of yours change the residual stream between them")
    import torch

    rough = torch.is_autocast_enabled(model.device.type) or model.dtype not in _EXACT
    if gap <= _ROUGH * size and rough:
        return (frozen, f"{said}: the model rounds in less than float32")
    raise InputError(f"{said}: {model.name} does more than add attention and MLPs, and dla would be wrong")


def _first(parts: Mapping[str, float]) -> str:
    lost = [name for name, value in parts.items() if not np.isfinite(value)]
    order: Sequence[str] = sorted(lost, key=lambda name: (place(name)[1] is None, place(name)[1] or 0))
    return order[0] if order else "their sum"
