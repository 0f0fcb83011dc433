"""``interventions=`` in every command that takes it: the same as hooks of one's own that do the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any

import numpy as np
import pytest
import torch

import interp
from faults import harness
from faults.harness import Cell
from interp.errors import InputError
from interp.results import Result
from interp.sites import Site
from interp.spec import Intervention

pytestmark = pytest.mark.usefixtures("one_thread")

# What runs the model and takes none: it makes something for the model as it is, has no way with hooks, or is made
# of steps of which some take none.
AS_IT_IS = frozenset({"features-load", "features-train", "lens-train", "trace", "diff", "claim", "investigate"})
# What is read off the weights or off the tokenizer.
UNRUN = frozenset({"tokens", "ov", "qk", "compose", "features"})

# What a small random dictionary finds nothing in.
SILENT = frozenset({"feature", "features-label"})


def taking() -> list[str]:
    return [name for name, command in harness.commands().items() if command.changes]


def zeroed(tensor: torch.Tensor, hook: Any = None) -> torch.Tensor:  # noqa: ARG001
    changed = tensor.clone()
    changed[:, :, 1] = 0
    changed[:, 2:3] = changed[:, 2:3] * 1.5
    return changed


CHANGES = [
    Intervention(Site("z", 0), head=1, mode="zero"),
    Intervention(Site("z", 0), position=2, mode="scale", value=1.5),
]


def arrays(value: Any, name: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Yield every array and number of a result, by its name, but for its provenance."""
    if is_dataclass(value):
        for own, held in vars(value).items():
            if not own.startswith("_") and own != "provenance":
                yield from arrays(held, own)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        yield name, value
    elif isinstance(value, bool | int | float):
        yield name, np.array(value)
    elif isinstance(value, Mapping):
        for own, held in value.items():
            yield from arrays(held, f"{name}.{own}")
    elif isinstance(value, list | tuple):
        for own, held in enumerate(value):
            yield from arrays(held, f"{name}.{own}")


def call(cell: Cell, **more: Any) -> Any:
    outcome = harness.ask("python", None, Cell(cell.command, {**cell.arguments, **more}, cell.body))
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def cell_of(name: str) -> Cell:
    """Return a use of a command; of pairs, two prompts that differ."""
    cell = harness.valid(name)
    body = None if cell.body is None else cell.body.replace("corrupted: Mary", "corrupted: John")
    return Cell(cell.command, cell.arguments, body)


def answer(cell: Cell, **more: Any) -> Result | str:
    """Return what a call gives, or the line that it is refused with."""
    try:
        return call(cell, **more)
    except InputError as error:
        return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", taking())
def test_it_is_what_hooks_of_ones_own_are(name: str, family: str, lend: Callable[..., Any]) -> None:
    model = lend(family)
    cell = cell_of(name)
    plain = answer(cell)
    changed = answer(cell, interventions=CHANGES)
    point = model.bridge.hook_dict[Site("z", 0).hook_name]
    point.add_hook(zeroed)
    try:
        hooked = answer(cell)
    finally:
        point.remove_hooks()
    if isinstance(changed, str) or isinstance(hooked, str):
        assert isinstance(changed, str)
        assert isinstance(hooked, str)
        assert changed.replace("interventions", "") == hooked.replace("hooks of the user's own", "")
        return
    assert isinstance(plain, Result)
    assert any("interventions on it" in note for note in changed.notes)
    assert changed.provenance.user_hooks == ()
    assert changed.provenance.path == hooked.provenance.path.replace("hooks of the user's own", "interventions")
    ours, theirs, before = (dict(arrays(result)) for result in (changed, hooked, plain))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert np.allclose(value, theirs[key], atol=1e-5, equal_nan=True), key
    shared = [key for key in ours if key in before and ours[key].shape == before[key].shape]
    assert (
        name in SILENT
        or len(shared) < len(ours)
        or any(not np.allclose(ours[k], before[k], equal_nan=True) for k in shared)
    )
    again = answer(cell)  # nothing of it stays
    assert isinstance(again, Result)
    for key, value in dict(arrays(again)).items():
        assert np.allclose(value, before[key], atol=1e-5, equal_nan=True), key


def test_every_command_that_runs_the_model_takes_them() -> None:
    own = {
        name
        for name, command in harness.commands().items()
        if not command.changes and any(parameter.name == "interventions" for parameter in command.parameters)
    }
    assert set(harness.techniques()) - set(taking()) - own == AS_IT_IS | UNRUN


def test_what_is_not_there_is_refused_before_anything_runs(lend: Callable[..., Any]) -> None:
    lend("gpt2")
    cell = cell_of("patch")
    for given, said in (
        ("z", "a list of interp.Intervention"),
        ([5], "interventions are a list"),
        ([Intervention(Site("z", 9), mode="zero")], "no layer 9"),
        ([Intervention(Site("z", 0), head=7, mode="zero")], "no head 7"),
        ([Intervention(Site("z", 0), position=4000, mode="zero")], "no position 4000"),
        ([Intervention(Site("z", 0), mode="add", value="much")], "add takes a number"),
    ):
        with pytest.raises(InputError, match=said):
            call(cell, interventions=given)


def test_a_position_that_no_run_has_is_said(lend: Callable[..., Any]) -> None:
    lend("gpt2")
    cell, far = cell_of("patch"), Intervention(Site("z", 0), position=30, mode="zero")
    changed, plain = call(cell, interventions=[far]), call(cell)
    assert any("no run has position 30" in note for note in changed.notes)
    assert np.abs(changed.patched - plain.patched).max() < 1e-5


def test_noise_is_the_same_whatever_runs_beside_a_run(lend: Callable[..., Any]) -> None:
    lend("llama")
    noisy = [Intervention(Site("resid_pre", 1), mode="noise", value=0.5)]
    pairs = interp.Pair("Mary gave the drink to", "John gave the drink to", (" John",), (" Mary",))  # pyright: ignore
    one = interp.patch(pairs=[pairs], interventions=noisy, site="resid_pre", by="layer", layer=0)
    many = interp.patch(pairs=[pairs], interventions=noisy, site="resid_pre", by="position")
    alone = interp.ablate(pairs=[pairs], interventions=noisy, heads="0.0")
    assert abs(one.clean_metric - many.clean_metric) < 1e-5
    assert abs(alone.values[0] - one.clean_metric) < 1e-5


def test_what_a_result_shows_later_has_them_too(lend: Callable[..., Any]) -> None:
    model = lend("gpt2")
    options: dict[str, Any] = {"answer": " John", "wrong": " Mary"}
    prompts = "Mary gave the drink to", "John gave the drink to"
    found = interp.task(pairs=[interp.Pair(*prompts, (" John",), (" Mary",))], interventions=CHANGES)
    assert found.provenance.path.startswith("hooked")
    held = interp.patch(*prompts, **options, interventions=CHANGES)
    with pytest.raises(InputError, match="interventions"):
        held.likeliest((0, 0))
    assert model.operation is None
