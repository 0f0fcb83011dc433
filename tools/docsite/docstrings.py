"""Numpy-style docstrings as Markdown."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
_SPECIAL = re.compile(r"([\\*_<>\[\]{}|$~#])")
_PAGE = re.compile(r"\bdocs/([\w-]+)\.md")
_NAME = r"(?:(?:van der|de) )?[^\W\d_a-z][\w’'-]+"
_PAPER = re.compile(
    rf"(?P<authors>(?:{_NAME}|nostalgebraist)(?:(?:, and|,| and) {_NAME})*(?: et al\.)?)(?:'s)? "
    r'\(?(?P<year>(?:19|20)\d\d)\)?(?:, "(?P<title>[^"]+)")?'
)


@dataclass(frozen=True, order=True)
class Paper:
    """Who, when, and what; the title is empty where a docstring gives none."""

    authors: str
    year: str
    title: str


def sections(doc: str) -> dict[str, str]:
    """Return a docstring's sections by their headings; what stands above them by ``""``."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", doc, flags=re.MULTILINE)
    return {"": parts[0].strip(), **{k: v.strip("\n") for k, v in zip(parts[1::2], parts[2::2], strict=True)}}


def entries(section: str) -> list[tuple[str, str]]:
    """Return (term, text) of a section such as Parameters or Raises."""
    parts = re.split(r"^(\S[^\n]*)\n(?=\s)", section, flags=re.MULTILINE)[1:]
    return [(term, " ".join(text.split())) for term, text in zip(parts[::2], parts[1::2], strict=True)]


def markdown(text: str, up: str = "../") -> str:
    """Return running text as Markdown: code stays code, anything else is no markup, and our pages are links."""
    found: list[str] = []
    for part in _CODE.split(" ".join(text.split())):
        if _CODE.fullmatch(part):
            found.append(part)
        else:
            escaped = _SPECIAL.sub(r"\\\1", part)
            found.append(_PAGE.sub(lambda page: f"[{page[1]}]({up}{page[1]}.md)", escaped))
    return "".join(found)


def paragraphs(text: str, up: str = "../") -> str:
    """Return text with blank lines between paragraphs as Markdown."""
    return "\n\n".join(markdown(part, up) for part in re.split(r"\n\s*\n", text.strip()))


def papers(doc: str) -> list[Paper]:
    """Return the papers that a docstring names."""
    plain = " ".join(doc.split())
    return [Paper(m["authors"], m["year"], (m["title"] or "").rstrip(",.")) for m in _PAPER.finditer(plain)]
