"""Where weights are put: the device map that is asked for, and models that accelerate has placed partly on disk.

accelerate leaves placeholders for what is on disk, and hooks that read it before every call of a module. Here those
weights are mapped from their files instead, as all others that stay in theirs: a sweep then reads a layer once, not
once for each of its patches, and no forward needs the hooks.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.utilities.multi_gpu import is_mixed_offload_gpu
from transformers.integrations.accelerate import load_offloaded_parameter

from interp import files
from interp.engine import memory
from interp.engine.model import mapped
from interp.engine.model.load.source import Options, device_of
from interp.errors import InputError, OutOfMemory, closest

_DIVIDED = ("auto", "balanced")  # by accelerate
_MIXED = "a model partly on a GPU and partly off it cannot be wrapped; put all of it on GPUs, or all on cpu and disk"


def device_map_of(options: Options, make: Callable[[], nn.Module]) -> Any:
    """Return the device map that is asked for as transformers takes it; ``None`` where there is none.

    Parameters
    ----------
    make
        Makes the model of the configuration; called on the meta device, where tensors take no memory.

    Raises
    ------
    InputError
        It is neither a word that is known nor a mapping of modules to devices that are here, or mixes GPUs with others.
    """
    given = options.device_map
    if given is None or given in _DIVIDED:
        return given
    if isinstance(given, str) and files.there(files.path_of(given)) != "file":
        raise InputError(f"--device-map {given!r} is neither auto nor balanced, and no JSON file is there")
    held = files.read_json(given, 'give {"": "cpu"} or modules and devices') if isinstance(given, str) else given
    if not isinstance(held, Mapping) or not held:
        raise InputError('a device map says where modules go, such as {"model.layers.0": "cpu", "": "disk"}')
    for module, device in held.items():
        if isinstance(device, int) and not isinstance(device, bool):
            device_of(f"cuda:{device}")
        elif isinstance(device, str) and device != "auto":
            device_of("cpu" if device == "disk" else device)
        else:
            raise InputError(f"the device map puts {module!r} on {device!r}; give cpu, disk, or a GPU such as cuda:0")
    if is_mixed_offload_gpu(held.values()):
        raise InputError(_MIXED)
    with torch.device("meta"):
        model = make()
    modules = [name for name, _ in model.named_modules()]
    for name in held:
        if name not in modules:
            raise InputError(f"the device map places {name!r}, which the model does not have{closest(name, modules)}")
    return _disjoint(model, held)


def _disjoint(model: nn.Module, held: Mapping[str, Any]) -> dict[str, Any]:
    """Return a device map of which no module is inside another: what is around one is divided into its parts."""
    found: dict[str, Any] = {}

    def place(name: str, module: nn.Module, device: Any) -> None:
        device = held.get(name, device)
        if not any(key != name and _inside(key, name) for key in held):
            found.update({} if device is None else {name: device})
            return
        for child, part in module.named_children():
            place(f"{name}.{child}" if name else child, part, device)

    place("", model, None)
    beside = (name for name, _ in model.named_parameters() if not any(_inside(name, key) for key in found))
    if lost := next(beside, ""):
        raise InputError(
            f'the device map says nothing of {lost}; add "": "cpu", which is for all that it does not name'
        )
    return found


def _inside(name: str, module: str) -> bool:
    return not module or name.startswith(f"{module}.")


def from_files(name: str, model: Any, *, copied: bool = False) -> tuple[Any, frozenset[int], str]:
    """Return a model with all of its weights, the addresses of those that stay on disk, and what is to be known of it.

    It is another object; what is in memory it shares with `model`, or has copies of (`copied`).

    Raises
    ------
    InputError
        It is partly on a GPU, or its placeholders stand for nothing, or for weights that an adapter is beside.
    OutOfMemory
        Files hold its weights in another dtype, and what is made of them does not fit.
    """
    if hasattr(model, "merge_and_unload"):
        raise InputError(
            f"{name} is partly on disk and has an adapter, which cannot be merged there; load it into memory, or save "
            "it merged"
        )
    if is_mixed_offload_gpu((getattr(model, "hf_device_map", None) or {}).values()):
        raise InputError(_MIXED)
    shared: dict[int, Any] = {}  # what a copy takes as it is, by its id
    for module in model.modules():
        hook = vars(module).get("_hf_hook")
        if hook is not None:
            shared[id(hook)] = hook
    offloaded: dict[int, int] = {}  # address → bytes
    for key, held in _weights(model):
        if not held.is_meta:
            shared |= {} if copied else {id(held): held}
        elif id(held) not in shared:
            tensor = _read(name, model, key, held)
            shared[id(held)] = nn.Parameter(tensor, requires_grad=False)
            offloaded[tensor.data_ptr()] = tensor.nbytes
    whole = copy.deepcopy(model, shared)
    for module in whole.modules():
        _unhook(module)
    vars(whole).pop("hf_device_map", None)
    whole.tie_weights()
    mappings = mapped.Mappings()
    there = sum(size for address, size in offloaded.items() if mappings.holds(address, size))
    lost = sum(offloaded.values()) - there
    note = f"{memory.readable(there)} of its weights stay on disk, and are read as layers come"
    if lost:
        note += f"; {memory.readable(lost)} are copied into memory, since their files do not hold them as they are used"
    return whole, frozenset(offloaded), note


def _weights(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _read(name: str, model: Any, key: str, held: Tensor) -> Tensor:
    """Return the weight that a placeholder stands for: its file's pages, or a copy where the file has another dtype."""
    free, takes = memory.free_bytes(torch.device("cpu")), held.numel() * held.element_size()
    try:
        tensor = load_offloaded_parameter(model, key)
    except (ValueError, KeyError, AttributeError, TypeError):
        raise InputError(
            f"weights of {name} are on the meta device, without values; load them, and onto one device"
        ) from None
    if takes > free // 4 and not mapped.Mappings().holds(tensor.data_ptr(), tensor.nbytes):
        raise OutOfMemory(
            f"the files of {name} have another dtype than {held.dtype}, and {memory.readable(free)} is too little for "
            'copies of its weights; load it as it is stored, with dtype="auto"'
        )
    return tensor


def _unhook(module: nn.Module) -> None:
    """Take accelerate's hook and its warnings off a module."""
    own = vars(module)
    if own.pop("_hf_hook", None) is None:
        return
    before = own.pop("_old_forward", None)
    for name in [name for name, value in own.items() if callable(value) and hasattr(nn.Module, name)]:
        del own[name]
    if before is not None and getattr(before, "__func__", None) is not type(module).forward:
        module.forward = before


def rest_to(bridge: Any, device: torch.device) -> None:
    """Put all weights of a model but its layers', which stay in their files, on a device."""
    layers = {id(module) for block in bridge.blocks for module in block.modules()}
    moved: dict[int, tuple[Tensor, Tensor]] = {}  # by an address, which is another tensor's once one has gone
    for module in itertools.chain(bridge.modules(), bridge.original_model.modules()):
        if id(module) in layers:
            continue
        for held in (vars(module)["_parameters"], vars(module)["_buffers"]):
            for name, tensor in held.items():
                if tensor is None or tensor.device == device:
                    continue
                if id(tensor) not in moved:
                    there = tensor.detach().to(device)
                    own = isinstance(tensor, nn.Parameter)
                    moved[id(tensor)] = tensor, nn.Parameter(there, tensor.requires_grad) if own else there
                held[name] = moved[id(tensor)][1]
    bridge.cfg.device = str(device)
