"""Row 44: the store's files fail in every way, and every command answers as if there had been none."""

from __future__ import annotations

from typing import Any

import pytest

from faults import harness
from interp.engine.model import store as module
from interp.errors import InputError
from interp.interface.session import session


@pytest.fixture
def spilling(folder: Any, clean_session: Any) -> Any:
    """Return ``spilling(budget)``: a model whose activations go to files once they take `budget` bytes."""

    def of(budget: int) -> Any:
        model = clean_session.load(folder("gpt2"), device="cpu", name="own", spill=0.05)
        model.store.set_budget(budget)
        return model

    return of


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """What each command answers with all its activations in memory."""
    return {}


@pytest.mark.parametrize("fault", ["none", "flipped", "gone", "full"])
def test_row_44_every_command_answers_from_a_failing_disk(
    fault: str, shell: Any, spilling: Any, answers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = spilling(2000)
    assert model.store.ledger().disk_budget == 50_000_000
    whole, written = module.save_file, []

    def save(tensors: Any, path: Any, metadata: Any = None) -> None:
        whole(tensors, path, metadata=metadata)
        content = path.read_bytes()
        written.append(path)
        if fault == "flipped":
            at = len(content) - 1 - len(written) % min(64, len(content) // 2)
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        elif fault == "full":  # at another byte each time
            path.write_bytes(content[: (997 * len(written)) % len(content)])
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", save)
    hooked, logits = harness.census(model), harness.forward(model)
    for name in harness.techniques():
        model.store.clear()
        if name not in answers:
            model.store.set_budget(1 << 28)
            answers[name] = harness.answer(harness.worked(harness.ask("magic", shell, harness.valid(name))))
            model.store.clear()
        model.store.set_budget(2000)
        for _ in range(2):
            if fault == "gone" and model.store._folder is not None:
                for path in model.store._folder.glob("*"):
                    path.unlink()
            found = harness.worked(harness.ask("magic", shell, harness.valid(name)))
            assert harness.answer(found) == answers[name], name
        if fault == "full":
            assert model.store.ledger().disk_bytes == 0
            assert model.store._folder is None or not list(model.store._folder.iterdir())
    account = model.store.ledger()
    assert written
    assert (account.damaged > 0) == (fault in {"flipped", "gone"})
    assert harness.census(model) == hooked
    assert harness.forward(model).equal(logits)


def test_row_44_the_flag(shell: Any, folder: Any) -> None:
    harness.worked(harness.ask("magic", shell, f"%interp load {folder('gpt2')} --name own --spill 0.25"))
    assert session.get().store.ledger().disk_budget == 250_000_000
    harness.worked(harness.ask("magic", shell, f"%interp load {folder('gpt2')} --name own"))
    assert session.get().store.ledger().disk_budget == 0
    loaded = session.get()
    harness.refused(harness.ask("magic", shell, f"%interp load {folder('gpt2')} --name own --spill -1"), "gigabytes")
    with pytest.raises(InputError, match="gigabytes"):
        session.load(folder("gpt2"), spill=float("nan"))
    assert session.get() is loaded
