"""The attention pictures: right, readable, harmless, small."""

from __future__ import annotations

import html as entities
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest

from interp.errors import InputError
from interp.methods.heads.attention import AttentionResult
from interp.views import attention as pictures
from interp.views import attention_reading, export
from interp.views.kit import matrix, theme
from interp.views.kit.frame import UNTOUCHED
from views.pictures import HOSTILE, attention, decode, hostile_attention

SVG = "{http://www.w3.org/2000/svg}"
SHAPES = {
    "usual": lambda: attention(12, 12, 15),
    "many layers": lambda: attention(30, 9, 15),
    "one layer": lambda: attention(1, 9, 15, layers=(5,)),
    "one head": lambda: attention(1, 1, 15, layers=(18,), heads=(6,)),
    "one token": lambda: attention(12, 12, 1),
    "two tokens": lambda: attention(2, 2, 2),
    "both directions": lambda: attention(6, 12, 11, causal=False),
    "limit of drawn cells": lambda: attention(2, 2, 48),
    "beyond it": lambda: attention(2, 2, 49),
    "300 tokens": lambda: attention(2, 9, 300),
    "512 tokens": lambda: attention(1, 4, 512),
    "700 tokens": lambda: attention(1, 1, 700),
    "many heads": lambda: attention(48, 25, 6),
    "more heads than fit": lambda: attention(3, 64, 6),
}


@pytest.fixture
def hostile() -> AttentionResult:
    return hostile_attention()


