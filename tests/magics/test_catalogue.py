"""Help in groups: every command is in one, and has a cell that runs as it is typed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import interp
from faults import harness
from interp.interface import catalogue, registry
from interp.results import Result

REVIEWS = "text,mood\n" + "".join(
    f"a {word} {noun},{mood}\n"
    for word, mood in (("great", "good"), ("lovely", "good"), ("dull", "bad"), ("bad", "bad"))
    for noun in ("film", "book", "song", "game", "play")
)


def test_every_command_is_in_one_group_and_has_a_cell() -> None:
    listed = [name for names in catalogue.GROUPS.values() for name in names]
    assert sorted(listed) == sorted(name for name, found in registry.commands().items() if is_own(found))
    assert all(catalogue.cells(name) for name in listed)


def is_own(found: registry.Command) -> bool:
    return found.function.__module__.startswith("interp.")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_session: Any) -> Iterator[None]:
    """Work where there is a file of reviews, on the bundled model."""
    (tmp_path / "reviews.csv").write_text(REVIEWS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    clean_session.load(device="cpu")
    yield
    interp.disconnect()


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", [name for names in catalogue.GROUPS.values() for name in names])
def test_every_cell_of_the_help_runs(name: str, shell: Any) -> None:
    found = [harness.worked(harness.ask("magic", shell, cell)) for cell in catalogue.cells(name)]
    if isinstance(found[-1], Result):
        assert found[-1].provenance.technique == name


def test_help_is_grouped_and_nothing_of_it_is_cut(shell: Any) -> None:
    found = harness.worked(harness.ask("magic", shell, "%interp help"))
    assert [row[0] for row in found.rows if row[0]] == [*catalogue.GROUPS]
    assert len(found.rows) == len(registry.commands())
    assert all(row[2] for row in found.rows)
    assert all(row[2] in found.html() for row in found.rows if "'" not in row[2])
    for name in registry.commands():
        page = interp.help(name)
        for cell in catalogue.cells(name):
            assert cell in page.text()
            assert "interp-typed" in page.html()


def test_help_is_data_too(shell: Any) -> None:
    found = harness.worked(harness.ask("magic", shell, "%interp help --json"))
    held = json.loads(found.text())
    assert {one["name"] for one in held} == set(registry.commands())
    (patch,) = [one for one in held if one["name"] == "patch"]
    (site,) = [one for one in patch["arguments"] if one["flag"] == "--site"]
    assert "resid_pre" in site["choices"] or "resid_pre" in site["help"]
    assert patch["cells"] == catalogue.cells("patch")
    (alone,) = json.loads(interp.help("patch", json=True).text())
    assert alone == patch
    assert set(found.to_frame().columns) == {"group", "name", "typed", "summary"}
