"""Devices that are not there: tensors that claim to be on a GPU, and whose values are real.

A `Pretended` tensor is an ordinary tensor in this machine's memory with a device written beside it. While `devices` is
on, every function of torch's goes by it: tensors of two devices in one operation are refused as CUDA refuses them,
what is made for a device or moved to it claims that device, and nothing but a copy moves. Copies onto a side stream are
made when, and only when, somebody waits for them.

It holds its values itself, instead of another tensor (``_make_wrapper_subclass``): autograd has a queue for each
device that there is, and torch without CUDA none for CUDA's, so that what is differentiated has to be the CPU's below.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from interp.engine.model import carried, content, functions

COUNT = 2
CPU = torch.device("cpu")

# Not: torch's own, for which a scalar on the CPU is not as good as one that is there.
_STRICT = {"cat", "stack", "matmul", "mm", "bmm", "linear", "embedding", "gather", "einsum", "concat", "index_select"}
_ANYWHERE = {"copy_", "__setitem__", "__getitem__", "__set__", "set_", "index", "index_put_", "swap_tensors"}
_MOVING = {"to", "cuda", "cpu"}


class Pretended(Tensor):
    """A tensor that claims to be on `claims`."""

    claims: torch.device

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _called(func, args, kwargs or {})


class _Mode(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _called(func, args, kwargs or {})


def on(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor that claims to be on `device`: of the same memory, unless it is a leaf of autograd's."""
    if device.type != "cuda":
        return tensor.as_subclass(Tensor) if isinstance(tensor, Pretended) else tensor
    with torch._C.DisableTorchFunction():
        leaf = tensor.requires_grad and tensor.is_leaf
        made: Any = (tensor.detach() if leaf else tensor).as_subclass(Pretended)
        made.claims = device
        return made.requires_grad_() if leaf else made


def claimed(tensor: Tensor) -> torch.device:
    """Return where a tensor claims to be."""
    if isinstance(tensor, Pretended):
        return tensor.claims
    with torch._C.DisableTorchFunction():
        return tensor.device


def real(device: Any) -> torch.device:
    """Return a device with its number."""
    found = torch.device(f"cuda:{device}") if isinstance(device, int) else torch.device(device)
    return torch.device("cuda:0") if found.type == "cuda" and found.index is None else found


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)


def _wrapped(value: Any, device: torch.device, args: tuple[Any, ...]) -> Any:
    if isinstance(value, Tensor):
        same = next((one for one in _tensors(args) if one is value), None)
        return on(value, device) if same is None else same
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        made = [_wrapped(one, device, args) for one in value]
        return made if type(value) is list else tuple(made) if type(value) is tuple else type(value)(made)  # pyright: ignore
    return value


def _named(device: Any) -> bool:
    return isinstance(device, torch.device) or (isinstance(device, str) and device.partition(":")[0] in {"cuda", "cpu"})


