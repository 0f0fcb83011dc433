"""One server and one browser for all; in each front end one notebook with its kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from browser.lab import FRONT_ENDS, Notebook, Server, browser, write
from interp.selection import selection

PROMPT = "When Mary and John went to the store, John gave a drink to"
MODEL = f"""\
import sys, tempfile, weakref
from pathlib import Path
%load_ext interp
import interp
sys.path.append({str(Path(__file__).parents[1])!r})
import models
from widgets.conftest import made
interp.load(str(models.save(Path(tempfile.mkdtemp()) / "gpt2", "gpt2")))"""
ATTENTION = f"%%interp attention -o att\n{PROMPT}"
MOVE = "interp.selection.set(layer=1, head=3, query=9, key=4)"
BUSY = "import time; time.sleep(2)"
# Each of these would set `ran`, or open something, if it were ever taken for markup.
HOSTILE = [
    "</script><script>window.ran = 1</script>",
    '<img src="x" onerror="window.ran = 2">',
    "'\"><svg onload='window.ran = 3'></svg>",
    '<a data-commandlinker-command="help:about" href="#">x</a>',
    "${window.ran = 5}{{7*7}}",
    "\u202etfel ot thgir",
    "\x00\x1b[31m",
]
STRANGE = f"""\
from dataclasses import replace
from interp.results import Provenance
strings = tuple({HOSTILE!r})
strange = made(2, 3, len(strings), strings=strings, labels={{"0.1": strings[1]}}, notes=(strings[0],))
strange = replace(strange, provenance=Provenance(model=strings[1]))
strange"""
PASSING = """\
from IPython.display import display
passing = made(2, 3, 5)
widget = weakref.ref(passing.widget)
display(passing)
del passing"""
TWICE = """\
from interp.widgets._base import publish
twice = made(2, 3, 5)
shown = publish(twice.widget, twice)
twice"""
LARGE = "large = made(12, 12, 512)\nlarge"
CELLS = [MODEL, ATTENTION, MOVE, BUSY, STRANGE, PASSING, LARGE, TWICE]


@pytest.fixture(autouse=True)
def _clean_selection() -> Iterator[None]:
    yield
    selection.clear()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("jupyter"))
    yield started
    started.stop()


@pytest.fixture(scope="session")
def chrome() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="session", params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def viewer(server: Server, chrome: Browser, front_end: str) -> Iterator[Notebook]:
    """Yield a notebook whose cell `ATTENTION` shows the viewer of a small random model."""
    context = chrome.new_context(viewport={"width": 1500, "height": 1100}, service_workers="block")
    opened = Notebook(server, context, front_end, write(server, f"{front_end}.ipynb", CELLS))
    for source in (MODEL, ATTENTION):
        opened.run(CELLS.index(source))
    yield opened
    opened.close()
    server.shut_down(opened.name)
    context.close()
