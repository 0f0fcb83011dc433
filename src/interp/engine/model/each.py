"""Activations of prompts one by one or those of one length together, as they are or with functions on hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from interp.engine import memory
from interp.engine.model.forward import LAST_LOGITS, LOGITS, numbers_of, require_fired
from interp.engine.model.hooks import Hook
from interp.errors import InputError

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.tokens import Encoded

Functions = Mapping[str, Hook]
Held = dict[str, Tensor]
_SHARE = 4  # of what is free, the part that the activations of one batch may take


def activations(model: LoadedModel, encoded: Encoded, sites: Sequence[str], functions: Functions | None = None) -> Held:
    """Return activations of one prompt as `LoadedModel.activations` does, of a run with `functions` on its hooks.

    With functions the store is left alone, and an activation is as they leave it.
    """
    if not functions:
        return model.activations(encoded, sites)
    return memory.retried(lambda: _together(model, [encoded], sites, functions)[0], model.device)


def each(
    model: LoadedModel,
    encoded: Sequence[Encoded],
    sites: Sequence[str],
    keep: Callable[[int, Held], None],
    functions: Sequence[Functions] = (),
    *,
    alone: bool = False,
) -> None:
    """Call `keep` with each prompt's number and its `activations`; prompts of one length are run together.

    As many are run together as leave room for what is captured, and fewer where memory runs out. Where functions of the
    user's are on the model, or it draws random numbers, each prompt is run alone, as a single one is.

    Parameters
    ----------
    functions
        Each prompt's; those of prompts of one length are the same. Empty for plain runs.
    alone
        Whether no two prompts may run together.
    """
    lengths: dict[int, list[int]] = {}
    for number, one in enumerate(encoded):
        lengths.setdefault(len(one.ids), []).append(number)
    operation = model.operation
    alone = alone or operation is None or bool(operation.user_hooks) or operation.random
    for length, numbers in sorted(lengths.items()):
        own = functions[numbers[0]] if functions else {}
        needed = model_bytes(model, length, sites)
        size = (
            1
            if alone
            else max(1, min(memory.ROWS // length, memory.free_bytes(model.device) // (_SHARE * max(1, needed))))
        )

        def some(chosen: Sequence[int], own: Functions = own) -> None:
            held: dict[int, Held] = {}
            left = list(chosen)
            if not own and not alone:
                known = {n: model.recall(encoded[n].ids, sites) for n in chosen}
                held = {n: found for n, found in known.items() if found is not None}
                left = [n for n in chosen if n not in held]
            if alone or len(left) == 1:
                held |= {n: activations(model, encoded[n], sites, own) for n in left}
            elif left:
                made = _together(model, [encoded[n] for n in left], sites, own)
                held |= dict(zip(left, made, strict=True))
                if not own:
                    for n, found in zip(left, made, strict=True):
                        model.keep(encoded[n].ids, found)
            for n in chosen:
                keep(n, held.pop(n))

        memory.halving(numbers, size, some, model.device)


def model_bytes(model: LoadedModel, length: int, sites: Sequence[str]) -> int:
    """Return about how many bytes the captured `sites` of a prompt of `length` tokens take."""
    element = next(model.hf_model.parameters()).element_size()
    return element * numbers_of(model.geometry, length, sites)


def _together(model: LoadedModel, encoded: Sequence[Encoded], sites: Sequence[str], functions: Functions) -> list[Held]:
    """Return the activations of prompts of one length, each its own copy: one that is kept keeps no other alive.

    Raises
    ------
    InputError
        The model has no language-model head, and logits are asked for; or it goes past a site.
    """
    if model.lacks_head and {LOGITS, LAST_LOGITS} & set(sites):
        raise InputError(
            f"the checkpoint of {model.name} holds no language-model head ({model.lacks_head}): "
            "it has no predictions; attention and activations work"
        )
    names = [site for site in sites if site not in {LOGITS, LAST_LOGITS}]
    held: Held = {}

    def keep(name: str) -> Hook:
        own = functions.get(name)

        def hook(tensor: Tensor, hook: HookPoint) -> Tensor | None:
            changed = None if own is None else own(tensor, hook)
            # A copy: modules further on may write in place.
            held[name] = (tensor if changed is None else changed).detach().clone()
            return changed

        return hook

    hooked = {**functions, **{name: keep(name) for name in names}}
    whole = LOGITS in sites
    logits = model.forward([one.ids for one in encoded], hooked, last_only=not whole)
    for name in names:
        require_fired(model, name, held)
    if not functions and model.operation is not None and model.operation.path == "store":
        model.operation.path = "forward"
    if whole:
        held[LOGITS] = logits
    if LAST_LOGITS in sites:
        held[LAST_LOGITS] = logits[:, -1]
    count = len(encoded)
    # What does not depend on the tokens, such as learned positions, has one row for all.
    rows = [{name: n if len(tensor) == count else 0 for name, tensor in held.items()} for n in range(count)]
    return [{name: held[name][n : n + 1].clone() for name, n in of.items()} for of in rows]
