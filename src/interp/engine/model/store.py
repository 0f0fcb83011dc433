"""The activation store: content-addressed, within a byte budget, least recently used first out, device → RAM → disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True)
class Ledger:
    """The store's account: entries and bytes by tier, the budgets, and what was asked for and found."""

    entries: int
    device_bytes: int
    ram_bytes: int
    disk_bytes: int
    budget: int
    disk_budget: int
    hits: int
    misses: int
    spills: int
    damaged: int


@dataclass
class _Spilled:
    path: Path
    size: int
    checksum: str
    device: torch.device


class ActivationStore:
    """Tensors under hashable keys that name everything they depend on.

    A tensor stays where it was computed while the budget lasts. Then the least recently used move on: from a device to
    RAM, from RAM to files, and from there out. A file is written beside its final name and renamed, and carries a
    checksum in its header: one that was cut short or has a flipped bit is a miss, never a wrong answer.

    Parameters
    ----------
    budget
        Bytes that tensors may take on the device, and again in RAM where the device is another one.
    disk_budget
        Bytes that files may take; 0 keeps nothing on disk.
    folder
        Where files go; a temporary folder, removed with the store, when not given.

    Examples
    --------
    >>> store = ActivationStore(budget=1000)
    >>> store.put("key", torch.ones(2))
    >>> store.get("key")
    tensor([1., 1.])
    """

    def __init__(self, budget: int, disk_budget: int = 0, folder: str | os.PathLike[str] | None = None) -> None:
        self.budget = budget
        self.disk_budget = disk_budget
        self.hits = self.misses = self.spills = self.damaged = 0
        self._held: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._moved: dict[Hashable, torch.device] = {}  # held in RAM, computed on this device
        self._spilled: OrderedDict[Hashable, _Spilled] = OrderedDict()
        self._folder = Path(folder) if folder is not None else None

    def get(self, key: Hashable) -> Tensor | None:
        """Return the tensor under `key`, on the device it was computed on, or ``None``; it is not to be written to."""
        tensor = self._held.get(key)
        if tensor is None:
            tensor = self._reload(key)
        elif key in self._moved:
            tensor = tensor.to(self._moved[key])
        if tensor is None:
            self.misses += 1
            return None
        self.hits += 1
        if key in self._held:
            self._held.move_to_end(key)
        return tensor

    def __contains__(self, key: Hashable) -> bool:
        return key in self._held or key in self._spilled

    def put(self, key: Hashable, tensor: Tensor) -> None:
        """Keep `tensor` under `key`; one that is larger than the whole budget is not kept."""
        tensor = tensor.detach()
        if tensor.untyped_storage().nbytes() > _size(tensor):
            tensor = tensor.clone()  # a view would keep its whole base alive, uncounted
        self._drop_file(key)
        self._moved.pop(key, None)
        self._held[key] = tensor
        self._held.move_to_end(key)
        self._shrink()

    def clear(self) -> None:
        """Forget everything, files too."""
        self._held.clear()
        self._moved.clear()
        for key in list(self._spilled):
            self._drop_file(key)

    def set_budget(self, budget: int, disk_budget: int | None = None) -> None:
        """Change the budgets, in bytes; what no longer fits moves on at once."""
        self.budget = budget
        if disk_budget is not None:
            self.disk_budget = disk_budget
        self._shrink()

    def ledger(self) -> Ledger:
        """Return the account as it stands."""
        return Ledger(
            entries=len(self._held) + len(self._spilled),
            device_bytes=self._bytes_on_device(),
            ram_bytes=self._bytes_in_ram(),
            disk_bytes=sum(entry.size for entry in self._spilled.values()),
            budget=self.budget,
            disk_budget=self.disk_budget,
            hits=self.hits,
            misses=self.misses,
            spills=self.spills,
            damaged=self.damaged,
        )

    # The sums are taken anew each time: a running count would be wrong after an interrupt between its two updates.
    def _bytes_on_device(self) -> int:
        return sum(_size(t) for t in self._held.values() if t.device.type != "cpu")

    def _bytes_in_ram(self) -> int:
        return sum(_size(t) for t in self._held.values() if t.device.type == "cpu")

    def _shrink(self) -> None:
        for key in list(self._held):
            if self._bytes_on_device() <= self.budget:
                break
            tensor = self._held[key]
            if tensor.device.type != "cpu":
                self._moved[key] = tensor.device
                self._held[key] = tensor.cpu()
        for key in list(self._held):
            if self._bytes_in_ram() <= self.budget:
                break
            tensor = self._held[key]
            if tensor.device.type == "cpu":
                self._spill(key, tensor, self._moved.get(key, tensor.device))
                self._held.pop(key, None)
                self._moved.pop(key, None)
        while self._spilled and sum(entry.size for entry in self._spilled.values()) > self.disk_budget:
            self._drop_file(next(iter(self._spilled)))

    def _spill(self, key: Hashable, tensor: Tensor, device: torch.device) -> None:
        if _size(tensor) > self.disk_budget:
            return
        content = tensor.contiguous()
        # A full disk costs the entry, which can be computed again, and nothing else.
        with contextlib.suppress(OSError, SafetensorError):
            path = self._place() / f"{uuid.uuid4().hex}.safetensors"  # other stores may use the folder
            partial = path.with_suffix(".partial")
            checksum = _checksum(content)
            try:
                save_file({"activation": content}, partial, metadata={"checksum": checksum})
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)
            self._spilled[key] = _Spilled(path, path.stat().st_size, checksum, device)
            self.spills += 1

    def _reload(self, key: Hashable) -> Tensor | None:
        entry = self._spilled.get(key)
        if entry is None:
            return None
        try:
            with safe_open(entry.path, framework="pt") as file:
                tensor = file.get_tensor("activation")
        except (OSError, SafetensorError):
            tensor = None
        if tensor is None or _checksum(tensor) != entry.checksum:
            self.damaged += 1
            self._drop_file(key)
            return None
        tensor = tensor.to(entry.device)
        self.put(key, tensor)
        return tensor

    def _place(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="interp-activations-"))
            weakref.finalize(self, shutil.rmtree, self._folder, True)
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def _drop_file(self, key: Hashable) -> None:
        entry = self._spilled.pop(key, None)
        if entry is not None:
            with contextlib.suppress(OSError):
                entry.path.unlink(missing_ok=True)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _checksum(tensor: Tensor) -> str:
    content: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    return xxhash.xxh3_128_hexdigest(content)
