"""Attention patterns of a prompt, with the numbers that describe each head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from interp.errors import InputError
from interp.interface.registry import technique
from interp.methods._shared import interventions as edits
from interp.methods._shared import labels, names
from interp.methods._shared.many import attention as many
from interp.methods._shared.many.attention_result import AttentionManyResult
from interp.methods._shared.patterns import patterns, statistics
from interp.results import Result, resolve
from interp.results.tables import frame_of, lines_of
from interp.sites import Site
from interp.spec import Indices, Node, Prompt, Prompts, Variable, as_interventions, resolve_indices

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from interp.engine.model.loaded import LoadedModel

    Float = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class AttentionResult(Result):
    """Attention patterns.

    Attributes
    ----------
    tokens
        The prompt's token strings, one per position; position 0 is BOS where the tokenizer has one.
    glyphs
        Position → the character that tokens of partial bytes make together.
    layers, heads
        The layers and query heads that the arrays hold, in order; all of the model's unless some were chosen.
    pattern
        ``float32 [layer, head, query, key]``: attention weights, rows sum to 1.
    stats
        Name → ``float32 [layer, head]``: ``entropy`` (nats, mean over queries), ``distance`` (mean attention distance
        in tokens), ``focus`` (mean over queries of the largest weight), ``first_token`` (mean weight on position 0).
    causal
        Whether a query sees only itself and what is before it.
    labels
        Head (``"5.1"``) → its class, where `interp.heads` has classified the heads of the model as it is.
    interventions
        How many changes there were of the run.
    averaged
        Over how many prompts the patterns are averaged; 0 for those of one.
    """

    tokens: tuple[str, ...]
    glyphs: Mapping[int, str] = field(default_factory=dict[int, str])
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    pattern: Float
    stats: Mapping[str, Float]
    causal: bool = True
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    interventions: int = 0
    averaged: int = 0

    _html: ClassVar[str] = "interp.views.attention:html"
    _svg: ClassVar[str | None] = "interp.views.attention:svg"
    _plotly: ClassVar[str | None] = "interp.views.attention:plotly"
    _widget: ClassVar[str | None] = "interp.widgets.attention:AttentionWidget"

    def __post_init__(self) -> None:
        shape = self.pattern.shape
        if len(shape) != 4:
            raise InputError(f"a pattern has four axes, layer, head, query and key; this one has the shape {shape}")
        layers, heads, queries, keys = shape
        if not len(self.tokens) == queries == keys:
            raise InputError(f"{len(self.tokens)} tokens do not fit a {queries} × {keys} pattern")
        if (len(self.layers), len(self.heads)) != (layers, heads):
            raise InputError(
                f"{len(self.layers)} layers × {len(self.heads)} heads are named, but the pattern has {layers} × {heads}"
            )
        if not all(shape):
            raise InputError(f"the pattern is empty: {layers} layers × {heads} heads × {queries} tokens")

    def summary(self) -> str:
        """Return the model and the size of the pattern."""
        layers, heads, length, _ = self.pattern.shape
        return f"{self.provenance.model}: {layers} layers × {heads} heads × {length} tokens"

    def _lines(self) -> list[str]:
        stats = {name: values.reshape(-1) for name, values in self.stats.items()}
        names = [f"{layer}.{head}" for layer in self.layers for head in self.heads]
        most = {name: int(np.nanargmax(values)) for name, values in stats.items() if np.isfinite(values).any()}
        rows = [(name.replace("_", " "), names[at], float(stats[name][at])) for name, at in most.items()]
        return lines_of(("largest", "head", "value"), rows)

    def head(self, name: str) -> Float:
        """Return one head's pattern, ``float32 [query, key]``.

        Parameters
        ----------
        name
            The head as ``"layer.head"``, for instance ``"5.1"``.

        Raises
        ------
        InputError
            A name that is not two numbers, or a head that this result does not hold.

        Examples
        --------
        >>> interp.attention("The cat sat").head("3.1").shape
        (4, 4)
        """
        example = f"{self.layers[0]}.{self.heads[0]}"
        node = names.head(name, f"{name!r} is not a head; write layer.head, for instance {example}")
        if node.layer not in self.layers or node.head not in self.heads:
            raise InputError(
                f"no head {name} in this result; it holds layers {_span(self.layers)}, heads {_span(self.heads)}"
            )
        return self.pattern[self.layers.index(node.layer), self.heads.index(node.head)]

    def value_norms(self) -> Float:
        """Return ‖(x W_V + b_V) W_O‖ for every key, ``float32 [layer, head, key]``; needs the model loaded.

        Times `pattern` it is the value-weighted attention of Kobayashi et al. (2020).

        Raises
        ------
        InputError
            The model is gone, busy, or has changed since; or the patterns are averaged, or of a changed run.
        """
        if self.averaged or self.interventions:
            why = f"are averaged over {self.averaged} prompts" if self.averaged else "are of a run with interventions"
            raise InputError(f"value-weighted attention is of one prompt's own run, and these patterns {why}")

        def norms(model: LoadedModel) -> Float:
            return value_norms(model, self._live.ids, self.layers, self.heads)

        return self._run(norms, "value-weighted attention")

    def to_frame(self) -> pd.DataFrame:
        """Return one row per head: layer, head, the four statistics and the label."""
        index = [(layer, head) for layer in self.layers for head in self.heads]
        table = frame_of(index, columns=["layer", "head"])
        for name, values in self.stats.items():
            table[name] = values.reshape(-1)
        table["label"] = [self.labels.get(f"{layer}.{head}", "") for layer, head in index]
        return table

    def to_circuitsvis(self) -> Any:
        """Return CircuitsVis' own attention view of the first layer held, with its script inline."""
        return resolve("interp.views.attention:circuitsvis")(self)


