"""A command's work, as terms that say nothing of the machine: rows through layers, forwards with hooks, memory.

A technique's engine writes it down from the objects that do it (how waves are cut, which pairs go together), and
`costs` makes seconds of it by the rates of the machine. Works are added in the order in which they are done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from interp.engine.transformer.network import Network

if TYPE_CHECKING:
    from interp.engine.model.loaded import LoadedModel


@dataclass(frozen=True)
class Through:
    """Rows that go through layers together.

    Attributes
    ----------
    rows
        How many rows of the residual stream a layer's products have.
    layers
        How many layers; `passes` times.
    graded
        How many of the rows are differentiated.
    scores
        Pairs of a query and a key in a layer, over all runs: attention's products have as many, for every head.
    groups
        How many attentions there are in a layer, one after the other.
    """

    rows: int
    layers: int
    passes: int = 1
    graded: int = 0
    scores: int = 0
    groups: int = 1


@dataclass(frozen=True)
class Hooked:
    """Forwards of the model's own, with hooks.

    Attributes
    ----------
    count
        How many.
    rows
        Positions of one of them, over all its prompts.
    graded
        Whether it is differentiated.
    places
        How many activations functions look at or write, in one of them.
    """

    count: int
    rows: int
    graded: bool = False
    places: int = 0


@dataclass(frozen=True)
class Work:
    """What is to be done.

    Attributes
    ----------
    forwards
        As a provenance counts them.
    flops
        Operations of matrix products that are no layer's.
    logits
        Rows that are unembedded to the whole vocabulary.
    moved
        Bytes that are read and written besides: copies, sums.
    calls
        Small operations of torch's, from Python, that are no layer's.
    held
        Bytes that stay in use when it is done: runs that are kept, answers.
    peak
        The most bytes in use while it is done.
    advice
        What to change where memory is short.
    """

    forwards: int = 0
    through: tuple[Through, ...] = ()
    hooked: tuple[Hooked, ...] = ()
    flops: float = 0.0
    logits: int = 0
    moved: float = 0.0
    calls: int = 0
    held: int = 0
    peak: int = 0
    advice: tuple[str, ...] = field(default=())

    def __add__(self, after: Work) -> Work:
        return Work(
            forwards=self.forwards + after.forwards,
            through=self.through + after.through,
            hooked=self.hooked + after.hooked,
            flops=self.flops + after.flops,
            logits=self.logits + after.logits,
            moved=self.moved + after.moved,
            calls=self.calls + after.calls,
            held=self.held + after.held,
            peak=max(self.peak, self.held, self.held + after.peak, self.held + after.held),
            advice=tuple(dict.fromkeys([*self.advice, *after.advice])),
        )

    def less(self, before: Work) -> Work:
        """Return what was added to `before`, which is the beginning of this."""
        return replace(
            self,
            forwards=self.forwards - before.forwards,
            hooked=self.hooked[len(before.hooked) :],
            held=self.held - before.held,
        )


NOTHING = Work()


def total(works: Iterable[Work]) -> Work:
    """Return works done one after the other."""
    found = NOTHING
    for work in works:
        found = found + work
    return found


@dataclass(frozen=True)
class Sizes:
    """The shape of a model's layers, as far as it costs.

    Attributes
    ----------
    layer
        Operations of a layer's products for one row.
    pair
        Operations of attention for one query and one key, over all heads.
    unembed
        Operations of the logits of one row.
    layer_bytes, unembed_bytes
        Bytes of weights that a layer's products and the logits read.
    element
        Bytes of one number.
    kept
        Numbers that a base run keeps of one position and layer, and `kept_end` of one position after the last layer.
    """

    depth: int
    width: int
    heads: int
    kv_heads: int
    d_head: int
    d_mlp: int
    gated: bool
    vocabulary: int
    layer: int
    pair: int
    unembed: int
    layer_bytes: int
    unembed_bytes: int
    element: int

    @classmethod
    def of(cls, net: Network) -> Sizes:
        """Return the sizes of a network; those of a layer are the mean over layers."""
        depth, width = len(net.layers), net.unembed.weight.shape[1]
        attention = (net.n_heads + net.n_kv_heads) * 2 * width * net.d_head
        mlps = 0
        for block in net.stored:
            gates = 2 + (block.gate is not None)
            mlps += _routed(block.experts) if block.experts is not None else gates * width * len(block.up.weight)
        products, element = attention + mlps // depth, net.unembed.weight.element_size()
        vocabulary = net.unembed.weight.shape[0]
        return cls(
            depth=depth,
            width=width,
            heads=net.n_heads,
            kv_heads=net.n_kv_heads,
            d_head=net.d_head,
            d_mlp=net.d_mlp,
            gated=net.stored[0].gate is not None,
            vocabulary=vocabulary,
            layer=2 * products,
            pair=4 * net.n_heads * net.d_head,
            unembed=2 * width * vocabulary,
            layer_bytes=products * element,
            unembed_bytes=width * vocabulary * element,
            element=element,
        )

    @classmethod
    def guessed(cls, model: LoadedModel) -> Sizes:
        """Return the sizes of a model whose forward is not known here, by its shape and the size of its weights."""
        g = model.geometry
        parameters = list(model.hf_model.parameters())
        element = parameters[0].element_size()
        matrices = sum(p.numel() for p in parameters if p.dim() == 2 and g.d_vocab not in p.shape)
        layer = matrices // g.n_layers
        return cls(
            depth=g.n_layers,
            width=g.d_model,
            heads=g.n_heads,
            kv_heads=g.n_kv_heads,
            d_head=g.d_head,
            d_mlp=model.neurons() or 4 * g.d_model,
            gated=False,
            vocabulary=g.d_vocab_out,
            layer=2 * layer,
            pair=4 * g.n_heads * g.d_head,
            unembed=2 * g.d_model * g.d_vocab_out,
            layer_bytes=layer * element,
            unembed_bytes=g.d_model * g.d_vocab_out * element,
            element=element,
        )

    @property
    def kept(self) -> int:
        """Bytes that a base run keeps of one position."""
        stream = (2 * self.depth + 1) * self.width
        return self.element * (stream + self.depth * 2 * (self.heads + self.kv_heads) * self.d_head)

    @property
    def hidden(self) -> int:
        """Numbers between a layer's products that one row has at a time, at the most."""
        attention = 4 * self.width + (3 * self.heads + 2 * self.kv_heads) * self.d_head
        return max(attention, 5 * self.width + (1 + self.gated) * self.d_mlp)


