"""Results from files: the object that was saved, its views and its call; what does not fit is refused in one line."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import interp
from interp.errors import InputError
from interp.interface import saved
from interp.results import Own
from interp.results.code import exact, from_exact, spelled
from interp.spec import Pair, Prompt
from results import made

FORMATS = (".json", ".npz")
TEXT = "Mary gave the drink to"
each_format = pytest.mark.parametrize("suffix", FORMATS)


def page(result: Any) -> str:
    """Return a picture, less the names of its own that tell it from another one on the same page."""
    return re.sub(r"i[0-9a-f]{8}(?=\W)", "", result.html())


def again(result: Any, folder: Path, suffix: str) -> Any:
    found = interp.load_result(result.save(folder / f"r{suffix}"))
    assert list(made.differences(result, found)) == []
    assert (page(found), found.text(), found.code()) == (page(result), result.text(), result.code())
    if result._svg is not None:
        for theme in ("light", "dark"):
            assert found.svg(theme) == result.svg(theme)
    return found


@pytest.mark.slow
@each_format
@pytest.mark.parametrize("name", made.names())
def test_the_result_of_every_command_comes_back(
    name: str, suffix: str, lend: Callable[..., Any], shell: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    lend("gpt2")
    result, _ = made.result_of(name, "magic", shell)
    found = again(result, tmp_path, suffix)
    if type(result).to_frame is not interp.Result.to_frame:
        assert found.to_frame().equals(result.to_frame())
    assert (result._widget is None) or found.widget is not None
    assert again(found, tmp_path, suffix).provenance == found.provenance


@pytest.mark.slow
@each_format
def test_results_of_more_kinds_come_back(suffix: str, lend: Callable[..., Any], tmp_path: Path) -> None:
    """Over many prompts, sampled, traced, by position, a comparison, a forecast, a verification."""
    lend("gpt2")
    pair = Pair(Prompt("Mary gave the drink"), Prompt("John gave the drink"), (" Mary",), (" John",))
    two = [TEXT, "John gave the drink to"]
    results = [
        interp.attention(two),
        interp.predict(two, answer=" Mary"),
        interp.lens(two),
        interp.dla(two, answer=" Mary", wrong=" John"),
        interp.saliency(two, answer=" Mary"),
        interp.generate(TEXT, n=3, samples=2, temperature=1.0),
        interp.generate(TEXT, n=3, trace=True),
        interp.patch(pairs=[pair], by="position"),
        interp.compare(interp.patch(pairs=[pair]), interp.patch(pairs=[pair])),
        interp.compare(interp.attention(TEXT), interp.attention(two[1])),
        interp.patch(pairs=[pair], dry_run=True),
        interp.patch(pairs=[pair]).verify(),
        interp.circuit(pairs=[pair], edges=20),
        interp.neurons("0.1", two),
    ]
    for result in results:
        again(result, tmp_path, suffix)


def test_every_result_class_of_ours_is_known() -> None:
    """Read off the source: what a class statement says, `kinds` has, but for those that only share fields."""
    source = Path(interp.__file__).parent
    declared = {
        node.name: {getattr(base, "id", "") for base in node.bases}
        for path in source.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    results = {"Result"}
    while more := {name for name, bases in declared.items() if bases & results} - results:
        results |= more
    assert results - {"Result", "EffectsResult", "PatchedResult"} == set(saved.kinds())


def test_classes_are_told_apart_by_their_fields() -> None:
    """A file without a header says its class by what it holds."""
    seen: dict[frozenset[str], str] = {}
    for name, kind in saved.kinds().items():
        held = frozenset(field.name for field in dataclasses.fields(kind) if not field.name.startswith("_"))
        assert seen.setdefault(held, name) == name


# -- what a call was given -----------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(PLAIN)
def test_arguments_come_back_with_their_types(value: Any) -> None:
    found = from_exact(json.loads(json.dumps(exact(value))))
    assert list(made.differences(value, found)) == []
    assert spelled(found) == spelled(value)


def test_interps_own_words_come_back_and_what_is_not_kept_is_named() -> None:
    pair = Pair("A [B]{x}", [1, 2], "C", (5, "D"))
    change = Prompt(ids=(1, 2), types=(0, 1))
    for value in (pair, change, [pair], {"a": (Prompt("x", truncate=True),)}, range(2, 9, 3)):
        assert from_exact(json.loads(json.dumps(exact(value)))) == value
    array, own = np.zeros((2, 3)), Own("CircuitResult")
    assert from_exact(exact(array)) == Own("ndarray (2, 3)")
    assert from_exact(exact(own)) == own
    assert from_exact(exact(made.names)) == Own("function", "names")


@each_format
def test_a_call_with_things_of_the_users_is_written_down_as_before(
    suffix: str, lend: Callable[..., Any], tmp_path: Path
) -> None:
    lend("gpt2")

    def gap(logits: Any) -> Any:
        return logits[:, 5] - logits[:, 6]

    pair = Pair(Prompt("Mary gave the drink"), Prompt("John gave the drink"), (" Mary",), (" John",))
    result = interp.patch(pairs=[pair], metric=gap, layer=1)
    found = interp.load_result(result.save(tmp_path / f"r{suffix}"))
    assert list(made.differences(result, found)) == [".provenance.arguments['metric']: function and Own"]
    assert (found.html(), found.text(), found.code()) == (result.html(), result.text(), result.code())
    assert "metric=gap" in found.code()
    assert "# first: gap = your function" in found.code()
    assert found.provenance.arguments["pairs"] == (pair,)


def test_readers_of_the_fields_alone_find_them_as_before(lend: Callable[..., Any], tmp_path: Path) -> None:
    lend("gpt2")
    result = interp.attention(TEXT)
    data = json.loads(result.save(tmp_path / "a.json").read_text("utf-8"))
    assert {*data} - {"interp"} == {field.name for field in dataclasses.fields(result) if field.name != "_live"}
    assert np.array_equal(np.array(data["pattern"], np.float32), result.pattern)
    with np.load(result.save(tmp_path / "a.npz"), allow_pickle=False) as held:
        assert np.array_equal(held["pattern"], result.pattern)
        assert np.array_equal(held["stats_entropy"], result.stats["entropy"])
        assert json.loads(str(held["meta"]))["tokens"] == list(result.tokens)


def test_loading_says_where_a_result_belongs(tmp_path: Path, shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("p.json", Path("p.npz"), "missing/P.JSON"):
        with pytest.raises(InputError, match=r"is no model's but a result's; interp\.load_result\("):
            interp.load(name)
    assert "load_result" in str(shell.run_cell("%interp load p.json").error_in_exec)


# -- hostile files -------------------------------------------------------------------------------------------------


@pytest.fixture
def held(lend: Callable[..., Any], tmp_path: Path) -> dict[str, Any]:
    lend("gpt2")
    return json.loads(interp.attention(TEXT).save(tmp_path / "good.json").read_text("utf-8"))


def refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        interp.load_result(path)
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    assert len(said) <= 400
    for word in words:
        assert word in said


def change(at: str, value: Any) -> Callable[[Any], Any]:
    def done(data: Any) -> Any:
        *path, last = at.split("/")
        owner = data
        for key in path:
            owner = owner[int(key) if isinstance(owner, list) else key]
        owner[int(last) if isinstance(owner, list) else last] = value
        return data

    return done


DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda _: [1], "no JSON object"),
        (lambda _: {}, "is no result's file"),
        (lambda _: {"interp": 3}, "is no result's file"),
        (lambda data: {**data, "interp": []}, "is no result's file"),
        (lambda data: {"interp": data["interp"]}, "damaged"),
        (lambda data: {**data, "more": 1}, "unknown more"),
        (lambda data: {name: value for name, value in data.items() if name != "pattern"}, "damaged"),
        (change("interp/class", "Popen"), "no result of interp"),
        (change("interp/class", "Result"), "no result of interp"),
        (change("interp/class", "subprocess:Popen"), "no result of interp"),
        (change("interp/class", ["AttentionResult"]), "no result of interp"),
        (change("interp/class", "LensResult"), "damaged"),
        (change("interp/schema", 99), "later version"),
        (change("interp/schema", "x"), "later version"),
        (change("interp/arrays/0/dtype", "object"), "an array of 'object'"),
        (change("interp/arrays/0/dtype", "int64"), "damaged"),
        (change("interp/arrays/0/shape", [10**9, 10**9]), "damaged"),
        (change("interp/arrays/0/shape", [-1]), "damaged"),
        (change("interp/arrays/0/at", ["provenance", "nowhere", "x"]), "damaged"),
        (change("interp/arrays/0/at", []), "damaged"),
        (change("interp/arrays", {"a": 1}), "damaged"),
        (change("interp/exact/0/value", {"of": "Popen", "fields": {"args": "true"}}), "no value of a call"),
        (change("interp/exact/0/value", {"of": "Prompt", "fields": {"no_such": 1}}), "damaged"),
        (change("interp/exact/0/value", {"tuple": [1], "more": 2}), "no value of a call"),
        (change("interp/exact/0/value", [1]), "is not a Mapping"),
        (change("interp/results", [{"at": ["pattern"], "class": "AttentionResult"}]), "damaged"),
        (change("pattern", "x" * 10_000_000), "damaged"),
        (change("pattern", DEEP), "damaged"),
        (change("tokens", DEEP), "is not str"),
        (change("tokens", ["x" * 10_000_000, 5]), "is not str"),
        (change("tokens", "abc"), "is not a list"),
        (change("tokens", ["a"]), "damaged"),
        (change("layers", [0.5, 1]), "is not int"),
        (change("layers", [True, 1]), "is not int"),
        (change("provenance", None), "damaged"),
        (change("provenance/seconds", "1e5"), "no number"),
        (change("notes", [None]), "is not str"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_in_one_line(
    damage: Any, word: str, held: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(damage(held)), "utf-8")
    refused(file, word)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b"PK\3\4 and no more", "cannot be read"),
        (b'"' + b"x" * 10_000_000 + b'"', "no JSON object"),
        (b"9" * 10_000_000, "is not JSON"),
    ],
)
def test_what_is_no_file_of_ours_is_refused_in_one_line(content: bytes, word: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(content)
    refused(file, word)


def of_arrays(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


class Touch:
    """Unpickling this writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return (Path.touch, (Path(self.marker),))


