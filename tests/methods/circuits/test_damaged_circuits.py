"""Files of circuits with one value changed: refused when they are read, or drawn and saved as any other."""

from __future__ import annotations

import copy
import json
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import interp
import models
from interp.errors import InputError
from interp.spec import Pair, Pairs, Prompt

OTHERS: tuple[Any, ...] = (None, "x", "9.9", -1, 10**8, 1.5, [], ["x"], {}, True, "nan", [[1]])
PACKED = ("exists", "scores", "per_pair", "per_node", "by_position", "kept")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    from interp.interface.session import session

    model = session.load(models.gpt2(len(models.tokenizer())), tokenizer=models.tokenizer(), device="cpu")
    pair = Pair(Prompt("Mary gave the drink"), Prompt("John gave the drink"), (" Mary",), (" John",))
    other = Pair(Prompt("John gave the drink"), Prompt("Mary gave the drink"), (" John",), (" Mary",))
    made = interp.circuit(Pairs((pair, other)), edges=30, positions=True)
    made.groups["early"] = ("0.1", "0.2")
    made.function_of(next(name for name in made.nodes if name not in {"embed", "logits"}))
    made = interp.validate(made, random=2, top=3).circuit
    data = json.loads(made.save(tmp_path_factory.mktemp("circuits") / "c.json").read_text())
    yield data
    session.unload(model.name)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where values are; of long lists the first, one in the middle and the last."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, held in value.items():
            yield from places(held, (*at, key))
    elif isinstance(value, list):
        for number in sorted({0, len(value) // 2, len(value) - 1} & set(range(len(value)))):
            yield from places(value[number], (*at, number))


def test_a_changed_file_is_refused_when_it_is_read_or_works_as_any_other(saved: dict[str, Any], tmp_path: Path) -> None:
    file, refused, said = tmp_path / "c.json", 0, []
    listed = [at for at in places(saved) if at[0] not in {"edges", "provenance"}]
    for number, at in enumerate(listed):
        for value in OTHERS[number % 3 :: 3]:
            data = copy.deepcopy(saved)
            owner = data
            for key in at[:-1]:
                owner = owner[key]
            owner[at[-1]] = value
            file.write_text(json.dumps(data))
            try:
                found = interp.load_circuit(file)
            except InputError as error:
                refused += 1
                said.append(str(error))
                continue
            try:
                found.html(), found.svg(), found.text(), found.to_frame(), found.graph(), found.prune(0.1)
                found.save(tmp_path / "again.json")
                if found.report is not None:
                    found.report.html(), found.report.text(), found.report.to_frame()
            except Exception as error:
                raise AssertionError(f"{at} = {value!r} was read, and then: {type(error).__name__}: {error}") from error
    assert refused > len(listed)
    assert all("\n" not in one and len(one) <= 400 for one in said)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.update(group_size=100_000_000),
        lambda data: data["readers"].__setitem__(3, "x"),
        lambda data: data["readers"].__setitem__(3, "0.99999999.q"),
        lambda data: data["writers"].__setitem__(1, "99999999.0"),
        lambda data: data["per_pair"].update(shape=[10**6, 10**6, 10**6]),
        lambda data: data.update(steps=-1),
    ],
)
def test_no_file_takes_far_more_memory_or_time_than_its_size(damage: Any, saved: Any, tmp_path: Path) -> None:
    data = copy.deepcopy(saved)
    damage(data)
    file = tmp_path / "c.json"
    file.write_text(json.dumps(data))
    tracemalloc.start()
    start = time.monotonic()
    try:
        with pytest.raises(InputError):
            interp.load_circuit(file)
        assert tracemalloc.get_traced_memory()[1] < 100 * file.stat().st_size
    finally:
        tracemalloc.stop()
    assert time.monotonic() - start < 30
