"""What every head does on repeated random tokens: where it looks, and what it does to the token that recurs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.errors import InputError
from interp.methods._shared.heads.groups import over
from interp.methods._shared.heads.watched import watch
from interp.spec import Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.transformer.network import Network

    Float = NDArray[np.float64]

LENGTH = 50
_LEAST = 3  # tokens that are worth repeating
_TOGETHER = 512  # tokens that run together: what an interrupt loses


@dataclass(frozen=True)
class Scored:
    """Scores of every head.

    Attributes
    ----------
    each
        Score → ``float64 [draw, layer, head]``.
    chance
        Score → ``float64 [layer, head]``: what a head that knows nothing has.
    losses
        Mean loss on the first copy and on the repeat, in nats; NaN where the model predicts no next token.
    shuffled
        The standard deviation of ``copying`` over heads when the output tokens are shuffled; NaN without it.
    notes
        What is worth knowing.
    interrupt
        What stopped it before all that was asked for was run.
    """

    each: Mapping[str, Float]
    chance: Mapping[str, Float]
    losses: tuple[float, float] = (float("nan"), float("nan"))
    shuffled: float = float("nan")
    notes: tuple[str, ...] = ()
    interrupt: KeyboardInterrupt | None = None


@dataclass(frozen=True)
class Prompts:
    """Prompts of random tokens, and the positions that count in them.

    Attributes
    ----------
    ids
        ``int64 [n, position]``.
    length
        How many tokens are random; they stand there once or twice.
    front
        How many tokens the tokenizer puts in front.
    """

    ids: Tensor
    length: int
    front: int

    def of(self, some: slice) -> Prompts:
        """Return some of the prompts."""
        return replace(self, ids=self.ids[some])

    @property
    def once(self) -> Tensor:
        """The queries that have another token of the text before them."""
        import torch

        return torch.arange(self.front + 1, self.front + 2 * self.length)

    @property
    def repeat(self) -> Tensor:
        """The queries of the second copy."""
        import torch

        return torch.arange(self.front + self.length, self.front + 2 * self.length)

    @property
    def first(self) -> slice:
        """The queries of the first copy that have another token of the text before them."""
        return slice(self.front + 1, self.front + self.length)


def draw(model: LoadedModel, n: int, seed: int, copies: int = 2) -> Prompts:
    """Return `n` prompts, drawn from the seeds `seed`, `seed` + 1, …: different tokens, then the same again.

    Raises
    ------
    InputError
        A context window or a vocabulary that is too small.
    """
    import torch

    tokenizer: Any = model.tokens.tokenizer
    front, back = _ends(model)
    known = min(model.geometry.d_vocab, model.geometry.d_vocab_out)  # the loss asks for the next token's logit
    known = known if tokenizer is None else min(known, len(tokenizer))
    special: set[int] = set() if tokenizer is None else {*tokenizer.all_special_ids}
    allowed = np.array([index for index in range(known) if index not in special])
    length = min(LENGTH, (model.geometry.n_ctx - len(front) - len(back)) // 2, len(allowed))
    if length < _LEAST:
        raise InputError(
            f"{model.name} has room for {model.geometry.n_ctx} positions and {len(allowed)} tokens: too few to repeat "
            f"{_LEAST}; load a larger model"
        )
    drawn = [
        np.random.default_rng(seed + number).choice(allowed, length, replace=False).tolist() for number in range(n)
    ]
    prompts = [model.encode(Prompt(ids=(*front, *words * copies, *back))).ids for words in drawn]
    return Prompts(torch.tensor(prompts, device=model.device), length, len(front))


def _ends(model: LoadedModel) -> tuple[list[int], list[int]]:
    tokens = model.tokens
    if not model.geometry.causal and tokens.tokenizer is not None:
        start, end = tokens.tokenizer.cls_token_id, tokens.tokenizer.sep_token_id
        return [] if start is None else [start], [] if end is None else [end]
    return ([tokens.bos_id] if tokens.default_bos and tokens.bos_id is not None else []), []


def together(count: int, length: int) -> list[slice]:
    """Return which of `count` prompts of `length` tokens run together: some `_TOGETHER` tokens, never a prompt alone.

    Examples
    --------
    >>> together(10, 101), together(3, 1000)
    ([slice(0, 5, None), slice(5, 10, None)], [slice(0, 3, None)])
    """
    parts = max(1, min(count // 2, round(count * length / _TOGETHER)))
    return [slice(start, stop) for start, stop in pairwise(np.linspace(0, count, parts + 1).astype(int).tolist())]


def score(model: LoadedModel, n: int, seed: int) -> Scored:
    """Run `n` prompts of random tokens, each twice in a row, and score every head.

    An interrupt leaves the scores of the prompts that were run; before the first few there is nothing to leave.

    Raises
    ------
    InputError
        A context window or a vocabulary that is too small.
    """
    from interp.engine import exactness
    from interp.engine.transformer import network

    prompts = draw(model, n, seed)
    alone = None if model.geometry.causal else draw(model, n, seed, copies=1)
    notes: list[str] = []
    if prompts.length < LENGTH:
        notes.append(f"{prompts.length} random tokens are repeated, not {LENGTH}: there is no room for more")
    net: Network | None = None
    copying: Float | None = None
    shuffled = float("nan")
    try:
        read = network.weights(model)
        copying, shuffled = _copying(model, read, seed)
        net = read
        notes.append(
            f"copying is one number of the weights; with shuffled output tokens its sd over heads is {shuffled:.2f}"
        )
    except exactness.Unreadable as error:
        notes.append(f"without copying and anti-induction, which need weights of a known layout: {error}")
    parts: dict[int, Mapping[str, Float]] = {}
    interrupt: KeyboardInterrupt | None = None
    groups = together(n, prompts.ids.shape[1])
    once = [None if alone is None else alone.of(some) for some in groups]
    drawn = {"length": prompts.length, "front": prompts.front}
    asked = [
        {**drawn, "ids": prompts.ids[some], "alone": None if one is None else one.ids}
        for some, one in zip(groups, once, strict=True)
    ]

    def here(number: int) -> dict[str, Float]:
        return _scored(model, net, prompts.of(groups[number]), once[number], (number, len(groups)))

    try:
        over(model, "heads", asked, here, parts.__setitem__)
    except KeyboardInterrupt as stopped:
        if not parts:
            raise
        interrupt = stopped
        done = sum(groups[number].stop - groups[number].start for number in parts)
        notes.insert(0, f"partial: interrupted after {done} of {n} prompts")
    first = min(parts)
    each = {name: np.concatenate([parts[number][name] for number in sorted(parts)]) for name in parts[first]}
    losses = each.pop("losses", None)
    shape = each["induction"].shape
    chance = {name: np.full(shape[1:], value) for name, value in _chance(prompts, model.geometry.causal).items()}
    if copying is not None:
        each["copying"] = np.broadcast_to(copying, shape)
    chance |= {name: np.zeros(shape[1:]) for name in each if name not in chance}
    return Scored(each, chance, _losses(prompts, losses), shuffled, tuple(notes), interrupt)


def scored(
    models: Sequence[LoadedModel],
    step: Callable[[], None],  # noqa: ARG001
    *,
    ids: Tensor,
    length: int,
    front: int,
    alone: Tensor | None,
) -> dict[str, Float]:
    """Score a group of prompts, as a worker does."""
    from interp.engine import exactness
    from interp.engine.transformer import network

    (model,) = models
    net: Network | None = None
    with suppress(exactness.Unreadable):  # those scores that need it are left out, and the command says so
        net = network.weights(model)
    prompts, once = (None if each is None else Prompts(each.to(model.device), length, front) for each in (ids, alone))
    assert prompts is not None
    return _scored(model, net, prompts, once, (0, 1))


def _scored(
    model: LoadedModel, net: Network | None, prompts: Prompts, alone: Prompts | None, group: tuple[int, int]
) -> dict[str, Float]:
    """Return the scores of prompts that run together, ``float64 [prompt, layer, head]``, and their ``losses``.

    `alone` are the same tokens once, for a model that reads in both directions: a query would see what is repeated
    behind it.
    """
    from interp.engine.readouts import ov_qk

    n = len(prompts.ids)
    again = prompts.ids[:, prompts.repeat - prompts.length + 1]
    directions = None if net is None else ov_qk.unembedding(net, again)
    parts: dict[str, list[Float]] = {}

    def keep(name: str, values: Tensor) -> None:
        parts.setdefault(name, []).append(values.double().cpu().numpy())

    def see(layer: int, pattern: Tensor, z: Tensor) -> None:
        for name, (queries, keys) in _looked_at(prompts).items():
            keep(name, pattern[:, :, queries, keys].float().mean(-1))
        if alone is None:
            keep("position_only", explained(pattern[:, :, prompts.first, : prompts.first.stop], prompts.front + 1))
        if net is not None and directions is not None:
            written = z[:, prompts.repeat].float().reshape(n, prompts.length, net.n_heads, net.d_head)
            keep("effect", ov_qk.along(net, net.layers[layer], written, directions))

    def see_alone(layer: int, pattern: Tensor, z: Tensor) -> None:  # noqa: ARG001
        assert alone is not None
        keep("position_only", explained(pattern[:, :, alone.first], None))

    end, losses = watch(model, prompts.ids, see, losses=True, group=group)
    if alone is not None:
        watch(model, alone.ids, see_alone, group=group)
    each = {name: np.stack(values, axis=1) for name, values in parts.items()}
    if net is not None and end is not None:
        sizes = net.final.size(end[:, prompts.repeat].float()).double().cpu().numpy()
        each["anti_induction"] = -(each.pop("effect") / sizes[:, None, :, None]).mean(2)  # over positions
    if losses is not None:
        each["losses"] = losses.double().cpu().numpy()
    return each


def _looked_at(prompts: Prompts) -> dict[str, tuple[Tensor, Tensor]]:
    """Return score → the (query, key) pairs whose attention it is the mean of."""
    once, repeat, length = prompts.once, prompts.repeat, prompts.length
    return {
        "previous_token": (once, once - 1),
        "current_token": (once, once),
        # In the repeat, heads that look something up leave their resting place.
        "first_token": (once[: length - 1], once[: length - 1] * 0),
        "duplicate_token": (repeat, repeat - length),
        "induction": (repeat, repeat - length + 1),
    }


def _chance(prompts: Prompts, causal: bool) -> dict[str, float]:
    """Return what even attention over the visible keys gives."""
    visible = {
        name: queries + 1 if causal else queries * 0 + prompts.ids.shape[1]
        for name, (queries, _) in _looked_at(prompts).items()
    }
    return {name: float((1 / count).mean()) for name, count in visible.items()}


def explained(patterns: Tensor, start: int | None) -> Tensor:
    """Return how much of each pattern its position alone explains, ``[n, head]``: R², 1 all and 0 nothing.

    It is 1 − Σ(A − Ā)² / Σ(A − U)², where Ā is the mean over prompts of other tokens and U even attention; the first
    sum is scaled by n / (n − 1), so that a pattern that is all chance has 0. "Positional heads" are those of Voita et
    al. (2019), "Analyzing Multi-Head Self-Attention", who find them by one fixed offset; this allows any.

    Parameters
    ----------
    patterns
        ``[n, head, query, key]``, of at least two prompts.
    start
        The position of the first query, which sees the keys up to its own; ``None`` where every query sees all keys.

    Examples
    --------
    >>> import torch
    >>> explained(torch.eye(3).expand(4, 1, 3, 3), 0)[:, 0].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    import torch

    n, _, queries, keys = patterns.shape
    held = patterns.double()
    even = torch.full((queries, keys), 1 / keys, dtype=held.dtype, device=held.device)
    if start is not None:
        even = torch.ones_like(even).tril(start)
        even /= even.sum(-1, keepdim=True)
    rest = (held - held.mean(0)).square().sum((-2, -1)) * (n / (n - 1))
    total = (held - even).square().sum((-2, -1))
    # Even attention is the same whatever the tokens: position explains all of it.
    return torch.where(total > 1e-9 * queries, 1 - rest / total, torch.ones_like(total))


def _copying(model: LoadedModel, net: Network, seed: int) -> tuple[Float, float]:
    import torch

    from interp.engine.readouts import ov_qk

    with ov_qk.unmixed(model.device):
        values = ov_qk.copying(net).cpu().numpy()
        shuffled = ov_qk.copying(net, torch.Generator().manual_seed(seed)).cpu().numpy()
    return values, float(shuffled.std())


def _losses(prompts: Prompts, losses: Float | None) -> tuple[float, float]:
    """Return the mean loss on the first copy and on the repeat, of ``[n, position - 1]``: the loss on the next token.

    The first token of the repeat is not counted: nothing tells that the repeat begins.
    """
    if losses is None:
        return float("nan"), float("nan")
    start = prompts.front + prompts.length
    first = losses[:, prompts.front : start - 1]
    return float(first.mean()), float(losses[:, start : start + prompts.length - 1].mean())
