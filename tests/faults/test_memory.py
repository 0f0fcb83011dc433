"""Rows 28, 46 and 48: memory that runs out, in any of the ways torch says so, and what is held afterwards."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
import torch
from torch.overrides import TorchFunctionMode

from faults import harness
from interp.errors import OutOfMemory
from interp.interface.session import session
from interp.results import Result
from sampled import crossed, turns

each_bodied = pytest.mark.parametrize("name", harness.bodied())
each_door = pytest.mark.parametrize("door", harness.DOORS)

SIGNS = {
    "cpu allocator": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
        "allocate 1099511627776 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "cpu allocator, elsewhere": lambda: RuntimeError(
        "[enforce fail at ..\\c10\\core\\impl\\alloc_cpu.cpp:115] data. DefaultCPUAllocator: not enough memory: "
        "you tried to allocate 8589934592 bytes."
    ),
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "mps": lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 GB)"),
    "python": lambda: MemoryError(),
}


class Failing(TorchFunctionMode):
    """Makes the attention of the second layer raise, with tensors in its frame and in those above, as a real one has.

    It stands between torch and its callers and replaces nothing: a changed model, or a function of the user's own, is
    another state, with other answers.
    """

    def __init__(self, sign):
        super().__init__()
        self.sign = sign
        self.calls = 0
        self.fired = 0
        self.made = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.softmax:
            return self.softmax(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    @staticmethod
    def original(*arguments, **options):
        return torch.nn.functional.softmax(*arguments, **options)

    def softmax(self, *arguments, **options):
        self.calls += 1
        if self.calls % 2:
            return self.original(*arguments, **options)
        self.fired += 1
        big = torch.ones(1000)
        self.made.append(weakref.ref(big))
        raise self.sign()


class Asking(Failing):
    """Makes the attention of the second layer ask for more memory than any machine has."""

    def softmax(self, *arguments, **options):
        self.calls += 1
        if self.calls % 2:
            return self.original(*arguments, **options)
        self.fired += 1
        return torch.empty(2**46)


each_name_sign_and_door = pytest.mark.parametrize(
    ("name", "sign", "door"), crossed(harness.bodied(), SIGNS, harness.DOORS)
)


def without_store(model):
    model.store.clear()
    return model


@each_name_sign_and_door
def test_row_28_memory_runs_out_in_a_forward(name, sign, door, shell, lend):
    model = lend("gpt2")
    clean = harness.answer(harness.worked(harness.ask(door, shell, harness.valid(name))))
    with harness.unharmed(model, shell):
        without_store(model)
        with Failing(SIGNS[sign]) as failing:
            outcome = harness.ask(door, shell, harness.valid(name))
        if not failing.fired:  # it runs no forward, so that nothing can run out
            harness.worked(outcome)
            return
        message = harness.refused(outcome, "out of memory", name, out_of_memory=True)
        assert "%interp clear" in message
        assert model.store.ledger().entries == 0, "half a forward's activations were stored"
        again = harness.worked(harness.ask(door, shell, harness.valid(name)))
        assert harness.answer(again) == clean


@each_bodied
@pytest.mark.parametrize("family", harness.FAMILIES)
def test_row_28_the_allocators_own_error(name, family, shell, lend):
    model = lend(family)
    with harness.unharmed(model, shell):
        without_store(model)
        with Asking(None) as failing:
            outcome = harness.ask("magic", shell, harness.valid(name, family))
        if failing.fired:
            harness.refused(outcome, "out of memory", out_of_memory=True)
            assert outcome.shown.startswith("UsageError: ")


def test_row_28_run_and_activations(shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        run = model.run("Mary gave")
        without_store(model)
        with Failing(SIGNS["cpu allocator"]), pytest.raises(OutOfMemory, match="out of memory"):
            model.run("Mary gave")
        assert run.activations["blocks.0.hook_resid_pre"].shape[0] == 1


def test_row_28_another_runtime_error_stays_itself(shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        without_store(model)
        with Failing(lambda: RuntimeError("expected scalar type Half but found Float")):
            outcome = harness.ask("python", shell, harness.valid("predict"))
        assert type(outcome.error) is RuntimeError


@each_door
@pytest.mark.parametrize("sign", SIGNS)
def test_row_28_memory_runs_out_while_loading(sign, door, shell, lend, folder, monkeypatch):
    model = lend("gpt2")
    kept = harness.valid("predict")
    with harness.unharmed(model, shell):
        with monkeypatch.context() as patch:

            def to(*_, **__):
                raise SIGNS[sign]()

            patch.setattr(torch.nn.Module, "to", to)
            cell = harness.Cell("load", {"source": str(folder("llama"))})
            harness.refused(harness.ask(door, shell, cell), "out of memory", "llama", out_of_memory=True)
        assert list(session.models) == ["gpt2"]
        harness.worked(harness.ask(door, shell, kept))


@each_bodied
def test_row_28_a_prompt_that_cannot_fit_is_refused_before_it_runs(name, shell, lend, monkeypatch):
    from interp.engine import memory

    model = lend("gpt2")
    with harness.unharmed(model, shell):
        without_store(model)
        before = model.forwards
        with monkeypatch.context() as patch:
            patch.setattr(memory, "free_bytes", lambda _: 100)
            outcome = harness.ask("magic", shell, harness.valid(name))
        if outcome.error is None:
            assert model.forwards == before, "a forward ran with no memory for it"
        else:
            harness.refused(outcome, "100 B is free")
            assert model.forwards == before


def tensors():
    """Return every live tensor; what the libraries hold from before the tests is not looked through."""
    gc.collect()
    return [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]


def frames_of(error):
    """Return every frame that an error, what caused it and what it came in keep alive."""
    found, waiting = [], [error]
    while waiting:
        current = waiting.pop()
        if current is None:
            continue
        trace = current.__traceback__
        while trace is not None:
            found.append(trace.tb_frame)
            trace = trace.tb_next
        waiting += [current.__cause__, current.__context__]
    return found


@each_name_sign_and_door
def test_row_48_an_out_of_memory_cell_pins_nothing(name, sign, door, shell, lend):
    model = lend("gpt2")
    shell.user_ns["interp"] = __import__("interp")
    cell = harness.valid(name)
    source = cell.source() if door == "magic" else f"interp.{name.replace('-', '_')}({cell.body!r})"
    harness.worked(harness.ask("magic", shell, cell))
    without_store(model)
    before = {id(t) for t in tensors()}
    gc.disable()  # references alone must let go: a collection may come late
    try:
        with Failing(SIGNS[sign]) as failing:
            outcome = harness.ask("magic", shell, source)
        pinned = [r for r in failing.made if r() is not None]
    finally:
        gc.enable()
    if not failing.fired:
        return
    assert type(outcome.error) is type(sys.last_value)
    assert "out of memory" in str(sys.last_value)
    assert not pinned, "a frame of the failed forward is still there"
    for frame in frames_of(sys.last_value):
        held = [k for k, v in frame.f_locals.items() if issubclass(type(v), torch.Tensor)]
        assert not held, (frame.f_code.co_qualname, held)
        if "/interp/" in frame.f_code.co_filename:
            nested = [k for k, v in frame.f_locals.items() if holds_tensor(v)]
            assert not nested, (frame.f_code.co_qualname, nested)
    assert {id(t) for t in tensors()} <= before


def holds_tensor(value, depth=3):
    if issubclass(type(value), torch.Tensor):
        return True
    if depth and isinstance(value, dict):
        return any(holds_tensor(item, depth - 1) for item in value.values())
    if depth and isinstance(value, list | tuple | set):
        return any(holds_tensor(item, depth - 1) for item in value)
    return False


def test_row_48_loading_pins_nothing(shell, lend, folder, monkeypatch):
    lend("gpt2")
    folder("llama")
    before = {id(t) for t in tensors()}
    with monkeypatch.context() as patch:

        def to(*_, **__):
            raise SIGNS["cpu allocator"]()

        patch.setattr(torch.nn.Module, "to", to)
        harness.ask("magic", shell, f"%interp load {folder('llama')}")
    assert "out of memory" in str(sys.last_value)
    assert {id(t) for t in tensors()} <= before


CELLS = turns(200)


@each_bodied
def test_row_46_many_cells_that_end_in_a_result(name, shell, lend):
    model = lend("gpt2")
    cell = harness.valid(name)
    harness.worked(harness.ask("magic", shell, cell))
    model.store.clear()
    before = {id(t) for t in tensors()}
    kept = []
    for n in range(CELLS):
        text = "".join("abcdefgh"[n // 8**k % 8] for k in range(3))
        silence = ";" if n % 20 else ""
        harness.worked(harness.ask("magic", shell, harness.valid(name, text=text).source(out=f"kept{silence}")))
        kept.append(shell.user_ns["kept"])
    assert all(isinstance(result, Result) for result in kept)
    assert len({id(result) for result in kept}) == CELLS
    for result in kept[::20]:
        result.html(), result.text(), result._repr_mimebundle_()
    in_store = {id(t) for t in model.store._held.values()}
    assert [t.shape for t in tensors() if id(t) not in before | in_store] == []
    harness.worked(harness.ask("magic", shell, "%interp clear"))
    assert [t.shape for t in tensors() if id(t) not in before] == []
    for result in kept:
        for value in vars(result).values():
            assert not holds_tensor(value)
            assert getattr(value, "base", None) is None or value.base.nbytes <= value.nbytes


def test_row_46_the_store_keeps_to_its_budget(shell, lend):
    model = lend("gpt2")
    shell.run_cell("%config Interp.store_budget = 20000")
    for n in range(turns(30)):
        for name in harness.bodied():
            harness.worked(harness.ask("magic", shell, harness.valid(name, text=f"Mary {n}")))
            assert model.store.ledger().ram_bytes <= 20_000
            assert sum(t.untyped_storage().nbytes() for t in model.store._held.values()) <= 20_000
