"""Pages and `llms.txt` from what commands declare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from docsite.docstrings import Paper, entries, markdown, papers, paragraphs, sections
from docsite.pictures import Shown
from interp.interface.helping import usage
from interp.interface.registry import Command, Parameter

Known = Mapping[str, Command]
Groups = Mapping[str, Iterable[str]]

SAID = (
    "Mechanistic interpretability of transformer language models in a notebook: load a model, ask it something with "
    "`%interp COMMAND`, and get a result that is numpy arrays first and shows itself. Every command is also a Python "
    "function, `interp.command(…)`."
)


def command(found: Command, shown: Shown, mentioned: Sequence[tuple[str, str]]) -> str:
    """Return a command's page; `mentioned` is (file, title) of each page that has more on it."""
    doc = sections(found.doc)
    above = doc[""].partition("\n")[2].strip()
    full = {name.strip(): text for term, text in entries(doc.get("Parameters", "")) for name in term.split(",")}
    parts = [f"# {found.name}", markdown(found.summary)]
    parts += [paragraphs(above)] if above else []
    parts += ["## Example", *(f"```text\n{cell}\n```" for cell in shown.cells)]
    parts += [f"```{{raw}} html\n:file: ../pictures/{found.name}.html\n```"]
    parts += ["## What is typed", f"```text\n{_folded(usage(found))}\n```"]
    taken = [_argument(p, full.get(p.name) or p.help) for p in found.parameters]
    parts += taken or ["It takes no arguments."]
    if found.examples:
        source = doc.get("Examples", "")
        parts += ["## In Python", f"```pycon\n{source.strip()}\n```"]
    for heading, title in (("Returns", "What it gives"), ("Raises", "What it refuses")):
        if heading in doc:
            parts += [f"## {title}", *(f"{_term(t)}\n: {markdown(text)}" for t, text in entries(doc[heading]))]
    if "Notes" in doc:
        parts += ["## Sources and definitions", paragraphs(doc["Notes"])]
    if mentioned:
        parts += ["## More", *(f"- [{title}](../{file}.md)" for file, title in mentioned)]
    return "\n\n".join(parts) + "\n"


def _folded(line: str) -> str:
    """Return a usage line in several, none of which begins or ends inside a flag's brackets."""
    words = re.findall(r"\[[^\]]*\]|\S+", f"{line} [-o NAME]")
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > 84:
            lines.append("   ")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(lines)


def _term(term: str) -> str:
    return f"`{term}`" if "`" not in term else term


def _argument(parameter: Parameter, text: str) -> str:
    typed = parameter.name.upper() if parameter.positional else parameter.flag
    said = f"`--no-{parameter.flag.removeprefix('--')}`" if parameter.default is True else f"`{typed}`"
    if parameter.required:
        said += ", must be given"
    elif not isinstance(parameter.default, bool | None):
        said += f", `{parameter.default}` when not given"
    return f"{said}\n: {markdown(text)}" if text else said


def commands(groups: Groups, known: Known) -> str:
    """Return the page that lists all commands, by group."""
    parts = ["# Commands", "Each can be typed as `%interp NAME` and called as `interp.NAME(…)`, with `_` for `-`."]
    for group, names in groups.items():
        parts.append(f"## {group}")
        parts.append("\n".join(f"- [{n}](commands/{n}.md) – {markdown(known[n].summary, '')}" for n in names))
        listed = "\n".join(f"commands/{name}" for name in names)
        parts.append(f"```{{toctree}}\n:hidden:\n\n{listed}\n```")
    return "\n\n".join(parts) + "\n"


def sources(known: Known) -> str:
    """Return the page that says which command computes what of which paper."""
    named: dict[Paper, set[str]] = {}
    for name, found in known.items():
        for paper in papers(found.doc):
            named.setdefault(paper, set()).add(name)
    for paper in sorted(named, key=lambda p: len(p.title)):  # the same work, in short or in other capitals
        known_as = (paper.year, paper.authors.split()[0].rstrip(","), paper.title.casefold())
        for other in named:
            full = (other.year, other.authors.split()[0].rstrip(","), other.title.casefold())
            if other != paper and full[:2] == known_as[:2] and full[2].startswith(known_as[2]):
                named[other] |= named.pop(paper)
                break
    rows = [
        f"| {markdown(paper.authors)} ({paper.year}) | {markdown(paper.title)} | "
        + ", ".join(f"[{name}](commands/{name}.md)" for name in sorted(where))
        + " |"
        for paper, where in sorted(named.items(), key=lambda item: (item[0].authors.lower(), item[0].year))
    ]
    above = (
        "# Papers and definitions\n\nWhich command computes what of which paper. The exact definition, and where it "
        "differs from the paper's, stands on the command's page; those of metrics are on [their own](metrics.md).\n\n"
        "| paper | title | command |\n|---|---|---|"
    )
    return "\n".join([above, *rows]) + "\n"


def llms(groups: Groups, known: Known, pages: Mapping[str, str]) -> str:
    """Return `llms.txt` (llmstxt.org): what interp is, each command with a sentence, and the pages as Markdown."""
    parts = ["# interp", f"> {SAID}"]
    parts.append(
        "A cell is `%interp COMMAND --flag value -o NAME`, or `%%interp COMMAND` with the prompt below it. "
        "`%interp load` loads a small bundled model without a download. `result.text()`, `result.to_frame()` and "
        '`result.save("r.json")` read a result without its picture.'
    )
    for group, names in groups.items():
        lines = [f"- [{n}](_sources/commands/{n}.md.txt): {' '.join(known[n].summary.split())}" for n in names]
        parts.append("\n".join([f"## {group}", "", *lines]))
    lines = [f"- [{title}](_sources/{file}.md.txt)" for file, title in pages.items()]
    parts.append("\n".join(["## Pages", "", *lines]))
    return "\n\n".join(parts) + "\n"
