"""Interventions on a text that grows: which positions of a run they change, and whether what was read stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import xxhash
from torch import Tensor

from interp.engine.model.hooks import Hook
from interp.engine.model.interventions import composed, functions_of, loaded_set
from interp.sites import FEATURES
from interp.spec import Intervention

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel

AT = ("all", "prompt", "new")
# Modes whose change of a position depends on that position alone.
LOCAL = frozenset({"replace", "zero", "add", "scale"})


@dataclass(frozen=True)
class Changes:
    """Interventions on a text that grows, and where in it they apply.

    Attributes
    ----------
    interventions
        As `LoadedModel.run` takes them. One that names a position applies there alone, whatever `at` says.
    at
        ``"prompt"``: at the prompt's positions; ``"new"``: at those of generated tokens, once they are read, so that
        the first of them, which the prompt's last position predicts, is as without; ``"all"``: at both. A function is
        given the activation at these positions.
    """

    interventions: tuple[Intervention, ...] = ()
    at: str = "all"

    def functions(self, model: LoadedModel, prompt: int, start: int, stop: int) -> dict[str, Hook]:
        """Return hook name → function for a run that reads the positions from `start` to `stop`.

        Parameters
        ----------
        prompt
            How many tokens the prompt has.
        """
        first, last = {"prompt": (0, prompt), "new": (prompt, stop)}.get(self.at, (0, stop))
        first, last = max(first, start) - start, min(last, stop) - start
        found: dict[str, list[Hook]] = {}
        features: list[Intervention] = []
        for one in self.interventions:
            at = None if one.position is None else one.position - start
            where = slice(first, last) if at is None else slice(at, at + 1)
            if not 0 <= where.start < min(where.stop, stop - start):
                continue
            if one.site.kind is FEATURES:  # those of one dictionary are made together
                features.append(replace(one, position=at))
                continue
            alone = replace(one, position=None)
            for name, function in functions_of(model, [alone], stop - start).items():
                found.setdefault(name, []).append(_within(function, where, one.site.kind.heads_first))
        for name, function in functions_of(model, features, stop - start, slice(first, last)).items():
            found.setdefault(name, []).append(function)
        return {name: composed(functions) for name, functions in found.items()}

    @property
    def stepwise(self) -> bool:
        """Whether a position's change is the same however the text goes on, so that its keys and values stay."""
        return all(is_local(one) for one in self.interventions)

    def signature(self, model: LoadedModel, prompt: int) -> str:
        """Return a name for the changes that holds all that they depend on; an empty string where there is none."""
        if any(one.mode == "function" for one in self.interventions):
            return ""
        hasher = xxhash.xxh3_128()
        for one in self.interventions:
            value = one.value
            if value is not None:
                tensor = torch.as_tensor(value).detach().cpu().double()
                hasher.update(repr(tuple(tensor.shape)).encode() + tensor.contiguous().numpy().tobytes())
            hasher.update(repr((one.site, one.head, one.position, one.neuron, one.mode)).encode())
            if one.site.kind is FEATURES:
                hasher.update(repr((one.feature, loaded_set(model, one.features).digest)).encode())
        scope = (self.at, prompt if self.at != "all" else 0) if self.interventions else ()
        return f"next:{scope}:{hasher.hexdigest()}"


def is_local(one: Intervention) -> bool:
    if one.mode not in LOCAL or one.site.kind.heads_first:
        return False
    if one.site.kind is FEATURES:
        return one.value is None or torch.as_tensor(one.value).dim() == 0
    inside = 1 + one.site.kind.headed - (one.head is not None) - (one.neuron is not None)
    return one.value is None or torch.as_tensor(one.value).dim() <= inside


def _within(function: Hook, where: slice, is_pattern: bool) -> Hook:
    """Return a function that changes some positions (a pattern's queries) and leaves the others."""

    def run(tensor: Tensor, hook: HookPoint) -> Tensor:
        axis = 2 if is_pattern else 1
        count = where.stop - where.start
        if count == tensor.shape[axis]:
            changed = function(tensor, hook)
            return tensor if changed is None else changed
        part = tensor.narrow(axis, where.start, count).clone()
        changed = function(part, hook)
        whole = tensor.clone()
        whole.narrow(axis, where.start, count).copy_(part if changed is None else changed)
        return whole

    return run