def _span(indices: tuple[int, ...]) -> str:
    first, last = min(indices), max(indices)
    consecutive = indices == tuple(range(first, last + 1)) and len(indices) > 1
    return f"{first}–{last}" if consecutive else ", ".join(map(str, indices))


@technique(body=Prompt | Prompts)
def attention(
    model: LoadedModel,
    prompt: Prompt | Prompts,
    *,
    layer: Indices = None,
    head: Indices = None,
    interventions: Variable = None,
    by: Literal["position", "span", "end"] | None = None,
) -> AttentionResult | AttentionManyResult:
    """Attention patterns of a prompt: who looks at whom, in every head.

    Parameters
    ----------
    prompt
        The text; or many: a list, a table's column, a file, a task's or pairs' clean prompts.
    layer
        Layers to compute, such as 5, 0-3 or 0,5,7; all when not given.
    head
        Query heads to keep, likewise.
    interventions
        A list of interp.Intervention, in whose run the patterns are read; in a magic, the name of a variable that holds
        one.
    by
        How tokens line up over many prompts: by position where all have one length, by span, or from the end; the
        first of position and span that there is when not given. Weights onto a span are summed over its tokens, and
        averaged over the tokens of the span that looks.

    Returns
    -------
    AttentionResult
        ``pattern`` is ``float32 [layer, head, query, key]``.
    AttentionManyResult
        Of many prompts: ``each`` is ``float32 [prompt, layer, head, query place, key place]``, and ``spread`` its mean
        over prompts with standard error and 95 % interval.

    Raises
    ------
    InputError
        An empty or too long prompt, a layer or head that the model lacks, patterns that the disk has no room for, or
        prompts of which no token of one is any other's.
    Interrupted
        Stopped by Ctrl-C over many prompts: those that were read are in its ``result``.

    Notes
    -----
    Entropy is Shannon's, ``−Σ α ln α``. For grouped queries (GQA) the heads are the query heads. Patterns of more than
    1 GiB are in a temporary file, which goes with the result.

    Examples
    --------
    >>> interp.attention("When Mary and John went to the store", layer=1).pattern.shape
    (1, 4, 9, 9)
    >>> interp.attention(task="ioi", n=4, by="span").each.shape
    (4, 4, 4, 5, 5)
    """
    layers = resolve_indices(layer, model.geometry.n_layers, "layer")
    heads = resolve_indices(head, model.geometry.n_heads, "head")
    if isinstance(prompt, Prompts):
        return many.over(model, prompt, layers, heads, interventions, by)
    if by is not None:
        raise InputError("--by is how many prompts line up; leave it out for one")
    encoded = model.encode(prompt)
    changes = as_interventions(interventions)
    (functions,) = edits.functions(model, changes, [encoded])
    pattern, notes = patterns(model, encoded, layers, heads, functions)
    return AttentionResult(
        tokens=encoded.strings,
        glyphs=encoded.glyphs,
        layers=layers,
        heads=heads,
        pattern=pattern,
        stats={name: np.concatenate(parts) for name, parts in _stacked(pattern).items()},
        causal=model.geometry.causal,
        labels={name: label for name, label in labels.of(model).items() if _held(name, layers, heads)},
        notes=(*notes, *_warnings(pattern, layers)),
        interventions=len(changes),
    )


def _stacked(pattern: Float) -> dict[str, list[Float]]:
    """Return the statistics layer by layer: at once they would take several times what the pattern takes."""
    parts = [statistics(pattern[layer : layer + 1]) for layer in range(len(pattern))]
    return {name: [part[name] for part in parts] for name in parts[0]}


def _held(name: str, layers: tuple[int, ...], heads: tuple[int, ...]) -> bool:
    node = Node.parse(name)
    return node.layer in layers and node.head in heads


def _warnings(pattern: Float, layers: tuple[int, ...]) -> tuple[str, ...]:
    bad = [layer for layer, values in zip(layers, pattern, strict=True) if not np.isfinite(values).all()]
    return (f"the pattern holds NaN or infinite weights, first in layer {bad[0]}",) if bad else ()


def value_norms(model: LoadedModel, ids: tuple[int, ...], layers: tuple[int, ...], heads: tuple[int, ...]) -> Float:
    """Return the length of what each key position would write, ‖(x W_V + b_V) W_O‖, ``float32 [layer, head, key]``.

    Times the attention weight it is the norm-based weight of Kobayashi et al. (2020), "Attention is Not Only a Weight".
    For grouped queries, query head ``h`` reads KV head ``h // (n_heads // n_kv_heads)``.
    """
    group = model.geometry.n_heads // model.geometry.n_kv_heads
    sites = [Site("v", layer).hook_name for layer in layers]
    held = model.activations(model.encode(Prompt(ids=ids)), sites)
    rows: list[Float] = []
    for layer, site in zip(layers, sites, strict=True):
        output: Any = model.bridge.blocks[layer].attn.W_O  # [head, d_head, d_model]
        value = held[site][0].to(output.device)  # [position, KV head, d_head]
        written = [(value[:, head // group].float() @ output[head].detach().float()).norm(dim=-1) for head in heads]
        rows.append(np.stack([norm.cpu().numpy() for norm in written]))
    return np.stack(rows)