def _routed(experts: object) -> int:
    """Return how many weights one row meets in routed experts: those of as many as are chosen, and the router's."""
    module = getattr(experts, "module", experts)
    parameters = list(module.parameters()) if hasattr(module, "parameters") else []  # pyright: ignore
    whole = sum(p.numel() for p in parameters)
    count = int(getattr(module, "num_experts", 0) or getattr(getattr(module, "gate", None), "num_experts", 0) or 1)
    chosen = int(getattr(module, "top_k", 0) or getattr(getattr(module, "gate", None), "top_k", 0) or 1)
    return whole * chosen // max(1, count)


class Stored:
    """The store as it is, and as it will be: which plain runs there are, so that each is counted once.

    Attributes
    ----------
    work
        The forwards of those that were not there.
    """

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.work = NOTHING
        operation = model.operation
        self._keeps = operation is None or not (operation.altered or operation.random)
        self._new: set[tuple[tuple[int, ...], str]] = set()

    def plain(self, ids: tuple[int, ...], *names: str) -> None:
        """Ask for activations of a plain run, as `LoadedModel.activations_of` does."""
        if self._keeps:
            missing = [n for n in names if (ids, n) not in self._new and not self.model.holds(ids, [n])]
            if not missing:
                return
            self._new.update((ids, name) for name in (*missing, "last_logits"))
        g, element = self.model.geometry, 4
        sites = {"logits": len(ids) * g.d_vocab_out, "last_logits": 0}
        kept = element * sum(sites.get(name, len(ids) * g.d_model) for name in names)
        self.work = self.work + Work(
            calls=putting(self.model, len(names) + 1) * self._keeps,
            forwards=1,
            hooked=(Hooked(1, len(ids), places=len(names)),),
            held=(kept + element * g.d_vocab_out) * self._keeps,
            peak=kept + passing(self.model, len(ids)),
        )


def putting(model: LoadedModel, count: int) -> int:
    """Return how many small operations putting `count` tensors into the store is worth: its sums are taken anew."""
    return count * (30 + model.store.ledger().entries)


def passing(model: LoadedModel, rows: int, *, last_only: bool = False) -> int:
    """Return the bytes that the model's own forward has in use at a time."""
    g = model.geometry
    logits = g.d_vocab_out * (1 if last_only and model.keeps_logits else rows)
    return 4 * (rows * (8 * g.d_model + 2 * (model.neurons() or 4 * g.d_model)) + logits)


def one_batch(model: LoadedModel, rows: int, places: int, *, last_only: bool = True) -> Work:
    """Return the work of one hooked forward that writes to `places` activations; `rows` are over all its prompts."""
    return Work(
        forwards=1,
        hooked=(Hooked(1, rows, places=places),),
        peak=passing(model, rows, last_only=last_only),
        advice=("fewer pairs (--n)", "some layers (--layer)"),
    )
