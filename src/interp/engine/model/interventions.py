"""`spec.Intervention` as functions on hooks: patching, ablation, steering, or the user's own function."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from interp.engine import memory
from interp.engine.model.hooks import Hook
from interp.errors import InputError, closest, printable
from interp.sites import FEATURES, Site
from interp.spec import Intervention, as_interventions, resolve_indices

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint

    from interp.engine.model.loaded import LoadedModel
    from interp.engine.model.operation import Operation


class Features(Protocol):
    """A loaded set of dictionaries, as interventions need it; what it is only `interp.engine.features.held` knows."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def doubts(self) -> Sequence[str]: ...
    def require(self, layer: int, feature: int | None) -> None: ...
    def functions(
        self, model: LoadedModel, layer: int, interventions: Sequence[Intervention], within: slice
    ) -> list[tuple[str, Hook]]: ...


# Families whose forward is known to go through every hook point that the bridge shows.
_READ = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "qwen2", "qwen3", "native"})
_TRIED = (0, 1)  # tokens that every model has


def functions_of(
    model: LoadedModel, interventions: Sequence[Intervention], length: int, within: slice = slice(None)
) -> dict[str, Hook]:
    """Return hook name → function, for `LoadedModel.forward`; several on one activation are done in their order.

    Parameters
    ----------
    within
        The positions at which interventions on features apply that name none.

    Raises
    ------
    InputError
        A layer, head, position, neuron, site or mode that is not there, or a value that does not fit.
    """
    every = [_checked(model, intervention, length) for intervention in interventions]
    interventions = [one for one in every if one.site.kind is not FEATURES]
    require_read(model, [intervention.site for intervention in interventions])
    found: dict[str, list[Hook]] = {}
    # What is written through another site is written after any other change of that.
    for intervention in sorted(interventions, key=lambda one: bool(one.site.kind.through)):
        for name, function in written(intervention.site, _changing(intervention)):
            found.setdefault(name, []).append(function)
    # Features are read of an activation as all others have left it; those of one layer together.
    for (name, layer), own in by_dictionary(model, every).items():
        for hook_name, function in noted_set(model, name).functions(model, layer, own, within):
            found.setdefault(hook_name, []).append(function)
    return {name: composed(functions) for name, functions in found.items()}


def required(model: LoadedModel, given: Any) -> tuple[Intervention, ...]:
    """Return interventions that a model can make in some text.

    Raises
    ------
    InputError
        Something else, or one on what is not there.
    """
    found = as_interventions(given)
    functions_of(model, found, model.geometry.n_ctx)
    for one in found:
        if one.mode != "function" and one.value is not None and not is_numeric(one.value):
            raise InputError(f"{one.mode} takes a number, an array or a tensor; {type(one.value).__name__} is none")
    return found


def is_numeric(value: Any) -> bool:
    """Whether that is a number, or an array of them."""
    try:
        return not torch.as_tensor(value).is_complex()
    except (TypeError, ValueError, RuntimeError):
        return False


def by_dictionary(
    model: LoadedModel, interventions: Iterable[Intervention]
) -> dict[tuple[str, int], list[Intervention]]:
    """Return (set's name, layer) → those interventions that are on features of it, in their order."""
    found: dict[tuple[str, int], list[Intervention]] = {}
    for one in interventions:
        if one.site.kind is FEATURES:
            found.setdefault((loaded_set(model, one.features).name, one.site.layer), []).append(one)
    return found


def loaded_set(model: LoadedModel, name: str | None = None) -> Features:
    """Return the set of features of that name, or the one that was loaded last.

    Raises
    ------
    InputError
        None is loaded for this model, or none of that name.
    """
    held = model.feature_sets
    if not held:
        raise InputError(
            f"no features are loaded for {printable(model.name)}; type %interp features-load with a folder or a hub "
            + ("name, or bundled" if model.name == "bundled" else "name")
        )
    if name is None:
        return held[next(reversed(held))]
    if name not in held:
        raise InputError(f"no features are called {name!r}{closest(name, held)}; loaded: {', '.join(held)}")
    return held[name]


