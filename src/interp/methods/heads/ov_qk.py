"""One head's circuits over the vocabulary: what it moves (OV) and what it looks for (QK)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from interp.errors import InputError
from interp.interface.registry import technique
from interp.methods._shared import answers, names
from interp.methods._shared.models import opened
from interp.results import Result, resolve
from interp.results.tables import frame_of, lines_of
from interp.spec import Examples, HeadName, Prompt, as_answers

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.readouts.ov_qk import Circuit
    from interp.engine.transformer.network import Network
    from interp.results.tables import Float

Listed = tuple[tuple[str, int, float], ...]  # (token, id, value) …

_FOLDED = "the gains of the norms are folded in; what a norm divides by, biases and positions are left out"
_OTHER = "input and output tokens are not the same ones: the circuit has no eigenvalues, and no score"
_NORMED = "queries and keys are normed as in the model: scores of the token embeddings themselves"


@dataclass(frozen=True)
class Row:
    """One token's row of a circuit: the largest and the smallest entries, each (token, id, value).

    `spread` is the standard deviation of the whole row.
    """

    token: str
    id: int
    spread: float
    top: Listed
    bottom: Listed


@dataclass(frozen=True)
class Direction:
    """A pair of singular vectors, by their largest and smallest entries: of the source tokens and of the targets."""

    value: float
    source_top: Listed
    source_bottom: Listed
    target_top: Listed
    target_bottom: Listed


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class OVQKResult(Result):
    """A head's circuit over the vocabulary.

    Attributes
    ----------
    kind
        ``"ov"``: a row per source token that is attended to, a column per token whose logit it moves. ``"qk"``: a row
        per query token, a column per key token.
    head
        ``"5.1"``.
    offset
        How far the query stands after the key, for rotary positions; 0 is the content alone.
    rows
        The tokens that were given, or those whose rows spread widest.
    matrix
        ``float64 [row, column]`` among the tokens that were given, rows and columns alike; ``None`` where none were.
    positivity
        Σλ/Σ|λ| of the whole circuit: for OV the copying score, for QK how far tokens look for their own like.
    directions
        The strongest singular directions of the whole circuit, where asked for.
    vectors
        ``float32 [direction, d_model]``: what the head writes to the residual stream for each direction's source, of
        unit length, as `interp.steer` takes it; none for QK, which writes nothing.
    """

    kind: str
    head: str
    offset: int
    rows: tuple[Row, ...]
    matrix: Float | None
    positivity: float
    directions: tuple[Direction, ...] = ()
    vectors: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    _html: ClassVar[str] = "interp.views.circuits:html"
    _svg: ClassVar[str | None] = "interp.views.circuits:svg"

    def summary(self) -> str:
        """Return the head and how positive its eigenvalues are."""
        score = "copying" if self.kind == "ov" else "matching"
        return f"{self.provenance.model}: {self.kind.upper()} of {self.head}, {score} {self.positivity:+.2f}"

    def _lines(self) -> list[str]:
        visible = resolve("interp.views.kit.text:visible")
        rows = [
            (visible(row.token), visible(row.top[0][0]), row.top[0][2], visible(row.bottom[0][0]), row.bottom[0][2])
            for row in self.rows[:8]
            if row.top and row.bottom
        ]
        ends = ("source", "most raised", "most lowered") if self.kind == "ov" else ("query", "best key", "worst key")
        return lines_of((ends[0], ends[1], "", ends[2], ""), rows)

    def to_frame(self) -> pd.DataFrame:
        """Return one line per listed entry: the row's token and id, the column's, and the value."""
        lines = [
            (row.token, row.id, token, index, value)
            for row in self.rows
            for listed in (row.top, row.bottom)
            for token, index, value in listed
        ]
        first, second = ("source", "target") if self.kind == "ov" else ("query", "key")
        return frame_of(lines, columns=[first, f"{first}_id", second, f"{second}_id", "value"])


@technique(body=None)
def ov(
    model: LoadedModel, head: HeadName, *, tokens: Examples | None = None, top: int = 10, svd: int = 0
) -> OVQKResult:
    """A head's OV circuit, W_E W_V W_O W_U: attending to a token, which tokens' logits does it raise and lower?

    Parameters
    ----------
    head
        Layer and number, such as 5.1.
    tokens
        Source tokens with commas between them, spaces counting, such as " Mary, John"; the ones that it moves most when
        not given.
    top
        How many tokens to list for each, and how many sources where none are given.
    svd
        How many singular directions of the whole circuit to read as tokens.

    Returns
    -------
    OVQKResult
        Values are logits over the mean logit, for a residual stream of size 1: they compare within a head.

    Raises
    ------
    InputError
        No such head, a text that is not one token, or a model whose weights are not of a known layout.

    Notes
    -----
    Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits". The first norm's gain is folded into W_V,
    the final one's into W_U, which is centred over the vocabulary. Nothing of the size vocab² is held.

    Examples
    --------
    >>> interp.ov("1.0", tokens=" Mary, John").rows[0].top[0][0]
    ' Mary'
    """
    from interp.engine.readouts import ov_qk

    layer, number, net = _opened(model, head, top, svd)
    with ov_qk.unmixed(model.device):
        circuit = ov_qk.ov(net, layer, number)
        writes = ov_qk.heads(net, net.layers[layer]).o[number]
        return _result(model, circuit, "ov", f"{layer}.{number}", 0, tokens, top, svd, writes=writes)


@technique(body=None)
def qk(
    model: LoadedModel, head: HeadName, *, tokens: Examples | None = None, top: int = 10, svd: int = 0, offset: int = 0
) -> OVQKResult:
    """A head's QK circuit, W_E W_Q W_Kᵀ W_Eᵀ: for a query token, which key tokens does it look for?

    Parameters
    ----------
    head
        Layer and number, such as 5.1.
    tokens
        Query tokens with commas between them, spaces counting, such as " Mary, John"; those that tell keys apart most
        when not given.
    top
        How many keys to list for each, and how many queries where none are given.
    svd
        How many singular directions of the whole circuit to read as tokens.
    offset
        How many tokens the query stands after the key, for rotary positions.

    Returns
    -------
    OVQKResult
        Values are scores before scaling, for residual streams of size 1: they compare within a head.

    Raises
    ------
    InputError
        No such head, a text that is not one token, an offset that the model has no use for, or a model whose weights
        are not of a known layout.

    Notes
    -----
    Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits". The first norm's gain is folded into W_Q
    and W_K. Where queries and keys have norms of their own, as in Qwen3, every token's are normed, so that the values
    are the scores of token embeddings themselves. With rotary positions the circuit depends on the distance, `offset`;
    0 is the content alone.

    Examples
    --------
    >>> interp.qk("1.0", tokens=" Mary, John").matrix.shape
    (2, 2)
    """
    from interp.engine.readouts import ov_qk

    layer, number, net = _opened(model, head, top, svd)
    if offset and net.rotations(1)[layer] is None:
        raise InputError(
            f"{model.name} has no rotary positions in layer {layer}: its QK circuit is the same at any offset; "
            "leave it out"
        )
    if not 0 <= offset < model.geometry.n_ctx:
        raise InputError(f"offset {offset} is outside the context window; use 0–{model.geometry.n_ctx - 1}")
    normed = net.stored[layer].q_norm is not None
    with ov_qk.unmixed(model.device):
        circuit = ov_qk.qk(net, layer, number, offset)
        return _result(model, circuit, "qk", f"{layer}.{number}", offset, tokens, top, svd, normed=normed)


def _opened(model: LoadedModel, head: str, top: int, svd: int) -> tuple[int, int, Network]:
    named = names.heads(head, model.geometry, "HEAD")
    if len(named) != 1:
        raise InputError(f"one head at a time: {head!r} names {len(named)}")
    width = model.geometry.d_head
    if not 1 <= top <= model.geometry.d_vocab:
        raise InputError(f"--top {top} lists nothing; use 1–{model.geometry.d_vocab}")
    if not 0 <= svd <= width:
        raise InputError(f"--svd {svd}: the circuit has {width} singular directions; use 0–{width}")
    return named[0].layer, named[0].head, opened(model, "a circuit")


def _result(
    model: LoadedModel,
    circuit: Circuit,
    kind: str,
    head: str,
    offset: int,
    tokens: Examples | None,
    top: int,
    svd: int,
    *,
    normed: bool = False,
    writes: Tensor | None = None,
) -> OVQKResult:
    """Return the circuit's rows, matrix and directions; `writes` is a head's W_O, ``[d_head, d_model]``."""
    import torch
    from torch.nn import functional

    from interp.engine.readouts import ov_qk

    spreads = circuit.spreads()
    device = spreads.device
    given = None if tokens is None else torch.tensor(_ids(model, tokens), device=device)
    chosen = spreads.topk(min(top, len(spreads))).indices if given is None else given
    rows: list[Row] = []
    for index in chosen.tolist():
        entries = circuit.rows(torch.tensor([index], device=device))[0]
        rows.append(
            Row(
                model.tokens.string(index),
                index,
                float(spreads[index]),
                _listed(model, entries, top, largest=True),
                _listed(model, entries, top, largest=False),
            )
        )
    if given is not None and (far := given[given >= len(circuit.right)]).numel():
        raise InputError(f"{model.name} has no logit for {model.tokens.string(int(far[0]))!r}: name other --tokens")
    matrix = None if given is None else circuit.rows(given)[:, given].double().cpu().numpy()
    found = circuit.svd() if svd else None
    vectors = np.zeros((0, model.geometry.d_model), np.float32)
    if found is not None and writes is not None:
        written = found[0][:, :svd].T @ circuit.left @ writes
        vectors = functional.normalize(written.float(), dim=-1).cpu().numpy()
    return OVQKResult(
        kind=kind,
        head=head,
        offset=offset,
        rows=tuple(rows),
        matrix=matrix,
        positivity=float(ov_qk.positivity(circuit.eigenvalues)),
        directions=() if found is None else _directions(model, found, top, svd),
        vectors=vectors,
        notes=(_NORMED if normed else _FOLDED, *(() if circuit.square else (_OTHER,))),
    )


def _directions(
    model: LoadedModel, found: tuple[Tensor, Tensor, Tensor], top: int, count: int
) -> tuple[Direction, ...]:
    left, values, right = found
    return tuple(
        Direction(
            float(values[n]),
            _listed(model, left[:, n], top, largest=True),
            _listed(model, left[:, n], top, largest=False),
            _listed(model, right[:, n], top, largest=True),
            _listed(model, right[:, n], top, largest=False),
        )
        for n in range(min(count, len(values)))
    )


def _listed(model: LoadedModel, entries: Tensor, count: int, *, largest: bool) -> Listed:
    found = entries.topk(min(count, len(entries)), largest=largest)
    pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return tuple((model.tokens.string(index), index, value) for index, value in pairs)


def _ids(model: LoadedModel, tokens: Examples) -> list[int]:
    """Return the ids of words with commas between them, or of words and ids in a list, each one token of a text."""
    listed = as_answers([w for w in tokens.split(",") if w] if isinstance(tokens, str) else tokens, "--tokens")
    if not listed:
        raise InputError('--tokens names nothing; type words with commas between them, such as "Mary,John"')
    return list(answers.tokens(model, Prompt("a"), listed, "--tokens"))
