"""Rows 2–8: foreign text in everything that is shown or saved: names, labels, titles and tokens are literal text."""

from __future__ import annotations

import dataclasses
import json
import re
import unicodedata
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest

from faults import harness
from interp.errors import InputError
from interp.results import Result
from interp.spec import Prompt
from interp.views.kit.text import labels, visible
from widgets.pages import taken_apart

SCRIPT = "</script><script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"
LINKER = '"><b data-commandlinker-command="notebook:run-all-cells" data-commandlinker-args="{}">'
STYLE = "</style></title></svg></text>]]><!--<svg/onload=alert(1)>"
QUOTES = "\"'`;}{</text>&lt;&#60;&amp"
RTL = "\u202eevil\u2066\u200f"
JOINED = "a\u200db\u200c\ufeff"
NUL = "x\x00y"
ESC = "\x1b[31mred\x1b]8;;http://x\x07\x08\x7f\x9b"
BREAKS = "one\ntwo\rthree\u2028four\x85"
HUGE = "L" + "ong" * 33_333

MARKUP = [SCRIPT, IMAGE, LINKER, STYLE, QUOTES]
HIDDEN = [RTL, JOINED, NUL, ESC, BREAKS]
ADDED = [*MARKUP, *(text for text in HIDDEN if text != BREAKS), HUGE]

each_bodied = pytest.mark.parametrize("name", harness.bodied())

# Bidi controls, zero-width characters and C0/C1 controls other than newline and tab.
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
ALLOWED_TAGS = frozenset(
    {
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "div",
        "span",
        "b",
        "i",
        "p",
        "bdi",
        "small",
        "details",
        "summary",
        "table",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "th",
        "td",
        "caption",
        "svg",
        "g",
        "rect",
        "text",
        "tspan",
        "path",
        "line",
        "circle",
        "image",
        "defs",
        "pattern",
        "clippath",
        "lineargradient",
        "stop",
        "use",
        "desc",
        "img",
        "ul",
        "ol",
        "li",
        "code",
        "pre",
        "wbr",
        "a",
        "figure",
        "figcaption",
        "section",
        "header",
        "footer",
        "h1",
        "h2",
        "h3",
        "h4",
        "strong",
        "em",
        "br",
        "hr",
        "input",
        "label",
        "button",
        "colgroup",
        "col",
        "sup",
        "sub",
    }
)