def noted_set(model: LoadedModel, name: str | None = None) -> Features:
    """Return the same as `loaded_set`, and note in the command's record that it was read.

    Its name and digest go into the result's provenance, and what is doubtful about it into the result's notes.
    """
    found = loaded_set(model, name)

    def noted(operation: Operation) -> Features:
        operation.features[found.name] = found.digest
        operation.notes.extend(doubt for doubt in found.doubts if doubt not in operation.notes)
        return found

    return model.operate("features", {"name": found.name}, noted)


def require_read(model: LoadedModel, sites: Iterable[Site]) -> None:
    """Refuse activations that a model's forward goes past: what is written there would change nothing.

    Raises
    ------
    InputError
        There is one, see `unread`.
    """
    for site in sites:
        reason = unread(model, site)
        if reason:
            raise InputError(f"the {site.name} of {model.name} can be looked at but not changed: {reason}")


def unread(model: LoadedModel, site: Site) -> str:
    """Return why what is written at a site of `model` would not do what it should; an empty string where it does.

    In some families the bridge shows an activation beside the forward that the library runs. A NaN finds out: it
    reaches the logits from wherever it is read. One forward of two tokens for each activation that was not tried yet,
    and none in the families that were tried once and for all.
    """
    # Where features are written their dictionary says: `engine.features.edits` asks for those places.
    if model.family in _READ or site.kind is FEATURES:
        return ""

    def find(operation: Operation) -> str:
        key = (operation.fingerprint, site)
        if key not in model.unread:
            model.unread[key] = _copied(model, site)
        return model.unread[key]

    return model.operate("run", {}, find)


