"""The activation store: budgets, order, files, and that nothing damaged is ever answered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.engine.model import store as module
from interp.engine.model.store import ActivationStore

KB = torch.arange(250, dtype=torch.float32)  # 1000 bytes


def tensor(number: int) -> torch.Tensor:
    return KB + number


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


def test_the_budget_is_kept_and_the_oldest_goes_first() -> None:
    store = ActivationStore(budget=3000)
    for number in range(3):
        store.put(number, tensor(number))
    store.get(0)  # used last
    store.put(3, tensor(3))
    assert [number in store for number in range(4)] == [True, False, True, True]
    assert store.ledger().ram_bytes == 3000
    store.put(2, tensor(2))  # again: no second copy
    assert store.ledger().ram_bytes == 3000
    store.put("large", torch.zeros(1000))
    assert "large" not in store
    store.set_budget(1000)
    assert store.ledger().ram_bytes <= 1000


@settings(max_examples=100, deadline=None)
@given(
    budget=st.integers(0, 6000),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(1, 600)), max_size=30),
)
def test_it_is_a_dictionary_that_forgets(budget: int, steps: list[tuple[bool, int, int]]) -> None:
    store, last = ActivationStore(budget=budget), dict[int, torch.Tensor]()
    for put, key, size in steps:
        if put:
            last[key] = torch.full((size,), float(size))
            store.put(key, last[key])
        else:
            found = store.get(key)
            assert found is None or torch.equal(found, last[key])
        assert store.ledger().ram_bytes <= budget


def test_a_view_does_not_keep_its_base_alive() -> None:
    store = ActivationStore(budget=10_000)
    store.put("row", torch.zeros(1000, 1000)[3, :5])
    held = store.get("row")
    assert held is not None
    assert held.untyped_storage().nbytes() == 20


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]
)
def test_what_goes_to_disk_comes_back_as_it_was(tmp_path: Path, dtype: torch.dtype) -> None:
    store = ActivationStore(budget=1000, disk_budget=10_000, folder=tmp_path)
    first = torch.randn(1, 3, 7).to(dtype).transpose(1, 2)
    store.put("first", first)
    store.put("second", tensor(0))
    assert store.ledger().spills == 1
    assert len(files(tmp_path)) == 1
    found = store.get("first")
    assert found is not None
    assert torch.equal(found, first)
    assert found.dtype == dtype


def test_the_disk_budget_is_kept_and_the_oldest_goes_first(tmp_path: Path) -> None:
    store = ActivationStore(budget=0, disk_budget=3500, folder=tmp_path)
    for number in range(5):
        store.put(number, tensor(number))
    assert store.ledger().disk_bytes <= 3500
    assert sum(path.stat().st_size for path in files(tmp_path)) == store.ledger().disk_bytes
    assert 0 not in store
    assert torch.equal(store.get(4), tensor(4))


@pytest.mark.parametrize(
    "damage", ["bit in the data", "bit in the header", "cut", "emptied", "deleted", "other content"]
)
def test_a_damaged_file_is_a_miss(tmp_path: Path, damage: str) -> None:
    store = ActivationStore(budget=1000, disk_budget=100_000, folder=tmp_path)
    for number in range(3):
        store.put(number, tensor(number))
    path, other = store._spilled[0].path, store._spilled[1].path
    content = bytearray(path.read_bytes())
    if damage == "bit in the data":
        content[-3] ^= 0x10
    elif damage == "bit in the header":
        content[12] ^= 0x02
    elif damage == "cut":
        del content[-7:]
    elif damage == "emptied":
        content.clear()
    elif damage == "other content":
        content = bytearray(other.read_bytes())
    path.write_bytes(content)
    if damage == "deleted":
        path.unlink()
    before = store.ledger()
    assert store.get(0) is None
    assert store.ledger().damaged == before.damaged + 1
    assert 0 not in store
    assert torch.equal(store.get(1), tensor(1))
    store.put(0, tensor(0))
    assert torch.equal(store.get(0), tensor(0))


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_a_miss_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("store")
    store = ActivationStore(budget=0, disk_budget=100_000, folder=folder)
    store.put("key", tensor(5))
    (path,) = files(folder)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    found = store.get("key")
    assert found is None or torch.equal(found, tensor(5))


@pytest.mark.parametrize("written", [0, 1, 500, 1100])
def test_a_full_disk_costs_the_entry_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    store = ActivationStore(budget=1000, disk_budget=100_000, folder=tmp_path)
    store.put("old", tensor(1))
    store.put("older in memory", tensor(2))

    def save(tensors: Any, path: Path, metadata: Any = None) -> None:  # noqa: ARG001
        Path(path).write_bytes(b"\x01" * written)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", save)
    store.put("new", tensor(3))
    assert torch.equal(store.get("new"), tensor(3))
    assert store.get("older in memory") is None
    assert not list(tmp_path.glob("*.partial"))
    monkeypatch.undo()
    assert torch.equal(store.get("old"), tensor(1))


def test_a_folder_that_cannot_be_made_costs_the_entry(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = ActivationStore(budget=1000, disk_budget=100_000, folder=tmp_path / "file" / "below")
    store.put(0, tensor(0))
    store.put(1, tensor(1))
    assert store.get(0) is None
    assert torch.equal(store.get(1), tensor(1))


def test_two_stores_share_a_folder(tmp_path: Path) -> None:
    stores = [ActivationStore(budget=0, disk_budget=100_000, folder=tmp_path) for _ in range(2)]
    for number in range(4):
        for which, store in enumerate(stores):
            store.put(number, tensor(100 * which + number))
    assert len(files(tmp_path)) == 8
    stores[0].clear()
    for number in range(4):
        assert torch.equal(stores[1].get(number), tensor(100 + number))
        assert stores[0].get(number) is None


def test_clearing_removes_the_files(tmp_path: Path) -> None:
    store = ActivationStore(budget=0, disk_budget=100_000, folder=tmp_path)
    store.put(0, tensor(0))
    store.clear()
    assert files(tmp_path) == []
    assert store.ledger().entries == 0


def test_a_folder_of_its_own_goes_with_the_store() -> None:
    store = ActivationStore(budget=0, disk_budget=100_000)
    store.put(0, tensor(0))
    folder = store._folder
    assert folder is not None
    assert folder.is_dir()
    del store
    assert not folder.exists()


_ENDLESS = """
import sys, torch
from interp.engine.model.store import ActivationStore
store = ActivationStore(budget=0, disk_budget=1 << 40, folder=sys.argv[1])
print("ready", flush=True)
for number in range(100000):
    store.put(number, torch.full((200_000,), float(number)))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_process_leaves_no_torn_file(tmp_path: Path) -> None:
    from safetensors import safe_open

    for turn in range(3):
        folder = tmp_path / str(turn)
        with subprocess.Popen([sys.executable, "-c", _ENDLESS, str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            deadline = time.monotonic() + 30
            while not (folder.is_dir() and len(files(folder)) > 3) and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(0.003 * turn)
            os.kill(process.pid, signal.SIGKILL)
        whole = list(folder.glob("*.safetensors"))
        assert whole
        for path in whole:
            with safe_open(path, framework="pt") as file:
                held = file.get_tensor("activation")
                assert module._checksum(held) == file.metadata()["checksum"]


def test_a_model_answers_rightly_from_a_damaged_store(lend: Any, tmp_path: Path) -> None:
    model = lend("gpt2")
    before = model.store
    model.store = ActivationStore(budget=0, disk_budget=1 << 20, folder=tmp_path)
    try:
        expected = model.run([1, 2, 3]).logits
        assert files(tmp_path)
        assert torch.equal(model.run([1, 2, 3]).logits, expected)
        hits = model.store.hits
        assert hits
        for path in files(tmp_path):
            path.write_bytes(path.read_bytes()[:-4] + b"\x00\x11\x22\x33")
        forwards = model.forwards
        assert torch.equal(model.run([1, 2, 3]).logits, expected)
        assert model.forwards == forwards + 1
    finally:
        model.store.clear()
        model.store = before
