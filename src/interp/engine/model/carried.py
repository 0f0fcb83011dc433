"""Layers whose weights are on another device than the rows: copied to them as they come, and given back.

All rows of a model are on one device, that of its embedding. Of the layers that have their weights elsewhere, on
other GPUs or in files that are mapped on the CPU (``--max-memory``), a copy is made there:

1. when a layer is used, the next one's is begun: on a stream of its own, and from the CPU by a thread that reads the
   files into two small pinned buffers in turn, so that the disk, the bus and the GPU work at once;
2. there are copies of the layer before, the layer itself, the next one and one more that somebody has looked at, and
   of as many of the first ones as `limit` has room for; the others are given back;
3. what autograd keeps of a copy for its way back is a note where it was: the layer is copied once more then.

Rows could go to the layers instead, which moves fewer bytes where they are few. But every run, patch and edge is
arithmetic of rows with rows of other layers' and of stored runs: of which device each of them is, all who compute here
would have to say. So they all see one device, and a sweep, whose rows are many, waits for no copy.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from interp.engine import memory
from interp.engine.model import hooks, streamed
from interp.errors import InputError

CHUNK = 1 << 26  # bytes of a pinned buffer; there are two
AROUND = 4  # layers that are there at a time, besides the first

Made = TypeVar("Made")


@dataclass(frozen=True)
class _Stretch:
    """Memory that some of a layer's tensors lie in: `flat` is all of it, of their dtype."""

    start: int
    end: int
    flat: Tensor

    def holds(self, tensor: Tensor) -> bool:
        return (
            self.flat.dtype == tensor.dtype
            and self.flat.device == tensor.device
            and self.start <= tensor.data_ptr() < self.end
        )


@dataclass
class _Copy:
    """A layer's weights where the rows are; `done` is waited for before they are read."""

    stretches: Sequence[_Stretch]
    buffers: list[Tensor] = field(default_factory=list[Tensor])
    done: Any = None
    made: tuple[Any, Any] | None = None  # of what, and what was made of it

    def of(self, tensor: Tensor) -> Tensor | None:
        """Return the copy of a tensor, or of a view of one; ``None`` where this layer has none."""
        for stretch, buffer in zip(self.stretches, self.buffers, strict=True):
            if stretch.holds(tensor):
                offset = (tensor.data_ptr() - stretch.start) // tensor.element_size()
                return buffer.as_strided(tensor.shape, tensor.stride(), offset)
        return None


