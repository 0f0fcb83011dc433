"""What every head does on repeated random tokens: where it looks, and what it does to the token that recurs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.spec import InputError, Prompt, Site

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformer_lens.hook_points import HookPoint

    from interp.engine.hooks import Hook
    from interp.engine.model import LoadedModel
    from interp.engine.network import Network

    Float = NDArray[np.float64]
    # (layer, pattern [n, head, query, key], z [n, position, head, d_head])
    See = Callable[[int, Tensor, Tensor], None]

LENGTH = 50
_LEAST = 3  # tokens that are worth repeating
_ROWS = 1024  # of logits at once


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
    notes
        What is worth knowing.
    """

    each: Mapping[str, Float]
    chance: Mapping[str, Float]
    losses: tuple[float, float] = (float("nan"), float("nan"))
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompts:
    """Prompts of random tokens, and the positions that count in them.

    Attributes
    ----------
    ids
        ``int64 [n, position]``.
    length
        How many tokens are random; they stand there `copies` times.
    front
        How many tokens the tokenizer puts in front.
    """

    ids: Tensor
    length: int
    front: int

    @property
    def once(self) -> Tensor:
        """The queries that have another token of the text before them."""
        import torch

        last = self.ids.shape[1] - 1 if self.ids.shape[1] > self.front + 2 * self.length else self.ids.shape[1]
        return torch.arange(self.front + 1, min(last, self.front + 2 * self.length))

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
    known = model.geometry.d_vocab if tokenizer is None else min(model.geometry.d_vocab, len(tokenizer))
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
        return [tokens.tokenizer.cls_token_id], [tokens.tokenizer.sep_token_id]
    return ([tokens.bos_id] if tokens.default_bos and tokens.bos_id is not None else []), []


def score(model: LoadedModel, n: int, seed: int) -> Scored:
    """Run `n` prompts of random tokens, each twice in a row, and score every head.

    Raises
    ------
    InputError
        A context window or a vocabulary that is too small.
    """
    from interp.engine import network, weights

    causal = model.geometry.causal
    prompts = draw(model, n, seed)
    notes: list[str] = []
    if prompts.length < LENGTH:
        notes.append(f"{prompts.length} random tokens are repeated, not {LENGTH}: there is no room for more")
    net: Network | None = None
    try:
        net = network.weights(model)
    except network.Unreadable as error:
        notes.append(f"without copying and anti-induction, which need weights of a known layout: {error}")
    directions = None if net is None else weights.unembedding(net)[prompts.ids[:, prompts.repeat - prompts.length + 1]]
    parts: dict[str, list[Float]] = {}

    def keep(name: str, values: Tensor) -> None:
        parts.setdefault(name, []).append(values.double().cpu().numpy())

    def see(layer: int, pattern: Tensor, z: Tensor) -> None:
        for name, (queries, keys) in _looked_at(prompts).items():
            keep(name, pattern[:, :, queries, keys].float().mean(-1))
        if causal:
            keep("position_only", explained(pattern[:, :, prompts.first, : prompts.first.stop], prompts.front + 1))
        if net is not None and directions is not None:
            written = z[:, prompts.repeat].float().reshape(n, prompts.length, net.n_heads, net.d_head)
            keep("effect", weights.along(net, net.layers[layer], written, directions))

    end, losses = watch(model, prompts.ids, see, losses=True)
    if not causal:  # a query would see what is repeated behind it
        alone = draw(model, n, seed, copies=1)

        def see_alone(layer: int, pattern: Tensor, z: Tensor) -> None:  # noqa: ARG001
            keep("position_only", explained(pattern[:, :, alone.first], None))

        watch(model, alone.ids, see_alone)
    each = {name: np.stack(values, axis=1) for name, values in parts.items()}
    shape = (model.geometry.n_layers, model.geometry.n_heads)
    chance = {name: np.full(shape, value) for name, value in _chance(prompts, causal).items()}
    chance["position_only"] = np.zeros(shape)
    if net is not None and end is not None:
        sizes = weights.size(net.final, end[:, prompts.repeat].float()).double().cpu().numpy()
        effect = each.pop("effect") / sizes[:, None, :, None]  # [draw, layer, position, head]
        each["anti_induction"], chance["anti_induction"] = -effect.mean(2), np.zeros(shape)
        each["copying"], spread = _copying(model, net, n, seed)
        chance["copying"] = np.zeros(shape)
        notes.append(f"copying is one number of the weights; with shuffled output tokens its sd over heads is {spread}")
    return Scored(each, chance, _losses(prompts, losses), tuple(notes))


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


