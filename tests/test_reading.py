"""Datasets: every kind of file gives the same rows, what is odd is said in one line, and reading holds no file."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp import lazy, reading
from interp.errors import InputError
from interp.methods._shared import prompts, texts
from interp.methods._shared.python_pairs import pairs_of

ROWS = [
    {"clean": "When Mary, and", "corrupted": "When John, and", "answer": "Mary", "wrong": "John", "n": 1},
    {"clean": 'A "quoted"\nline', "corrupted": "B", "answer": "", "wrong": "x", "n": 2},
    {"clean": "Ünï – \u2028 ✓", "corrupted": "C", "answer": "y", "wrong": "z", "n": 3},
]
# Anything a file in UTF-8 can hold; a carriage return alone is a line's end to csv only outside quotes.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def as_csv(rows: list[dict[str, Any]], path: Path, separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_lines(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def packed(path: Path) -> Path:
    there = path.with_name(path.name + ".gz")
    there.write_bytes(gzip.compress(path.read_bytes()))
    return there


def as_parquet(rows: list[dict[str, Any]], path: Path) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


class Dataset(SimpleNamespace):
    """What is used of ``datasets.Dataset``."""

    def __init__(self, rows: list[dict[str, Any]], read: list[str] | None = None) -> None:
        super().__init__(rows=rows, features=None, column_names=list(rows[0]), read=[] if read is None else read)

    def with_format(self, _: None) -> Dataset:
        return self

    def select_columns(self, names: list[str]) -> Dataset:
        self.read.extend(names)
        return Dataset([{name: row[name] for name in names} for row in self.rows], self.read)

    def iter(self, batch_size: int) -> Any:
        for start in range(0, len(self.rows), batch_size):
            part = self.rows[start : start + batch_size]
            yield {name: [row[name] for row in part] for name in self.column_names}


def sources(rows: list[dict[str, Any]], folder: Path) -> list[Any]:
    """Return the rows in every kind of dataset."""
    (folder / "a.json").write_text(json.dumps(rows))
    comma, tab = as_csv(rows, folder / "a.csv"), as_csv(rows, folder / "a.tsv", "\t")
    lines = as_lines(rows, folder / "a.jsonl")
    return [
        *(comma, tab, lines, folder / "a.json", packed(comma), packed(lines)),
        *(as_parquet(rows, folder / "a.parquet"), pd.DataFrame(rows), Dataset(rows)),
    ]


def one_line(refusal: Any) -> str:
    said = str(refusal.value)
    assert "\n" not in said
    assert 0 < len(said) <= 400
    return said


def test_every_kind_of_dataset_gives_the_same_pairs_texts_and_prompts(tmp_path: Path) -> None:
    for given_ in sources(ROWS, tmp_path):
        pairs = pairs_of(given_).pairs
        assert [(p.clean.text, p.corrupted.text, p.answer, p.wrong) for p in pairs] == [
            (row["clean"], row["corrupted"], (row["answer"],) if row["answer"] else (), (row["wrong"],)) for row in ROWS
        ]
        assert len(pairs_of(given_, 2).pairs) == 2
        assert "--n takes more" in pairs_of(given_, 2).notes[0]
        assert pairs_of(given_, 3).notes == ()
        assert [one.text for one in texts.several(given_, "clean").texts] == [row["clean"] for row in ROWS]
        many: Any = prompts.several(given_)
        assert [one.text for one in many.prompts] == [row["clean"] for row in ROWS]
        assert many.wrong == (("John",), ("x",), ("z",))


def test_of_a_dataset_only_the_columns_that_are_asked_for_are_read() -> None:
    dataset = Dataset(ROWS)
    texts.several(dataset, "clean")
    assert dataset.read == ["clean"]
    with pytest.raises(InputError, match="several datasets") as refusal:
        texts.several(type("Splits", (dict,), {"column_names": {}})(train=dataset, test=dataset))
    assert "train, test" in one_line(refusal)


@pytest.mark.slow
def test_a_dataset_of_hugging_faces_own() -> None:
    import datasets

    own = datasets.Dataset.from_list(ROWS)
    streamed = own.to_iterable_dataset()
    for one in (own, own.with_format("numpy"), streamed):
        assert [p.clean.text for p in pairs_of(one).pairs] == [row["clean"] for row in ROWS]
        assert len(texts.several(one, "clean", 2).texts) == 2
    assert [one.text for one in texts.several(own["clean"]).texts] == [row["clean"] for row in ROWS]
    with pytest.raises(InputError, match=r"no column 'claen' \(did you mean clean"):
        texts.several(own, "claen")
    with pytest.raises(InputError, match="several datasets"):
        pairs_of(datasets.DatasetDict(train=own))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_a_table_comes_back_as_it_was_written(cells: list[tuple[str, str]], tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in cells]
    for path in (
        as_csv(rows, tmp_path / "h.csv"),
        as_csv(rows, tmp_path / "h.tsv", "\t"),
        as_lines(rows, tmp_path / "h.jsonl"),
        as_parquet(rows, tmp_path / "h.parquet"),
        packed(tmp_path / "h.csv"),
    ):
        read = reading.of_file(path)
        assert list(read) == rows
        assert list(read) == rows  # again, from the beginning on
        assert list(read.texts("text")) == [row["text"] for row in rows if row["text"].strip()]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.sampled_from(["a", " b", "c ", "\n", "\r\n", "\r", "\t", " ", "\x0c", "\n\n", "\u2028"]), max_size=40
    )
)
def test_plain_text_is_cut_as_all_of_it_at_once_would_be(parts: list[str], tmp_path: Path) -> None:
    content = "".join(parts)
    path = tmp_path / "h.txt"
    path.write_bytes(content.encode())
    whole = content.strip()
    blank = re.compile(r"(?>\r\n|\n|\r)[ \t]*(?>\r\n|\n|\r)\s*")
    lines = [line for line in re.split(r"\r\n|\n|\r", whole) if line.strip()]
    if len(lines) >= 8 and not blank.search(whole):
        expected = lines
    else:
        expected = [one for one in blank.split(whole) if one.strip()]
    found = [one for one in reading.of_file(path) if one.strip()]
    assert [one.strip() for one in found] == [one.strip() for one in expected]


ODD: list[tuple[str, bytes, str]] = [
    ("a.csv", b"", "is empty"),
    ("a.csv", b"\n\n", "is empty"),
    ("a.csv", b"text\n", "holds no text"),
    ("a.csv", b"title,label\nx,y\n", "no column 'text'"),
    ("a.csv", b"text,text\na,b\n", "2 columns 'text'"),
    ("a.csv", b"text\nHello, world\n", "line 2 of"),
    ("a.csv", b"id,text\n1\n", "line 2 of"),
    ("a.csv", b"text\n\xff\xfe\n", "not UTF-8 text (byte 5)"),
    ("a.csv", b'text\n"' + b"x" * (1 << 24) + b"y\n", "no table"),
    ("a.jsonl", b"", "holds no text"),
    ("a.jsonl", b'{"text": "a"}\n{"text": "b"\n', "line 2 of"),
    ("a.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "line 2 of"),
    ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', "holds int where a text should be"),
    ("a.jsonl", b'{"text": "a"}\n\n{"text": ["b"]}\n', "line 3 of"),
    ("a.json", b'{"text": "a"}', "must hold a list"),
    ("a.parquet", b"", "cannot be read as Parquet"),
    ("a.parquet", b"PAR1" + b"x" * 60 + b"PAR1", "cannot be read as Parquet"),
    ("a.csv.gz", gzip.compress(b"text\n" + b"a b\n" * 9000)[:-40], "not packed to its end"),
    ("a.csv.gz", gzip.compress(b"title\na\n"), "no column 'text'"),
    ("a.txt", b"", "holds no text"),
    ("a.txt", b" \n\n \n", "holds no text"),
]


@pytest.mark.parametrize(("name", "content", "says"), ODD, ids=[f"{name}-{says[:14]}" for name, _, says in ODD])
def test_what_is_odd_is_said_in_one_line(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as refusal:
        texts.from_file(path)
    assert says in one_line(refusal)
    assert name in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("clean,answer\na,b\n", "no column 'corrupted'"),
        ("clean,corrupted\na,b\n,c\n", "line 3 of"),
        ("clean,corrupted\n", "holds no pair"),
        ("clean,corrupted,answer\na,b,c,d\n", "put what holds the separator into double quotes"),
    ],
)
def test_a_row_that_is_no_pair_is_named(content: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(content)
    with pytest.raises(InputError) as refusal:
        pairs_of(path)
    assert says in one_line(refusal)


def test_a_packed_file_is_known_by_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(gzip.compress(b"text\na b\n"))
    assert [one.text for one in texts.from_file(path).texts] == ["a b"]
    plain = tmp_path / "b.csv.gz"
    plain.write_bytes(b"text\na b\n")
    assert [one.text for one in texts.from_file(plain).texts] == ["a b"]


def test_a_file_that_changes_while_it_is_gone_through_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "HELD", 2)
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "a b\n" * 5)
    read = texts.from_file(path).texts
    assert len(read) == 5
    path.write_text("text\n" + "a b\n" * 50)
    with pytest.raises(InputError, match="has changed"):
        list(read)


def test_without_pyarrow_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    path = as_parquet(ROWS, tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=re.escape("pip install 'interp[data]'")):
        texts.from_file(path, "clean")


def test_many_texts_are_a_sequence_that_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(f"text {n}" for n in range(100)))
    held = texts.from_file(path)
    monkeypatch.setattr(texts, "HELD", 10)
    read = texts.from_file(path)
    assert isinstance(held.texts, tuple)
    assert isinstance(read.texts, lazy.Lazy)
    assert read.notes == held.notes
    assert (len(read.texts), tuple(read.texts), read.texts[-1]) == (100, held.texts, held.texts[-1])
    assert tuple(read.texts[10:20]) == held.texts[10:20]
    assert tuple(read.texts[-5:]) == held.texts[-5:]
    assert [one for part in lazy.chunks(read.texts, 7) for one in part] == list(held.texts)
    assert len(texts.from_file(path, n=30).texts) == 30
    assert isinstance(texts.from_file(path, n=9).texts, tuple)
    with pytest.raises(IndexError):
        read.texts[100]


def _long(n: int) -> str:
    return f"The cat number {n} sat on the mat, and then it slept. {'More of it. ' * 170}"


def _csv(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write("id,text\n")
        file.writelines(f'{n},"{_long(n)}"\n' for n in range(count))


def _lines(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.writelines(f"{_long(n)}\n" for n in range(count))


def _parquet(path: Path, count: int) -> None:
    with pq.ParquetWriter(path, pa.schema({"text": pa.string()}), compression="none", use_dictionary=False) as file:
        for start in range(0, count, 1000):
            file.write_table(pa.table({"text": [_long(n) for n in range(start, start + 1000)]}))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".csv", ".txt", ".parquet"])
def test_a_large_file_is_read_and_never_held(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"large{kind}"
    {".csv": _csv, ".txt": _lines, ".parquet": _parquet}[kind](path, 25_000)
    size = path.stat().st_size
    assert size > 50e6
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        found = texts.from_file(path).texts
        assert isinstance(found, lazy.Lazy)
        tracemalloc.reset_peak()
        base = tracemalloc.get_traced_memory()[0]
        count = most = 0
        for prompt in found:
            count += len(prompt.text or "")
            most = max(most, pa.total_allocated_bytes() - before)
        peak = tracemalloc.get_traced_memory()[1] - base
    finally:
        tracemalloc.stop()
    assert count > 0.9 * size
    assert peak + most < size / 8


def test_what_is_streamed_is_decoded_across_the_edges_of_what_is_read_at_once(tmp_path: Path) -> None:
    content = "text\n" + "é✓" * 30_000 + "\n"
    path = tmp_path / "a.csv"
    path.write_bytes(content.encode())
    assert next(iter(reading.of_file(path)))["text"] == "é✓" * 30_000
    broken = content.encode()[:70_001] + b"\xff" + content.encode()[70_001:]
    path.write_bytes(broken)
    with pytest.raises(UnicodeDecodeError) as error:
        io.BytesIO(broken).read().decode()
    with pytest.raises(InputError, match=rf"byte {error.value.start}\)"):
        list(reading.of_file(path))
