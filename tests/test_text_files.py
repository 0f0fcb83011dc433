"""`interp.files`: what cannot be read or written is said in one line, and nothing that was there is lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from interp import files, reading
from interp.errors import InputError, closest
from interp.methods._shared import texts

DEEP = "[" * 100_000


def one_line(refusal: Any) -> str:
    said = str(refusal.value)
    assert "\n" not in said
    assert 0 < len(said) <= 400
    return said


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (b"x.json", "is a text"),
        (3, "is a text"),
        (None, "is a text"),
        ("", "blank"),
        (" ", "blank"),
        ("a\0b", "NUL"),
        ("\ud800.json", "surrogate"),
        ("~nosuchuser/x.json", "full path"),
        ("x" * 256 + ".json", "255 bytes"),
        ("é" * 128 + ".json", "255 bytes"),
        ("/".join(["x" * 200] * 25), "255 bytes"),
    ],
)
def test_a_path_that_none_can_be_is_refused(given: Any, says: str) -> None:
    for ask in (files.path_of, files.writable, lambda one: files.read(one, "type another")):
        with pytest.raises(InputError) as refusal:
            ask(given)
        assert says in one_line(refusal)


@pytest.mark.parametrize("place", ["/proc/self/mem", "/proc/cpuinfo", "/dev/zero", "/dev/null", "/"])
def test_what_has_no_size_is_not_read(place: str) -> None:
    with pytest.raises(InputError) as refusal:
        texts.from_file(place)
    assert place in one_line(refusal)


@pytest.mark.parametrize(
    "content", [DEEP, '{"a":' * 100_000, "1" * 5000, "{", "", b"\xff\xfe", '{"a": 1} x', "[" * 50 + "]" * 49]
)
def test_what_is_no_json_is_said(content: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError) as refusal:
        files.read_json(file, "save it again")
    assert "is not JSON" in one_line(refusal)
    assert "save it again" in str(refusal.value)


def test_every_json_that_is_read_may_be_nested_too_deeply(tmp_path: Path) -> None:
    import interp
    from interp.engine.model import load

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for place in ("x.json", "x.jsonl", "a/config.json", "b/adapter_config.json"):
        (tmp_path / place).write_text(DEEP)
    for ask in (
        lambda: texts.from_file(tmp_path / "x.json"),
        lambda: texts.from_file(tmp_path / "x.jsonl"),
        lambda: interp.load_circuit(tmp_path / "x.json"),
        lambda: load.load(tmp_path / "a", options=load.Options()),
        lambda: load.load(tmp_path / "b", options=load.Options()),
    ):
        with pytest.raises(InputError) as refusal:
            ask()
        assert "nested" in one_line(refusal)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_cell_keeps_every_character(character: str, end: str, tmp_path: Path) -> None:
    cell = f"one{character}two"
    for kind, separator in ((".csv", ","), (".tsv", "\t")):
        file = tmp_path / f"x{kind}"
        file.write_bytes(f"text{separator}label{end}{cell}{separator}a{end}three{separator}b{end}".encode())
        assert list(reading.of_file(file)) == [{"text": cell, "label": "a"}, {"text": "three", "label": "b"}]
    plain = tmp_path / "x.txt"
    plain.write_bytes(f"{cell}{end}{end}three".encode())
    assert list(reading.of_file(plain)) == [cell, "three"]
    lines = tmp_path / "y.txt"
    lines.write_bytes(end.join([cell] * 9).encode())
    assert list(reading.of_file(lines)) == [cell] * 9


def test_a_cell_may_be_long_and_the_limit_of_others_stays(tmp_path: Path) -> None:
    import csv

    file = tmp_path / "x.csv"
    file.write_text(f"text\n{'a' * 200_000}\n")
    before = csv.field_size_limit()
    assert [len(row["text"]) for row in list(reading.of_file(file))] == [200_000]
    assert csv.field_size_limit() == before


def test_lines_are_texts_where_no_line_is_blank_and_it_is_said(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(f"The cat number {n} sat." for n in range(30)) + "\n")
    found = texts.from_file(file)
    assert len(found.texts) == 30
    assert "no blank line" in found.notes[0]
    file.write_text("A poem\nof three\nlines\n")
    assert [one.text for one in texts.from_file(file).texts] == ["A poem\nof three\nlines"]
    assert texts.from_file(file).notes == ()
    file.write_text("\n".join(["a line"] * 30) + "\n\nanother text")
    assert len(texts.from_file(file).texts) == 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_write_that_fails_says_so_and_keeps_the_old_file(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.json"
    file.write_text("old")

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    for module, name in ((os, "replace"), (files.tempfile, "mkstemp"), (os, "fdopen")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refuse)
            with pytest.raises(InputError) as refusal:
                files.write(file, b"new")
        assert os.strerror(code) in one_line(refusal)
        assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_name_as_long_as_can_be_is_written(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 250 + ".json")
    assert files.write(files.writable(file), b"new").read_bytes() == b"new"


@pytest.mark.parametrize(
    "message",
    [
        "no layer " + "9" * 2_000_000 + "; type one such as 5",
        "no layer " + "0-3, " * 3000 + "; type one such as 5",
        "no layer " + "ab\n" * 3000 + "; type one such as 5",
    ],
)
def test_no_message_is_long_and_each_ends_in_what_to_type(message: str) -> None:
    said = str(InputError(message))
    assert len(said) <= 400
    assert said.startswith("no layer ")
    assert said.endswith("; type one such as 5")


def test_a_word_of_megabytes_is_like_none() -> None:
    assert closest("a" * 2_000_000, ["attention"]) == ""