class Carried:
    """The weights of a model whose rows are on one device and whose layers are on others.

    Parameters
    ----------
    blocks
        The model's layers.
    rest
        How many bytes all other weights take.
    home
        Where rows are.
    limit
        How many bytes of weights may be there; ``None``: no first layers stay.

    Attributes
    ----------
    read
        How many bytes have been asked of the files, or of other devices, so far.
    by_rows
        Whether hooks move rows to the layers in the model's own forward, as accelerate's do.

    Raises
    ------
    InputError
        `AROUND` layers and the other weights are more than `limit`.
    """

    def __init__(self, blocks: Sequence[nn.Module], rest: int, home: torch.device, limit: int | None) -> None:
        self.home = home
        self.read = 0
        self.by_rows = any("_hf_hook" in vars(module) for block in blocks for module in block.modules())
        self._blocks = blocks
        self._state = ""
        self._stretches = [_stretches(_away(block, home)) for block in blocks]
        self._sizes = [sum(one.flat.nbytes for one in layer) for layer in self._stretches]
        needed = AROUND * max(self._sizes) + rest
        if limit is not None and needed > limit:
            raise InputError(
                f"--max-memory {memory.readable(limit)} is too little: {AROUND} layers take "
                f"{memory.readable(AROUND * max(self._sizes))}, and what is no layer's {memory.readable(rest)}; "
                f"give {memory.readable(1.01 * needed)} or more"
            )
        room = 0 if limit is None else limit - needed
        self._kept = sum(total <= room for total in itertools.accumulate(self._sizes))
        self._copies: dict[int, Future[_Copy]] = {}
        self._current = 0
        self._thread = ThreadPoolExecutor(1, "interp-weights")
        self._carrier = _Carrier(home)
        self._entered: list[tuple[dict[str, Any], str, Tensor]] = []
        self._remembering: Any = None
        self._lock = threading.RLock()  # autograd's own threads ask too

    @property
    def takes(self) -> int:
        """How many bytes copies take at a time, the first layers' among them."""
        return AROUND * max(self._sizes) + sum(self._sizes[: self._kept])

    @property
    def where(self) -> str:
        """Where the layers are, in words."""
        places = {stretch.flat.device for layer in self._stretches for stretch in layer}
        if any(place.type == "cpu" for place in places):
            return "layers in their files"
        return f"layers on {len({*places, self.home})} devices"

    # -- a command ---------------------------------------------------------------------------------------------------

    def begin(self, state: str) -> None:
        """Begin a command on a model of that fingerprint: of another one no copy is good."""
        if state != self._state:
            self._give_back(lambda layer: False)  # noqa: ARG005
            self._stretches = [_stretches(_away(block, self.home)) for block in self._blocks]
            self._sizes = [sum(one.flat.nbytes for one in layer) for layer in self._stretches]
            self._state = state
        remembering = torch.autograd.graph.saved_tensors_hooks(self._noted, self._found)
        remembering.__enter__()
        self._remembering = remembering

    def rest(self) -> None:
        """End it: give back all but the first layers."""
        if self._remembering is not None:
            self._remembering.__exit__(None, None, None)
            self._remembering = None
        self._give_back(lambda layer: layer < self._kept)

    # -- without hooks -----------------------------------------------------------------------------------------------

    def use(self, layer: int) -> None:
        """Have that layer's copy, and the next one's on its way."""
        hooks.undisturbed(lambda: self._use(layer, layer + 1))

    def made_of(self, layer: int, source: Made, make: Callable[[Made, Callable[[Tensor], Tensor]], Made]) -> Made:
        """Return ``make(source, function)``, once for a copy: the function gives a tensor where the rows are."""
        found: list[_Copy] = []
        hooks.undisturbed(lambda: found.append(self._have(layer)))
        copy = found[0]
        if copy.made is None or copy.made[0] is not source:
            copy.made = source, make(source, lambda tensor: self._here(copy, tensor))
        return copy.made[1]

    def _here(self, copy: _Copy, tensor: Tensor) -> Tensor:
        if tensor.device == self.home:
            return tensor
        found = copy.of(tensor)
        return tensor.to(self.home) if found is None else found  # what is made of weights: a few numbers

    # -- with hooks --------------------------------------------------------------------------------------------------

    def enter(self, layer: int) -> None:
        """Put the copies in the place of a layer's weights, until the next one is entered; not where rows move."""
        if self.by_rows:
            return
        self.use(layer)
        hooks.undisturbed(lambda: self._enter(layer))

    def _enter(self, layer: int) -> None:
        self.leave()
        copy = self._have(layer)
        for module in self._blocks[layer].modules():
            for held in (vars(module)["_parameters"], vars(module)["_buffers"]):
                for name, tensor in held.items():
                    if tensor is not None and tensor.device != self.home:
                        here = self._here(copy, tensor.detach())
                        self._entered.append((held, name, tensor))
                        held[name] = nn.Parameter(here, False) if isinstance(tensor, nn.Parameter) else here

    def leave(self) -> None:
        """Put the weights themselves back."""
        while self._entered:
            held, name, tensor = self._entered[-1]
            held[name] = tensor
            self._entered.pop()

    # -- copies ------------------------------------------------------------------------------------------------------

    def _use(self, layer: int, ahead: int) -> _Copy:
        with self._lock:
            self._current = layer
            future = self._ask(layer)
            if 0 <= ahead < len(self._blocks):
                self._ask(ahead)
            copy = future.result()
            self._carrier.wait(copy)
            # One more behind: what a patch of a layer's output is made of is read when the next one begins.
            self._give_back(lambda other: other < self._kept or layer - 1 <= other <= layer + 1)
            return copy

    def _have(self, layer: int) -> _Copy:
        """Return a layer's copy, whichever one is used at the moment."""
        with self._lock:
            around = self._current
            copy = self._ask(layer).result()
            self._carrier.wait(copy)
            self._give_back(lambda other: other in {layer, *range(around - 1, around + 2)} or other < self._kept)
            return copy

    def _ask(self, layer: int) -> Future[_Copy]:
        if layer not in self._copies:
            self.read += self._sizes[layer]
            stretches = self._stretches[layer]
            self._copies[layer] = self._thread.submit(self._carrier.carry, stretches)
        return self._copies[layer]

    def _give_back(self, stays: Callable[[int], bool]) -> None:
        for layer in [layer for layer in self._copies if not stays(layer)]:
            self._copies.pop(layer).result()

    # -- autograd's way back -----------------------------------------------------------------------------------------

    def _noted(self, tensor: Tensor) -> Any:
        """Return what autograd is to keep of a tensor: of a copy, the layer and the place in it."""
        if tensor.device != self.home:
            return tensor
        address = tensor.data_ptr()
        for layer, future in self._copies.items():
            if future.done():
                for number, buffer in enumerate(future.result().buffers):
                    offset = address - buffer.data_ptr()
                    if 0 <= offset < buffer.nbytes and buffer.dtype == tensor.dtype:
                        return layer, number, tensor.shape, tensor.stride(), offset // buffer.element_size()
        return tensor

    def _found(self, noted: Any) -> Tensor:
        if isinstance(noted, Tensor):
            return noted
        layer, number, shape, stride, offset = noted
        found: list[_Copy] = []
        hooks.undisturbed(lambda: found.append(self._use(layer, layer - 1)))
        return found[0].buffers[number].as_strided(shape, stride, offset)


