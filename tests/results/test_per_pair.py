"""Numbers of single pairs in Parquet: what is written is what was measured, and what stays there is read from there."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import interp
from interp.errors import InputError
from interp.results import Result, per_pair

CALLS: dict[str, Callable[..., Any]] = {
    "patch": lambda **more: interp.patch(task="ioi", n=5, **more),
    "span": lambda **more: interp.patch(task="ioi", n=5, by="span", site="resid_pre", **more),
    "path": lambda **more: interp.path(task="ioi", n=5, from_="heads", to="2.0.q,logits", **more),
    "mediate": lambda **more: interp.mediate(task="ioi", n=5, **more),
    "ablate": lambda **more: interp.ablate(task="ioi", n=5, heads="0.0,1.0", **more),
    "circuit": lambda **more: interp.circuit(task="ioi", n=5, **more),
}
FIELDS = {
    "patch": {"patched": "per_pair"},
    "span": {"patched": "per_pair"},
    "mediate": {"indirect": "per_pair_indirect", "direct": "per_pair_direct"},
    "ablate": {"value": "per_prompt"},
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    interp.load()
    return tmp_path


@pytest.mark.parametrize("name", CALLS)
def test_the_file_has_every_number_and_its_labels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_pair, "_GROUP", 37)  # several groups of rows
    found = CALLS[name](out="pairs.parquet")
    assert any("also in pairs.parquet" in note for note in found.notes)
    held = pd.read_parquet("pairs.parquet")
    pd.testing.assert_frame_equal(held, found.pairs_frame())
    assert pq.ParquetFile("pairs.parquet").metadata.num_row_groups == -(-len(held) // 37)
    for column, field in FIELDS.get(name, {}).items():
        assert np.array_equal(held[column].to_numpy(), getattr(found, field).reshape(-1))
    if name == "path":
        by = {(row.pair, row.sender, row.receiver): row.patched for row in held.itertuples()}
        assert len(by) == 5 * found.exists.sum()
        for pair, s, r in np.argwhere(np.broadcast_to(found.exists, found.per_pair.shape)):
            assert by[pair, found.senders[s], found.receivers[r]] == found.per_pair[pair, s, r]
    if name == "circuit":
        row = held.iloc[7]
        at = found.writers.index(row.writer), found.readers.index(row.reader)
        assert found.per_pair[row.pair, *at] == row.score
        assert len(held) == 5 * found.exists.sum()
    if name == "patch":
        assert np.array_equal(held.clean[held.pair == 3].unique(), [found.checks.clean_metric[3]])
    if name == "span":
        assert set(held.span) == set(found.positions)


@pytest.mark.parametrize("name", FIELDS)
def test_many_stay_in_the_file_and_are_read_from_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: Any = CALLS[name]()
    monkeypatch.setattr(per_pair, "HELD", 100)
    monkeypatch.setattr(per_pair, "_GROUP", 11)
    found: Any = CALLS[name](out="pairs.parquet")
    assert any("in pairs.parquet alone" in note for note in found.notes)
    for suffix in ("json", "npz"):
        again: Any = interp.load_result(str(found.save(f"result.{suffix}")))
        for result in (found, again):
            for field in FIELDS[name].values():
                filed, array = getattr(result, field), getattr(whole, field)
                assert isinstance(filed, per_pair.Filed)
                assert (len(filed), filed.shape, filed.ndim, filed.size) == (
                    len(array),
                    array.shape,
                    array.ndim,
                    array.size,
                )
                assert np.array_equal(np.asarray(filed), array)
                assert np.array_equal(filed[1], array[1])
                assert np.array_equal(filed[-1], array[-1])
                assert np.array_equal(filed[:, 1], array[:, 1])
            frame = result.to_frame()
            pd.testing.assert_frame_equal(frame, whole.to_frame())
            first = next(iter(whole.pairs_frame().columns))
            label = whole.pairs_frame()[first].iloc[-1]
            chosen = whole.pairs_frame(**{first: label})
            assert 0 < len(chosen) < len(whole.pairs_frame())
            pd.testing.assert_frame_equal(result.pairs_frame(**{first: label}), chosen)
            assert result.html()
    assert found.verify().state == "holds"


def test_a_file_that_is_gone_or_another_results_is_said_to_be(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_pair, "HELD", 0)
    found = CALLS["patch"](out="pairs.parquet")
    found.save("result.json")
    (here / "elsewhere").mkdir()
    os.rename("result.json", "elsewhere/result.json")
    assert not any("which is not in" in note for note in interp.load_result("elsewhere/result.json").notes)
    os.rename("pairs.parquet", "elsewhere/pairs.parquet")
    moved: Any = interp.load_result("elsewhere/result.json")
    assert np.asarray(moved.per_pair).shape == (5, 4, 4)
    interp.patch(task="ioi", n=5, seed=1).save("elsewhere/pairs.parquet")
    with pytest.raises(InputError, match="another result"):
        np.asarray(moved.per_pair)
    os.remove("elsewhere/pairs.parquet")
    lost: Any = interp.load_result("elsewhere/result.json")
    assert any("put it there, or run the call again" in note for note in lost.notes)
    with pytest.raises(InputError, match=re.escape("'pairs.parquet', which is not in")):
        np.asarray(lost.per_pair)


def test_a_damaged_result_file_names_no_other_place(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_pair, "HELD", 0)
    path = CALLS["patch"](out="pairs.parquet").save("result.json")
    for change in ({"parquet": "../pairs.parquet"}, {"shape": [-1, 4, 4]}, {"dtype": "object"}, {"digest": 5}):
        held = json.loads(path.read_text())
        held["per_pair"] |= change
        (here / "bad.json").write_text(json.dumps(held))
        with pytest.raises(InputError, match="damaged"):
            interp.load_result("bad.json")


@pytest.mark.parametrize(
    ("out", "says"),
    [("pairs.csv", "pairs.parquet"), ("nowhere/pairs.parquet", "there is no folder"), ("../x.parquet", "climbs out")],
)
def test_where_nothing_can_be_written_nothing_is_run(out: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.engine.patching import sweep

    monkeypatch.setattr(sweep, "sweep", lambda *_, **__: pytest.fail("it ran"))
    with pytest.raises(InputError, match=says):
        CALLS["patch"](out=out)


def test_without_pyarrow_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=re.escape("pip install 'interp[data]'")):
        CALLS["patch"](out="pairs.parquet")


def test_a_full_disk_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    found = CALLS["patch"](out="pairs.parquet")
    assert any("No space left" in note and "tries again" in note for note in found.notes)
    assert isinstance(found.per_pair, np.ndarray)
    assert not list(Path().iterdir())


def test_what_has_no_pairs_says_so() -> None:
    found: Result = interp.predict("The cat")
    with pytest.raises(InputError, match="no numbers of single pairs"):
        found.save("pairs.parquet")
    made = interp.patch(task="ioi", n=4)
    with pytest.raises(InputError, match=r"no column .heads. \(did you mean head"):
        made.pairs_frame(heads=1)
    with pytest.raises(InputError, match="no head is 9"):
        made.pairs_frame(head=9)


def test_one_file_is_not_written_for_several_models() -> None:
    with pytest.raises(InputError, match="leave one of them out"):
        interp.patch(task="ioi", n=4, out="pairs.parquet", over="bundled")


def test_a_magic_writes_it_too(shell: Any, here: Path) -> None:
    shell.run_line_magic("interp", "load")
    shell.run_line_magic("interp", "patch --task ioi -n 4 --out pairs.parquet -o found")
    assert np.array_equal(
        pd.read_parquet(here / "pairs.parquet").patched.to_numpy(), shell.user_ns["found"].per_pair.reshape(-1)
    )
