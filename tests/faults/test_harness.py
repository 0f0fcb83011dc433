"""The harness itself: every command has a cell, a new one joins by being registered, and harm does not go unseen."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from faults import harness
from interp.interface import registry
from interp.interface.registry import technique
from interp.interface.session import session
from interp.results import Result
from interp.spec import HookName, Prompt


@pytest.mark.parametrize("door", harness.DOORS)
@pytest.mark.parametrize("family", harness.FAMILIES)
@pytest.mark.parametrize("name", harness.techniques())
def test_every_technique_has_a_valid_cell(name, family, door, shell, lend):
    lend(family)
    outcome = harness.ask(door, shell, harness.valid(name, family))
    if harness.applies(name, family):
        assert isinstance(harness.worked(outcome), Result)
    else:
        harness.refused(outcome)


@pytest.mark.parametrize("name", sorted(set(harness.commands()) - set(harness.techniques())))
def test_every_session_command_has_a_valid_cell(name, shell, lend, folder):
    lend("gpt2")
    if name == "unload":  # what is lent is not to be freed
        harness.worked(harness.ask("magic", shell, f"%interp load {folder('neox')} --name own"))
    harness.worked(harness.ask("magic", shell, harness.valid(name)))


def test_a_command_joins_by_being_registered(shell, lend, monkeypatch):
    monkeypatch.setattr(registry, "_commands", dict(registry._commands))

    @technique(body=Prompt, name="fault-probe")
    def fault_probe(model, prompt: Prompt, hook: HookName, *, count: int) -> Result:
        model.encode(prompt)
        return Result(notes=(f"{hook} {count}",))

    assert "fault-probe" in harness.techniques()
    assert "fault-probe" in harness.bodied()
    lend("gpt2")
    for door in harness.DOORS:
        result = harness.worked(harness.ask(door, shell, harness.valid("fault-probe")))
        assert result.notes == ("blocks.0.hook_resid_pre 1",)
        harness.refused(harness.ask(door, shell, harness.valid("fault-probe", text="a " * 100)), "48")


def test_an_unknown_kind_of_body_or_argument_names_what_to_add(monkeypatch):
    monkeypatch.setattr(registry, "_commands", dict(registry._commands))

    class Novel: ...

    @technique(body=Novel, name="fault-body")
    def fault_body(model, novel: Novel) -> Result:  # noqa: ARG001
        return Result()

    @technique(body=None, name="fault-argument")
    def fault_argument(model, anything: str) -> Result:  # noqa: ARG001
        return Result()

    with pytest.raises(LookupError, match="BODIES"):
        harness.valid("fault-body")
    with pytest.raises(LookupError, match="VALUES"):
        harness.valid("fault-argument")


def test_harm_is_seen(shell, folder):
    session.load(folder("gpt2"), name="own")
    model = session.get()
    with pytest.raises(AssertionError, match="hook"), harness.unharmed(model, shell):
        handle = model.bridge.hook_dict["blocks.0.hook_resid_pre"].add_hook(print)
    handle.hook.remove()
    model.bridge.hook_dict["blocks.0.hook_resid_pre"].fwd_hooks.clear()
    with pytest.raises(AssertionError, match="bit-identical"), harness.unharmed(model, shell), torch.no_grad():
        next(model.bridge.parameters()).mul_(1.5)
    with pytest.raises(AssertionError, match="has changed"), harness.unharmed(model, shell):
        shell.user_ns["kept_attention"].pattern[0] += 1
    with pytest.raises(AssertionError), harness.unharmed(model, shell):
        shell.user_ns["kept_attention"] = None
    with pytest.raises(AssertionError), harness.unharmed(model, shell):
        session.current = None


def test_the_table_of_faults_and_the_tests_are_of_the_same_rows():
    here = Path(__file__).parent
    table = (here / "README.md").read_text("utf-8")
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert rows == set(range(1, len(rows) + 1))
    elsewhere = {int(number) for number in re.findall(r"\d+", table.rpartition("\n\n")[2].replace("row 47", ""))}
    tested: set[int] = set()
    for file in here.glob("test_*.py"):
        for name in re.findall(r"^def test_rows?_((?:\d+_(?:to_|and_)?)+)", file.read_text("utf-8"), re.MULTILINE):
            numbers = [int(number) for number in re.findall(r"\d+", name)]
            tested |= set(range(numbers[0], numbers[-1] + 1)) if "_to_" in name else set(numbers)
    assert tested <= rows, "a test's name has a number that the table lacks"
    assert tested | elsewhere == rows, "a row of the table has no test"