def _called(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = getattr(func, "__name__", "")
    owner = getattr(getattr(func, "__self__", None), "__name__", "")  # of a property: which one
    first = args[0] if args and isinstance(args[0], Tensor) else None
    if name == "__get__" and first is not None:
        if owner == "device":
            return claimed(first)
        if owner in {"is_cuda", "is_cpu"}:
            return claimed(first).type == owner[3:]
    if name == "get_device" and first is not None:
        return -1 if claimed(first).type == "cpu" else claimed(first).index
    if name in {"numpy", "__array__"} and isinstance(first, Pretended):
        raise TypeError(f"can't convert {first.claims} device type tensor to numpy. Use Tensor.cpu() first")
    if name == "__deepcopy__" and isinstance(first, Pretended):
        return _deep(first, args[1])
    if name == "pin_memory" and first is not None:
        assert claimed(first) == CPU, "only memory of the CPU is pinned"
        return first.clone()
    if name in _MOVING and first is not None:
        return _moved(name, args, kwargs)
    if name == "histc" and not args[0].is_floating_point():  # the CPU's takes none of integers
        return torch.histc(args[0].double(), **kwargs).to(args[0].dtype)
    if func is torch.autograd.grad:  # each gradient is where what it is taken of is
        of = list(_tensors(args[1] if len(args) > 1 else kwargs["inputs"]))
        with torch._C.DisableTorchFunction():
            slopes = func(*args, **kwargs)
        return tuple(None if one is None else on(one, claimed(x)) for one, x in zip(slopes, of, strict=True))
    asked = kwargs.get("device")
    if asked is not None:
        if real(asked).type == "meta":
            with torch._C.DisableTorchFunction():
                return func(*args, **kwargs)
        kwargs = kwargs | {"device": CPU}
        device = real(asked)
    else:
        device = _met(name, [*_tensors(args), *_tensors(kwargs)])
    queued = _queued(name, args, kwargs)
    with torch._C.DisableTorchFunction():
        if queued is not None:
            queued.append(lambda: func(*args, **kwargs))
            return first
        found = func(*args, **kwargs)
    return _wrapped(found, device, args)


def _met(name: str, tensors: list[Tensor]) -> torch.device:
    """Return where what is made of tensors is; refuse those of two devices."""
    if name in _ANYWHERE or name.startswith("swap"):
        return claimed(tensors[0])
    counted = [one for one in tensors if claimed(one).type != "cpu" or one.dim() or name in _STRICT]
    places = {claimed(one) for one in counted}
    if torch._C._current_graph_task_id() != -1:  # autograd hands over gradients without what is written beside them
        places = {place for place in places if place != CPU} or places
    if len(places) > 1:
        found = " and ".join(sorted(map(str, places)))
        raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two, {found} ({name})")
    return places.pop() if places else CPU


def _moved(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    first = args[0]
    rest, target = list(args[1:]), None
    keyed = dict(kwargs)
    if name == "cpu":
        target = CPU
    elif name == "cuda":
        target, rest = real(rest[0] if rest else keyed.pop("device", "cuda")), []
    for at, value in enumerate(rest):
        if _named(value) or (isinstance(value, int) and not isinstance(value, bool) and at == 0):
            target, rest[at] = real(value), CPU
        elif isinstance(value, Tensor):
            target, rest[at] = claimed(value), value.dtype
    if keyed.get("device") is not None:
        target, keyed["device"] = real(keyed["device"]), CPU
    if isinstance(keyed.get("other"), Tensor):
        other = keyed.pop("other")
        target, keyed["dtype"] = claimed(other), other.dtype
    before = claimed(first)
    target = before if target is None else target
    with torch._C.DisableTorchFunction():
        found = first if name in {"cpu", "cuda"} else first.to(*rest, **keyed)
        if target.type == "meta":
            return found
        if found is first and target == before:
            return first
        if target != before and found.data_ptr() == first.data_ptr():
            found = found.clone()
    return on(found, target)


def _deep(tensor: Pretended, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        with torch._C.DisableTorchFunction():
            made: Any = on(tensor.detach().clone(), tensor.claims)
            made.requires_grad_(tensor.requires_grad)
            if getattr(tensor, "_is_param", False):
                made._is_param = True
        memo[id(tensor)] = made
    return memo[id(tensor)]


# -- streams -----------------------------------------------------------------------------------------------------------


class _Stream:
    """A queue of copies that are made when they are waited for; the one that computes has none."""

    def __init__(self, device: Any = None) -> None:
        self.device = real("cuda" if device is None else device)
        self.queue: list[Callable[[], Any]] = []
        self._lock = threading.Lock()

    def drain(self) -> None:
        with self._lock, torch._C.DisableTorchFunction():
            while self.queue:
                self.queue.pop(0)()

    def wait_stream(self, other: _Stream) -> None:
        other.drain()

    def wait_event(self, event: _Event) -> None:
        event.synchronize()

    def record_event(self, event: _Event | None = None) -> _Event:
        event = event or _Event()
        event.record(self)
        return event

    def synchronize(self) -> None:
        self.drain()


class _Event:
    def __init__(self, **_: Any) -> None:
        self.stream: _Stream | None = None

    def record(self, stream: _Stream | None = None) -> None:
        self.stream = stream or _current()

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.drain()

    wait = synchronize


_local = threading.local()
_computing = _Stream()


def _current(device: Any = None) -> _Stream:  # noqa: ARG001
    return getattr(_local, "stream", _computing)


class _Within:
    def __init__(self, stream: _Stream) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        self.before = _current()
        _local.stream = self.stream

    def __exit__(self, *_: Any) -> None:
        _local.stream = self.before


def _queued(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Callable[[], Any]] | None:
    """Return the queue that a copy has to wait in."""
    if name != "copy_" or not kwargs.get("non_blocking") or _current() is _computing:
        return None
    with torch._C.DisableTorchFunction():
        args[0].fill_(0xAA if args[0].dtype == torch.uint8 else float("nan"))  # what nobody has waited for
    return _current().queue


class _Threads(ThreadPoolExecutor):
    """Threads in which devices are pretended too: a mode is one thread's."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def within() -> Any:
            with _Mode():
                return fn(*args, **kwargs)

        return super().submit(within)


@contextlib.contextmanager
def devices() -> Generator[None]:
    """Pretend that there are GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        there: dict[str, Any] = {
            "is_available": lambda: True,
            "device_count": lambda: COUNT,
            "_lazy_init": lambda: None,
            "is_initialized": lambda: True,
            "current_device": lambda: 0,
            "get_device_capability": lambda device=None: (7, 0),  # noqa: ARG005
            "get_device_properties": lambda device=None: SimpleNamespace(major=7, minor=0),  # noqa: ARG005
            "empty_cache": lambda: None,
            "get_rng_state": lambda device=None: torch.zeros(1, dtype=torch.uint8),  # noqa: ARG005
            "set_rng_state": lambda state, device=None: None,  # noqa: ARG005
            "synchronize": lambda device=None: None,  # noqa: ARG005
            "mem_get_info": lambda device=None: (8 * 10**9, 10**10),  # noqa: ARG005
            "memory_reserved": lambda device=None: 0,  # noqa: ARG005
            "memory_allocated": lambda device=None: 0,  # noqa: ARG005
            "max_memory_allocated": lambda device=None: 0,  # noqa: ARG005
            "reset_peak_memory_stats": lambda device=None: None,  # noqa: ARG005
            "Stream": _Stream,
            "Event": _Event,
            "stream": _Within,
            "current_stream": _current,
        }
        for name, value in there.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch.random, "_fork_rng_warned_already", True)
        patch.setattr(Tensor, "record_stream", lambda self, stream: None)  # noqa: ARG005
        patch.setattr(carried, "ThreadPoolExecutor", _Threads)
        # What is put into torch here stands for torch's own: none of it is a function of the user's.
        functions.KNOWN.add(__name__)
        patch.setattr(content, "PLAIN", content.PLAIN | {Pretended})
        try:
            with _Mode():
                yield
        finally:
            functions.KNOWN.discard(__name__)


def put(module: torch.nn.Module, device: str) -> None:
    """Move a module's own weights and those of its parts; what shares a tensor goes on sharing it."""
    moved: dict[int, tuple[Tensor, Any]] = {}  # with what it is of: else its address would be another's
    for part in module.modules():
        for held in (part._parameters, part._buffers):
            for name, tensor in held.items():
                if tensor is not None and claimed(tensor) != real(device):
                    if id(tensor) not in moved:
                        made: Any = on(tensor.detach().clone(), real(device)).requires_grad_(tensor.requires_grad)
                        if isinstance(tensor, torch.nn.Parameter):
                            made._is_param = True
                        moved[id(tensor)] = tensor, made
                    held[name] = moved[id(tensor)][1]
