"""The two ends of a view's traits: what TypeScript reads is what Python sends, by name, and nothing else is sent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from interp.widgets._base import Widget
from interp.widgets.attention import AttentionWidget
from interp.widgets.circuit import CircuitWidget
from interp.widgets.feature import FeatureWidget
from interp.widgets.patching import PatchingWidget
from interp.widgets.trace import TraceWidget
from views.circuits import SMALL, planted
from views.features import planted as feature
from views.test_patching import sweep as swept
from views.traces import planted as traced

from .conftest import made

SOURCES = Path(__file__).parents[2] / "js" / "src"
WIDGETS = [AttentionWidget, CircuitWidget, FeatureWidget, PatchingWidget, TraceWidget]
# What is read by the front end's own machinery.
THEIRS = {"_esm", "_css"}


def test_every_view_is_here() -> None:
    assert {widget.script for widget in WIDGETS} == {path.parent.name for path in SOURCES.glob("*/index.ts")}


@pytest.mark.parametrize("widget", WIDGETS)
def test_the_page_reads_every_trait_and_no_other(widget: type[Widget]) -> None:
    shared = [*(SOURCES / "ui").glob("*.ts"), *(SOURCES / "host").glob("*.ts")]
    text = "\n".join(path.read_text("utf-8") for path in [*shared, *(SOURCES / widget.script).glob("*.ts")])
    read = set(re.findall(r'\btrait(?:<[^(]*>)?\(\s*model,\s*"(\w+)"', text))
    read |= set(re.findall(r'\bmodel\.get\("(\w+)"\)', text))
    ours = [cls for cls in widget.__mro__ if cls.__module__.startswith("interp.")]
    sent = {name for cls in ours for name in vars(cls) if name in widget.class_trait_names(sync=True)}
    assert len(read) > 2
    assert read == sent - THEIRS


def fields(script: str, interface: str) -> set[str]:
    """Return the names of an interface's fields."""
    text = (SOURCES / script).read_text("utf-8")
    found = re.search(rf"export interface {interface} (?:extends \w+ )?\{{\n(.*?)\n\}}", text, re.DOTALL)
    assert found, f"{script} has no interface {interface}"
    return set(re.findall(r"^  (\w+)\??:", found[1], re.MULTILINE))


@pytest.mark.usefixtures("wire")
def test_the_attention_viewers_dicts_have_the_fields_that_are_read() -> None:
    widget = AttentionWidget(made(2, 3, 5))
    assert set(widget.meta) == fields("attention/meta.ts", "Meta")
    assert set(widget.meta["first"]) == fields("attention/meta.ts", "Form") | {"layer", "head"}
    assert set(widget.selection) >= fields("attention/meta.ts", "Selected")


@pytest.mark.usefixtures("wire")
def test_the_circuits_dicts_have_the_fields_that_are_read() -> None:
    result = planted(SMALL)
    result.groups.form("both", result.nodes[1:3])
    widget = CircuitWidget(result)
    assert set(widget.graph) == fields("circuit/meta.ts", "Graph")
    # Written on one line.
    (group,) = re.findall(r"type Groups = Record<string, \{ (.*?) \}>", (SOURCES / "ui/groups.ts").read_text("utf-8"))
    assert set(widget.groups["both"]) == set(re.findall(r"(\w+):", group))


@pytest.mark.usefixtures("wire")
def test_the_traces_dict_has_the_fields_that_are_read() -> None:
    assert set(TraceWidget(traced()).graph) == fields("trace/meta.ts", "Graph")


@pytest.mark.usefixtures("wire")
def test_the_dashboards_dict_has_the_fields_that_are_read() -> None:
    sent = FeatureWidget(feature()).feature
    assert set(sent) == fields("feature/meta.ts", "Feature")
    assert set(sent["steer"]) == fields("feature/meta.ts", "Steer")
    assert set(sent["places"][0]) == fields("feature/meta.ts", "Named")


@pytest.mark.usefixtures("wire")
def test_the_sweeps_dicts_have_the_fields_that_are_read() -> None:
    widget = PatchingWidget(swept("head-position", (3, 4, 5)))
    sweep: dict[str, Any] = widget.sweep
    assert set(sweep) == fields("patching/meta.ts", "Sweep")
    assert set(sweep["form"]) == fields("patching/meta.ts", "Form")
    assert set(sweep["top"]["exact"][0]) == fields("patching/meta.ts", "Entry")
    assert set(sweep["form"]["labels"]) == fields("draw/diverging.ts", "Signed") - {"values", "block"}
    assert set(widget.selection) >= fields("patching/meta.ts", "Selected")