def _copied(model: LoadedModel, site: Site) -> str:
    written = site.hook_name
    if site.name in {"attn_out", "resid_mid"}:
        seen = _middle(model, site.layer)
        if not torch.allclose(seen["attn_out"][0, 0], seen["attn_out"][0, 1], atol=1e-3):
            return "in this family attn_out and what follows hold the residual stream, normed; use z, or resid_pre"
        if site.name == "resid_mid":
            total = seen["resid_pre"] + seen["attn_out"]
            if not torch.allclose(total, seen["resid_mid"], atol=0.01 * float(total.abs().max())):
                return "a norm stands between attn_out and it; use resid_pre or attn_out"
            written = Site(site.kind.through, site.layer).hook_name

    def spoil(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
        return torch.full_like(tensor, float("nan"))

    try:
        with warnings.catch_warnings(action="ignore"):  # transformer-lens knows some of them
            logits = model.forward([_TRIED], {written: spoil}, last_only=False, plainly=True)
    except (IndexError, ValueError, RuntimeError) as error:
        if memory.is_out_of_memory(error):
            raise
        return ""  # a NaN is what something above cannot go on with: it is read
    return "" if bool(logits.isnan().any()) else "its forward goes on with a copy; use another site, such as z"


def _middle(model: LoadedModel, layer: int) -> dict[str, Tensor]:
    """Return the middle of a block whose heads write nothing: what attention adds is one vector at all positions."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Hook:
        def hook(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
            seen[name] = tensor.detach()

        return hook

    names = {Site(name, layer).hook_name: keep(name) for name in ("resid_pre", "attn_out", "resid_mid")}
    there = {name: hook for name, hook in names.items() if name in model.bridge.hook_dict}

    def nothing(tensor: Tensor, hook: HookPoint) -> Tensor:  # noqa: ARG001
        return torch.zeros_like(tensor)

    model.forward([_TRIED], {Site("z", layer).hook_name: nothing} | there, plainly=True)
    return seen


def _checked(model: LoadedModel, intervention: Any, length: int) -> Intervention:
    """Return an intervention that can be done, its position counted from the front."""
    if not isinstance(intervention, Intervention):
        raise InputError(
            "interventions are a list of interp.Intervention(interp.Site('z', 5), …); hooks of your own go to "
            "interp.model.bridge.run_with_hooks"
        )
    site, geometry = intervention.site, model.geometry
    kind = site.kind
    resolve_indices(site.layer, geometry.n_layers, "layer")
    if kind is FEATURES:
        loaded_set(model, intervention.features).require(site.layer, intervention.feature)
    else:
        model.require_site(site.name, [site.layer])
    if intervention.head is not None:
        count = geometry.n_kv_heads if kind.kv_heads else geometry.n_heads
        resolve_indices(intervention.head, count, "head", " (of keys and values)" if kind.kv_heads else "")
    if intervention.neuron is not None:
        resolve_indices(intervention.neuron, model.neurons(site.layer), "neuron")
    if intervention.position is not None:
        (position,) = resolve_indices(intervention.position, length, "position")
        intervention = replace(intervention, position=position)
    return intervention


def written(site: Site, change: Hook) -> list[tuple[str, Hook]]:
    """Return the hooks by which an activation becomes what `change` makes of it.

    Where the hook stands beside the residual stream, what another site adds is changed, so that the stream comes out
    as wanted.
    """
    if not site.kind.through:
        return [(site.hook_name, change)]
    before: list[Tensor] = []

    def remember(tensor: Tensor, hook: HookPoint) -> None:  # noqa: ARG001
        before[:] = [tensor]

    def write(tensor: Tensor, hook: HookPoint) -> Tensor:
        changed = change(before[0] + tensor, hook)
        return tensor if changed is None else changed - before[0]

    return [(Site("resid_pre", site.layer).hook_name, remember), (Site(site.kind.through, site.layer).hook_name, write)]


def _changing(intervention: Intervention) -> Hook:
    value, mode = intervention.value, intervention.mode
    part = intervention.head if intervention.head is not None else intervention.neuron
    where = (slice(None), *intervention.site.kind.index(part, intervention.position))
    # The same noise in every run, and another in every place.
    place = (intervention.site, intervention.head, intervention.position, intervention.neuron)
    seed = zlib.crc32(repr(place).encode())

    def change(tensor: Tensor, hook: HookPoint) -> Any:
        if mode == "function":
            return value(tensor, hook)
        changed = tensor.clone()
        part = changed[where]
        changed[where] = _changed(part, mode, _fitting(value, part, hook), tensor, where, seed)
        return changed

    return change


def _changed(part: Tensor, mode: str, value: Any, whole: Tensor, where: tuple[Any, ...], seed: int) -> Tensor:
    if mode == "zero":
        return torch.zeros_like(part)
    if mode == "mean":
        return whole.mean(dim=1, keepdim=True).expand_as(whole)[where]
    if mode == "add":
        return part + value
    if mode == "scale":
        return part * value
    if mode == "noise":
        # One draw for all rows of a batch: a run is the same whatever runs beside it.
        drawn = torch.randn(1, *part.shape[1:], generator=torch.Generator().manual_seed(seed)).to(part)
        spread = torch.stack([row.std() for row in whole]).view(-1, *[1] * (part.dim() - 1))
        return part + drawn * value * spread
    return value if isinstance(value, Tensor) else torch.full_like(part, float(value))


def _fitting(value: Any, part: Tensor, hook: HookPoint) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    tensor = torch.as_tensor(value).to(part)
    missing = part.dim() - tensor.dim()
    fits = missing >= 0 and all(a in {1, b} for a, b in zip(tensor.shape, part.shape[missing:], strict=True))
    if not fits:
        raise InputError(f"a value of shape {tuple(tensor.shape)} does not fit {hook.name}, {tuple(part.shape)}")
    return tensor.expand_as(part)


def composed(functions: Sequence[Hook]) -> Hook:
    """Return several functions on one hook as one, in their order."""

    def run(tensor: Tensor, hook: HookPoint) -> Tensor:
        for function in functions:
            changed = function(tensor, hook)
            tensor = tensor if changed is None else changed
        return tensor

    return run