def test_npz_files_that_do_not_fit_are_refused_and_nothing_is_unpickled(
    lend: Callable[..., Any], tmp_path: Path
) -> None:
    lend("gpt2")
    with np.load(interp.attention(TEXT).save(tmp_path / "good.npz")) as archive:
        good: dict[str, Any] = dict(archive)
    file, marker = tmp_path / "bad.npz", tmp_path / "touched"
    for arrays, word in (
        ({**good, "pattern": np.array([Touch(marker)], dtype=object)}, "pickled objects"),
        ({**good, "meta": np.array([Touch(marker)], dtype=object)}, "pickled objects"),
        ({**good, "pattern": good["pattern"].astype(np.int64)}, "not the array that the file announces"),
        ({**good, "pattern": good["pattern"][:1]}, "not the array that the file announces"),
        ({**good, "pattern": np.array(["x"])}, "not the array that the file announces"),
        ({name: array for name, array in good.items() if name != "pattern"}, "damaged"),
        ({name: array for name, array in good.items() if name != "meta"}, "no result's file"),
        ({**good, "meta": np.array("{")}, "cannot be read"),
        ({**good, "meta": np.array(5)}, "no result's file"),
        ({**good, "interp": np.array("[" * 100_000)}, "cannot be read"),
        ({"a": np.zeros(3)}, "no result's file"),
        ({**good, "pattern": np.zeros((1 << 28,), np.float32)}, "would take"),
    ):
        file.write_bytes(of_arrays(**arrays))
        refused(file, word)
    assert not marker.exists()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("meta.npy", b"no array")
    refused(file, "no result's file")