class Reader(HTMLParser):
    """Reads a page as a browser does, and refuses what could run or fetch."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.words = []

    def handle_starttag(self, tag, attrs):
        assert tag in ALLOWED_TAGS, f"<{tag}>"
        for key, value in attrs:
            assert not key.startswith("on"), f"{key}={value}"
            assert not key.startswith("data-"), f"{key}={value}"
            if key in {"src", "href", "xlink:href"} and value.startswith("data:image/svg+xml,"):
                self.words.append(read_svg(unquote(value.partition(",")[2])))
            elif key in {"src", "href", "xlink:href"}:
                assert value.startswith(("data:image/png;base64,", "#")), value[:200]
            else:
                self.words.append(value or "")

    def handle_data(self, data):
        self.words.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data}")


def read_html(page):
    reader = Reader()
    reader.feed(page)
    reader.close()
    return "\n".join(reader.words)


def read_saved(page):
    parts = taken_apart(page)
    return "\n".join([read_html(parts.around), *parts.strings])


def read_svg(document):
    tree = ElementTree.fromstring(document)
    for node in tree.iter():
        tag = node.tag.rpartition("}")[2]
        assert tag.lower() in ALLOWED_TAGS, tag
        for key, value in node.attrib.items():
            assert not key.startswith("on"), key
            assert not key.startswith("data-"), key
            if key.endswith(("href", "src")):
                assert value.startswith(("data:image/png;base64,", "#"))
    return "\n".join(tree.itertext())


def everything(result, folder):
    """Return all that a result shows or writes, by name, each read by the reader of its kind."""
    shown = {
        "html": read_html(result.html()),
        "mime html": read_html(result._repr_mimebundle_()["text/html"]),
        "saved html": read_saved(result.save(folder / "x.html").read_text("utf-8")),
        "text": result.text(),
        "mime text": result._repr_mimebundle_()["text/plain"],
    }
    if result._svg:
        shown |= {f"svg {theme}": read_svg(result.svg(theme)) for theme in ("light", "dark")}
        shown["saved svg"] = read_svg(result.save(folder / "x.svg").read_text("utf-8"))
    for how, text in shown.items():
        found = FORBIDDEN.search(text)
        assert found is None, f"{how}: {unicodedata.name(found.group(), hex(ord(found.group())))}"
    return shown


def plain(text):
    """Return text without the spaces and breaks that wrapping may put in."""
    return re.sub(r"\s+", "", text)


@pytest.fixture
def hostile(lend):
    """Return a model whose tokenizer has one token for each of `ADDED`."""
    return lend("gpt2", added=ADDED)


@pytest.mark.parametrize("token", [*MARKUP, *(text for text in HIDDEN if text != BREAKS)])
@each_bodied
def test_rows_1_to_4_a_token(name, token, hostile, shell, tmp_path):
    with harness.unharmed(hostile, shell):
        cell = harness.valid(name, text=f"Mary{token}gave")
        result = harness.worked(harness.ask("python", shell, cell))
        shown = everything(result, tmp_path)
        if hasattr(result, "tokens"):
            assert token in result.tokens
            spelled = plain(visible(token, None))
            assert any(spelled[:12] in plain(text) for how, text in shown.items() if "html" in how)
            assert json.loads(result.save(tmp_path / "x.json").read_text("utf-8"))["tokens"] == list(result.tokens)
        assert result.png().startswith(b"\x89PNG") if result._svg else True


@pytest.mark.parametrize("token", MARKUP)
def test_rows_1_to_3_a_predicted_token(token, lend, shell, tmp_path):
    lend("gpt2")
    result = harness.worked(harness.ask("magic", shell, harness.valid("predict", top=3)))
    top = [(token, 1, 0.5), *result.top[1:]]
    shown = everything(dataclasses.replace(result, top=top), tmp_path)
    assert plain(visible(token, None))[:12] in plain(shown["html"])
    assert plain(visible(token, None))[:12] in plain(shown["text"])


@pytest.mark.parametrize("text", [*MARKUP, *HIDDEN, "\ud800", "é" * 3000, " ", "%s {0} $x \\N"])
@each_bodied
def test_row_2_a_models_name(name, text, shell, lend, tmp_path):
    model = lend("gpt2")
    try:
        with harness.unharmed(model, shell):
            model.name, own = text, model.name
            result = harness.worked(harness.ask("python", shell, harness.valid(name)))
            everything(result, tmp_path)
            result.save(tmp_path / "x.npz")
            assert json.loads(result.save(tmp_path / "x.json").read_text("utf-8"))["provenance"]["model"] == text
            if result._svg:
                assert result.png().startswith(b"\x89PNG")
            assert len(repr(result).splitlines()) == 1
            model.name = own
    finally:
        model.name = "gpt2"


@pytest.mark.parametrize("text", [*MARKUP, *HIDDEN, "\ud800"])
@each_bodied
def test_row_2_notes_and_labels(name, text, shell, lend, tmp_path):
    lend("gpt2")
    result = harness.worked(harness.ask("magic", shell, harness.valid(name)))
    changes = {"notes": (text, "second")}
    if hasattr(result, "labels"):
        changes["labels"] = {"0.1": text, "1.0": "induction"}
    if hasattr(result, "glyphs"):
        changes["glyphs"] = {1: text}
    everything(dataclasses.replace(result, **changes), tmp_path)
    named = dataclasses.replace(result.provenance, device=text, dtype=text, technique=text, user_hooks=(text,))
    everything(dataclasses.replace(result, provenance=named), tmp_path)


@pytest.mark.parametrize("text", ["\ud800", RTL, NUL, BREAKS, "\x7f"])
@pytest.mark.parametrize("door", harness.DOORS)
def test_row_2_a_model_gets_a_name_that_can_be_printed(door, text, shell, folder, clean_session):
    if door == "magic":
        clean_session.load(folder("gpt2"), name=f"a{text}b")
    else:
        harness.worked(
            harness.ask(door, shell, harness.Cell("load", {"source": str(folder("gpt2")), "name": f"a{text}b"}))
        )
    (name,) = clean_session.models
    assert clean_session.get().name == name == clean_session.current
    assert name.isprintable()
    assert name.startswith("a")
    assert "⟨U+" in name
    harness.worked(harness.ask("magic", shell, f'%interp use "{name}"'))
    everything_of = harness.worked(harness.ask("magic", shell, "%interp models"))
    assert name in everything_of.text()


@pytest.mark.parametrize("text", [*MARKUP, *HIDDEN])
@pytest.mark.parametrize("name", sorted({"models", "status", "help"} & set(harness.commands())))
def test_row_2_tables_of_the_session(name, text, shell, lend, tmp_path):
    model = lend("gpt2")
    try:
        model.name = text
        from interp.interface.session import session

        session.models.clear()
        session.models[text] = model
        session.current = text
        result = harness.worked(harness.ask("python", shell, harness.Cell(name)))
        everything(result, tmp_path)
        everything(dataclasses.replace(result, title=text, columns=(text,), rows=((text,),)), tmp_path)
    finally:
        model.name = "gpt2"


@pytest.mark.parametrize("text", [SCRIPT, RTL, NUL, BREAKS, "\ud800"])
def test_row_2_a_name_in_an_error_stays_one_line(text, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        for cell in (
            harness.Cell("use", {"name": text}),
            harness.Cell("help", {"command": text}),
            harness.Cell("load", {"source": text}),
        ):
            message = harness.refused(harness.ask("python", shell, cell))
            assert FORBIDDEN.search(message) is None, message
    try:
        model.name = text
        message = harness.refused(harness.ask("python", shell, harness.valid("attention", layer=99)))
        message = harness.refused(harness.ask("python", shell, harness.valid("attention", model="other")))
        assert FORBIDDEN.search(message) is None, message
    finally:
        model.name = "gpt2"


# -- row 5 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["😀", "漢", "é", "👩‍🚀", "\U0001f1e9\U0001f1ea"])
@each_bodied
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_row_5_a_character_split_into_bytes(family, name, character, shell, lend, tmp_path):
    model = lend(family)
    with harness.unharmed(model, shell):
        result = harness.worked(harness.ask("magic", shell, harness.valid(name, family, text=f"a{character}b")))
        shown = everything(result, tmp_path)
        if not hasattr(result, "glyphs"):
            return
        parts = [n for n, token in enumerate(result.tokens) if token.startswith("\\x")]
        assert [int(result.tokens[n][2:], 16) for n in parts] == list(character.encode())
        assert set(result.glyphs) == set(parts)
        assert "".join(dict.fromkeys(result.glyphs[n] for n in parts)) == "".join(dict.fromkeys(character))
        for how, text in shown.items():
            if "html" in how:
                assert "\\x" + f"{character.encode()[0]:02X}" in text
                if "\u200d" not in character:
                    assert character[0] in text, how


def test_row_5_no_two_tokens_look_the_same(lend):
    model = lend("gpt2")
    vocabulary = [model.tokens.string(n) for n in range(model.geometry.d_vocab)]
    assert len({visible(token, None) for token in vocabulary}) == len(set(vocabulary))
    assert len(set(labels(sorted(set(vocabulary)), 12))) == len(set(vocabulary))
    twins = [
        "a",
        "а",
        " a",
        "\u00a0a",
        "a\u200b",
        "é",
        "e\u0301",
        "\\xF0",
        "␣a",
        "⟨U+200B⟩",
        "",
        "\n",
        "↵",
        "…",
        HUGE,
        HUGE + "x",
    ]
    assert len({visible(token, None) for token in twins}) == len(twins)
    assert len(set(labels(twins, 9))) == len(twins)


def test_row_5_a_token_that_spells_an_escape_is_not_taken_for_a_byte(lend):
    model = lend("gpt2", added=["\\xF0"])
    escape = model.tokens.tokenizer.convert_tokens_to_ids("\\xF0")
    byte = model.tokens.encode(Prompt("😀", bos=False)).ids[0]
    assert escape != byte
    one, other = model.tokens.string(escape), model.tokens.string(byte)
    assert one != other or visible(one) != visible(other), "a typed \\xF0 and the byte F0 look the same"


# -- rows 6 and 7 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["\ud800", "a \udfff b", "ok\ud83d", "\ude00\ud83d", "x" * 50 + "\udc80"])
@pytest.mark.parametrize("door", harness.DOORS)
@each_bodied
def test_row_6_a_lone_surrogate(name, door, text, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        before = model.forwards
        outcome = harness.ask(door, shell, harness.valid(name, text=text), direct=True)
        code = next(c for c in text if "\ud800" <= c <= "\udfff")
        message = harness.refused(outcome, "surrogate", f"U+{ord(code):04X}", str(text.index(code)))
        message.encode("utf-8")
        assert model.forwards == before


@each_bodied
def test_row_7_a_token_of_100_000_characters(name, hostile, shell, tmp_path):
    assert len(HUGE) == 100_000
    with harness.unharmed(hostile, shell):
        cell = harness.valid(name, text=f"Mary{HUGE}gave{HUGE}")
        result = harness.worked(harness.ask("magic", shell, cell))
        shown = everything(result, tmp_path)
        assert len(result.text()) < 10_000
        assert len(repr(result)) < 1_000
        assert len(result.html()) < 1_000_000
        if not hasattr(result, "tokens"):
            return
        assert HUGE in result.tokens
        assert "…" in shown["html"]
        assert HUGE in result.html(), "the full text can be had nowhere"
        words = re.sub(r"""(title|aria-label)=(".*?"|'.*?')|<title>.*?</title>""", "", result.html())
        assert HUGE[:2000] not in words, "the full text is in the picture itself"
        if result._svg:
            assert len(result.svg()) < 1_000_000
            assert result.png().startswith(b"\x89PNG")


def test_row_7_a_predicted_token_of_100_000_characters(lend, shell, tmp_path):
    lend("gpt2")
    result = harness.worked(harness.ask("magic", shell, harness.valid("predict")))
    everything(dataclasses.replace(result, top=[(HUGE, 1, 0.5), *result.top[1:]]), tmp_path)
    assert len(repr(dataclasses.replace(result, top=[(HUGE, 1, 0.5)]))) < 1_000
    assert len(dataclasses.replace(result, top=[(HUGE, 1, 0.5)]).text()) < 10_000


# -- row 8 -------------------------------------------------------------------------------------------------------------


def per_token(result):
    """Return the names of the fields that have one entry per token, `tokens` aside."""
    count = len(result.tokens)
    found = []
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if field.name in {"tokens", "provenance", "notes", "_live"}:
            continue
        if (isinstance(value, np.ndarray) and count in value.shape) or (
            isinstance(value, tuple | list) and len(value) == count and count > 6
        ):
            found.append(field.name)
    return found


@pytest.mark.parametrize("change", [+1, -1, +5, 0])
@each_bodied
def test_row_8_more_or_fewer_tokens_than_the_matrix_has(name, change, shell, lend):
    model = lend("gpt2")
    with harness.unharmed(model, shell):
        cell = harness.valid(name, text="Mary gave the drink to John and")
        result = harness.worked(harness.ask("magic", shell, cell))
        if not (isinstance(result, Result) and hasattr(result, "tokens") and per_token(result)):
            pytest.skip("nothing in it has one entry per token")
        count = len(result.tokens)
        other = (*result.tokens, *["x"] * 5)[: count + change] if change else ()
        with pytest.raises(InputError) as caught:
            dataclasses.replace(result, tokens=other).html()
        for size in (count, len(other)):
            assert str(size) in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
