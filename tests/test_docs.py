"""The documentation: it builds without a warning, is whole, needs no network, and what it says to type can be typed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from docsite import docstrings, pictures

from interp.claim_language import Claimed
from interp.interface import registry
from interp.interface.session import session
from interp.spec import Pairs

ROOT = pictures.ROOT
TEXT = "When Mary and John went to the store, John gave a drink to"
CLEAN = "When John and Mary went to the store, Mary gave a drink to"
CLAIM = "variable: name = {IO}\ncarried by: resid_post layer 2 at END\nswap name -> the answer becomes the other name"
# Papers, the libraries that one comes from, and the theme's own signature.
OUTSIDE = {"arxiv.org", "transformer-circuits.pub", "github.com", "www.sphinx-doc.org", "pradyunsg.me"}
# What a page fetches by itself when it is looked at; a link is followed only by a click.
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
    "image": "href",
    "use": "href",
}


class Page(HTMLParser):
    """The links, the names to link to, and what is fetched, of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.links: list[str] = []
        self.names: set[str] = set()
        self.fetched: list[str] = []
        self.frames = 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name.removeprefix("xlink:"): value or "" for name, value in attrs}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        self.frames += "interp-frame" in given.get("class", "").split()
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in FETCHED and FETCHED[tag] in given:
            self.fetched.append(given[FETCHED[tag]])


def test_every_command_has_an_example() -> None:
    shown = {name: cells for of in pictures.groups().values() for name, cells in of.items()}
    assert shown.keys() == registry.commands().keys()
    assert all(shown.values())


def test_what_a_docstring_says_of_papers() -> None:
    said = (
        'Meng et al. (2022), "Locating Facts"; EAP: Syed, Rager and Conmy (2023), "Attribution Patching". As in '
        "Nadeau and Bengio 2003, and (Conmy et al. 2023)."
    )
    assert docstrings.papers(said) == [
        docstrings.Paper("Meng et al.", "2022", "Locating Facts"),
        docstrings.Paper("Syed, Rager and Conmy", "2023", "Attribution Patching"),
        docstrings.Paper("Nadeau and Bengio", "2003", ""),
        docstrings.Paper("Conmy et al.", "2023", ""),
    ]


def test_running_text_becomes_markdown() -> None:
    said = "``[a]{b}`` of `c`, [Mary]{IO} and a|b, as docs/spans.md says"
    assert docstrings.markdown(said) == (
        "``[a]{b}`` of `c`, \\[Mary\\]\\{IO\\} and a\\|b, as [spans](../spans.md) says"
    )


@pytest.fixture(scope="module")
def site() -> Path:
    """Return the site as `make docs` builds it, in a process of its own; examples run where something has changed."""
    built = subprocess.run([sys.executable, ROOT / "tools" / "build_site.py"], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return ROOT / "build" / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


@pytest.mark.slow
def test_every_command_has_a_page_with_a_picture(site: Path, pages: dict[Path, Page]) -> None:
    assert [name for name in registry.commands() if not pages[site / "commands" / f"{name}.html"].frames] == []


@pytest.mark.slow
def test_links_lead_somewhere(pages: dict[Path, Page]) -> None:
    lost: list[str] = []
    for page in pages.values():
        for link in page.links:
            parts = urlsplit(link)
            target = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
            if parts.scheme:
                fine = parts.scheme == "https" and parts.netloc in OUTSIDE
            elif target in pages:
                fine = not parts.fragment or unquote(parts.fragment) in pages[target].names
            else:
                fine = target.is_file()
            if not fine:
                lost.append(f"{page.path.name}: {link}")
    assert lost == []


@pytest.mark.slow
def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    asked = [(page.path, one) for page in pages.values() for one in page.fetched if not one.startswith(("data:", "#"))]
    assert len(asked) > len(pages)
    assert [(path.name, one) for path, one in asked if urlsplit(one).scheme or urlsplit(one).netloc] == []
    there = [(path.name, one, path.parent / unquote(urlsplit(one).path)) for path, one in asked]
    assert [(name, one) for name, one, file in there if not file.is_file()] == []
    styles = "".join(path.read_text("utf-8") for path in [*site.rglob("*.css"), *pages])
    assert re.findall(r"""(?:url\(|@import)\s*["']?(?:https?:)?//[^)"';]+""", styles) == []


@pytest.mark.slow
def test_llms_txt_names_every_command(site: Path) -> None:
    said = (site / "llms.txt").read_text("utf-8")
    assert said.startswith("# interp\n\n> ")
    links = dict(re.findall(r"^- \[(.+?)\]\((.+?)\)", said, re.MULTILINE))
    assert set(registry.commands()) <= set(links)
    assert [link for link in links.values() if not (site / link).is_file()] == []


def typed(page: str) -> list[str]:
    """Return what a page says to type, but for what needs a file or a network that is not here."""
    text = (ROOT / "docs" / f"{page}.md").read_text("utf-8")
    spans = re.findall(r"(?<!`)`((?:%|interp\.|run = )[^`]+)`", text)
    away = re.compile(r"COMMAND|NAME|^%interp load [^-]|^%env|^%pip|^%matplotlib|^%%?$|ipynb|^interp\[")
    return [" ".join(span.split()) for span in spans if not away.search(span)]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["index", "concepts", "coming-from", "troubleshooting"])
def test_what_a_page_says_to_type_can_be_typed(
    page: str, shell: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from test_examples import classifier  # which collects all examples when it is imported

    monkeypatch.chdir(tmp_path)
    shutil.copytree(pictures.EXAMPLES, tmp_path, dirs_exist_ok=True)
    shell.run_cell("import interp").raise_error()
    given = classifier()
    names = {"text": TEXT, "clean": CLEAN, "corrupted": TEXT, "model": given["classifier"], "r": None}
    shell.push({**names, "tokenizer": given["tokenizer"]})
    commands = typed(page)
    assert len(commands) > 5
    for command in commands:
        if session.current is None:
            shell.run_cell("%interp load").raise_error()
        body = ""
        if command.startswith("%%"):
            takes = registry.find(command.split()[1]).bodies
            pair = f"\nclean: {CLEAN}\ncorrupted: {TEXT}\nanswer: John\nwrong: Mary"
            body = pair if Pairs in takes else f"\n{CLAIM}" if Claimed in takes else f"\n{TEXT}"
        ran = shell.run_cell(command + body)
        assert ran.success, command
