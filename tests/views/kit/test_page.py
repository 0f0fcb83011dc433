"""What pages, standalone drawings and Plotly figures of all techniques have in common."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest

from interp.errors import InputError
from interp.results import Result
from interp.views.kit import figures, page, theme
from interp.views.kit.draw import Drawing

DRAWING = Drawing(200, 50, "")
LONG = "a line of the footer that is longer than the picture is wide, and goes on and on " * 3
PIECES = [("effect ", "+0.500", False), (LONG, "", True)]
KINDS: dict[str, tuple[Callable[[Result], str], page.Drawn[Result]]] = {
    "stacks": page.pictures(lambda _: page.Picture("Title", "facts", [[("a", DRAWING)]], PIECES, ["a note"])),
    "maps": page.pictures(lambda _: page.Picture("Title", "facts", [], PIECES, ["a note"], groups=[("a", [DRAWING])])),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_for_a_page_is_its_drawing_in_the_theme_of_whoever_shows_it(kind: str) -> None:
    html, svg = KINDS[kind]
    address = re.search(r'<img class="interp-plain"[^>]* src="data:image/svg\+xml,([^"]*)"', html(Result()))
    assert address is not None
    drawn = unquote(unescape(address[1]))
    assert drawn == svg(Result(), theme=theme.AUTO)
    assert "prefers-color-scheme:dark" in drawn
    assert "a note" in drawn
    with pytest.raises(InputError, match="no theme"):
        svg(Result(), theme="drak")


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_footer_stays_inside(kind: str) -> None:
    root = ElementTree.fromstring(KINDS[kind][1](Result()))
    lines = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    room = (float(root.attrib["width"]) - 28) / 6.2
    assert len(lines) > 4
    assert max(map(len, lines)) < room
    assert " ".join(" ".join(lines).split()).count("goes on and on") == 3, "nothing is lost"


def test_an_interval_that_is_not_known_has_no_mark() -> None:
    values = np.array([1.0, 2.0])
    marks = figures.whiskers(values, [0.5, np.nan], [2.0, np.nan], "dark")
    np.testing.assert_allclose(marks["array"], [1.0, np.nan])
    np.testing.assert_allclose(marks["arrayminus"], [0.5, np.nan])
    assert marks["color"] == theme.solid("muted", "dark") != theme.solid("bg", "dark")
    assert figures.whiskers(values, [np.nan] * 2, [np.nan] * 2, "dark") == {}


@pytest.mark.parametrize("name", theme.THEMES)
def test_a_figure_has_the_frames_words_and_colours(name: str) -> None:
    words = " · ".join(["facts"] * 40)
    made: Any = figures.styled(go.Figure(), "A <title>", words, name, 400, 300).layout
    title = made.title.text
    assert title.startswith("A &lt;title&gt;<br><sup>")
    assert max(len(line) for line in re.findall("<sup>(.*?)</sup>", title)) <= 400 / 6
    assert title.count("facts") == 40
    assert made.paper_bgcolor == theme.colour("bg", name)
    assert made.colorway[0] == theme.class_colour(0, name)
    with pytest.raises(InputError, match="no theme"):
        figures.styled(go.Figure(), "", "", "drak", 400, 300)