class _Carrier:
    """Makes copies of memory on a device."""

    def __init__(self, home: torch.device) -> None:
        self._home = home
        self._stream = torch.cuda.Stream(home) if home.type == "cuda" else None
        self._pinned: Iterator[tuple[Tensor, Any]] | None = None

    def carry(self, stretches: Sequence[_Stretch]) -> _Copy:
        """Begin a layer's copies, in a thread."""
        copy = _Copy(stretches)
        if self._stream is None:
            copy.buffers = [stretch.flat.to(self._home) for stretch in stretches]
            return copy
        flats = [stretch.flat for stretch in stretches]
        mapped = [flat for flat in flats if flat.device.type == "cpu"]
        streamed.bring(mapped)
        with torch.no_grad(), torch.cuda.stream(self._stream):
            for flat in flats:
                buffer = torch.empty(len(flat), dtype=flat.dtype, device=self._home)
                copy.buffers.append(buffer)
                if flat.device.type == "cpu":
                    self._through_pinned(flat.view(torch.uint8), buffer.view(torch.uint8))
                else:
                    buffer.copy_(flat, non_blocking=True)
            copy.done = self._stream.record_event()
        streamed.let_go(mapped)
        return copy

    def _through_pinned(self, source: Tensor, target: Tensor) -> None:
        if self._pinned is None:
            pair = [torch.empty(CHUNK, dtype=torch.uint8).pin_memory() for _ in range(2)]
            self._pinned = itertools.cycle([(buffer, torch.cuda.Event()) for buffer in pair])
        for start in range(0, len(source), CHUNK):
            part = source[start : start + CHUNK]
            pinned, free = next(self._pinned)
            free.synchronize()
            pinned[: len(part)].copy_(part)
            target[start : start + CHUNK].copy_(pinned[: len(part)], non_blocking=True)
            free.record(self._stream)

    def wait(self, copy: _Copy) -> None:
        """Have what is computed from now on begin after a copy is there, and its memory stay until that is done."""
        if copy.done is not None:
            computing = torch.cuda.current_stream(self._home)
            computing.wait_event(copy.done)
            for buffer in copy.buffers:
                buffer.record_stream(computing)


def experts_apart(module: nn.Module) -> bool:
    """Whether a module is routed experts to which hooks move rows: of those nothing is copied."""
    return "_hf_hook" in vars(module) and any("xperts" in name for name, _ in module.named_children())


def _away(block: nn.Module, home: torch.device) -> list[Tensor]:
    """Return the weights and buffers of a layer that are not where rows are."""
    found: list[Tensor] = []
    waiting, seen = [block], set[int]()
    while waiting:
        module = waiting.pop()
        if id(module) in seen or experts_apart(module):
            continue
        seen.add(id(module))
        own = (*vars(module)["_parameters"].values(), *vars(module)["_buffers"].values())
        found += [tensor.detach() for tensor in own if tensor is not None and tensor.nbytes and tensor.device != home]
        waiting += [child for _, child in module.named_children()]
    return found


def _stretches(tensors: Sequence[Tensor]) -> list[_Stretch]:
    """Return the memory of tensors: each stretch once, where they overlap, as one that lies flat."""
    found: list[_Stretch] = []
    for tensor in sorted(tensors, key=lambda one: (str(one.device), str(one.dtype), one.data_ptr())):
        start, size = tensor.data_ptr(), tensor.element_size()
        extent = 1 + sum((length - 1) * step for length, step in zip(tensor.shape, tensor.stride(), strict=True))
        last = found[-1] if found else None
        if last is not None and last.holds(tensor) and _one_storage(last.flat, tensor):
            end = max(last.end, start + extent * size)
            flat = last.flat.as_strided(((end - last.start) // size,), (1,), last.flat.storage_offset())
            found[-1] = _Stretch(last.start, end, flat)
        else:
            flat = tensor.as_strided((extent,), (1,), tensor.storage_offset())
            found.append(_Stretch(start, start + extent * size, flat))
    return found


def _one_storage(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
