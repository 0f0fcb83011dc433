"""Build the documentation: `python tools/build_site.py`, and open `build/site/index.html`.

Pages of docs/ are taken as they are; those of commands, of papers and `llms.txt` are made from what commands declare,
and each command's picture by running its example on the bundled model. Warnings are errors.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path

from docsite import pages, pictures

from interp.interface import registry

ROOT = pictures.ROOT
# The repository's own pages → what they are called in the site.
OWN = {
    "CONTRIBUTING.md": "house",
    "CHANGELOG.md": "changes",
    "src/interp/bundled/CARD.md": "bundled-model",
    "src/interp/bundled/features/CARD.md": "bundled-features",
}


def build(site: Path, work: Path) -> int:
    """Write the site into `site`, with `work` for what is kept between builds; return Sphinx' exit status."""
    from sphinx.cmd.build import main

    source = work / "source"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source, ignore=shutil.ignore_patterns("examples", "*.toml"))
    for name, called in OWN.items():
        shutil.copy(ROOT / name, source / f"{called}.md")
    for path in source.glob("*.md"):
        path.write_text(_moved(path.read_text("utf-8")), "utf-8")
    known = registry.commands()
    groups = pictures.groups()
    written = _titles(source)
    _made(source, known, groups, written)
    shutil.rmtree(site, ignore_errors=True)
    options = ["-W", "--keep-going", "-n", "-q", "-b", "html", "-d", str(work / "doctrees")]
    return main([*options, str(source), str(site)])


def _made(source: Path, known: pages.Known, groups: pages.Groups, written: dict[str, str]) -> None:
    """Write the pages that are made from what commands declare."""
    shown = pictures.shown(source.parent / "shown.json")
    for folder in ("commands", "pictures", "extra"):
        (source / folder).mkdir()
    general = {"index", "coming-from", "troubleshooting", *OWN.values()}
    read = {name: (source / f"{name}.md").read_text("utf-8") for name in written if name not in general}
    for name, found in known.items():
        spoken = re.compile(rf"`%%?interp {name}\b(?!-)|^%%?interp {name}\b(?!-)", re.MULTILINE)
        mentioned = [(page, written[page]) for page, text in read.items() if spoken.search(text)]
        (source / "commands" / f"{name}.md").write_text(pages.command(found, shown[name], mentioned), "utf-8")
        (source / "pictures" / f"{name}.html").write_text(shown[name].html, "utf-8")
    (source / "commands.md").write_text(pages.commands(groups, known), "utf-8")
    (source / "papers.md").write_text(pages.sources(known), "utf-8")
    listed = {**written, "papers": "Papers and definitions"}
    (source / "extra" / "llms.txt").write_text(pages.llms(groups, known, listed), "utf-8")


def _moved(text: str) -> str:
    """Return a page with its links to the repository's files as they are in the site."""
    text = re.sub(r"\]\(docs/", "](", text).replace("](../README.md)", "](index.md)")
    for name, called in OWN.items():
        text = re.sub(rf"\]\((?:\.\./)?{re.escape(name)}\b", f"]({called}.md", text)
    return text


def _titles(source: Path) -> dict[str, str]:
    """Return page → title."""
    found = {path.stem: path.read_text("utf-8").partition("\n")[0].removeprefix("# ") for path in source.glob("*.md")}
    return dict(sorted(found.items(), key=lambda item: item[1].lower()))


if __name__ == "__main__":
    began = time.monotonic()
    status = build(ROOT / "build" / "site", ROOT / "build" / "docs")
    print(
        f"build/site/index.html, {time.monotonic() - began:.0f} s" if status == 0 else "the site has faults; see above"
    )
    sys.exit(status)