class Page(HTMLParser):
    """Collects the tags, attributes and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self._style = False
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"
        if tag not in {"meta", "wbr", "br", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._style = False
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        (self.styles if self._style else self.text).append(data)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_has_both_pictures(shape: str) -> None:
    result = SHAPES[shape]()
    page = Page(result.html())
    assert page.open == []
    count = result.pattern.shape[0] * result.pattern.shape[1]
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == (2 if count > 1 else 1)
    for name in theme.THEMES:
        root = ElementTree.fromstring(result.svg(name))
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        assert width < 1500
        _, _, *size = map(float, root.attrib["viewBox"].split())
        assert size == [width, height]
        drawn = re.sub('base64,[^"]*', "", ElementTree.tostring(root, "unicode"))
        assert not re.search(r"\b(nan|inf)\b", drawn, re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "heads", "tokens", "kilobytes"), [(12, 12, 15, 150), (30, 9, 15, 200), (30, 9, 300, 700)]
)
def test_pictures_stay_small(layers: int, heads: int, tokens: int, kilobytes: int) -> None:
    assert len(attention(layers, heads, tokens).html().encode()) < 1000 * kilobytes


def test_many_tokens_are_one_image_not_many_cells() -> None:
    drawn = attention(2, 2, 48).html()
    image = attention(2, 2, 300).html()
    assert len(re.findall('--interp-s[0-9]+\\)" d=', drawn)) > 5
    assert not re.findall('--interp-s[0-9]+\\)" d=', image)


@pytest.mark.slow
def test_the_matrix_is_painted_with_the_weights() -> None:
    result = attention(1, 1, 15)
    for name in theme.THEMES:
        scale = 2.0
        pixels = decode(result.png(name, scale))
        root = ElementTree.fromstring(result.svg(name))
        x, y, cell = _matrix_place(root, 15)
        background = [int(theme.colour("bg", name)[n : n + 2], 16) for n in (1, 3, 5)]
        for query, key in ((0, 0), (14, 0), (14, 14), (9, 4), (7, 6)):
            red, green, blue, alpha = theme.sequential(name)[int(theme.level(result.pattern[0, 0, query, key]))]
            want = [b + (c - b) * alpha / 255 for b, c in zip(background, (red, green, blue), strict=True)]
            seen = pixels[int((y + (query + 0.5) * cell) * scale), int((x + (key + 0.3) * cell) * scale), :3]
            # The zero of the scale lies under a tint of the absent cells in one place only: above the diagonal.
            assert np.abs(seen.astype(float) - want).max() <= 2, (name, query, key)


@pytest.mark.slow
def test_an_image_matrix_is_painted_with_the_weights() -> None:
    result = attention(1, 1, 60)
    result.pattern[:] = 0
    result.pattern[0, 0, 50, 10] = 1.0
    pixels = decode(result.png("light", 2.0))
    x, y, cell = _matrix_place(ElementTree.fromstring(result.svg("light")), 60)
    seen = pixels[int((y + 50.5 * cell) * 2), int((x + 10.5 * cell) * 2), :3]
    assert tuple(seen) == theme.sequential("light")[-1][:3]
    assert tuple(pixels[int((y + 50.5 * cell) * 2), int((x + 30.5 * cell) * 2), :3]) == (255, 255, 255)


def test_a_thumbnail_is_painted_with_the_weights() -> None:
    result = attention(2, 2, 4)
    result.pattern[:] = 0
    result.pattern[1, 1, :, 0] = 1.0
    root = ElementTree.fromstring(result.svg("light"))
    image = next(node for node in root.iter(f"{SVG}image"))
    pixels = decode(_data(image.attrib["href"]))
    side, gap = 12, 1
    assert pixels.shape == (2 * side + gap, 2 * side + gap, 4)
    assert (pixels[side + gap :, side + gap : side + gap + 3, 3] == 255).all()
    assert not pixels[:side, :, 3].any()


def test_page_and_standalone_picture_say_the_same() -> None:
    result = attention(3, 4, 9, labels={"1.2": "induction", "0.0": "induction", "2.1": "previous token"})
    page = " ".join(" ".join(Page(result.html()).text).split())
    alone = " ".join(" ".join(ElementTree.fromstring(result.svg()).itertext()).split())
    layer, head = attention_reading.opening(result)
    assert (layer, head) == (1, 2), "a head of a known class comes first"
    query, key = attention_reading.strongest(result.pattern[layer, head]) or (0, 0)
    for text in (page, alone):
        assert f"L{layer}H{head}" in text
        assert "induction 2" in text
        assert "previous token 1" in text
        assert f"{result.pattern[layer, head, query, key]:.3f}" in text
        assert f"mean entropy {result.stats['entropy'][layer, head]:.2f} nats" in text
        assert "test-model · 9 tokens · 3 layers × 4 heads" in text


@pytest.mark.parametrize(("layers", "heads", "tokens"), [(3, 4, 9), (30, 9, 15), (2, 2, 60), (1, 12, 3)])
def test_the_live_view_is_told_the_rooms_of_the_pictures_drawings(layers: int, heads: int, tokens: int) -> None:
    result = attention(layers, heads, tokens)
    page = Page(result.html())
    drawn = [tuple(float(given[side] or 0) for side in ("width", "height")) for tag, given in page.tags if tag == "svg"]
    columns = [float(wide) for wide in re.findall(r"--wide:(\d+)px", result.html())]
    boxes = pictures.boxes(result)
    assert [boxes[name][0] for name in ("grid", "matrix")] == columns
    for (wide, high), name in zip(drawn, ("grid", "matrix"), strict=True):
        assert boxes[name][1:] == (math.ceil(wide), math.ceil(high))


def test_the_head_that_looks_something_up_is_large() -> None:
    result = attention(4, 4, 20)
    result.pattern[:] = np.eye(20)
    result.pattern[0] = np.eye(20, k=-1)
    result.pattern[1, :, :, 0] = 1.0
    result.pattern[2, 3] = np.eye(20, k=-7)
    assert attention_reading.interesting(result) == (2, 3)


def test_the_strongest_edge_passes_over_the_sink_and_the_token_itself() -> None:
    weights = np.array([[1, 0, 0], [0.1, 0.9, 0], [0.5, 0.3, 0.2]], np.float32)
    assert attention_reading.strongest(weights) == (2, 1)
    assert attention_reading.strongest(np.ones((1, 1), np.float32)) == (0, 0)
    assert attention_reading.strongest(np.full((2, 2), np.nan, np.float32)) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": ("a", "b")}, "2 tokens do not fit a 3 × 3 pattern"),
        ({"layers": (0,)}, "1 layers × 2 heads are named, but the pattern has 2 × 2"),
        ({"pattern": np.zeros((2, 2, 3, 4), np.float32)}, "3 tokens do not fit a 3 × 4 pattern"),
        ({"pattern": np.zeros((2, 3, 3), np.float32)}, r"four axes.*\(2, 3, 3\)"),
        ({"pattern": np.zeros((2, 2, 0, 0), np.float32), "tokens": ()}, "2 heads × 0 tokens"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    # The result itself may refuse first: either way no picture is drawn.
    for picture in (pictures.html, pictures.svg, pictures.plotly, pictures.circuitsvis):
        with pytest.raises(InputError, match=message):
            picture(replace(attention(2, 2, 3), **change))  # type: ignore[arg-type]


def test_what_is_not_finite_is_hatched_and_said() -> None:
    result = attention(4, 3, 9)
    chosen = attention_reading.interesting(result)
    result.pattern[chosen][7] = np.nan
    result.pattern[2:, 0, 1, 1] = np.inf
    clean = attention(4, 3, 9)
    for text in (result.html(), result.svg()):
        assert "heads hold weights that are not finite (hatched)" in text
        assert f"L{min(2, chosen[0])}H" in text
    large = matrix.matrix(result.pattern[chosen], result.tokens, ["light"], causal=True)
    strokes = re.search('interp-hatch" d="([^"]*)"', large.body)
    assert strokes
    assert strokes[1].count("M") == 3 * np.count_nonzero(~np.isfinite(result.pattern[chosen]))
    assert 'interp-hatch" d=' not in clean.html()
    assert "not finite" not in clean.html()


def test_a_pattern_of_nothing_but_nan_has_a_picture() -> None:
    result = attention(2, 2, 5)
    result.pattern[:] = np.nan
    for values in result.stats.values():
        values[:] = np.nan  # type: ignore[index]
    assert "4 heads hold weights that are not finite" in result.html()
    assert "mean entropy not a number" in result.svg("dark")


def test_hostile_text_stays_text(hostile: AttentionResult) -> None:
    page = Page(hostile.html())
    assert page.open == []
    allowed = {
        "img",
        "div",
        "span",
        "b",
        "bdi",
        "style",
        "svg",
        "path",
        "image",
        "text",
        "tspan",
        "g",
        "rect",
        "circle",
        "wbr",
        "br",
    }
    assert {tag for tag, _ in page.tags} <= allowed
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith(("on", "data-")) or name == "id"]
    assert len(page.styles) == 1
    shown = "".join(page.text)
    assert "<img␣src=x␣onerror=alert(1)>" in shown
    assert "<b onclick=alert(3)>induction</b>" in shown
    assert "\u202e" not in entities.unescape(hostile.html())
    assert any(attributes.get("title") == "x" * 100_000 for _, attributes in page.tags)


@pytest.mark.slow
@pytest.mark.parametrize("name", theme.THEMES)
def test_a_standalone_picture_of_hostile_text_is_well_formed(hostile: AttentionResult, name: str) -> None:
    source = hostile.svg(name)
    root = ElementTree.fromstring(source)
    tags = {node.tag.removeprefix(SVG) for node in root.iter()}
    assert tags <= {"svg", "title", "style", "rect", "text", "tspan", "g", "path", "image", "circle"}
    assert not [key for node in root.iter() for key in node.attrib if key.startswith("on")]
    assert "var(" not in source
    assert len(source) < 200_000
    assert decode(export.png(source, 1.0)).shape[2] == 4


def test_nothing_outside_is_named(hostile: AttentionResult) -> None:
    for text in (hostile.html(), hostile.svg(), export.page(hostile), attention(2, 2, 100).html()):
        assert set(re.findall("https?:[^\"'\\s<>)]*", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.findall(r"url\(|@import|<script|<link|<iframe|javascript:", text)
        for address in re.findall(r'(?:href|src)="([^"]*)', text):
            assert address.startswith(("data:image/png;base64,", "data:image/svg+xml,"))


def test_several_pictures_share_a_page() -> None:
    """They have no ids at all, so none can be the same; every class is ours, or keeps typesetting out."""
    page = Page(attention(2, 2, 3).html() + attention(2, 2, 3).html())
    assert not [attributes for _, attributes in page.tags if "id" in attributes]
    named = " ".join(attributes.get("class") or "" for _, attributes in page.tags).split()
    assert named
    assert all(name.startswith("interp-") for name in set(named) - set(UNTOUCHED.split()))


def test_both_themes_are_in_the_page() -> None:
    result = attention(2, 3, 15)
    images = [a for tag, a in Page(result.html()).tags if tag == "image"]
    shown = [re.search("interp-show-(\\w+)", image["style"] or "") for image in images]
    assert [match and match[1] for match in shown] == ["light", "dark"]
    light, dark = (decode(_data(image["href"] or "")) for image in images)
    assert light.shape == dark.shape
    assert not np.array_equal(light[..., :3], dark[..., :3])
    assert np.array_equal(light[..., 3] > 0, dark[..., 3] > 0)


def without_images(svg: str) -> str:
    return re.sub("<image[^>]*>", "", svg)


def test_an_untrusted_notebook_still_has_the_picture() -> None:
    """JupyterLab's sanitizer takes <style> and <svg> out of it, and leaves <img> and hidden."""
    result = attention(2, 3, 15)
    page = Page(result.html())
    rich = next(attributes for _, attributes in page.tags if attributes.get("class") == "interp-rich")
    # An attribute without a value would be taken out too.
    assert rich["hidden"]
    image = next(attributes for tag, attributes in page.tags if tag == "img")
    drawn = unquote((image["src"] or "").partition(",")[2])
    # It has the theme of the page that shows it: the variables and the images of both, and nothing else that differs.
    assert "@media(prefers-color-scheme:dark){svg{" in drawn
    bare = drawn.replace(theme.standalone(theme.AUTO), "")
    for name in theme.THEMES:
        (image,) = re.findall(r'href="data:image/png[^"]*"', result.svg(name))
        assert image in bare
        assert without_images(theme.plain(bare, name)) == without_images(result.svg(name))
    assert ".interp-plain{display:none}" in page.styles[0]
    assert ".interp-rich[hidden]{display:block!important}" in page.styles[0]


