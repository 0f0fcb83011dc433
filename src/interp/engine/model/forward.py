"""One forward of the bridge with functions on its hooks, and whether it fits into memory before it is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from interp.engine import memory
from interp.engine.model import hooks
from interp.engine.model.carried import Carried
from interp.engine.model.handle import Geometry, Handle
from interp.errors import InputError, closest
from interp.ids import types_of
from interp.sites import of_hook

LAST_LOGITS = "last_logits"
LOGITS = "logits"

# Hook points that the bridge computes only on demand, and the switch for each.
_SWITCHES = {
    "attn.hook_result": "use_attn_result",
    "attn.hook_q_input": "use_split_qkv_input",
    "attn.hook_k_input": "use_split_qkv_input",
    "attn.hook_v_input": "use_split_qkv_input",
    "attn.hook_attn_in": "use_attn_in",
    "hook_mlp_in": "use_hook_mlp_in",
}


def forward(
    model: Handle,
    prompts: Sequence[Sequence[int]],
    functions: Mapping[str, hooks.Hook],
    *,
    last_only: bool = False,
    gradients: bool = False,
    past: Any = None,
    first: Mapping[str, hooks.Hook] | None = None,
) -> Tensor:
    """Run prompts of one length with functions on hooks; see `LoadedModel.forward`.

    The one place where ids become a forward, and so the one where their types do. Functions that are `first` have
    changed an activation before any other is given it.

    Returns
    -------
    Tensor
        Logits, ``[prompt, position, d_vocab]``; of the last position alone where `last_only` and the library can.
    """
    bridge = model.bridge
    types = [types_of(prompt) for prompt in prompts]
    named = [*({} if first is None else first).items(), *functions.items()]
    here = [(hook_point(model, name), _where_rows_are(model, function)) for name, function in named]
    points = [*_uses(model), *here]
    batch = torch.tensor([list(prompt) for prompt in prompts], device=model.device)
    options: dict[str, Any] = {}
    if any(types):
        rows = [row or (0,) * len(prompt) for row, prompt in zip(types, prompts, strict=True)]
        options["token_type_ids"] = torch.tensor(rows, device=model.device)
    if last_only and model.keeps_logits:
        options["logits_to_keep"] = 1
    if past is not None:
        options |= {"past_key_values": past, "use_cache": True}
    before = {
        switch: bool(getattr(bridge.cfg, switch, False)) for switch in switches(model, [name for name, _ in named])
    }

    def turn(values: Mapping[str, bool]) -> None:
        for switch, value in values.items():
            getattr(bridge, f"set_{switch}")(value)

    def tidy() -> None:
        turn(before)
        if model.streamed is not None:
            model.streamed.leave()
        # transformer-lens keeps each layer's last pattern in an attribute that nothing reads.
        for block in getattr(bridge, "blocks", ()):
            kept = vars(getattr(block, "attn", block))
            if isinstance(kept.get("_pattern"), Tensor):
                kept["_pattern"] = None

    def run() -> Any:
        logits = bridge.forward(batch, return_type="logits", **options)
        return logits.to(model.device) if isinstance(logits, Tensor) else logits  # pyright: ignore

    return hooks.run_hooked(
        points,
        run,
        before=lambda: turn(dict.fromkeys(before, True)),
        after=tidy,
        gradients=gradients,
    )


def _uses(model: Handle) -> list[tuple[HookPoint, hooks.Hook]]:
    """Return what tells weights that stay in their files which layer is used next."""
    weights = model.streamed
    if weights is None:
        return []

    def use(layer: int) -> hooks.Hook:
        def come(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            weights.enter(layer)

        return come

    return [(block.hook_in, use(layer)) for layer, block in enumerate(model.bridge.blocks)]


def _where_rows_are(model: Handle, function: hooks.Hook) -> hooks.Hook:
    """Return a hook's function as it is called with activations on the model's device, wherever their layer is."""
    if not (isinstance(model.streamed, Carried) and model.streamed.by_rows):
        return function

    def moved(tensor: Tensor, hook: HookPoint) -> Tensor | None:
        here = tensor.to(model.device)
        version = here._version
        changed = function(here, hook)
        if changed is None:
            return None if here._version == version else here.to(tensor.device)
        return changed.to(tensor.device)

    return moved


def capture(
    model: Handle, ids: Sequence[int], sites: Sequence[str], first: Mapping[str, hooks.Hook] | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Return copies of activations of a run, and its logits: all positions' where ``"logits"`` is a site.

    The run is a plain one but for functions that are `first`, see `forward`.

    Raises
    ------
    InputError
        A site that this model lacks, or a run that cannot fit into memory.
    """
    names = [site for site in sites if site not in {LOGITS, LAST_LOGITS}]
    for name in names:
        hook_point(model, name)
    _refuse_what_cannot_fit(model, len(ids), sites)
    held: dict[str, Tensor] = {}

    def keep(name: str) -> hooks.Hook:
        def hook(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            # A copy: modules further on may write in place, and a view would keep all heads' storage.
            held[name] = tensor.detach().clone()

        return hook

    logits = forward(model, [ids], {name: keep(name) for name in names}, last_only=LOGITS not in sites, first=first)
    for name in names:
        require_fired(model, name, held)
    return held, logits


def require_fired(model: Handle, name: str, held: Mapping[str, Tensor]) -> None:
    """Refuse an activation that a run has gone past.

    Raises
    ------
    InputError
        `held` lacks it.
    """
    if name not in held:
        raise InputError(f"{name} does not fire in {model.name}; this model has no such activation")


def switches(model: Handle, names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    """Return the bridge's switches that must be on for the hooks `names` to fire."""
    # By the point's own name: blocks.0.hook_q_input is another name of blocks.0.attn.hook_q_input.
    points = [str(hook_point(model, name).name) for name in names]
    return sorted({switch for name in points for suffix, switch in _SWITCHES.items() if name.endswith(suffix)})


def hook_point(model: Handle, name: str) -> HookPoint:
    """Return the bridge's hook point of that name.

    Raises
    ------
    InputError
        There is none; the closest name is told.
    """
    point = model.bridge.hook_dict.get(name)
    if point is not None:
        return point
    parts = name.split(".")
    if parts[0] == "blocks" and len(parts) > 1 and parts[1].isdigit() and int(parts[1]) >= model.geometry.n_layers:
        raise InputError(f"no layer {parts[1]}; layers are 0–{model.geometry.n_layers - 1}")
    if site := of_hook(name):  # what is missing is a kind of layer, not a better spelling
        model.require_site(site[0].name, [site[1]])
    raise InputError(f"{model.name} has no hook {name!r}{closest(name, model.hook_names)}")


def _refuse_what_cannot_fit(model: Handle, length: int, sites: Sequence[str]) -> None:
    element = next(model.hf_model.parameters()).element_size()

    def needed(tokens: int) -> int:
        return element * numbers_of(model.geometry, tokens, sites)

    free = memory.free_bytes(model.device)
    if needed(length) <= free:
        return
    fits = length
    while fits > 1 and needed(fits) > free:
        fits -= max(1, fits // 50)
    raise InputError(
        f"this needs {memory.readable(needed(length))} for {length} tokens and {memory.readable(free)} is free on "
        f"{model.device}; about {fits} tokens fit, or choose fewer layers"
    )


def numbers_of(g: Geometry, length: int, sites: Sequence[str]) -> int:
    """Return how many numbers the captured sites at `length` tokens and the largest layer's own work take.

    Examples
    --------
    >>> g = Geometry(n_layers=2, n_heads=4, n_kv_heads=4, d_model=32, d_head=8, d_vocab=100, n_ctx=64, causal=True)
    >>> numbers_of(g, 10, []), numbers_of(g, 10, ["blocks.0.attn.hook_pattern", "logits"])
    (1200, 2600)
    """
    per_site = {
        "hook_pattern": g.n_heads * length,
        "hook_attn_scores": g.n_heads * length,
        "hook_result": g.n_heads * g.d_model,
    }
    total = length * length * g.n_heads * 3  # scores, masked scores and weights of the layer being computed
    for site in sites:
        if site == LOGITS:
            total += length * g.d_vocab_out
        elif site != LAST_LOGITS:
            total += length * per_site.get(site.rpartition(".")[2], g.d_model)
    return total
