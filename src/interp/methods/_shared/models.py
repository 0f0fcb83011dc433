"""What techniques ask of a model: where it answers, that it is causal, and its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from interp.engine.model.hooks import Hook
    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded
    from interp.engine.transformer.network import Network


def logits_of(model: LoadedModel, encoded: Encoded, functions: Mapping[str, Hook] | None = None) -> Tensor:
    """Return the logits of the position that is predicted, ``[d_vocab]``; with `functions`, of a run with them."""
    from interp.engine.model.each import activations

    if model.geometry.causal:
        return activations(model, encoded, ["last_logits"], functions)["last_logits"][0]
    return activations(model, encoded, ["logits"], functions)["logits"][0, predicted(model, encoded)]


def predicted(model: LoadedModel, encoded: Encoded) -> int:
    """Return the position whose logits answer a prompt: the last, or the one mask of a bidirectional model.

    Raises
    ------
    InputError
        A bidirectional model and a prompt without exactly one mask token.
    """
    if model.geometry.causal:
        return len(encoded.ids) - 1
    mask = getattr(model.tokens.tokenizer, "mask_token_id", None)
    places = [n for n, index in enumerate(encoded.ids) if index == mask]
    if len(places) != 1:
        name = getattr(model.tokens.tokenizer, "mask_token", None)
        if name is None:
            raise InputError(f"{model.name} reads in both directions and has no mask token: it answers no prompt")
        raise InputError(
            f"{model.name} reads in both directions: put one {name} where the word is missing ({len(places)} found)"
        )
    return places[0]


def likeliest_of_both(model: LoadedModel, before: Tensor, after: Tensor, top: int) -> list[tuple[str, float, float]]:
    """Return the `top` tokens of both, ``[d_vocab]``, with both probabilities, the likeliest afterwards first."""
    ids: set[int] = {
        *before.topk(min(top, len(before))).indices.tolist(),
        *after.topk(min(top, len(after))).indices.tolist(),
    }
    order = sorted(ids, key=lambda index: (-float(after[index]), -float(before[index])))
    return [(model.tokens.string(index), float(before[index]), float(after[index])) for index in order]


def require_causal(model: LoadedModel, what: str) -> None:
    """Refuse a bidirectional model.

    Raises
    ------
    InputError
        It reads in both directions.
    """
    if not model.geometry.causal:
        raise InputError(
            f"{model.name} reads in both directions, and {what} is for causal models: load one, or use "
            "%interp attention"
        )


def require_shape(model: LoadedModel, other: LoadedModel) -> None:
    """Refuse another model that is of another shape.

    Raises
    ------
    InputError
        Its layers, heads or width are others.
    """
    ours, theirs = ((of.n_layers, of.n_heads, of.n_kv_heads, of.d_model) for of in (model.geometry, other.geometry))
    if ours != theirs:
        raise InputError(f"{other.name} is not of the shape of {model.name}: its activations do not fit")


def way(model: LoadedModel) -> str:
    """Return how sweeps of `model` as it is now are computed: without hooks, and from where, or with hooks and why."""
    from interp.engine import exactness
    from interp.engine.transformer import network

    try:
        network.read(model, half=True, encoders=())
    except exactness.Unreadable as error:
        return f"with hooks: {error}"
    where = "" if model.streamed is None else model.streamed.where
    return f"without hooks, {where}" if where else "without hooks"


def opened(model: LoadedModel, what: str) -> Network:
    """Return the weights of `model` for `what` is computed from them alone.

    Raises
    ------
    InputError
        They are not of a known layout.
    """
    from interp.engine import exactness
    from interp.engine.transformer import network

    require_causal(model, what)
    try:
        return network.weights(model)
    except exactness.Unreadable as error:
        kind = getattr(getattr(model.hf_model, "config", None), "model_type", "") or type(model.hf_model).__name__
        raise InputError(
            f"{what} is read off the weights of a model whose blocks are known; {model.name} is {kind}, and {error}: "
            "use %interp attention"
        ) from None