def test_equal_tokens_stay_apart_in_plotly() -> None:
    result = attention(2, 2, ["a", "a", "a"])
    figure = result.to_plotly(head="1.0")
    trace = next(trace for trace in figure.data if trace.visible)
    assert trace.name == "L1H0"
    assert len(set(trace.x)) == 3
    np.testing.assert_allclose(np.asarray(trace.z), result.pattern[1, 0])
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["L0H0", "L0H1", "L1H0", "L1H1"]


def test_plotly_offers_a_layer_where_all_heads_are_too_many() -> None:
    result = attention(4, 3, 300)
    assert {trace.name for trace in result.to_plotly(head="2.1").data} == {"L2H0", "L2H1", "L2H2"}
    assert len(result.to_plotly(head="2.1", pick=False).data) == 1


def test_plotly_tokens_are_text_and_unknown_options_fail(hostile: AttentionResult) -> None:
    figure = hostile.to_plotly(theme="dark")
    assert not [label for label in figure.data[0].x if "<" in label]
    with pytest.raises(TypeError):
        hostile.to_plotly(colour="red")
    with pytest.raises(InputError, match=r"no head 9\.9"):
        hostile.to_plotly(head="9.9")


def test_circuitsvis_brings_its_script_and_tokens_cannot_end_it(
    hostile: AttentionResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from circuitsvis.utils import render

    def fail() -> bool:
        raise AssertionError("asked for the network")

    monkeypatch.setattr(render, "internet_on", fail)
    plain = attention(1, 2, 3).to_circuitsvis()._repr_html_()
    shown = hostile.to_circuitsvis()._repr_html_()
    assert shown.count("</script>") == plain.count("</script>") == 1
    assert "\\u003c/script>\\u003cscript>" in shown
    with pytest.raises(InputError, match="no layer 7"):
        pictures.circuitsvis(hostile, layer=7)


def _data(address: str) -> bytes:
    import base64

    return base64.b64decode(address.partition(",")[2])


def _matrix_place(root: ElementTree.Element, count: int) -> tuple[float, float, float]:
    """Return where the only matrix of a picture starts, and the side of its cells."""
    x = y = 0.0
    parents = {child: parent for parent in root.iter() for child in parent}
    node = next(n for n in root.iter() if n.attrib.get("class") == "interp-mask")
    while node in parents:
        node = parents[node]
        found = re.match(r"translate\(([\d.]+) ([\d.]+)\)", node.attrib.get("transform", ""))
        if found:
            x, y = x + float(found[1]), y + float(found[2])
    return x, y, matrix.scale(count)[0]


def test_hostile_tokens_are_all_different_in_the_picture() -> None:
    root = ElementTree.fromstring(attention(1, 1, HOSTILE).svg())
    written = [node for node in root.iter(f"{SVG}text") if node.attrib["class"] == "interp-m"]
    # The matrix' labels are shorter than the coloured text's, which have a style of their own.
    for styled in (False, True):
        shown = ["".join(node.itertext()) for node in written if ("style" in node.attrib) == styled]
        assert len(set(shown)) == len(set(HOSTILE))
