"""The README's table and its Python lines, typed by hand on the bundled model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from torch.utils.tensorboard import SummaryWriter

import dictionaries
from interp.claim_language import Claimed
from interp.engine.transformer.families import FAMILIES
from interp.interface import registry
from interp.interface.session import session
from interp.spec import Pairs

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
TEXT = "When Mary and John went to the store, John gave a drink to"
PAIR = f"clean: {TEXT.replace('John gave', 'Mary gave')}\ncorrupted: {TEXT}\nanswer: John\nwrong: Mary"
CLAIM = "variable: name = {IO}\ncarried by: resid_post layer 2 at {S2}\nswap name -> the answer becomes the other name"
ROWS = re.findall(r"^\| (`%.*?) \| ", README, re.MULTILINE)


def typed(row: str) -> list[str]:
    """Return a row's commands, with something in the place of what stands for a name."""
    found = re.findall(r"`(%%?interp [^`]*)`", row.replace("\\|", "|"))
    given = {
        "use NAME": "use bundled",
        "BASE TUNED": "bundled bundled",
        " [NAME]": "",
        "[COMMAND]": "patch",
        "claims --model NAME": "claims --model bundled",
        "FILE": "texts.txt",
        "FOLDER": "dictionaries",
    }
    for name, value in given.items():
        found = [command.replace(name, value) for command in found]
    return [command.replace("…", PAIR.partition("\n")[0].removeprefix("clean: ")) for command in found]


@pytest.fixture
def folder_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = (("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Spain", "Madrid"), ("Cuba", "Havana"))
    Path("texts.txt").write_text("\n\n".join(f"The capital of {country} is {city}." for country, city in pairs))
    moods = (("great", "good"), ("lovely", "good"), ("bad", "sad"), ("awful", "sad"))
    dictionaries.written(tmp_path / "dictionaries", 128)
    rows = [f"The {thing} was {word},{mood}" for thing in ("film", "book", "song") for word, mood in moods]
    Path("reviews.csv").write_text("\n".join(["text,mood", *rows]))


@pytest.mark.usefixtures("folder_of_texts")
def test_every_row_can_be_typed(shell: Any) -> None:
    commands = [command for row in ROWS for command in typed(row)]
    assert {command.split()[1] for command in commands} == set(registry.commands())
    for command in commands:
        if session.current is None:
            shell.run_cell("%interp load").raise_error()
        takes = registry.find(command.split()[1]).bodies
        body = PAIR if Pairs in takes else CLAIM if Claimed in takes else TEXT
        below = "" if command.startswith("%i") else f"\n{body}"
        shell.run_cell(command + below).raise_error()


@pytest.mark.usefixtures("folder_of_texts")
def test_the_python_lines_run(shell: Any) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    shell.user_ns["tracker"] = SummaryWriter("runs")
    shell.run_cell(block).raise_error()
    shell.user_ns["tracker"].close()
    assert next(Path("runs").iterdir()).stat().st_size > 1000
    assert shell.user_ns["r"].layers == (1,)
    top = shell.run_cell('interp.predict("The capital of France is").top[0]').result
    said = re.search(r"# \[\('(.*?)', (\d+), ([\d.]+)\), …\]", block)
    assert said is not None
    assert (top[0], top[1]) == (said[1], int(said[2]))
    assert top[2] == pytest.approx(float(said[3]), abs=1e-3)


def test_it_names_the_families_that_run_without_hooks() -> None:
    (listed,) = re.findall(r"\n## Without hooks\n\n(.*?); and\s", README, re.DOTALL)
    assert {*re.findall(r"`([a-z0-9_]+)`", listed)} - {"model_type"} == {*FAMILIES} - {"native"}
