"""What every command says of itself is true: its examples run, and its results' code gives them again."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dictionaries
import interp
from faults import harness
from interp.results import Own, Result, spelled
from interp.sites import Site
from interp.spec import Intervention, Metric, Pair, Prompt

NAMES = sorted(harness.commands())


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("name", NAMES)
def test_every_example_of_the_help_runs(
    name: str, shell: Any, clean_session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dictionaries.written(tmp_path / "dictionaries", clean_session.get().geometry.d_model)
    if not harness.commands()[name].needs_model:  # one of its own, which it may put another in place of, or unload
        clean_session.models.clear()
        interp.load()
    notes = harness.worked(harness.ask("magic", shell, f"%interp help {name}")).notes
    examples = [note.removeprefix("in Python: ") for note in notes if note.startswith("in Python: ")]
    assert examples, f"{name} has no example"
    assert not any("doctest" in example for example in examples)
    harness.worked(harness.ask("magic", shell, "import interp"))
    values = [harness.worked(harness.ask("magic", shell, example)) for example in examples]
    assert values[-1] is not None
    assert any(f"interp.{name.replace('-', '_')}(" in example for example in examples)


@pytest.fixture
def bundled(clean_session: Any) -> Any:
    """Return the bundled model as the current one."""
    if not _LOADED:
        _LOADED.append(clean_session.load())
    clean_session.models[_LOADED[0].name] = _LOADED[0]
    clean_session.current = _LOADED[0].name
    return _LOADED[0]


_LOADED: list[Any] = []


@pytest.mark.slow
@pytest.mark.parametrize("door", harness.DOORS)
@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_every_result_gives_it_again(name: str, door: str, shell: Any, lend: Any, folder: Any) -> None:
    model = lend("gpt2")
    cell = harness.valid(name)
    if name in {"load", "unload"}:
        harness.worked(harness.ask("magic", shell, f"%interp load {folder('neox')} --name own"))
    first = harness.worked(harness.ask(door, shell, cell))
    if not isinstance(first, Result) or name in {"clear", "status", "unload"}:  # what they say, they change
        return
    # What is an object of the notebook's is named in the code, not written down.
    held = {
        p.name: cell.arguments[p.name]
        for p in harness.commands()[name].parameters
        if p.names in {"variable", "saved result"} and p.required
    }
    code, _, said = first.code().partition("  # first: ")
    assert bool(said) == bool(held), code
    again = eval(code, {"interp": interp, **held})
    assert harness.answer(again) == harness.answer(first), code
    assert again.code() == first.code()
    command = harness.commands()[name]
    if command.needs_model:
        named = harness.worked(harness.ask(door, shell, harness.valid(name, **{command.model: model.name})))
        assert f"{command.model}={model.name!r}" in named.code()


@pytest.mark.parametrize("name", harness.techniques())
def test_every_result_can_be_copied_and_pickled(name: str, shell: Any, lend: Any) -> None:
    lend("gpt2")
    first = harness.worked(harness.ask("python", shell, harness.valid(name)))
    for again in (copy.copy(first), copy.deepcopy(first)):
        assert harness.answer(again) == harness.answer(first)
        assert again._live is first._live
    back = pickle.loads(pickle.dumps(first))
    assert harness.answer(back) == harness.answer(first)
    assert back.html() == first.html()
    assert back._live is None  # another process has another model


TABLE = pd.DataFrame({"text": ["the cat sat", "Mary went", "the cat ran", "Mary sat"], "label": list("abab")})


def half(logits: Any) -> Any:
    return logits[:, 0] / 2


def test_what_cannot_be_written_down_is_named(lend: Any) -> None:
    lend("gpt2")
    vector = np.ones(32, np.float32)
    found = interp.probe(list(TABLE["text"]), list(TABLE["label"]), folds=2, shuffles=1)
    for result, names, said in (
        (interp.steer("a b", direction=vector, n=2), {"direction": vector}, "direction = your ndarray (32,)"),
        (interp.steer("a b", direction=found, n=2), {"direction": found}, "direction = your ProbeResult"),
        (interp.patch(task="ioi", n=2, metric=half), {"half": half}, "half = your function"),
        (interp.probe(TABLE, folds=2), {"texts": TABLE}, "texts = your DataFrame (4, 2)"),
    ):
        code = result.code()
        assert code.partition("  # first: ")[2] == said
        again = eval(code, {"interp": interp, **names})
        assert harness.answer(again) == harness.answer(result)


def test_prompts_and_pairs_are_written_whole(lend: Any) -> None:
    lend("gpt2")
    pairs = [Pair(Prompt("Mary gave the drink to"), Prompt("John gave the drink to"), (" Mary",), (" John",))]
    calls = [
        interp.attention(Prompt("a b", bos=True)),
        interp.attention(np.array([3, 4, 5])),
        interp.ablate([Prompt("the cat sat", bos=True), "Mary went"], heads="0.0"),
        interp.patch(pairs=pairs),
        interp.patch("Mary gave the drink to", "John gave the drink to", answer=" Mary", wrong=" John"),
        interp.patch(pairs=interp.task("ioi", n=2).pairs),
        interp.generate("a b", n=2, interventions=[Intervention(Site("z", 1), head=0, mode="zero")]),
    ]
    for result in calls:
        again = eval(result.code(), {"interp": interp})
        assert harness.answer(again) == harness.answer(result), result.code()
    compared = interp.compare(interp.predict("a b"), interp.predict("a c", top=3))
    pd.testing.assert_frame_equal(eval(compared.code(), {"interp": interp}).to_frame(), compared.to_frame())
    table = interp.probe(TABLE, folds=2, shuffles=1)
    other = interp.probe(TABLE.copy(), folds=2, shuffles=1, seed=1)
    assert interp.compare(table, other).notes == ("seed: None in a, 1 in b", "texts is not the same")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "None"),
        (np.float32(0.5), "0.5"),
        (float("nan"), "float('nan')"),
        ((1,), "(1,)"),
        ({"a": [1, Path("b")]}, "{'a': [1, 'b']}"),
        (range(3), "range(0, 3)"),
        (Prompt(ids=(1, 2)), "interp.Prompt(ids=(1, 2))"),
        (Metric("rank"), "interp.Metric(name='rank')"),
        ([np.ones(3)], None),
        ({"a": print}, None),
        (Intervention(Site("z", 0), mode="add", value=np.ones(3)), None),
        (Own("model"), None),
    ],
)
def test_values_are_written_as_code(value: Any, code: str | None) -> None:
    assert spelled(value) == code