def _copying(model: LoadedModel, net: Network, n: int, seed: int) -> tuple[Float, str]:
    import torch

    from interp.engine import weights

    values = weights.copying(model, net).cpu().numpy()
    shuffled = weights.copying(model, net, torch.Generator().manual_seed(seed)).cpu().numpy()
    return np.broadcast_to(values, (n, *values.shape)), f"{shuffled.std():.2f}"


def _losses(prompts: Prompts, losses: Tensor | None) -> tuple[float, float]:
    """Return the mean loss on the first copy and on the repeat, of ``[n, position - 1]``: the loss on the next token.

    The first token of the repeat is not counted: nothing tells that the repeat begins.
    """
    if losses is None:
        return float("nan"), float("nan")
    start = prompts.front + prompts.length
    first = losses[:, prompts.front : start - 1]
    return float(first.mean()), float(losses[:, start : start + prompts.length - 1].mean())


def watch(model: LoadedModel, ids: Tensor, see: See, *, losses: bool = False) -> tuple[Tensor | None, Tensor | None]:
    """Run prompts and show `see` every layer's patterns and z.

    Parameters
    ----------
    ids
        ``int64 [n, position]``.

    Returns
    -------
    tuple
        The residual stream at the end, ``[n, position, d_model]``, and, where `losses` are asked for, the loss on each
        next token, ``[n, position - 1]``; ``None`` where the model has no such thing.
    """
    import torch

    from interp.engine import network
    from interp.engine.forward import forward

    reason = ""
    try:
        net = network.read(model)
    except network.Unreadable as error:
        net, reason = None, str(error)
    if net is None:
        return _hooked(model, ids, see, reason, losses)
    patterns: dict[int, Tensor] = {}

    def seen(layer: int, z: Tensor) -> None:
        see(layer, patterns.pop(layer), z)
        model.on_step(layer + 1, model.geometry.n_layers)

    with torch.no_grad():
        end = forward(net, ids, {"pattern": patterns.__setitem__, "z": seen})
        found = _of_end(net, end, ids) if losses and not model.lacks_head else None
    model.count(len(ids))
    model.note("replay")
    return end, found


def _of_end(net: Network, end: Tensor, ids: Tensor) -> Tensor:
    rows, targets = net.final(end[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
    parts = zip(rows.split(_ROWS), targets.split(_ROWS), strict=True)
    return _loss_of_parts([(net.unembed(part), wanted) for part, wanted in parts], ids)


def _loss_of_parts(parts: list[tuple[Tensor, Tensor]], ids: Tensor) -> Tensor:
    import torch
    from torch.nn import functional

    losses = [functional.cross_entropy(logits.float(), wanted, reduction="none") for logits, wanted in parts]
    return torch.cat(losses).view(len(ids), -1)


def _hooked(
    model: LoadedModel, ids: Tensor, see: See, reason: str, losses: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Do the same through the bridge's own forward."""
    arrived: dict[int, dict[str, Tensor]] = {}
    ends: list[Tensor] = []
    last = model.geometry.n_layers - 1

    def arrive(layer: int, part: str) -> Hook:
        def hook(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            held = arrived.setdefault(layer, {})
            held[part] = tensor.detach()
            if len(held) == 2:  # whichever comes first
                both = arrived.pop(layer)
                see(layer, both["pattern"], both["z"])

        return hook

    def finish(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
        ends.append(tensor.detach())

    functions: dict[str, Hook] = {}
    for layer in range(last + 1):
        for part in ("pattern", "z"):
            functions[Site(part, layer).hook_name] = arrive(layer, part)
    functions[Site("resid_post", last).hook_name] = finish
    predicts = losses and model.geometry.causal and not model.lacks_head
    logits = model.forward(ids.tolist(), functions, last_only=not predicts)
    model.note(f"hooked: {reason}")
    found = _loss_of_parts([(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())], ids) if predicts else None
    return (ends[0] if ends else None), found
